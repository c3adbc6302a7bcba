//! The files of a spool: made for their owner alone, used by one process, and set aside if they are
//! damaged.
//!
//! Nothing here opens the database itself while SQLite has it open: closing it again would end the locks
//! that SQLite holds on it ([How To Corrupt](https://www.sqlite.org/howtocorrupt.html), section 2.2).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::keystore::create_private_folder;

/// How many damaged files are kept beside each other. Whose disk damages more has to look at it.
const MAX_SET_ASIDE: u32 = 16;

/// The files of a spool, which no other process uses meanwhile.
#[derive(Debug)]
pub(super) struct Files {
    paths: Paths,
    _lock: File,
}

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) folder: PathBuf,
    pub(super) database: PathBuf,
    pub(super) wal: PathBuf,
    shm: PathBuf,
}

impl Files {
    /// Makes the folder and the database if they are missing. The folder is the spool's own: what is in
    /// it is for its owner alone from now on.
    pub(super) fn acquire(folder: &Path) -> Result<Self, OpenError> {
        create_private_folder(folder).map_err(OpenError::io)?;
        restrict(folder, 0o700).map_err(OpenError::io)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let lock = private(&mut options).open(folder.join("lock")).map_err(OpenError::io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::in_use()),
            Err(TryLockError::Error(error)) => return Err(OpenError::io(error)),
        }
        let beside = |name: &str| folder.join(name);
        let paths = Paths {
            folder: folder.to_owned(),
            database: beside("spool.db"),
            wal: beside("spool.db-wal"),
            shm: beside("spool.db-shm"),
        };
        let files = Self { paths, _lock: lock };
        files.create_missing().map_err(OpenError::io)?;
        for path in [&files.paths.database, &files.paths.wal, &files.paths.shm] {
            match restrict(path, 0o600) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(OpenError::io(error));
                }
                _ => {}
            }
        }
        Ok(files)
    }

    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Moves the database, with what belongs to it, out of the way and begins a new one. Returns the name
    /// that it has now. Nothing may have it open.
    pub(super) fn set_aside(&self) -> io::Result<String> {
        let name = self.free_name()?;
        fs::rename(&self.paths.database, self.paths.folder.join(&name))?;
        self.create_missing()?;
        Ok(name)
    }

    /// So that names that were made or changed are there after a loss of power.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.paths.folder)?.sync_all()
    }

    fn create_missing(&self) -> io::Result<()> {
        if self.paths.database.symlink_metadata().is_ok() {
            return Ok(());
        }
        // SQLite would read it into the new file.
        if self.paths.wal.symlink_metadata().is_ok() {
            let newest = (1..=MAX_SET_ASIDE)
                .rev()
                .map(damaged_name)
                .find(|name| self.paths.folder.join(name).symlink_metadata().is_ok());
            let name = newest.map_or_else(|| self.free_name(), Ok)?;
            fs::rename(&self.paths.wal, self.paths.folder.join(format!("{name}-wal")))?;
        }
        match fs::remove_file(&self.paths.shm) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        private(OpenOptions::new().write(true).create_new(true)).open(&self.paths.database)?;
        self.sync_folder()
    }

    fn free_name(&self) -> io::Result<String> {
        let is_free = |name: &String| {
            let path = self.paths.folder.join(name);
            let wal = self.paths.folder.join(format!("{name}-wal"));
            path.symlink_metadata().is_err() && wal.symlink_metadata().is_err()
        };
        (1..=MAX_SET_ASIDE)
            .map(damaged_name)
            .find(is_free)
            .ok_or_else(|| io::Error::other("too many damaged files were set aside already"))
    }
}

fn damaged_name(number: u32) -> String {
    format!("spool.db.damaged-{number}")
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    return fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    return Ok(());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::spool::OpenErrorKind;

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[cfg(unix)]
    #[test]
    fn the_files_are_for_their_owner_alone_also_if_they_were_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state/spool");
        let files = Files::acquire(&folder).unwrap();
        let database = files.paths().database.clone();
        assert_eq!(
            (mode(&folder), mode(&database), mode(&folder.join("lock"))),
            (0o700, 0o600, 0o600)
        );
        drop(files);
        restrict(&folder, 0o755).unwrap();
        restrict(&database, 0o644).unwrap();
        let _files = Files::acquire(&folder).unwrap();
        assert_eq!((mode(&folder), mode(&database)), (0o700, 0o600));
    }

    #[test]
    fn a_second_user_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Files::acquire(dir.path()).unwrap();
        let second = Files::acquire(dir.path()).unwrap_err();
        assert_eq!(second.kind(), OpenErrorKind::InUse);
        drop(first);
        Files::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_damaged_database_is_set_aside_with_its_log_and_a_new_one_begun() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::acquire(dir.path()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        for n in 1..=2 {
            fs::write(&files.paths().database, format!("data {n}")).unwrap();
            fs::write(&files.paths().wal, format!("log {n}")).unwrap();
            fs::write(&files.paths().shm, "index").unwrap();
            let name = files.set_aside().unwrap();
            assert_eq!(name, format!("spool.db.damaged-{n}"));
            assert_eq!(read(&name), format!("data {n}"));
            assert_eq!(read(&format!("{name}-wal")), format!("log {n}"));
            assert_eq!(read("spool.db"), "");
            assert!(!files.paths().wal.exists() && !files.paths().shm.exists());
        }
    }

    #[test]
    fn a_log_that_was_left_alone_does_not_get_into_a_new_database() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("spool.db.damaged-1"), "data").unwrap();
        fs::write(dir.path().join("spool.db-wal"), "log").unwrap();
        let files = Files::acquire(dir.path()).unwrap();
        assert!(!files.paths().wal.exists());
        assert_eq!(fs::read_to_string(dir.path().join("spool.db.damaged-1-wal")).unwrap(), "log");
    }

    #[test]
    fn no_more_damaged_files_are_kept_than_a_few() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::acquire(dir.path()).unwrap();
        for _ in 0..MAX_SET_ASIDE {
            files.set_aside().unwrap();
        }
        files.set_aside().unwrap_err();
        assert!(files.paths().database.exists());
    }
}
