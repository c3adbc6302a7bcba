//! One thread of the load: a runtime, connections of its own, and a part of the schedule.
//!
//! **Open loop.** When a delivery is due depends on the clock alone. A thread beside the runtime, the
//! pacer, sleeps until the next is due (the runtime's timer has a resolution of a millisecond) and
//! adds a permit for each. Whichever connection is free takes the oldest; if none is, another
//! one is opened. A delivery's latency begins when it was due, also if it waited for a connection.
//!
//! **Closed loop.** Each connection sends again as soon as it has its answer.
//!
//! A connection is driven by the task that waits for its answer, so that no other task has to be woken.
//! Dropping the runtime abandons what is under way.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hookgate::outcome::{OUTCOME_HEADER, Outcome};
use http::{HeaderMap, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout_at;

use super::maker::{Delivery, Maker};
use super::tally::{Answer, ErrorKind, Failure, Tally};
use super::target::{Stream, Target};

/// The pacer sleeps at least so long: what comes due meanwhile comes due together.
const TICK: Duration = Duration::from_micros(50);

/// How long a connection of a closed loop rests that was refused.
const REST: Duration = Duration::from_millis(10);

/// When and how much.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loop {
    /// So many a second, over at most so many connections.
    Open { rate: f64, connections: usize },
    /// Over so many connections.
    Closed { connections: usize },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: Instant,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// Of one answer.
    pub(super) timeout: Duration,
}

impl Times {
    pub(super) fn measured_from(&self) -> Instant {
        self.start + self.warm_up
    }

    pub(super) fn end(&self) -> Instant {
        self.measured_from() + self.duration
    }
}

/// What one thread does.
pub(super) struct Part {
    pub(super) target: Arc<Target>,
    pub(super) maker: Maker,
    /// Of this part alone.
    pub(super) load: Loop,
    pub(super) times: Times,
    /// Which part it is, of how many.
    pub(super) index: usize,
    pub(super) parts: usize,
    pub(super) tally: Arc<Mutex<Tally>>,
}

impl Part {
    /// Runs until all is done or `stop` changes.
    pub(super) fn run(self, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (working, mut ended) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            target: self.target,
            maker: Mutex::new(self.maker),
            times: self.times,
            tally: self.tally,
            next: AtomicU64::new(0),
            index: self.index as u64,
            parts: self.parts as u64,
        });
        let pacer = match self.load {
            Loop::Open { rate, connections } => {
                Some(Pacer::start(&shared, rate, connections, runtime.handle(), working)?)
            }
            Loop::Closed { connections } => {
                for _ in 0..connections {
                    runtime.spawn(closed(Arc::clone(&shared), working.clone()));
                }
                drop(working);
                None
            }
        };
        runtime.block_on(async {
            tokio::select! {
                // When the last of those who hold the other end is gone.
                _ = ended.recv() => {}
                _ = stop.changed() => {}
            }
        });
        if let Some(pacer) = pacer {
            pacer.stop();
        }
        Ok(())
    }
}

struct Shared {
    target: Arc<Target>,
    maker: Mutex<Maker>,
    times: Times,
    tally: Arc<Mutex<Tally>>,
    /// Deliveries of this part that were taken.
    next: AtomicU64,
    index: u64,
    parts: u64,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no thread panicked")
    }

    /// Parts take turns: how much of its interval passes before the first of this part is due.
    fn turn(&self) -> f64 {
        self.index as f64 / self.parts as f64
    }

    fn make(&self, nth: u64) -> Request<Delivery> {
        let mut maker = self.maker.lock().expect("no thread panicked");
        maker.make(self.index + nth * self.parts)
    }

    /// Sends the `nth` delivery of this part and counts what becomes of it; whether it was answered.
    async fn deliver(&self, connection: &mut Option<Connection>, nth: u64, due: Instant) -> bool {
        let is_measured = due >= self.times.measured_from();
        let sent = Instant::now();
        if is_measured {
            self.tally().begin(due, sent);
        }
        let deadline = sent + self.times.timeout;
        let exchange = self.exchange(connection, nth);
        let result = match timeout_at(deadline.into(), exchange).await {
            Ok(result) => result,
            Err(_) => Err(Failure { kind: ErrorKind::Timeout, text: "no answer in time".into() }),
        };
        if result.is_err() {
            *connection = None;
        }
        let is_answered = result.is_ok();
        let mut tally = self.tally();
        if is_measured {
            tally.settle(due, sent, self.times.end(), result);
        } else {
            tally.warm_up += 1;
        }
        is_answered
    }

    async fn exchange(
        &self,
        connection: &mut Option<Connection>,
        nth: u64,
    ) -> Result<Answer, Failure> {
        // The other side may close a connection that was kept, in the moment in which it is used.
        if let Some(mut kept) = connection.take() {
            match kept.exchange(self.make(nth)).await {
                Ok((answer, is_open)) => {
                    *connection = is_open.then_some(kept);
                    return Ok(answer);
                }
                Err(error) if error.is_canceled() => {}
                Err(error) => return Err(failure(&error)),
            }
        }
        let stream = self.target.connect().await.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::TimedOut => ErrorKind::Timeout,
                _ => ErrorKind::Connect,
            };
            Failure { kind, text: error.to_string() }
        })?;
        self.tally().connections += 1;
        let mut fresh = Connection::over(stream).await.map_err(|error| failure(&error))?;
        let (answer, is_open) =
            fresh.exchange(self.make(nth)).await.map_err(|error| failure(&error))?;
        *connection = is_open.then_some(fresh);
        Ok(answer)
    }
}

fn failure(error: &hyper::Error) -> Failure {
    let kind = if error.is_parse() { ErrorKind::Protocol } else { ErrorKind::Reset };
    Failure { kind, text: crate::chain(error) }
}

async fn closed(shared: Arc<Shared>, _working: mpsc::Sender<()>) {
    let mut connection = None;
    loop {
        let now = Instant::now();
        if now >= shared.times.end() {
            return;
        }
        let nth = shared.next.fetch_add(1, Ordering::Relaxed);
        if !shared.deliver(&mut connection, nth, now).await && connection.is_none() {
            tokio::time::sleep(REST).await;
        }
    }
}

/// Says when deliveries are due, and opens connections for them.
struct Pacer {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// What the pacer and the connections share.
struct Due {
    /// One for each delivery that is due and not taken, and at the end one more for each connection.
    permits: Semaphore,
    /// Connections that have not taken their first delivery.
    starting: AtomicUsize,
    rate: f64,
    /// Of this part, in the whole time.
    total: u64,
}

impl Pacer {
    fn start(
        shared: &Arc<Shared>,
        rate: f64,
        connections: usize,
        runtime: &Handle,
        working: mpsc::Sender<()>,
    ) -> std::io::Result<Self> {
        let whole = shared.times.warm_up + shared.times.duration;
        let due = Due {
            permits: Semaphore::new(0),
            starting: AtomicUsize::new(0),
            rate,
            // A product that is a whole number may come out a hair above it.
            total: (whole.as_secs_f64() * rate - shared.turn() - 1e-6).ceil() as u64,
        };
        let (due, shared, runtime) = (Arc::new(due), Arc::clone(shared), runtime.clone());
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new().name("pacer".into()).spawn(move || {
            pace(&due, &shared, connections, &runtime, &working, &stopped);
        })?;
        Ok(Self { thread, stop })
    }

    fn stop(self) {
        self.stop.send_replace(true);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

impl Due {
    /// When the `nth` of this part is due.
    fn at(&self, shared: &Shared, nth: u64) -> Instant {
        shared.times.start + Duration::from_secs_f64((nth as f64 + shared.turn()) / self.rate)
    }
}

fn pace(
    due: &Arc<Due>,
    shared: &Arc<Shared>,
    most: usize,
    runtime: &Handle,
    working: &mpsc::Sender<()>,
    stopped: &watch::Receiver<bool>,
) {
    let (mut told, mut open) = (0, 0);
    while told < due.total {
        let wait = due.at(shared, told).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::park_timeout(wait.max(TICK));
        }
        if *stopped.borrow() {
            return;
        }
        let now = Instant::now();
        let before = told;
        while told < due.total && due.at(shared, told) <= now {
            told += 1;
        }
        due.permits.add_permits((told - before) as usize);
        // Those that wait took theirs; what is left has no connection.
        let starting = due.starting.load(Ordering::Acquire);
        let wanted = due.permits.available_permits().saturating_sub(starting);
        for _ in 0..wanted.min(most - open) {
            open += 1;
            due.starting.fetch_add(1, Ordering::AcqRel);
            runtime.spawn(paced(Arc::clone(shared), Arc::clone(due), working.clone()));
        }
    }
    due.permits.add_permits(open);
}

async fn paced(shared: Arc<Shared>, due: Arc<Due>, _working: mpsc::Sender<()>) {
    let mut connection: Option<Connection> = None;
    let mut is_starting = true;
    let last = shared.times.end() + shared.times.timeout;
    loop {
        let permit = due.permits.acquire();
        let mut permit = pin!(permit);
        while let Some(idle) = &mut connection {
            tokio::select! {
                biased;
                permit = permit.as_mut() => {
                    permit.expect("never closed").forget();
                    break;
                }
                () = idle.ended() => connection = None,
            }
        }
        if connection.is_none() {
            permit.await.expect("never closed").forget();
        }
        if std::mem::take(&mut is_starting) {
            due.starting.fetch_sub(1, Ordering::AcqRel);
        }
        let nth = shared.next.fetch_add(1, Ordering::Relaxed);
        if nth >= due.total {
            return;
        }
        let (at, now) = (due.at(&shared, nth), Instant::now());
        if now > last {
            shared.tally().skip(at, now);
        } else {
            shared.deliver(&mut connection, nth, at).await;
        }
    }
}

/// A connection, and what drives it.
struct Connection {
    requests: http1::SendRequest<Delivery>,
    driver: http1::Connection<TokioIo<Box<dyn Stream>>, Delivery>,
    has_ended: bool,
}

impl Connection {
    async fn over(stream: Box<dyn Stream>) -> hyper::Result<Self> {
        let (requests, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { requests, driver, has_ended: false })
    }

    /// Sends the request and takes the whole answer; with it, whether the connection can be used again.
    async fn exchange(&mut self, request: Request<Delivery>) -> hyper::Result<(Answer, bool)> {
        let answer = self.requests.send_request(request);
        let mut answer = pin!(answer);
        let answer: Response<Incoming> = poll_fn(|cx| {
            self.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await?;
        let (parts, mut body) = answer.into_parts();
        while !body.is_end_stream() {
            let frame = poll_fn(|cx| {
                self.drive(cx);
                Pin::new(&mut body).poll_frame(cx)
            });
            if frame.await.transpose()?.is_none() {
                break;
            }
        }
        drop(body);
        let is_open = poll_fn(|cx| {
            self.drive(cx);
            if self.has_ended {
                return Poll::Ready(false);
            }
            self.requests.poll_ready(cx).map(|ready| ready.is_ok())
        });
        let answer = Answer { status: parts.status.as_u16(), outcome: outcome(&parts.headers) };
        Ok((answer, is_open.await))
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        // Its error also comes out where the answer is waited for.
        if !self.has_ended && Pin::new(&mut self.driver).poll(cx).is_ready() {
            self.has_ended = true;
        }
    }

    /// Ends when the other side closes.
    async fn ended(&mut self) {
        poll_fn(|cx| {
            self.drive(cx);
            if self.has_ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

fn outcome(headers: &HeaderMap) -> Option<&'static str> {
    let word = headers.get(OUTCOME_HEADER)?;
    Outcome::ALL.iter().map(|outcome| outcome.as_str()).find(|known| known == word)
}
