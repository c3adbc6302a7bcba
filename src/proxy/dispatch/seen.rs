//! Which deliveries of a hook upstream has had already. The rule is in [`pace`](crate::pace).

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;
use super::outgoing::Outgoing;
use crate::coalesce;
use crate::event::Kind;
use crate::pace::{Arrival, ChangedRefs, CoalesceKey, Duplicates, Identity, KeyBy, Pending};
use crate::provider::Provider;

/// Refs whose last delivery is remembered for finding duplicates; about 200 bytes each.
const MAX_REFS: usize = 65_536;

pub(super) struct Seen {
    hook: String,
    /// None where the window is zero.
    duplicates: Option<Mutex<Duplicates>>,
}

impl Seen {
    pub(super) fn new(hook: impl Into<String>, window: Duration) -> Self {
        let duplicates = (!window.is_zero()).then(|| Mutex::new(Duplicates::new(window, MAX_REFS)));
        Self { hook: hook.into(), duplicates }
    }

    /// Whether the delivery was there before. `None` where that is not asked.
    pub(super) fn arrived(&self, outgoing: &Outgoing) -> Option<Arrival> {
        let duplicates = self.duplicates.as_ref()?;
        let event = outgoing.delivery.event()?;
        if event.kind == Kind::ReindexAll {
            // Whatever is sent after this tells of a state that the service has not indexed since.
            lock(duplicates).clear();
        }
        // What is no change of refs neither repeats one nor comes between two.
        if event.kind != Kind::Push {
            return None;
        }
        let changed = ChangedRefs::new(&self.hook, outgoing.repository()?, outgoing.refs());
        match identity(&self.hook, outgoing) {
            Some(identity) => Some(lock(duplicates).arrived(identity, changed, Instant::now())),
            None => {
                lock(duplicates).arrived_without_ids(&changed);
                None
            }
        }
    }

    /// Upstream has it.
    pub(super) fn accepted(&self, pending: Option<Pending>) {
        if let (Some(duplicates), Some(pending)) = (&self.duplicates, pending) {
            lock(duplicates).accepted(pending, Instant::now());
        }
    }
}

/// What tells a delivery to `hook` from another; `None` for one that may say something else each time.
pub(super) fn identity(hook: &str, outgoing: &Outgoing) -> Option<Identity> {
    let event = outgoing.delivery.event().filter(|event| event.kind == Kind::Push)?;
    if !event.refs.iter().any(|change| change.old.is_some() || change.new.is_some()) {
        return None;
    }
    let delivery = &outgoing.delivery;
    // Only Standard Webhooks signs its id.
    let id = delivery.id().filter(|_| {
        delivery.provider() == Provider::StandardWebhooks
            || outgoing.headers.contains_key("webhook-signature")
    });
    Some(Identity::new(hook, id, delivery.digest()))
}

/// What it coalesces with; `None` for what has no repository, and so is never held.
pub(super) fn coalesce_key(hook: &str, by: KeyBy, outgoing: &Outgoing) -> Option<CoalesceKey> {
    coalesce::coalesce_key(hook, by, &outgoing.delivery)
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").field("hook", &self.hook).finish_non_exhaustive()
    }
}
