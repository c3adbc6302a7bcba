//! The future of an answer: reads the body, has it judged, and only then calls the inner service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::body::{BoxError, GateBody, ResponseBody, with_claim};
use super::budget::{Claim, SMALL_BODY};
use super::check::{self, Admission};
use super::layer::Config;
use super::refusals::Account;
use super::rejection::Rejection;
use crate::outcome::Outcome;

/// A body that comes at less is given up when half of its time is over: 1 KiB/s.
const LEAST_RATE: u64 = 1024;
/// No more is set aside for a body than this beyond what has arrived: 64 KiB.
const AHEAD: usize = 64 * 1024;
/// Frames that are taken before others get their turn.
const FRAMES_PER_POLL: usize = 64;

pin_project! {
    /// The future of a [`Gate`](super::Gate)'s answer.
    ///
    /// Dropping it drops the body, its room in the budget and a call that has begun. A delivery is
    /// accepted only by the answer, so nothing that was accepted is lost.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<GateBody<B>>>,
    {
        #[pin]
        state: State<S, B, S::Future>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<S, B, F> {
        Answer { rejection: Option<Rejection> },
        Read { #[pin] reading: Reading<B>, service: Option<S> },
        Ready { service: S, request: Option<Request<GateBody<B>>> },
        Call { #[pin] future: F },
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<GateBody<B>>>,
{
    pub(super) fn answer(rejection: Rejection) -> Self {
        Self { state: State::Answer { rejection: Some(rejection) } }
    }

    pub(super) fn read(service: S, config: Arc<Config>, head: Head, body: B) -> Self {
        let reading = Reading {
            body,
            timer: None,
            config,
            head: Some(head),
            collected: Collected::default(),
            started: None,
        };
        Self { state: State::Read { reading, service: Some(service) } }
    }

    pub(super) fn call(service: S, request: Request<GateBody<B>>) -> Self {
        Self { state: State::Ready { service, request: Some(request) } }
    }
}

impl<S, B, RB> Future for ResponseFuture<S, B>
where
    S: Service<Request<GateBody<B>>, Response = Response<RB>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<RB>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProject::Answer { rejection } => {
                    let rejection = rejection.take().expect("polled after completion");
                    #[cfg(feature = "tracing")]
                    tracing::debug!(
                        outcome = rejection.outcome().as_str(),
                        reason = rejection.reason(),
                        "the gate answers by itself"
                    );
                    return Poll::Ready(Ok(rejection.into_response()));
                }
                StateProject::Read { mut reading, service } => {
                    match ready!(reading.as_mut().poll_read(cx)) {
                        Err(rejection) => {
                            let rejection = reading.complete(rejection);
                            State::Answer { rejection: Some(rejection) }
                        }
                        Ok(request) => {
                            let mut service = service.take().expect("a body is read once");
                            // Most services are ready at once: then the request moves no more.
                            match service.poll_ready(cx) {
                                Poll::Ready(Ok(())) => {
                                    State::Call { future: service.call(request) }
                                }
                                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                                Poll::Pending => {
                                    state.set(State::Ready { service, request: Some(request) });
                                    return Poll::Pending;
                                }
                            }
                        }
                    }
                }
                StateProject::Ready { service, request } => {
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        return Poll::Ready(Err(error));
                    }
                    let request = request.take().expect("a service is called once");
                    State::Call { future: service.call(request) }
                }
                StateProject::Call { future } => {
                    return future.poll(cx).map_ok(|response| response.map(ResponseBody::inner));
                }
            };
            state.set(next);
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<GateBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A body on its way into memory.
    struct Reading<B> {
        #[pin]
        body: B,
        // Armed when the body first lets us wait: most never do.
        #[pin]
        timer: Option<Sleep>,
        config: Arc<Config>,
        head: Option<Head>,
        collected: Collected,
        started: Option<Instant>,
    }
}

/// What is known before the body comes.
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) admission: Admission,
    pub(super) claim: Claim,
    pub(super) account: Account,
}

impl<B> Reading<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Request<GateBody<B>>, Rejection>> {
        for _ in 0..FRAMES_PER_POLL {
            let mut this = self.as_mut().project();
            let head = this.head.as_mut().expect("polled after completion");
            // Room first: while a large body waits for it, nothing more of it is taken in.
            if head.claim.is_waiting() {
                let wanted = this.collected.wanted;
                match head.claim.poll_hold(cx, wanted) {
                    Poll::Ready(Ok(())) => {
                        // The time of waiting is not the sender's fault.
                        *this.started = None;
                        this.timer.set(None);
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(overloaded())),
                    Poll::Pending => {
                        ready!(self.as_mut().poll_time(cx))?;
                        continue;
                    }
                }
            }
            match this.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are not part of what is signed, and go no further.
                    let Ok(data) = frame.into_data() else { continue };
                    let expected = this.body.size_hint().exact();
                    let taken = take(this.config, head, this.collected, data, expected, cx);
                    if let Err(rejection) = taken {
                        return Poll::Ready(Err(rejection));
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Err(Rejection::new(Outcome::Malformed, "body broke off")));
                }
                Poll::Ready(None) => {
                    let head = this.head.take().expect("a body ends once");
                    return Poll::Ready(finish(this.config, head, std::mem::take(this.collected)));
                }
                Poll::Pending => {
                    ready!(self.as_mut().poll_time(cx))?;
                }
            }
        }
        // A sender of empty frames must neither keep the others waiting nor outlast the deadline.
        if let Poll::Ready(Err(rejection)) = self.poll_time(cx) {
            return Poll::Ready(Err(rejection));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Says whose delivery it claimed to be, where the body was given up half-way.
    fn complete(self: Pin<&mut Self>, rejection: Rejection) -> Rejection {
        let this = self.project();
        match this.head {
            Some(head) => {
                // Whoever lets the gate wait for nothing is no better than who shows nothing.
                let is_stranger =
                    matches!(rejection.outcome(), Outcome::Timeout | Outcome::Unauthorized);
                if is_stranger && !head.admission.is_proven() {
                    head.account.refused();
                }
                rejection.provider(head.admission.provider).read(this.collected.len())
            }
            None => rejection,
        }
    }

    /// Pending while there is time, an error when it is over. `Ready(Ok)`: look again.
    fn poll_time(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        let mut this = self.project();
        let deadline = this.config.body_deadline;
        let now = Instant::now();
        let started = *this.started.get_or_insert(now);
        if this.timer.is_none() {
            this.timer.set(Some(sleep_until(started + deadline / 2)));
        }
        let Some(mut timer) = this.timer.as_pin_mut() else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        let waiting = this.head.as_ref().is_some_and(|head| head.claim.is_waiting());
        let elapsed = now.saturating_duration_since(started);
        let least = LEAST_RATE * elapsed.as_secs();
        if elapsed >= deadline && waiting {
            Poll::Ready(Err(overloaded()))
        } else if elapsed >= deadline || !waiting && (this.collected.len() as u64) < least {
            let reason = "body did not come in time";
            Poll::Ready(Err(Rejection::new(Outcome::Timeout, reason)))
        } else {
            let next = (now + Duration::from_secs(1)).min(started + deadline);
            timer.as_mut().reset(next);
            timer.poll(cx).map(Ok)
        }
    }
}

/// Takes in the next bytes: limit, room, hash, copy.
fn take(
    config: &Config,
    head: &mut Head,
    collected: &mut Collected,
    data: Bytes,
    rest: Option<u64>,
    cx: &mut Context<'_>,
) -> Result<(), Rejection> {
    if data.is_empty() {
        return Ok(());
    }
    let len = collected.len() + data.len();
    // With what the body says by now is still to come: it may have said less before.
    let total = rest.map(|rest| rest.saturating_add(len as u64));
    let least = total.unwrap_or(len as u64);
    if least > head.admission.limit {
        return Err(head.admission.beyond_limit());
    }
    if check::is_too_large(config, &head.parts, least) {
        return Err(check::too_large());
    }
    let total = total.and_then(|total| usize::try_from(total).ok());
    let needed = collected.capacity_for(len, total);
    let wanted = total.filter(|&total| total > SMALL_BODY).unwrap_or(needed).max(needed);
    let held = match total {
        // A length that is known may wait for its turn.
        Some(_) => {
            collected.wanted = wanted;
            match head.claim.poll_hold(cx, wanted) {
                Poll::Ready(held) => held,
                Poll::Pending => Ok(()),
            }
        }
        None => head.claim.hold(wanted),
    };
    held.map_err(|_| overloaded())?;
    if let Some(pending) = &mut head.admission.pending {
        pending.update(&data);
    }
    collected.push(data, needed);
    Ok(())
}

fn finish<B>(
    config: &Config,
    head: Head,
    collected: Collected,
) -> Result<Request<GateBody<B>>, Rejection> {
    let Head { mut parts, admission, mut claim, account } = head;
    claim.verified();
    let body = with_claim(collected.into_bytes(), claim);
    let delivery = check::judge(config, &parts, &body, admission);
    account.judged(delivery.as_ref());
    let delivery = delivery.map_err(|rejection| rejection.read(body.len()))?;
    parts.extensions.insert(delivery);
    Ok(Request::from_parts(parts, GateBody::verified(body)))
}

fn overloaded() -> Rejection {
    Rejection::new(Outcome::Overloaded, "no room for the body")
}

/// The bytes so far. One frame is kept as it came; the second makes a buffer of its own, so that
/// a body in a thousand pieces does not pin a thousand read buffers.
#[derive(Default)]
struct Collected {
    only: Option<Bytes>,
    buffer: BytesMut,
    /// The room that was asked for last.
    wanted: usize,
}

impl Collected {
    fn len(&self) -> usize {
        self.only.as_ref().map_or(self.buffer.len(), Bytes::len)
    }

    /// The size of the buffer that holds `len` bytes of a body that says it has `total`.
    fn capacity_for(&self, len: usize, total: Option<usize>) -> usize {
        if self.len() == 0 || len <= self.buffer.capacity() {
            return len.max(self.buffer.capacity());
        }
        // Doubled, so that copying stays linear; never far ahead of what is there.
        let ahead = len.saturating_mul(2).max(AHEAD);
        ahead.min(total.unwrap_or(ahead)).max(len)
    }

    fn push(&mut self, data: Bytes, capacity: usize) {
        if self.len() == 0 {
            self.only = Some(data);
            return;
        }
        let first = self.only.take();
        let grow = |buffer: &mut BytesMut| {
            if capacity > buffer.capacity() {
                let mut grown = BytesMut::with_capacity(capacity);
                grown.extend_from_slice(buffer);
                *buffer = grown;
            }
        };
        grow(&mut self.buffer);
        if let Some(first) = first {
            self.buffer.extend_from_slice(&first);
        }
        self.buffer.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        self.only.unwrap_or_else(|| self.buffer.freeze())
    }
}
