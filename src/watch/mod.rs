//! Follows files, however they are changed: written in place, replaced by a rename, moved aside and
//! made anew, exchanged behind a link as Kubernetes does, deleted and made again, or not there yet.
//!
//! It knows nothing of what is in the files. Whoever wants to follow one gives [`Watcher::watch`] a
//! *reader*, which is asked when there is something new and says what it makes of it ([`Take`]). All
//! files share one thread and one source of file notifications. Unix only.
//!
//! # How a change is found
//!
//! 1. Notifications are hints that a look is worth while, and nothing else. For each file, the
//!    folder of *each* link of its path is watched, so that an exchanged link is noticed as well as
//!    a changed target. What an event says, which file or what kind, decides nothing about content.
//! 2. Each second there is a look without any hint: the path is followed anew, and device, inode,
//!    size, mtime and ctime are compared. That finds what notifications do not tell: changes on
//!    network file systems, behind bind mounts, or in a folder whose own ancestor was exchanged.
//! 3. After a sign of a change the file must be quiet for 250 ms, at most 500 ms are waited. Then it
//!    is opened once and read through that descriptor ([`read()`]).
//! 4. The reader is asked only if the SHA-256 of the content, its permission bits or the error is
//!    not what it last answered on. So touching a file, or reading it, does nothing.
//! 5. What the reader finds [`Suspicious`](Take::Suspicious) is read again after 250 ms, and asked
//!    about again only if it is still the same. An error, such as a missing file, is reported only
//!    after two equal reads too, since it is mostly the middle of a replacement.
//! 6. Since two writes within one tick of a file system's clock look the same, each look within 3 s
//!    of a change reads the content, and so does one every 5 s in any case.
//!
//! So a finished change is in force 250 ms later with notifications and at most 1.25 s later
//! without; 250 ms more if it is suspicious, and 2 s at most if other files of the folder never
//! rest. Where the clock of the file system ticks slowly, a change within the tick of an earlier one
//! may take the 5 s of the last rule. In between, a file costs a few `lstat` a second.
//!
//! The sources: inotify(7), "Limitations and caveats"; and what was measured of `notify` 8, which
//! loses a folder that is exchanged, as inotify does.
//!
//! # Example
//!
//! ```
//! use std::sync::mpsc;
//! use hookgate::watch::{Take, Watcher};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let path = dir.path().join("motd");
//! std::fs::write(&path, "hello\n")?;
//!
//! let (sender, receiver) = mpsc::channel();
//! let watcher = Watcher::spawn()?;
//! let _guard = watcher.watch(&path, 1024, None, move |reading| match reading.content() {
//!     Ok(content) if !content.bytes().ends_with(b"\n") && !reading.is_confirmed() => {
//!         Take::Suspicious
//!     }
//!     Ok(content) => {
//!         let _ = sender.send(content.bytes().to_vec());
//!         Take::Taken
//!     }
//!     Err(_) => Take::Refused,
//! });
//! assert_eq!(receiver.recv()?, b"hello\n");
//! # Ok(())
//! # }
//! ```

#[cfg(not(unix))]
compile_error!("the feature `watch` compares inodes and so needs a Unix system");

mod chain;
mod hints;
mod read;
mod report;
mod state;
mod thread;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use self::hints::Hints;
pub use self::read::{FileContent, ReadError, ReadErrorKind, read, read_settled};
use self::state::Pace;
use self::thread::{Shared, Thread, Watched};

/// The thread that follows files. A clone is another handle to the same thread.
///
/// The thread, named `hookgate-watch`, ends when the last handle and the last [`WatchGuard`] are
/// dropped; that drop waits for it, and so for a reader that is being asked.
#[derive(Clone)]
pub struct Watcher {
    handle: Arc<Handle>,
}

impl Watcher {
    /// Starts the thread. Where file notifications do not work, as when the user has no inotify
    /// instance left, files are looked at once a second, and [`is_polling`](Self::is_polling) says
    /// so.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn spawn() -> io::Result<Self> {
        Self::start(true, Pace::DEFAULT)
    }

    fn start(notifications: bool, pace: Pace) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let hints = if notifications {
            let shared = Arc::clone(&shared);
            Hints::start(move |hint| shared.hint(hint)).unwrap_or_else(|error| {
                report::polling_alone(&error);
                Hints::none()
            })
        } else {
            Hints::none()
        };
        let thread = Thread::new(Arc::clone(&shared), hints, pace);
        let thread = std::thread::Builder::new()
            .name("hookgate-watch".to_owned())
            .spawn(move || thread.run())?;
        Ok(Self { handle: Arc::new(Handle { shared, thread: Some(thread) }) })
    }

    /// Follows the file at `path` until the guard is dropped. A relative path belongs to the folder
    /// that is the working directory now. A file of more than `max_bytes` bytes is an error.
    ///
    /// `known` is what the caller has read of it already: the reader is asked only when there is
    /// something else. With `None` it is asked at once about whatever is there.
    ///
    /// The reader is called on the watch thread, for one file after another, so it should take no
    /// longer than parsing takes. If it panics, that content counts as refused, and it is asked again
    /// about the next. It must not own its own guard, which would then never be dropped.
    pub fn watch(
        &self,
        path: impl Into<PathBuf>,
        max_bytes: u64,
        known: Option<&FileContent>,
        reader: impl FnMut(Reading<'_>) -> Take + Send + 'static,
    ) -> WatchGuard {
        let path = path.into();
        // Only an empty path, or no working directory, is an error, and then the path leads nowhere.
        let path = std::path::absolute(&path).unwrap_or(path);
        let ended = Arc::new(AtomicBool::new(false));
        self.handle.shared.add(Watched {
            path,
            max_bytes,
            known: known.map(Into::into),
            reader: Box::new(reader),
            ended: Arc::clone(&ended),
        });
        WatchGuard { ended, watcher: self.clone() }
    }

    /// Reads all files at once, without waiting for quiet, and does not wait for the result.
    ///
    /// For a signal or command to reload. It asks no reader about what it has answered already, and
    /// what is suspicious still needs its second read.
    pub fn check_now(&self) {
        self.handle.shared.check_now();
    }

    /// The same, and ready when it is done: every file was read, what was suspicious a second time, and
    /// every reader was asked that had to be. Files that a reader has begun to follow meanwhile are
    /// among them.
    ///
    /// While a file is written to again and again, that may be never. Ready also if the thread has ended.
    ///
    /// # Cancel safety
    ///
    /// The files are read also if the future is dropped.
    pub fn check_and_wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let checked = self.handle.shared.check_and_tell();
        // Nothing is sent: the other end is dropped.
        async move { drop(checked.await) }
    }

    /// Whether there are no notifications, so that each change waits for the look of each second.
    pub fn is_polling(&self) -> bool {
        self.handle.shared.is_polling()
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("polling", &self.is_polling()).finish_non_exhaustive()
    }
}

/// Follows a file as long as it lives, and keeps its [`Watcher`] running.
///
/// Once it is dropped no call of the reader begins; one that has begun goes on to its end.
#[must_use = "the file is followed only as long as the guard lives"]
pub struct WatchGuard {
    ended: Arc<AtomicBool>,
    watcher: Watcher,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.watcher.handle.shared.wake();
    }
}

impl fmt::Debug for WatchGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchGuard").finish_non_exhaustive()
    }
}

/// What a reader is asked about: the file's content, or why it cannot be read.
#[derive(Debug)]
pub struct Reading<'a> {
    path: &'a Path,
    content: Result<&'a FileContent, &'a ReadError>,
    confirmed: bool,
}

impl Reading<'_> {
    /// The file's path, absolute.
    pub const fn path(&self) -> &Path {
        self.path
    }

    /// The content, or the error.
    ///
    /// # Errors
    ///
    /// The file is missing, too large, not regular or not readable, in two reads one after the other.
    pub const fn content(&self) -> Result<&FileContent, &ReadError> {
        self.content
    }

    /// Whether a read at least 250 ms earlier gave the same, so that the file can hardly be half
    /// written. Always so for an error, and for a content that is
    /// [detached](FileContent::is_detached).
    pub const fn is_confirmed(&self) -> bool {
        self.confirmed
    }
}

/// What a reader makes of a [`Reading`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It is good and now in force.
    Taken,
    /// It looks half written: no final newline, something lost, something that does not parse. The
    /// reader has left everything as it was, and will be asked again if a second read 250 ms later
    /// gives the same. About a [confirmed](Reading::is_confirmed) reading it means `Refused`.
    Suspicious,
    /// It is bad, the last good state stays in force. Asked again only when the file has changed.
    Refused,
}

struct Handle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
        // A reader may hold the last handle, and a thread cannot wait for itself.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // It does not panic; if it did, dropping a handle is no place to say so.
            let _ = thread.join();
        }
    }
}
