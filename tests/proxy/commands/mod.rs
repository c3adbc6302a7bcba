//! The commands that operators use beside a running gate: what they print, and what they end with.

mod describe;
mod init;
mod key;
mod send;
mod url;
mod verify;

use std::sync::Arc;

use tempfile::TempDir;

use crate::support::gate::{Finished, Setup};

/// `hookgate` with these arguments, run to its end in this folder.
#[track_caller]
fn run_in(folder: &Arc<TempDir>, args: &[&str]) -> Finished {
    Setup::bare(args).within(folder).run()
}

#[test]
fn every_command_has_a_help_with_an_example() {
    for command in [
        &["verify"][..],
        &["sign"],
        &["send"],
        &["url"],
        &["init"],
        &["key", "list"],
        &["key", "rotate"],
        &["key", "revoke"],
        &["completions"],
        &["man"],
    ] {
        let args = [command, &["--help"]].concat();
        let finished = crate::support::gate::run(&args);
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{args:?}");
        let example = format!("  hookgate {}", command.join(" "));
        let (_, examples) = finished.stdout.split_once("Examples:\n").expect("examples");
        assert!(examples.contains(&example), "{args:?}: {}", finished.stdout);
    }
}
