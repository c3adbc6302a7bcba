//! A request's way: its head, its hook, the gate, what lies behind; and the record of all that.
//!
//! From the outside in: request id and trace, the check of the head ([`head`]), who the client is
//! ([`TrustedProxies`]), the hook by path, the gate, the in-flight limit with load shed, [`Dispatch`]. Hooks and
//! proxies are a [`Table`] that is replaced as a whole when the configuration changes: a request goes its whole
//! way through the table with which it began.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower_service::Service;

use super::dispatch::{Dispatch, Dispatched};
use super::head;
use super::telemetry::{
    HookMetrics, KeyUses, Record, Refusals, RequestId, RequestIds, Span, SpanKind, Trace, Tracing,
    printable,
};
use crate::clock::{Clock, SystemClock};
use crate::event::Event;
use crate::gate::{Gate, Rejection, ResponseBody};
use crate::outcome::Outcome;
use crate::provider::Provider;
use crate::source::{Source, TrustedProxies};

/// What stands behind the gate of a hook.
pub(super) type Behind = LoadShed<ConcurrencyLimit<Dispatch>>;

/// One hook, ready to take requests.
pub struct Hook {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Its path, without a final slash.
    pub path: String,
    /// Its gate, and all behind that.
    pub gate: Gate<Behind>,
    /// Its metrics.
    pub metrics: Arc<HookMetrics>,
}

/// What a request finds of one configuration. The default has no hook and believes nobody.
#[derive(Debug, Default)]
pub struct Table {
    /// All hooks.
    pub hooks: Vec<Hook>,
    /// Whose word counts for who the client is.
    pub proxies: TrustedProxies,
}

/// The service that answers every request. Clones are the same.
#[derive(Clone)]
pub struct Stack(Arc<Inner>);

struct Inner {
    table: ArcSwap<Table>,
    tracing: ArcSwap<Tracing>,
    ids: RequestIds,
    /// For requests that reach no hook.
    elsewhere: Arc<HookMetrics>,
    recent: Arc<Recent>,
}

/// What an operator can ask for.
#[derive(Default)]
struct Recent {
    refusals: Refusals,
    key_uses: KeyUses,
}

impl Stack {
    /// With this table. `elsewhere` counts requests that reach none of its hooks.
    pub fn new(table: Table, elsewhere: Arc<HookMetrics>) -> Self {
        let (table, tracing) = (ArcSwap::from_pointee(table), ArcSwap::default());
        let (ids, recent) = (RequestIds::new(), Arc::default());
        Self(Arc::new(Inner { table, tracing, ids, elsewhere, recent }))
    }

    /// Traces requests that begin after this so. At first they are traced for the log alone.
    pub fn trace(&self, tracing: Tracing) {
        self.0.tracing.store(Arc::new(tracing));
    }

    /// What was refused lately.
    pub fn refusals(&self) -> &Refusals {
        &self.0.recent.refusals
    }

    /// How often keys were used.
    pub fn key_uses(&self) -> &KeyUses {
        &self.0.recent.key_uses
    }

    /// Puts another table in force, for requests that begin after this.
    pub fn replace(&self, table: Table) {
        self.0.table.store(Arc::new(table));
    }
}

type Answer = Response<ResponseBody<Full<Bytes>>>;

impl<B> Service<Request<B>> for Stack
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let inner = &self.0;
        let id = inner.ids.next();
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(id);
        let refused = refuse_head(&mut parts);
        let table = inner.table.load();
        let peer = parts.extensions.get::<Source>().copied();
        let source = table.proxies.client(peer, &parts.headers);
        if let Some(source) = source {
            parts.extensions.insert(source);
        }
        let tracing = inner.tracing.load_full();
        let trace = Trace::of_request(&parts.headers, tracing.sampling);
        parts.extensions.insert(trace);
        let method = method_name(&parts.method);
        let request = Request::from_parts(parts, body);
        let (gate, observer) = {
            let hook = table.hooks.iter().find(|hook| hook.takes(request.uri().path()));
            let metrics = hook.map_or(&inner.elsewhere, |hook| &hook.metrics).clone();
            let name = hook.map(|hook| hook.name.clone());
            let path = hook.filter(|_| tracing.spans.are_taken()).map(|hook| hook.path.clone());
            let gate = hook.filter(|_| refused.is_none()).map(|hook| hook.gate.clone());
            let (hook, recent) = (name, inner.recent.clone());
            let observer = Observer {
                id,
                trace,
                tracing,
                source,
                started,
                metrics,
                method,
                hook,
                path,
                recent,
            };
            (gate, observer)
        };
        Box::pin(async move {
            let answer = match (refused, gate) {
                (Some(rejection), _) => rejection.into_response(),
                (None, None) => Rejection::new(Outcome::NotFound, "no such path").into_response(),
                (None, Some(mut gate)) => match gate.call(request).await {
                    Ok(answer) => answer,
                    // The only error behind the gate is that of load shed.
                    Err(_) => {
                        let reason = "too many deliveries in flight";
                        Rejection::new(Outcome::Overloaded, reason).into_response()
                    }
                },
            };
            observer.answered(&answer);
            Ok(answer)
        })
    }
}

impl Hook {
    /// Whether the path is this hook's, or that with one more segment, in which a URL key stands.
    fn takes(&self, path: &str) -> bool {
        path.strip_prefix(&self.path).is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('/').is_some_and(|key| !key.contains('/'))
        })
    }
}

/// A head that can be read in more than one way is refused; what could pass for another header is
/// taken away.
fn refuse_head(parts: &mut Parts) -> Option<Rejection> {
    let checked = head::check(parts);
    head::strip(&mut parts.headers);
    checked.err().map(|error| Rejection::new(Outcome::Malformed, error.to_string()))
}

/// Sees how a request was answered.
struct Observer {
    id: RequestId,
    trace: Trace,
    tracing: Arc<Tracing>,
    source: Option<Source>,
    started: Instant,
    metrics: Arc<HookMetrics>,
    method: &'static str,
    hook: Option<Arc<str>>,
    /// Of the hook, without a key, if a span can tell it.
    path: Option<String>,
    recent: Arc<Recent>,
}

impl Observer {
    fn answered(&self, answer: &Answer) {
        let duration = self.started.elapsed();
        let rejection = answer.extensions().get::<Rejection>();
        let dispatched = answer.extensions().get::<Dispatched>();
        let delivery = dispatched
            .map(|dispatched| &dispatched.delivery)
            .or_else(|| rejection.and_then(Rejection::authentic));
        let provider = delivery
            .map(|delivery| delivery.provider())
            .or_else(|| rejection.and_then(Rejection::provider_claimed));
        // One of the two made the answer.
        let outcome = dispatched
            .map(|dispatched| dispatched.outcome)
            .or_else(|| rejection.map(Rejection::outcome))
            .unwrap_or(Outcome::UpstreamFailed);
        self.metrics.request(provider, outcome, duration);
        let event_name = delivery.and_then(|delivery| delivery.event_name());
        let key = delivery.and_then(|delivery| delivery.key_name());
        let reason = dispatched
            .and_then(|dispatched| dispatched.reason.as_deref())
            .or_else(|| rejection.map(Rejection::reason));
        if let (Some(hook), Some(key)) = (&self.hook, key) {
            self.recent.key_uses.add(SystemClock.now(), hook, key);
        }
        if Refusals::wants(outcome) {
            let (now, source) = (SystemClock.now(), self.source.map(|source| source.0));
            let (hook, reason) = (self.hook.as_ref(), reason.unwrap_or_default());
            self.recent.refusals.add(now, hook, source, provider, outcome, reason);
        }
        let event: Option<&Event<'_>> = delivery.and_then(|delivery| delivery.event());
        if self.tracing.spans.wants(&self.trace, delivery.is_some()) {
            self.record_span(provider, outcome, answer, event_name);
        }
        Record {
            request_id: self.id,
            trace: self.trace,
            source: self.source.map(|source| source.0),
            hook: self.hook.as_deref(),
            provider,
            event: event_name,
            repository: event.and_then(|event| event.repository.as_ref()).map(|it| it.identity()),
            delivery: delivery.and_then(|delivery| delivery.id()),
            key,
            outcome,
            reason,
            status: answer.status(),
            bytes: dispatched
                .map(|dispatched| dispatched.bytes)
                .or_else(|| rejection.map(Rejection::bytes))
                .unwrap_or_default(),
            duration,
            upstream_duration: dispatched.and_then(|dispatched| dispatched.upstream_duration),
        }
        .emit();
    }

    /// Names are those of OpenTelemetry's semantic conventions for HTTP. Of the path only the hook's is told, since a
    /// key can stand in the rest.
    fn record_span(
        &self,
        provider: Option<Provider>,
        outcome: Outcome,
        answer: &Answer,
        event: Option<&str>,
    ) {
        let method = if self.method == OTHER { "HTTP" } else { self.method };
        let name = self
            .path
            .as_ref()
            .map_or(Cow::Borrowed(method), |path| Cow::Owned(format!("{method} {path}")));
        let mut span = Span::new(self.trace, SpanKind::Server, name, self.started);
        span.text("http.request.method", self.method);
        if let Some(path) = &self.path {
            span.text("http.route", path.clone());
        }
        let status = answer.status();
        span.number("http.response.status_code", status.as_u16().into());
        if status.is_server_error() {
            span.text("error.type", status.as_str().to_owned());
            span.is_error = true;
        }
        span.text("hookgate.outcome", outcome.as_str());
        if let Some(hook) = &self.hook {
            span.text("hookgate.hook", hook.to_string());
        }
        if let Some(provider) = provider {
            span.text("hookgate.provider", provider.as_str());
        }
        if let Some(event) = event {
            span.text("hookgate.event", printable(event).into_owned());
        }
        span.text("hookgate.request", self.id.to_string());
        self.tracing.spans.record(span);
    }
}

/// What the conventions call a method that they do not know: a sender can make up any.
const OTHER: &str = "_OTHER";

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => OTHER,
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hook")
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
