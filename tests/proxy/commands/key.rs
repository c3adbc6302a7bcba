//! `hookgate key list`, `rotate` and `revoke`, on files and beside a running gate.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::Value;

use super::run_in;
use crate::support::gate::{Setup, run};
use crate::support::host::{KEY, KEYS, OTHER_KEY, TOKEN, github_push, gitlab_signed};
use crate::support::{key_of, until};

const FILE: [&str; 2] = ["--key-file", "webhook.key"];

#[test]
fn a_rotation_beside_a_running_gate_refuses_nothing() {
    let gate = Setup::new().hook().keys(&format!("# ours\n{KEY} name=old\n")).start();
    let path = gate.path("webhook.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("our own file");
    let finished =
        run_in(gate.folder(), &[&["key", "rotate", "--name", "new", "--json"][..], &FILE].concat());
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{}", finished.stdout);
    let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(
        (&report["new"], &report["old"], &report["key"]),
        (&"new".into(), &"old".into(), &Value::Null)
    );
    let text = fs::read_to_string(&path).expect("a file");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[0], lines.len()), ("# ours", 3));
    let ended = format!("{KEY} name=old until={}", report["until"].as_str().expect("a time"));
    assert_eq!(lines[2], ended);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o7777, 0o640);

    let new = key_of(lines[1]);
    // The old key holds at every moment, and the new one as soon as it is in force.
    until("the new key in force", || {
        assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
        (gate.ask(&github_push(&new)).status == 202).then_some(())
    });
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    for output in [&finished.stdout, &gate.log()] {
        assert!(!output.contains(&new) && !output.contains(KEY));
    }

    let finished = run_in(gate.folder(), &[&["key", "revoke", "old"][..], &FILE].concat());
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{}", finished.stdout);
    until("the old key out of force", || (gate.ask(&github_push(KEY)).status == 401).then_some(()));
    assert_eq!(gate.ask(&github_push(&new)).told(), (202, "printed"));
    assert!(!fs::read_to_string(&path).expect("a file").contains(KEY));
}

#[test]
fn a_new_key_is_shown_only_when_asked_for() {
    let setup = Setup::bare(&[]).keys(KEYS);
    let folder = Arc::clone(setup.folder());
    let rotate = |args: &[&str]| run_in(&folder, &[&["key", "rotate"][..], &FILE, args].concat());
    let read = || fs::read_to_string(folder.path().join("webhook.key")).expect("a file");
    let finished = rotate(&["--name", "a", "--overlap", "7d"]);
    assert!(
        finished.stdout.starts_with("webhook.key: new key a, and plain ends at "),
        "{}",
        finished.stdout
    );
    assert!(!finished.stdout.contains(&*key_of(&read())));
    let finished = rotate(&["--name", "b", "--replace", "token", "--show-key"]);
    let line = finished.stdout.lines().nth(1).expect("a key");
    assert!(
        line.starts_with("whsec_") && line != TOKEN && read().contains(&format!("{line} name=b\n"))
    );
    // Whoever signs with what was shown is let in.
    let gate = Setup::new().within(&folder).hook().args(&FILE).start();
    assert_eq!(gate.ask(&gitlab_signed().signed_with(line)).told(), (202, "printed"));
}

#[test]
fn keys_are_listed_without_their_secrets() {
    let text = format!(
        "{KEY} name=ours use=sign\n{OTHER_KEY} until=2026-01-01T00:00:00Z\n\
         U2VwYXJhdGVLZXlGb3JVUkxz name=urls use=url from=2100-01-01T00:00:00Z repositories=github.com/acme/*\n{TOKEN} name=token\n"
    );
    let setup = Setup::bare(&[]).keys(&text);
    let folder = Arc::clone(setup.folder());
    let list = |args: &[&str]| run_in(&folder, &[&["key", "list"][..], &FILE, args].concat());
    let plain = list(&[]);
    let lines: Vec<_> = plain.stdout.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "NAME    STATE    FOR             FROM                  UNTIL                 ONLY               USED  LAST USED",
            "ours    active   sign            -                     -                     -                  -     -",
            "line-2  expired  sign,token,url  -                     2026-01-01T00:00:00Z  -                  -     -",
            "urls    pending  url             2100-01-01T00:00:00Z  -                     github.com/acme/*  -     -",
            "token   active   sign            -                     -                     -                  -     -",
        ]
    );
    let why = "uses are not known: no gate listens on hookgate-state/control.sock\n";
    assert_eq!((plain.code, &*plain.stderr), (Some(0), why));
    let json = list(&["--json"]);
    let keys: Vec<Value> = serde_json::from_str(&json.stdout).expect("JSON");
    let states: Vec<_> = keys.iter().map(|key| key["state"].as_str().expect("a word")).collect();
    assert_eq!(states, ["active", "expired", "pending", "active"]);
    assert_eq!(
        (&keys[0]["primary_for"], &keys[3]["primary_for"]),
        (&vec!["sign"].into(), &vec!["sign"].into())
    );
    assert_eq!(
        (&keys[2]["from"], &keys[3]["kind"]),
        (&"2100-01-01T00:00:00Z".into(), &"whsec".into())
    );
    assert_eq!((&keys[0]["used"], &keys[0]["last_used"]), (&Value::Null, &Value::Null));
    for output in [&plain.stdout, &json.stdout] {
        assert!([KEY, OTHER_KEY, TOKEN].iter().all(|key| !output.contains(key)), "{output}");
    }
}

#[test]
fn what_is_not_changed_is_told_and_left() {
    let setup = Setup::bare(&[]).keys(&format!("{KEY} name=only\n"));
    let folder = Arc::clone(setup.folder());
    let read = || fs::read_to_string(folder.path().join("webhook.key")).expect("a file");
    let before = read();
    for (args, wanted) in [
        (&["revoke", "other"][..], "error: webhook.key: no key has this name\n"),
        (
            &["revoke", "only"],
            "error: webhook.key: this is the only key of the file; make another one first\n",
        ),
        (&["rotate", "--replace", "other"], "error: webhook.key: no key has this name\n"),
        (
            &["rotate", "--name", "a b"],
            "error: webhook.key: a name is 1 to 64 of A-Z a-z 0-9 . _ -\n",
        ),
        (
            &["rotate", "--name", "only"],
            "error: webhook.key: not changed, since then another key has this name already\n",
        ),
    ] {
        let finished = run_in(&folder, &[&["key"][..], args, &FILE].concat());
        assert_eq!(
            (finished.code, &*finished.stderr, &*finished.stdout),
            (Some(1), wanted, ""),
            "{args:?}"
        );
        assert_eq!(read(), before);
    }
    for args in [&["key", "rotate", "--overlap", "soon"][..], &["key", "revoke"]] {
        assert_eq!(run(args).code, Some(2), "{args:?}");
    }
    let missing = run_in(&folder, &["key", "rotate", "--key-file", "none.key"]);
    assert!(missing.stderr.starts_with("error: none.key: "), "{}", missing.stderr);
    assert_eq!(
        (missing.code, fs::read_dir(folder.path()).expect("a folder").count()),
        (Some(1), 1)
    );
}
