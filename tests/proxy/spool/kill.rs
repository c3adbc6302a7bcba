//! The gate is killed again and again while hosts send.

use std::fs;
use std::time::{Duration, Instant};

use super::{Arrivals, Hosts, Plan, again, count, push_of, setup, waiting};
use crate::support::gate::write_private;
use crate::support::host::large_change;
use crate::support::upstream::{Received, Reply, Upstream};
use crate::support::{until, within};

/// Of this test alone: the port of a gate that was killed may be another one's a moment later.
const KEY: &str = "S2lsbGVkQWdhaW5BbmRBZ2FpbkFuZEFnYWlu";

/// The gate lives for no longer than this.
const LIFE: Duration = Duration::from_millis(400);

/// How long what failed many times may back off.
const LAST_WAIT: Duration = Duration::from_secs(600);

/// Fails half of its calls, in no order that one could keep step with.
fn unreliable(received: &Received) -> Reply {
    match (received.number.wrapping_mul(0x9e37_79b9) >> 16) & 3 {
        0 => Reply::Answer(500, &[], ""),
        1 => Reply::Close,
        _ => Reply::Answer(200, &[], ""),
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_however_often_the_gate_is_killed() {
    let kills = count("HOOKGATE_KILLS", 10);
    let upstream = Upstream::with(Reply::By(unreliable));
    let first = setup("", "").upstream(&upstream);
    write_private(&first.path("webhook.key"), format!("{KEY} name=a\n"));
    let mut gate = first.start();
    let plan = Plan { key: KEY, hosts: 32, repositories: 64, pushes: usize::MAX, padding: 0 };
    let hosts = Hosts::start(gate.address(), plan);
    let mut arrivals = Arrivals::default();
    for _ in 0..kills {
        // No condition is waited for: any moment will do.
        let chance = getrandom::u32().expect("chance");
        std::thread::sleep(LIFE.mul_f64(f64::from(chance) / f64::from(u32::MAX)));
        let folder = gate.kill();
        arrivals.add(upstream.take());
        gate = again(&folder).upstream(&upstream).start();
        hosts.turn_to(gate.address());
    }
    let sent = hosts.stop();
    upstream.reply(Reply::Answer(200, &[], ""));
    let began = Instant::now();
    let drained = within(LAST_WAIT, || {
        arrivals.add(upstream.take());
        (gate.spool().active() == 0).then_some(())
    });
    arrivals.add(upstream.take());
    let lost = arrivals.lost(&sent.acknowledged);
    println!(
        "{kills} kills: {} acknowledged, {lost} lost; told {:?}; the service took {}, {} of them again, \
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
