//! What comes faster than the hook's rates waits in the spool, and all of it arrives.

use std::fs;
use std::time::Duration;

use super::{Arrivals, Hosts, Plan, again, setup, waiting};
use crate::support::gate::Setup;
use crate::support::host::{KEY, KEYS, OTHER_KEY, change, github_push};
use crate::support::until;
use crate::support::upstream::{Received, Reply, Upstream};

/// The shortest time between two calls that are `apart` in the order of their arrival.
fn least_gap(received: &[Received], apart: usize) -> Duration {
    let gaps = received.windows(apart + 1).map(|run| run[apart].at - run[0].at);
    gaps.min().unwrap_or_default()
}

#[test]
fn pushes_that_come_faster_than_the_rate_are_queued_and_go_at_it_in_order() {
    let upstream = Upstream::start();
    let gate = setup("", "rate = \"5/1s burst 2\"").upstream(&upstream).start();
    let mut told = Vec::new();
    for number in 2..8 {
        for repository in [1, 2] {
            let answer = gate.ask(&change(repository, number - 1, number));
            told.push((answer.status, answer.outcome().to_owned()));
        }
    }
    assert_eq!(told[..2], [(200, "forwarded".to_owned()), (200, "forwarded".to_owned())]);
    assert!(told[2..].iter().all(|told| *told == (202, "queued".to_owned())), "{told:?}");
    gate.drains();
    let received = upstream.take();
    for repository in ["1-", "2-"] {
        let ids = received.iter().map(Received::id).filter(|id| id.starts_with(repository));
        let expected: Vec<_> = (2..8).map(|number| format!("{repository}{number}")).collect();
        assert_eq!(ids.collect::<Vec<_>>(), expected);
    }
    assert_eq!(received.len(), 12);
    // Two at once, then one every 200 ms: six take 800 ms, less what a busy machine makes the first late.
    let gap = least_gap(&received, 5);
    assert!(gap > Duration::from_millis(500), "{gap:?}");
    assert_eq!(gate.counted("rate-limited"), 0.0);
}

#[test]
fn a_repository_over_its_own_rate_waits_and_others_do_not() {
    let upstream = Upstream::start();
    let hook = "rate = \"1000/1m\"\nrepository_rate = \"1/1h\"";
    let gate = setup("", hook).upstream(&upstream).start();
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (200, "forwarded"));
    for number in 3..6 {
        assert_eq!(gate.ask(&change(1, number - 1, number)).told(), (202, "queued"));
    }
    for repository in 2..30 {
        assert_eq!(gate.ask(&change(repository, 1, 2)).told(), (200, "forwarded"));
    }
    assert_eq!(waiting(&gate), ["1-3", "1-4", "1-5"]);
    let record = gate.records().into_iter().find(|record| record["delivery.id"] == "1-3");
    let record = record.expect("a record");
    assert_eq!(
        (&record["outcome"], &record["reason"]),
        (&"queued".into(), &"over the rate".into())
    );
    upstream.take();
    // Another rate, from now on; what waits already is looked at when it is due or sent by hand.
    let config = gate.path("hookgate.toml");
    let text = fs::read_to_string(&config).expect("our own file");
    fs::write(&config, text.replace("1/1h", "1000/1s")).expect("a file");
    gate.shows("configuration is in force");
    let finished = Setup::bare(&["spool", "redeliver", "--all", "--state-dir", "state"])
        .within(gate.folder())
        .run();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    gate.drains();
    assert_eq!(upstream.take_ids(), ["1-3", "1-4", "1-5"]);
}

#[test]
fn what_waits_for_the_rate_survives_a_kill_and_arrives_in_order() {
    let upstream = Upstream::start();
    let gate = setup("", "rate = \"2/1s burst 1\"").upstream(&upstream).start();
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (200, "forwarded"));
    for number in 3..7 {
        assert_eq!(gate.ask(&change(1, number - 1, number)).told(), (202, "queued"));
    }
    let folder = gate.kill();
    let gate = again(&folder).upstream(&upstream).start();
    gate.drains();
    let mut ids = upstream.take_ids();
    // The one that was under way when it was killed may come again.
    ids.dedup();
    assert_eq!(ids, ["1-2", "1-3", "1-4", "1-5", "1-6"]);
}

#[test]
fn a_service_that_comes_back_is_sent_what_waited_at_the_rate() {
    let upstream = Upstream::with(Reply::Answer(503, &[], ""));
    let gate =
        setup("", "rate = \"20/1s burst 5\"\ndelivery = \"spool\"").upstream(&upstream).start();
    for repository in 1..41 {
        assert_eq!(gate.ask(&change(repository, 1, 2)).told(), (202, "queued"));
    }
    upstream.reply(Reply::Answer(200, &[], ""));
    gate.drains();
    let received = upstream.take();
    assert_eq!(received.iter().filter(|one| one.is_taken).count(), 40);
    // 5 at once and then one every 50 ms, failed ones among them: 21 take 800 ms, less what a busy machine
    // makes the first late.
    let gap = least_gap(&received, 20);
    assert!(gap > Duration::from_millis(500), "{gap:?}");
}

#[test]
fn the_rate_of_one_hook_is_not_that_of_another_and_strangers_use_nothing_of_it_up() {
    let upstream = Upstream::start();
    let hook = |name: &str, path: &str| {
        format!("[[hook]]\nname = \"{name}\"\npath = \"{path}\"\nrate = \"2/1h\"\n")
    };
    let config = format!("{}{}", hook("a", "/webhook"), hook("b", "/b"));
    let gate = Setup::new().keys(KEYS).hooks(&config).upstream(&upstream).start();
    for _ in 0..50 {
        let forged = github_push(OTHER_KEY);
        assert_eq!(gate.ask(&forged).told(), (401, "unauthorized"));
    }
    let push = github_push(KEY);
    for expected in [(200, "forwarded"), (200, "forwarded"), (202, "queued")] {
        assert_eq!(gate.ask(&push).told(), expected);
    }
    assert_eq!(gate.ask(&push.to("/b")).told(), (200, "forwarded"));
    until("it waits", || (gate.spool().pending == 1).then_some(()));
}
#[test]
fn many_that_wait_do_not_all_come_to_hear_that_they_have_to_wait() {
    let upstream = Upstream::start();
    let hook = "rate = \"200/1s burst 10\"\ndelivery = \"spool\"";
    let gate = setup("", hook).upstream(&upstream).start();
    let plan = Plan { key: KEY, hosts: 8, repositories: 100, pushes: 600, padding: 0 };
    let sent = Hosts::start(gate.address(), plan).finish();
    assert_eq!(sent.outcomes, [("202 queued".to_owned(), 600)].into());
    gate.drains();
    let mut arrivals = Arrivals::default();
    arrivals.add(upstream.take());
    assert_eq!(arrivals.lost(&sent.acknowledged), 0);
    assert_eq!(arrivals.overtaking(&sent.acknowledged), None);
    let looks = gate.metric("hookgate_spool_attempts_total");
    assert!(looks < 600.0 * 4.0, "{looks}");
}
