//! Sockets that somebody else has bound and passed to this process.

use std::env;
use std::fmt;
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use super::Listener;

/// The name of a socket where names are not told.
const UNKNOWN: &str = "unknown";

/// The sockets that were passed, by name.
///
/// What is not taken is closed when this is dropped: clients of a socket of which nobody takes care would
/// wait for ever.
#[derive(Debug, Default)]
pub struct PassedSockets(Vec<(String, Passed)>);

#[derive(Debug)]
enum Passed {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
    /// Not a socket, or one of which no connection comes.
    Other,
    Taken,
}

impl PassedSockets {
    /// Those that `LISTEN_FDS` and `LISTEN_FDNAMES` tell of, if `LISTEN_PID` means this process.
    ///
    /// It must be called before the process has a second thread, since it takes these variables away, and so
    /// gives the sockets to the first caller alone.
    pub fn from_env() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let mut fds = ListenFd::from_env();
        let sockets = (0..fds.len()).map(|at| {
            let name = names.next().unwrap_or(UNKNOWN).to_owned();
            // What is of another type stays where it is.
            let passed = match fds.take_tcp_listener(at) {
                Ok(Some(socket)) if listens(&socket) => Passed::Tcp(socket),
                Ok(_) => Passed::Other,
                Err(_) => match fds.take_unix_listener(at) {
                    Ok(Some(socket)) if listens(&socket) => Passed::Unix(socket),
                    _ => Passed::Other,
                },
            };
            (name, passed)
        });
        Self(sockets.collect())
    }

    /// The names of those that nobody has taken.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let unused = self.0.iter().filter(|(_, socket)| !matches!(socket, Passed::Taken));
        unused.map(|(name, _)| name.as_str())
    }

    pub(super) fn take(&mut self, name: &str) -> Result<Listener, PassedError> {
        let error = |kind, cause| PassedError { kind, name: name.into(), cause };
        let mut named = self.0.iter_mut().filter(|(other, _)| other == name);
        let (found, others) = (named.next(), named.count());
        let Some((_, socket)) = found else {
            let names: Vec<_> = self.unused().map(Into::into).collect();
            return Err(error(PassedErrorKind::Missing(names), None));
        };
        if others > 0 {
            return Err(error(PassedErrorKind::Several, None));
        }
        let io = |cause| error(PassedErrorKind::Io, Some(cause));
        match std::mem::replace(socket, Passed::Taken) {
            Passed::Tcp(socket) => {
                socket.set_nonblocking(true).map_err(io)?;
                TcpListener::from_std(socket).map(Listener::Tcp).map_err(io)
            }
            Passed::Unix(socket) => {
                socket.set_nonblocking(true).map_err(io)?;
                UnixListener::from_std(socket).map(Listener::Unix).map_err(io)
            }
            Passed::Other => Err(error(PassedErrorKind::Other, None)),
            Passed::Taken => Err(error(PassedErrorKind::Taken, None)),
        }
    }
}

/// Whether connections come from the socket; where that cannot be asked, `accept` will tell.
fn listens(socket: impl AsFd) -> bool {
    #[cfg(not(target_vendor = "apple"))]
    return rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false);
    #[cfg(target_vendor = "apple")]
    {
        let _ = socket;
        true
    }
}

/// Why a passed socket cannot be had.
#[derive(Debug)]
pub struct PassedError {
    kind: PassedErrorKind,
    name: String,
    cause: Option<io::Error>,
}

#[derive(Debug)]
enum PassedErrorKind {
    /// There are only these.
    Missing(Vec<String>),
    Several,
    Other,
    Taken,
    Io,
}

impl fmt::Display for PassedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.kind {
            PassedErrorKind::Missing(others) if others.is_empty() => write!(
                f,
                "no socket was passed; a systemd.socket unit with FileDescriptorName={name} does that"
            ),
            PassedErrorKind::Missing(others) => {
                write!(f, "no socket {name} was passed, but {}", others.join(", "))
            }
            PassedErrorKind::Several => {
                write!(
                    f,
                    "several sockets {name} were passed; a listener takes one, so give each its name"
                )
            }
            PassedErrorKind::Other => {
                write!(f, "what was passed as {name} is no socket of TCP or Unix that listens")
            }
            PassedErrorKind::Taken => write!(f, "the socket {name} has another listener"),
            PassedErrorKind::Io => write!(f, "the socket {name} cannot be used"),
        }
    }
}

impl std::error::Error for PassedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
