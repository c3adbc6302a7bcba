//! Sending one delivery: the request that upstream gets, or the line that is printed.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::header::HeaderName;
use http::uri::PathAndQuery;
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::Answer;
use super::outgoing::Outgoing;
use crate::clock::{Clock, SystemClock};
use crate::event::{ParseOptions, blank_secrets};
use crate::key::Use;
use crate::keystore::KeyStore;
use crate::outcome::Outcome;
use crate::proxy::telemetry::{HookMetrics, Span, SpanKind, Trace, Tracing};
use crate::proxy::upstream::{
    ForwardHeaders, PathTemplate, Upstream, UpstreamAnswer, UpstreamBody, UpstreamFailure,
    UpstreamRequest, Values, Variable, rebuild_headers, sign,
};

/// Where the deliveries of a hook go, and how.
#[derive(Debug)]
pub struct Sender {
    /// The service; without one, deliveries are printed.
    pub target: Option<Target>,
    /// What tells events apart that no host defines, to read again what was stored.
    pub parse_options: ParseOptions,
    /// The hook's metrics.
    pub metrics: Arc<HookMetrics>,
    /// Whether the service is told of the trace, and who is told of the call.
    pub tracing: Tracing,
}

/// A service and how it wants its deliveries.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service.
    pub upstream: Upstream,
    /// The path below the service's own.
    pub path: TargetPath,
    /// The body that it gets.
    pub body: UpstreamBody,
    /// Headers that go on beside the usual ones.
    pub forward_headers: ForwardHeaders,
    /// The signature header of the generic provider, which is none to go by its name.
    pub generic_header: Option<HeaderName>,
    /// Whether deliveries of Azure DevOps get the header by which Git Integration for Jira knows them.
    pub mark_azure_devops: bool,
    /// Signing tokens with which each call is signed.
    pub signing_keys: Option<KeyStore>,
}

/// The path of a call.
#[derive(Clone, Debug)]
pub enum TargetPath {
    /// Always this one.
    Fixed(PathAndQuery),
    /// Made for each delivery, and the store of the key that may stand in it.
    Template(PathTemplate, Option<KeyStore>),
}

impl Target {
    /// A service that gets every delivery at `path`, with the original body and nothing beside the usual
    /// headers.
    pub fn new(upstream: Upstream, path: PathAndQuery) -> Self {
        Self {
            upstream,
            path: TargetPath::Fixed(path),
            body: UpstreamBody::Original,
            forward_headers: ForwardHeaders::default(),
            generic_header: None,
            mark_azure_devops: false,
            signing_keys: None,
        }
    }
}

static AZURE_MARK: HeaderName = HeaderName::from_static("x-gij-microsoft-event");

impl Sender {
    /// Sends or prints a delivery, and says what became of it.
    pub(super) async fn deliver(&self, outgoing: &Outgoing) -> Answer {
        let Some(target) = &self.target else { return print(outgoing).await };
        let refs: Vec<&str> = outgoing.refs().collect();
        let by_ref = matches!(
            &target.path,
            TargetPath::Template(template, _) if template.needs(Variable::Ref)
        );
        if !by_ref || refs.len() < 2 {
            // With several refs, none of them would be the whole truth.
            let only = <[&str; 1]>::try_from(refs).ok().map(|[only]| only);
            return self.call(target, outgoing, only).await;
        }
        // A path that names the ref has to be called for each.
        let mut last = Answer::new(Outcome::Forwarded);
        for git_ref in refs {
            last = self.call(target, outgoing, Some(git_ref)).await;
            if !last.is_success() {
                break;
            }
        }
        last
    }

    async fn call(&self, target: &Target, outgoing: &Outgoing, git_ref: Option<&str>) -> Answer {
        let id = outgoing.id();
        let mut request = match request(target, outgoing, &id, git_ref) {
            Ok(request) => request,
            Err(refused) => {
                let reason = refused.reason.as_deref();
                tracing::error!(delivery = %id, reason, "delivery cannot be sent");
                return *refused;
            }
        };
        let trace = outgoing.trace.child();
        if self.tracing.propagate {
            trace.write(outgoing.trace_state.as_ref(), &mut request.headers);
        }
        let began = Instant::now();
        let result = target.upstream.send(request).await;
        self.record_call(target, trace, began, &result);
        let (trace_id, span_id) = (trace.trace_id(), trace.span_id());
        match result {
            Ok(answer) => {
                self.metrics.upstream_call(answer.elapsed, answer.attempts);
                if !answer.status.is_success() {
                    self.metrics.upstream_failure(status_class(answer.status));
                    let status = answer.status.as_u16();
                    tracing::warn!(delivery = %id, %trace_id, %span_id, status, "upstream did not take the delivery");
                }
                Answer::of_answer(answer)
            }
            Err(failure) => {
                self.metrics.upstream_call(failure.elapsed(), failure.attempts());
                self.metrics.upstream_failure(failure.kind().as_str());
                let cause = std::error::Error::source(&failure).map(ToString::to_string);
                tracing::warn!(delivery = %id, %trace_id, %span_id, %failure, cause, "delivery did not reach upstream");
                Answer::of_failure(&failure)
            }
        }
    }

    /// Names are those of OpenTelemetry's semantic conventions for HTTP. The path is not told: it can hold a key.
    fn record_call(
        &self,
        target: &Target,
        trace: Trace,
        began: Instant,
        result: &Result<UpstreamAnswer, UpstreamFailure>,
    ) {
        // What is sent is authentic.
        if !self.tracing.spans.wants(&trace, true) {
            return;
        }
        let mut span = Span::new(trace, SpanKind::Client, "POST", began);
        span.text("http.request.method", "POST");
        let (host, port) = target.upstream.config().address();
        span.text("server.address", host.to_owned());
        span.number("server.port", port.into());
        let attempts = match result {
            Ok(answer) => {
                span.number("http.response.status_code", answer.status.as_u16().into());
                if answer.status.is_client_error() || answer.status.is_server_error() {
                    span.text("error.type", answer.status.as_str().to_owned());
                    span.is_error = true;
                }
                answer.attempts
            }
            Err(failure) => {
                span.text("error.type", failure.kind().as_str());
                span.is_error = true;
                failure.attempts()
            }
        };
        if attempts > 1 {
            span.number("http.request.resend_count", (attempts - 1).into());
        }
        self.tracing.spans.record(span);
    }
}

/// The request as upstream gets it. It may hold upstream's key, so it is made for each attempt and
/// kept nowhere.
pub(super) fn request(
    target: &Target,
    outgoing: &Outgoing,
    id: &str,
    git_ref: Option<&str>,
) -> Result<UpstreamRequest, Box<Answer>> {
    let now = SystemClock.now();
    let delivery = &outgoing.delivery;
    // A reindex of everything names no repository, whatever body the service wants.
    let wanted = if outgoing.is_everything() { UpstreamBody::Json } else { target.body };
    let content = wanted
        .content(delivery, &outgoing.method, outgoing.body.clone())
        .map_err(|error| Box::new(Answer::refused(error.to_string())))?;
    let mut headers = rebuild_headers(&outgoing.headers, &target.forward_headers);
    let generic = target.generic_header.as_ref();
    let body = content.into_body(&mut headers, &target.forward_headers, generic);
    if target.mark_azure_devops && delivery.provider() == crate::provider::Provider::AzureDevops {
        headers.insert(&AZURE_MARK, http::HeaderValue::from_static("1"));
    }
    outgoing.describe(git_ref, &mut headers);
    let path_and_query = match &target.path {
        TargetPath::Fixed(path) => path.clone(),
        TargetPath::Template(template, keys) => {
            let ring = keys.as_ref().map(KeyStore::load);
            let key = ring.as_ref().and_then(|ring| ring.primary(Use::Url, now));
            let mut values = Values::new(delivery.provider(), delivery.event());
            values = values.upstream_key(key.map(|key| key.secret()));
            if let Some(git_ref) = git_ref {
                values = values.git_ref(git_ref);
            }
            let rendered = template.render(&values);
            rendered.map_err(|error| Box::new(Answer::refused(error.to_string())))?.into_inner()
        }
    };
    if let Some(keys) = &target.signing_keys {
        sign(&mut headers, &keys.load(), id, &body, now)
            .map_err(|error| Box::new(Answer::failed(error.to_string())))?;
    }
    Ok(UpstreamRequest { path_and_query, headers, body, delivery: id.into() })
}

/// The label of an answer that is none of success; few, whatever upstream answers.
fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        429 => "429",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other-status",
    }
}

/// A delivery as a line of JSON.
#[derive(Serialize)]
struct Printed<'a> {
    delivery: &'a str,
    provider: &'static str,
    event: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refs: Vec<&'a str>,
    key: Option<&'a str>,
    payload: &'a RawValue,
}

async fn print(outgoing: &Outgoing) -> Answer {
    const REASON: &str = "delivery cannot be printed";
    let Some(mut line) = line(outgoing) else { return Answer::refused(REASON) };
    line.push(b'\n');
    // Whoever reads our output may be slow; others go on meanwhile.
    let written = tokio::task::spawn_blocking(move || {
        let mut out = std::io::stdout().lock();
        out.write_all(&line).and_then(|()| out.flush())
    });
    match written.await {
        Ok(Ok(())) => Answer::new(Outcome::Printed),
        Ok(Err(error)) => {
            tracing::error!(%error, "delivery cannot be printed");
            Answer::failed(REASON)
        }
        Err(_) => Answer::failed(REASON),
    }
}

fn line(outgoing: &Outgoing) -> Option<Vec<u8>> {
    let delivery = &outgoing.delivery;
    let mut payload = blank_secrets(delivery.provider(), delivery.payload()).into_owned();
    // In JSON a line break is never part of a string.
    for byte in &mut payload {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    let payload = RawValue::from_string(String::from_utf8(payload).ok()?).ok()?;
    serde_json::to_vec(&Printed {
        delivery: &outgoing.id(),
        provider: delivery.provider().as_str(),
        event: delivery.event().map(|event| event.kind.as_str()),
        repository: outgoing.repository(),
        refs: outgoing.refs().collect(),
        key: outgoing.key_name(),
        payload: &payload,
    })
    .ok()
}
