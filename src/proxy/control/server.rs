//! The socket and its connections.

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Control;

/// Operators are few.
const CONNECTIONS: usize = 16;
const BACKLOG: i32 = 64;

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

/// The name of a socket that is removed in the end.
#[derive(Debug)]
struct Placed(PathBuf);

impl ControlServer {
    /// Makes the socket, with mode 0600. Whoever calls this holds the lock on its folder: a socket that is
    /// there was left by a process that is gone, and is replaced.
    ///
    /// # Errors
    ///
    /// See [`BindErrorKind`]. A gate can do without.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn bind(path: &Path, control: Control) -> Result<Self, BindError> {
        let error = |kind| move |cause| BindError { kind, path: path.into(), cause: Some(cause) };
        let address = SockAddr::unix(path).map_err(error(BindErrorKind::PathTooLong))?;
        match fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_socket() => {
                fs::remove_file(path).map_err(error(BindErrorKind::Io))?;
            }
            Ok(_) => {
                let kind = BindErrorKind::NotASocket;
                return Err(BindError { kind, path: path.into(), cause: None });
            }
            Err(_) => {}
        }
        let (socket, placed) = listen(path, &address).map_err(error(BindErrorKind::Io))?;
        let socket = UnixListener::from_std(socket).map_err(error(BindErrorKind::Io))?;
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

/// Nobody reaches the socket before it listens, and by then it is for its owner alone.
fn listen(path: &Path, address: &SockAddr) -> io::Result<(StdListener, Placed)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(address)?;
    let placed = Placed(path.into());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), placed))
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

impl Drop for Placed {
    fn drop(&mut self) {
        // Whether it is there does no harm: the next process replaces it.
        let _ = fs::remove_file(&self.0);
    }
}

/// The error of making the socket.
#[derive(Debug)]
pub struct BindError {
    kind: BindErrorKind,
    path: PathBuf,
    cause: Option<io::Error>,
}

/// What kind of [`BindError`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindErrorKind {
    /// A Unix socket's path has at most some 100 bytes.
    PathTooLong,
    /// There is something else of that name.
    NotASocket,
    /// The operating system refused.
    Io,
}

impl BindError {
    /// What kind it is.
    pub fn kind(&self) -> BindErrorKind {
        self.kind
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.kind {
            BindErrorKind::PathTooLong => write!(
                f,
                "{path} is too long for a Unix socket; a state folder with a shorter path has one"
            ),
            BindErrorKind::NotASocket => write!(f, "{path} is there and is no socket"),
            BindErrorKind::Io => write!(f, "cannot make the socket {path}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
