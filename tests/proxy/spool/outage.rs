//! The service is down for a long time.

use std::time::{Duration, Instant};

use super::{Arrivals, Hosts, Plan, count, setup};
use crate::support::host::KEY;
use crate::support::upstream::Down;
use crate::support::within;

/// What the gate may need meanwhile.
const MEMORY: u64 = 128 << 20;

/// A service is asked every 30 s at least whether it is back.
const LAST_WAIT: Duration = Duration::from_secs(600);

#[test]
fn what_came_while_the_service_was_down_arrives_when_it_is_up_in_order_and_once() {
    let pushes = count("HOOKGATE_DELIVERIES", 1_000);
    let repositories = count("HOOKGATE_REPOSITORIES", 100);
    let down = Down::new();
    let gate = setup("", "").args(&["--upstream", &down.url()]).start();
    let began = Instant::now();
    let plan = Plan { key: KEY, hosts: 32, repositories, pushes, padding: 8 << 10 };
    let sent = Hosts::start(gate.address(), plan).finish();
    let took = began.elapsed();
    let counts = gate.spool();
    let peak_down = gate.peak_memory();
    assert_eq!(sent.outcomes, [("202 queued".to_owned(), pushes)].into());
    assert_eq!((counts.active(), counts.dead, counts.delivered), (pushes, 0, 0));

    let began = Instant::now();
    let upstream = down.up();
    let mut arrivals = Arrivals::default();
    let arrived = within(LAST_WAIT, || {
        arrivals.add(upstream.take());
        (arrivals.seen.len() == pushes && gate.spool().active() == 0).then_some(())
    });
    let lost = arrivals.lost(&sent.acknowledged);
    let peak = gate.peak_memory();
    println!(
        "{pushes} deliveries of {repositories} repositories queued in {took:.1?}, the slowest {:.1?}; \
         {} arrived after {:.1?}, {lost} lost, {} again; at most {} MiB while down and {} MiB in all",
        sent.slowest,
        arrivals.seen.len(),
        began.elapsed(),
        arrivals.repeated,
        peak_down >> 20,
        peak >> 20,
    );
    assert!(arrived.is_some(), "still there: {:?}", gate.spool());
    assert_eq!((lost, arrivals.repeated), (0, 0));
    assert_eq!(arrivals.overtaking(&sent.acknowledged), None);
    assert_eq!(gate.spool().dead, 0);
    assert!(peak < MEMORY, "{peak}");
    assert!(sent.slowest < Duration::from_secs(4), "{:?}", sent.slowest);
}
