//! How the gate stops while the spool has something to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Row, again, rows, setup, waiting};
use crate::support::host::change;
use crate::support::upstream::{Reply, Upstream};

const HURRIED: &str = "[limits]\ngrace_period = \"700ms\"\n[upstream]\nanswer_within = \"100ms\"\n";

#[test]
fn a_second_process_is_refused_and_disturbs_nothing() {
    let upstream = Upstream::with(Reply::Answer(500, &[], ""));
    let gate = setup("", "").upstream(&upstream).start();
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (202, "queued"));
    for _ in 0..2 {
        let second = again(gate.folder()).upstream(&upstream).run();
        assert_eq!(second.code, Some(1));
        let wanted = "another hookgate uses the state folder";
        assert!(second.stderr.contains(wanted), "{}", second.stderr);
    }
    assert_eq!(waiting(&gate), ["1-2"]);
    upstream.reply(Reply::Answer(200, &[], ""));
    gate.drains();
}

#[test]
fn a_call_that_ends_within_the_grace_period_is_waited_for() {
    let upstream = Upstream::start();
    upstream.next(Reply::Hold);
    let config = "[upstream]\nanswer_within = \"100ms\"\n";
    let gate = setup(config, "").upstream(&upstream).start();
    let folder = Arc::clone(gate.folder());
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (202, "queued"));
    assert_eq!(gate.ask(&change(1, 2, 3)).told(), (202, "queued"));
    gate.signal("TERM");
    gate.says("stopping: no longer ready");
    upstream.release();
    assert_eq!(gate.wait().code, Some(0));
    // The next one may have been begun before all else had ended.
    let gate = again(&folder).upstream(&upstream).start();
    gate.drains();
    assert_eq!(upstream.take_ids(), ["1-2", "1-3"], "each once");
    assert_eq!(gate.spool().delivered, 2);
}

#[test]
fn a_call_that_does_not_is_given_up_and_its_delivery_sent_after_the_next_start() {
    let upstream = Upstream::with(Reply::Hold);
    let gate = setup(HURRIED, "").upstream(&upstream).start();
    let folder = Arc::clone(gate.folder());
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (202, "queued"));
    let began = Instant::now();
    let finished = gate.stop();
    let took = began.elapsed();
    assert!((Duration::from_millis(600)..Duration::from_secs(3)).contains(&took), "{took:?}");
    let warning = "the grace period ended with calls under way: their deliveries are sent again";
    assert!(finished.stderr.contains(warning), "{}", finished.stderr);
    assert_eq!(finished.code, Some(3));
    assert!(!finished.stderr.contains("everything was finished"), "{}", finished.stderr);
    upstream.take();
    upstream.reply(Reply::Answer(200, &[], ""));
    let gate = again(&folder).upstream(&upstream).start();
    gate.drains();
    assert_eq!(upstream.take_ids(), ["1-2"]);
    let row = Row { id: "1-2".into(), attempts: 2, last_error: None };
    assert_eq!(rows(&gate, "state = 3"), [row]);
}

#[test]
fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    let upstream = Upstream::with(Reply::Hold);
    let config = "[upstream]\nanswer_within = \"100ms\"\n";
    let gate = setup(config, "").upstream(&upstream).start();
    let folder = Arc::clone(gate.folder());
    for number in 2..5 {
        assert_eq!(gate.ask(&change(1, number - 1, number)).told(), (202, "queued"));
    }
    gate.signal("TERM");
    gate.says("stopping: no longer ready");
    let began = Instant::now();
    gate.signal("TERM");
    let finished = gate.wait();
    assert_eq!(finished.code, Some(4));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    upstream.take();
    upstream.reply(Reply::Answer(200, &[], ""));
    let gate = again(&folder).upstream(&upstream).start();
    gate.drains();
    assert_eq!(upstream.take_ids(), ["1-2", "1-3", "1-4"]);
}

#[test]
fn what_waits_is_not_waited_for() {
    let upstream = Upstream::with(Reply::Answer(500, &[("retry-after", "100")], ""));
    let gate = setup("", "").upstream(&upstream).start();
    let folder = Arc::clone(gate.folder());
    assert_eq!(gate.ask(&change(1, 1, 2)).told(), (202, "queued"));
    let began = Instant::now();
    assert_eq!(gate.stop().code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(!folder.path().join("state/spool/spool.db-wal").exists(), "all is in one file");
    let gate = again(&folder).upstream(&upstream).start();
    assert_eq!(waiting(&gate), ["1-2"]);
}
