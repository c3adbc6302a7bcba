//! When deliveries of one hook are sent: what was sent already is not sent again, and bursts are
//! brought together. The rules are in [`pace`](crate::pace); here are the clock and the tasks.
//!
//! What is held is in memory. It is sent when its time comes, tried again until upstream takes it, and
//! sent at once when the gate stops.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep_until;

use super::answer::Answer;
use super::outgoing::Outgoing;
use super::sender::Sender;
use crate::event::Kind;
use crate::outcome::Outcome;
use crate::pace::{
    Arrival, ChangedRefs, CoalesceKey, Coalescer, Decision, Due, Duplicates, Identity, Pending,
};
use crate::provider::Provider;
use crate::proxy::config::Paces;
use crate::proxy::telemetry::AUDIT_TARGET;

/// Refs whose last delivery is remembered for finding duplicates; about 200 bytes each.
const MAX_REFS: usize = 65_536;
/// Held deliveries that are sent at the same time.
const MAX_SENDING: usize = 32;
/// The first pause before a held delivery is tried again; it doubles, to a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Decides when the deliveries of one hook are sent.
pub struct Pacer {
    hook: String,
    paces: Paces,
    sender: ArcSwap<Sender>,
    coalescer: Option<Mutex<Coalescer<Held>>>,
    duplicates: Option<Mutex<Duplicates>>,
    /// Something may be due earlier than it was.
    changed: Notify,
    sending: Arc<Semaphore>,
}

/// A delivery that is or can be held.
struct Held {
    outgoing: Outgoing,
    pending: Option<Pending>,
    attempts: u32,
}

impl Pacer {
    /// For a hook. Nothing that is held goes before [`run`](Self::run) runs.
    pub fn new(hook: impl Into<String>, paces: Paces, sender: Sender) -> Self {
        let coalescer = paces.coalesce.clone().map(|pace| Mutex::new(Coalescer::new(pace)));
        let window = paces.dedupe_window;
        Self {
            hook: hook.into(),
            sender: ArcSwap::from_pointee(sender),
            coalescer,
            duplicates: (!window.is_zero()).then(|| Mutex::new(Duplicates::new(window, MAX_REFS))),
            changed: Notify::new(),
            sending: Arc::new(Semaphore::new(MAX_SENDING)),
            paces,
        }
    }

    /// What it was made with.
    pub fn paces(&self) -> &Paces {
        &self.paces
    }

    /// Sends elsewhere from now on, also what is held already.
    pub fn redirect(&self, sender: Sender) {
        self.sender.store(Arc::new(sender));
    }

    /// How many deliveries are held.
    pub fn held(&self) -> usize {
        self.coalescer.as_ref().map_or(0, |coalescer| lock(coalescer).len())
    }

    /// Sends what is held when its time comes, as long as somebody else has the pacer too.
    pub async fn run(pacer: Weak<Self>) {
        loop {
            let Some(this) = pacer.upgrade() else { return };
            let Some(coalescer) = &this.coalescer else { return };
            while let Some(due) = { lock(coalescer).take_due(Instant::now()) } {
                this.clone().spawn(due).await;
            }
            let next = lock(coalescer).next_due();
            let changed = this.changed.notified();
            match next {
                // Looked at again after a while in any case, to see whether it is still wanted.
                None => {
                    let _ = tokio::time::timeout(LAST_PAUSE, changed).await;
                }
                Some(next) => {
                    tokio::select! {
                        () = sleep_until(next.min(Instant::now() + LAST_PAUSE).into()) => {}
                        () = changed => {}
                    }
                }
            }
        }
    }

    /// Sends what is held when its time comes, and ends when nothing is: for a pacer in whose place
    /// another one is.
    pub async fn finish(self: Arc<Self>) {
        while self.held() > 0 {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    /// Sends all that is held, in order, and says how many did not get through.
    ///
    /// # Cancel safety
    ///
    /// What was not sent when it is dropped is lost.
    pub async fn flush(&self) -> usize {
        let Some(coalescer) = &self.coalescer else { return 0 };
        let all = lock(coalescer).drain(Instant::now());
        let mut lost = 0;
        for due in all {
            if !self.sender.load_full().deliver(&due.item.outgoing).await.is_success() {
                lost += 1;
                let delivery = due.item.outgoing.id();
                tracing::error!(%delivery, hook = self.hook, "held delivery is lost as the gate stops");
            }
            lock(coalescer).succeeded(due.sending);
        }
        lost
    }

    /// Takes in a delivery, and says what the host is to be told.
    pub(super) async fn take(self: Arc<Self>, outgoing: Outgoing) -> Answer {
        let pending = match self.arrived(&outgoing) {
            Some(Arrival::Duplicate) => return Answer::new(Outcome::Duplicate),
            Some(Arrival::New(pending)) => Some(pending),
            None => None,
        };
        let held = Held { outgoing, pending, attempts: 0 };
        let (Some(coalescer), Some(key)) = (&self.coalescer, self.key(&held.outgoing)) else {
            return self.send(held).await;
        };
        // Bound to a name, or the lock would be held until the end of the match.
        let decision = lock(coalescer).offer(key, held, Instant::now());
        match decision {
            Decision::SendNow(due) => {
                // In a task of its own, so that it ends and is reported also when the host hangs up.
                let sent = tokio::spawn(self.clone().first(due));
                sent.await.unwrap_or_else(|_| Answer::failed("delivery was given up"))
            }
            Decision::Held { .. } => {
                self.changed.notify_one();
                Answer::new(Outcome::Coalesced)
            }
            // Rather one more than one less.
            Decision::Full(held) => self.send(held).await,
        }
    }

    /// Sends one that nobody waits for or waits with.
    async fn send(&self, held: Held) -> Answer {
        let answer = self.sender.load_full().deliver(&held.outgoing).await;
        self.accepted(held.pending, &answer);
        answer
    }

    /// Sends the first of a burst; the host waits for the answer.
    async fn first(self: Arc<Self>, due: Due<Held>) -> Answer {
        let Due { item, sending } = due;
        let answer = self.send(item).await;
        if let Some(coalescer) = &self.coalescer {
            if answer.is_success() {
                lock(coalescer).succeeded(sending);
            } else {
                // The host hears of it, so nobody is owed anything, and the interval is not eaten.
                let _ = lock(coalescer).failed(sending, None, Instant::now());
            }
        }
        self.changed.notify_one();
        answer
    }

    /// Sends one that was held, in a task of its own.
    async fn spawn(self: Arc<Self>, due: Due<Held>) {
        let Ok(permit) = self.sending.clone().acquire_owned().await else { return };
        tokio::spawn(async move {
            self.later(due).await;
            drop(permit);
        });
    }

    async fn later(&self, due: Due<Held>) {
        let Due { mut item, sending } = due;
        let answer = self.sender.load_full().deliver(&item.outgoing).await;
        let delivery = item.outgoing.id().into_owned();
        tracing::info!(
            target: AUDIT_TARGET,
            {
                hook.name = self.hook,
                delivery.id = %delivery,
                delivery.repository = item.outgoing.repository(),
                outcome = answer.outcome.as_str(),
                reason = answer.reason.as_deref(),
                attempt = item.attempts + 1
            },
            "Held delivery sent"
        );
        let Some(coalescer) = &self.coalescer else { return };
        if answer.is_success() {
            self.accepted(item.pending.take(), &answer);
            lock(coalescer).succeeded(sending);
        } else if answer.is_final {
            tracing::error!(%delivery, hook = self.hook, "held delivery is given up: upstream refuses it");
            let _ = lock(coalescer).failed(sending, None, Instant::now());
        } else {
            let pause = FIRST_PAUSE.saturating_mul(1 << item.attempts.min(6)).min(LAST_PAUSE);
            let pause = answer.retry_after.map_or(pause, |after| after.max(pause));
            item.attempts = item.attempts.saturating_add(1);
            let covered = lock(coalescer).failed(sending, Some(item), Instant::now() + pause);
            // A newer one goes in its place.
            drop(covered);
        }
        self.changed.notify_one();
    }

    /// Whether the delivery was there before. `None` where that is not asked.
    fn arrived(&self, outgoing: &Outgoing) -> Option<Arrival> {
        let duplicates = self.duplicates.as_ref()?;
        let event = outgoing.delivery.event()?;
        // What is no change of refs neither repeats one nor comes between two.
        if event.kind != Kind::Push {
            return None;
        }
        let changed = ChangedRefs::new(&self.hook, outgoing.repository()?, outgoing.refs());
        let has_ids = event.refs.iter().any(|change| change.old.is_some() || change.new.is_some());
        if !has_ids {
            lock(duplicates).arrived_without_ids(&changed);
            return None;
        }
        let delivery = &outgoing.delivery;
        // Only Standard Webhooks signs its id.
        let id = delivery.id().filter(|_| {
            delivery.provider() == Provider::StandardWebhooks
                || outgoing.headers.contains_key("webhook-signature")
        });
        let identity = Identity::new(&self.hook, id, delivery.digest());
        Some(lock(duplicates).arrived(identity, changed, Instant::now()))
    }

    fn accepted(&self, pending: Option<Pending>, answer: &Answer) {
        if let (Some(duplicates), Some(pending)) = (&self.duplicates, pending)
            && answer.is_success()
        {
            lock(duplicates).accepted(pending, Instant::now());
        }
    }

    /// `None` for what has no repository, and so is never held.
    fn key(&self, outgoing: &Outgoing) -> Option<CoalesceKey> {
        let event = outgoing.delivery.event()?;
        let (by, kind) = (self.paces.coalesce_by, event.kind.as_str());
        Some(CoalesceKey::new(by, &self.hook, outgoing.repository()?, kind, outgoing.refs()))
    }
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer").field("hook", &self.hook).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The rules check themselves and leave nothing half done that matters to another delivery.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
