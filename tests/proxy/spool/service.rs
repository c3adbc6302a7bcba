//! A service that misbehaves: what the host hears by when, what the spool holds, and how it ends.

use std::time::{Duration, Instant};

use super::{Row, rows, setup, waiting};
use crate::support::gate::Gate;
use crate::support::host::{OTHER_KEY, change, large_change};
use crate::support::until;
use crate::support::upstream::{Reply, Upstream};

/// By then a host has to hear; Gitea gives 5 s.
const PROMPT: Duration = Duration::from_secs(4);

/// Sends a push, and gives what the host was told in time.
#[track_caller]
fn told(gate: &Gate, repository: usize, number: usize) -> (u16, String) {
    let began = Instant::now();
    let answer = gate.ask(&change(repository, number - 1, number));
    let took = began.elapsed();
    assert!(took < PROMPT, "{took:?}: {answer:?}");
    (answer.status, answer.outcome().to_owned())
}

fn queued() -> (u16, String) {
    (202, "queued".into())
}

fn forwarded() -> (u16, String) {
    (200, "forwarded".into())
}

#[test]
fn a_service_that_hangs_is_answered_for_in_time_and_its_late_success_is_not_repeated() {
    let upstream = Upstream::with(Reply::Hold);
    // All defaults: 3.5 s for the host, 30 s for the call.
    let gate = setup("", "").upstream(&upstream).start();
    let began = Instant::now();
    assert_eq!(told(&gate, 1, 2), queued());
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    let counts = gate.spool();
    assert_eq!((counts.leased, counts.pending), (1, 0));
    assert_eq!(rows(&gate, "state = 2"), [Row { id: "1-2".into(), attempts: 1, last_error: None }]);
    upstream.release();
    gate.drains();
    assert_eq!(gate.spool().delivered, 1);
    upstream.reply(Reply::Answer(200, &[], ""));
    // It is known as well as one that was not late.
    assert_eq!(told(&gate, 1, 2), (200, "duplicate".into()));
    assert_eq!(told(&gate, 1, 3), forwarded());
    assert_eq!(upstream.take_ids(), ["1-2", "1-3"]);
}

#[test]
fn a_late_failure_is_tried_again_and_a_late_refusal_is_set_aside() {
    let upstream = Upstream::start();
    let config = "[upstream]\nanswer_within = \"100ms\"\ntimeout = \"600ms\"\n";
    let gate = setup(config, "").upstream(&upstream).start();
    upstream.next(Reply::Hold);
    assert_eq!(told(&gate, 1, 2), queued());
    gate.drains();
    upstream.release();
    assert_eq!(upstream.take_ids(), ["1-2", "1-2"]);
    assert_eq!(rows(&gate, "state = 3")[0].attempts, 2);
    upstream.next(Reply::Wait(Duration::from_millis(300), 404));
    assert_eq!(told(&gate, 2, 2), queued(), "it was not known yet");
    until("it is set aside", || (gate.spool().dead == 1).then_some(()));
    let refused = Some("upstream answered 404".into());
    assert_eq!(
        rows(&gate, "state = 4"),
        [Row { id: "2-2".into(), attempts: 1, last_error: refused }]
    );
}

#[test]
fn what_a_service_does_not_take_waits_with_the_reason_and_arrives_when_it_does() {
    let cases = [
        (Reply::Close, 2, "no answer"),
        (Reply::Reset, 2, "no answer"),
        (Reply::Raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), 1, "answer"),
        (Reply::Raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nha"), 1, "answer"),
        (Reply::Raw("HTTP/1.1 2"), 2, ""),
        (Reply::Answer(500, &[], ""), 1, "upstream answered 500"),
        (Reply::Answer(503, &[], ""), 1, "upstream answered 503"),
        (Reply::Answer(429, &[], ""), 1, "upstream answered 429"),
    ];
    let upstream = Upstream::start();
    let gate = setup("", "").upstream(&upstream).start();
    for (number, (reply, calls, _)) in cases.iter().enumerate() {
        let repository = number + 1;
        upstream.reply(reply.clone());
        assert_eq!(told(&gate, repository, 2), queued(), "{reply:?}");
        assert!(upstream.count() >= *calls, "{reply:?}");
        assert_eq!(waiting(&gate), [format!("{repository}-2")], "{reply:?}");
        let wanted = gate.spool();
        assert_eq!((wanted.active(), wanted.delivered), (1, number), "{reply:?}");
        until("a second attempt", || {
            let row = rows(&gate, "state IN (0, 1)").pop()?;
            row.last_error.filter(|_| row.attempts > 0)
        });
        upstream.take();
        upstream.reply(Reply::Answer(200, &[], ""));
        gate.drains();
        assert_eq!(upstream.take_ids(), [format!("{repository}-2")], "{reply:?}");
        assert_eq!(told(&gate, repository, 3), forwarded(), "{reply:?}");
        upstream.take();
    }
    assert_eq!(gate.spool().dead, 0);
}

#[test]
fn a_service_that_asks_for_time_gets_it() {
    let upstream = Upstream::start();
    upstream.next(Reply::Answer(429, &[("retry-after", "2")], ""));
    let gate = setup("", "").upstream(&upstream).start();
    assert_eq!(told(&gate, 1, 2), queued());
    let asked_at = upstream.take_one().at;
    // Meanwhile it is not called for others either.
    assert_eq!(told(&gate, 1, 3), queued());
    assert_eq!(told(&gate, 2, 2), queued());
    assert_eq!(waiting(&gate), ["1-2", "1-3", "2-2"]);
    gate.drains();
    let received = upstream.take();
    let first = received.iter().map(|one| one.at).min().expect("some");
    assert!(first.duration_since(asked_at) >= Duration::from_millis(1990), "{received:?}");
    let mut ids: Vec<_> = received.iter().map(|one| one.id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["1-2", "1-3", "2-2"], "nothing is lost, and nothing comes twice");
    assert_eq!(told(&gate, 1, 4), forwarded());
}

#[test]
fn a_service_that_fails_some_times_is_tried_until_it_does_not() {
    let upstream = Upstream::start();
    for _ in 0..3 {
        upstream.next(Reply::Answer(500, &[], ""));
    }
    let gate = setup("", "").upstream(&upstream).start();
    assert_eq!(told(&gate, 1, 2), queued());
    gate.drains();
    assert_eq!(upstream.take_ids(), ["1-2"; 4]);
    assert_eq!(rows(&gate, "state = 3"), [Row { id: "1-2".into(), attempts: 3, last_error: None }]);
}

#[test]
fn what_a_service_refuses_is_a_dead_letter_at_once_and_holds_up_nothing() {
    let upstream = Upstream::start();
    let gate = setup("", "").upstream(&upstream).start();
    let location = &[("location", "http://127.0.0.1:1/")];
    for (status, headers) in [(404, &[][..]), (301, location), (401, &[]), (413, &[])] {
        upstream.next(Reply::Answer(status, headers, ""));
        assert_eq!(told(&gate, 1, status.into()), (202, "set-aside".into()), "{status}");
        assert_eq!(told(&gate, 1, usize::from(status) + 1), forwarded(), "{status}");
    }
    let dead = rows(&gate, "state = 4");
    let wanted = [404, 301, 401, 413].map(|status| Row {
        id: format!("1-{status}"),
        attempts: 1,
        last_error: Some(format!("upstream answered {status}")),
    });
    assert_eq!(dead, wanted);
    assert_eq!(upstream.count(), 8);
    assert_eq!(gate.spool().active(), 0);
}

#[test]
fn a_delivery_that_is_too_old_is_given_up_and_those_behind_it_go() {
    let upstream = Upstream::with(Reply::By(|received| {
        Reply::Answer(if received.id() == "1-2" { 500 } else { 200 }, &[], "")
    }));
    let gate = setup("[spool]\nmax_age = \"1s\"\n", "").upstream(&upstream).start();
    assert_eq!(told(&gate, 1, 2), queued());
    assert_eq!(told(&gate, 1, 3), queued());
    gate.drains();
    let dead = rows(&gate, "state = 4");
    assert_eq!((dead.len(), &*dead[0].id), (1, "1-2"));
    assert_eq!(rows(&gate, "state = 3")[0].id, "1-3");
    assert_eq!(gate.says("delivery is set aside")["reason"], "upstream answered 500");
}

#[test]
fn a_hook_can_answer_before_the_service_is_asked() {
    let upstream = Upstream::with(Reply::Hold);
    let gate = setup("", "delivery = \"spool\"").upstream(&upstream).start();
    let began = Instant::now();
    assert_eq!(told(&gate, 1, 2), queued());
    assert_eq!(told(&gate, 1, 3), queued());
    assert_eq!(told(&gate, 2, 2), queued());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let stranger = large_change(OTHER_KEY, 3, 1, 2, 0);
    assert_eq!(gate.ask(&stranger).told(), (401, "unauthorized"));
    upstream.holds(2);
    assert_eq!(waiting(&gate), ["1-2", "1-3", "2-2"]);
    upstream.reply(Reply::Answer(200, &[], ""));
    upstream.release();
    upstream.release();
    gate.drains();
    let mut ids = upstream.take_ids();
    ids.sort_unstable();
    assert_eq!(ids, ["1-2", "1-3", "2-2"]);
    assert_eq!(told(&gate, 1, 3), (200, "duplicate".into()));
}
