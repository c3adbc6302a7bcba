//! Deliveries of one repository stay in order; those of others do not wait for them.

use hookgate::scheme::Github;

use super::{setup, waiting};
use crate::support::client::Request;
use crate::support::host::{KEY, change, large_change, prove};
use crate::support::until;
use crate::support::upstream::{Received, Reply, Upstream};

/// Takes nothing of `acme/1`.
fn without_the_first(received: &Received) -> Reply {
    let status = if received.id().starts_with("1-") { 500 } else { 200 };
    Reply::Answer(status, &[], "")
}

#[test]
fn newer_deliveries_queue_behind_one_that_failed_and_others_go_directly() {
    let upstream = Upstream::with(Reply::By(without_the_first));
    let gate = setup("", "").upstream(&upstream).start();
    for number in 2..6 {
        assert_eq!(gate.ask(&change(1, number - 1, number)).told(), (202, "queued"));
        let other = gate.ask(&change(2, number - 1, number));
        assert_eq!(other.told(), (200, "forwarded"));
    }
    assert_eq!(waiting(&gate), ["1-2", "1-3", "1-4", "1-5"]);
    // Only the oldest is tried.
    until("it is tried again", || (upstream.count() >= 4 + 3).then_some(()));
    upstream.reply(Reply::Answer(200, &[], ""));
    gate.drains();
    let mut ids = upstream.take_ids();
    ids.retain(|id| id.starts_with("1-"));
    ids.dedup();
    assert_eq!(ids, ["1-2", "1-3", "1-4", "1-5"]);
    assert_eq!(gate.ask(&change(1, 5, 6)).told(), (200, "forwarded"));
}

#[test]
fn newer_deliveries_queue_behind_one_that_is_late_and_others_go_directly() {
    let upstream = Upstream::start();
    let config = "[upstream]\nanswer_within = \"200ms\"\n";
    let gate = setup(config, "").upstream(&upstream).start();
    upstream.next(Reply::Hold);
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (202, "queued"));
    assert_eq!(gate.ask(&change(1, 2, 3)).told(), (202, "queued"));
    assert_eq!(gate.ask(&change(2, 1, 2)).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&change(1, 3, 4)).told(), (202, "queued"));
    assert_eq!(upstream.take_ids(), ["1-2", "2-2"]);
    upstream.release();
    gate.drains();
    assert_eq!(upstream.take_ids(), ["1-3", "1-4"]);
}

#[test]
fn a_small_delivery_does_not_overtake_a_large_one_while_that_is_stored() {
    let upstream = Upstream::with(Reply::Hold);
    let config = "[upstream]\nanswer_within = \"500ms\"\n";
    let gate = setup(config, "").upstream(&upstream).start();
    let mut large = gate.connect();
    large.send(dense_change(1, 1, 2, 256 << 10).bytes());
    upstream.holds(1);
    let mut small = gate.connect();
    small.send(change(1, 2, 3).bytes());
    for mut client in [large, small] {
        assert_eq!(client.answer().told(), (202, "queued"));
    }
    assert_eq!(waiting(&gate), ["1-2", "1-3"]);
    upstream.reply(Reply::Answer(200, &[], ""));
    upstream.release();
    gate.drains();
    assert_eq!(upstream.take_ids(), ["1-2", "1-3"]);
}

#[test]
fn deliveries_of_one_repository_that_come_together_go_one_after_the_other() {
    let upstream = Upstream::with(Reply::Hold);
    let gate = setup("", "").upstream(&upstream).start();
    let mut first = gate.connect();
    first.send(change(1, 1, 2).bytes());
    upstream.holds(1);
    let mut second = gate.connect();
    second.send(change(1, 2, 3).bytes());
    let mut other = gate.connect();
    other.send(change(2, 1, 2).bytes());
    upstream.holds(2);
    assert_eq!(upstream.take_ids(), ["1-2", "2-2"]);
    upstream.reply(Reply::Answer(200, &[], ""));
    upstream.release();
    upstream.release();
    for mut client in [first, second, other] {
        assert_eq!(client.answer().told(), (200, "forwarded"));
    }
    assert_eq!(upstream.take_ids(), ["1-3"]);
    let counts = gate.spool();
    assert_eq!((counts.active(), counts.delivered), (0, 0), "nothing of it was stored");
}

/// A push with so many bytes that are not easily compressed, as they are before they are stored.
fn dense_change(repository: usize, from: usize, to: usize, padding: usize) -> Request {
    let mut push = large_change(KEY, repository, from, to, padding);
    let mut number = 1_u32;
    for byte in push.body.iter_mut().filter(|byte| **byte == b' ') {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = b'a' + (number >> 28) as u8;
    }
    prove(push.without("x-hub-signature-256"), &Github, KEY, b"")
}
