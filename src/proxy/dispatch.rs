//! What happens to a delivery that passed the gate: it is sent upstream, or printed.
//!
//! The request is made anew from its parts; of what came in, only the verified body and the headers of
//! an allow-list go on ([`upstream`](super::upstream)). Secrets that some hosts repeat in the body are
//! blanked. The host hears what became of it:
//!
//! | upstream | the host hears |
//! |---|---|
//! | 2xx | 200 `forwarded`, with upstream's body and media type |
//! | 3xx, 4xx, 5xx, no connection, an answer that breaks off | 502 `upstream-failed` |
//! | no answer in time | 504 `upstream-failed` |
//! | none is configured | 202 `printed` |

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::value::RawValue;
use tower_service::Service;

use super::telemetry::{HookMetrics, RequestId};
use super::tls::Transport;
use super::upstream::{
    ForwardHeaders, Forwarding, Stamp, Upstream, UpstreamAnswer, UpstreamFailure, UpstreamRequest,
    is_signature, rebuild_headers,
};
use crate::delivery::Delivery;
use crate::event::blank_secrets;
use crate::gate::GateBody;
use crate::outcome::{OUTCOME_HEADER, Outcome};
use crate::source::Source;

/// Sends deliveries of one hook where they belong. Always ready; clones are the same.
#[derive(Clone, Debug)]
pub struct Dispatch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Option<Target>,
    metrics: Arc<HookMetrics>,
}

/// Where deliveries go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service.
    pub upstream: Upstream,
    /// The path below the service's own.
    pub path: PathAndQuery,
    /// Headers that go on beside the usual ones.
    pub forward_headers: ForwardHeaders,
    /// The signature header of the generic provider, which is none to go by its name.
    pub generic_header: Option<HeaderName>,
}

/// What became of a delivery; an extension of the answer.
#[derive(Clone, Debug)]
pub struct Dispatched {
    /// The delivery.
    pub delivery: Delivery,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, if it went wrong.
    pub reason: Option<Cow<'static, str>>,
    /// How long upstream took, every attempt together.
    pub upstream_duration: Option<Duration>,
    /// The size of the body that came in.
    pub bytes: u64,
}

impl Dispatch {
    /// Sends to `target`, or prints where there is none.
    pub fn new(target: Option<Target>, metrics: Arc<HookMetrics>) -> Self {
        Self(Arc::new(Inner { target, metrics }))
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<B> Service<Request<GateBody<B>>> for Dispatch {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<GateBody<B>>) -> Self::Future {
        let inner = self.0.clone();
        let (mut parts, body) = request.into_parts();
        // The gate puts the one in, and never streams a body in the sidecar.
        let delivery = parts.extensions.remove::<Delivery>();
        let body = body.bytes().cloned().unwrap_or_default();
        Box::pin(async move {
            let Some(delivery) = delivery else {
                tracing::error!("request without a delivery behind the gate");
                return Ok(Answer::failed("request without a delivery").into_response(None));
            };
            let bytes = body.len() as u64;
            let answer = match &inner.target {
                Some(target) => send(target, &parts, &delivery, body, &inner.metrics).await,
                None => print(&parts, &delivery).await,
            };
            Ok(answer.into_response(Some((delivery, bytes))))
        })
    }
}

/// What the host is told.
struct Answer {
    outcome: Outcome,
    status: StatusCode,
    reason: Option<Cow<'static, str>>,
    upstream_duration: Option<Duration>,
    /// In place of our own body.
    body: Option<(Bytes, Option<HeaderValue>)>,
}

impl Answer {
    fn new(outcome: Outcome) -> Self {
        let status = outcome.status();
        Self { outcome, status, reason: None, upstream_duration: None, body: None }
    }

    fn failed(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(Outcome::UpstreamFailed) }
    }

    fn of_answer(answer: UpstreamAnswer) -> Self {
        let upstream_duration = Some(answer.elapsed);
        if answer.status.is_success() {
            let body = Some((answer.body, answer.content_type));
            Self { upstream_duration, body, ..Self::new(Outcome::Forwarded) }
        } else {
            let reason = format!("upstream answered {}", answer.status.as_u16());
            Self { upstream_duration, ..Self::failed(reason) }
        }
    }

    fn of_failure(failure: &UpstreamFailure) -> Self {
        let status =
            if failure.is_late() { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
        let upstream_duration = Some(failure.elapsed());
        Self { status, upstream_duration, ..Self::failed(failure.to_string()) }
    }

    fn into_response(self, delivery: Option<(Delivery, u64)>) -> Response<Full<Bytes>> {
        let own = || {
            let id = delivery.as_ref().and_then(|(delivery, _)| delivery.id());
            if self.status.is_success() {
                // An id needs no escape: the delivery has none that would.
                let id = id.map(|id| format!(",\"delivery\":\"{id}\"")).unwrap_or_default();
                let json = format!("{{\"outcome\":\"{}\"{id}}}", self.outcome);
                (Bytes::from(json), Some(HeaderValue::from_static("application/json")))
            } else {
                let title = self.status.canonical_reason().unwrap_or_default();
                let status = self.status.as_u16();
                let problem = format!(
                    "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\
                     \"outcome\":\"{}\"}}",
                    self.outcome
                );
                (problem.into(), Some(HeaderValue::from_static("application/problem+json")))
            }
        };
        let (body, content_type) = self.body.clone().unwrap_or_else(own);
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(OUTCOME_HEADER, HeaderValue::from_static(self.outcome.as_str()));
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        if self.outcome == Outcome::UpstreamFailed {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Some((delivery, bytes)) = delivery {
            let Self { outcome, reason, upstream_duration, .. } = self;
            response.extensions_mut().insert(Dispatched {
                delivery,
                outcome,
                reason,
                upstream_duration,
                bytes,
            });
        }
        response
    }
}

async fn send(
    target: &Target,
    parts: &Parts,
    delivery: &Delivery,
    body: Bytes,
    metrics: &HookMetrics,
) -> Answer {
    let mut headers = rebuild_headers(&parts.headers, &target.forward_headers);
    let body = match blank_secrets(delivery.provider(), delivery.payload()) {
        // A form goes on as the form that it is, and is still what was signed.
        Cow::Borrowed(_) if parts.method != Method::GET => body,
        // Gitea can put the payload into the query; a service gets it as it gets all others.
        rewritten => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            for name in target.forward_headers.iter() {
                // What was signed is not what is sent.
                if is_signature(name) || target.generic_header.as_ref() == Some(name) {
                    headers.remove(name);
                }
            }
            rewritten.into_owned().into()
        }
    };
    let id = delivery_id(parts, delivery);
    describe(parts, delivery, &id, &mut headers);
    let request = UpstreamRequest {
        path_and_query: target.path.clone(),
        headers,
        body,
        delivery: id.as_ref().into(),
    };
    match target.upstream.send(request).await {
        Ok(answer) => {
            metrics.upstream_call(answer.elapsed, answer.attempts);
            if !answer.status.is_success() {
                metrics.upstream_failure(status_class(answer.status));
            }
            Answer::of_answer(answer)
        }
        Err(failure) => {
            metrics.upstream_call(failure.elapsed(), failure.attempts());
            metrics.upstream_failure(failure.kind().as_str());
            let cause = std::error::Error::source(&failure).map(ToString::to_string);
            tracing::warn!(delivery = %id, %failure, cause, "delivery did not reach upstream");
            Answer::of_failure(&failure)
        }
    }
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

/// The host's id, or that of the request where the host gives none.
fn delivery_id<'a>(parts: &Parts, delivery: &'a Delivery) -> Cow<'a, str> {
    match (delivery.id(), parts.extensions.get::<RequestId>()) {
        (Some(id), _) => id.into(),
        (None, Some(id)) => id.to_string().into(),
        (None, None) => "".into(),
    }
}

/// Says who came and what the gate found.
fn describe(parts: &Parts, delivery: &Delivery, id: &str, headers: &mut HeaderMap) {
    if let Some(source) = parts.extensions.get::<Source>() {
        let tls = parts.extensions.get::<Transport>() == Some(&Transport::Tls);
        let host = parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
        Forwarding { client: source.0, tls, host }.write(headers);
    }
    let event = delivery.event();
    Stamp {
        provider: delivery.provider(),
        event: event.map(|event| event.kind.as_str()),
        repository: event.and_then(|event| event.repository.as_ref()).map(|it| it.identity()),
        // With several refs, none of them would be the whole truth.
        git_ref: match event.map(|event| &event.refs[..]) {
            Some([change]) => Some(&change.name),
            _ => None,
        },
        delivery: Some(id).filter(|id| !id.is_empty()),
        key: delivery.key_name(),
    }
    .write(headers);
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

async fn print(parts: &Parts, delivery: &Delivery) -> Answer {
    let id = delivery_id(parts, delivery);
    let Some(mut line) = line(delivery, &id) else {
        return Answer::failed("delivery cannot be printed");
    };
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
            Answer::failed("delivery cannot be printed")
        }
        Err(_) => Answer::failed("delivery cannot be printed"),
    }
}

fn line(delivery: &Delivery, id: &str) -> Option<Vec<u8>> {
    let mut payload = blank_secrets(delivery.provider(), delivery.payload()).into_owned();
    // In JSON a line break is never part of a string.
    for byte in &mut payload {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    let payload = RawValue::from_string(String::from_utf8(payload).ok()?).ok()?;
    let event = delivery.event();
    serde_json::to_vec(&Printed {
        delivery: id,
        provider: delivery.provider().as_str(),
        event: event.map(|event| event.kind.as_str()),
        repository: event.and_then(|event| event.repository.as_ref()).map(|it| it.identity()),
        refs: event.iter().flat_map(|event| &event.refs).map(|change| &*change.name).collect(),
        key: delivery.key_name(),
        payload: &payload,
    })
    .ok()
}
