//! Keeping a list of networks in step with a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

use crate::source::{Networks, Source};
use crate::watch::{self, FileContent, ReadError, Take, WatchGuard, Watcher};

/// The largest file of networks that is read: 4 MiB.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// The networks in a file that is followed. Clones are the same.
#[derive(Clone)]
pub struct NetworkFile(Arc<Shared>);

struct Shared {
    path: PathBuf,
    /// None until the file was good once.
    networks: ArcSwapOption<Networks>,
    error: Mutex<Option<String>>,
    guard: OnceLock<WatchGuard>,
}

impl NetworkFile {
    /// Follows the file at `path` for as long as this, or a clone of it, lives.
    ///
    /// The file is read before this returns; if it looks half written, that blocks for 250 ms. One that is
    /// missing or bad is no error here: nobody is in it until it is good.
    pub fn follow(path: impl Into<PathBuf>, watcher: &Watcher) -> Self {
        let path = path.into();
        let shared = Arc::new(Shared {
            path: path.clone(),
            networks: ArcSwapOption::empty(),
            error: Mutex::default(),
            guard: OnceLock::new(),
        });
        let is_good = |bytes: &[u8]| Networks::parse_file(bytes).is_ok();
        let first = watch::read_settled(&path, MAX_FILE_BYTES, is_good);
        shared.take(first.as_ref(), true);
        let weak = Arc::downgrade(&shared);
        // What was refused just now is asked about once more, which changes nothing.
        let known = first.as_ref().ok();
        let guard =
            watcher.watch(path, MAX_FILE_BYTES, known, move |reading| match weak.upgrade() {
                Some(shared) => shared.take(reading.content(), reading.is_confirmed()),
                None => Take::Refused,
            });
        // Set only here, so it is empty.
        let _ = shared.guard.set(guard);
        Self(shared)
    }

    /// The path, as it was given.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether the list in force has `source`.
    pub fn contains(&self, source: Source) -> bool {
        self.0.networks.load().as_ref().is_some_and(|networks| networks.contains(source))
    }

    /// Whether the file was good once, so that a list is in force.
    pub fn is_loaded(&self) -> bool {
        self.0.networks.load().is_some()
    }

    /// Why the file as it is now is not taken; none if it is.
    pub fn error(&self) -> Option<String> {
        self.0.error().clone()
    }
}

impl fmt::Debug for NetworkFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkFile")
            .field("path", &self.0.path)
            .field("is_loaded", &self.is_loaded())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn take(&self, content: Result<&FileContent, &ReadError>, confirmed: bool) -> Take {
        let content = match content {
            Ok(content) => content.bytes(),
            Err(error) => return self.fail(error.to_string()),
        };
        let networks = match Networks::parse_file(content) {
            Ok(networks) => networks,
            Err(_) if !confirmed => return Take::Suspicious,
            Err(error) => return self.fail(error.to_string()),
        };
        let is_smaller = self.networks.load().as_ref().is_some_and(|it| !networks.covers(it));
        if (is_smaller || !content.ends_with(b"\n")) && !confirmed {
            return Take::Suspicious;
        }
        self.networks.store(Some(Arc::new(networks)));
        *self.error() = None;
        report::loaded(&self.path);
        Take::Taken
    }

    fn fail(&self, error: String) -> Take {
        let mut last = self.error();
        if last.as_ref() != Some(&error) {
            report::failed(&self.path, &error, self.networks.load().is_some());
            *last = Some(error);
        }
        Take::Refused
    }

    fn error(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an operator sees of all this. Without the feature `tracing`, only [`NetworkFile::error`] tells.
mod report {
    use std::path::Path;

    /// What a log calls it, wherever it is in the sources.
    #[cfg(feature = "tracing")]
    const TARGET: &str = "hookgate::allow_list";

    pub(super) fn loaded(path: &Path) {
        #[cfg(feature = "tracing")]
        tracing::info!(target: TARGET, path = %path.display(), "list of sources is in force");
        #[cfg(not(feature = "tracing"))]
        let _ = path;
    }

    pub(super) fn failed(path: &Path, error: &str, has_last: bool) {
        #[cfg(feature = "tracing")]
        if has_last {
            tracing::error!(target: TARGET, path = %path.display(), error, "list of sources is not taken, the last good one stays in force");
        } else {
            tracing::error!(target: TARGET, path = %path.display(), error, "list of sources is not taken, nobody in it may call");
        }
        #[cfg(not(feature = "tracing"))]
        let _ = (path, error, has_last);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::allow_list::AllowList;

    struct Setup {
        _dir: tempfile::TempDir,
        file: NetworkFile,
    }

    fn setup(content: Option<&str>) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts.cidr");
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let file = NetworkFile::follow(path, &Watcher::spawn().unwrap());
        Setup { _dir: dir, file }
    }

    impl Setup {
        fn write(&self, content: &str) {
            fs::write(self.file.path(), content).unwrap();
        }

        fn has(&self, address: &str) -> bool {
            self.file.contains(Source(address.parse().unwrap()))
        }

        /// Every change is to be in force within 2 s.
        fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
            let begin = Instant::now();
            while !condition(self) {
                assert!(
                    begin.elapsed() < Duration::from_secs(10),
                    "{what}: {:?}",
                    self.file.error()
                );
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(begin.elapsed() < Duration::from_secs(2), "{what} took {:?}", begin.elapsed());
        }
    }

    #[test]
    fn a_good_file_is_in_force_at_once_and_so_is_its_change_soon() {
        let setup = setup(Some("192.0.2.0/24\n2001:db8::/32\n"));
        assert!(setup.has("192.0.2.1") && !setup.has("198.51.100.1"));
        setup.write("192.0.2.0/24\n2001:db8::/32\n198.51.100.0/24\n");
        setup.until("an added network", |setup| setup.has("198.51.100.1"));
        assert!(setup.has("192.0.2.1"));
        setup.write("198.51.100.0/24\n");
        setup.until("a lost network", |setup| !setup.has("192.0.2.1"));
        assert!(setup.has("198.51.100.1") && setup.file.error().is_none());
    }

    #[test]
    fn a_missing_or_bad_file_lets_nobody_in_until_it_is_good() {
        for content in [None, Some(""), Some("# nothing\n"), Some("192.0.2.1\nexample.com\n")] {
            let setup = setup(content);
            let list = AllowList::new(Networks::default()).file(setup.file.clone());
            let allows = |address: &str| list.allows(Source(address.parse().unwrap()));
            assert!(!setup.file.is_loaded() && setup.file.error().is_some(), "{content:?}");
            assert!(!allows("192.0.2.1") && !allows("2001:db8::1"), "{content:?}");
            setup.write("192.0.2.1\n");
            setup.until("a good file", |_| allows("192.0.2.1"));
            assert!(!allows("192.0.2.2") && setup.file.error().is_none());
        }
    }

    #[test]
    fn a_file_that_was_good_and_is_bad_or_gone_leaves_the_last_good_list() {
        let setup = setup(Some("192.0.2.1\n"));
        for bad in ["canary.example.com\n", "", "192.0.2.1/24\n"] {
            setup.write(bad);
            setup.until("a failure", |setup| setup.file.error().is_some());
            assert!(setup.has("192.0.2.1") && !setup.has("192.0.2.2"));
            assert!(!setup.file.error().unwrap().contains("canary"));
            setup.write("192.0.2.1\n");
            setup.until("good again", |setup| setup.file.error().is_none());
        }
        fs::remove_file(setup.file.path()).unwrap();
        setup.until("a failure", |setup| setup.file.error().is_some());
        assert!(setup.has("192.0.2.1"));
    }
}
