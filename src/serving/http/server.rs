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
use crate::Result;

/// How long a client may take to send the headers of a request.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// Accepts connections until `stop` is done. Then `/ready` says no, and after the delay no connection is accepted any more;
/// requests under way may end within the timeout. Returns whether they all did.
///
/// # Errors
/// Settings that cannot be.
pub async fn serve(app: App, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<bool> {
    let router = app.router()?;
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
        () = graceful.shutdown() => Ok(true),
        () = sleep(app.settings.drain_timeout) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
        path::Path,
    };

    use burn::tensor::Device;
    use tokio::{runtime::Runtime, sync::oneshot, task::spawn_blocking};

    use super::*;
    use crate::{
        batch::Encoding,
        pipeline::PipelineOptions,
        serving::{
            Loaded, Metrics, Service, ServiceOptions,
            http::{HttpSettings, Keys},
            scheduler::{Scheduler, Settings},
        },
    };

    /// `models/deberta-tiny`, which panics for texts of many tokens.
    fn service() -> Result<Service> {
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
        service.replace(Loaded { model, scheduler: Scheduler::start(forward, |_| {}, settings) });
        Ok(service)
    }

    fn settings() -> HttpSettings {
        HttpSettings {
            keys: Keys::default(),
            payload_limit: 10_000,
            max_connections: 8,
            cors: Vec::new(),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
        }
    }

    /// The whole answer to a question about this text.
    fn ask(address: SocketAddr, text: &str) -> String {
        let body = format!("{{\"inputs\": \"{text}\"}}");
        let head = "POST /fill_mask HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length:";
        let mut stream = TcpStream::connect(address).expect("a connection");
        write!(stream, "{head} {}\r\n\r\n{body}", body.len()).expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    #[test]
    fn a_panic_of_the_model_fails_its_request_alone() {
        Runtime::new().expect("threads").block_on(async {
            let app = App::new(Arc::new(service().expect("the model")), settings());
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let (stop, stopped) = oneshot::channel::<()>();
            let server = tokio::spawn(serve(app, listener, async { drop(stopped.await) }));
            let (good, bad) = ("Time [MASK] like an arrow.".to_owned(), format!("a [MASK] {}", "word ".repeat(30)));
            // Several at once share batches.
            let clients = [&good, &bad, &good, &bad, &good].map(|text| {
                let text = text.clone();
                spawn_blocking(move || ask(address, &text))
            });
            for (index, client) in clients.into_iter().enumerate() {
                let answer = client.await.expect("a client");
                let status = if index % 2 == 0 { "HTTP/1.1 200 " } else { "HTTP/1.1 500 " };
                assert!(answer.starts_with(status), "{index}: {answer}");
                assert_eq!(answer.contains("the model panicked"), index % 2 == 1, "{index}: {answer}");
            }
            let answer = spawn_blocking(move || ask(address, &good)).await.expect("a client");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            stop.send(()).expect("the server waits for it");
            assert!(server.await.expect("no panic outside the model").expect("it served"));
        });
    }
}
