//! The deliveries of one hook, with a spool: none that the host was told 2xx about is lost.
//!
//! 1. One that upstream has had already is answered and not sent.
//! 2. One behind which others of its repository wait in the spool queues up there. Those of one repository
//!    that come at the same time go one after the other, since the first may fail.
//! 3. One that comes within the interval of another waits in the spool until the interval ends.
//! 4. One that comes faster than the hook's rates allow waits in the spool too. It is never refused for that;
//!    if it cannot be stored, it is sent at once.
//! 5. If the service is down or busy, it goes into the spool without being tried.
//! 6. Else it is sent. What the service does not take for the moment goes into the spool, what it
//!    refuses into the dead letters. If there is no answer in time, it is stored, leased to the call
//!    that goes on, and the host hears 202.
//!
//! With `delivery = "spool"` every delivery goes into the spool, and nothing is tried before the host
//! hears of it. A spool that is full is told by 503; one that cannot be used is passed by, so that
//! direct delivery goes on.
//!
//! All this is done in tasks of their own: a host that hangs up does not end it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::{sleep, timeout_at};

use super::answer::Answer;
use super::link::{Link, Permission};
use super::lock;
use super::outgoing::Outgoing;
use super::rates::Rates;
use super::retry;
use super::seen::{Seen, coalesce_key, identity};
use super::sender::Sender;
use crate::clock::{Clock, SystemClock};
use crate::outcome::Outcome;
use crate::pace::{Arrival, CoalesceKey, Intervals, Pending};
use crate::proxy::config::{DeliveryMode, Paces};
use crate::proxy::spool::{
    Appended, Lease, Leased, Nacked, Record, RecordId, Spool, SpoolError, SpoolErrorKind,
};
use crate::proxy::telemetry::{AUDIT_TARGET, SpoolResult, TraceParent};
use crate::proxy::upstream::ForwardHeaders;
use crate::time::Timestamp;

/// Who holds the leases of this process. The state folder is locked, so nobody else has the name.
pub const OWNER: &str = "serve";
/// How long a lease lasts that is not renewed; it is, after half of that.
pub(super) const LEASE: Duration = Duration::from_secs(60);
/// Whoever has a lane is in the spool by his own deadline, which is before that of those who wait for it.
const LANE_GRACE: Duration = Duration::from_millis(300);
/// An interval of which no more is left is over: the spool counts in milliseconds, and by another clock.
const SLACK: Duration = Duration::from_millis(20);
/// Lanes, and deliveries that wait and would be known again, before what is no longer of use is looked for.
const MANY: usize = 16_384;
const OVER_RATE: &str = "over the rate";

type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Takes in the deliveries of one hook.
pub struct Durable {
    hook: String,
    spool: Arc<dyn Spool>,
    settings: ArcSwap<Settings>,
    seen: ArcSwap<Seen>,
    intervals: Mutex<Option<Intervals>>,
    rates: Mutex<Rates>,
    /// Held by whoever sends a delivery of the repository directly.
    lanes: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Those in the spool, to be remembered when they arrive. What this process does not remember is
    /// sent once more.
    waiting: Mutex<HashMap<RecordId, Pending>>,
    running: Running,
}

/// How the deliveries of a hook are sent.
#[derive(Debug)]
pub struct Settings {
    /// Where they go.
    pub sender: Sender,
    /// How often.
    pub paces: Paces,
    /// Whether they are tried at once.
    pub mode: DeliveryMode,
    /// The time by which the host hears of it.
    pub answer_within: Duration,
    /// After this time a delivery is given up that does not arrive.
    pub max_age: Duration,
    /// The way to the service.
    pub link: Arc<Link>,
}

/// Something that is to be finished before the process ends. Clones count as well.
#[derive(Clone, Debug)]
pub struct Running {
    _held: mpsc::Sender<Infallible>,
}

impl Running {
    /// And what waits until it and all of its clones are dropped.
    pub fn new() -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel::<Infallible>(1);
        (Self { _held: sender }, async move { while receiver.recv().await.is_some() {} })
    }
}

/// A delivery that came in.
struct Parcel {
    outgoing: Outgoing,
    received_at: Timestamp,
    /// Where the hook coalesces.
    key: Option<CoalesceKey>,
    pending: Mutex<Option<Pending>>,
}

impl Durable {
    /// For a hook of this name. `running` is held by whatever is under way.
    pub fn new(
        hook: impl Into<String>,
        spool: Arc<dyn Spool>,
        settings: Settings,
        running: Running,
    ) -> Self {
        let hook = hook.into();
        Self {
            spool,
            seen: ArcSwap::from_pointee(Seen::new(&hook, settings.paces.dedupe_window)),
            intervals: Mutex::new(settings.paces.coalesce.clone().map(Intervals::new)),
            rates: Mutex::new(Rates::new(&settings.paces)),
            settings: ArcSwap::from_pointee(settings),
            lanes: Mutex::default(),
            waiting: Mutex::default(),
            running,
            hook,
        }
    }

    /// Sends in another way from now on, also what waits already.
    pub fn update(&self, settings: Settings) {
        let before = self.settings.load_full();
        if before.paces.coalesce != settings.paces.coalesce {
            *lock(&self.intervals) = settings.paces.coalesce.clone().map(Intervals::new);
        }
        let of = |paces: &Paces| (paces.rate, paces.repository_rate);
        if of(&before.paces) != of(&settings.paces) {
            *lock(&self.rates) = Rates::new(&settings.paces);
        }
        if before.paces.dedupe_window != settings.paces.dedupe_window {
            let seen = Seen::new(&self.hook, settings.paces.dedupe_window);
            self.seen.store(Arc::new(seen));
        }
        self.settings.store(Arc::new(settings));
    }

    /// The hook's name.
    pub fn name(&self) -> &str {
        &self.hook
    }

    pub(super) fn running(&self) -> Running {
        self.running.clone()
    }

    /// Takes in a delivery, and says what the host is to be told.
    ///
    /// # Cancel safety
    ///
    /// What was begun goes on when the future is dropped.
    pub(super) async fn take(self: Arc<Self>, outgoing: Outgoing) -> Answer {
        let running = self.running();
        let taken = tokio::spawn(async move {
            let answer = self.decide(outgoing).await;
            drop(running);
            answer
        });
        taken.await.unwrap_or_else(|_| Answer::failed("delivery was given up"))
    }

    async fn decide(self: Arc<Self>, outgoing: Outgoing) -> Answer {
        let settings = self.settings.load_full();
        let deadline = Instant::now() + settings.answer_within;
        let pending = match self.seen.load().arrived(&outgoing) {
            Some(Arrival::Duplicate) => return Answer::new(Outcome::Duplicate),
            Some(Arrival::New(pending)) => Some(pending),
            None => None,
        };
        let paces = &settings.paces;
        let coalesces = paces.coalesce.is_some();
        let parcel = Arc::new(Parcel {
            received_at: SystemClock.now(),
            key: coalesce_key(&self.hook, paces.coalesce_by, &outgoing).filter(|_| coalesces),
            pending: Mutex::new(pending),
            outgoing,
        });
        if settings.mode == DeliveryMode::Spool {
            let hold = Hold::new(self.wait(&parcel), "sent from the spool");
            return match self.queue(&settings, &parcel, hold).await {
                Ok(answer) => answer,
                Err(error) if is_full(&error) => Answer::overloaded(error.to_string()),
                Err(_) => {
                    let permission = settings.link.insist();
                    self.send(settings, parcel, permission, deadline, None).await
                }
            };
        }
        self.decide_directly(settings, parcel, deadline).await
    }

    async fn decide_directly(
        self: Arc<Self>,
        settings: Arc<Settings>,
        parcel: Arc<Parcel>,
        deadline: Instant,
    ) -> Answer {
        let repository = parcel.outgoing.repository();
        let lane = match repository {
            None => None,
            Some(repository) => {
                let lane = self.lane(repository);
                match timeout_at((deadline + LANE_GRACE).into(), lane.lock_owned()).await {
                    Ok(lane) => Some(lane),
                    // Others that wait for it are many; the one that was sent is in the spool.
                    Err(_) => return self.queue_behind(&settings, &parcel).await,
                }
            }
        };
        if let Some(repository) = repository
            && self.spool.has_pending(&self.hook, repository).await.unwrap_or(false)
        {
            return self.queue_behind(&settings, &parcel).await;
        }
        if let Some(hold) = self.hold(&parcel)
            && let Ok(answer) = self.queue(&settings, &parcel, hold).await
        {
            return answer;
        }
        let permission = match settings.link.permission() {
            Some(permission) => permission,
            None => {
                let reason =
                    if settings.link.is_up() { "upstream is busy" } else { "upstream is down" };
                match self.queue(&settings, &parcel, Hold::new(Duration::ZERO, reason)).await {
                    Ok(answer) => return answer,
                    Err(error) if is_full(&error) => return Answer::overloaded(error.to_string()),
                    Err(_) => settings.link.insist(),
                }
            }
        };
        self.send(settings, parcel, permission, deadline, lane).await
    }

    /// Stores one whose turn comes after others of its repository.
    async fn queue_behind(&self, settings: &Settings, parcel: &Parcel) -> Answer {
        let reason = "earlier deliveries of its repository wait";
        let queued = self.queue(settings, parcel, Hold::new(self.wait(parcel), reason));
        // It must not overtake them, so it cannot be sent either.
        queued.await.unwrap_or_else(|error| Answer::overloaded(error.to_string()))
    }

    /// Stores one that is to be sent later.
    async fn queue(
        &self,
        settings: &Settings,
        parcel: &Parcel,
        hold: Hold,
    ) -> Result<Answer, SpoolError> {
        let Hold { interval, rate, reason } = hold;
        let not_before = SystemClock.now().saturating_add(interval.max(rate));
        let appended = self.append(settings, parcel, not_before).await?;
        Ok(match appended {
            Appended::Identical(_) => Answer::queued("the same delivery waits already"),
            _ if !interval.is_zero() => Answer::new(Outcome::Coalesced),
            _ => Answer::queued(reason),
        })
    }

    async fn append(
        &self,
        settings: &Settings,
        parcel: &Parcel,
        not_before: Timestamp,
    ) -> Result<Appended, SpoolError> {
        let record = self.record(settings, parcel, not_before);
        let appended = self.spool.append(record).await;
        let appended = appended.inspect_err(|error| self.not_stored("waiting", parcel, error))?;
        self.remember(appended.id(), parcel);
        settings.link.wake();
        Ok(appended)
    }

    fn not_stored(&self, what: &str, parcel: &Parcel, error: &SpoolError) {
        let delivery = parcel.outgoing.id();
        tracing::error!(%delivery, hook = self.hook, %error, "{what} delivery cannot be stored");
    }

    /// Calls the service, and tells the host by `deadline`. The lane is free again when the delivery is in the
    /// spool or is not to go there.
    async fn send(
        self: Arc<Self>,
        settings: Arc<Settings>,
        parcel: Arc<Parcel>,
        permission: Permission,
        deadline: Instant,
        lane: Option<OwnedMutexGuard<()>>,
    ) -> Answer {
        let began = Instant::now();
        self.began(parcel.key.as_ref(), parcel.outgoing.repository(), began);
        let mut call: Call = {
            let (settings, parcel) = (settings.clone(), parcel.clone());
            Box::pin(async move { settings.sender.deliver(&parcel.outgoing).await })
        };
        let answer = match timeout_at(deadline.into(), &mut call).await {
            Ok(answer) => answer,
            Err(_) => {
                let record = self.record(&settings, &parcel, parcel.received_at);
                let until = SystemClock.now().saturating_add(LEASE);
                match self.spool.append_leased(record, OWNER, until).await {
                    Ok(lease) => {
                        self.remember(lease.id(), &parcel);
                        let running = self.running();
                        tokio::spawn(async move {
                            self.finish(&settings, &parcel, permission, lease, call, began).await;
                            drop(running);
                        });
                        return Answer::queued("upstream has not answered yet");
                    }
                    Err(error) => {
                        self.not_stored("late", &parcel, &error);
                        call.await
                    }
                }
            }
        };
        permission.report(&answer);
        let answer = if answer.is_success() {
            self.seen.load().accepted(lock(&parcel.pending).take());
            answer
        } else {
            self.failed(parcel.key.as_ref(), began);
            self.keep(&settings, &parcel, answer).await
        };
        drop(lane);
        answer
    }

    /// What the service did not take: stored to be tried again, or set aside.
    async fn keep(&self, settings: &Settings, parcel: &Parcel, answer: Answer) -> Answer {
        let reason = answer.reason.clone().unwrap_or_default();
        let now = SystemClock.now();
        if answer.is_final {
            let record = self.record(settings, parcel, now);
            let lease = self.spool.append_leased(record, OWNER, now.saturating_add(LEASE)).await;
            let kept = match lease {
                Ok(lease) => self.spool.dead_letter(&lease, &reason, now).await,
                Err(error) => Err(error),
            };
            return match kept {
                Ok(()) => {
                    settings.sender.metrics.spooled(SpoolResult::Dead);
                    settings.link.wake();
                    answer.turned(Outcome::SetAside)
                }
                Err(error) => {
                    self.not_stored("refused", parcel, &error);
                    answer
                }
            };
        }
        let pause = retry::pause(1, answer.retry_after);
        match self.append(settings, parcel, now.saturating_add(pause)).await {
            Ok(_) => answer.turned(Outcome::Queued),
            Err(error) if is_full(&error) => answer.turned(Outcome::Overloaded),
            Err(_) => answer,
        }
    }

    /// Waits for a call that was late, and does what follows.
    async fn finish(
        &self,
        settings: &Settings,
        parcel: &Parcel,
        permission: Permission,
        mut lease: Lease,
        call: Call,
        began: Instant,
    ) {
        let answer = self.while_leased(&mut lease, call).await;
        permission.report(&answer);
        if !answer.is_success() {
            self.failed(parcel.key.as_ref(), began);
        }
        let delivery = parcel.outgoing.id();
        let repository = parcel.outgoing.repository();
        let attempt = Attempt {
            delivery: &delivery,
            repository,
            trace: Some(parcel.outgoing.trace.to_parent()),
            number: 1,
            since: parcel.received_at,
        };
        self.conclude(settings, &lease, attempt, &answer).await;
        // It is to be tried again, or its repository has more.
        settings.link.wake();
    }

    /// Sends one that waited in the spool.
    pub(super) async fn send_again(&self, leased: Leased, permission: Permission) {
        let Leased { mut lease, entry, content } = leased;
        let settings = self.settings.load_full();
        let about = &entry.about;
        let attempt = Attempt {
            delivery: &about.delivery,
            repository: about.repository.as_deref(),
            trace: TraceParent::of(&content.headers),
            number: entry.attempts,
            since: entry.queued_at,
        };
        let answer = match Outgoing::stored(about, content, &settings.sender.parse_options) {
            Err(reason) => Answer::refused(reason),
            Ok(outgoing) => {
                let paces = &settings.paces;
                let key = coalesce_key(&self.hook, paces.coalesce_by, &outgoing);
                let began = Instant::now();
                let waited = SystemClock.now().since(entry.queued_at);
                let most = paces.coalesce.as_ref().map_or(Duration::ZERO, |pace| pace.max_wait);
                let left = self.interval_left(key.as_ref(), began).min(most.saturating_sub(waited));
                if about.coalescing_key.is_some() && left > SLACK {
                    drop(permission);
                    return self.hold_again(&lease, left, "held back").await;
                }
                let over = lock(&self.rates).due(attempt.repository, began, SLACK);
                if let Some(over) = over {
                    drop(permission);
                    return self.hold_again(&lease, over, OVER_RATE).await;
                }
                self.began(key.as_ref(), attempt.repository, began);
                let call = settings.sender.deliver(&outgoing);
                let answer = self.while_leased(&mut lease, call).await;
                if !answer.is_success() {
                    self.failed(key.as_ref(), began);
                }
                answer
            }
        };
        permission.report(&answer);
        self.conclude(&settings, &lease, attempt, &answer).await;
    }

    /// Gives back one whose time has not come: it was not known before that it has to wait, or for how long.
    async fn hold_again(&self, lease: &Lease, left: Duration, reason: &str) {
        let now = SystemClock.now();
        let retry_at = now.saturating_add(left);
        match self.spool.nack(lease, retry_at, reason, now).await {
            Ok(Nacked::Superseded(_)) => {
                lock(&self.waiting).remove(&lease.id());
            }
            Ok(_) => {}
            // It will be sent when the lease ends.
            Err(error) => {
                tracing::warn!(hook = self.hook, %error, "a delivery cannot be held back");
            }
        }
    }

    /// Says to the spool and the log what became of one that was leased.
    async fn conclude(
        &self,
        settings: &Settings,
        lease: &Lease,
        attempt: Attempt<'_>,
        answer: &Answer,
    ) {
        let now = SystemClock.now();
        let reason = answer.reason.as_deref().unwrap_or_default();
        let pending = lock(&self.waiting).remove(&lease.id());
        let is_old = now.since(attempt.since) >= settings.max_age;
        let (outcome, concluded) = if answer.is_success() {
            self.seen.load().accepted(pending);
            let acked = self.spool.ack(lease, now).await;
            (answer.outcome, acked.map(|()| SpoolResult::Delivered))
        } else if answer.is_final || is_old {
            let dead = self.spool.dead_letter(lease, reason, now).await;
            (Outcome::SetAside, dead.map(|()| SpoolResult::Dead))
        } else {
            let retry_at = now.saturating_add(retry::pause(attempt.number, answer.retry_after));
            let nacked = self.spool.nack(lease, retry_at, reason, now).await;
            if let (Ok(Nacked::Waiting), Some(pending)) = (&nacked, pending) {
                lock(&self.waiting).insert(lease.id(), pending);
            }
            let result = nacked.map(|nacked| match nacked {
                Nacked::Waiting => SpoolResult::Retried,
                Nacked::Superseded(_) => SpoolResult::Superseded,
            });
            (Outcome::UpstreamFailed, result)
        };
        tracing::info!(
            target: AUDIT_TARGET,
            {
                hook.name = self.hook,
                delivery.id = attempt.delivery,
                delivery.repository = attempt.repository,
                trace_id = attempt.trace.map(|trace| tracing::field::display(trace.trace_id)),
                span_id = attempt.trace.map(|trace| tracing::field::display(trace.parent_id)),
                outcome = outcome.as_str(),
                reason = answer.reason.as_deref(),
                attempt = attempt.number,
                waited = now.since(attempt.since).as_millis() as u64,
            },
            "Delivery sent from the spool"
        );
        match concluded {
            Ok(result) => {
                settings.sender.metrics.spooled(result);
                if result == SpoolResult::Dead {
                    let delivery = attempt.delivery;
                    tracing::error!(%delivery, hook = self.hook, reason, "delivery is set aside");
                }
            }
            // It will be sent again, when the lease ends or the spool can be used.
            Err(error) => {
                let delivery = attempt.delivery;
                tracing::warn!(%delivery, hook = self.hook, %error, "what became of a delivery cannot be stored");
            }
        }
    }

    /// Keeps the lease while `work` goes on.
    async fn while_leased(&self, lease: &mut Lease, work: impl Future<Output = Answer>) -> Answer {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                answer = &mut work => return answer,
                () = sleep(LEASE / 2) => {
                    let until = SystemClock.now().saturating_add(LEASE);
                    match self.spool.renew(lease, until).await {
                        Ok(renewed) => *lease = renewed,
                        Err(error) => {
                            tracing::warn!(hook = self.hook, %error, "a lease cannot be renewed");
                        }
                    }
                }
            }
        }
    }

    fn record(&self, settings: &Settings, parcel: &Parcel, not_before: Timestamp) -> Record {
        let Parcel { outgoing, received_at, key, .. } = parcel;
        let mut about = outgoing.about(&self.hook, *received_at);
        about.identity = identity(&self.hook, outgoing).map(|identity| *identity.as_bytes());
        about.coalescing_key = key.as_ref().map(CoalesceKey::to_word);
        let Sender { target, parse_options, .. } = &settings.sender;
        let none = ForwardHeaders::default();
        let forward = target.as_ref().map_or(&none, |target| &target.forward_headers);
        let signature = target.as_ref().and_then(|target| target.generic_header.as_ref());
        Record { about, content: outgoing.content(forward, signature, parse_options), not_before }
    }

    /// To know it again when it has arrived.
    fn remember(&self, id: RecordId, parcel: &Parcel) {
        if let Some(pending) = lock(&parcel.pending).take() {
            let mut waiting = lock(&self.waiting);
            if waiting.len() >= MANY {
                // What is forgotten is sent once more if it comes again.
                waiting.clear();
            }
            waiting.insert(id, pending);
        }
    }

    fn lane(&self, repository: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.get(repository) {
            return lane.clone();
        }
        if lanes.len() >= MANY {
            // Those that nobody has or waits for.
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        lanes.entry(repository.to_owned()).or_default().clone()
    }

    /// Why one that could be sent now is not to be.
    fn hold(&self, parcel: &Parcel) -> Option<Hold> {
        let interval = self.wait(parcel);
        if !interval.is_zero() {
            return Some(Hold::new(interval, "held back"));
        }
        let rate = lock(&self.rates).arrived(parcel.outgoing.repository(), Instant::now());
        (!rate.is_zero()).then_some(Hold { interval, rate, reason: OVER_RATE })
    }

    fn wait(&self, parcel: &Parcel) -> Duration {
        let intervals = lock(&self.intervals);
        let wait = intervals.as_ref().zip(parcel.key.as_ref());
        wait.map_or(Duration::ZERO, |(intervals, key)| intervals.wait(key, Instant::now()))
    }

    fn interval_left(&self, key: Option<&CoalesceKey>, now: Instant) -> Duration {
        let intervals = lock(&self.intervals);
        let left = intervals.as_ref().zip(key);
        left.map_or(Duration::ZERO, |(intervals, key)| intervals.left(key, now))
    }

    fn began(&self, key: Option<&CoalesceKey>, repository: Option<&str>, began: Instant) {
        lock(&self.rates).began(repository, began);
        if let (Some(intervals), Some(key)) = (&mut *lock(&self.intervals), key) {
            intervals.began(key, began);
        }
    }

    fn failed(&self, key: Option<&CoalesceKey>, began: Instant) {
        if let (Some(intervals), Some(key)) = (&mut *lock(&self.intervals), key) {
            intervals.failed(key, began);
        }
    }
}

/// For how long and why a delivery is kept back.
struct Hold {
    /// Until the interval of another one ends.
    interval: Duration,
    /// Until the rates allow it.
    rate: Duration,
    reason: &'static str,
}

impl Hold {
    fn new(interval: Duration, reason: &'static str) -> Self {
        Self { interval, rate: Duration::ZERO, reason }
    }
}

/// One attempt to send a delivery of the spool.
struct Attempt<'a> {
    delivery: &'a str,
    repository: Option<&'a str>,
    /// That of the request that brought it.
    trace: Option<TraceParent>,
    number: u32,
    since: Timestamp,
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable").field("hook", &self.hook).finish_non_exhaustive()
    }
}

fn is_full(error: &SpoolError) -> bool {
    matches!(error.kind(), SpoolErrorKind::Full(_))
}
