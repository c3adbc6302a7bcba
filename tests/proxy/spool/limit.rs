//! A spool that has no room for more.

use super::{rows, setup, waiting};
use crate::support::client::{Answer, Request};
use crate::support::gate::Gate;
use crate::support::host::{KEY, large_change};
use crate::support::until;
use crate::support::upstream::{Down, Received, Reply, Upstream};

const SMALL: &str = "[spool]\nmax_bytes = \"100KiB\"\n";

/// One of about 10 KiB.
fn large(repository: usize, number: usize) -> Request {
    large_change(KEY, repository, number - 1, number, 10_000)
}

#[track_caller]
fn assert_full(answer: &Answer) {
    assert_eq!(answer.told(), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
}

/// Fills the spool with pushes of one repository, of which this is the first that may not go directly.
#[track_caller]
fn fill(gate: &Gate, repository: usize, outcome: &str) -> Vec<String> {
    let mut kept = Vec::new();
    loop {
        let number = kept.len() + 2;
        let answer = gate.ask(&large(repository, number));
        if answer.status != 202 {
            return kept;
        }
        assert_eq!(answer.outcome(), outcome);
        kept.push(format!("{repository}-{number}"));
        assert!(kept.len() < 20, "the limit is none");
    }
}

/// Waits until probes and metrics say whether it is full.
#[track_caller]
fn is_full(gate: &Gate, full: bool) {
    let wanted = if full { 1.0 } else { 0.0 };
    until("the metrics say so", || (gate.metric("hookgate_spool_full") == wanted).then_some(()));
    assert_eq!(gate.metric("hookgate_spool_usable"), 1.0);
    let ready = gate.probe("/ready").text();
    assert_eq!(ready.contains("the spool is full: it holds as much as it may"), full, "{ready}");
}

/// Takes nothing of `acme/1`.
fn without_the_first(received: &Received) -> Reply {
    let status = if received.id().starts_with("1-") { 500 } else { 200 };
    Reply::Answer(status, &[], "")
}

#[test]
fn what_would_have_to_wait_is_refused_while_other_repositories_go_directly() {
    let upstream = Upstream::with(Reply::By(without_the_first));
    let gate = setup(SMALL, "").upstream(&upstream).start();
    let kept = fill(&gate, 1, "queued");
    assert!((8..11).contains(&kept.len()), "{kept:?}");
    assert_full(&gate.ask(&large(1, 50)));
    let direct = gate.ask(&large(2, 2));
    assert_eq!(direct.told(), (200, "forwarded"));
    is_full(&gate, true);
    assert_eq!(gate.probe("/ready").status, 200, "the service is there");
    let line = gate.says("the spool is full: what would have to wait is answered 503");
    assert_eq!(line["level"], "ERROR");
    // It drains while it is full, and has room again.
    assert_eq!(waiting(&gate), kept);
    upstream.take();
    upstream.reply(Reply::Answer(200, &[], ""));
    gate.drains();
    assert_eq!(upstream.take_ids(), kept);
    is_full(&gate, false);
    upstream.next(Reply::Answer(500, &[], ""));
    assert_eq!(gate.ask(&large(1, 51)).told(), (202, "queued"));
    gate.drains();
}

#[test]
fn when_the_service_is_down_as_well_the_gate_is_not_ready() {
    let down = Down::new();
    let gate = setup(SMALL, "").args(&["--upstream", &down.url()]).start();
    let kept = fill(&gate, 1, "queued");
    // Until the service is taken to be down, each is tried.
    for repository in 2..12 {
        assert_full(&gate.ask(&large(repository, 2)));
    }
    is_full(&gate, true);
    let ready = gate.probe("/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains(&format!("and upstream {} is down", down.url())), "{ready:?}");
    assert_eq!(waiting(&gate), kept);
    let upstream = down.up();
    gate.drains();
    assert_eq!(upstream.take_ids(), kept);
    is_full(&gate, false);
    assert_eq!(gate.probe("/ready").status, 200);
    assert_eq!(gate.ask(&large(3, 2)).told(), (200, "forwarded"));
}

#[test]
fn dead_letters_can_fill_it_and_then_a_refusal_is_told_to_the_host() {
    let upstream = Upstream::with(Reply::Answer(404, &[], ""));
    let gate = setup(SMALL, "").upstream(&upstream).start();
    let kept = fill(&gate, 1, "set-aside");
    assert!((8..11).contains(&kept.len()), "{kept:?}");
    assert_eq!(gate.ask(&large(2, 2)).told(), (502, "upstream-failed"));
    is_full(&gate, true);
    upstream.reply(Reply::Answer(200, &[], ""));
    assert_eq!(gate.ask(&large(1, 30)).told(), (200, "forwarded"));
    assert_eq!(rows(&gate, "state = 4").len(), kept.len());
}

#[test]
fn a_disk_with_too_little_free_space_is_as_good_as_a_full_spool() {
    let upstream = Upstream::with(Reply::By(without_the_first));
    let config = "[spool]\nmin_free = \"1000TiB\"\n";
    let gate = setup(config, "").upstream(&upstream).start();
    assert_full(&gate.ask(&large(1, 2)));
    assert_eq!(gate.ask(&large(2, 2)).told(), (200, "forwarded"));
    until("the metrics say so", || (gate.metric("hookgate_spool_full") == 1.0).then_some(()));
    let ready = gate.probe("/ready");
    let wanted = "the spool is full: the file system has too little free space";
    assert!(ready.status == 200 && ready.text().contains(wanted), "{ready:?}");
    assert_eq!(gate.spool().active(), 0);
}

#[test]
fn a_full_spool_is_full_after_a_restart_and_keeps_what_it_has() {
    let down = Down::new();
    let gate = setup(SMALL, "").args(&["--upstream", &down.url()]).start();
    let kept = fill(&gate, 1, "queued");
    let folder = gate.kill();
    let gate = super::again(&folder).args(&["--upstream", &down.url()]).start();
    assert_full(&gate.ask(&large(1, 50)));
    let upstream = down.up();
    gate.drains();
    assert_eq!(upstream.take_ids(), kept);
}
