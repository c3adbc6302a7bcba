//! What a collector gets. It is a service that writes down requests; what they say is read by another's decoder.

use std::collections::HashMap;

use prost::Message;

use super::{PARENT, TRACE, parent, push, setup};
use crate::support::client::Request;
use crate::support::gate::{Gate, NO_SPOOL, Setup};
use crate::support::host::{KEY, change};
use crate::support::until;
use crate::support::upstream::{Down, Received, Reply, Upstream};

/// The key of the service behind the gate.
const UPSTREAM_KEY: &str = "CanaryUpstream9Rf4Vg2Bt7Hy1Nj6";

/// The messages, with the numbers of `opentelemetry/proto` 1.7. What is not read is not named.
mod proto {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub(super) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(super) scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        pub(super) spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) span_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(super) name: String,
        #[prost(int32, tag = "6")]
        pub(super) kind: i32,
        #[prost(fixed64, tag = "7")]
        pub(super) start: u64,
        #[prost(fixed64, tag = "8")]
        pub(super) end: u64,
        #[prost(message, repeated, tag = "9")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(message, optional, tag = "15")]
        pub(super) status: Option<Status>,
        #[prost(fixed32, tag = "16")]
        pub(super) flags: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Status {
        #[prost(int32, tag = "3")]
        pub(super) code: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct AnyValue {
        #[prost(oneof = "Value", tags = "1, 3")]
        pub(super) value: Option<Value>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(int64, tag = "3")]
        Number(i64),
    }
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

fn attributes(pairs: &[proto::KeyValue]) -> HashMap<&str, String> {
    let pair = |pair: &proto::KeyValue| match pair.value.clone().and_then(|value| value.value) {
        Some(proto::Value::Text(text)) => text,
        Some(proto::Value::Number(number)) => number.to_string(),
        None => panic!("{pair:?}"),
    };
    pairs.iter().map(|it| (it.key.as_str(), pair(it))).collect()
}

#[track_caller]
fn spans(received: &Received) -> Vec<proto::Span> {
    let request = proto::Request::decode(&*received.body).expect("a request for export");
    let scopes = request.resource_spans.into_iter().flat_map(|it| it.scope_spans);
    scopes.flat_map(|it| it.spans).collect()
}

/// A gate that sends spans at once.
fn exporting(parts: &str, collector: &str) -> Setup {
    setup(parts).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector).env("OTEL_BSP_SCHEDULE_DELAY", "20")
}

/// Waits until the collector has so many spans.
#[track_caller]
fn collect(collector: &Upstream, count: usize) -> (Vec<Received>, Vec<proto::Span>) {
    let mut requests = Vec::new();
    let all = until("spans are exported", || {
        requests.extend(collector.take());
        let all: Vec<_> = requests.iter().flat_map(spans).collect();
        (all.len() >= count).then_some(all)
    });
    assert_eq!(all.len(), count, "{all:?}");
    (requests, all)
}

fn counted(gate: &Gate, result: &str) -> f64 {
    gate.metric(&format!("hookgate_spans_total{{result=\"{result}\"}}"))
}

#[test]
fn a_delivery_is_a_span_of_the_gate_and_one_of_the_call_in_the_trace_that_came() {
    let (upstream, collector) = (Upstream::start(), Upstream::start());
    let gate = exporting(NO_SPOOL, &collector.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=c4n4ry")
        .env("OTEL_SERVICE_NAME", "gate")
        .args(&["--log", "trace"])
        .upstream(&upstream)
        .start();
    assert_eq!(gate.ask(&push().header("traceparent", PARENT)).told(), (200, "forwarded"));
    let (requests, all) = collect(&collector, 2);
    assert_eq!(requests[0].line, "POST /v1/traces HTTP/1.1");
    assert_eq!(requests[0].header("content-type"), Some("application/x-protobuf"));
    assert_eq!(requests[0].header("api-key"), Some("c4n4ry"));
    let request = proto::Request::decode(&*requests[0].body).unwrap();
    let resource = request.resource_spans[0].resource.clone().unwrap();
    assert_eq!(attributes(&resource.attributes)["service.name"], "gate");

    let of_kind = |kind| all.iter().find(|span| span.kind == kind).expect("a span of each kind");
    let (server, client) = (of_kind(SERVER), of_kind(CLIENT));
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    for span in [server, client] {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert!(span.start > 1_700_000_000_000_000_000 && span.start <= span.end);
        assert_eq!(span.status, None);
    }
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(client.parent_span_id, server.span_id);
    assert!(server.start <= client.start && client.end <= server.end);
    assert_eq!((server.flags, client.flags), (0x301, 0x101), "the parent of one is remote");
    assert_eq!(hex(&client.span_id), parent(&upstream.take_one()).parent_id.to_string());

    assert_eq!((server.name.as_str(), client.name.as_str()), ("POST /webhook", "POST"));
    let about = attributes(&server.attributes);
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/webhook"),
        ("http.response.status_code", "200"),
        ("hookgate.outcome", "forwarded"),
        ("hookgate.hook", "default"),
        ("hookgate.provider", "github"),
        ("hookgate.event", "push"),
    ] {
        assert_eq!(about.get(name).map(String::as_str), Some(value), "{name}");
    }
    let about = attributes(&client.attributes);
    assert_eq!(about["server.address"], "127.0.0.1");
    assert_eq!(upstream.url(), format!("http://127.0.0.1:{}", about["server.port"]));
    assert_eq!(about["http.response.status_code"], "200");
    until("they are counted", || (counted(&gate, "exported") == 2.0).then_some(()));
    assert!(!gate.log().contains("c4n4ry"));
}

#[test]
fn no_secret_is_in_a_span() {
    let (upstream, collector) = (Upstream::start(), Upstream::start());
    let setup = exporting(
        &format!("{NO_SPOOL}[upstream]\nurl = \"{}/{UPSTREAM_KEY}\"", upstream.url()),
        &collector.url(),
    );
    let gate = setup.start();
    let stray = "CanaryStray6Tg3Yh8Uj1Ik5Ol2Pm7Qz4";
    let signature = push().value("X-Hub-Signature-256").expect("it is signed").to_owned();
    let requests = [
        push().to(&format!("/webhook/{KEY}")),
        push().to(&format!("/webhook/{stray}")),
        push().to(&format!("/{stray}/{KEY}?token={stray}")),
        push().header("X-Gitlab-Token", stray).header("tracestate", &format!("a={stray}")),
        Request::new(stray, "/webhook"),
    ];
    for request in &requests {
        gate.ask(request);
    }
    let (requests, all) = collect(&collector, 6);
    assert_eq!(all.iter().filter(|span| span.kind == CLIENT).count(), 1);
    assert_eq!(upstream.count(), 1);
    let signature = signature.trim_start_matches("sha256=");
    for body in requests.iter().map(Received::text) {
        for secret in [KEY, stray, UPSTREAM_KEY, signature] {
            assert!(!body.contains(secret), "{secret}");
        }
    }
}

#[test]
fn a_stranger_does_not_decide_that_his_requests_are_recorded() {
    let (upstream, collector) = (Upstream::start(), Upstream::start());
    let parts = format!("{NO_SPOOL}[tracing]\nsample = 0.0");
    let gate = exporting(&parts, &collector.url()).upstream(&upstream).start();
    for _ in 0..20 {
        let forged = push().with("X-Hub-Signature-256", &format!("sha256={:064x}", 7));
        let forged = forged.header("traceparent", PARENT);
        assert_eq!(gate.ask(&forged).told(), (401, "unauthorized"));
    }
    gate.ask(&push());
    gate.ask(&push().header("traceparent", PARENT));
    let (_, all) = collect(&collector, 2);
    assert!(all.iter().all(|span| {
        attributes(&span.attributes)
            .get("http.response.status_code")
            .is_some_and(|status| status == "200")
    }));
    assert_eq!(gate.stop().code, Some(0));
    assert!(collector.take().is_empty(), "nothing came after that");
}

#[test]
fn of_a_flood_of_strangers_few_are_recorded() {
    let collector = Upstream::start();
    let gate = exporting(NO_SPOOL, &collector.url()).start();
    let mut client = gate.connect();
    let sent = 200;
    for _ in 0..sent {
        client.ask(Request::new("GET", "/nowhere").bytes());
    }
    until("what is left out is counted", || {
        let (exported, left_out) = (counted(&gate, "exported"), counted(&gate, "rate-limited"));
        (exported + left_out == f64::from(sent)).then_some(())
    });
    assert!(counted(&gate, "exported") >= 10.0 && counted(&gate, "rate-limited") > 0.0);
}

#[test]
fn a_collector_that_is_down_costs_no_delivery_and_what_is_lost_is_counted() {
    let (upstream, down) = (Upstream::start(), Down::new());
    let gate = exporting(NO_SPOOL, &down.url())
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "1")
        .upstream(&upstream)
        .start();
    for _ in 0..20 {
        assert_eq!(gate.ask(&push()).told(), (200, "forwarded"));
    }
    until("the log says so", || gate.log().contains("does not take spans").then_some(()));
    for _ in 0..20 {
        assert_eq!(gate.ask(&push()).told(), (200, "forwarded"));
    }
    assert_eq!(upstream.count(), 40);
    assert!(counted(&gate, "queue-full") > 0.0);
    assert_eq!(counted(&gate, "exported"), 0.0);
    let finished = gate.stop();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(finished.stderr.matches("does not take spans").count(), 1);
}

#[test]
fn what_the_collector_refuses_is_given_up_and_what_it_puts_off_is_sent_again() {
    let (upstream, collector) = (Upstream::start(), Upstream::start());
    let gate = exporting(NO_SPOOL, &collector.url()).upstream(&upstream).start();
    collector.next(Reply::Answer(400, &[], ""));
    gate.ask(&push());
    until("spans are given up", || (counted(&gate, "export-failed") > 0.0).then_some(()));
    until("all are accounted for", || {
        (counted(&gate, "export-failed") + counted(&gate, "exported") == 2.0).then_some(())
    });
    drop(collector.take());
    collector.next(Reply::Answer(503, &[("retry-after", "1")], ""));
    gate.ask(&change(1, 1, 2));
    let mut requests = Vec::new();
    until("the second attempt", || {
        requests.extend(collector.take());
        (requests.len() >= 2).then_some(())
    });
    assert_eq!(requests[0].body.len(), requests[1].body.len());
    assert!(requests[1].at - requests[0].at >= std::time::Duration::from_millis(900));
    assert_eq!(spans(&requests[0])[0].span_id, spans(&requests[1])[0].span_id);
    gate.says("the collector takes spans again");
}

#[test]
fn what_waits_when_the_gate_stops_is_sent() {
    let (upstream, collector) = (Upstream::start(), Upstream::start());
    let gate = exporting(NO_SPOOL, &collector.url())
        .env("OTEL_BSP_SCHEDULE_DELAY", "600000")
        .upstream(&upstream)
        .start();
    gate.ask(&push());
    assert_eq!(collector.count(), 0);
    assert_eq!(gate.stop().code, Some(0));
    assert_eq!(collect(&collector, 2).0.len(), 1);
}

#[test]
fn attempts_of_the_spool_are_children_of_the_request_that_brought_the_delivery() {
    let (upstream, collector) = (Upstream::start(), Upstream::start());
    upstream.next(Reply::Answer(503, &[], ""));
    let gate = exporting("", &collector.url()).upstream(&upstream).start();
    let request = change(1, 1, 2).header("traceparent", PARENT);
    assert_eq!(gate.ask(&request).told(), (202, "queued"));
    let (_, all) = collect(&collector, 3);
    let server = all.iter().find(|span| span.kind == SERVER).expect("the request");
    let calls: Vec<_> = all.iter().filter(|span| span.kind == CLIENT).collect();
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| call.parent_span_id == server.span_id));
    let failed: Vec<_> = calls.iter().filter_map(|call| call.status.as_ref()).collect();
    assert_eq!((failed.len(), failed[0].code), (1, 2), "the first was not taken");
}

#[test]
fn check_tells_where_spans_go_and_not_with_what_headers() {
    let check = |endpoint: &str| {
        Setup::bare(&["check", "--state-dir", "state"])
            .config(&format!("[tracing]\nendpoint = \"{endpoint}\"\n"))
            .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=c4n4ry")
            .run()
    };
    let finished = check("http://collector.example:4318/c4n4ry");
    let line = finished.stdout.lines().find(|line| line.starts_with("spans")).expect("a line");
    assert!(line.ends_with(" http://collector.example:4318"), "{line}");
    assert!(!finished.stdout.contains("c4n4ry") && !finished.stderr.contains("c4n4ry"));
    let finished = check("ftp://collector.example");
    assert_ne!(finished.code, Some(0));
    assert!(finished.stderr.contains("hookgate.toml:2:12"), "{}", finished.stderr);
}

#[test]
fn an_environment_that_cannot_be_used_is_told_at_the_start() {
    let finished = exporting(NO_SPOOL, "http://127.0.0.1:4318")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .run();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{}", finished.stderr);
    assert!(finished.stderr.contains("http/protobuf"), "{}", finished.stderr);
}
