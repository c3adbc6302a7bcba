//! Bursts behind the gate: what goes, what is held, and that nothing is lost.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::time::{Instant, advance};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service};

use hookgate::coalesce::{Coalesce, CoalesceBuilder, CoalesceLayer};
use hookgate::gate::{Gate, GateBody, GateLayer};
use hookgate::outcome::Outcome;
use hookgate::pace::{KeyBy, Pace};

use crate::support::{Answer, NowOrNever, Sample, ask, keys};

const INTERVAL: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(1);

/// A service that answers as it is told, when it is let, and remembers what came when.
#[derive(Clone)]
struct Slow {
    came: Arc<Mutex<Vec<(Instant, Bytes)>>>,
    /// For the calls to come; then 200.
    answers: Arc<Mutex<Vec<u16>>>,
    permits: Arc<Semaphore>,
}

impl Slow {
    fn new() -> Self {
        let permits = Arc::new(Semaphore::new(1000));
        Self { came: Arc::default(), answers: Arc::default(), permits }
    }

    fn answering(answers: &[u16]) -> Self {
        let answers = answers.iter().rev().copied().collect();
        Self { answers: Arc::new(Mutex::new(answers)), ..Self::new() }
    }

    /// What came since the last look: how long after `start`, and which body.
    fn take(&self, start: Instant) -> Vec<(u64, Bytes)> {
        let came = std::mem::take(&mut *self.came.lock().unwrap());
        came.into_iter().map(|(at, body)| ((at - start).as_secs(), body)).collect()
    }

    fn count(&self) -> usize {
        self.came.lock().unwrap().len()
    }
}

impl<B: Send + 'static> Service<Request<GateBody<B>>> for Slow {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<GateBody<B>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let body = request.body().bytes().cloned().unwrap_or_default();
            this.came.lock().unwrap().push((Instant::now(), body));
            this.permits.acquire().await.unwrap().forget();
            let status = this.answers.lock().unwrap().pop().unwrap_or(200);
            let mut answer = Response::new(Full::from("indexed"));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(answer)
        })
    }
}

fn layer() -> CoalesceLayer {
    CoalesceLayer::new(Pace::new(INTERVAL))
}

fn gate<S>(coalesce: &CoalesceLayer, service: S) -> Gate<Coalesce<S>> {
    let gate = GateLayer::builder(keys()).path("/webhook").read_events(true).build().unwrap();
    (gate, coalesce.clone()).layer(service)
}

/// The push that moves this ref to the `n`-th commit.
fn push_to(repository: &str, name: &str, n: u32) -> Bytes {
    format!(
        r#"{{"ref":"{name}","before":"{:040x}","after":"{n:040x}",
        "repository":{{"clone_url":"https://git.example.com/{repository}.git"}}}}"#,
        n - 1
    )
    .into()
}

fn push(n: u32) -> Bytes {
    push_to("acme/widget", "refs/heads/main", n)
}

async fn send<S>(gate: &Gate<Coalesce<S>>, body: &Bytes) -> Answer
where
    S: Service<Request<GateBody<Full<Bytes>>>, Response = Response<Full<Bytes>>>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    S::Error: std::fmt::Debug,
{
    ask(gate, Sample::github(body.clone()).request()).await
}

/// Lets the tasks run that have something to do now.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn pass(time: Duration) {
    settle().await;
    advance(time).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_goes_at_once_those_after_it_are_held_and_the_latest_goes_once() {
    let (start, service) = (Instant::now(), Slow::new());
    let gate = gate(&layer(), service.clone());
    let first = send(&gate, &push(1)).await;
    assert_eq!((first.code(), first.outcome(), &first.body[..]), (200, None, &b"indexed"[..]));
    for n in 2..5 {
        let held = send(&gate, &push(n)).await;
        assert_eq!((held.code(), held.outcome()), (202, Some(Outcome::Coalesced)));
        assert_eq!(&held.body[..], br#"{"outcome":"coalesced","delivery":"d-1"}"#);
    }
    pass(INTERVAL - MOMENT).await;
    assert_eq!(service.take(start), [(0, push(1))]);
    pass(MOMENT * 2).await;
    assert_eq!(service.take(start), [(10, push(4))]);
    pass(10 * INTERVAL).await;
    assert_eq!(service.take(start), [], "it goes once");
    assert_eq!(send(&gate, &push(5)).await.code(), 200, "and the next at once");
}

#[tokio::test(start_paused = true)]
async fn none_is_held_longer_than_it_may() {
    let (start, service) = (Instant::now(), Slow::new());
    let mut pace = Pace::new(100 * INTERVAL);
    pace.max_wait = INTERVAL;
    let gate = gate(&CoalesceLayer::new(pace), service.clone());
    send(&gate, &push(1)).await;
    send(&gate, &push(2)).await;
    pass(INTERVAL / 2).await;
    assert_eq!(send(&gate, &push(3)).await.code(), 202);
    pass(INTERVAL / 2 + MOMENT).await;
    assert_eq!(service.take(start), [(0, push(1)), (10, push(3))]);
}

#[tokio::test(start_paused = true)]
async fn other_refs_and_other_repositories_are_not_held_unless_the_repository_counts() {
    let bodies = [
        (push(1), [200, 200]),
        (push_to("acme/widget", "refs/heads/dev", 1), [200, 202]),
        (push_to("acme/gadget", "refs/heads/main", 1), [200, 200]),
        (push(2), [202, 202]),
    ];
    for (at, by) in [KeyBy::Ref, KeyBy::Repository].into_iter().enumerate() {
        let coalesce = CoalesceLayer::builder(Pace::new(INTERVAL)).by(by).build();
        let gate = gate(&coalesce, Slow::new());
        for (body, codes) in &bodies {
            assert_eq!(send(&gate, body).await.code(), codes[at], "{by:?} {body:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_passes_through_untouched_however_often_it_comes() {
    let (start, service) = (Instant::now(), Slow::new());
    let unread = GateLayer::builder(keys()).path("/webhook").build().unwrap();
    let unread = (unread, layer()).layer(service.clone());
    let read = gate(&layer(), service.clone());
    for _ in 0..3 {
        assert_eq!(send(&unread, &push(1)).await.code(), 200, "the gate was not told to read it");
        let ping = Sample::github("{}").header("x-github-event", "ping").request();
        assert_eq!(ask(&read, ping).await.code(), 200);
    }
    let bodies: Vec<_> = service.take(start).into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, [push(1), "{}".into(), push(1), "{}".into(), push(1), "{}".into()]);
}

#[tokio::test(start_paused = true)]
async fn a_first_that_fails_is_told_and_does_not_eat_the_interval_and_one_that_is_refused_does() {
    for (status, next) in [(500, 200), (503, 200), (429, 200), (200, 202), (404, 202)] {
        let service = Slow::answering(&[status]);
        let gate = gate(&layer(), service.clone());
        assert_eq!(send(&gate, &push(1)).await.code(), status);
        assert_eq!(send(&gate, &push(2)).await.code(), next, "after {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_does_not_eat_the_interval_either() {
    let failing = tower::service_fn(|_: Request<GateBody<Full<Bytes>>>| async {
        Err::<Response<Full<Bytes>>, _>("broken")
    });
    let mut gate = gate(&layer(), failing);
    for n in 1..4 {
        let answer = gate.call(Sample::github(push(n)).request()).await;
        assert_eq!(answer.err(), Some("broken"));
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_host_hangs_up_does_not_keep_the_next_back() {
    let service = Slow::new();
    let taken = service.permits.acquire_many(1000).await.unwrap();
    let gate = gate(&layer(), service.clone());
    assert!(send(&gate, &push(1)).now_or_never().is_none(), "it is under way, and dropped");
    assert_eq!(service.count(), 1);
    drop(taken);
    assert_eq!(send(&gate, &push(2)).await.code(), 200);
    assert_eq!(send(&gate, &push(3)).await.code(), 202);
}

#[tokio::test(start_paused = true)]
async fn a_held_one_that_fails_is_tried_again_until_it_is_taken_and_one_that_is_refused_is_not() {
    let (start, service) = (Instant::now(), Slow::answering(&[200, 500, 503, 200]));
    let gate_of_failing = gate(&layer(), service.clone());
    send(&gate_of_failing, &push(1)).await;
    send(&gate_of_failing, &push(2)).await;
    for _ in 0..20 {
        pass(Duration::from_secs(1) + MOMENT).await;
    }
    assert_eq!(
        service.take(start),
        [(0, push(1)), (10, push(2)), (11, push(2)), (13, push(2))],
        "after pauses of 1 and 2 s"
    );
    let (start, service) = (Instant::now(), Slow::answering(&[200, 404]));
    let gate = gate(&layer(), service.clone());
    send(&gate, &push(1)).await;
    send(&gate, &push(2)).await;
    pass(INTERVAL + MOMENT).await;
    pass(10 * INTERVAL).await;
    assert_eq!(service.take(start).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_room_for_is_sent_at_once_and_room_comes_back() {
    let full: fn(CoalesceBuilder) -> CoalesceBuilder = |it| it.max_held_bytes(push(1).len());
    let roomy: fn(CoalesceBuilder) -> CoalesceBuilder = |it| it.max_held_bytes(3 * push(1).len());
    for (build, code) in [(full, 200), (roomy, 202)] {
        let service = Slow::new();
        let coalesce = build(CoalesceLayer::builder(Pace::new(INTERVAL))).build();
        let gate = gate(&coalesce, service.clone());
        assert_eq!(send(&gate, &push(1)).await.code(), 200);
        assert_eq!(send(&gate, &push(2)).await.code(), 202);
        assert_eq!(send(&gate, &push(3)).await.code(), code, "one is held");
        pass(INTERVAL + MOMENT).await;
        assert_eq!(coalesce.held(), 0);
        assert_eq!(send(&gate, &push(4)).await.code(), 202, "there is room again");
    }
    let mut pace = Pace::new(INTERVAL);
    pace.max_held = 1;
    let gate = gate(&CoalesceLayer::new(pace), Slow::new());
    let other = |n| push_to("acme/gadget", "refs/heads/main", n);
    for body in [push(1), other(1)] {
        assert_eq!(send(&gate, &body).await.code(), 200);
    }
    assert_eq!(send(&gate, &push(2)).await.code(), 202);
    assert_eq!(send(&gate, &push(3)).await.code(), 202, "in the place of the one before");
    assert_eq!(send(&gate, &other(2)).await.code(), 200, "there is no room for two");
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_all_that_is_held_and_tells_what_was_lost() {
    let (start, service) = (Instant::now(), Slow::answering(&[200, 200, 200, 500]));
    let coalesce = layer();
    assert_eq!(coalesce.drain().await, 0, "nothing is held");
    let gate = gate(&coalesce, service.clone());
    let other = |n| push_to("acme/gadget", "refs/heads/main", n);
    for body in [push(1), other(1), push(2), other(2)] {
        send(&gate, &body).await;
    }
    assert_eq!(coalesce.held(), 2);
    assert_eq!(coalesce.drain().await, 1);
    assert_eq!(coalesce.held(), 0);
    let bodies: Vec<_> = service.take(start).into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, [push(1), other(1), push(2), other(2)]);
    pass(10 * INTERVAL).await;
    assert_eq!(service.take(start), [], "none is tried again");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_is_under_way_and_sends_that_again_if_it_fails() {
    let (start, service) = (Instant::now(), Slow::answering(&[200, 503]));
    let coalesce = layer();
    let gate = gate(&coalesce, service.clone());
    send(&gate, &push(1)).await;
    send(&gate, &push(2)).await;
    service.permits.forget_permits(1000);
    pass(INTERVAL + MOMENT).await;
    assert_eq!(service.count(), 2, "the held one is under way");
    let draining = tokio::spawn({
        let coalesce = coalesce.clone();
        async move { coalesce.drain().await }
    });
    settle().await;
    assert!(!draining.is_finished());
    service.permits.add_permits(2);
    assert_eq!(draining.await.unwrap(), 0);
    let bodies: Vec<_> = service.take(start).into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, [push(1), push(2), push(2)]);
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_its_pace_and_those_of_another_do_not() {
    let coalesce = layer();
    let (one, same) = (gate(&coalesce, Slow::new()), gate(&coalesce, Slow::new()));
    let other = gate(&layer(), Slow::new());
    assert_eq!(send(&one, &push(1)).await.code(), 200);
    assert_eq!(send(&same, &push(2)).await.code(), 202);
    assert_eq!(send(&other, &push(2)).await.code(), 200);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_held_takes_no_place_in_a_limit_and_waits_for_one_when_it_goes() {
    let (start, service) = (Instant::now(), Slow::new());
    let limited = ConcurrencyLimit::new(service.clone(), 1);
    let gate = gate(&layer(), limited);
    send(&gate, &push(1)).await;
    let blocked = service.permits.acquire_many(999).await.unwrap();
    let other = push_to("acme/gadget", "refs/heads/main", 1);
    let mut waiting = Box::pin(send(&gate, &other));
    assert!(waiting.as_mut().now_or_never().is_none(), "it has the only place");
    assert_eq!(send(&gate, &push(2)).await.code(), 202, "and this one needs none");
    pass(INTERVAL + MOMENT).await;
    assert_eq!(service.take(start).len(), 2, "until it is to go");
    drop(blocked);
    assert_eq!(waiting.await.code(), 200);
    settle().await;
    assert_eq!(service.take(start), [(10, push(2))]);
}
