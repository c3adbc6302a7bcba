//! Where the requests of one connection stand.
//!
//! hyper does not tell whether a connection waits for a request or works on one, so the service
//! that it is given is wrapped: [`Tracked`] notes in [`Exchanges`] when a request comes, when the
//! service has answered, and when the answer's body is done. The deadlines in [`io`](super::io)
//! and the idle limit of HTTP/2 read it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::util::Oneshot;
use tower_service::Service;

use crate::proxy::tls::Transport;
use crate::source::Source;

/// The requests of one connection, as counters.
///
/// All are relaxed: HTTP/1 writes and reads them in one task, and in HTTP/2 what reads them are
/// timers that look again.
#[derive(Debug)]
pub(super) struct Exchanges {
    began: Instant,
    /// Requests that have come; wraps around.
    requests: AtomicU32,
    /// Requests that the service has not answered yet.
    unanswered: AtomicU32,
    /// Requests whose answer is not done.
    open: AtomicU32,
    /// When anything last happened, in milliseconds since `began`.
    touched: AtomicU64,
    /// The connection is being closed between two requests, at our wish.
    leaving: AtomicBool,
}

impl Exchanges {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            requests: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            open: AtomicU32::new(0),
            touched: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
        }
    }

    /// When the connection began to wait for its first request.
    pub(super) const fn began(&self) -> Instant {
        self.began
    }

    /// How many requests have come, modulo 2^32.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether a request is being worked on or answered.
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Until when an HTTP/2 connection may stay as it is; `None`: no longer.
    ///
    /// It may for `head` until its first request, while the service works on one, and for `idle`
    /// after a request came or an answer made progress: an answer that the client does not take is
    /// no reason to stay. A client that was told to go stays for open answers only.
    pub(super) fn patience(
        &self,
        head: Duration,
        idle: Duration,
        told_to_go: bool,
    ) -> Option<Instant> {
        let now = Instant::now();
        let touched = Duration::from_millis(self.touched.load(Ordering::Relaxed));
        let until = if self.unanswered.load(Ordering::Relaxed) > 0 {
            now + idle
        } else if self.is_busy() || !told_to_go && self.requests() > 0 {
            self.began + touched + idle
        } else if !told_to_go {
            self.began + head
        } else {
            return None;
        };
        Some(until).filter(|until| *until > now)
    }

    /// Notes that the server is about to close the connection, if that is between two requests.
    pub(super) fn leave(&self) {
        if !self.is_busy() {
            self.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the server closes the connection between two requests, so that the client cannot be
    /// in the middle of one that was answered early.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let millis = self.began.elapsed().as_millis();
        self.touched.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What every request of a connection is told about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// None at the other end of a Unix socket.
    pub(super) source: Option<Source>,
    pub(super) transport: Transport,
}

/// The service as hyper calls it: with [`Source`] and [`Transport`] in the request's extensions,
/// and with [`Exchanges`] kept.
#[derive(Clone, Debug)]
pub(super) struct Tracked<S> {
    service: S,
    peer: Peer,
    exchanges: Arc<Exchanges>,
}

impl<S> Tracked<S> {
    pub(super) const fn new(service: S, peer: Peer, exchanges: Arc<Exchanges>) -> Self {
        Self { service, peer, exchanges }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Tracked<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<TrackedBody<B>>;
    type Error = Infallible;
    type Future = TrackedFuture<S>;

    fn call(&self, mut request: Request<Incoming>) -> TrackedFuture<S> {
        if let Some(source) = self.peer.source {
            request.extensions_mut().insert(source);
        }
        request.extensions_mut().insert(self.peer.transport);
        TrackedFuture {
            answer: Oneshot::new(self.service.clone(), request),
            turn: Some(Turn::begin(&self.exchanges)),
        }
    }
}

pin_project! {
    /// A request that the service works on.
    pub(super) struct TrackedFuture<S>
    where
        S: Service<Request<Incoming>>,
    {
        #[pin]
        answer: Oneshot<S, Request<Incoming>>,
        turn: Option<Turn>,
    }
}

impl<S, B> Future for TrackedFuture<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Output = Result<Response<TrackedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(answer) = ready!(this.answer.poll(cx));
        let turn = this.turn.take().map(Turn::answered);
        Poll::Ready(Ok(answer.map(|body| TrackedBody { body, turn })))
    }
}

pin_project! {
    /// The body of an answer; when it is dropped, the answer is done.
    pub(super) struct TrackedBody<B> {
        #[pin]
        body: B,
        turn: Option<Turn>,
    }
}

impl<B: Body> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(turn) = this.turn {
            turn.exchanges.touch();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One request, from when it comes until its answer is done or either is given up.
#[derive(Debug)]
struct Turn {
    exchanges: Arc<Exchanges>,
    answered: bool,
}

impl Turn {
    fn begin(exchanges: &Arc<Exchanges>) -> Self {
        exchanges.requests.fetch_add(1, Ordering::Relaxed);
        exchanges.unanswered.fetch_add(1, Ordering::Relaxed);
        exchanges.open.fetch_add(1, Ordering::Relaxed);
        exchanges.leaving.store(false, Ordering::Relaxed);
        exchanges.touch();
        Self { exchanges: Arc::clone(exchanges), answered: false }
    }

    fn answered(mut self) -> Self {
        self.answered = true;
        self.exchanges.unanswered.fetch_sub(1, Ordering::Relaxed);
        self.exchanges.touch();
        self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.answered {
            self.exchanges.unanswered.fetch_sub(1, Ordering::Relaxed);
        }
        self.exchanges.open.fetch_sub(1, Ordering::Relaxed);
        self.exchanges.touch();
    }
}
