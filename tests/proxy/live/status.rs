//! `hookgate status`, and what `hookgate key list` asks of the gate.

use std::fs;

use serde_json::{Value, json};

use super::{bad, good, run, status};
use crate::support::gate::{Gate, Setup};
use crate::support::host::{KEY, KEYS, OTHER_KEY, change, github_push, gitlab_signed};
use crate::support::until;
use crate::support::upstream::{Down, Reply, Upstream};

/// Of each refusal, what does not change from run to run.
fn refusals(gate: &Gate) -> Vec<Value> {
    let shown = status(gate.folder(), 0);
    let refusals = shown["refusals"].as_array().expect("a list").iter();
    refusals
        .map(|it| json!([it["count"], it["hook"], it["provider"], it["outcome"], it["reason"]]))
        .collect()
}

#[test]
fn refusals_are_told_with_their_reasons_and_what_was_taken_is_not() {
    let gate = Setup::new().hook().keys(KEYS).start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    assert_eq!(refusals(&gate), Vec::<Value>::new());
    let push = github_push(KEY);
    for _ in 0..3 {
        assert_eq!(gate.ask(&github_push(OTHER_KEY)).status, 401);
    }
    let changed = push.clone().body(b"{}".to_vec());
    let unsigned = push.clone().without("x-hub-signature-256");
    let wrong_url = unsigned.clone().to(&format!("/webhook/{OTHER_KEY}"));
    let elsewhere = push.clone().to(&format!("/elsewhere/{KEY}"));
    for (request, outcome) in [
        (changed, 401),
        (unsigned, 401),
        (wrong_url, 401),
        (elsewhere, 404),
        (push.clone().with("content-type", "text/plain"), 415),
    ] {
        assert_eq!(gate.ask(&request).status, outcome);
    }
    let told = refusals(&gate);
    // The signature over another body and a key in the URL are as wrong as another key.
    for wanted in [
        json!([1, "default", "github", "unauthorized", "no credential"]),
        json!([5, "default", "github", "unauthorized", "no active key fits"]),
        json!([1, null, null, "not-found", "no such path"]),
    ] {
        assert!(told.contains(&wanted), "{told:?}");
    }
    assert_eq!(told.len(), 4, "{told:?}");
    let latest = told.iter().find(|refusal| !refusal[1].is_null()).expect("one of the hook");
    assert_eq!(latest[3], "unsupported", "the latest comes first: {told:?}");
    good(gate.folder(), &["disable"]);
    assert_eq!(gate.ask(&push).told(), (403, "disabled"));
    assert_eq!(refusals(&gate)[0], json!([1, "default", null, "disabled", "hook is disabled"]));
    let text = good(gate.folder(), &["status"]);
    let line = text.lines().find(|line| line.contains("no active key fits")).expect(&text);
    let columns: Vec<_> = line.split_whitespace().skip(2).collect();
    let wanted = "5 default 127.0.0.1 github unauthorized no active key fits";
    assert_eq!(columns.join(" "), wanted);
}

#[test]
fn uses_of_keys_are_counted_and_listed_with_the_file() {
    let gate = Setup::new().hook().keys(&format!("{KEYS}{OTHER_KEY} name=2026-11-24\n")).start();
    for _ in 0..2 {
        assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    }
    assert_eq!(gate.ask(&gitlab_signed().push()).told(), (202, "printed"));
    assert_eq!(gate.ask(&github_push("no-key-of-this-file")).status, 401);
    let shown = status(gate.folder(), 0);
    let file = &shown["key_files"][0];
    assert!(file["path"].as_str().is_some_and(|path| path.starts_with('/')), "{file}");
    let keys = file["keys"].as_array().expect("a list");
    let told: Vec<_> =
        keys.iter().map(|key| json!([key["name"], key["used"], key["made_at"]])).collect();
    let made = "2026-11-24T00:00:00Z";
    assert_eq!(
        told,
        [json!(["plain", 2, null]), json!(["token", 1, null]), json!(["2026-11-24", 0, made])]
    );
    assert_eq!((keys[0]["last_used"].is_string(), &keys[2]["last_used"]), (true, &Value::Null));

    let list = ["key", "list", "--key-file", "webhook.key"];
    let text = good(gate.folder(), &list);
    let used: Vec<_> = text.lines().skip(1).map(|line| line.split_whitespace().nth(6)).collect();
    assert_eq!(used, [Some("2"), Some("1"), Some("0")], "{text}");
    let text = good(gate.folder(), &[&list[..], &["--json"]].concat());
    let listed: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&listed[0]["used"], &listed[0]["last_used"]), (&json!(2), &keys[0]["last_used"]));

    // A file that the gate does not have.
    fs::write(gate.path("other.key"), format!("{OTHER_KEY} name=plain\n")).expect("a file");
    let other = run(gate.folder(), &["key", "list", "--key-file", "other.key"]);
    let wanted = "uses are not known: the gate that runs does not take keys of this file\n";
    assert_eq!((other.code, &*other.stderr), (Some(0), wanted));
    assert!(
        other.stdout.lines().nth(1).is_some_and(|line| line.ends_with("-     -")),
        "{}",
        other.stdout
    );
}

#[test]
fn a_gate_that_is_well_says_so_with_everything_that_it_has() {
    let upstream = Upstream::start();
    let gate = Setup::new().hook().keys(KEYS).upstream(&upstream).start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (200, "forwarded"));
    let shown = status(gate.folder(), 0);
    assert_eq!((&shown["ready"], &shown["problems"]), (&json!(true), &json!([])));
    let service = &shown["upstreams"][0];
    assert_eq!((&service["name"], &service["up"]), (&upstream.url().into(), &json!(true)));
    assert_eq!((service["last_success"].is_string(), &service["last_error"]), (true, &Value::Null));
    let listeners: Vec<_> = shown["listeners"].as_array().expect("a list").iter().collect();
    assert_eq!(listeners[0]["address"], gate.address().to_string());
    assert_eq!((listeners.len(), &listeners[1]["serves"]), (2, &json!("health")));
    assert_eq!(shown["spool"]["health"], "open");
    assert_eq!(shown["pid"], gate.id());
    let text = good(gate.folder(), &["status"]);
    for part in [
        "gate           ready",
        "\nHOOKS\n",
        "\nKEYS in /",
        "\nSPOOL\n",
        "\nUPSTREAMS\n",
        "\nLISTENERS\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("problems") && !text.contains("REFUSALS"), "{text}");

    let folder = gate.folder().clone();
    assert_eq!(gate.stop().code, Some(0));
    let told = bad(&folder, &["status"], 3);
    let wanted = "error: no gate listens on state/control.sock; if one runs, --state-dir or --config says where\n";
    assert_eq!(told, wanted);
}

/// The problems of a gate that has some.
#[track_caller]
fn problems(gate: &Gate) -> String {
    let finished = run(gate.folder(), &["status", "--json"]);
    let shown: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let problems = shown["problems"].as_array().expect("a list");
    assert_eq!(finished.code, Some(i32::from(!problems.is_empty())), "{}", finished.stdout);
    problems.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_wrong_is_told_and_is_the_exit_code() {
    let down = Down::new();
    let url = down.url();
    let gate = Setup::new().hook().keys(KEYS).args(&["--upstream", &url]).start();
    assert_eq!(problems(&gate), "");
    // So many failures in a row are no accident.
    let mut repositories = 1..;
    until("the service is taken to be down", || {
        let push = change(repositories.next()?, 1, 2);
        assert_eq!(gate.ask(&push).told(), (202, "queued"));
        problems(&gate).contains("is down").then_some(())
    });
    let wanted = format!("upstream {url} is down: no connection to upstream: ");
    assert!(problems(&gate).starts_with(&wanted), "{}", problems(&gate));
    let text = run(gate.folder(), &["status"]).stdout;
    assert!(text.contains("down, deliveries wait"), "{text}");
    let upstream = down.up();
    upstream.reply(Reply::Answer(404, &[], ""));
    until("deliveries are given up", || {
        problems(&gate).contains("given up and kept in the spool").then_some(())
    });
    drop(upstream);

    fs::write(gate.path("webhook.key"), "canary/canary/canary\n").expect("a file");
    until("the key file is not taken", || {
        problems(&gate).contains("key file webhook.key").then_some(())
    });
    assert!(!problems(&gate).contains("canary"), "{}", problems(&gate));
    let good = fs::read_to_string(gate.path("hookgate.toml")).expect("a file");
    fs::write(gate.path("hookgate.toml"), "[[hook]]\nnme = \"default\"\n").expect("a file");
    until("the configuration is not taken", || {
        problems(&gate).contains("the configuration is not taken since").then_some(())
    });
    fs::write(gate.path("webhook.key"), KEYS).expect("a file");
    fs::write(gate.path("hookgate.toml"), good).expect("a file");
    until("both are taken again", || {
        let told = problems(&gate);
        (!told.contains("key file") && !told.contains("configuration")).then_some(())
    });
}
