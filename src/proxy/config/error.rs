//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// All that is wrong with a configuration; at least one [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<Problem>);

/// One thing that is wrong. It repeats nothing of the file's values.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file, or the flag.
    pub origin: PathBuf,
    /// Line and column in characters, from 1; `None` for what concerns no place.
    pub place: Option<(usize, usize)>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl ConfigError {
    /// The problems, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.place);
        Self(problems)
    }

    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot be read: {error}");
        Self(vec![Problem { origin: path.into(), place: None, message }])
    }

    pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        // Only the message: the error's own display repeats the line.
        let message = without_values(error.message());
        let place = error.span().map(|span| place(text, &span));
        Self(vec![Problem { origin: path.into(), place, message }])
    }
}

/// `invalid type: string "x", expected y` without the `"x"`.
fn without_values(message: &str) -> String {
    let message = message.trim();
    match (message.find('"'), message.rfind("\", expected")) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{}", message[..from].trim_end(), &message[to + 1..])
        }
        _ => message.lines().collect::<Vec<_>>().join("; "),
    }
}

/// Line and column of where a span begins.
pub(super) fn place(text: &str, span: &Range<usize>) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(span.start)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}
