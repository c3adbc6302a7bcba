//! What is held back, and what is not stored twice, across the end of the process.

use hookgate::scheme::Github;

use super::{again, rows, setup, waiting};
use crate::support::host::{KEY, change, prove};
use crate::support::upstream::{Reply, Upstream};

#[test]
fn pushes_that_are_held_survive_a_kill_and_the_latest_alone_arrives() {
    let upstream = Upstream::start();
    let gate = setup("", "min_reindex_interval = \"3s\"").upstream(&upstream).start();
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (200, "forwarded"));
    for number in 3..8 {
        assert_eq!(gate.ask(&change(1, number - 1, number)).told(), (202, "coalesced"));
    }
    assert_eq!(gate.ask(&change(2, 1, 2)).told(), (200, "forwarded"), "of another repository");
    assert_eq!(upstream.take_ids(), ["1-2", "2-2"]);
    let folder = gate.kill();
    let gate = again(&folder).upstream(&upstream).start();
    assert_eq!(waiting(&gate), ["1-7"]);
    gate.drains();
    assert_eq!(upstream.take_ids(), ["1-7"]);
}

#[test]
fn a_push_is_held_no_longer_than_it_may_be() {
    let upstream = Upstream::start();
    let hook = "min_reindex_interval = \"1h\"\nmax_wait = \"1s\"";
    let gate = setup("", hook).upstream(&upstream).start();
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&change(1, 2, 3)).told(), (202, "coalesced"));
    assert_eq!(upstream.take_ids(), ["1-2"]);
    gate.drains();
    assert_eq!(upstream.take_ids(), ["1-3"]);
}

#[test]
fn of_pushes_that_wait_for_the_service_the_latest_alone_goes_if_the_hook_coalesces() {
    let upstream = Upstream::with(Reply::Answer(503, &[], ""));
    let gate = setup("", "min_reindex_interval = \"500ms\"").upstream(&upstream).start();
    for number in 2..6 {
        let answer = gate.ask(&change(1, number - 1, number));
        assert_eq!(answer.status, 202);
        assert!(["queued", "coalesced"].contains(&answer.outcome()), "{answer:?}");
    }
    let mut other_ref = change(1, 1, 9).without("x-hub-signature-256");
    other_ref.body =
        String::from_utf8(other_ref.body).expect("text").replace("main", "next").into();
    let other_ref = prove(other_ref, &Github, KEY, b"");
    assert_eq!(gate.ask(&other_ref).told(), (202, "queued"));
    upstream.take();
    upstream.reply(Reply::Answer(200, &[], ""));
    gate.drains();
    let ids = upstream.take_ids();
    // One that was under way when a later one came may arrive before it.
    let taken: Vec<_> = ids.iter().rev().take(2).map(String::as_str).collect();
    assert!(taken.contains(&"1-5") && taken.contains(&"1-9"), "{ids:?}");
    assert!(!ids.contains(&"1-3".to_owned()) && !ids.contains(&"1-4".to_owned()), "{ids:?}");
}

#[test]
fn the_same_push_is_stored_once_also_after_a_restart_and_sent_again_only_if_it_changes_something() {
    let upstream = Upstream::with(Reply::Answer(500, &[], ""));
    let gate = setup("", "").upstream(&upstream).start();
    for _ in 0..3 {
        assert_eq!(gate.ask(&change(1, 1, 2)).told(), (202, "queued"));
    }
    assert_eq!(waiting(&gate), ["1-2"]);
    let folder = gate.kill();
    let gate = again(&folder).upstream(&upstream).start();
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (202, "queued"));
    assert_eq!(waiting(&gate), ["1-2"]);
    upstream.take();
    upstream.reply(Reply::Answer(200, &[], ""));
    gate.drains();
    assert_eq!(upstream.take().iter().filter(|one| one.is_taken).count(), 1);
    assert_eq!(rows(&gate, "state = 3").len(), 1);
    // It came again while it waited, and so is known when it has arrived.
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (200, "duplicate"));
    assert_eq!(gate.ask(&change(1, 2, 3)).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (200, "forwarded"), "the branch was elsewhere");
    assert_eq!(upstream.take_ids(), ["1-3", "1-2"]);
}
