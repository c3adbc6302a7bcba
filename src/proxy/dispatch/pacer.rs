//! When deliveries of one hook are sent: what was sent already is not sent again, and bursts are
//! brought together. The rules are in [`pace`](crate::pace); here are the clock and the tasks.
//!
//! What is held is in memory. It is sent when its time comes, tried again until upstream takes it, and
//! sent at once when the gate stops.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout;

use super::answer::Answer;
use super::outgoing::Outgoing;
use super::seen::{Seen, coalesce_key};
use super::sender::Sender;
use crate::coalesce::{Hold, retry_pause};
use crate::outcome::Outcome;
use crate::pace::{Arrival, Decision, Due, Pending};
use crate::proxy::config::Paces;
use crate::proxy::telemetry::AUDIT_TARGET;

/// How often it is seen whether a pacer is still wanted, by one that waits for what it holds.
const LOOK: Duration = Duration::from_secs(60);
/// And by one that waits until it holds nothing.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Decides when the deliveries of one hook are sent.
pub struct Pacer {
    hook: String,
    paces: Paces,
    sender: ArcSwap<Sender>,
    hold: Option<Hold<Held>>,
    seen: Seen,
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
        let hold = paces.coalesce.clone().map(Hold::new);
        let hook = hook.into();
        Self {
            seen: Seen::new(&hook, paces.dedupe_window),
            hook,
            sender: ArcSwap::from_pointee(sender),
            hold,
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
        self.hold.as_ref().map_or(0, Hold::len)
    }

    /// Sends what is held when its time comes, as long as somebody else has the pacer too.
    pub async fn run(pacer: Weak<Self>) {
        loop {
            let Some(this) = pacer.upgrade() else { return };
            let Some(hold) = &this.hold else { return };
            match timeout(LOOK, hold.next()).await {
                Ok(Some((due, permit))) => {
                    let this = this.clone();
                    tokio::spawn(async move {
                        this.later(due).await;
                        drop(permit);
                    });
                }
                Ok(None) => drop(timeout(LOOK, hold.changed()).await),
                Err(_) => {}
            }
        }
    }

    /// Sends what is held when its time comes, and ends when nothing is: for a pacer in whose place
    /// another one is.
    pub async fn finish(self: Arc<Self>) {
        while self.held() > 0 {
            tokio::time::sleep(LAST_LOOK).await;
        }
    }

    /// Sends all that is held, in order, and says how many did not get through.
    ///
    /// # Cancel safety
    ///
    /// What was not sent when it is dropped is lost.
    pub async fn flush(&self) -> usize {
        let Some(hold) = &self.hold else { return 0 };
        let mut lost = 0;
        for due in hold.drain() {
            if !self.sender.load_full().deliver(&due.item.outgoing).await.is_success() {
                lost += 1;
                let delivery = due.item.outgoing.id();
                tracing::error!(%delivery, hook = self.hook, "held delivery is lost as the gate stops");
            }
            hold.succeeded(due.sending);
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
        let (Some(hold), Some(key)) =
            (&self.hold, coalesce_key(&self.hook, self.paces.coalesce_by, &held.outgoing))
        else {
            return self.send(held).await;
        };
        match hold.offer(key, held) {
            Decision::SendNow(due) => {
                // In a task of its own, so that it ends and is reported also when the host hangs up.
                let sent = tokio::spawn(self.clone().first(due));
                sent.await.unwrap_or_else(|_| Answer::failed("delivery was given up"))
            }
            Decision::Held { .. } => Answer::new(Outcome::Coalesced),
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
        if let Some(hold) = &self.hold {
            if answer.is_success() {
                hold.succeeded(sending);
            } else {
                // The host hears of it, so nobody is owed anything, and the interval is not eaten.
                hold.failed(sending, None, Duration::ZERO);
            }
        }
        answer
    }

    /// Sends one that was held.
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
        let Some(hold) = &self.hold else { return };
        if answer.is_success() {
            self.seen.accepted(item.pending.take());
            hold.succeeded(sending);
        } else if answer.is_final {
            tracing::error!(%delivery, hook = self.hook, "held delivery is given up: upstream refuses it");
            hold.failed(sending, None, Duration::ZERO);
        } else {
            let pause = retry_pause(item.attempts);
            let pause = answer.retry_after.map_or(pause, |after| after.max(pause));
            item.attempts = item.attempts.saturating_add(1);
            hold.failed(sending, Some(item), pause);
        }
    }
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer").field("hook", &self.hook).finish_non_exhaustive()
    }
}
