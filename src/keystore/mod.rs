//! The keys that are in force now, and the watch over the file that they come from.
//!
//! A [`KeyStore`] gives every request the newest good [`Keyring`]. Reading it is one atomic load.
//! A ring is immutable and replaced as a whole, so a request sees all of the old keys or all of the
//! new ones, and a request that began with the old ring finishes with it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::key::Keyring;

/// The keyring in force. Clones are the same store.
#[derive(Clone, Debug)]
pub struct KeyStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: ArcSwap<Keyring>,
}

impl KeyStore {
    /// A store whose ring changes only by [`replace`](Self::replace).
    pub fn fixed(ring: Keyring) -> Self {
        Self(Arc::new(Shared { ring: ArcSwap::from_pointee(ring) }))
    }

    /// The ring in force. Hold the guard no longer than the look at it takes.
    pub fn load(&self) -> Guard<Arc<Keyring>> {
        self.0.ring.load()
    }

    /// Puts another ring in force, for requests that begin after this.
    pub fn replace(&self, ring: Keyring) {
        self.0.ring.store(Arc::new(ring));
    }
}
