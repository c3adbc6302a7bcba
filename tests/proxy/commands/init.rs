//! `hookgate init`: what it writes is taken, and what is there stays.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use super::run_in;
use crate::support::gate::Setup;
use crate::support::host::github_push;
use crate::support::key_of;

fn folder() -> Arc<TempDir> {
    Arc::new(TempDir::with_prefix("hookgate-").expect("a folder"))
}

#[test]
fn what_is_made_is_taken_and_a_second_time_changes_nothing() {
    let folder = folder();
    let finished = run_in(&folder, &["init"]);
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{}", finished.stdout);
    let wanted = "hookgate-state/webhook.key: made\nhookgate.toml: made\n\nNext:\n  hookgate serve --config ";
    assert!(finished.stdout.starts_with(wanted), "{}", finished.stdout);
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("a file");
    let (config, keys) = (read("hookgate.toml"), read("hookgate-state/webhook.key"));
    assert!(!finished.stdout.contains(&*key_of(&keys)));

    let check = run_in(&folder, &["check", "--config", "hookgate.toml"]);
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    assert!(
        check.stdout.contains("key file      hookgate-state/webhook.key\n"),
        "{}",
        check.stdout
    );

    let finished = run_in(&folder, &["init"]);
    assert_eq!(finished.code, Some(0));
    assert_eq!(
        finished.stdout.matches("is there, left as it is").count(),
        2,
        "{}",
        finished.stdout
    );
    assert_eq!((read("hookgate.toml"), read("hookgate-state/webhook.key")), (config, keys.clone()));

    let args = ["serve", "--log-format", "json", "--config", "hookgate.toml"];
    let ports = ["--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"];
    let gate = Setup::bare(&args).within(&folder).args(&ports).start();
    assert_eq!(gate.ask(&github_push(&key_of(&keys))).told(), (202, "printed"));
}

#[test]
fn every_setting_of_the_template_is_one_that_there_is() {
    let folder = folder();
    assert_eq!(run_in(&folder, &["init", "--upstream", "http://127.0.0.1:7000"]).code, Some(0));
    let path = folder.path().join("hookgate.toml");
    let text = fs::read_to_string(&path).expect("a file");
    assert!(text.contains("\nurl = \"http://127.0.0.1:7000\"\n"));
    let is_setting = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase());
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if is_setting(rest) => rest,
        _ => line,
    });
    let lines: Vec<_> = lines.collect();
    assert!(lines.iter().filter(|line| is_setting(line)).count() > 20);
    fs::write(&path, lines.join("\n")).expect("a file");
    let check = run_in(&folder, &["check", "--config", "hookgate.toml"]);
    assert_eq!(check.code, Some(0), "{}", check.stderr);
}

#[test]
fn what_cannot_be_written_is_told() {
    let folder = folder();
    let finished = run_in(&folder, &["init", "--upstream", "http://u:s3cret@h"]);
    assert_eq!((finished.code, finished.stderr.contains("s3cret")), (Some(1), false));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    fs::write(folder.path().join("file"), "").expect("a file");
    let finished = run_in(&folder, &["init", "file"]);
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stderr.starts_with("error: file/hookgate-state/webhook.key: "),
        "{}",
        finished.stderr
    );
}
