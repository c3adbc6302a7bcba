//! The keys that are in force now, and the watch over the file that they come from.
//!
//! A [`KeyStore`] gives every request the newest good [`Keyring`]. Reading it is one atomic load.
//! A ring is immutable and replaced as a whole, so a request sees all of the old keys or all of the
//! new ones, and a request that began with the old ring finishes with it.
//!
//! With the feature `watch`, `KeyStore::follow` keeps a store in step with a key file:
//!
//! 1. A file that parses replaces the ring, within two seconds of the change.
//! 2. A file that lacks its final newline, or in which a key of the ring is missing, may be half
//!    written: it is taken when a second read 250 ms later finds the same.
//! 3. A file that does not parse, is empty, or is gone leaves the last good ring in force. That is
//!    counted and logged with line and column, and [`KeyStore::status`] tells it.
//!
//! A key's `from` and `until` need no reload: each request asks with its own time.

mod change;
mod create;
#[cfg(feature = "watch")]
mod follow;
mod status;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use crate::clock::{Clock, SystemClock};
use crate::key::Keyring;
use crate::time::Timestamp;

pub use change::{ChangeError, change_key_file};
pub use create::{create_key_file, create_private_folder};
pub use status::{KeyStatus, KeyStoreStatus, LoadError};

/// The keyring in force. Clones are the same store.
#[derive(Clone)]
pub struct KeyStore(Arc<Shared>);

struct Shared {
    ring: ArcSwap<Keyring>,
    record: Mutex<status::Record>,
    /// Ends with the store.
    #[cfg(feature = "watch")]
    guard: std::sync::OnceLock<crate::watch::WatchGuard>,
}

impl KeyStore {
    /// A store whose ring changes only by [`replace`](Self::replace).
    pub fn fixed(ring: Keyring) -> Self {
        let record = status::Record::loaded(SystemClock.now());
        Self::with(ring, record)
    }

    fn with(ring: Keyring, record: status::Record) -> Self {
        Self(Arc::new(Shared {
            ring: ArcSwap::from_pointee(ring),
            record: Mutex::new(record),
            #[cfg(feature = "watch")]
            guard: std::sync::OnceLock::new(),
        }))
    }

    /// The ring in force. Hold the guard no longer than the look at it takes.
    pub fn load(&self) -> Guard<Arc<Keyring>> {
        self.0.ring.load()
    }

    /// Puts another ring in force, for requests that begin after this.
    pub fn replace(&self, ring: Keyring) {
        self.0.ring.store(Arc::new(ring));
        self.0.record().load(SystemClock.now(), None);
    }

    /// What is in force, since when, and what went wrong since: for people and metrics.
    pub fn status(&self, now: Timestamp) -> KeyStoreStatus {
        self.0.record().status(&self.load(), now)
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, status::Record> {
        // Each change of the record is a plain assignment, so a poisoned one is still whole.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows names and options of the keys, and no secret.
impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").field("ring", &*self.load()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn a_replaced_ring_is_in_force_for_who_looks_next() {
        let ring =
            |name| Keyring::single(Key::plain(name, "sdf34tGdfgGDG345g3y0045TYG23te37").unwrap());
        let store = KeyStore::fixed(ring("old"));
        let other = store.clone();
        let begun = store.load();
        other.replace(ring("new"));
        assert_eq!(begun.keys().next().unwrap().name(), "old");
        assert_eq!(store.load().keys().next().unwrap().name(), "new");
        let status = store.status(SystemClock.now());
        assert_eq!((status.loads, status.failures, status.keys.len()), (2, 0, 1));
        assert!(!format!("{store:?} {status:?}").contains("sdf34t"));
    }
}
