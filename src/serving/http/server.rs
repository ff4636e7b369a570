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
