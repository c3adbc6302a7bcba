//! One bounded read of one file.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Reads a whole file of at most `max_bytes` bytes.
///
/// The file is opened once; that it is a regular file, its size, its bytes and its mode all come
/// from that one descriptor, so nothing can be exchanged in between. Opening never waits, not even
/// for the writer of a named pipe. Memory is taken by the file's real size, and never more than
/// `max_bytes` + 1. A file that is written to meanwhile, or replaced, is read again at once, up to
/// eight times.
///
/// This blocks on the file system: in async code it belongs into `spawn_blocking`.
///
/// # Errors
///
/// See [`ReadErrorKind`].
pub fn read(path: impl AsRef<Path>, max_bytes: u64) -> Result<FileContent, ReadError> {
    const ATTEMPTS: usize = 8;
    for _ in 0..ATTEMPTS {
        if let Some(content) = attempt(path.as_ref(), max_bytes)? {
            return Ok(content);
        }
    }
    Err(ReadError::new(ReadErrorKind::Changing))
}

/// How long a file that looks half written has for its other half.
const SECOND_READ: Duration = Duration::from_millis(250);

/// Reads a file for the first time, when there is nothing yet to keep instead.
///
/// One that does not end with a line end, or of which `is_good` says no, may be half written: it is read
/// again after 250 ms, and what is there then is given as it is. It blocks for that time.
///
/// # Errors
///
/// As [`read`].
pub fn read_settled(
    path: impl AsRef<Path>,
    max_bytes: u64,
    is_good: impl FnOnce(&[u8]) -> bool,
) -> Result<FileContent, ReadError> {
    let content = read(&path, max_bytes)?;
    if is_good(content.bytes()) && content.bytes().ends_with(b"\n") {
        return Ok(content);
    }
    std::thread::sleep(SECOND_READ);
    read(path, max_bytes)
}

/// What [`read`] found. The bytes are wiped from memory when it is dropped.
pub struct FileContent {
    bytes: Zeroizing<Vec<u8>>,
    digest: [u8; 32],
    mode: u32,
    detached: bool,
}

impl FileContent {
    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes.
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The permission bits, such as `0o600`.
    pub const fn mode(&self) -> u32 {
        self.mode
    }

    /// Whether the path leads to a file that no folder holds any more (its link count is zero).
    ///
    /// That is what a container sees after a bind-mounted *file* was replaced on the host: the
    /// mount pins the old file, and no change will ever be seen here. The way out is to mount the
    /// folder instead.
    pub const fn is_detached(&self) -> bool {
        self.detached
    }
}

// The bytes may be keys.
impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileContent")
            .field("len", &self.bytes.len())
            .field("mode", &format_args!("{:#o}", self.mode))
            .field("detached", &self.detached)
            .finish_non_exhaustive()
    }
}

/// Why a file could not be read; [`kind`](Self::kind) tells the cases apart.
///
/// It holds nothing of the file's content.
#[derive(Debug)]
pub struct ReadError {
    kind: ReadErrorKind,
    source: Option<io::Error>,
}

impl ReadError {
    /// Which case it is.
    pub const fn kind(&self) -> ReadErrorKind {
        self.kind
    }

    const fn new(kind: ReadErrorKind) -> Self {
        Self { kind, source: None }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ReadErrorKind::Missing,
            _ => ReadErrorKind::Io,
        };
        Self { kind, source: Some(error) }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ReadErrorKind::Missing => "no such file",
            ReadErrorKind::TooLarge { max_bytes } => {
                return write!(f, "larger than {max_bytes} bytes");
            }
            ReadErrorKind::NotRegular => "not a regular file",
            ReadErrorKind::Changing => "changes all the time while it is read",
            ReadErrorKind::Io => "cannot be read",
        })
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// The cases of [`ReadError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// There is no such file, or a link on the way leads nowhere.
    Missing,
    /// The file has more bytes than the caller allows.
    #[non_exhaustive]
    TooLarge {
        /// What the caller allows.
        max_bytes: u64,
    },
    /// A folder, named pipe, device or the like.
    NotRegular,
    /// Each of several reads met a write or a replacement.
    Changing,
    /// Anything else, such as missing permission: see the error's source.
    Io,
}

/// What is compared to tell whether a reader has to be asked: the content or the error, and beside
/// the content what else a reader may have to say something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Content { digest: [u8; 32], mode: u32, detached: bool },
    Error { kind: ReadErrorKind, os: Option<i32> },
}

impl Seen {
    /// Errors are mostly the middle of a replacement, so one look is not enough to report one. The
    /// same holds for a link count of zero.
    pub(super) const fn is_doubtful(&self) -> bool {
        matches!(self, Self::Error { .. } | Self::Content { detached: true, .. })
    }
}

impl From<&FileContent> for Seen {
    fn from(content: &FileContent) -> Self {
        Self::Content { digest: content.digest, mode: content.mode, detached: content.detached }
    }
}

impl From<&ReadError> for Seen {
    fn from(error: &ReadError) -> Self {
        Self::Error {
            kind: error.kind,
            os: error.source.as_ref().and_then(io::Error::raw_os_error),
        }
    }
}

/// `None` if the file was written to or replaced meanwhile.
fn attempt(path: &Path, max_bytes: u64) -> Result<Option<FileContent>, ReadError> {
    let mut file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(ReadError::new(ReadErrorKind::NotRegular));
    }
    let bytes = read_bounded(&mut file, before.len(), max_bytes)?;
    let after = file.metadata()?;
    // Not ctime: it also moves when only a name or the mode changes.
    let written = |of: &Metadata| (of.size(), of.mtime(), of.mtime_nsec());
    if written(&before) != written(&after) {
        return Ok(None);
    }
    let detached = after.nlink() == 0;
    if detached {
        // A replacement that we just met looks the same, but then the path leads elsewhere.
        let now = fs::metadata(path)?;
        if (now.dev(), now.ino()) != (after.dev(), after.ino()) {
            return Ok(None);
        }
    }
    let digest = Sha256::digest(&*bytes).into();
    Ok(Some(FileContent { bytes, digest, mode: after.mode() & 0o7777, detached }))
}

/// Reads to the end. Never through a growing `Vec`, which would leave copies behind.
fn read_bounded(
    file: &mut File,
    expected: u64,
    max_bytes: u64,
) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let too_large = || ReadError::new(ReadErrorKind::TooLarge { max_bytes });
    let room = |len: u64| usize::try_from(len.saturating_add(1)).map_err(|_| too_large());
    if expected > max_bytes {
        return Err(too_large());
    }
    let mut bytes = Zeroizing::new(vec![0; room(expected)?]);
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        }
        if filled as u64 > max_bytes {
            return Err(too_large());
        }
        if filled == bytes.len() {
            // It grew, or it is one of those that say they have no size, as in /proc.
            let len = room(max_bytes.min(filled as u64 * 2))?;
            let mut larger = Zeroizing::new(vec![0; len]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Opening a named pipe for reading waits for a writer without it. The value is part of each
/// system's ABI; `std` does not name it, and it is not worth a dependency.
#[cfg(any(target_os = "linux", target_os = "android"))]
const O_NONBLOCK: i32 = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    0x80
} else if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) {
    0x4000
} else {
    0x800
};
/// As above: the BSDs and Apple's systems.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const O_NONBLOCK: i32 = 0x4;

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(result: Result<FileContent, ReadError>) -> ReadErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn a_file_is_read_with_its_digest_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "abc").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let content = read(&path, 3).unwrap();
        assert_eq!(content.bytes(), b"abc");
        // FIPS 180-2, B.1.
        assert_eq!(
            data_encoding::HEXLOWER.encode(&content.digest()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(content.mode(), 0o640);
        assert!(!content.is_detached());
        fs::write(&path, "").unwrap();
        assert_eq!(read(&path, 0).unwrap().bytes(), b"");
    }

    #[test]
    fn one_byte_more_than_the_bound_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [7; 1000]).unwrap();
        assert_eq!(read(&path, 1000).unwrap().bytes(), [7; 1000]);
        assert_eq!(read(&path, u64::MAX).unwrap().bytes(), [7; 1000]);
        assert_eq!(kind(read(&path, 999)), ReadErrorKind::TooLarge { max_bytes: 999 });
        // A sparse file claims much and costs nothing to make.
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(kind(read(&path, 1 << 16)), ReadErrorKind::TooLarge { max_bytes: 1 << 16 });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_claims_no_size_is_read_and_bounded_all_the_same() {
        assert!(read("/proc/self/status", 1 << 16).unwrap().bytes().starts_with(b"Name:"));
        assert_eq!(
            kind(read("/proc/self/status", 100)),
            ReadErrorKind::TooLarge { max_bytes: 100 }
        );
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(kind(read(&pipe, 10)), ReadErrorKind::NotRegular);
        assert_eq!(kind(read(dir.path(), 10)), ReadErrorKind::NotRegular);
        assert_eq!(kind(read("/dev/zero", 10)), ReadErrorKind::NotRegular);
        assert_eq!(kind(read(dir.path().join("none"), 10)), ReadErrorKind::Missing);
        assert_eq!(kind(read(pipe.join("under"), 10)), ReadErrorKind::Io);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_path_that_is_pinned_to_a_removed_file_is_told() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let pin = File::open(&path).unwrap();
        let pinned = format!("/proc/self/fd/{}", pin.as_raw_fd());
        assert!(!read(&pinned, 10).unwrap().is_detached());
        let next = dir.path().join("next");
        fs::write(&next, "new").unwrap();
        fs::rename(&next, &path).unwrap();
        let content = read(&pinned, 10).unwrap();
        assert_eq!(content.bytes(), b"old");
        assert!(content.is_detached());
        assert!(!read(&path, 10).unwrap().is_detached());
    }

    #[test]
    fn debug_and_display_show_nothing_of_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "tell-nobody").unwrap();
        let content = format!("{:?}", read(&path, 100).unwrap());
        assert!(content.contains("len: 11") && !content.contains("nobody"), "{content}");
        let error = read(&path, 5).unwrap_err();
        assert_eq!(error.to_string(), "larger than 5 bytes");
        assert!(!format!("{error:?}").contains("nobody"));
    }
}
