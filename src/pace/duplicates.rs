//! Which deliveries have been here before.
//!
//! Of each ref the last delivery is remembered, and no other. So what came between two that are the
//! same is seen by its being there, and nothing has to be searched for and ended.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use super::after;
use super::key::{ChangedRefs, Digest, Identity};

/// Remembers what upstream accepted, so that it need not hear it twice.
///
/// Every delivery that is to be sent is told when it comes, by [`arrived`](Self::arrived) or
/// [`arrived_without_ids`](Self::arrived_without_ids), and once more when upstream
/// [`accepted`](Self::accepted) it. For one that fails there is nothing to tell.
///
/// Costs about 200 bytes a ref, and a few look-ups a delivery.
pub struct Duplicates {
    window: Duration,
    max_refs: usize,
    last: HashMap<Digest, Last>,
    /// Oldest first.
    by_age: BTreeSet<(u64, Digest)>,
    count: u64,
}

/// What is known of the last delivery of a ref.
struct Last {
    number: u64,
    /// Which it is and until when that counts, once upstream accepted it.
    accepted: Option<(Identity, Instant)>,
}

/// What a delivery is that has just come.
#[derive(Debug)]
#[must_use]
pub enum Arrival {
    /// Upstream has not accepted it, or not as the last of its refs.
    New(Pending),
    /// Upstream has accepted the same delivery, and no other of its refs has come since.
    Duplicate,
}

/// A delivery that is under way. If it fails, drop it.
#[derive(Debug)]
pub struct Pending {
    number: u64,
    identity: Identity,
    changed: ChangedRefs,
}

impl Duplicates {
    /// Remembers deliveries for `window` after upstream accepted them, and `max_refs` refs; of
    /// more, those go first about which nothing came for the longest time.
    ///
    /// A window of zero finds no duplicates. What is longer than a year is a year.
    pub fn new(window: Duration, max_refs: usize) -> Self {
        let (last, by_age) = (HashMap::new(), BTreeSet::new());
        Self { window, max_refs, last, by_age, count: 0 }
    }

    /// Takes in a delivery that says from which objects to which its refs go.
    ///
    /// One that is new ends what was remembered of its refs, whatever becomes of it. One of unknown
    /// or too many refs is always new.
    pub fn arrived(&mut self, identity: Identity, changed: ChangedRefs, now: Instant) -> Arrival {
        if self.is_duplicate(&identity, &changed, now) {
            return Arrival::Duplicate;
        }
        let number = self.remember(&changed);
        Arrival::New(Pending { number, identity, changed })
    }

    /// Takes in a delivery without old and new ids: a manual trigger, a test, a mirror's report.
    ///
    /// It is never a duplicate, and ends what was remembered of its refs: it may be about any state.
    pub fn arrived_without_ids(&mut self, changed: &ChangedRefs) {
        self.remember(changed);
    }

    /// Upstream has accepted a delivery.
    ///
    /// It counts from now on, unless another of its refs came meanwhile: nobody can tell which of the
    /// two upstream saw last.
    pub fn accepted(&mut self, pending: Pending, now: Instant) {
        let until = after(now, self.window);
        for scope in &pending.changed.refs {
            if let Some(last) = self.last.get_mut(scope)
                && last.number == pending.number
            {
                last.accepted = Some((pending.identity, until));
            }
        }
    }

    /// Forgets everything, and all that is under way: for an event that is about no repository, such
    /// as a reindex of all.
    pub fn clear(&mut self) {
        self.last.clear();
        self.by_age.clear();
    }

    /// How many refs are remembered, whole repositories among them.
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    fn is_duplicate(&self, identity: &Identity, changed: &ChangedRefs, now: Instant) -> bool {
        // What is forgotten here is older than every ref that is not.
        let whole = self.last.get(&changed.repository).map_or(0, |last| last.number);
        let holds = |last: &Last| {
            last.number > whole
                && last.accepted.is_some_and(|(known, until)| known == *identity && now < until)
        };
        let mut refs = changed.refs.iter();
        !changed.refs.is_empty() && refs.all(|scope| self.last.get(scope).is_some_and(holds))
    }

    /// Makes this the last delivery of its refs, and gives its number.
    fn remember(&mut self, changed: &ChangedRefs) -> u64 {
        self.count += 1;
        let number = self.count;
        let whole = [changed.repository];
        let scopes = if changed.refs.is_empty() { &whole[..] } else { &changed.refs };
        for scope in scopes {
            if let Some(last) = self.last.insert(*scope, Last { number, accepted: None }) {
                self.by_age.remove(&(last.number, *scope));
            }
            self.by_age.insert((number, *scope));
        }
        while self.last.len() > self.max_refs
            && let Some((_, scope)) = self.by_age.pop_first()
        {
            self.last.remove(&scope);
        }
        number
    }
}

impl fmt::Debug for Duplicates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplicates")
            .field("window", &self.window)
            .field("max_refs", &self.max_refs)
            .field("refs", &self.len())
            .finish_non_exhaustive()
    }
}
