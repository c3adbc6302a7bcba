//! `hookgate log`.

use serde_json::Value;

use super::{bad, good, status, words};
use crate::support::gate::Setup;
use crate::support::host::{KEY, KEYS, github_push};
use crate::support::until;

fn setup() -> Setup {
    Setup::new().hook().keys(KEYS)
}

#[test]
fn level_and_format_change_while_the_gate_runs_and_last_until_it_ends() {
    let gate = setup().start();
    let folder = gate.folder();
    assert_eq!(words(&good(folder, &["log"])), [["level", "info"], ["format", "json"]]);
    let push = || assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    push();
    until("a record", || (gate.records().len() == 1).then_some(()));

    let told = good(folder, &["log", "--level", "info,hookgate::audit=off", "--json"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        (&told["level"], &told["format"]),
        (&"info,hookgate::audit=off".into(), &"json".into())
    );
    push();
    let told = good(folder, &["log", "--level", "info", "--format", "text"]);
    assert_eq!(words(&told), [["level", "info"], ["format", "text"]]);
    push();
    gate.shows("hookgate::audit: Request answered");
    assert_eq!(
        gate.records().len(),
        1,
        "the second push left no record, and the third one of text"
    );
    assert_eq!(status(folder, 0)["log"], serde_json::json!({"level": "info", "format": "text"}));

    let folder = folder.clone();
    assert_eq!(gate.stop().code, Some(0));
    let gate = Setup::new().within(&folder).hook().keys(KEYS).start();
    assert_eq!(words(&good(gate.folder(), &["log"])), [["level", "info"], ["format", "json"]]);
}

#[test]
fn what_cannot_be_read_changes_nothing() {
    let gate = setup().start();
    for (args, wanted) in [
        (&["--level", "loud"][..], "cannot read the log filter"),
        (&["--format", "yaml"], "unknown log format, expected text or json"),
        (&["--level", "debug", "--format", "yaml"], "unknown log format"),
        (&["--level", "loud", "--format", "text"], "cannot read the log filter"),
    ] {
        let told = bad(gate.folder(), &[&["log"][..], args].concat(), 1);
        assert!(told.starts_with("error: ") && told.contains(wanted), "{args:?}: {told}");
        assert_eq!(words(&good(gate.folder(), &["log"])), [["level", "info"], ["format", "json"]]);
    }
    let folder = gate.folder().clone();
    assert_eq!(gate.stop().code, Some(0));
    let told = bad(&folder, &["log", "--level", "debug"], 3);
    assert!(told.contains("no gate listens on state/control.sock"), "{told}");
}
