//! How often the service hears of a change, and in what form.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hookgate::scheme::Github;

use crate::support::client::Request;
use crate::support::gate::{Gate, NO_SPOOL, Setup};
use crate::support::host::{KEY, prove};
use crate::support::until;
use crate::support::upstream::{Received, Reply, Upstream};

/// A push of `refs/heads/main` of `acme/<repository>` from one number to another.
fn push(repository: usize, from: usize, to: usize) -> Request {
    let body = format!(
        "{{\"ref\":\"refs/heads/main\",\"before\":\"{from:040x}\",\"after\":\"{to:040x}\",\
         \"repository\":{{\"clone_url\":\"https://github.com/acme/{repository}.git\"}}}}"
    );
    let request = Request::post("/webhook")
        .header("Content-Type", "application/json")
        .header("X-GitHub-Event", "push")
        .body(body.clone());
    prove(request, &Github, KEY, body.as_bytes())
}

fn start(upstream: &Upstream, more: &str) -> Gate {
    let config = format!("[[hook]]\nname = \"default\"\n{more}\n");
    Setup::new().keys(&format!("{KEY} name=a\n")).config(&config).upstream(upstream).start()
}

/// A thousand signed pushes over ten repositories, as fast as the gate answers: within about a second.
#[test]
fn a_burst_reaches_the_service_once_an_interval_and_the_last_of_each_repository_is_among_it() {
    const REPOSITORIES: usize = 10;
    const PUSHES: usize = 1000;
    const CONNECTIONS: usize = 5;
    const INTERVAL: Duration = Duration::from_secs(2);
    const NEXT: Duration = Duration::from_millis(2500);
    let upstream = Upstream::start();
    let gate = start(&upstream, "min_reindex_interval = \"2s\"");
    // Each connection has its repositories for itself, so that it is known which push is the last.
    let signed: Vec<Vec<Vec<u8>>> = (0..CONNECTIONS)
        .map(|connection| {
            let numbers = (0..PUSHES).filter(|n| n % REPOSITORIES % CONNECTIONS == connection);
            numbers.map(|n| push(n % REPOSITORIES, n, n + REPOSITORIES).bytes()).collect()
        })
        .collect();
    let last: Vec<_> = (PUSHES..PUSHES + REPOSITORIES).map(|n| format!("{n:040x}")).collect();

    let begun = Instant::now();
    let outcomes: Vec<String> = std::thread::scope(|scope| {
        let sending = signed.iter().map(|pushes| {
            let mut client = gate.connect();
            scope.spawn(move || {
                let answers = pushes.iter().map(|push| client.ask(push).outcome().to_owned());
                answers.collect::<Vec<_>>()
            })
        });
        let sending: Vec<_> = sending.collect();
        sending.into_iter().flat_map(|it| it.join().expect("a connection")).collect()
    });
    let (ended, took) = (Instant::now(), begun.elapsed());
    let told = |outcome: &str| outcomes.iter().filter(|it| *it == outcome).count();
    // One that comes when an interval has ended waits behind the one that was held.
    let told = told("forwarded") + told("coalesced") + told("queued");
    assert_eq!(told, PUSHES, "{outcomes:?}");

    let mut received: Vec<Vec<_>> = vec![Vec::new(); REPOSITORIES];
    until("the last of each repository, and the end of the time that counts", || {
        for one in upstream.take() {
            let of = |n: &usize| one.text().contains(&format!("/acme/{n}.git\""));
            received[(0..REPOSITORIES).find(of).expect("a repository")].push(one);
        }
        let has_last = |(of, last): (&Vec<Received>, &String)| {
            of.last().is_some_and(|it| it.text().contains(last))
        };
        (received.iter().zip(&last).all(has_last) && ended.elapsed() > NEXT).then_some(())
    });
    // One at once and one when the interval ends, and another for each interval that the burst itself took.
    let intervals = 2 + took.as_millis() / INTERVAL.as_millis();
    for of in &received {
        let times: Vec<_> = of.iter().map(|it| it.at - begun).collect();
        assert!(times.len() <= intervals as usize, "{times:?}, and the burst took {took:?}");
    }
    let arrived = received.iter().map(|of| of.last().expect("the last").at).max();
    let after = arrived.expect("the last of all") - ended;
    assert!(after <= NEXT, "the last came {after:?} after a burst of {took:?}");
}

#[test]
fn without_a_spool_what_is_held_goes_when_the_gate_stops() {
    let upstream = Upstream::start();
    let config = format!("{NO_SPOOL}[[hook]]\nname = \"default\"\nmin_reindex_interval = \"1h\"\n");
    let keys = format!("{KEY} name=a\n");
    let gate = Setup::new().keys(&keys).config(&config).upstream(&upstream).start();
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&push(1, 2, 3)).told(), (202, "coalesced"));
    assert_eq!(gate.ask(&push(1, 3, 4)).told(), (202, "coalesced"));
    assert_eq!(upstream.count(), 1);
    gate.stop();
    let received = upstream.take();
    assert_eq!(received.len(), 2, "the latest alone");
    assert!(received[1].text().contains(&format!("{:040x}", 4)));
}

#[test]
fn what_is_held_waits_in_the_spool_when_the_gate_stops_and_goes_after_the_next_start() {
    let upstream = Upstream::start();
    let gate = start(&upstream, "min_reindex_interval = \"3s\"");
    let folder = Arc::clone(gate.folder());
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (200, "forwarded"));
    let held_at = Instant::now();
    assert_eq!(gate.ask(&push(1, 2, 3)).told(), (202, "coalesced"));
    assert_eq!(gate.ask(&push(1, 3, 4)).told(), (202, "coalesced"));
    assert_eq!(gate.stop().code, Some(0));
    assert_eq!(upstream.take().len(), 1);
    let gate = Setup::new()
        .within(&folder)
        .args(&["--config", "hookgate.toml", "--key-file", "webhook.key"])
        .upstream(&upstream)
        .start();
    assert_eq!(gate.spool().pending, 1, "the latest alone");
    until("it goes", || (upstream.count() == 2).then_some(()));
    assert!(held_at.elapsed() >= Duration::from_millis(2500), "{:?}", held_at.elapsed());
    assert!(upstream.take_one().text().contains(&format!("{:040x}", 4)));
}

#[test]
fn a_held_push_is_tried_again_until_the_service_takes_it() {
    let upstream = Upstream::start();
    let gate = start(&upstream, "min_reindex_interval = \"500ms\"");
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (200, "forwarded"));
    upstream.next(Reply::Close);
    upstream.next(Reply::Close);
    assert_eq!(gate.ask(&push(1, 2, 3)).told(), (202, "coalesced"));
    until("the third attempt", || (upstream.count() == 4).then_some(()));
    assert!(upstream.take()[3].text().contains(&format!("{:040x}", 3)));
}

#[test]
fn the_same_push_again_is_not_sent_and_one_that_only_looks_like_it_is() {
    let upstream = Upstream::start();
    let gate = start(&upstream, "");
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (200, "forwarded"));
    let again = push(1, 1, 2).header("X-GitHub-Delivery", "another-id");
    assert_eq!(gate.ask(&again).told(), (200, "duplicate"));
    // A branch that goes back and forth: the third has the bytes of the first.
    assert_eq!(gate.ask(&push(1, 2, 1)).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&push(2, 1, 2)).told(), (200, "forwarded"), "of another repository");
    assert_eq!(upstream.count(), 4);
}

#[test]
fn without_a_spool_a_push_that_failed_is_no_duplicate() {
    let upstream = Upstream::start();
    let config = format!("{NO_SPOOL}[[hook]]\nname = \"default\"\n");
    let keys = format!("{KEY} name=a\n");
    let gate = Setup::new().keys(&keys).config(&config).upstream(&upstream).start();
    upstream.next(Reply::Raw("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"));
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (502, "upstream-failed"));
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (200, "forwarded"));
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (200, "duplicate"));
}

#[test]
fn a_push_that_waits_is_not_stored_twice_and_one_that_arrived_from_the_spool_is_a_duplicate() {
    let upstream = Upstream::with(Reply::Answer(500, &[], ""));
    let gate = start(&upstream, "");
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (202, "queued"));
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (202, "queued"));
    assert_eq!(gate.spool().active(), 1);
    // A branch that goes back and forth: only what says the same as the youngest is a second copy.
    assert_eq!(gate.ask(&push(1, 2, 1)).told(), (202, "queued"));
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (202, "queued"));
    assert_eq!(gate.spool().active(), 3);
    upstream.reply(Reply::Answer(200, &[], ""));
    gate.drains();
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (200, "duplicate"));
    assert_eq!(gate.ask(&push(1, 2, 3)).told(), (200, "forwarded"));
    assert_eq!(gate.spool().delivered, 3);
}

#[test]
fn a_reindex_of_everything_needs_the_url_key_and_a_hook_that_wants_it() {
    let upstream = Upstream::start();
    let with_key = format!("/webhook/{KEY}");
    let plain = start(&upstream, "");
    assert_eq!(plain.ask(&Request::new("GET", &with_key)).told(), (405, "method"));
    assert_eq!(plain.ask(&Request::post(&with_key)).told(), (400, "malformed"));
    let wanting = start(&upstream, "reindex_all = true");
    for method in ["GET", "POST", "PUT"] {
        let answer = wanting.ask(&Request::new(method, &with_key));
        assert_eq!(answer.told(), (200, "forwarded"), "{method}");
        let received = upstream.take_one();
        assert!(received.line.starts_with("POST /webhook "), "{}", received.line);
        assert_eq!(received.text(), "{}");
        assert_eq!(received.header("hookgate-event"), Some("reindex_all"));
        assert_eq!(wanting.ask(&Request::new(method, "/webhook")).status, 401, "{method}");
        let wrong = format!("/webhook/{}x", &KEY[1..]);
        assert_eq!(wanting.ask(&Request::new(method, &wrong)).status, 401, "{method}");
    }
    let broken = Request::post(&with_key).header("Content-Type", "application/json").body("{");
    assert_eq!(wanting.ask(&broken).told(), (400, "malformed"));
    assert_eq!(upstream.count(), 3);
}
