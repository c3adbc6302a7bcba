//! The way from a path to its file: each link on it, and the folders in which a change would show.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// As many as Linux follows.
const MAX_LINKS: usize = 40;

/// A folder's device and inode.
pub(super) type DirId = (u64, u64);

/// What the file system says about a path at one moment, without opening anything.
#[derive(Debug)]
pub(super) struct Chain {
    /// The folder of each symbolic link on the way and that of the file itself; where something on
    /// the way is missing, the last folder that is there. Their paths hold no links.
    pub(super) dirs: BTreeMap<DirId, PathBuf>,
    pub(super) stamp: Stamp,
}

/// Differs when a link was changed or the file was written, replaced, made or removed. The same
/// stamp is no proof that nothing happened: file systems count time in ticks of up to 2 s.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    links: Vec<(Mark, PathBuf)>,
    file: Result<Mark, io::ErrorKind>,
}

#[derive(Debug, PartialEq, Eq)]
struct Mark {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl From<&Metadata> for Mark {
    fn from(of: &Metadata) -> Self {
        Self {
            dev: of.dev(),
            ino: of.ino(),
            size: of.size(),
            mtime: (of.mtime(), of.mtime_nsec()),
            ctime: (of.ctime(), of.ctime_nsec()),
        }
    }
}

impl Chain {
    /// Follows an absolute path step by step, as the kernel does.
    pub(super) fn resolve(path: &Path) -> Self {
        let mut dirs = BTreeMap::new();
        let mut links = Vec::new();
        let mut here = PathBuf::from("/");
        let mut rest = Vec::new();
        push_reversed(&mut rest, path);
        while let Some(name) = rest.pop() {
            if name == ".." {
                // `here` holds no links, so this is what `..` means to the kernel too.
                here.pop();
                continue;
            }
            let next = here.join(name);
            let found = fs::symlink_metadata(&next);
            if let Ok(found) = &found
                && found.is_dir()
                && !rest.is_empty()
            {
                here = next;
                continue;
            }
            if let Ok(dir) = fs::symlink_metadata(&here) {
                dirs.insert((dir.dev(), dir.ino()), here.clone());
            }
            let Ok(found) = found else { break };
            if !found.is_symlink() || links.len() == MAX_LINKS {
                break;
            }
            let Ok(target) = fs::read_link(&next) else { break };
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            push_reversed(&mut rest, &target);
            links.push((Mark::from(&found), target));
        }
        // The kernel's own resolution: it also knows the links of /proc, which have no target.
        let file = fs::metadata(path).map(|of| Mark::from(&of)).map_err(|error| error.kind());
        Self { dirs, stamp: Stamp { links, file } }
    }
}

fn push_reversed(rest: &mut Vec<OsString>, path: &Path) {
    rest.extend(path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder whose own path holds no link, and the folders of `path` in it.
    fn root() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        (dir, path)
    }

    fn dirs(path: &Path) -> Vec<PathBuf> {
        let mut dirs: Vec<_> = Chain::resolve(path).dirs.into_values().collect();
        dirs.sort();
        dirs
    }

    #[test]
    fn a_plain_file_has_one_folder() {
        let (_keep, root) = root();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        assert_eq!(dirs(&root.join("a/file")), [root.join("a")]);
        assert_eq!(dirs(&root.join("a/../a/./file")), [root.join("a")]);
        assert_eq!(dirs(&root.join("a/none")), [root.join("a")]);
    }

    #[test]
    fn each_link_adds_the_folder_that_holds_it() {
        let (_keep, root) = root();
        for dir in ["etc", "etc/..1", "releases", "releases/r1", "releases/r1/conf"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::write(root.join("etc/..1/file"), "").unwrap();
        // As Kubernetes lays out a volume.
        symlink("..1", root.join("etc/..data")).unwrap();
        symlink("..data/file", root.join("etc/file")).unwrap();
        assert_eq!(dirs(&root.join("etc/file")), [root.join("etc"), root.join("etc/..1")]);
        // A folder that is a link, with a link in it that leaves it, by an absolute path.
        symlink("releases/r1", root.join("current")).unwrap();
        symlink(root.join("etc/file"), root.join("releases/r1/conf/file")).unwrap();
        assert_eq!(
            dirs(&root.join("current/conf/file")),
            [root.clone(), root.join("etc"), root.join("etc/..1"), root.join("releases/r1/conf")]
        );
        // `..` behind a link is the parent of where the link leads.
        assert_eq!(
            dirs(&root.join("current/../r1/none")),
            [root.clone(), root.join("releases/r1")]
        );
    }

    #[test]
    fn where_something_is_missing_the_last_folder_counts() {
        let (_keep, root) = root();
        let only = std::slice::from_ref(&root);
        assert_eq!(dirs(&root.join("a/b/file")), only);
        symlink("nowhere/at/all", root.join("link")).unwrap();
        assert_eq!(dirs(&root.join("link/file")), only);
        fs::write(root.join("plain"), "").unwrap();
        assert_eq!(dirs(&root.join("plain/file")), only);
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(dirs(&root.join("loop")), only);
        assert!(Chain::resolve(&root.join("loop")).stamp.file.is_err());
    }

    #[test]
    fn the_stamp_follows_links_and_file() {
        let (_keep, root) = root();
        let path = root.join("link");
        let stamp = || Chain::resolve(&path).stamp;
        let missing = stamp();
        assert_eq!(missing, stamp());
        fs::write(root.join("one"), "1").unwrap();
        fs::hard_link(root.join("one"), root.join("two")).unwrap();
        symlink("one", &path).unwrap();
        let one = stamp();
        assert_ne!(one, missing);
        assert_eq!(one, stamp());
        fs::write(root.join("one"), "longer").unwrap();
        let longer = stamp();
        assert_ne!(longer, one);
        // The same file by another way.
        fs::remove_file(&path).unwrap();
        symlink("two", &path).unwrap();
        assert_ne!(longer, stamp());
    }
}
