//! What the sidecar tells its operator: metrics, logs, one audit record a request, and what happened lately.
//!
//! # What never gets in here
//!
//! 1. No secret, signature or body: nothing in this module takes one.
//! 2. No text of unbounded length, and no control character: what a sender chose (event,
//!    repository, delivery id) is cut at [`MAX_TEXT`] bytes and escaped before it is written.
//! 3. No metric label that a sender chooses: hooks and key files come from the configuration, all
//!    other labels from enums. An attacker can make counters grow and never their number.
//! 4. No request id of a sender: ids are [made here](RequestIds), so that a line in the log cannot
//!    be forged to belong to another request. The id of a [`Trace`] is another thing: it can be the sender's.
//!
//! Whoever routes the two streams apart filters by the target: audit records have
//! [`AUDIT_TARGET`], all other lines have that of their module.

mod audit;
mod log;
mod metrics;
mod recent;
mod request_id;
mod span;
mod text;
mod trace;

pub use self::audit::{AUDIT_TARGET, Record};
pub use self::log::{LogConfig, LogError, LogErrorKind, LogFormat, LogHandle, init};
pub use self::metrics::{
    ConnectionSample, HookMetrics, KeyringSample, METRICS_CONTENT_TYPE, Metrics, Sample,
    SpoolResult, SpoolSample,
};
pub use self::recent::{KeyUse, KeyUses, MAX_REFUSALS, Refusal, Refusals};
pub use self::request_id::{RequestId, RequestIds};
pub use self::span::{Counts, MAX_REFUSED, Span, SpanKind, Spans, Tracing, Value};
pub use self::text::{MAX_TEXT, printable, printable_lines};
pub use self::trace::{
    Flags, MAX_MEMBERS, MAX_STATE, Sampling, SpanId, TRACEPARENT, TRACESTATE, Trace, TraceId,
    TraceParent, trace_state,
};
