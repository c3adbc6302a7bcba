//! What becomes of a delivery, good or bad: each line of the answers' table, and what reaches the service.

mod answer;
mod hook;
mod limit;
mod proof;
mod service;

use std::collections::BTreeMap;

use hookgate::proxy::telemetry::TraceParent;
use hookgate::scheme::{Family, Gitea, Github};

use crate::support::client::Request;
use crate::support::gate::{Gate, Setup};
use crate::support::host::{self, HOOK, Host, KEY, KEYS, github_push, prove};
use crate::support::until;
use crate::support::upstream::{Received, Upstream};

/// A gate that takes every provider, in front of a service that says yes.
fn gate(upstream: &Upstream) -> Gate {
    Setup::new().keys(KEYS).hooks(HOOK).upstream(upstream).start()
}

#[test]
fn a_push_of_every_host_reaches_the_service_and_nothing_else_does_with_it() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    for host in &host::ALL {
        let push = host.push();
        let answer = gate.ask(&push);
        assert_eq!(answer.told(), (200, "forwarded"), "{}: {answer:?}", host.provider);
        let received = upstream.take_one();
        assert_eq!(received.line, "POST /webhook HTTP/1.1", "{}", host.provider);
        assert_eq!(received.text(), host.body, "{}", host.provider);
        let mut got = unique(&received);
        if host.delivery.is_none() {
            // Then it is the request's own id, which an operator finds in the log.
            let id = got.remove("hookgate-delivery").expect("an id");
            until("its record", || {
                gate.records().iter().find(|it| it["request.id"] == id).map(drop)
            });
        }
        assert_eq!(got, expected(host, &push, &upstream), "{}", host.provider);
    }
}

/// All headers that the service gets with this push.
fn expected(host: &Host, push: &Request, upstream: &Upstream) -> BTreeMap<String, String> {
    let signed = ["webhook-id", "webhook-timestamp"];
    let signed = signed.iter().filter_map(|name| Some((*name, push.value(name)?.to_owned())));
    let passed = host.passed.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let length = host.body.len().to_string();
    let ours = [
        ("host", &*upstream.authority()),
        ("content-length", &length),
        ("forwarded", "for=127.0.0.1;proto=http;host=\"gate.test\""),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "gate.test"),
        ("hookgate-provider", host.provider),
        ("hookgate-event", "push"),
        ("hookgate-repository", host.repository),
        ("hookgate-key", host.key_name()),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    // A trigger by hand does not say what changed.
    let git_ref = (host.provider != "manual").then(|| ("hookgate-ref", "refs/heads/main".into()));
    let delivery = host.delivery.map(|id| ("hookgate-delivery", id.to_owned()));
    let all = passed.chain(signed).chain(ours).chain(git_ref).chain(delivery);
    all.map(|(name, value)| (name.to_lowercase(), value)).collect()
}

#[test]
fn forms_queries_and_put_triggers_reach_the_service_as_posts() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    let form = |body: &str| {
        let encoded =
            percent_encoding::utf8_percent_encode(body, percent_encoding::NON_ALPHANUMERIC);
        format!("payload={encoded}")
    };
    let form_type = "application/x-www-form-urlencoded";

    // GitHub signs the form; the service gets the form.
    let github = host::host("github");
    let request = github.unproved().with("content-type", form_type).body(form(github.body));
    let request = prove(request, &Github, KEY, github.body.as_bytes());
    assert_eq!(gate.ask(&request).told(), (200, "forwarded"));
    let received = upstream.take_one();
    assert_eq!(received.header("content-type"), Some(form_type));
    assert_eq!(received.text(), form(github.body));
    assert_eq!(received.header("hookgate-repository"), Some(github.repository));
    for bad in ["&payload=%7B%7D", "&a=b&payload=", "%"] {
        let mut body = request.body.clone();
        body.extend_from_slice(bad.as_bytes());
        let twin = request.clone().without("x-hub-signature-256").body(body);
        let twin = prove(twin, &Github, KEY, b"");
        assert_eq!(gate.ask(&twin).told(), (400, "malformed"), "{bad}");
        let unsigned = twin.without("x-hub-signature-256");
        assert_eq!(gate.ask(&unsigned).told(), (401, "unauthorized"), "{bad}");
    }

    for (provider, family) in
        [("gitea", Family::Gitea), ("forgejo", Family::Forgejo), ("gogs", Family::Gogs)]
    {
        // These sign the JSON inside.
        let host = host::host(provider);
        let request = host.unproved().with("content-type", form_type).body(form(host.body));
        let good = prove(request.clone(), &Gitea(family), KEY, host.body.as_bytes());
        assert_eq!(gate.ask(&good).told(), (200, "forwarded"), "{provider}");
        assert_eq!(upstream.take_one().text(), form(host.body), "{provider}");
        let raw = prove(request, &Gitea(family), KEY, form(host.body).as_bytes());
        assert_eq!(gate.ask(&raw).told(), (401, "unauthorized"), "{provider}");
        if family == Family::Gogs {
            continue;
        }
        // And can be told to send a GET, with the payload in the query.
        let target = format!("/webhook?{}", form(host.body));
        let mut get = host.unproved().without("content-type").to(&target).body("");
        get.method = "GET".into();
        let good = prove(get.clone(), &Gitea(family), KEY, host.body.as_bytes());
        assert_eq!(gate.ask(&good).told(), (200, "forwarded"), "{provider}");
        let received = upstream.take_one();
        assert_eq!(received.line, "POST /webhook HTTP/1.1");
        assert_eq!(received.header("content-type"), Some("application/json"));
        assert_eq!(received.text(), host.body);
        let other = good.to(&target.replace("main", "mine"));
        assert_eq!(gate.ask(&other).told(), (401, "unauthorized"), "{provider}");
        assert_eq!(gate.ask(&get).told(), (401, "unauthorized"), "{provider}");
    }

    let mut put = host::host("manual").push();
    put.method = "PUT".into();
    assert_eq!(gate.ask(&put).told(), (200, "forwarded"));
    assert_eq!(upstream.take_one().line, "POST /webhook HTTP/1.1");
    assert_eq!(gate.ask(&put.to("/webhook")).told(), (401, "unauthorized"));
    assert_eq!(upstream.count(), 7);
}

#[test]
fn a_body_in_pieces_and_after_100_continue_is_the_same_body() {
    let upstream = Upstream::start();
    let gate = gate(&upstream);
    let push = github_push(KEY);
    for size in [1, 7, 100, 4096] {
        let answer = gate.connect().ask(push.chunked(size));
        assert_eq!(answer.told(), (200, "forwarded"), "{size}");
        let received = upstream.take_one();
        assert_eq!(received.body, push.body);
        assert_eq!(received.header("content-length"), Some(&*push.body.len().to_string()));
        assert_eq!(received.header("transfer-encoding"), None);
    }
    let mut client = gate.connect();
    let expecting = format!("expect: 100-continue\r\ncontent-length: {}\r\n", push.body.len());
    assert_eq!(client.ask(push.head(&expecting)).status, 100);
    assert_eq!(client.ask(&push.body).told(), (200, "forwarded"));
    assert_eq!(upstream.take_one().header("expect"), None);
}

#[test]
fn without_a_service_each_delivery_is_printed_on_one_line() {
    let gate = Setup::new().keys(KEYS).hooks(HOOK).start();
    for host in &host::ALL {
        let answer = gate.ask(&host.push());
        assert_eq!(answer.told(), (202, "printed"), "{}: {answer:?}", host.provider);
        let delivery = answer.json().get("delivery").cloned();
        assert_eq!(delivery.as_ref().and_then(|id| id.as_str()), host.delivery);
        assert_eq!(answer.json()["outcome"], "printed");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(gate.ask(&host::host("github").unproved()).told(), (401, "unauthorized"));
    let finished = gate.stop();
    assert_eq!(finished.code, Some(0));
    let lines: Vec<serde_json::Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), host::ALL.len());
    for (line, host) in lines.iter().zip(&host::ALL) {
        assert_eq!(line["provider"], host.provider);
        assert_eq!(line["event"], "push");
        assert_eq!(line["repository"], host.repository);
        assert_eq!(line["key"], host.key_name());
        let body: serde_json::Value = serde_json::from_str(host.body).expect("JSON");
        assert_eq!(line["payload"], body, "{}", host.provider);
        match host.delivery {
            Some(id) => assert_eq!(line["delivery"], id),
            None => assert_ne!(line["delivery"], ""),
        }
        if host.provider != "manual" {
            assert_eq!(line["refs"], serde_json::json!(["refs/heads/main"]));
        }
    }
}

/// The headers of which each comes once, without the trace, which is another each time.
fn unique(received: &Received) -> BTreeMap<String, String> {
    let headers = received.headers.iter().cloned();
    let mut unique: BTreeMap<_, _> =
        headers.map(|(name, value)| (name.to_lowercase(), value)).collect();
    assert_eq!(unique.len(), received.headers.len(), "{received:?}");
    let trace = unique.remove("traceparent").expect("a trace");
    assert!(TraceParent::parse(trace.as_bytes()).is_some(), "{trace}");
    unique
}

/// The value with one character in its middle changed, within hex and base64 alike.
fn spoil(value: &str) -> String {
    let at = value.len() / 2;
    let other = if &value[at..=at] == "0" { "1" } else { "0" };
    format!("{}{other}{}", &value[..at], &value[at + 1..])
}
