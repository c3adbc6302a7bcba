//! What is too much, too slow or too many.

use std::time::{Duration, Instant};

use hookgate::scheme::Github;

use crate::support::client::{Client, Request};
use crate::support::gate::Setup;
use crate::support::host::{self, KEY, KEYS, github_push, prove};
use crate::support::until;
use crate::support::upstream::{Reply, Upstream};

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let upstream = Upstream::start();
    let hook = "[limits]\nmax_body = \"2KiB\"\n[[hook]]\nname = \"default\"\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    let sized = |size: usize| {
        let host = host::host("github");
        let body = format!("{}{}", host.body, " ".repeat(size - host.body.len()));
        prove(host.unproved().body(body), &Github, KEY, b"")
    };
    assert_eq!(gate.ask(&sized(2048)).told(), (200, "forwarded"));
    assert_eq!(gate.connect().ask(sized(2048).chunked(100)).told(), (200, "forwarded"));
    assert_eq!(upstream.take().len(), 2);
    // By its declared length, before a byte of it was sent and whatever the credential is.
    for length in ["2049", "1099511627776", "9223372036854775807", "18446744073709551613"] {
        for request in [sized(2048), host::host("github").unproved()] {
            let mut client = gate.connect();
            let answer = client.ask(request.head(&format!("content-length: {length}\r\n")));
            assert_eq!(answer.told(), (413, "too-large"), "{length}");
            assert_eq!(answer.header("connection"), Some("close"), "{length}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        }
    }
    // In chunks, when the limit is passed.
    let mut client = gate.connect();
    let answer = client.ask(sized(1 << 20).chunked(1000));
    assert_eq!(answer.told(), (413, "too-large"));
    // A form may be three times as large.
    let form = "application/x-www-form-urlencoded";
    let form = |size: usize| {
        let host = host::host("github");
        let encoded: String = host.body.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let body = format!("payload={encoded}&pad=");
        let body = format!("{body}{}", "x".repeat(size - body.len()));
        prove(host.unproved().with("content-type", form).body(body), &Github, KEY, b"")
    };
    assert_eq!(gate.ask(&form(3 * 2048)).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&form(3 * 2048 + 1)).told(), (413, "too-large"));
    assert_eq!(upstream.take().len(), 1);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let upstream = Upstream::start();
    let hook = "[limits]\nbody_deadline = \"400ms\"\n[[hook]]\nname = \"default\"\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    let push = github_push(KEY);
    let (bytes, half) = (push.bytes(), push.body.len() / 2);
    let mut client = gate.connect();
    client.send(&bytes[..bytes.len() - half]);
    let began = Instant::now();
    let answer = client.answer();
    assert_eq!(answer.told(), (408, "timeout"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // Drop by drop is no better: the time is that of the whole body.
    let mut client = gate.connect();
    client.send(push.head(&format!("content-length: {}\r\n", push.body.len())));
    let began = Instant::now();
    for byte in push.body.chunks(1) {
        if client.try_send(byte).is_err() || began.elapsed() > Duration::from_secs(1) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.answer().told(), (408, "timeout"));
    // One that breaks off is answered if the client still listens.
    let mut client = gate.connect();
    client.send(&bytes[..bytes.len() - half]);
    client.half_close();
    assert_eq!(client.answer().told(), (400, "malformed"));
    assert_eq!(gate.ask(&push).told(), (200, "forwarded"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn more_than_may_be_in_flight_is_shed_and_only_what_is_authentic_takes_a_place() {
    let upstream = Upstream::with(Reply::Hold);
    let hook = "[limits]\nin_flight = 1\n[[hook]]\nname = \"default\"\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    let mut first = gate.connect();
    first.send(github_push(KEY).bytes());
    upstream.holds(1);
    let answer = gate.ask(&github_push(KEY));
    assert_eq!(answer.told(), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    // What needs no place gets its usual answer.
    assert_eq!(gate.ask(&host::host("github").unproved()).told(), (401, "unauthorized"));
    let ping = prove(
        Request::post("/webhook").header("X-GitHub-Event", "ping").body("{}"),
        &Github,
        KEY,
        b"",
    );
    assert_eq!(gate.ask(&ping).told(), (200, "pong"));
    assert_eq!(gate.metric("hookgate_in_flight"), 1.0);
    assert_eq!(gate.metric("hookgate_in_flight_limit"), 1.0);
    upstream.release();
    assert_eq!(first.answer().told(), (200, "forwarded"));
    upstream.reply(Reply::Answer(200, &[], ""));
    assert_eq!(gate.ask(&github_push(KEY)).told(), (200, "forwarded"));
    assert_eq!(gate.metric("hookgate_in_flight"), 0.0);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn more_unverified_bytes_than_there_is_room_for_are_refused_and_small_bodies_still_pass() {
    let upstream = Upstream::start();
    let hook = "[limits]\nunverified_bytes = \"256KiB\"\nper_source = \"100%\"\n\
         [[hook]]\nname = \"default\"\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    let stranger = host::host("github").unproved();
    let stranger = stranger.header("x-hub-signature-256", &format!("sha256={}", "0".repeat(64)));
    let stranger = stranger.body(vec![b' '; 1 << 20]).chunked(64 * 1024);
    let mut clients: Vec<_> = (0..4).map(|_| gate.connect()).collect();
    let mut refused = 0;
    for client in &mut clients {
        // Not the whole of it, so that the rest is waited for.
        client.send(&stranger[..150 * 1024]);
    }
    until("room is taken or refused", || {
        let told = gate.metrics().contains("outcome=\"overloaded\"");
        (told && gate.metric("hookgate_unverified_bytes") > 100_000.0).then_some(())
    });
    assert_eq!(gate.ask(&github_push(KEY)).told(), (200, "forwarded"));
    for client in &mut clients {
        if client.try_send(&stranger[150 * 1024..]).is_ok()
            && let Ok(answer) = client.try_answer()
        {
            // Whoever had room was read to the end.
            if answer.status != 401 {
                assert_eq!(answer.told(), (503, "overloaded"));
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    drop(clients);
    until("room is free again", || (gate.metric("hookgate_unverified_bytes") == 0.0).then_some(()));
    assert_eq!(gate.metric("hookgate_unverified_limit_bytes"), 262_144.0);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn one_source_cannot_hold_all_connections() {
    let upstream = Upstream::start();
    let hook = "[limits]\nconnections = 4\nper_source = \"50%\"\n[[hook]]\nname = \"default\"\n";
    let gate = Setup::new().keys(KEYS).hooks(hook).upstream(&upstream).start();
    let mut held: Vec<_> = (0..2).map(|_| gate.connect()).collect();
    for client in &mut held {
        assert_eq!(client.ask(github_push(KEY).bytes()).told(), (200, "forwarded"));
    }
    let answer = gate.connect().answer();
    assert_eq!(answer.told(), (503, "overloaded"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.json()["status"], 503);
    let refused = "hookgate_connections_failed_total{reason=\"refused-by-share\"}";
    assert_eq!(gate.metric(refused), 1.0);
    drop(held);
    until("a place is free", || {
        let mut client = Client::try_connect(gate.address()).ok()?;
        client.try_send(github_push(KEY).bytes()).ok()?;
        (client.try_answer().ok()?.status == 200).then_some(())
    });
}
