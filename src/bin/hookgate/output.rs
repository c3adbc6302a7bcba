//! Where the commands write, and what ends them.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use comfy_table::{Table, presets};
use hookgate::proxy::control::ControlError;
use hookgate::time::Timestamp;
use indicatif::{ProgressBar, ProgressStyle};

/// Why a command ends early.
pub(crate) enum Failure {
    /// Nobody reads its output any more.
    Pipe,
    /// What was to be said was said.
    Told,
    Control(ControlError),
    Other(String),
}

impl Failure {
    /// What was to be done on the files of a gate cannot be done while it runs.
    pub(crate) fn gate_runs(state_dir: &Path) -> Self {
        Self::Other(format!(
            "a gate runs with {}: leave --offline out, or stop it first",
            state_dir.display()
        ))
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

/// The standard output.
pub(crate) struct Out(io::BufWriter<io::Stdout>);

impl Out {
    pub(crate) fn new() -> Self {
        Self(io::BufWriter::new(io::stdout()))
    }

    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(not_written)
    }

    pub(crate) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        for line in table.lines() {
            self.line(line.trim())?;
        }
        Ok(())
    }

    /// Writes what is left; so its failure is told.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(not_written)
    }
}

pub(crate) fn not_written(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::Pipe
    } else {
        Failure::Other(format!("cannot write: {error}"))
    }
}

/// Columns without lines, which other programs can read too.
pub(crate) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// How far long work is, on the standard error if that is a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(message: &'static str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {eta}",
            None => "{spinner} {msg} {human_pos}",
        };
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        // The templates are good ones; otherwise it looks as usual.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar.with_message(message))
    }

    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    pub(crate) fn advance(&self, count: usize) {
        self.0.inc(count as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn time(time: Timestamp) -> String {
    Timestamp::from_seconds(time.as_seconds()).unwrap_or(time).to_string()
}

/// The two largest units of a length of time.
pub(crate) fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    let units = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60), ("s", 1)];
    let Some(at) = units.iter().position(|(_, unit)| seconds >= *unit) else { return "0s".into() };
    let (name, unit) = units[at];
    let largest = format!("{}{name}", seconds / unit);
    match units.get(at + 1) {
        Some((name, next)) if seconds % unit >= *next => {
            format!("{largest} {}{name}", seconds % unit / next)
        }
        _ => largest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_its_two_largest_units() {
        for (seconds, wanted) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3_600, "1h"),
            (3_659, "1h"),
            (3_660, "1h 1m"),
            (86_400 * 9 + 7_300, "9d 2h"),
        ] {
            assert_eq!(length(Duration::from_secs(seconds)), wanted);
        }
    }
}
