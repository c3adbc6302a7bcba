//! The commands that operators use beside a running gate: what they print, and what they end with.

mod bench;
mod describe;
mod init;
mod key;
mod ready;
mod schema;
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
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let args: Vec<_> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let finished = crate::support::gate::run(&args);
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{args:?}");
        let help = finished.stdout;
        let Some((_, listed)) = help.split_once("\nCommands:\n") else {
            let (_, examples) = help.split_once("Examples:\n").expect(&help);
            let example = format!(" hookgate {}", command.join(" "));
            assert!(examples.contains(&example), "{help}");
            assert!(examples.contains("\nExit status: 0 "), "{help}");
            // Neither colours nor anything else that is for a terminal.
            assert!(!help.contains('\x1b'), "{help}");
            seen += 1;
            continue;
        };
        let listed = listed.lines().take_while(|line| !line.is_empty());
        let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        for name in names.filter(|name| !name.is_empty() && *name != "help") {
            commands.push([&command[..], &[name.to_owned()]].concat());
        }
    }
    assert!(seen > 15, "{seen} commands");
}
