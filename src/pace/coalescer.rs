//! Brings bursts of pushes together.
//!
//! Each digest of a key has a [`Slot`]: until when nothing of it goes, and a queue of the held pushes
//! that tell of it. A push goes when it is the first in all of its queues and its time has come. Numbers
//! are given in order of arrival and queues are sorted by them, so the oldest held push is always the
//! first in all of its own: pushes that share refs cannot wait for each other.
//!
//! Two indexes make it fast, and both are kept right by [`Coalescer::refresh`] alone: `due`, of the held
//! pushes that are first in all of their queues, and `idle`, of the slots without a queue.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use super::after;
use super::key::{CoalesceKey, Digest};

/// How a [`Coalescer`] paces. What is longer than a year is a year.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// The least time between the starts of two sends of the same ref. Zero still lets only one be under
    /// way.
    pub interval: Duration,
    /// The longest time that a push is held for the sake of the interval. Default 60 s.
    pub max_wait: Duration,
    /// How old a push must be before it goes. Default zero. More than half of `max_wait` raises that to
    /// twice the delay.
    pub delay: Duration,
    /// The longest time that one send may take, with all that belongs to it. Default 5 min.
    ///
    /// One that has not reported by then no longer keeps others of its refs back. It must be longer than
    /// a send can take, or the order within a ref is lost.
    pub max_send: Duration,
    /// How many pushes may be held. Default 4096.
    ///
    /// From three quarters on, each further one makes the oldest go without waiting for its interval or
    /// its delay. Those that are put back after a failure find room in any case.
    pub max_held: usize,
    /// How many refs are remembered of which nothing is held. Default 65,536.
    ///
    /// Of more, those are forgotten that could be sent again first. A forgotten ref goes at once.
    pub max_idle: usize,
}

impl Pace {
    /// A pace with this interval, and the defaults for the rest.
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            max_wait: Duration::from_secs(60),
            delay: Duration::ZERO,
            max_send: Duration::from_secs(300),
            max_held: 4096,
            max_idle: 65_536,
        }
    }
}

/// Holds pushes back so that each ref is sent at most once an interval, and keeps the last.
///
/// [`offer`](Self::offer) it what comes; send what it says is to be sent now, and what
/// [`take_due`](Self::take_due) gives, and report each send with [`succeeded`](Self::succeeded) or
/// [`failed`](Self::failed). After every call [`next_due`](Self::next_due) may be another time.
///
/// Every operation costs O(log n) for each ref of the push; `offer` also a comparison with each held
/// push that shares a ref, of which there is at most one where pushes have one ref and there is no
/// delay. A held push costs its item and about 300 bytes a ref, an idle ref about 200 bytes.
pub struct Coalescer<T> {
    pace: Pace,
    /// The latest time that was told.
    latest: Option<Instant>,
    /// The number of the latest push.
    count: u64,
    slots: HashMap<Digest, Slot>,
    held: BTreeMap<u64, Held<T>>,
    /// When the held pushes go that are first in their queues.
    due: BTreeSet<(Instant, u64)>,
    /// When the slots without a queue no longer matter.
    idle: BTreeSet<(Instant, Digest)>,
    /// Up to this number held pushes were told to make room.
    pressed: u64,
}

/// What becomes of a push that was offered.
#[derive(Debug)]
#[must_use]
pub enum Decision<T> {
    /// It is to be sent now.
    SendNow(Due<T>),
    /// It is held, and will be due.
    Held {
        /// Those that will not be sent, since it goes in their place; oldest first.
        replaced: Vec<T>,
    },
    /// It would have to be held, and there is no room. Nothing is remembered of it.
    Full(T),
}

/// A push that is to be sent now.
#[derive(Debug)]
#[must_use]
pub struct Due<T> {
    /// What was offered.
    pub item: T,
    /// To report with what became of it.
    pub sending: Sending,
}

/// One send that is under way. It is to be reported, also if whoever sent was cancelled.
///
/// One that is lost keeps what it covers back for [`Pace::max_send`].
#[derive(Debug)]
#[must_use]
pub struct Sending {
    number: u64,
    key: CoalesceKey,
    came: Instant,
    deadline: Instant,
    started: Instant,
}

/// What is known of one digest of a key.
struct Slot {
    /// Until then nothing goes: one is under way, or is to be tried again later.
    blocked_until: Instant,
    /// Until then one is held that can still wait.
    interval_until: Instant,
    /// The number of the push that was sent last.
    sent: u64,
    /// The numbers of the held pushes.
    queue: BTreeSet<u64>,
    /// As in the index.
    idle: Option<Instant>,
}

/// A push that is held.
struct Held<T> {
    key: CoalesceKey,
    item: T,
    came: Instant,
    /// Then it goes, whatever the interval and the delay.
    deadline: Instant,
    /// As in the index.
    due: Option<Instant>,
}

impl<T> Coalescer<T> {
    /// A coalescer that holds nothing.
    pub fn new(pace: Pace) -> Self {
        let max_wait = pace.max_wait.max(pace.delay.saturating_mul(2));
        Self {
            pace: Pace { max_wait, ..pace },
            latest: None,
            count: 0,
            slots: HashMap::new(),
            held: BTreeMap::new(),
            due: BTreeSet::new(),
            idle: BTreeSet::new(),
            pressed: 0,
        }
    }

    /// Takes in a push that came now.
    pub fn offer(&mut self, key: CoalesceKey, item: T, now: Instant) -> Decision<T> {
        let now = self.advance(now);
        self.count += 1;
        let number = self.count;
        let deadline = after(now, self.pace.max_wait);
        let mut push = Held { key, item, came: now, deadline, due: None };
        if !self.is_queued(&push.key) && self.ready(&push) <= now {
            return Decision::SendNow(self.send(number, push, now));
        }
        let mut replaced = Vec::new();
        for older in self.replaceable(&push.key, now) {
            if let Some(older) = self.remove(older) {
                push.deadline = push.deadline.min(older.deadline);
                replaced.push(older.item);
            }
        }
        if replaced.is_empty() && self.held.len() >= self.pace.max_held {
            return Decision::Full(push.item);
        }
        if self.held.len() >= self.pace.max_held / 4 * 3 {
            self.press(now);
        }
        self.hold(number, push);
        Decision::Held { replaced }
    }

    /// The push whose time came first, if any has come: call it until there is none.
    pub fn take_due(&mut self, now: Instant) -> Option<Due<T>> {
        let now = self.advance(now);
        let &(due, number) = self.due.first()?;
        if due > now {
            return None;
        }
        let push = self.remove(number)?;
        Some(self.send(number, push, now))
    }

    /// When the next push is due, if none is offered or reported before. `None` if none is held.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Upstream took it: its interval counts, from when the send began.
    pub fn succeeded(&mut self, sending: Sending) {
        for scope in sending.key.scopes() {
            if let Some(slot) = self.slots.get_mut(scope)
                && slot.sent == sending.number
            {
                slot.blocked_until = sending.started;
                self.refresh(scope);
            }
        }
    }

    /// Upstream did not take it: nothing of its refs goes before `retry_at`, and then without waiting for
    /// an interval.
    ///
    /// With an `item` the push takes the place again that it had before all that came since. If one that
    /// is held covers it, the item is given back instead: that one goes in its place. Without one it is
    /// over, because somebody else cares for it, or nobody was promised anything.
    pub fn failed(&mut self, sending: Sending, item: Option<T>, retry_at: Instant) -> Option<T> {
        let Sending { number, key, came, deadline, started } = sending;
        for scope in key.scopes() {
            let slot = self.slots.entry(*scope).or_insert_with(|| Slot::new(started));
            if slot.sent <= number {
                slot.blocked_until = retry_at;
                slot.interval_until = started;
            }
            self.refresh(scope);
        }
        let covered = match item {
            Some(item) if !self.is_covered(number, &key) => {
                self.hold(number, Held { key, item, came, deadline, due: None });
                None
            }
            covered => covered,
        };
        self.forget();
        covered
    }

    /// All that is held, oldest first, whatever its time: for a shutdown, or another pace.
    ///
    /// They are under way from now on. What shares a ref is to be sent in this order, and after what was
    /// under way already.
    pub fn drain(&mut self, now: Instant) -> Vec<Due<T>> {
        let now = self.advance(now);
        let mut all = Vec::with_capacity(self.held.len());
        while let Some((&number, _)) = self.held.first_key_value() {
            let push = self.remove(number);
            all.extend(push.map(|push| self.send(number, push, now)));
        }
        all
    }

    /// How many pushes are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Time does not go backwards.
    fn advance(&mut self, now: Instant) -> Instant {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        now
    }

    /// When a push may go that is first in all of its queues.
    fn ready(&self, push: &Held<T>) -> Instant {
        let mut blocked = push.came;
        let mut wait = after(push.came, self.pace.delay);
        for slot in push.key.scopes().iter().filter_map(|scope| self.slots.get(scope)) {
            blocked = blocked.max(slot.blocked_until);
            wait = wait.max(slot.interval_until);
        }
        blocked.max(wait.min(push.deadline))
    }

    fn is_queued(&self, key: &CoalesceKey) -> bool {
        let mut slots = key.scopes().iter().filter_map(|scope| self.slots.get(scope));
        slots.any(|slot| !slot.queue.is_empty())
    }

    /// The held pushes in whose place one with this key can go that comes now.
    fn replaceable(&self, key: &CoalesceKey, now: Instant) -> Vec<u64> {
        let slots = key.scopes().iter().filter_map(|scope| self.slots.get(scope));
        let sharing: BTreeSet<u64> = slots.flat_map(|slot| &slot.queue).copied().collect();
        let old_enough = after(now, self.pace.delay);
        let (mut covered, mut last_to_go) = (Vec::new(), None);
        for (number, held) in sharing.iter().filter_map(|it| self.held.get_key_value(it)) {
            // One that would be too young at the deadline leaves the older one to keep it. What is late
            // already, because upstream failed or is slow, has nothing to keep.
            let in_time = old_enough <= held.deadline || held.deadline < now;
            if in_time && key.covers(&held.key) {
                covered.push((*number, held.deadline));
            } else {
                last_to_go = last_to_go.max(Some(held.deadline));
            }
        }
        // It will go after those that stay, and must not be late for that.
        covered.retain(|(_, deadline)| Some(*deadline) >= last_to_go);
        covered.into_iter().map(|(number, _)| number).collect()
    }

    /// Whether a held push that came after `number` covers `key`.
    fn is_covered(&self, number: u64, key: &CoalesceKey) -> bool {
        let slot = key.scopes().first().and_then(|scope| self.slots.get(scope));
        slot.is_some_and(|slot| {
            let later = slot.queue.range(number..);
            later.filter_map(|number| self.held.get(number)).any(|held| held.key.covers(key))
        })
    }

    /// Makes the oldest held push that was not told yet go as soon as nothing of its refs is under way.
    fn press(&mut self, now: Instant) {
        if let Some((&number, oldest)) = self.held.range_mut(self.pressed + 1..).next() {
            self.pressed = number;
            oldest.deadline = oldest.deadline.min(now);
            self.schedule(number);
        }
    }

    fn hold(&mut self, number: u64, push: Held<T>) {
        let key = push.key.clone();
        for scope in key.scopes() {
            let slot = self.slots.entry(*scope).or_insert_with(|| Slot::new(push.came));
            slot.queue.insert(number);
        }
        self.held.insert(number, push);
        for scope in key.scopes() {
            self.refresh(scope);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Held<T>> {
        let push = self.held.remove(&number)?;
        if let Some(due) = push.due {
            self.due.remove(&(due, number));
        }
        for scope in push.key.scopes() {
            if let Some(slot) = self.slots.get_mut(scope) {
                slot.queue.remove(&number);
            }
            self.refresh(scope);
        }
        Some(push)
    }

    fn send(&mut self, number: u64, push: Held<T>, now: Instant) -> Due<T> {
        let Held { key, item, came, deadline, .. } = push;
        for scope in key.scopes() {
            let slot = self.slots.entry(*scope).or_insert_with(|| Slot::new(now));
            slot.sent = number;
            slot.blocked_until = after(now, self.pace.max_send);
            slot.interval_until = after(now, self.pace.interval);
            self.refresh(scope);
        }
        self.forget();
        Due { item, sending: Sending { number, key, came, deadline, started: now } }
    }

    /// Brings the indexes up to date with a slot that was changed.
    fn refresh(&mut self, scope: &Digest) {
        let Some(slot) = self.slots.get_mut(scope) else { return };
        let idle = slot.queue.is_empty().then(|| slot.blocked_until.max(slot.interval_until));
        if slot.idle != idle {
            if let Some(old) = slot.idle {
                self.idle.remove(&(old, *scope));
            }
            self.idle.extend(idle.map(|new| (new, *scope)));
            slot.idle = idle;
        }
        // Whoever is second now may have been the first.
        let mut queue = slot.queue.iter().copied();
        for number in [queue.next(), queue.next()].into_iter().flatten() {
            self.schedule(number);
        }
    }

    /// Brings the index up to date with a held push.
    fn schedule(&mut self, number: u64) {
        let Some(held) = self.held.get(&number) else { return };
        let mut slots = held.key.scopes().iter().map(|scope| self.slots.get(scope));
        let is_first =
            slots.all(|slot| slot.is_some_and(|slot| slot.queue.first() == Some(&number)));
        let due = is_first.then(|| self.ready(held));
        if let Some(held) = self.held.get_mut(&number)
            && held.due != due
        {
            if let Some(old) = held.due {
                self.due.remove(&(old, number));
            }
            self.due.extend(due.map(|new| (new, number)));
            held.due = due;
        }
    }

    /// Forgets the slots that no longer matter, and those that are too many.
    fn forget(&mut self) {
        while let Some(&(until, scope)) = self.idle.first()
            && (self.idle.len() > self.pace.max_idle || self.latest >= Some(until))
        {
            self.idle.remove(&(until, scope));
            self.slots.remove(&scope);
        }
    }
}

impl Slot {
    fn new(now: Instant) -> Self {
        let queue = BTreeSet::new();
        Self { blocked_until: now, interval_until: now, sent: 0, queue, idle: None }
    }
}

/// Without the items, which may hold anything.
impl<T> fmt::Debug for Coalescer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalescer")
            .field("pace", &self.pace)
            .field("held", &self.len())
            .field("idle", &self.idle.len())
            .finish_non_exhaustive()
    }
}
