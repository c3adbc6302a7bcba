//! The commands that speak with a running gate: its switches, its status and its log.

mod log;
mod status;
mod switch;

use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::gate::{Finished, Setup};
use crate::support::host::{KEY, OTHER_KEY, TOKEN};

/// `hookgate` with these arguments about the gate whose state is in this folder. No key comes out.
#[track_caller]
fn run(folder: &Arc<TempDir>, args: &[&str]) -> Finished {
    let finished = Setup::bare(args).args(&["--state-dir", "state"]).within(folder).run();
    for text in [&finished.stdout, &finished.stderr] {
        assert!([KEY, OTHER_KEY, TOKEN].iter().all(|key| !text.contains(&key[..12])), "{text}");
    }
    finished
}

/// What a command prints that succeeds.
#[track_caller]
fn good(folder: &Arc<TempDir>, args: &[&str]) -> String {
    let finished = run(folder, args);
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{args:?}: {}", finished.stdout);
    finished.stdout
}

/// What a command says that fails with this code.
#[track_caller]
fn bad(folder: &Arc<TempDir>, args: &[&str], code: i32) -> String {
    let finished = run(folder, args);
    assert_eq!(
        (finished.code, &*finished.stdout),
        (Some(code), ""),
        "{args:?}: {}",
        finished.stderr
    );
    finished.stderr
}

/// The JSON of `hookgate status`, which ends with this code.
#[track_caller]
fn status(folder: &Arc<TempDir>, code: i32) -> Value {
    let finished = run(folder, &["status", "--json"]);
    assert_eq!((finished.code, &*finished.stderr), (Some(code), ""), "{}", finished.stdout);
    serde_json::from_str(&finished.stdout).expect("JSON")
}

/// The words of each line.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}
