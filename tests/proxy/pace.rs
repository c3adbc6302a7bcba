//! How often the service hears of a change, and in what form.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookgate::scheme::Github;

use crate::support::client::Request;
use crate::support::gate::{Gate, NO_SPOOL, Setup, write_private};
use crate::support::host::{KEY, prove};
use crate::support::until;
use crate::support::upstream::{Reply, Upstream};

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
    let setup = Setup::new().keys(&format!("{KEY} name=a\n"));
    write_private(&setup.path("service.key"), "U2VydmljZUtleUZvckppcmE name=service\n");
    setup.config(&config).upstream(upstream).start()
}

#[test]
fn a_burst_reaches_the_service_once_an_interval_and_the_last_of_each_repository_is_among_it() {
    const REPOSITORIES: usize = 10;
    const PUSHES: usize = 300;
    let upstream = Upstream::start();
    let gate = start(&upstream, "min_reindex_interval = \"1s\"\ndedupe_window = \"0s\"");
    let begun = Instant::now();
    let mut client = gate.connect();
    let mut told = HashMap::new();
    for n in 1..=PUSHES {
        let answer = client.ask(push(n % REPOSITORIES, n, n + REPOSITORIES).bytes());
        *told.entry(answer.outcome().to_owned()).or_insert(0) += 1;
    }
    let last = |repository: usize| {
        let n = (1..=PUSHES).rev().find(|n| n % REPOSITORIES == repository).unwrap();
        format!("{:040x}", n + REPOSITORIES)
    };
    let mut received = Vec::new();
    until("the last of each repository", || {
        received.extend(upstream.take());
        let has = |repository| {
            let (name, after) = (format!("acme/{repository}.git"), last(repository));
            received.iter().any(|it| it.text().contains(&name) && it.text().contains(&after))
        };
        (0..REPOSITORIES).all(has).then_some(())
    });
    // One at once, and one at the end of each interval.
    let intervals = begun.elapsed().as_secs() as usize + 1;
    assert!(received.len() <= REPOSITORIES * (1 + intervals), "{} {told:?}", received.len());
    assert!(told["forwarded"] >= REPOSITORIES && told["coalesced"] > 0, "{told:?}");
    // One that comes when an interval has ended waits behind the one that was held.
    let queued = told.get("queued").copied().unwrap_or_default();
    assert_eq!(told["forwarded"] + told["coalesced"] + queued, PUSHES, "{told:?}");
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

#[test]
fn git_integration_for_jira_gets_its_key_its_path_and_its_body() {
    let upstream = Upstream::start();
    let gate = start(
        &upstream,
        "upstream_path = \"/rest/gitplugin/webhook/1.0/reindex/{upstream_key}\"\n\
         upstream_key_file = \"service.key\"\nupstream_body = \"reindex\"",
    );
    assert_eq!(gate.ask(&push(1, 1, 2)).told(), (200, "forwarded"));
    let received = upstream.take_one();
    let path = "POST /rest/gitplugin/webhook/1.0/reindex/U2VydmljZUtleUZvckppcmE HTTP/1.1";
    assert_eq!(received.line, path);
    assert_eq!(received.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(body["repository"]["git_http_url"], "https://github.com/acme/1.git");
    let stopped = gate.stop();
    assert!(!format!("{stopped:?}").contains("U2VydmljZUtleUZvckppcmE"), "the key is in the log");
}
