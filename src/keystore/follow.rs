//! Keeping a store in step with a key file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::status::{File, LoadError, Record};
use super::{KeyStore, Shared};
use crate::clock::{Clock, SystemClock};
use crate::key::{Keyring, MAX_FILE_BYTES};
use crate::watch::{self, FileContent, ReadError, Reading, Take, Watcher};

const MAX_BYTES: u64 = MAX_FILE_BYTES as u64;

impl KeyStore {
    /// A store that follows the key file at `path` for as long as it, or a clone of it, lives.
    ///
    /// The file is read before this returns, so a good one is in force at once; if it looks half
    /// written, that blocks for 250 ms. A file that is missing or bad is no error here: the store then
    /// has no key, so everything is refused, until the file is good. [`status`](Self::status) tells.
    ///
    /// See the [module docs](super) for when a change is taken.
    pub fn follow(path: impl Into<PathBuf>, watcher: &Watcher) -> Self {
        let path = path.into();
        let store = Self::with(Keyring::without_keys(), Record::of(path.clone()));
        let is_good = |bytes: &[u8]| Keyring::parse(bytes).is_ok();
        let first = watch::read_settled(&path, MAX_BYTES, is_good);
        store.0.take(&path, first.as_ref(), true);
        let shared = Arc::downgrade(&store.0);
        // What was refused just now is asked about once more, which changes and counts nothing.
        let known = first.as_ref().ok();
        let guard = watcher.watch(path, MAX_BYTES, known, move |reading| reader(&shared, &reading));
        // Set only here, so it is empty.
        let _ = store.0.guard.set(guard);
        store
    }
}

/// Holds the store weakly: the store owns the guard that ends this reader.
fn reader(shared: &Weak<Shared>, reading: &Reading<'_>) -> Take {
    match shared.upgrade() {
        Some(shared) => shared.take(reading.path(), reading.content(), reading.is_confirmed()),
        None => Take::Refused,
    }
}

impl Shared {
    fn take(
        &self,
        path: &Path,
        content: Result<&FileContent, &ReadError>,
        confirmed: bool,
    ) -> Take {
        let content = match content {
            Ok(content) => content,
            Err(error) => return self.fail(path, LoadError::Read(describe(error))),
        };
        let ring = match Keyring::parse(content.bytes()) {
            Ok(ring) => ring,
            Err(_) if !confirmed => return Take::Suspicious,
            Err(error) => return self.fail(path, LoadError::Parse(error)),
        };
        let may_be_half =
            !content.bytes().ends_with(b"\n") || self.ring.load().has_key_that_lacks_in(&ring);
        if may_be_half && !confirmed {
            return Take::Suspicious;
        }
        let keys = ring.keys().len();
        self.ring.store(Arc::new(ring));
        let file = File {
            digest: content.digest(),
            mode: content.mode(),
            detached: content.is_detached(),
        };
        let now = SystemClock.now();
        self.record().load(now, Some(file));
        report::loaded(path, keys);
        for warning in self.record().status(&self.ring.load(), now).warnings {
            report::warning(path, &warning);
        }
        Take::Taken
    }

    fn fail(&self, path: &Path, error: LoadError) -> Take {
        report::failed(path, &error);
        let mut record = self.record();
        if record.error_is(&error) {
            return Take::Refused;
        }
        record.fail(SystemClock.now(), error);
        Take::Refused
    }
}

/// The error and what is under it; neither holds a byte of the file.
fn describe(error: &ReadError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What an operator sees of all this. Without the feature `tracing`, only [`KeyStore::status`] tells.
mod report {
    use std::path::Path;

    use super::LoadError;

    /// What a log calls it, wherever it is in the sources.
    #[cfg(feature = "tracing")]
    const TARGET: &str = "hookgate::keystore";

    pub(super) fn loaded(path: &Path, keys: usize) {
        #[cfg(feature = "tracing")]
        tracing::info!(target: TARGET, path = %path.display(), keys, "key file is in force");
        #[cfg(not(feature = "tracing"))]
        let _ = (path, keys);
    }

    pub(super) fn warning(path: &Path, warning: &str) {
        #[cfg(feature = "tracing")]
        tracing::warn!(target: TARGET, path = %path.display(), "{warning}");
        #[cfg(not(feature = "tracing"))]
        let _ = (path, warning);
    }

    pub(super) fn failed(path: &Path, error: &LoadError) {
        #[cfg(feature = "tracing")]
        tracing::error!(target: TARGET, path = %path.display(), %error, "key file is not taken, the last good keys stay in force");
        #[cfg(not(feature = "tracing"))]
        let _ = (path, error);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::key::KeyFileErrorKind;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa name=a\n";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb name=b\n";

    struct Setup {
        dir: tempfile::TempDir,
        store: KeyStore,
    }

    fn setup(content: Option<&str>) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("webhook.key");
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let store = KeyStore::follow(path, &Watcher::spawn().unwrap());
        Setup { dir, store }
    }

    impl Setup {
        fn write(&self, content: &str) {
            fs::write(self.dir.path().join("webhook.key"), content).unwrap();
        }

        fn names(&self) -> String {
            self.store.load().keys().map(|key| key.name()).collect::<Vec<_>>().join(" ")
        }

        /// Every change is to be in force within 2 s.
        fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
            let begin = Instant::now();
            while !condition(self) {
                assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {:?}", self.status());
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(begin.elapsed() < Duration::from_secs(2), "{what} took {:?}", begin.elapsed());
        }

        fn status(&self) -> super::super::KeyStoreStatus {
            self.store.status(SystemClock.now())
        }
    }

    #[test]
    fn a_good_file_is_in_force_at_once_and_so_is_its_change_soon() {
        let setup = setup(Some(A));
        assert_eq!(setup.names(), "a");
        let digest = setup.status().digest;
        setup.write(&format!("{A}{B}"));
        setup.until("an added key", |setup| setup.names() == "a b");
        setup.write(B);
        setup.until("a lost key", |setup| setup.names() == "b");
        let status = setup.status();
        assert_eq!((status.loads, status.failures), (3, 0));
        assert!(status.error.is_none() && status.digest.is_some() && status.digest != digest);
    }

    #[test]
    fn a_missing_file_means_no_key_until_it_is_there() {
        let setup = setup(None);
        assert_eq!(setup.names(), "");
        assert!(
            matches!(setup.status().error, Some((_, LoadError::Read(why))) if why.starts_with("no such file"))
        );
        setup.write(A);
        setup.until("a new file", |setup| setup.names() == "a");
        assert!(setup.status().error.is_none());
    }

    #[test]
    fn a_bad_file_leaves_the_last_good_ring_and_tells_line_and_column() {
        let setup = setup(Some(A));
        for (bad, line, column, kind) in [
            (format!("{A}canary/canary/canary\n"), 2, 1, KeyFileErrorKind::BadCharacter),
            (String::new(), 1, 1, KeyFileErrorKind::NoKey),
            (format!("{A}{A}"), 2, 1, KeyFileErrorKind::RepeatedKey),
        ] {
            let failures = setup.status().failures;
            setup.write(&bad);
            setup.until("a failure", |setup| setup.status().failures == failures + 1);
            let status = setup.status();
            let Some((_, LoadError::Parse(error))) = &status.error else { panic!("{status:?}") };
            assert_eq!((error.line(), error.column(), error.kind()), (line, column, kind));
            assert!(!format!("{status:?}").contains("canary"));
            assert_eq!(setup.names(), "a");
        }
        setup.write(B);
        setup.until("a good file again", |setup| setup.names() == "b");
        assert!(setup.status().error.is_none());
    }

    #[test]
    fn a_removed_file_leaves_the_last_good_ring() {
        let setup = setup(Some(A));
        fs::remove_file(setup.dir.path().join("webhook.key")).unwrap();
        setup.until("a failure", |setup| setup.status().failures == 1);
        assert_eq!(setup.names(), "a");
        setup.write(B);
        setup.until("the file again", |setup| setup.names() == "b");
    }

    #[test]
    fn a_half_written_file_is_never_in_force() {
        let setup = setup(Some(&format!("{A}{B}")));
        let whole = format!("{B}{}", A.replace("name=a", "name=c"));
        let half = &whole[..B.len() + 20];
        for _ in 0..5 {
            setup.write(half);
            let written = Instant::now();
            // The rest comes before the second read can have been made.
            while written.elapsed() < Duration::from_millis(100) {
                assert_eq!(setup.names(), "a b");
                std::thread::sleep(Duration::from_millis(5));
            }
            setup.write(&whole);
            let begin = Instant::now();
            while setup.names() != "b c" {
                assert_eq!(setup.names(), "a b");
                assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", setup.status());
                std::thread::sleep(Duration::from_millis(2));
            }
            setup.write(&format!("{A}{B}"));
            setup.until("the first again", |setup| setup.names() == "a b");
        }
    }

    #[test]
    fn the_mode_of_the_file_is_warned_of() {
        use std::os::unix::fs::PermissionsExt;
        let setup = setup(Some(&A.replace("name", "use=sign name")));
        let mode = |mode| {
            let path = setup.dir.path().join("webhook.key");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o644);
        setup.until("a warning", |setup| {
            setup.status().warnings.iter().any(|warning| warning.contains("mode 0644"))
        });
        mode(0o600);
        setup.until("no warning", |setup| setup.status().warnings.is_empty());
    }
}
