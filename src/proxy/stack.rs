//! A request's way: its head, its hook, the gate, what lies behind; and the record of all that.
//!
//! From the outside in: request id, the check of the head ([`head`]), who the client is
//! ([`TrustedProxies`]), the hook by path, the gate, the in-flight limit with load shed, [`Dispatch`]. The hooks are a [`Table`] that is
//! replaced as a whole when the configuration changes: a request goes its whole way through the table
//! with which it began.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower_service::Service;

use super::dispatch::{Dispatch, Dispatched};
use super::head;
use super::telemetry::{HookMetrics, Record, RequestId, RequestIds};
use crate::event::Event;
use crate::gate::{Gate, Rejection, ResponseBody};
use crate::outcome::Outcome;
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

/// All hooks of one configuration.
pub type Table = Vec<Hook>;

/// The service that answers every request. Clones are the same.
#[derive(Clone)]
pub struct Stack(Arc<Inner>);

struct Inner {
    table: ArcSwap<Table>,
    ids: RequestIds,
    proxies: ArcSwap<TrustedProxies>,
    /// For requests that reach no hook.
    elsewhere: Arc<HookMetrics>,
}

impl Stack {
    /// With these hooks. `elsewhere` counts requests that reach none of them.
    pub fn new(table: Table, elsewhere: Arc<HookMetrics>) -> Self {
        let table = ArcSwap::from_pointee(table);
        let proxies = ArcSwap::default();
        Self(Arc::new(Inner { table, ids: RequestIds::new(), proxies, elsewhere }))
    }

    /// Believes these proxies from now on. Nobody is believed before.
    pub fn trust(&self, proxies: TrustedProxies) {
        self.0.proxies.store(Arc::new(proxies));
    }

    /// Puts other hooks in force, for requests that begin after this.
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
        let peer = parts.extensions.get::<Source>().copied();
        let source = peer.map(|peer| inner.proxies.load().client(peer, &parts.headers));
        if let Some(source) = source {
            parts.extensions.insert(source);
        }
        let request = Request::from_parts(parts, body);
        let (gate, observer) = {
            let table = inner.table.load();
            let hook = table.iter().find(|hook| hook.takes(request.uri().path()));
            let metrics = hook.map_or(&inner.elsewhere, |hook| &hook.metrics).clone();
            let name = hook.map(|hook| hook.name.clone());
            let gate = hook.filter(|_| refused.is_none()).map(|hook| hook.gate.clone());
            (gate, Observer { id, source, started, metrics, hook: name })
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
    source: Option<Source>,
    started: Instant,
    metrics: Arc<HookMetrics>,
    hook: Option<Arc<str>>,
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
        let event: Option<&Event<'_>> = delivery.and_then(|delivery| delivery.event());
        Record {
            request_id: self.id,
            source: self.source.map(|source| source.0),
            hook: self.hook.as_deref(),
            provider,
            event: delivery.and_then(|delivery| delivery.event_name()),
            repository: event.and_then(|event| event.repository.as_ref()).map(|it| it.identity()),
            delivery: delivery.and_then(|delivery| delivery.id()),
            key: delivery.and_then(|delivery| delivery.key_name()),
            outcome,
            reason: dispatched
                .and_then(|dispatched| dispatched.reason.as_deref())
                .or_else(|| rejection.map(Rejection::reason)),
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
