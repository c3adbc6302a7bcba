//! `hookgate enable` and `hookgate disable`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{bad, good, run, status, words};
use crate::support::client;
use crate::support::gate::Setup;
use crate::support::host::KEY;
use crate::support::host::{KEYS, github_push};
use crate::support::until;
use crate::support::upstream::Upstream;

const TWO: &str = "[[hook]]\nname = \"a\"\npath = \"/a\"\n[[hook]]\nname = \"b\"\npath = \"/b\"\n";

fn setup() -> Setup {
    Setup::new().hook().keys(KEYS)
}

/// When a delivery was sent, and what became of it.
type Sent = (Instant, String);

#[test]
fn under_load_everything_after_the_answer_is_disabled_and_later_forwarded_again() {
    let upstream = Upstream::start();
    let gate = setup().upstream(&upstream).start();
    let (address, request) = (gate.address(), github_push(KEY));
    let (stopped, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sent = Mutex::<Vec<Sent>>::default();
    let (disabled, enabled, ended) = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let answer = client::ask(address, &request);
                    let outcome = answer.outcome().to_owned();
                    count.fetch_add(1, Ordering::Relaxed);
                    sent.lock().expect("no thread panicked").push((begun, outcome));
                }
            });
        }
        let more = || {
            let wanted = count.load(Ordering::Relaxed) + 50;
            until("more deliveries", || (count.load(Ordering::Relaxed) >= wanted).then_some(()));
        };
        more();
        good(gate.folder(), &["disable"]);
        let disabled = Instant::now();
        more();
        let enabling = Instant::now();
        good(gate.folder(), &["enable"]);
        let enabled = Instant::now();
        more();
        stopped.store(true, Ordering::Relaxed);
        (disabled..enabling, enabled, Instant::now())
    });
    let sent = sent.into_inner().expect("no thread panicked");
    let outcomes = |from: Instant, to: Instant| {
        let within = sent.iter().filter(move |(begun, _)| (from..to).contains(begun));
        let mut words: Vec<_> = within.map(|(_, outcome)| outcome.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        words.join(" ")
    };
    let begin = sent.iter().map(|(begun, _)| *begun).min().expect("deliveries");
    let others: Vec<_> = sent
        .iter()
        .filter(|(_, outcome)| outcome != "forwarded" && outcome != "disabled")
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(outcomes(begin, disabled.start).contains("forwarded"));
    // One that was sent a moment before `enable` may be read after it.
    let surely = sent.iter().filter(|(begun, _)| disabled.contains(begun)).map(|(begun, _)| *begun);
    let last = surely.max().expect("deliveries while it was disabled");
    assert_eq!(outcomes(disabled.start, last), "disabled");
    assert_eq!(outcomes(enabled, ended), "forwarded");
}

#[test]
fn a_switch_survives_a_kill_and_stands_above_the_configuration_until_it_is_given_back() {
    let gate = setup().start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    let told = good(gate.folder(), &["disable", "--hook", "default"]);
    assert_eq!(words(&told)[0][..5], ["default", "disabled", "by", "operator", "since"], "{told}");
    assert_eq!(gate.ask(&github_push(KEY)).told(), (403, "disabled"));
    let path = gate.path("state/switch");
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o7777, 0o600);
    let folder = gate.kill();

    let gate = Setup::new().within(&folder).hook().keys(KEYS).start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (403, "disabled"));
    let hook = &status(&folder, 0)["hooks"][0];
    assert_eq!(
        (&hook["enabled"], &hook["configured"], &hook["from"]),
        (&false.into(), &true.into(), &"operator".into())
    );
    assert!(hook["since"].as_str().is_some_and(|since| since.starts_with("20")), "{hook}");
    gate.says("hook is disabled: it refuses everything");

    let check = ["check", "--config", "hookgate.toml", "--key-file", "webhook.key"];
    let text = run(&folder, &check).stdout;
    assert!(text.contains("default (disabled by operator since 20"), "{text}");
    let told = good(&folder, &["enable", "--hook", "default", "--as-configured"]);
    assert!(run(&folder, &check).stdout.contains("default (enabled)\n"));
    assert_eq!(words(&told), [["default", "enabled", "as", "configured"]]);
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    assert!(!path.exists());
    let hook = &status(&folder, 0)["hooks"][0];
    assert_eq!((&hook["from"], &hook["since"]), (&"configuration".into(), &().into()));
}

#[test]
fn an_enabled_switch_stands_above_a_configuration_that_says_disabled_also_when_that_changes() {
    let off = "[[hook]]\nname = \"default\"\nenabled = false\n";
    let gate = Setup::new().hooks(off).keys(KEYS).start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (403, "disabled"));
    good(gate.folder(), &["enable"]);
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    // Read again, the configuration still says the same, and then the opposite.
    let write = |text: &str| fs::write(gate.path("hookgate.toml"), text).expect("a file");
    write(&format!("{off}dedupe_window = \"0s\"\nreindex_all = true\n"));
    gate.says("configuration is in force");
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
    good(gate.folder(), &["disable"]);
    write("[[hook]]\nname = \"default\"\n");
    gate.says("this change of `enabled` has no effect: what the operator said stands above it");
    assert_eq!(gate.ask(&github_push(KEY)).told(), (403, "disabled"));
    // Without a word of an operator, the configuration is obeyed.
    good(gate.folder(), &["enable", "--as-configured"]);
    assert_eq!(gate.ask(&github_push(KEY)).status, 202);
    write(off);
    until("disabled by the configuration", || {
        (gate.ask(&github_push(KEY)).told() == (403, "disabled")).then_some(())
    });
}

#[test]
fn one_hook_of_two_is_switched_or_all_and_none_that_there_is_not() {
    let gate = Setup::new().hooks(TWO).keys(KEYS).start();
    let told = || ["/a", "/b"].map(|path| gate.ask(&github_push(KEY).to(path)).status);
    let wrong = bad(gate.folder(), &["disable", "--hook", "c"], 1);
    assert_eq!(wrong, "error: there is no hook of this name; there is a, b\n");
    assert_eq!((told(), gate.path("state/switch").exists()), ([202, 202], false));

    let shown = good(gate.folder(), &["disable", "--hook", "b", "--json"]);
    let shown: Vec<serde_json::Value> = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(
        (shown.len(), &shown[0]["hook"], &shown[0]["enabled"]),
        (1, &"b".into(), &false.into())
    );
    assert_eq!(told(), [202, 403]);
    let all = good(gate.folder(), &["disable"]);
    assert_eq!(words(&all).iter().map(|line| line[0]).collect::<Vec<_>>(), ["a", "b"], "{all}");
    assert_eq!(told(), [403, 403]);
    good(gate.folder(), &["enable", "--hook", "a"]);
    assert_eq!(told(), [202, 403]);
    good(gate.folder(), &["enable", "--as-configured"]);
    assert_eq!(told(), [202, 202]);
}

#[test]
fn without_a_gate_only_the_file_can_be_changed_and_with_one_only_the_gate() {
    let setup = setup();
    let folder = Arc::clone(setup.folder());
    let refused = bad(&folder, &["disable"], 3);
    assert!(refused.contains("if no gate runs, --offline works on its file"), "{refused}");
    let refused = bad(&folder, &["disable", "--offline"], 1);
    assert_eq!(refused, "error: there is no state folder state\n");
    fs::create_dir(folder.path().join("state")).expect("a folder");
    let refused = bad(&folder, &["disable", "--offline", "--hook", "other"], 1);
    let wanted = "error: there is no hook of this name; there is default; --config says which file the gate has\n";
    assert_eq!(refused, wanted);

    good(&folder, &["disable", "--offline", "--config", "hookgate.toml"]);
    let gate = setup.start();
    assert_eq!(gate.ask(&github_push(KEY)).told(), (403, "disabled"));
    let refused = bad(&folder, &["enable", "--offline"], 1);
    let wanted = "error: a gate runs with state: leave --offline out, or stop it first\n";
    assert_eq!(refused, wanted);
    assert_eq!(gate.ask(&github_push(KEY)).told(), (403, "disabled"));
    assert_eq!(gate.stop().code, Some(0));
    good(&folder, &["enable", "--offline"]);
    let text = fs::read_to_string(folder.path().join("state/switch")).expect("a file");
    assert!(text.contains("\ndefault enabled "), "{text}");
}

#[test]
fn a_damaged_file_opens_nothing_and_is_told_until_an_operator_decides() {
    let setup = Setup::new().hooks(TWO).keys(KEYS);
    let state = setup.path("state");
    fs::create_dir(&state).expect("a folder");
    // As after a write that was cut off: what it said of `b` is lost.
    fs::write(state.join("switch"), "a enabled 2026-11-24T17:40:00Z\nb disab").expect("a file");
    let gate = setup.start();
    let told = || ["/a", "/b"].map(|path| gate.ask(&github_push(KEY).to(path)).status);
    assert_eq!(told(), [202, 403]);
    gate.says("the switch file is damaged: it opens no hook");
    let ready = gate.probe("/ready");
    let wanted = "the switch file is damaged: line 2 is not as it should be; disabled until `hookgate enable` or \
                  `disable` says what is wanted: b";
    assert_eq!((ready.status, ready.text().lines().nth(1)), (503, Some(wanted)));
    let shown = status(gate.folder(), 1);
    assert_eq!((&shown["problems"][0], &shown["ready"]), (&wanted.into(), &false.into()));
    assert_eq!(
        (&shown["hooks"][1]["from"], &shown["hooks"][0]["from"]),
        (&"damaged".into(), &"operator".into())
    );

    let check =
        run(gate.folder(), &["check", "--config", "hookgate.toml", "--key-file", "webhook.key"]);
    let wanted =
        "error: the switch file is damaged, so it opens no hook: line 2 is not as it should be\n";
    assert!(check.code == Some(1) && check.stderr.contains(wanted), "{}", check.stderr);
    // A word about the other hook leaves this one as it is, and makes the file whole.
    good(gate.folder(), &["disable", "--hook", "a"]);
    assert_eq!((told(), gate.probe("/ready").status), ([403, 403], 200));
    good(gate.folder(), &["enable"]);
    assert_eq!(told(), [202, 202]);
    assert_eq!(run(gate.folder(), &["status"]).code, Some(0));
}

#[test]
fn what_cannot_be_kept_is_told_and_a_disabled_hook_is_disabled_all_the_same() {
    let gate = setup().start();
    // Something that no file can take the place of.
    let path = gate.path("state/switch");
    fs::create_dir_all(path.join("full")).expect("a folder");
    let refused = bad(gate.folder(), &["disable"], 1);
    let wanted = "error: disabled, but only until a restart: the switch file cannot be written: ";
    assert!(refused.starts_with(wanted), "{refused}");
    assert_eq!(gate.ask(&github_push(KEY)).told(), (403, "disabled"));
    let refused = bad(gate.folder(), &["enable"], 1);
    let wanted = "error: nothing is changed, the switch file cannot be written: ";
    assert!(refused.starts_with(wanted), "{refused}");
    assert_eq!(gate.ask(&github_push(KEY)).told(), (403, "disabled"));
    fs::remove_dir_all(&path).expect("our own folder");
    good(gate.folder(), &["enable"]);
    assert_eq!(gate.ask(&github_push(KEY)).told(), (202, "printed"));
}
