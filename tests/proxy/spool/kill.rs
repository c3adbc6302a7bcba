//! The gate is killed again and again while hosts send.

use std::fs;
use std::time::{Duration, Instant};

use super::{Arrivals, Hosts, Plan, again, count, push_of, setup, waiting};
use crate::support::gate::{Setup, write_private};
use crate::support::host::large_change;
use crate::support::upstream::{Received, Reply, Upstream};
use crate::support::{until, within};

/// Of this test alone: the port of a gate that was killed may be another one's a moment later.
const KEY: &str = "S2lsbGVkQWdhaW5BbmRBZ2FpbkFuZEFnYWlu";

/// The gate lives for no longer than this.
const LIFE: Duration = Duration::from_millis(400);

/// After so many kills there is another one while the gate starts.
const THEN_AT_START: usize = 4;

/// By then it has started, in most cases.
const START: Duration = Duration::from_millis(100);

/// In so many times two seconds all has arrived.
const ROUNDS: usize = 60;

/// Fails half of its calls, in no order that one could keep step with.
fn unreliable(received: &Received) -> Reply {
    match (received.number.wrapping_mul(0x9e37_79b9) >> 16) & 3 {
        0 => Reply::Answer(500, &[], ""),
        1 => Reply::Close,
        _ => Reply::Answer(200, &[], ""),
    }
}

/// Between none and one.
fn chance() -> f64 {
    f64::from(getrandom::u32().expect("chance")) / f64::from(u32::MAX)
}

#[test]
fn nothing_that_was_acknowledged_is_lost_however_often_the_gate_is_killed() {
    let kills = count("HOOKGATE_KILLS", 10);
    let upstream = Upstream::with(Reply::By(unreliable));
    let first = setup("", "").upstream(&upstream);
    write_private(&first.path("webhook.key"), format!("{KEY} name=a\n"));
    let mut gate = first.start();
    let plan = Plan { key: KEY, hosts: 32, repositories: 512, pushes: usize::MAX, padding: 0 };
    let hosts = Hosts::start(gate.address(), plan);
    let mut arrivals = Arrivals::default();
    let mut starts = 0;
    for kill in 1..=kills {
        // No condition is waited for: any moment will do.
        std::thread::sleep(LIFE.mul_f64(chance()));
        let folder = gate.kill();
        arrivals.add(upstream.take());
        if kill % THEN_AT_START == 0 {
            starts += 1;
            again(&folder).upstream(&upstream).start_and_kill(START.mul_f64(chance()));
        }
        gate = again(&folder).upstream(&upstream).start();
        hosts.turn_to(gate.address());
    }
    let sent = hosts.stop();
    upstream.reply(Reply::Answer(200, &[], ""));
    let began = Instant::now();
    // What has failed many times waits for minutes; an operator can shorten that.
    let drained = (0..ROUNDS).find_map(|_| {
        let again = ["spool", "redeliver", "--state", "pending", "--state-dir", "state"];
        let again = Setup::bare(&again).within(gate.folder()).run();
        assert_eq!(again.code, Some(0), "{again:?}");
        within(Duration::from_secs(2), || {
            arrivals.add(upstream.take());
            (gate.spool().active() == 0).then_some(())
        })
    });
    arrivals.add(upstream.take());
    let lost = arrivals.lost(&sent.acknowledged);
    println!(
        "{kills} kills and {starts} at the start: {} acknowledged, {lost} lost; told {:?}; the service took {}, {} of them again, \
         and refused {}; drained after {:.1?}",
        sent.acknowledged.len(),
        sent.outcomes,
        arrivals.seen.len(),
        arrivals.repeated,
        arrivals.refused,
        began.elapsed(),
    );
    assert!(drained.is_some(), "still there: {:?}", gate.spool());
    assert_eq!(lost, 0);
    assert_eq!(arrivals.overtaking(&sent.acknowledged), None);
    assert_eq!(gate.spool().dead, 0);
    for outcome in ["200 forwarded", "202 queued", "no answer"] {
        assert!(sent.outcomes.contains_key(outcome), "{outcome}: {:?}", sent.outcomes);
    }
}

#[test]
fn what_was_under_way_when_the_gate_was_killed_is_sent_again_at_once() {
    let upstream = Upstream::with(Reply::Hold);
    let first = setup("[upstream]\nanswer_within = \"100ms\"\n", "").upstream(&upstream);
    write_private(&first.path("webhook.key"), format!("{KEY} name=a\n"));
    let gate = first.start();
    for repository in 0..3 {
        let push = large_change(KEY, repository, 1, 2, 40_000);
        assert_eq!(gate.ask(&push).told(), (202, "queued"));
    }
    assert_eq!(gate.spool().leased, 3);
    let folder = gate.kill();
    upstream.take();
    upstream.reply(Reply::Answer(200, &[], ""));
    let gate = again(&folder).upstream(&upstream).start();
    gate.says("deliveries that were under way are sent again");
    gate.drains();
    let received = upstream.take();
    let mut pushes: Vec<_> = received.iter().map(|one| push_of(one.id())).collect();
    pushes.sort_unstable();
    assert_eq!(pushes, [(0, 2), (1, 2), (2, 2)]);
    assert!(
        received
            .iter()
            .all(|one| one.body == large_change(KEY, push_of(one.id()).0, 1, 2, 40_000).body)
    );
}

#[test]
fn a_spool_that_was_damaged_is_set_aside_and_the_gate_stands() {
    let upstream = Upstream::with(Reply::Answer(500, &[], ""));
    let first = setup("", "").upstream(&upstream);
    write_private(&first.path("webhook.key"), format!("{KEY} name=a\n"));
    let gate = first.start();
    let push = large_change(KEY, 1, 1, 2, 0);
    assert_eq!(gate.ask(&push).told(), (202, "queued"));
    assert_eq!(waiting(&gate), ["1-2"]);
    let folder = gate.kill();
    let file = folder.path().join("state/spool/spool.db");
    fs::write(&file, "no database any more").expect("a file");
    let gate = again(&folder).upstream(&upstream).start();
    let line = gate.logged("it is set aside", |line| line["file"].is_string());
    assert_eq!(line["level"], "ERROR");
    let aside = line["file"].as_str().expect("a name");
    assert!(gate.path(aside).exists(), "{aside}");
    until("the probe says so", || {
        gate.probe("/ready").text().contains("spool.db.damaged-1").then_some(())
    });
    assert_eq!(gate.probe("/ready").status, 200);
    assert_eq!(gate.ask(&push).told(), (202, "queued"));
    upstream.reply(Reply::Answer(200, &[], ""));
    gate.drains();
}
