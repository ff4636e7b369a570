# deberta-serve for CPUs; see docs/serving.md. A model is mounted at /model, or named with --model.
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --features serve,hub --bin deberta-serve

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/release/deberta-serve /usr/local/bin/deberta-serve
ENV DEBERTA_LISTEN=0.0.0.0:3000 DEBERTA_MODEL=/model
EXPOSE 3000
ENTRYPOINT ["/usr/local/bin/deberta-serve"]
