//! Unix sockets: made so that nobody is shut out who listens, and nobody let in too early.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// How many connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Makes a Unix socket with these permissions, which listens and does not block.
///
/// A socket that is there is replaced if nobody listens on it. The folder is locked for that moment, so that
/// of two processes that find the same one left, the second sees that the first listens.
///
/// # Errors
///
/// See [`BindErrorKind`].
pub fn bind_unix(path: &Path, mode: u32) -> Result<(UnixListener, Placed), BindError> {
    let error = |kind| move |cause| BindError { kind, path: path.into(), cause: Some(cause) };
    let address = SockAddr::unix(path).map_err(error(BindErrorKind::PathTooLong))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or_else(|| Path::new(".")));
    let folder = folder.map_err(error(BindErrorKind::Io))?;
    folder.lock().map_err(error(BindErrorKind::Io))?;
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {
            if is_live(path).map_err(error(BindErrorKind::Io))? {
                return Err(BindError {
                    kind: BindErrorKind::InUse,
                    path: path.into(),
                    cause: None,
                });
            }
            fs::remove_file(path).map_err(error(BindErrorKind::Io))?;
        }
        Ok(_) => {
            let kind = BindErrorKind::NotASocket;
            return Err(BindError { kind, path: path.into(), cause: None });
        }
        Err(_) => {}
    }
    listen(path, &address, mode).map_err(error(BindErrorKind::Io))
}

/// Whether somebody listens on the socket. What is in doubt is an error.
fn is_live(path: &Path) -> io::Result<bool> {
    // One whose queue is full would make this wait.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Ok(false),
            ErrorKind::WouldBlock => Ok(true),
            // Of another type, such as for datagrams.
            _ => Err(error),
        },
    }
}

/// Nobody reaches the socket before it listens, and by then it has its permissions.
fn listen(path: &Path, address: &SockAddr, mode: u32) -> io::Result<(UnixListener, Placed)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(address)?;
    let placed = Placed::new(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), placed))
}

/// The name of a socket, which is removed when this is dropped, unless another one has it by then.
#[derive(Debug)]
pub struct Placed {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Placed {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: identity(path)? })
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // One that stays does no harm: the next process replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The error of making a Unix socket.
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
    /// Another process listens on it.
    InUse,
    /// The operating system refused.
    Io,
}

impl BindError {
    pub(crate) fn io(path: &Path, cause: io::Error) -> Self {
        Self { kind: BindErrorKind::Io, path: path.into(), cause: Some(cause) }
    }

    /// What kind it is.
    pub const fn kind(&self) -> BindErrorKind {
        self.kind
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.kind {
            BindErrorKind::PathTooLong => write!(
                f,
                "{path} is too long for a Unix socket; a folder with a shorter path has one"
            ),
            BindErrorKind::NotASocket => write!(f, "{path} is there and is no socket"),
            BindErrorKind::InUse => write!(f, "another process listens on {path}"),
            BindErrorKind::Io => write!(f, "cannot make the socket {path}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
