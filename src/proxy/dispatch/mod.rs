//! What happens to a delivery that passed the gate: it is sent upstream, held back, or printed.
//!
//! The request is made anew from its parts; of what came in, only the verified body and the headers of
//! an allow-list go on ([`upstream`](super::upstream)). Secrets that some hosts repeat in the body are
//! blanked. In this order:
//!
//! 1. The same delivery again, which upstream has accepted: answered and not sent.
//! 2. One that comes within the interval of another: held back, the latest of them goes when the interval
//!    ends ([`pace`](crate::pace) has the rules).
//! 3. Sent. The host hears what became of it:
//!
//! | upstream | the host hears |
//! |---|---|
//! | 2xx | 200 `forwarded`, with upstream's body and media type |
//! | 3xx, 4xx, 5xx, no connection, an answer that breaks off | 502 `upstream-failed` |
//! | no answer in time | 504 `upstream-failed` |
//! | none is configured | 202 `printed` |
//! | held back | 202 `coalesced` |
//! | had it already | 200 `duplicate` |

mod answer;
mod outgoing;
mod pacer;
mod sender;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower_service::Service;

use self::answer::Answer;
use self::outgoing::Outgoing;
use super::config::Paces;
use super::telemetry::HookMetrics;
use crate::gate::GateBody;
use crate::pace::KeyBy;

pub use self::answer::Dispatched;
pub use self::pacer::Pacer;
pub use self::sender::{Sender, Target, TargetPath};

/// Sends deliveries of one hook where they belong. Always ready; clones are the same.
#[derive(Clone, Debug)]
pub struct Dispatch(Arc<Pacer>);

impl Dispatch {
    /// Sends each delivery as it comes, or prints it where there is no target.
    pub fn direct(target: Option<Target>, metrics: Arc<HookMetrics>) -> Self {
        let paces =
            Paces { coalesce: None, coalesce_by: KeyBy::Ref, dedupe_window: Duration::ZERO };
        Self(Arc::new(Pacer::new("", paces, Sender { target, metrics })))
    }

    /// Sends at the pace of `pacer`.
    pub fn new(pacer: Arc<Pacer>) -> Self {
        Self(pacer)
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
        let pacer = self.0.clone();
        // The gate has put the delivery in, and never streams a body in the sidecar.
        let outgoing = Outgoing::new(request);
        Box::pin(async move {
            let Some(outgoing) = outgoing else {
                tracing::error!("request without a delivery behind the gate");
                return Ok(Answer::failed("request without a delivery").into_response(None));
            };
            let (delivery, bytes) = (outgoing.delivery.clone(), outgoing.body.len() as u64);
            let answer = pacer.take(outgoing).await;
            Ok(answer.into_response(Some((delivery, bytes))))
        })
    }
}
