//! Reading single values, and gathering what is wrong with them.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::spanned::Spanned;
use bytesize::ByteSize;
use sha2::{Digest, Sha256};

use super::error::{ConfigError, Problem, place};

/// The SHA-256 of a file, which can hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Print([u8; 32]);

impl Print {
    pub(super) fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Print")
    }
}

/// Where in the file something stands.
pub(super) type Span = Option<Range<usize>>;

pub(super) struct Reader<'a> {
    file: Option<&'a Path>,
    text: &'a str,
    problems: Vec<Problem>,
    files: Vec<PathBuf>,
    prints: HashMap<PathBuf, Print>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: Option<&'a Path>, text: &'a str) -> Self {
        let prints =
            file.map(|file| (file.into(), Print::of(text.as_bytes()))).into_iter().collect();
        Self { file, text, problems: Vec::new(), files: Vec::new(), prints }
    }

    /// A value of the file; `None` if it is not there or wrong.
    pub(super) fn value<T, E: fmt::Display>(
        &mut self,
        value: Option<Spanned<String>>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = value?;
        self.keep(Some(value.span()), parse(value.get_ref()))
    }

    /// The values of a list, without those that are wrong.
    pub(super) fn all<T, E: fmt::Display>(
        &mut self,
        values: Option<Vec<Spanned<String>>>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let values = values?.into_iter();
        Some(values.filter_map(|value| self.value(Some(value), &parse)).collect())
    }

    /// A value of a flag.
    pub(super) fn flag<T, E: fmt::Display>(
        &mut self,
        flag: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(Problem {
                    origin: flag.into(),
                    place: None,
                    message: error.to_string(),
                });
                None
            }
        }
    }

    /// A number of things, at least one.
    pub(super) fn count(&mut self, value: Option<Spanned<u32>>) -> Option<usize> {
        let value = value?;
        let count = match *value.get_ref() {
            0 => Err("must be at least 1"),
            count => Ok(count as usize),
        };
        self.keep(Some(value.span()), count)
    }

    pub(super) fn keep<T, E: fmt::Display>(&mut self, at: Span, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.problem(at, error.to_string())).ok()
    }

    pub(super) fn problem(&mut self, at: Span, message: String) {
        self.problems.push(Problem {
            origin: self.file.map_or_else(|| "configuration".into(), PathBuf::from),
            place: at.map(|span| place(self.text, &span)),
            message,
        });
    }

    /// The folder to which paths of the file belong.
    pub(super) fn folder(&self) -> Option<&'a Path> {
        self.file.and_then(Path::parent)
    }

    /// A path of the file, which belongs to the file's folder.
    pub(super) fn path(&self, path: PathBuf) -> PathBuf {
        match self.folder() {
            Some(folder) => folder.join(path),
            None => path,
        }
    }

    /// The content of another file, which then is one of those to be watched.
    pub(super) fn read(&mut self, path: &Spanned<PathBuf>) -> Option<Vec<u8>> {
        let at = Some(path.span());
        let path = self.path(path.get_ref().clone());
        let content = std::fs::read(&path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()));
        if let Ok(content) = &content {
            self.prints.insert(path.clone(), Print::of(content));
        }
        self.files.push(path);
        self.keep(at, content)
    }

    /// The files that were read beside the configuration, and what was in all of them.
    pub(super) fn take_files(&mut self) -> (Vec<PathBuf>, HashMap<PathBuf, Print>) {
        (std::mem::take(&mut self.files), std::mem::take(&mut self.prints))
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(value) } else { Err(ConfigError::new(self.problems)) }
    }
}

/// A length of time that is not zero.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    match any_duration(text) {
        Ok(Duration::ZERO) => Err("must be longer than nothing"),
        other => other,
    }
}

pub(super) fn any_duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str =
        "expected a length of time such as \"10s\", \"3500ms\", \"1h\" or \"7d\"";
    // jiff knows no days without a calendar.
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.trim_end().parse::<u32>().ok())
    {
        return Ok(Duration::from_secs(u64::from(days) * 24 * 3600));
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| EXPECTED)?;
    Duration::try_from(duration).map_err(|_| EXPECTED)
}

const EXPECTED_SIZE: &str = "expected a size such as \"25MiB\", \"64KiB\" or \"1000000B\"";

/// A size of at least one byte.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    any_size(text).and_then(|size| if size > 0 { Ok(size) } else { Err(EXPECTED_SIZE) })
}

pub(super) fn any_size(text: &str) -> Result<u64, &'static str> {
    text.parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| EXPECTED_SIZE)
}

pub(super) fn percent(text: &str) -> Result<u8, &'static str> {
    text.strip_suffix('%')
        .and_then(|number| number.trim_end().parse().ok())
        .filter(|percent| (1..=100).contains(percent))
        .ok_or("expected a share from \"1%\" to \"100%\"")
}

/// One of several words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&str) -> Result<T, String> {
    let found: Vec<(String, T)> =
        words.iter().map(|(word, value)| ((*word).into(), *value)).collect();
    move |text| {
        let names = || found.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>();
        found
            .iter()
            .find(|(word, _)| word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("expected one of {}", names().join(", ")))
    }
}
