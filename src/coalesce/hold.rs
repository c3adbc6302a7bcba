//! A [`Coalescer`] with a clock: what is held comes out when its time has come.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::pace::{CoalesceKey, Coalescer, Decision, Due, Pace, Sending};

/// Held deliveries that are sent at the same time.
const MAX_SENDING: u32 = 32;
/// The first pause before a held delivery is tried again; it doubles, to a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// What is held back, in memory.
pub(crate) struct Hold<T> {
    coalescer: Mutex<Coalescer<T>>,
    /// Something may be due earlier than it was.
    changed: Notify,
    sending: Arc<Semaphore>,
}

impl<T> Hold<T> {
    /// With nothing in it.
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            coalescer: Mutex::new(Coalescer::new(pace)),
            changed: Notify::new(),
            sending: Arc::new(Semaphore::new(MAX_SENDING as usize)),
        }
    }

    /// Takes in what came now.
    pub(crate) fn offer(&self, key: CoalesceKey, item: T) -> Decision<T> {
        let decision = self.coalescer().offer(key, item, now());
        if let Decision::Held { .. } = decision {
            self.changed.notify_one();
        }
        decision
    }

    /// What was to be sent was taken.
    pub(crate) fn succeeded(&self, sending: Sending) {
        self.coalescer().succeeded(sending);
        self.changed.notify_one();
    }

    /// What was to be sent was not taken. With an `item` it is due again after the pause, unless one that is
    /// held goes in its place; without, it is over.
    pub(crate) fn failed(&self, sending: Sending, item: Option<T>, pause: Duration) {
        // Dropped only when the lock is free again.
        let covered = self.coalescer().failed(sending, item, now() + pause);
        self.changed.notify_one();
        drop(covered);
    }

    /// How much is held.
    pub(crate) fn len(&self) -> usize {
        self.coalescer().len()
    }

    /// The next that is due, when it is, and the right to send it; `None` as soon as nothing is held.
    ///
    /// For one caller at a time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes nothing out.
    pub(crate) async fn next(&self) -> Option<(Due<T>, OwnedSemaphorePermit)> {
        loop {
            let permit = self.sending.clone().acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            let next = {
                let mut coalescer = self.coalescer();
                if let Some(due) = coalescer.take_due(now()) {
                    return Some((due, permit));
                }
                coalescer.next_due()?
            };
            drop(permit);
            // Either is a reason to look again.
            let _ = timeout_at(next.into(), self.changed.notified()).await;
        }
    }

    /// Waits until something may have changed.
    #[cfg(feature = "sidecar")]
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until nothing that was held is being sent; [`next`](Self::next) gives nothing as long as what
    /// this gives is kept.
    pub(crate) async fn pause(&self) -> OwnedSemaphorePermit {
        let permits = self.sending.clone().acquire_many_owned(MAX_SENDING).await;
        permits.expect("the semaphore is never closed")
    }

    /// All that is held, in order, whatever its time.
    pub(crate) fn drain(&self) -> Vec<Due<T>> {
        let all = self.coalescer().drain(now());
        self.changed.notify_one();
        all
    }

    fn coalescer(&self) -> MutexGuard<'_, Coalescer<T>> {
        self.coalescer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Hold<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// How long to wait after so many attempts before this one.
pub(crate) fn retry_pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.min(6)).min(LAST_PAUSE)
}

/// Statuses after which the same request may be taken another time.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    const TOO_EARLY: u16 = 425;
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        || status.as_u16() == TOO_EARLY
}

/// By tokio's clock, which tests can stop.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
