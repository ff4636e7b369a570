//! Connections, and the end of the server.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::App;

/// How long a client may take to send the headers of a request.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// Accepts connections until `stop` is done. Then `/ready` says no, and after the delay no connection is accepted any more;
/// requests under way may end within the timeout. Returns whether they all did.
pub async fn serve(app: App, listener: TcpListener, stop: impl Future<Output = ()>) -> bool {
    let router = app.router();
    let connections = Arc::new(Semaphore::new(app.settings.max_connections));
    let graceful = GracefulShutdown::new();
    let drained = async {
        stop.await;
        app.draining.store(true, Ordering::Relaxed);
        sleep(app.settings.drain_delay).await;
    };
    tokio::pin!(drained);
    loop {
        let accept = async {
            let permit = connections.clone().acquire_owned().await.expect("never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = &mut drained => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, for one: connections that end free some.
                tracing::warn!(%error, "no connection accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Answers are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that leaves is no error of the server.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => true,
        () = sleep(app.settings.drain_timeout) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
        path::Path,
        thread,
    };

    use burn::tensor::Device;
    use tokio::{runtime::Runtime, sync::oneshot, task::spawn_blocking};

    use super::*;
    use crate::{
        Result,
        batch::Encoding,
        pipeline::PipelineOptions,
        serving::{
            Loaded, Metrics, Service, ServiceOptions,
            http::{HttpSettings, Keys, Origins},
            scheduler::{BatchReport, Scheduler, Settings},
        },
    };

    /// `models/deberta-tiny`, which panics for texts of many tokens.
    fn service(report: impl Fn(BatchReport) + Send + 'static) -> Result<Service> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/deberta-tiny");
        let options = ServiceOptions {
            model: folder.to_string_lossy().into_owned(),
            tokenizer: None,
            task: None,
            pipeline: PipelineOptions::new(Device::flex()),
            budget: Some(256),
            max_waiting: 10_000,
            cache_bytes: 0,
            tokenization_threads: 1,
        };
        let service = Service::new(options, Arc::new(Metrics::default()))?;
        service.load()?;
        let model = service.loaded().expect("it was loaded").model.clone();
        let worker = model.clone();
        let forward = move |batch: &[&Encoding]| {
            assert!(batch.iter().all(|encoding| encoding.len() < 20), "a bug of the model");
            worker.forward(batch)
        };
        let settings = Settings { budget: 256, rate: 1000.0, max_waiting: 10_000, cache_bytes: 0 };
        service.replace(Loaded { model, scheduler: Scheduler::start(forward, report, settings) });
        Ok(service)
    }

    fn settings() -> HttpSettings {
        HttpSettings {
            keys: Keys::default(),
            payload_limit: 10_000,
            max_connections: 8,
            origins: Origins::default(),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
        }
    }

    /// Lets clients ask a server until they are content.
    fn with_server(service: Service, clients: impl FnOnce(SocketAddr) + Send + 'static) {
        Runtime::new().expect("threads").block_on(async {
            let app = App::new(Arc::new(service), settings());
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let (stop, stopped) = oneshot::channel::<()>();
            let server = tokio::spawn(serve(app, listener, async { drop(stopped.await) }));
            spawn_blocking(move || clients(address)).await.expect("content clients");
            stop.send(()).expect("the server waits for it");
            assert!(server.await.expect("no panic outside the model"));
        });
    }

    /// The whole answer to a request with these first lines.
    fn send(address: SocketAddr, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("a connection");
        let length = body.len();
        write!(stream, "{head}\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// The whole answer to a question about this text.
    fn ask(address: SocketAddr, text: &str) -> String {
        send(address, "POST /fill_mask HTTP/1.1", &format!("{{\"inputs\": \"{text}\"}}"))
    }

    const GOOD: &str = "Time [MASK] like an arrow.";

    fn bad() -> String {
        format!("a [MASK] {}", "word ".repeat(30))
    }

    #[test]
    fn a_panic_of_the_model_fails_its_request_alone() {
        with_server(service(|_| {}).expect("the model"), |address| {
            let bad = bad();
            // Several at once share batches.
            thread::scope(|scope| {
                let clients = [GOOD, &bad, GOOD, &bad, GOOD].map(|text| scope.spawn(move || ask(address, text)));
                for (index, client) in clients.into_iter().enumerate() {
                    let answer = client.join().expect("a client");
                    let status = if index % 2 == 0 { "HTTP/1.1 200 " } else { "HTTP/1.1 500 " };
                    assert!(answer.starts_with(status), "{index}: {answer}");
                    assert_eq!(answer.contains("the model panicked"), index % 2 == 1, "{index}: {answer}");
                }
            });
            // The same for the inputs of one request, each of which has its line.
            let body = format!("{{\"inputs\": [\"{GOOD}\", \"{bad}\"]}}");
            let answer = send(address, "POST /fill_mask HTTP/1.1\r\naccept: application/x-ndjson", &body);
            assert!(answer.contains("{\"index\":0,\"result\":"), "{answer}");
            assert!(answer.contains("{\"index\":1,\"error\":\"the model panicked"), "{answer}");
            let answer = ask(address, GOOD);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        });
    }

    #[test]
    fn a_model_thread_that_ends_makes_the_server_unready() {
        with_server(service(|_| panic!("a bug of the server")).expect("the model"), |address| {
            let ready = || send(address, "GET /ready HTTP/1.1", "");
            assert!(ready().starts_with("HTTP/1.1 200 "));
            // The thread ends between the rows of its first batch and the next one.
            assert!(ask(address, GOOD).starts_with("HTTP/1.1 200 "));
            let late = ask(address, GOOD);
            assert!(late.starts_with("HTTP/1.1 500 ") || late.starts_with("HTTP/1.1 503 "), "{late}");
            let answer = ready();
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("SIGHUP loads the model"), "{answer}");
        });
    }
}
