//! The socket and its connections.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Control;
use crate::proxy::socket::{BindError, Placed, bind_unix};

/// Operators are few.
const CONNECTIONS: usize = 16;

/// How long the head of a request may take, and all of a connection, which serves one request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(90);

/// How large a head may be.
const MAX_HEAD: usize = 64 << 10;

/// How long open requests may take once the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How long accepting pauses when it fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket on which a [`Control`] is ready to answer. Dropping it removes the socket.
#[derive(Debug)]
pub struct ControlServer {
    socket: UnixListener,
    control: Control,
    _path: Placed,
}

impl ControlServer {
    /// Makes the socket, with mode 0600. One that was left by a process that is gone is replaced.
    ///
    /// # Errors
    ///
    /// See [`BindErrorKind`](crate::proxy::socket::BindErrorKind). A gate can do without.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn bind(path: &Path, control: Control) -> Result<Self, BindError> {
        let (socket, placed) = bind_unix(path, 0o600)?;
        let socket = UnixListener::from_std(socket).map_err(|error| BindError::io(path, error))?;
        Ok(Self { socket, control, _path: placed })
    }

    /// Answers until `shutdown` is ready, then finishes what is open for at most 5 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts every connection; changes that were begun are still done.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { socket, control, _path } = self;
        let mut shutdown = std::pin::pin!(shutdown);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let (stream, place) = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&socket, &places) => accepted,
            };
            while connections.try_join_next().is_some() {}
            let control = control.clone();
            connections.spawn(async move {
                connection(stream, control).await;
                drop(place);
            });
        }
        drop(socket);
        let drained = timeout(DRAIN, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(connections = connections.len(), "operators' requests were cut");
        }
    }
}

/// The next connection, as soon as there is a place for it. Cancel safe.
async fn accept(
    socket: &UnixListener,
    places: &Arc<Semaphore>,
) -> (UnixStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let place = places.clone().acquire_owned().await.ok();
    let mut warned = false;
    loop {
        match socket.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                if !warned {
                    tracing::warn!(%error, "cannot accept an operator's connection, trying again");
                    warned = true;
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, control: Control) {
    let service = service_fn(move |request| {
        let control = control.clone();
        async move { Ok::<_, Infallible>(control.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an operator's connection broke off"),
        Err(_) => tracing::debug!("an operator's connection took too long"),
    }
}
