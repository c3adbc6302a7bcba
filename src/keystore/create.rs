//! Making a key file where there is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use zeroize::Zeroizing;

use crate::key::generate;

/// Makes the key file at `path` with one fresh key, named for the day of `today`, unless there is one.
///
/// The folder is made too, for its owner alone, and so is the file: mode 0600. It appears as a whole
/// or not at all, and a file that is there, whatever is in it, stays as it is. Returns whether one
/// was made.
///
/// # Errors
///
/// What the operating system says: no permission, a file system that takes no writes, no space.
pub fn create_key_file(path: &Path, today: crate::time::Timestamp) -> io::Result<bool> {
    // A link that leads nowhere is not a missing file: what it is to point at will come.
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    create_private_folder(folder)?;

    let key = generate().map_err(io::Error::other)?;
    let day = today.to_string();
    let day = day.get(..10).unwrap_or("first");
    let mut text = Zeroizing::new(b"# key, then its options; see `hookgate key --help`\n".to_vec());
    text.extend_from_slice(key.expose());
    text.extend_from_slice(format!(" name={day}\n").as_bytes());

    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let whole = folder.join(format!(".{name}.{}.new", std::process::id()));
    let made = write_new(&whole, &text).and_then(|()| fs::hard_link(&whole, path));
    // Its content is in the file now, or was of no use.
    let _ = fs::remove_file(&whole);
    match made {
        Ok(()) => {
            // So that the file is there after the power has failed, too.
            File::open(folder)?.sync_all()?;
            Ok(true)
        }
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a folder, and those above it, that only its owner can look into.
///
/// # Errors
///
/// What the operating system says.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Keyring;
    use crate::time::Timestamp;

    fn today() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_missing_file_is_made_with_one_good_key_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/webhook.key");
        assert!(create_key_file(&path, today()).unwrap());
        let ring = Keyring::parse(&fs::read(&path).unwrap()).unwrap();
        let key = ring.keys().next().unwrap();
        assert_eq!((ring.keys().len(), key.name(), key.secret().len()), (1, "2026-11-24", 32));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn a_file_that_is_there_is_never_changed_even_a_broken_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("webhook.key");
        for content in ["", "not a key", "sdf34tGdfgGDG345g3y0045TYG23te37\n"] {
            fs::write(&path, content).unwrap();
            assert!(!create_key_file(&path, today()).unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        #[cfg(unix)]
        {
            let dangling = dir.path().join("link.key");
            std::os::unix::fs::symlink(dir.path().join("later"), &dangling).unwrap();
            assert!(!create_key_file(&dangling, today()).unwrap());
            assert!(!dir.path().join("later").exists());
        }
    }
}
