//! Changing a key file so that whoever reads it sees all of the old text or all of the new one.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::key::{EditError, MAX_FILE_BYTES};
use crate::secret::Secret;

/// Replaces what is in the key file by what `edit` makes of it.
///
/// The new text is written beside the file, with the same mode and owner, brought to the disk, and put
/// in its place by one rename. A path that is a link stays one: the file that it leads to is changed.
/// What else a file system keeps with a file (access lists, extended attributes) is not kept.
///
/// Two changes at the same time do not mix; if the file was changed while `edit` ran, it is an error.
///
/// # Errors
///
/// [`ChangeError`]; the file is then as it was.
pub fn change_key_file<T>(
    path: &Path,
    edit: impl FnOnce(&[u8]) -> Result<(Secret, T), EditError>,
) -> Result<T, ChangeError> {
    let path = fs::canonicalize(path)?;
    let (before, metadata) = read(&path)?;
    let (after, told) = edit(&before).map_err(ChangeError::Edit)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = Beside(folder.join(format!(".{name}.{}.new", std::process::id())));
    beside.write(after.expose(), &metadata)?;
    // An editor may have been faster.
    if read(&path)?.0 != before {
        return Err(ChangeError::Meanwhile);
    }
    fs::rename(&beside.0, &path)?;
    // So that the change is there after the power has failed, too.
    File::open(folder)?.sync_all()?;
    Ok(told)
}

fn read(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, fs::Metadata)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("this is no file"));
    }
    // One more than a key file may have, so that the edit finds it too large.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes, metadata))
}

/// A file that goes unless it was renamed.
struct Beside(PathBuf);

impl Beside {
    fn write(&self, text: &[u8], like: &fs::Metadata) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.0)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
                std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
        }
        // After the owner, whose change can take bits of the mode away.
        file.set_permissions(like.permissions())?;
        file.write_all(text)?;
        file.sync_all()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Gone already, if it was renamed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Why a key file was not changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// What the operating system says.
    Io(io::Error),
    /// What is wrong with the text or the change.
    Edit(EditError),
    /// Something else changed the file at the same time.
    Meanwhile,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Edit(error) => error.fmt(f),
            Self::Meanwhile => f.write_str("the file was changed by something else just now"),
        }
    }
}

impl Error for ChangeError {}

impl From<io::Error> for ChangeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Keyring;

    const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaa name=a\n";
    const NEW: &str = "bbbbbbbbbbbbbbbbbbbbbbbb name=b\n";

    fn to_new(_: &[u8]) -> Result<(Secret, ()), EditError> {
        Ok((Secret::new(NEW), ()))
    }

    #[test]
    fn a_change_keeps_mode_and_link_and_leaves_nothing_over() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real.key"), dir.path().join("webhook.key"));
        fs::write(&file, OLD).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
            std::os::unix::fs::symlink("real.key", &link).unwrap();
            // Only root can give a file away, and only then there is an owner to be kept.
            let given = std::os::unix::fs::chown(&file, Some(12_345), Some(12_345)).is_ok();
            change_key_file(&link, to_new).unwrap();
            let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&file).unwrap());
            assert_eq!(owner == 12_345, given);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
            assert!(link.symlink_metadata().unwrap().is_symlink());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        }
        #[cfg(not(unix))]
        change_key_file(&file, to_new).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), NEW);
        Keyring::parse(&fs::read(&file).unwrap()).unwrap();
    }

    #[test]
    fn a_change_that_fails_leaves_the_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("webhook.key");
        fs::write(&path, OLD).unwrap();
        let refused = change_key_file(&path, |_| Err::<(Secret, ()), _>(EditError::NoSuchKey));
        assert!(matches!(refused, Err(ChangeError::Edit(EditError::NoSuchKey))));
        // Somebody else writes the file while the change is made.
        let meanwhile = change_key_file(&path, |_| {
            fs::write(&path, format!("{OLD}# more\n")).unwrap();
            Ok((Secret::new(NEW), ()))
        });
        assert!(matches!(meanwhile, Err(ChangeError::Meanwhile)));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{OLD}# more\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let missing = change_key_file(&dir.path().join("none.key"), to_new);
        assert!(
            matches!(missing, Err(ChangeError::Io(error)) if error.kind() == io::ErrorKind::NotFound)
        );
        assert!(matches!(change_key_file(dir.path(), to_new), Err(ChangeError::Io(_))));
    }

    #[test]
    fn a_reader_sees_all_of_the_old_or_all_of_the_new_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("webhook.key");
        fs::write(&path, OLD).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0..100 {
                    let text = if turn % 2 == 0 { NEW } else { OLD };
                    change_key_file(&path, |_| Ok((Secret::new(text), ()))).unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::Release);
            });
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let seen = fs::read_to_string(&path).unwrap();
                assert!(seen == OLD || seen == NEW, "{seen:?}");
            }
        });
    }
}
