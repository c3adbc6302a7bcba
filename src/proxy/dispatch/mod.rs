//! What happens to a delivery that passed the gate: it is sent upstream, held back, or printed.
//!
//! The request is made anew from its parts; of what came in, only the verified body and the headers of
//! an allow-list go on ([`upstream`](super::upstream)). Secrets that some hosts repeat in the body are
//! blanked. In this order:
//!
//! 1. The same delivery again, which upstream has accepted: answered and not sent.
//! 2. One behind which others of its repository wait: waits too.
//! 3. One that comes within the interval of another: held back, the latest of them goes when the interval
//!    ends ([`pace`](crate::pace) has the rules).
//! 4. One that comes faster than the hook's rates allow: waits in the spool, without which there are none.
//! 5. Sent. The host hears what became of it:
//!
//! | upstream | with a spool | without |
//! |---|---|---|
//! | 2xx | 200 `forwarded`, with upstream's body and media type | the same |
//! | 5xx, 408, 425, 429, no connection, an answer that breaks off | 202 `queued` | 502 `upstream-failed` |
//! | no answer in time | 202 `queued` | 504 `upstream-failed` |
//! | 3xx, any other 4xx | 202 `set-aside` | 502 `upstream-failed` |
//! | not tried: down, busy, over the rate, earlier ones wait | 202 `queued` | |
//! | not tried, and no room in the spool | 503 `overloaded` | |
//! | none is configured | 202 `printed` | the same |
//! | held back | 202 `coalesced` | the same |
//! | had it already | 200 `duplicate` | the same |
//!
//! With a spool, [`Durable`] does this for each hook, and each service has one [`Link`] with a breaker and a
//! worker that sends what waits. Without, a [`Pacer`] holds in memory what is to be held.

mod answer;
mod breaker;
mod durable;
mod link;
mod outgoing;
mod pacer;
mod rates;
mod retry;
mod seen;
mod sender;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower_service::Service;

use self::answer::Answer;
use self::outgoing::Outgoing;
use super::config::Paces;
use super::telemetry::{HookMetrics, Tracing};
use crate::event::ParseOptions;
use crate::gate::GateBody;

pub use self::answer::Dispatched;
pub use self::durable::{Durable, OWNER, Running, Settings};
pub use self::link::Link;
pub use self::pacer::Pacer;
pub use self::sender::{Sender, Target, TargetPath};

/// Sends deliveries of one hook where they belong. Always ready; clones are the same.
#[derive(Clone, Debug)]
pub struct Dispatch(Way);

#[derive(Clone, Debug)]
enum Way {
    Memory(Arc<Pacer>),
    Spool(Arc<Durable>),
}

impl Dispatch {
    /// Sends each delivery as it comes, or prints it where there is no target.
    pub fn direct(target: Option<Target>, metrics: Arc<HookMetrics>) -> Self {
        let paces = Paces { dedupe_window: Duration::ZERO, ..Paces::default() };
        let (parse_options, tracing) = (ParseOptions::default(), Tracing::default());
        let sender = Sender { target, parse_options, metrics, tracing };
        Self::new(Arc::new(Pacer::new("", paces, sender)))
    }

    /// Sends at the pace of `pacer`.
    pub fn new(pacer: Arc<Pacer>) -> Self {
        Self(Way::Memory(pacer))
    }

    /// Sends, or stores, as `durable` does.
    pub fn durable(durable: Arc<Durable>) -> Self {
        Self(Way::Spool(durable))
    }
}

impl<B> Service<Request<GateBody<B>>> for Dispatch {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<GateBody<B>>) -> Self::Future {
        let way = self.0.clone();
        // The gate has put the delivery in, and never streams a body in the sidecar.
        let outgoing = Outgoing::new(request);
        Box::pin(async move {
            let Some(outgoing) = outgoing else {
                tracing::error!("request without a delivery behind the gate");
                return Ok(Answer::failed("request without a delivery").into_response(None));
            };
            let (delivery, bytes) = (outgoing.delivery.clone(), outgoing.body.len() as u64);
            let answer = match way {
                Way::Memory(pacer) => pacer.take(outgoing).await,
                Way::Spool(durable) => durable.take(outgoing).await,
            };
            Ok(answer.into_response(Some((delivery, bytes))))
        })
    }
}

/// Locks what is changed in one step, or leaves nothing half done that matters to another delivery.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
