//! How many connections may be open, in all and from one source.
//!
//! 1. A [`Place`] is taken *before* a connection is accepted, so that what is over the limit waits
//!    in the kernel's backlog, where it costs no memory and no file descriptor of ours.
//! 2. Only after `accept` is the peer known. [`Place::admit`] then asks for a share of its source:
//!    one source may hold at most a part of all places, so that a single stranger cannot keep the
//!    git hosts out. What counts as one source is [`Source::network`]'s rule. A peer without an address,
//!    on a Unix socket, has no share: who may open the socket may have all places.
//!
//! Both are given back when the [`Admission`] is dropped. The table of sources holds only those
//! that have a connection now: an entry vanishes with its last one, so it is never larger than the
//! limit.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::source::{Network, Source};

/// The limit on open connections, with a share of it per source.
#[derive(Debug)]
pub struct ConnectionLimit {
    places: Arc<Semaphore>,
    shares: Arc<Shares>,
}

impl ConnectionLimit {
    /// A limit of `connections`, of which one source may hold `percent` of a hundred.
    ///
    /// Both are at least one connection; 100 percent or more is no limit per source.
    pub fn new(connections: usize, percent: u8) -> Self {
        let connections = connections.clamp(1, Semaphore::MAX_PERMITS);
        let share = connections as u128 * u128::from(percent.min(100)) / 100;
        Self {
            places: Arc::new(Semaphore::new(connections)),
            shares: Arc::new(Shares {
                share: usize::try_from(share).unwrap_or(connections).max(1),
                open: Mutex::default(),
            }),
        }
    }

    /// Waits until a connection may be accepted.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes no place.
    pub async fn place(&self) -> Place {
        let permit = Arc::clone(&self.places).acquire_owned().await;
        Place {
            permit: permit.expect("the semaphore is never closed"),
            shares: Arc::clone(&self.shares),
        }
    }

    /// How many more connections may be accepted now.
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }
}

/// A place for a connection whose source is not known yet.
#[derive(Debug)]
pub struct Place {
    permit: OwnedSemaphorePermit,
    shares: Arc<Shares>,
}

impl Place {
    /// Gives the place to a connection from `source`; one without a source has no share.
    ///
    /// # Errors
    ///
    /// The source holds its share already; the place is free again.
    pub fn admit(self, source: Option<Source>) -> Result<Admission, OverShare> {
        let Some(network) = source.map(Source::network) else {
            return Ok(Admission { network: None, shares: self.shares, _permit: self.permit });
        };
        let mut open = self.shares.open();
        let count = open.entry(network).or_insert(0);
        if *count >= self.shares.share {
            return Err(OverShare(()));
        }
        *count += 1;
        drop(open);
        Ok(Admission { network: Some(network), shares: self.shares, _permit: self.permit })
    }
}

/// The right to be open, held by one connection until it is dropped.
#[derive(Debug)]
pub struct Admission {
    network: Option<Network>,
    shares: Arc<Shares>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut open = self.shares.open();
        if let Some(count) = open.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&network);
            }
        }
    }
}

/// The error of [`Place::admit`]: the source holds its share of all connections already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverShare(());

impl fmt::Display for OverShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the source holds its share of all connections")
    }
}

impl std::error::Error for OverShare {}

#[derive(Debug)]
struct Shares {
    share: usize,
    open: Mutex<HashMap<Network, usize>>,
}

impl Shares {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<Network, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn source(address: &str) -> Source {
        Source(address.parse().unwrap())
    }

    fn place_now(limit: &ConnectionLimit) -> Option<Place> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(limit.place()).poll(&mut context) {
            std::task::Poll::Ready(place) => Some(place),
            std::task::Poll::Pending => None,
        }
    }

    fn admit(limit: &ConnectionLimit, address: &str) -> Result<Admission, OverShare> {
        place_now(limit).expect("a free place").admit(Some(source(address)))
    }

    #[test]
    fn no_place_is_given_beyond_the_limit_until_one_is_free_again() {
        let limit = ConnectionLimit::new(2, 100);
        let first = admit(&limit, "192.0.2.1").unwrap();
        let _second = admit(&limit, "192.0.2.1").unwrap();
        assert!(place_now(&limit).is_none());
        drop(first);
        assert!(place_now(&limit).is_some());
    }

    #[test]
    fn a_source_gets_its_share_and_leaves_the_rest_to_others() {
        let limit = ConnectionLimit::new(8, 25);
        let mut held = vec![
            admit(&limit, "192.0.2.1").unwrap(),
            admit(&limit, "::ffff:192.0.2.1").unwrap(),
            admit(&limit, "192.0.2.2").unwrap(),
            admit(&limit, "2001:db8::1").unwrap(),
            admit(&limit, "2001:db8::2").unwrap(),
        ];
        assert_eq!(admit(&limit, "192.0.2.1").unwrap_err(), OverShare(()));
        assert_eq!(admit(&limit, "2001:db8::3").unwrap_err(), OverShare(()));
        assert_eq!(limit.free(), 3, "who is refused keeps no place");
        drop(held.remove(0));
        held.push(admit(&limit, "192.0.2.1").unwrap());
        assert!(admit(&limit, "192.0.2.1").is_err());
    }

    #[test]
    fn a_peer_without_an_address_has_no_share_but_takes_a_place() {
        let limit = ConnectionLimit::new(4, 25);
        let held: Vec<_> =
            (0..4).map(|_| place_now(&limit).unwrap().admit(None).unwrap()).collect();
        assert_eq!((limit.free(), limit.shares.open().len()), (0, 0));
        assert!(place_now(&limit).is_none());
        drop(held);
        let _one = admit(&limit, "192.0.2.1").unwrap();
        assert!(admit(&limit, "192.0.2.1").is_err());
    }

    #[test]
    fn a_source_without_connections_is_not_remembered() {
        let limit = ConnectionLimit::new(8, 25);
        let held: Vec<_> =
            (1..=8).map(|n| admit(&limit, &format!("192.0.2.{n}")).unwrap()).collect();
        assert_eq!(limit.shares.open().len(), 8);
        drop(held);
        assert_eq!(limit.shares.open().len(), 0);
        assert_eq!(limit.free(), 8);
    }

    #[test]
    fn a_share_is_at_least_one_connection_and_at_most_all() {
        for (connections, percent, share) in
            [(3, 25, 1), (0, 0, 1), (10_000, 25, 2_500), (5, 100, 5), (5, 255, 5)]
        {
            let limit = ConnectionLimit::new(connections, percent);
            assert_eq!(limit.shares.share, share, "{percent} percent of {connections}");
        }
        assert_eq!(ConnectionLimit::new(usize::MAX, 100).free(), Semaphore::MAX_PERMITS);
    }
}
