//! One thread of the load: a runtime, connections of its own, and a part of the schedule.
//!
//! **Open loop.** When a delivery is due depends on the clock alone. A thread beside the runtime, the
//! pacer, sleeps until the next is due (the runtime's timer has a resolution of a millisecond) and
//! adds a permit for each. Whichever connection is free takes the oldest; if none is, another
//! one is opened. A delivery's latency begins when it was due, also if it waited for a connection.
//!
//! **Closed loop.** Each connection sends again as soon as it has its answer.
//!
//! One task sends on a connection and waits for its answer, so that no other task has to be woken.
//! Dropping the runtime abandons what is under way.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout_at;

use super::connection::Connection;
use super::maker::Maker;
use super::tally::{Answer, ErrorKind, Failure, Tally};
use super::target::Target;

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
            signed: self.maker.signed(),
            filling: self.maker.filling(),
            maker: Mutex::new(self.maker),
            times: self.times,
            tally: self.tally,
            next: AtomicU64::new(0),
            turn: self.index as f64 / self.parts as f64,
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
    /// So many deliveries, the first ones, are signed already.
    signed: u64,
    /// What is the same at the end of all bodies.
    filling: Bytes,
    times: Times,
    tally: Arc<Mutex<Tally>>,
    /// Deliveries of this part that were taken.
    next: AtomicU64,
    /// Parts take turns: how much of its interval passes before the first of this part is due.
    turn: f64,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no thread panicked")
    }

    /// Sends the `nth` delivery of this part and counts what becomes of it; whether it was answered.
    async fn deliver(&self, sender: &mut Sender, nth: u64, due: Instant) -> bool {
        let is_measured = due >= self.times.measured_from();
        let sent = Instant::now();
        if is_measured {
            self.tally().begin(due, sent, nth < self.signed);
        }
        let result = self.exchange(sender, nth, sent + self.times.timeout).await;
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
        sender: &mut Sender,
        nth: u64,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        self.maker.lock().expect("no thread panicked").make(nth, &mut sender.request);
        let mut kept = sender.connection.take();
        // The other side may have closed it since.
        if let Some(idle) = &mut kept
            && idle.has_ended().await
        {
            kept = None;
        }
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect(deadline).await?,
        };
        let exchange = connection.exchange(&sender.request, &self.filling, deadline);
        let (answer, is_open) = exchange.await?;
        sender.connection = is_open.then_some(connection);
        Ok(answer)
    }

    async fn connect(&self, deadline: Instant) -> Result<Connection, Failure> {
        let connecting = timeout_at(deadline.into(), self.target.connect());
        let stream = connecting.await.map_err(|_| Failure::timeout())?.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::TimedOut => ErrorKind::Timeout,
                _ => ErrorKind::Connect,
            };
            Failure { kind, text: error.to_string() }
        })?;
        self.tally().connections += 1;
        Ok(Connection::over(stream, deadline))
    }
}

/// What sends one delivery after the other.
#[derive(Default)]
struct Sender {
    connection: Option<Connection>,
    /// The bytes of its delivery, up to the filling.
    request: Vec<u8>,
}

async fn closed(shared: Arc<Shared>, _working: mpsc::Sender<()>) {
    let mut sender = Sender::default();
    loop {
        let now = Instant::now();
        if now >= shared.times.end() {
            return;
        }
        let nth = shared.next.fetch_add(1, Ordering::Relaxed);
        if !shared.deliver(&mut sender, nth, now).await {
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
            total: (whole.as_secs_f64() * rate - shared.turn - 1e-6).ceil() as u64,
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
        shared.times.start + Duration::from_secs_f64((nth as f64 + shared.turn) / self.rate)
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
    let mut sender = Sender::default();
    let mut is_starting = true;
    let last = shared.times.end() + shared.times.timeout;
    loop {
        let permit = due.permits.acquire();
        let mut permit = pin!(permit);
        while let Some(idle) = &mut sender.connection {
            tokio::select! {
                biased;
                permit = permit.as_mut() => {
                    permit.expect("never closed").forget();
                    break;
                }
                () = idle.ended() => sender.connection = None,
            }
        }
        if sender.connection.is_none() {
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
            shared.deliver(&mut sender, nth, at).await;
        }
    }
}
