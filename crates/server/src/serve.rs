//! From a listener to connections, and their orderly end.
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower::util::MapRequest;

use crate::lifecycle::Stage;
use crate::router;
use crate::state::ServerState;

/// Who a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// How long connections may take to send their last bytes after everything was cancelled.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A client that takes no byte for so long is gone, whatever its connection says; its slot is needed.
const STALLED: Duration = Duration::from_secs(60);

/// Rest after a failure to accept that will happen again at once, such as too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(250);

/// Serves connections of `listener` until `shutdown` ends; then drains: nothing new is accepted, idle connections
/// are closed, running answers get [`crate::ServerOptions::drain_timeout`] and are then cancelled with an error.
///
/// # Errors
/// What the listener says when it cannot work at all; failures of single connections are logged.
pub async fn serve<F>(listener: TcpListener, state: ServerState, shutdown: F) -> io::Result<()>
where
    F: Future<Output = ()>,
{
    tracing::info!(address = %listener.local_addr()?, "listening");
    let connections = GracefulShutdown::new();
    let service = router(state.clone());
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(state.options().header_timeout);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let mut stream = TimeoutStream::new(without_delay(stream));
                stream.set_write_timeout(Some(STALLED));
                let io = TokioIo::new(Box::pin(stream));
                let named = MapRequest::new(service.clone(), move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(Peer(peer));
                    request
                });
                let connection = connections.watch(builder.serve_connection(io, TowerToHyperService::new(named)));
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                });
            }
            Err(error) => rest_after(&error).await,
        }
    }
    drop(listener);
    drain(connections, &state).await;
    Ok(())
}

/// Frames are small and must leave at once.
fn without_delay(stream: TcpStream) -> TcpStream {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection keeps its delay");
    }
    stream
}

async fn rest_after(error: &io::Error) {
    let is_of_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    );
    if !is_of_connection {
        tracing::warn!(%error, "no connection can be accepted; trying again");
        sleep(ACCEPT_REST).await;
    }
}

async fn drain(connections: GracefulShutdown, state: &ServerState) {
    let drain_timeout = state.options().drain_timeout;
    tracing::info!(connections = connections.count(), "stopping; running answers may end in {drain_timeout:?}");
    state.lifecycle().advance(Stage::Draining);
    let mut closing = pin!(connections.shutdown());
    if timeout(drain_timeout, &mut closing).await.is_ok() {
        return;
    }
    tracing::warn!("answers still run after {drain_timeout:?}; they are cancelled");
    state.lifecycle().advance(Stage::Cancelled);
    if timeout(LAST_WORDS, &mut closing).await.is_err() {
        tracing::warn!("connections that do not read are left behind");
    }
}
