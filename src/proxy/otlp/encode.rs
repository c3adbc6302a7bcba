//! `ExportTraceServiceRequest`, as
//! [opentelemetry-proto](https://github.com/open-telemetry/opentelemetry-proto/blob/v1.7.0/opentelemetry/proto/trace/v1/trace.proto)
//! 1.7 defines it, in [protobuf's binary form](https://protobuf.dev/programming-guides/encoding/): fields of a number, a
//! wire type and a value, in any order, without those that are empty.

use std::time::{Duration, Instant};

use crate::clock::{Clock, SystemClock};
use crate::proxy::telemetry::{Span, SpanKind, Value};

/// A field whose bytes have their length before them.
const LENGTH: u64 = 2;
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const FIXED_32: u64 = 5;

/// `Span.flags`: it is known whether the parent is remote, and it is.
const HAS_IS_REMOTE: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;

/// The `Resource` of this process.
pub(super) fn resource(attributes: &[(String, String)]) -> Vec<u8> {
    let mut out = Message::default();
    for (name, value) in attributes {
        out.attribute(1, name, |any| any.bytes(1, value.as_bytes()));
    }
    out.0
}

/// All of it, for these spans.
pub(super) fn request(resource: &[u8], spans: &[Span], clock: &mut WallClock) -> Vec<u8> {
    clock.set();
    let mut out = Message(Vec::with_capacity(64 + resource.len() + spans.len() * 384));
    // resource_spans
    out.message(1, |out| {
        out.bytes(1, resource);
        // scope_spans
        out.message(2, |out| {
            out.message(1, |scope| {
                scope.bytes(1, env!("CARGO_PKG_NAME").as_bytes());
                scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            for it in spans {
                out.message(2, |out| span(out, it, clock));
            }
        });
    });
    out.0
}

fn span(out: &mut Message, span: &Span, clock: &WallClock) {
    let trace = &span.trace;
    out.bytes(1, &trace.trace_id().to_bytes());
    out.bytes(2, &trace.span_id().to_bytes());
    if let Some(parent) = trace.parent() {
        out.bytes(4, &parent.to_bytes());
    }
    out.bytes(5, span.name.as_bytes());
    out.varint(
        6,
        match span.kind {
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
    );
    out.fixed64(7, clock.nanos(span.began));
    out.fixed64(8, clock.nanos(span.ended));
    for (name, value) in &span.attributes {
        out.attribute(9, name, |any| match value {
            Value::Text(text) => any.bytes(1, text.as_bytes()),
            // As a negative number is written: in two's complement of 64 bits.
            Value::Number(number) => any.varint(3, *number as u64),
        });
    }
    if span.is_error {
        // status.code: error
        out.message(15, |status| status.varint(3, 2));
    }
    let remote = if trace.is_remote() { IS_REMOTE } else { 0 };
    out.fixed32(16, u32::from(trace.flags().bits()) | HAS_IS_REMOTE | remote);
}

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn tag(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn varint(&mut self, field: u64, number: u64) {
        self.tag(field, VARINT);
        self.raw_varint(number);
    }

    fn fixed64(&mut self, field: u64, number: u64) {
        self.tag(field, FIXED_64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, number: u32) {
        self.tag(field, FIXED_32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Also a text.
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, LENGTH);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Its length is known only when it is written.
    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// A `KeyValue`.
    fn attribute(&mut self, field: u64, name: &str, value: impl FnOnce(&mut Self)) {
        self.message(field, |out| {
            out.bytes(1, name.as_bytes());
            out.message(2, value);
        });
    }
}

/// What time it was at an [`Instant`].
///
/// A clock that is set is followed from one batch to the next and not within one: a call must not seem to begin
/// before the request that it is for.
pub(super) struct WallClock {
    instant: Instant,
    /// Since 1970.
    at: Duration,
}

impl WallClock {
    /// What a clock of milliseconds and a bit of drift make for.
    const TOLERANCE: Duration = Duration::from_millis(50);

    pub(super) fn new() -> Self {
        Self { instant: Instant::now(), at: now() }
    }

    fn set(&mut self) {
        let (instant, at) = (Instant::now(), now());
        let expected = self.at + instant.duration_since(self.instant);
        if expected.abs_diff(at) > Self::TOLERANCE {
            *self = Self { instant, at };
        }
    }

    fn nanos(&self, instant: Instant) -> u64 {
        let at = match instant.checked_duration_since(self.instant) {
            Some(after) => self.at + after,
            None => self.at.saturating_sub(self.instant.duration_since(instant)),
        };
        u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn now() -> Duration {
    Duration::from_millis(SystemClock.now().as_millis().try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::proxy::telemetry::{Sampling, TRACEPARENT, Trace};

    fn wall_clock(at: Duration) -> WallClock {
        WallClock { instant: Instant::now(), at }
    }

    /// A span of this trace that began in the year 2027 and took 1.5 ms.
    fn encoded(traceparent: &'static str, fill: impl FnOnce(&mut Span)) -> Vec<u8> {
        let mut headers = http::HeaderMap::new();
        headers.insert(TRACEPARENT, http::HeaderValue::from_static(traceparent));
        let trace = Trace::of_request(&headers, Sampling::ALL);
        let clock = wall_clock(Duration::from_secs(1_800_000_000));
        let mut it = Span::new(trace, SpanKind::Server, "POST /webhook", clock.instant);
        it.ended = it.began + Duration::from_micros(1500);
        fill(&mut it);
        let mut out = Message::default();
        span(&mut out, &it, &clock);
        // The id of the span is the only thing that is chance.
        let id = it.trace.span_id().to_bytes();
        let at = out.0.windows(8).position(|bytes| bytes == id).unwrap();
        out.0[at..at + 8].fill(0x11);
        out.0
    }

    /// What the crate opentelemetry-proto 0.33.1 makes of the same, field by field.
    #[test]
    fn a_span_is_written_as_the_protocol_says() {
        let bytes = encoded("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", |span| {
            span.text("http.request.method", "POST");
            span.number("http.response.status_code", 502);
            span.number("n", -1);
            span.is_error = true;
        });
        let expected = [
            "0a104bf92f3577b34da6a3ce929d0e0e4736",
            "12081111111111111111",
            "220800f067aa0ba902b7",
            "2a0d504f5354202f776562686f6f6b",
            "3002",
            "390000b49376e2fa18",
            "4160e3ca9376e2fa18",
            "4a1d0a13687474702e726571756573742e6d6574686f6412060a04504f5354",
            "4a200a19687474702e726573706f6e73652e7374617475735f636f6465120318f603",
            "4a100a016e120b18ffffffffffffffffff01",
            "7a021802",
            // sampled, and the parent is remote
            "850101030000",
        ];
        assert_eq!(HEXLOWER.encode(&bytes), expected.concat());
        let root = encoded("none", |_| {});
        assert!(!root.windows(2).any(|bytes| bytes == [0x22, 0x08]), "it has no parent");
        assert!(root.ends_with(&[0x85, 0x01, 0x03, 0x01, 0, 0]), "{root:x?}");
    }

    #[test]
    fn spans_stand_below_their_resource_and_scope() {
        let resource = resource(&[("service.name".to_owned(), "hookgate".to_owned())]);
        assert_eq!(
            HEXLOWER.encode(&resource),
            "0a1a0a0c736572766963652e6e616d65120a0a08686f6f6b67617465"
        );
        // The version is five characters long, and the last thing that is written.
        let bytes = request(&resource, &[], &mut WallClock::new());
        let expected = "0a330a1c0a1a0a0c736572766963652e6e616d65120a0a08686f6f6b67617465\
                        12130a110a08686f6f6b676174651205";
        let (head, version) = bytes.split_at(bytes.len() - 5);
        assert_eq!(HEXLOWER.encode(head), expected);
        assert_eq!(version, env!("CARGO_PKG_VERSION").as_bytes());
    }

    #[test]
    fn a_clock_that_was_set_is_followed_and_one_that_jitters_is_not() {
        let mut clock = WallClock::new();
        let before = clock.instant;
        clock.set();
        assert_eq!(clock.instant, before);
        clock.at -= Duration::from_secs(3600);
        clock.set();
        assert_ne!(clock.instant, before);
        assert!(clock.at.abs_diff(now()) < WallClock::TOLERANCE);
        let clock = wall_clock(Duration::from_secs(10));
        assert_eq!(clock.nanos(clock.instant), 10_000_000_000);
        assert_eq!(clock.nanos(clock.instant + Duration::from_millis(1)), 10_001_000_000);
    }
}
