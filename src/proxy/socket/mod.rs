//! Where a listener is bound: an address, a Unix socket, or a socket that somebody else has bound.
//!
//! | written | what it is |
//! |---|---|
//! | `127.0.0.1:8080`, `[::1]:8080` | TCP |
//! | `unix:/run/hookgate/gate.sock` | a Unix socket ([`bind_unix`]) |
//! | `systemd:gate` | the socket of this name that was passed ([`PassedSockets`]) |
//!
//! 1. **A peer on a Unix socket has no address.** Who may connect is decided by the mode of the socket and
//!    of its folder.
//! 2. **A socket that a dead process left** is replaced, one on which a process listens is not.
//! 3. **Passed sockets** are what [systemd](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html)
//!    and other supervisors hand over, so that a port below 1024 needs no rights and clients wait through a
//!    restart. They are taken by name: their order would change with the unit file.

mod passed;
mod stream;
#[cfg(test)]
mod tests;
mod unix;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use socket2::SockAddr;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

pub use self::passed::{PassedError, PassedSockets};
pub use self::stream::Stream;
pub use self::unix::{BindError, BindErrorKind, Placed, bind_unix};

/// What an address of a Unix socket begins with.
const UNIX: &str = "unix:";

/// What stands before the name of a passed socket.
const PASSED: &str = "systemd:";

/// How many connections the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddress {
    /// An address and a port.
    Ip(SocketAddr),
    /// The path of a Unix socket; empty for one that was passed and has none.
    Unix(PathBuf),
    /// The name of a socket that is passed.
    Passed(String),
}

impl ListenAddress {
    /// Reads what is written as in the [module docs](self). A relative path belongs to `folder`, if there is
    /// one.
    ///
    /// # Errors
    ///
    /// It is none of these, or the path is too long for a Unix socket.
    pub fn parse(text: &str, folder: Option<&Path>) -> Result<Self, AddressError> {
        if let Some(name) = text.strip_prefix(PASSED) {
            let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b':';
            return if (1..=255).contains(&name.len()) && name.bytes().all(is_name) {
                Ok(Self::Passed(name.into()))
            } else {
                Err(AddressError::Name)
            };
        }
        let Some(path) = text.strip_prefix(UNIX) else {
            return text.parse().map(Self::Ip).map_err(|_| AddressError::Malformed);
        };
        if path.is_empty() || path.ends_with('/') {
            return Err(AddressError::Path);
        }
        let path = folder.map_or_else(|| path.into(), |folder| folder.join(path));
        check_path(&path)?;
        Ok(Self::Unix(path))
    }

    /// The address, if it is one of TCP.
    pub const fn as_ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) | Self::Passed(_) => None,
        }
    }

    /// Whether no other machine reaches it, as far as it tells.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ip(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
            Self::Passed(_) => false,
        }
    }

    /// What stands before the path in a URL of this listener: `http://127.0.0.1:8080`,
    /// `unix:/run/gate.sock:`, or for want of anything better the name of the socket.
    pub fn origin(&self, tls: bool) -> String {
        match self {
            Self::Ip(address) => format!("{}://{address}", if tls { "https" } else { "http" }),
            Self::Unix(_) => format!("{self}:"),
            Self::Passed(_) => self.to_string(),
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

/// As it is written.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Passed(name) => write!(f, "{PASSED}{name}"),
        }
    }
}

/// Whether a Unix socket can have this path.
///
/// # Errors
///
/// It is too long, or has a zero byte.
pub fn check_path(path: &Path) -> Result<(), AddressError> {
    SockAddr::unix(path).map(drop).map_err(|_| AddressError::TooLong)
}

/// What is wrong with where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing that can be listened on.
    Malformed,
    /// No path, or one of a folder.
    Path,
    /// A path that is too long for a Unix socket.
    TooLong,
    /// No name of a passed socket.
    Name,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => {
                "expected an address and a port such as 127.0.0.1:8080 or [::1]:8080, a Unix socket such as \
                 unix:/run/hookgate/gate.sock, or a passed socket such as systemd:gate"
            }
            Self::Path => "expected the path of a socket such as unix:/run/hookgate/gate.sock",
            Self::TooLong => {
                "the path is too long for a Unix socket, which has at most some 100 bytes with all its folders"
            }
            Self::Name => {
                "expected the name of a passed socket such as systemd:gate, as FileDescriptorName= has it"
            }
        })
    }
}

impl std::error::Error for AddressError {}

/// A socket that listens.
#[derive(Debug)]
pub struct Socket {
    listener: Listener,
    address: ListenAddress,
    /// The name of a socket that was made here.
    _placed: Option<Placed>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    /// Binds `address`, or takes it from `passed`. A Unix socket that is made gets `mode`; it is removed when
    /// this is dropped.
    ///
    /// # Errors
    ///
    /// The operating system refuses, [`BindError`], or [`PassedError`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn bind(
        address: &ListenAddress,
        mode: u32,
        passed: &mut PassedSockets,
    ) -> Result<Self, SocketError> {
        let (listener, placed) = match address {
            ListenAddress::Ip(address) => (Listener::Tcp(bind_tcp(*address)?), None),
            ListenAddress::Unix(path) => {
                let (socket, placed) = bind_unix(path, mode)?;
                (Listener::Unix(UnixListener::from_std(socket)?), Some(placed))
            }
            ListenAddress::Passed(name) => (passed.take(name)?, None),
        };
        let address = match &listener {
            Listener::Tcp(socket) => ListenAddress::Ip(socket.local_addr()?),
            Listener::Unix(socket) => {
                let address = socket.local_addr()?;
                ListenAddress::Unix(address.as_pathname().unwrap_or_else(|| Path::new("")).into())
            }
        };
        Ok(Self { listener, address, _placed: placed })
    }

    /// Where it listens; never a name.
    pub const fn local_addr(&self) -> &ListenAddress {
        &self.address
    }

    /// The next connection, with its peer's address if that has one.
    ///
    /// # Errors
    ///
    /// As of `accept(2)`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    pub async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        Ok(match &self.listener {
            Listener::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                (Stream::Tcp(stream), Some(peer.ip()))
            }
            Listener::Unix(socket) => (Stream::Unix(socket.accept().await?.0), None),
        })
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Or a restart would have to wait for the connections of its forerunner to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The error of [`Socket::bind`]. Its text and its source are those of what went wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum SocketError {
    /// The operating system refused.
    Io(io::Error),
    /// A Unix socket cannot be made.
    Unix(BindError),
    /// A socket was not passed, or is of no use.
    Passed(PassedError),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Unix(error) => error.fmt(f),
            Self::Passed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SocketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => error.source(),
            Self::Unix(error) => error.source(),
            Self::Passed(error) => error.source(),
        }
    }
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BindError> for SocketError {
    fn from(error: BindError) -> Self {
        Self::Unix(error)
    }
}

impl From<PassedError> for SocketError {
    fn from(error: PassedError) -> Self {
        Self::Passed(error)
    }
}
