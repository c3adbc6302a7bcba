//! The state folder, which one process has at a time.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::keystore::create_private_folder;

/// The right to use a state folder, until it is dropped or the process ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes the folder, for its owner alone, if it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// [`StateError::InUse`] while another process has it, and what the operating system says.
    pub fn take(folder: &Path) -> Result<Self, StateError> {
        let error = |error| StateError::Io(folder.into(), error);
        create_private_folder(folder).map_err(error)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let file = options.open(folder.join("lock")).map_err(error)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse(folder.into())),
            Err(TryLockError::Error(cause)) => Err(error(cause)),
        }
    }
}

/// Why a state folder cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateError {
    /// What the operating system says.
    Io(PathBuf, io::Error),
    /// Another process uses it.
    InUse(PathBuf),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, _) => write!(f, "cannot use the state folder {}", path.display()),
            Self::InUse(path) => write!(
                f,
                "another hookgate uses the state folder {} already; give each its own with --state-dir",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::InUse(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        let lock = StateLock::take(&folder).unwrap();
        assert!(matches!(StateLock::take(&folder), Err(StateError::InUse(path)) if path == folder));
        drop(lock);
        StateLock::take(&folder).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(StateLock::take(&file), Err(StateError::Io(..))));
    }
}
