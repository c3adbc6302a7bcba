//! File notifications, as hints that a look is worth while.
//!
//! One `notify` watcher for all folders, since a user has few of them (128 on many Linux systems).
//! An event is never asked which file it names: after a Kubernetes volume was updated no event names
//! the file that changed. Events of reading are dropped, or reading a file would lead to reading it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::chain::DirId;
use super::report;

/// Something happened in one of the folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    /// Whether it may have ended the watching of a folder, so that each must be watched anew.
    pub(super) rearm: bool,
}

/// The folders that are being watched.
pub(super) struct Hints {
    /// `None` once it has failed.
    watcher: Option<RecommendedWatcher>,
    /// By inode, since the system has one watch an inode, whatever paths lead to it.
    armed: HashMap<DirId, PathBuf>,
    /// Folders that cannot be watched; each is reported once.
    refused: HashSet<PathBuf>,
}

impl Hints {
    /// Calls `on_hint` from `notify`'s thread; it must not block.
    pub(super) fn start(on_hint: impl Fn(Hint) + Send + 'static) -> Result<Self, notify::Error> {
        let watcher = notify::recommended_watcher(move |event| {
            if let Some(hint) = hint(&event) {
                on_hint(hint);
            }
        })?;
        Ok(Self { watcher: Some(watcher), armed: HashMap::new(), refused: HashSet::new() })
    }

    /// None at all: the looks alone must do.
    pub(super) fn none() -> Self {
        Self { watcher: None, armed: HashMap::new(), refused: HashSet::new() }
    }

    pub(super) const fn are_running(&self) -> bool {
        self.watcher.is_some()
    }

    /// Ends all watching of folders, so that the next [`arm`](Self::arm) begins anew.
    pub(super) fn disarm(&mut self) {
        self.arm(&BTreeMap::new());
    }

    /// Watches these folders and no other. Whether one was added: what happened in it before went
    /// unnoticed.
    pub(super) fn arm(&mut self, wanted: &BTreeMap<DirId, PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        // Its calls panic when its own thread could not be started or has ended.
        let added = catch_unwind(AssertUnwindSafe(|| {
            self.armed.retain(|id, path| {
                let keep = wanted.get(id) == Some(path);
                if !keep {
                    // An error says that the system has already ended it.
                    let _ = watcher.unwatch(path);
                }
                keep
            });
            self.refused.retain(|path| wanted.values().any(|wanted| wanted == path));
            let mut added = false;
            for (id, path) in wanted {
                if self.armed.contains_key(id) {
                    continue;
                }
                match watcher.watch(path, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.armed.insert(*id, path.clone());
                        self.refused.remove(path);
                        added = true;
                    }
                    Err(error) => {
                        if self.refused.insert(path.clone()) {
                            report::folder_not_watched(path, &error);
                        }
                    }
                }
            }
            added
        }));
        added.unwrap_or_else(|_| {
            // Dropping it would panic too.
            std::mem::forget(self.watcher.take());
            report::polling_alone(&"its thread has ended");
            false
        })
    }
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints").field("armed", &self.armed).finish_non_exhaustive()
    }
}

fn hint(event: &notify::Result<notify::Event>) -> Option<Hint> {
    let rearm = match event {
        // Overflow comes as an event of another kind, errors have none: both may hide anything.
        Ok(event) if event.need_rescan() => true,
        Ok(event) => match event.kind {
            EventKind::Access(_) => return None,
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => false,
            EventKind::Modify(ModifyKind::Metadata(_)) => false,
            // A folder that went, or that has the name of one: `notify` ends watches by name.
            _ => true,
        },
        Err(_) => true,
    };
    Some(Hint { rearm })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use notify::event::{
        AccessKind, AccessMode, CreateKind, DataChange, Flag, RemoveKind, RenameMode,
    };

    fn wanted(dir: &Path) -> BTreeMap<DirId, PathBuf> {
        let of = fs::metadata(dir).unwrap();
        BTreeMap::from([((of.dev(), of.ino()), dir.to_owned())])
    }

    #[test]
    fn every_event_but_that_of_reading_is_a_hint() {
        let of = |kind| hint(&Ok(notify::Event::new(kind)));
        assert_eq!(of(EventKind::Access(AccessKind::Open(AccessMode::Any))), None);
        assert_eq!(of(EventKind::Access(AccessKind::Close(AccessMode::Write))), None);
        let content = Some(Hint { rearm: false });
        assert_eq!(of(EventKind::Create(CreateKind::File)), content);
        assert_eq!(of(EventKind::Modify(ModifyKind::Data(DataChange::Any))), content);
        let folder = Some(Hint { rearm: true });
        assert_eq!(of(EventKind::Remove(RemoveKind::Folder)), folder);
        assert_eq!(of(EventKind::Modify(ModifyKind::Name(RenameMode::From))), folder);
        assert_eq!(of(EventKind::Any), folder);
        assert_eq!(hint(&Err(notify::Error::generic("any"))), folder);
        let overflow =
            notify::Event::new(EventKind::Access(AccessKind::Any)).set_flag(Flag::Rescan);
        assert_eq!(hint(&Ok(overflow)), folder);
    }

    #[test]
    fn only_armed_folders_give_hints() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (sender, hints_seen) = mpsc::channel();
        let mut hints = Hints::start(move |hint| sender.send(hint).unwrap_or(())).unwrap();
        assert!(hints.arm(&wanted(one.path())));
        assert!(!hints.arm(&wanted(one.path())), "it was armed already");
        fs::write(one.path().join("file"), "").unwrap();
        hints_seen.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(hints.arm(&wanted(two.path())));
        while hints_seen.try_recv().is_ok() {}
        fs::write(one.path().join("file2"), "").unwrap();
        fs::remove_dir_all(two.path()).unwrap();
        let next = hints_seen.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(next, Hint { rearm: true }, "a hint from the folder that is not armed");
    }

    #[test]
    fn a_folder_that_cannot_be_watched_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        let mut hints = Hints::start(|_| ()).unwrap();
        let missing = BTreeMap::from([((0, 0), folder.clone())]);
        assert!(!hints.arm(&missing));
        assert!(hints.are_running());
        fs::create_dir(&folder).unwrap();
        assert!(hints.arm(&missing));
    }

    #[test]
    fn the_end_of_the_thread_behind_it_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, hints_seen) = mpsc::channel();
        let mut hints = Hints::start(move |hint| {
            let _ = sender.send(hint);
            std::panic::resume_unwind(Box::new("as planned"));
        })
        .unwrap();
        assert!(hints.arm(&wanted(dir.path())));
        fs::write(dir.path().join("file"), "").unwrap();
        hints_seen.recv_timeout(Duration::from_secs(5)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while hints.are_running() {
            assert!(Instant::now() < deadline);
            hints.disarm();
            hints.arm(&wanted(dir.path()));
        }
        assert!(!hints.arm(&wanted(dir.path())));
    }
}
