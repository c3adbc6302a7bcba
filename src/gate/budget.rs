//! Room for the bodies that are in memory, so that strangers cannot fill it.
//!
//! Every byte of a body that the gate holds is claimed from a [`Budget`] first. Three rules keep it
//! fair, whatever a sender claims:
//!
//! 1. A body of up to 256 KiB takes its room as it arrives, or is refused. It never waits.
//! 2. A larger one asks, once its first bytes are there, for all that it declares. It may wait for
//!    its turn, in order, and holds nothing meanwhile: so no two bodies can wait for each other.
//!    Large bodies have three quarters of the budget and never the last one, so they do not starve
//!    small ones.
//! 3. One source holds at most its share.
//!
//! One body may always be held, by each source and of the large ones in all, whatever its size: a
//! limit that is smaller than the largest body that a hook takes would else refuse it for ever.
//!
//! The room is given back when the last clone of the body is dropped, which may be long after the
//! gate is done with it: what a service or a queue behind the gate keeps stays counted. The *share*
//! of the source ends with verification: it is there against strangers.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::source::Network;

/// Bodies up to this size never wait, and are never kept waiting by larger ones: 256 KiB.
pub const SMALL_BODY: usize = 256 * 1024;

/// No body is larger than this, whatever it claims: so no sum of sizes overflows.
const LARGEST_BODY: usize = usize::MAX / 4;

/// Room for bodies, in bytes. Clones are the same budget.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    limit: usize,
    share: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// All that is held, by small bodies and large ones.
    used: usize,
    /// What large bodies hold of it.
    large: usize,
    sources: HashMap<Network, usize>,
    queue: VecDeque<Ticket>,
    last_ticket: u64,
}

/// A large body that waits for its turn.
struct Ticket {
    id: u64,
    source: Option<Network>,
    bytes: usize,
    waker: Waker,
}

impl Budget {
    /// A budget of `limit` bytes, of which one source may hold `share_percent` percent before its
    /// deliveries are verified.
    ///
    /// Costs memory for one entry a source that holds something, and one a body that waits.
    pub fn new(limit: usize, share_percent: u8) -> Self {
        let limit = limit.min(usize::MAX / 2);
        let share = (limit as u128 * u128::from(share_percent.min(100)) / 100) as usize;
        Self(Arc::new(Shared { limit, share, state: Mutex::default() }))
    }

    /// Bytes that are held now.
    pub fn used(&self) -> usize {
        self.state().used
    }

    /// Bytes that can be held.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    pub(super) fn claim(&self, source: Option<Network>) -> Claim {
        Claim { budget: self.clone(), source, held: 0, large: false, waiting: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in the critical sections panics half-way, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 64 MiB, a quarter of it for one source.
impl Default for Budget {
    fn default() -> Self {
        Self::new(64 * 1024 * 1024, 25)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("used", &self.used()).field("limit", &self.limit()).finish()
    }
}

/// The room that one body holds. Dropping it gives the room back.
pub(super) struct Claim {
    budget: Budget,
    /// Whose share it counts against, until it is verified.
    source: Option<Network>,
    held: usize,
    /// Whether `held` counts among the large bodies.
    large: bool,
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy)]
struct Waiting {
    id: u64,
    bytes: usize,
}

/// There is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Claim {
    /// Holds `bytes` in all from now on, at once or not at all.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        let bytes = bytes.min(LARGEST_BODY);
        if bytes <= self.held {
            return Ok(());
        }
        let large = bytes > SMALL_BODY;
        let mut state = self.budget.state();
        // Looked at without what this body holds already, all of which it asks for again.
        state.give_back(self.source, self.held, self.large);
        let fits = self.budget.0.fits(&state, self.source, bytes, large);
        if fits {
            (self.held, self.large) = (bytes, large);
        }
        state.take(self.source, self.held, self.large);
        if fits { Ok(()) } else { Err(Full) }
    }

    /// As [`hold`](Self::hold), but a large body waits for its turn.
    ///
    /// Cancel safe: a claim that is dropped while it waits leaves the queue.
    pub(super) fn poll_hold(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<Result<(), Full>> {
        let bytes = bytes.min(LARGEST_BODY);
        if bytes <= SMALL_BODY || bytes <= self.held {
            return Poll::Ready(self.hold(bytes));
        }
        let mut state = self.budget.state();
        let id = match self.waiting {
            Some(Waiting { id, .. }) => id,
            None => {
                state.give_back(self.source, self.held, self.large);
                (self.held, self.large) = (0, false);
                state.last_ticket += 1;
                let id = state.last_ticket;
                let waker = cx.waker().clone();
                state.queue.push_back(Ticket { id, source: self.source, bytes, waker });
                self.waiting = Some(Waiting { id, bytes });
                id
            }
        };
        // What was just given back may be what another one waits for.
        let woken = state.admit(&self.budget.0);
        let poll = match state.queue.iter_mut().find(|ticket| ticket.id == id) {
            Some(ticket) => {
                ticket.waker.clone_from(cx.waker());
                Poll::Pending
            }
            // Whoever admitted it has taken the room in its name.
            None => {
                (self.held, self.large, self.waiting) = (bytes, true, None);
                Poll::Ready(Ok(()))
            }
        };
        drop(state);
        wake(woken);
        poll
    }

    /// Whether it waits for its turn.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Ends the share of the source, and keeps the room.
    pub(super) fn verified(&mut self) {
        // What still waits has nothing, and is entered in the queue under its source.
        if self.waiting.is_some() {
            return;
        }
        let Some(source) = self.source.take() else { return };
        let mut state = self.budget.state();
        state.give_back_share(source, self.held);
        let woken = state.admit(&self.budget.0);
        drop(state);
        wake(woken);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.held == 0 && self.waiting.is_none() {
            return;
        }
        let mut state = self.budget.state();
        if let Some(Waiting { id, bytes }) = self.waiting {
            match state.queue.iter().position(|ticket| ticket.id == id) {
                Some(at) => drop(state.queue.remove(at)),
                // It was admitted, but never came to see it.
                None => (self.held, self.large) = (bytes, true),
            }
        }
        state.give_back(self.source, self.held, self.large);
        let woken = state.admit(&self.budget.0);
        drop(state);
        wake(woken);
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("held", &self.held).finish_non_exhaustive()
    }
}

impl Shared {
    fn fits(&self, state: &State, source: Option<Network>, bytes: usize, large: bool) -> bool {
        let of_source = source.and_then(|source| state.sources.get(&source)).copied().unwrap_or(0);
        let in_share =
            source.is_none() || of_source == 0 || of_source.saturating_add(bytes) <= self.share;
        let in_all = state.used.saturating_add(bytes) <= self.limit;
        let kept_for_small = self.limit / 4;
        in_share
            && if large {
                state.large == 0
                    || in_all && state.large.saturating_add(bytes) <= self.limit - kept_for_small
            } else {
                in_all || (state.used - state.large).saturating_add(bytes) <= kept_for_small
            }
    }
}

impl State {
    fn take(&mut self, source: Option<Network>, bytes: usize, large: bool) {
        self.used += bytes;
        if large {
            self.large += bytes;
        }
        if let Some(source) = source
            && bytes > 0
        {
            *self.sources.entry(source).or_default() += bytes;
        }
    }

    fn give_back(&mut self, source: Option<Network>, bytes: usize, large: bool) {
        self.used -= bytes;
        if large {
            self.large -= bytes;
        }
        if let Some(source) = source {
            self.give_back_share(source, bytes);
        }
    }

    fn give_back_share(&mut self, source: Network, bytes: usize) {
        if let Some(held) = self.sources.get_mut(&source) {
            *held -= bytes;
            if *held == 0 {
                self.sources.remove(&source);
            }
        }
    }

    /// Takes room for all in the queue that now fit, in order, and returns whom to wake.
    ///
    /// One whose source has no share left does not hold up those of other sources.
    fn admit(&mut self, shared: &Shared) -> Vec<Waker> {
        let mut woken = Vec::new();
        let mut at = 0;
        while let Some(ticket) = self.queue.get(at) {
            let (source, bytes) = (ticket.source, ticket.bytes);
            if shared.fits(self, source, bytes, true) {
                self.take(source, bytes, true);
                woken.extend(self.queue.remove(at).map(|ticket| ticket.waker));
            } else if shared.fits(self, None, bytes, true) {
                at += 1;
            } else {
                break;
            }
        }
        woken
    }
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::Source;

    const MIB: usize = 1024 * 1024;

    fn source(last: u8) -> Option<Network> {
        Some(Source::new([192, 0, 2, last].into()).network())
    }

    fn poll(claim: &mut Claim, bytes: usize) -> Poll<Result<(), Full>> {
        claim.poll_hold(&mut Context::from_waker(Waker::noop()), bytes)
    }

    #[test]
    fn small_bodies_take_room_until_it_is_gone_and_never_wait() {
        let budget = Budget::new(MIB, 100);
        let mut claims: Vec<_> = (0..4).map(|_| budget.claim(None)).collect();
        assert!(claims.iter_mut().all(|claim| claim.hold(SMALL_BODY) == Ok(())));
        let mut late = budget.claim(None);
        assert_eq!(poll(&mut late, 1), Poll::Ready(Err(Full)));
        claims.pop();
        assert_eq!(poll(&mut late, SMALL_BODY), Poll::Ready(Ok(())));
        drop((claims, late));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn large_bodies_wait_in_order_and_leave_a_quarter_to_small_ones() {
        let budget = Budget::new(64 * MIB, 100);
        let mut first = budget.claim(None);
        assert_eq!(poll(&mut first, 40 * MIB), Poll::Ready(Ok(())));
        let (mut second, mut third) = (budget.claim(None), budget.claim(None));
        assert_eq!(second.hold(1000), Ok(()));
        assert_eq!(poll(&mut second, 25 * MIB), Poll::Pending);
        assert_eq!(budget.used(), 40 * MIB, "what waits holds nothing");
        assert_eq!(poll(&mut third, MIB), Poll::Pending, "it would fit, but it came later");
        let mut small: Vec<_> = (0..64).map(|_| budget.claim(None)).collect();
        assert!(small.iter_mut().all(|claim| poll(claim, SMALL_BODY) == Poll::Ready(Ok(()))));
        drop(first);
        assert_eq!(poll(&mut third, MIB), Poll::Ready(Ok(())));
        assert_eq!(poll(&mut second, 25 * MIB), Poll::Ready(Ok(())));
        drop((second, third, small));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_source_has_its_share_and_always_one_body() {
        let budget = Budget::new(64 * MIB, 25);
        let mut one = budget.claim(source(1));
        assert_eq!(poll(&mut one, 25 * MIB), Poll::Ready(Ok(())), "larger than its share");
        let (mut again, mut other) = (budget.claim(source(1)), budget.claim(source(2)));
        assert_eq!(again.hold(1), Err(Full));
        assert_eq!(poll(&mut again, MIB), Poll::Pending);
        assert_eq!(poll(&mut other, MIB), Poll::Ready(Ok(())), "not held up by another source");
        one.verified();
        assert_eq!(poll(&mut again, MIB), Poll::Ready(Ok(())));
        assert_eq!(budget.used(), 27 * MIB, "a verified body still takes its room");
    }

    #[test]
    fn a_body_that_is_larger_than_all_the_room_is_held_alone() {
        let budget = Budget::new(64 * MIB, 25);
        let (mut huge, mut large) = (budget.claim(source(1)), budget.claim(source(2)));
        assert_eq!(poll(&mut huge, 75 * MIB), Poll::Ready(Ok(())));
        assert_eq!(poll(&mut large, MIB), Poll::Pending);
        assert_eq!(budget.claim(source(3)).hold(SMALL_BODY), Ok(()));
        drop(huge);
        assert_eq!(poll(&mut large, MIB), Poll::Ready(Ok(())));
    }

    #[test]
    fn a_claim_that_is_dropped_leaves_the_queue_and_gives_back_what_it_never_saw() {
        let budget = Budget::new(64 * MIB, 100);
        let mut first = budget.claim(None);
        assert_eq!(poll(&mut first, 48 * MIB), Poll::Ready(Ok(())));
        let (mut second, mut third) = (budget.claim(None), budget.claim(None));
        assert_eq!(poll(&mut second, 48 * MIB), Poll::Pending);
        assert_eq!(poll(&mut third, MIB), Poll::Pending);
        drop(second);
        drop(first);
        assert_eq!(budget.used(), MIB, "the third was admitted before it looked");
        drop(third);
        assert_eq!(budget.used(), 0);
    }

    proptest! {
        /// Whatever is claimed, waits and is dropped: the books are right, the last quarter is never
        /// taken by large bodies but for a single one, and nothing is held in the end.
        #[test]
        fn the_books_are_right_after_any_schedule(
            steps in proptest::collection::vec((0_usize..12, 0_usize..40 * MIB, 0_u8..6), 1..200)
        ) {
            let budget = Budget::new(64 * MIB, 25);
            let mut claims: Vec<Claim> =
                (0..12_u8).map(|n| budget.claim((n % 4 != 0).then(|| source(n % 4)).flatten())).collect();
            for (at, bytes, action) in steps {
                let claim = &mut claims[at];
                match action {
                    0 => *claim = budget.claim(source(at as u8 % 4)),
                    1 => claim.verified(),
                    2 if !claim.is_waiting() => { let _ = claim.hold(bytes % (SMALL_BODY * 2)); }
                    _ => {
                        let bytes = claim.waiting.map_or(bytes, |waiting| waiting.bytes);
                        let _ = poll(claim, bytes);
                    }
                }
                let state = budget.state();
                let granted: usize = claims
                    .iter()
                    .filter_map(|claim| claim.waiting)
                    .filter(|waiting| state.queue.iter().all(|ticket| ticket.id != waiting.id))
                    .map(|waiting| waiting.bytes)
                    .sum();
                let held: usize = claims.iter().map(|claim| claim.held).sum();
                prop_assert_eq!(state.used, held + granted);
                prop_assert!(state.large <= 48 * MIB);
                prop_assert!(state.used <= 64 * MIB);
            }
            claims.clear();
            let state = budget.state();
            prop_assert_eq!((state.used, state.large), (0, 0));
            prop_assert!(state.sources.is_empty() && state.queue.is_empty());
        }
    }
}
