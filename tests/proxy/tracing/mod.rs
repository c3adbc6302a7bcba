//! The trace that a delivery belongs to: continued or begun, told to the service, and known again.

#[cfg(feature = "otlp")]
mod otlp;

use std::fs;

use hookgate::proxy::telemetry::TraceParent;

use crate::support::client::Request;
use crate::support::gate::{Gate, NO_SPOOL, Setup};
use crate::support::host::{KEY, change, github_push};
use crate::support::until;
use crate::support::upstream::{Down, Received, Reply, Upstream};

/// The examples of the specification.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn setup(parts: &str) -> Setup {
    let config = format!("{parts}\n[[hook]]\nname = \"default\"\ndedupe_window = \"0s\"\n");
    Setup::new().keys(&format!("{KEY} name=a\n")).config(&config)
}

fn push() -> Request {
    github_push(KEY)
}

/// What the service was told.
#[track_caller]
fn parent(received: &Received) -> TraceParent {
    let named = |name: &str| {
        let lines = received.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        lines.count()
    };
    assert_eq!(named("traceparent"), 1, "{received:?}");
    TraceParent::parse(received.header("traceparent").unwrap().as_bytes()).expect("a valid parent")
}

/// Waits for the audit record of a request of this trace.
#[track_caller]
fn record(gate: &Gate, trace_id: &str) -> serde_json::Value {
    gate.logged("a record", |line| {
        line["message"] == "Request answered" && line["trace_id"] == trace_id
    })
}

#[test]
fn a_valid_trace_is_continued_to_the_service_and_in_the_log() {
    let upstream = Upstream::start();
    let gate = setup(NO_SPOOL).upstream(&upstream).start();
    let request = push()
        .header("Traceparent", PARENT)
        .header("Tracestate", "rojo=00f067aa0ba902b7")
        .header("Tracestate", "congo=t61rcWkgMzE");
    assert_eq!(gate.ask(&request).told(), (200, "forwarded"));
    let received = upstream.take_one();
    let told = parent(&received);
    assert_eq!((told.trace_id.to_string().as_str(), told.flags.bits()), (TRACE, 1));
    assert_eq!(received.header("tracestate"), Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"));
    let record = record(&gate, TRACE);
    let (call, request) = (told.parent_id.to_string(), record["span_id"].as_str().unwrap());
    assert!(call != request && call != "00f067aa0ba902b7" && request != "00f067aa0ba902b7");
}

#[test]
fn a_trace_that_is_not_valid_is_as_good_as_none() {
    let upstream = Upstream::start();
    let gate = setup(NO_SPOOL).upstream(&upstream).start();
    let twice = push().header("traceparent", PARENT).header("traceparent", PARENT);
    let wrong = [&PARENT.to_uppercase(), &PARENT.replacen("00", "ff", 1), "", "canary"];
    let wrong = wrong.map(|value| push().header("traceparent", value));
    for request in wrong.into_iter().chain([twice, push()]) {
        let request = request.header("tracestate", "rojo=1");
        assert_eq!(gate.ask(&request).told(), (200, "forwarded"));
        let received = upstream.take_one();
        let told = parent(&received);
        assert_ne!(told.trace_id.to_string(), TRACE);
        assert_eq!(told.flags.bits(), 3, "sampled, and the id is random");
        assert_eq!(
            received.header("tracestate"),
            None,
            "it belongs to the trace that is not continued"
        );
        record(&gate, &told.trace_id.to_string());
    }
    assert!(!gate.log().contains("canary"));
}

#[test]
fn whether_the_service_is_told_and_what_is_recorded_changes_with_the_configuration() {
    let upstream = Upstream::start();
    let gate = setup(NO_SPOOL).upstream(&upstream).start();
    let config = |text: &str| {
        let text = format!(
            "{NO_SPOOL}[tracing]\n{text}\n[[hook]]\nname = \"default\"\ndedupe_window = \"0s\"\n"
        );
        fs::write(gate.path("hookgate.toml"), text).unwrap();
    };
    config("sample = 0.0");
    until("no trace is recorded", || {
        assert_eq!(gate.ask(&push()).told(), (200, "forwarded"));
        (parent(&upstream.take_one()).flags.bits() == 2).then_some(())
    });
    // Whoever holds a key has a say in it.
    gate.ask(&push().header("traceparent", PARENT));
    assert!(parent(&upstream.take_one()).flags.is_sampled());
    config("propagate = false");
    let other = PARENT.replace("4bf9", "5bf9");
    let request = push().header("traceparent", &other).header("tracestate", "rojo=1");
    until("the service is not told", || {
        assert_eq!(gate.ask(&request).told(), (200, "forwarded"));
        let received = upstream.take_one();
        let names = ["traceparent", "tracestate"];
        names.iter().all(|name| received.header(name).is_none()).then_some(())
    });
    // The log is.
    record(&gate, &TRACE.replace("4bf9", "5bf9"));
}

#[test]
fn a_delivery_of_the_spool_keeps_its_trace_over_attempts_and_restarts() {
    let down = Down::new();
    let gate = setup("").args(&["--upstream", &down.url()]).start();
    let request = change(1, 1, 2).header("traceparent", PARENT).header("tracestate", "rojo=1");
    assert_eq!(gate.ask(&request).told(), (202, "queued"));
    let first = record(&gate, TRACE);
    let show = |args: &[&str]| {
        let shown = Setup::bare(&["spool", "show", "1", "--state-dir", "state"]);
        let shown = shown.args(args).within(gate.folder()).run();
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        shown.stdout
    };
    let shown = show(&[]);
    let line = shown.lines().find(|line| line.starts_with("trace ")).expect("a line");
    assert!(line.ends_with(TRACE), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&show(&["--json"])).unwrap();
    assert_eq!(json["trace_id"], TRACE);

    let folder = gate.kill();
    let upstream = down.up();
    upstream.next(Reply::Answer(503, &[], ""));
    let files = ["--config", "hookgate.toml", "--key-file", "webhook.key"];
    let gate = Setup::new().within(&folder).args(&files).upstream(&upstream).start();
    let mut received = Vec::new();
    until("the second attempt", || {
        received.extend(upstream.take());
        (received.len() == 2).then_some(())
    });
    let spans = received.iter().map(|received| {
        let told = parent(received);
        assert_eq!((told.trace_id.to_string().as_str(), told.flags.bits()), (TRACE, 1));
        assert_eq!(received.header("tracestate"), Some("rojo=1"));
        told.parent_id
    });
    let spans: Vec<_> = spans.collect();
    assert_ne!(spans[0], spans[1], "each attempt is a span of its own");
    let sent = gate.logged("the delivery was sent", |line| {
        line["message"] == "Delivery sent from the spool" && line["outcome"] == "forwarded"
    });
    assert_eq!((&sent["trace_id"], &sent["span_id"]), (&first["trace_id"], &first["span_id"]));
}
