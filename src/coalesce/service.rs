//! The service: asks what is to become of a delivery, and does it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::hold::is_passing;
use super::layer::{Call, Held, Shared, Underway};
use crate::delivery::Delivery;
use crate::gate::{GateBody, Rejection, ResponseBody};
use crate::outcome::Outcome;
use crate::pace::{CoalesceKey, Decision, KeyBy};

/// A service that hears of each ref at most once an interval. See the [module docs](super).
#[derive(Clone)]
pub struct Coalesce<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Coalesce<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, B, RB> Service<Request<GateBody<B>>> for Coalesce<S>
where
    S: Service<Request<GateBody<B>>, Response = Response<RB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
    RB: Body<Data = Bytes> + 'static,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    /// Always ready: the inner service's readiness is claimed by what is sent.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<GateBody<B>>) -> Self::Future {
        let inner = self.inner.clone();
        let Some((delivery, key, bytes)) = holdable(&request, self.shared.by) else {
            return Box::pin(sent(inner, request, None));
        };
        let Some(room) = self.shared.room(bytes.len()) else {
            return Box::pin(sent(inner, request, None));
        };
        let (parts, _) = request.into_parts();
        let held = Held { parts, bytes, call: caller(self.inner.clone()), room, attempts: 0 };
        match self.shared.hold.offer(key, held) {
            Decision::SendNow(due) => {
                let underway = Underway::new(self.shared.clone(), due.sending);
                Box::pin(sent(inner, request_of(due.item), Some(underway)))
            }
            // It goes in the place of those that it replaces, and their hosts were told so.
            Decision::Held { .. } => {
                self.shared.work();
                let rejection = Rejection::new(Outcome::Coalesced, "held back by the interval");
                let rejection = rejection.delivery(delivery);
                Box::pin(async { Ok(rejection.into_response()) })
            }
            // Rather one more than one less.
            Decision::Full(held) => Box::pin(sent(inner, request_of(held), None)),
        }
    }
}

/// Sends one whose host waits for the answer.
async fn sent<S, B, RB>(
    mut service: S,
    request: Request<GateBody<B>>,
    underway: Option<Underway>,
) -> Result<Response<ResponseBody<RB>>, S::Error>
where
    S: Service<Request<GateBody<B>>, Response = Response<RB>>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    let answer = service.call(request).await?;
    if let Some(underway) = underway
        && !is_passing(answer.status())
    {
        underway.succeeded();
    }
    Ok(answer.map(ResponseBody::inner))
}

/// Calls the service for which nobody waits.
fn caller<S, B, RB>(service: S) -> Call
where
    S: Service<Request<GateBody<B>>, Response = Response<RB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: 'static,
{
    Box::new(move |parts, bytes| {
        let mut service = service.clone();
        Box::pin(async move {
            if poll_fn(|cx| service.poll_ready(cx)).await.is_err() {
                return false;
            }
            let request = Request::from_parts(parts, GateBody::verified(bytes));
            let answer = service.call(request).await;
            answer.is_ok_and(|answer| !is_passing(answer.status()))
        })
    })
}

fn request_of<B>(held: Held) -> Request<GateBody<B>> {
    Request::from_parts(held.parts, GateBody::verified(held.bytes))
}

/// What is needed of a delivery to hold it; `None` for one that passes through.
fn holdable<B>(
    request: &Request<GateBody<B>>,
    by: KeyBy,
) -> Option<(Delivery, CoalesceKey, Bytes)> {
    let delivery = request.extensions().get::<Delivery>()?;
    // The layer is the hook: what it holds is its own.
    let key = coalesce_key("", by, delivery)?;
    Some((delivery.clone(), key, request.body().bytes()?.clone()))
}

impl<S: fmt::Debug> fmt::Debug for Coalesce<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish()
    }
}

/// What a delivery coalesces with; `None` for what has no repository, and so is never held.
pub(crate) fn coalesce_key(hook: &str, by: KeyBy, delivery: &Delivery) -> Option<CoalesceKey> {
    let event = delivery.event()?;
    let repository = event.repository.as_ref()?.identity();
    let refs = event.refs.iter().map(|change| &*change.name);
    Some(CoalesceKey::new(by, hook, repository, event.kind.as_str(), refs))
}
