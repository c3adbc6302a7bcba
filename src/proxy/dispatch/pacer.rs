//! When deliveries of one hook are sent: what was sent already is not sent again, and bursts are
//! brought together. The rules are in [`pace`](crate::pace); here are the clock and the tasks.
//!
//! What is held is in memory. It is sent when its time comes, tried again until upstream takes it, and
//! sent at once when the gate stops.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep_until;

use super::answer::Answer;
use super::lock;
use super::outgoing::Outgoing;
use super::seen::{Seen, coalesce_key};
use super::sender::Sender;
use crate::outcome::Outcome;
use crate::pace::{Arrival, Coalescer, Decision, Due, Pending};
use crate::proxy::config::Paces;
use crate::proxy::telemetry::AUDIT_TARGET;

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
    seen: Seen,
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
        let hook = hook.into();
        Self {
            seen: Seen::new(&hook, paces.dedupe_window),
            hook,
            sender: ArcSwap::from_pointee(sender),
            coalescer,
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
        let pending = match self.seen.arrived(&outgoing) {
            Some(Arrival::Duplicate) => return Answer::new(Outcome::Duplicate),
            Some(Arrival::New(pending)) => Some(pending),
            None => None,
        };
        let held = Held { outgoing, pending, attempts: 0 };
        let (Some(coalescer), Some(key)) =
            (&self.coalescer, coalesce_key(&self.hook, self.paces.coalesce_by, &held.outgoing))
        else {
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
        if answer.is_success() {
            self.seen.accepted(held.pending);
        }
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
                trace_id = %item.outgoing.trace.trace_id(),
                span_id = %item.outgoing.trace.span_id(),
                outcome = answer.outcome.as_str(),
                reason = answer.reason.as_deref(),
                attempt = item.attempts + 1
            },
            "Held delivery sent"
        );
        let Some(coalescer) = &self.coalescer else { return };
        if answer.is_success() {
            self.seen.accepted(item.pending.take());
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
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer").field("hook", &self.hook).finish_non_exhaustive()
    }
}
