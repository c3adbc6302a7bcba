//! How much one source may have refused; the rules are those of [`Refusals`].
//!
//! A source that has used that up is told 429 where its request would else be told 401, or would have its body
//! read to see whether a signature holds. A good token or URL key is told by the head, so it passes.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::rejection::Rejection;
use crate::delivery::Delivery;
use crate::outcome::Outcome;
use crate::pace::{Rate, Refusals};
use crate::source::{Network, Source};

/// A limit on what each source may have refused, which several gates may share. Clones are the same limit.
#[derive(Clone)]
pub struct RefusalLimit(Arc<Mutex<Refusals<Network>>>);

impl RefusalLimit {
    /// Each source may have so many requests refused.
    pub fn new(rate: Rate) -> Self {
        Self(Arc::new(Mutex::new(Refusals::new(rate))))
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals<Network>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RefusalLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusals().fmt(f)
    }
}

/// One request in the eyes of the limit; of none, if there is no limit or nobody knows where it came from.
pub(super) struct Account(Option<(RefusalLimit, Network)>);

impl Account {
    pub(super) fn new(limit: Option<&RefusalLimit>, source: Option<Source>) -> Self {
        Self(limit.cloned().zip(source.map(Source::network)))
    }

    /// The answer to a request that has shown nothing good yet, if its source has used up what it may have
    /// refused.
    pub(super) fn used_up(&self) -> Option<Rejection> {
        let (limit, source) = self.0.as_ref()?;
        let wait = limit.refusals().wait(*source, now());
        (!wait.is_zero()).then(|| {
            let reason = "too much was refused from this source";
            Rejection::new(Outcome::RateLimited, reason).retry_after(wait)
        })
    }

    /// A head that is refused, and what is answered.
    pub(super) fn refused_by_head(&self, rejection: Rejection) -> Rejection {
        if rejection.outcome() != Outcome::Unauthorized {
            return rejection;
        }
        if let Some(limited) = self.used_up() {
            return limited.provider(rejection.provider_claimed());
        }
        self.refused();
        rejection
    }

    /// A request was refused for its credentials.
    pub(super) fn refused(&self) {
        if let Some((limit, source)) = &self.0 {
            limit.refusals().refused(*source, now());
        }
    }

    /// All of a request is known.
    pub(super) fn judged(&self, verdict: Result<&Delivery, &Rejection>) {
        let Some((limit, source)) = &self.0 else { return };
        let delivery = verdict.map_or_else(Rejection::authentic, Some);
        // A ping that is never signed has no key and proves nothing.
        if delivery.is_some_and(|delivery| delivery.key_name().is_some()) {
            limit.refusals().authentic(*source, now());
        } else if verdict.is_err_and(|rejection| rejection.outcome() == Outcome::Unauthorized) {
            self.refused();
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// In whole seconds, for `Retry-After`.
pub(super) fn seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).clamp(1, u128::from(u32::MAX)) as u64
}
