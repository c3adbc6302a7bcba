//! What a key store tells of itself.

use std::fmt;
use std::path::PathBuf;

use crate::key::{KeyFileError, KeyKind, KeyState, Keyring, Uses};
use crate::time::Timestamp;

/// What a [`KeyStore`](super::KeyStore) has in force, since when, and what went wrong since.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyStoreStatus {
    /// The key file, for a store that follows one.
    pub path: Option<PathBuf>,
    /// When the ring in force was loaded; `None` if none ever was.
    pub loaded_at: Option<Timestamp>,
    /// The first eight hex digits of the SHA-256 of the file in force: enough to see whether two
    /// machines have the same file, and too little to test guesses of a weak key.
    pub digest: Option<String>,
    /// The keys in the order of the file.
    pub keys: Vec<KeyStatus>,
    /// How often a ring was put in force.
    pub loads: u64,
    /// How often a changed file could not be taken.
    pub failures: u64,
    /// Why the file that is there now is not in force, if it is not, and when that was found.
    pub error: Option<(Timestamp, LoadError)>,
    /// What is allowed and should be known, in sentences.
    pub warnings: Vec<String>,
}

/// One key, without its secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyStatus {
    /// The key's name.
    pub name: String,
    /// How it is written.
    pub kind: KeyKind,
    /// What it may be used for.
    pub uses: Uses,
    /// Where it stands in its life.
    pub state: KeyState,
    /// When it becomes active, if not always.
    pub from: Option<Timestamp>,
    /// When it stops being active, if ever.
    pub until: Option<Timestamp>,
    /// Whether it vouches only for some repositories.
    pub is_bound: bool,
}

/// Why a key file could not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// It could not be read; the text says why.
    Read(String),
    /// It does not parse.
    Parse(KeyFileError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(why) => f.write_str(why),
            Self::Parse(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_) => None,
            Self::Parse(error) => Some(error),
        }
    }
}

/// What the store remembers beside its ring.
#[derive(Default)]
pub(super) struct Record {
    path: Option<PathBuf>,
    loaded_at: Option<Timestamp>,
    file: Option<File>,
    loads: u64,
    failures: u64,
    error: Option<(Timestamp, LoadError)>,
}

/// The file in force.
#[derive(Clone, Copy)]
pub(super) struct File {
    pub(super) digest: [u8; 32],
    pub(super) mode: u32,
    pub(super) detached: bool,
}

impl Record {
    #[cfg(feature = "watch")]
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path: Some(path), ..Self::default() }
    }

    pub(super) fn loaded(now: Timestamp) -> Self {
        let mut record = Self::default();
        record.load(now, None);
        record
    }

    pub(super) fn load(&mut self, now: Timestamp, file: Option<File>) {
        self.loaded_at = Some(now);
        self.file = file;
        self.loads += 1;
        self.error = None;
    }

    /// Whether this is what is already known to be wrong.
    #[cfg(feature = "watch")]
    pub(super) fn error_is(&self, error: &LoadError) -> bool {
        self.error.as_ref().is_some_and(|(_, known)| known == error)
    }

    #[cfg(feature = "watch")]
    pub(super) fn fail(&mut self, now: Timestamp, error: LoadError) {
        self.failures += 1;
        self.error = Some((now, error));
    }

    pub(super) fn status(&self, ring: &Keyring, now: Timestamp) -> KeyStoreStatus {
        let mut warnings = ring.warnings(now);
        if let Some(file) = self.file {
            if file.mode & 0o077 != 0 {
                let mode = file.mode & 0o777;
                warnings.push(format!(
                    "the key file is readable or writable by others (mode {mode:04o}); \
                     chmod 600 makes it yours alone"
                ));
            }
            if file.detached {
                warnings.push(
                    "the bind-mounted key file was replaced on the host, which cannot be seen from \
                     here; mount the directory instead"
                        .into(),
                );
            }
        }
        KeyStoreStatus {
            path: self.path.clone(),
            loaded_at: self.loaded_at,
            digest: self
                .file
                .map(|file| file.digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()),
            keys: ring
                .keys()
                .map(|key| KeyStatus {
                    name: key.name().into(),
                    kind: key.kind(),
                    uses: key.uses(),
                    state: key.state(now),
                    from: key.from(),
                    until: key.until(),
                    is_bound: key.repositories().is_some(),
                })
                .collect(),
            loads: self.loads,
            failures: self.failures,
            error: self.error.clone(),
            warnings,
        }
    }
}
