//! One record a request: who came, with what, and what became of it.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;

use super::request_id::RequestId;
use super::text::printable;
use super::trace::Trace;
use crate::outcome::Outcome;
use crate::provider::Provider;

/// The target of audit records, at level `INFO`.
///
/// `--log info,hookgate::audit=off` leaves them out, `--log off,hookgate::audit=info` leaves
/// nothing else.
pub const AUDIT_TARGET: &str = "hookgate::audit";

/// What an audit record says of one request.
///
/// The message is always the same; the data is in fields, and a field without a value is not
/// printed. Texts of the sender are shown by [`printable`].
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Our own id of the request. `request.id`
    pub request_id: RequestId,
    /// The trace that it belongs to, which the sender may have chosen, and its span there. `trace_id`, `span_id`
    pub trace: Trace,
    /// Where the request came from. `client.addr`
    pub source: Option<IpAddr>,
    /// The hook's name. `hook.name`
    pub hook: Option<&'a str>,
    /// Whose format the delivery has. `delivery.provider`
    pub provider: Option<Provider>,
    /// The event's name as the host gave it. `delivery.event`
    pub event: Option<&'a str>,
    /// The repository's address. `delivery.repository`
    pub repository: Option<&'a str>,
    /// The host's id of the delivery. `delivery.id`
    pub delivery: Option<&'a str>,
    /// The *name* of the key that the delivery was proved with. `key.name`
    pub key: Option<&'a str>,
    /// What became of it. `outcome`
    pub outcome: Outcome,
    /// Why: the rule, the reason of the refusal, the kind of the failure. `reason`
    pub reason: Option<&'a str>,
    /// The status of our answer. `response.status`
    pub status: StatusCode,
    /// Bytes of the request's body that were read. `request.bytes`
    pub bytes: u64,
    /// From the request's head to our answer's. `duration.total_ms`, milliseconds
    pub duration: Duration,
    /// How long upstream took, every attempt together. `duration.upstream_ms`, milliseconds
    pub upstream_duration: Option<Duration>,
}

impl Record<'_> {
    /// Writes the record to the log. Costs next to nothing where the filter leaves it out.
    pub fn emit(&self) {
        // The fields are evaluated only if the record is wanted.
        tracing::info!(
            target: AUDIT_TARGET,
            {
                request.id = %self.request_id,
                trace_id = %self.trace.trace_id(),
                span_id = %self.trace.span_id(),
                client.addr = self.source.map(|source| tracing::field::display(source.to_canonical())),
                hook.name = self.hook.map(printable).as_deref(),
                delivery.provider = self.provider.map(Provider::as_str),
                delivery.event = self.event.map(printable).as_deref(),
                delivery.repository = self.repository.map(printable).as_deref(),
                delivery.id = self.delivery.map(printable).as_deref(),
                key.name = self.key.map(printable).as_deref(),
                outcome = self.outcome.as_str(),
                reason = self.reason.map(printable).as_deref(),
                response.status = self.status.as_u16(),
                request.bytes = self.bytes,
                duration.total_ms = milliseconds(self.duration),
                duration.upstream_ms = self.upstream_duration.map(milliseconds)
            },
            "Request answered"
        );
    }
}

/// With microseconds behind the point and no more.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::log::tests::{captured, captured_json};
    use super::super::{LogFormat, RequestIds, Sampling};
    use super::*;

    fn refused() -> Record<'static> {
        Record {
            request_id: RequestIds::new().next(),
            trace: Trace::root(Sampling::ALL),
            source: None,
            hook: None,
            provider: None,
            event: None,
            repository: None,
            delivery: None,
            key: None,
            outcome: Outcome::NotFound,
            reason: None,
            status: StatusCode::NOT_FOUND,
            bytes: 0,
            duration: Duration::from_micros(1234),
            upstream_duration: None,
        }
    }

    fn forwarded() -> Record<'static> {
        Record {
            source: Some(IpAddr::V6(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped())),
            hook: Some("default"),
            provider: Some(Provider::Github),
            event: Some("push"),
            repository: Some("github.com/acme/widgets"),
            delivery: Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            key: Some("2026-11"),
            outcome: Outcome::Forwarded,
            reason: Some("rule"),
            status: StatusCode::OK,
            bytes: 8192,
            upstream_duration: Some(Duration::from_millis(250)),
            ..refused()
        }
    }

    #[test]
    fn a_record_is_one_line_of_json_with_every_field() {
        let record = forwarded();
        let lines = captured_json("info", || record.emit());
        let [line] = &lines[..] else { panic!("{lines:?}") };
        let expected = serde_json::json!({
            "level": "INFO", "target": "hookgate::audit", "message": "Request answered",
            "request.id": record.request_id.to_string(), "client.addr": "192.0.2.7",
            "trace_id": record.trace.trace_id().to_string(),
            "span_id": record.trace.span_id().to_string(),
            "hook.name": "default", "delivery.provider": "github", "delivery.event": "push",
            "delivery.repository": "github.com/acme/widgets",
            "delivery.id": "72d3162e-cc78-11e3-81ab-4c9367dc0958", "key.name": "2026-11",
            "outcome": "forwarded", "reason": "rule", "response.status": 200,
            "request.bytes": 8192, "duration.total_ms": 1.234, "duration.upstream_ms": 250.0,
        });
        let mut line = line.clone();
        assert!(line.as_object_mut().unwrap().remove("timestamp").is_some());
        assert_eq!(line, expected);
    }

    #[test]
    fn a_field_without_a_value_is_not_printed() {
        let lines = captured_json("info", || refused().emit());
        let mut names: Vec<_> = lines[0].as_object().unwrap().keys().collect();
        names.sort_unstable();
        let expected = [
            "duration.total_ms",
            "level",
            "message",
            "outcome",
            "request.bytes",
            "request.id",
            "response.status",
            "span_id",
            "target",
            "timestamp",
            "trace_id",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_sender_can_neither_forge_a_line_nor_write_to_the_terminal() {
        let hostile = "push\n{\"outcome\":\"forwarded\"}\r\u{1b}]0;owned\u{7}\u{202e}";
        let record = Record {
            event: Some(hostile),
            repository: Some(hostile),
            delivery: Some(hostile),
            ..refused()
        };
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = captured(format, "info", || record.emit());
            assert_eq!(text.lines().count(), 1, "{text}");
            let controls: Vec<_> = text.trim_end().chars().filter(|c| c.is_control()).collect();
            assert!(controls.is_empty() && !text.contains('\u{202e}'), "{text:?}");
        }
        let line = captured_json("info", || record.emit()).remove(0);
        let shown = r#"push\n{"outcome":"forwarded"}\r\u{1b}]0;owned\u{7}\u{202e}"#;
        assert_eq!(line["delivery.event"], shown);
        assert_eq!(line["outcome"], "not-found");
    }

    #[test]
    fn a_long_text_of_a_sender_is_cut() {
        let long = "x".repeat(100_000);
        let record = Record { delivery: Some(&long), event: Some(&long), ..refused() };
        let text = captured(LogFormat::Json, "info", || record.emit());
        assert!(text.len() < 1000, "{} bytes", text.len());
    }

    #[test]
    fn the_target_routes_records_apart_from_other_lines() {
        let both = || {
            refused().emit();
            tracing::info!("Something else");
        };
        let only_audit = captured(LogFormat::Text, "off,hookgate::audit=info", both);
        assert!(only_audit.contains("Request answered") && !only_audit.contains("Something else"));
        let no_audit = captured(LogFormat::Text, "info,hookgate::audit=off", both);
        assert!(!no_audit.contains("Request answered") && no_audit.contains("Something else"));
    }
}
