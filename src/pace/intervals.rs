//! When the next push of a ref may go, where those that wait are kept by somebody else.
//!
//! A [`Coalescer`](super::Coalescer) holds what it holds back. With a durable queue the queue does, and
//! all that is left to know is how long.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::after;
use super::coalescer::Pace;
use super::key::{CoalesceKey, Digest};

/// Remembers when each ref was last sent, and says how long the next push of it has to wait.
///
/// Costs about 100 bytes a ref, at most [`Pace::max_idle`] of them; of more, those are forgotten that
/// could be sent again first, and a forgotten ref goes at once.
pub struct Intervals {
    pace: Pace,
    /// Until when nothing of it goes.
    until: HashMap<Digest, Instant>,
}

impl Intervals {
    /// With nothing sent yet. Of `pace` the interval, the delay, `max_wait` and `max_idle` count.
    pub fn new(pace: Pace) -> Self {
        Self { pace, until: HashMap::new() }
    }

    /// How long a push that came now has to wait; zero if it may go at once.
    ///
    /// Never longer than [`Pace::max_wait`], or than the delay if that is longer.
    pub fn wait(&self, key: &CoalesceKey, now: Instant) -> Duration {
        self.left(key, now).max(self.pace.delay)
    }

    /// How much of the interval is left that began with the last send of one of these refs.
    ///
    /// Never more than [`Pace::max_wait`].
    pub fn left(&self, key: &CoalesceKey, now: Instant) -> Duration {
        let until = key.scopes().iter().filter_map(|scope| self.until.get(scope)).max();
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        left.min(self.pace.max_wait)
    }

    /// A send of these refs begins.
    pub fn began(&mut self, key: &CoalesceKey, now: Instant) {
        let until = after(now, self.pace.interval);
        if until == now {
            return;
        }
        self.until.extend(key.scopes().iter().map(|scope| (*scope, until)));
        if self.until.len() > self.pace.max_idle {
            self.forget(now);
        }
    }

    /// The send that began then failed: it does not eat the interval.
    pub fn failed(&mut self, key: &CoalesceKey, began: Instant) {
        let until = after(began, self.pace.interval);
        for scope in key.scopes() {
            if self.until.get(scope) == Some(&until) {
                self.until.remove(scope);
            }
        }
    }

    /// What no longer matters, and then as much as leaves a quarter free, so that it is not done for each.
    fn forget(&mut self, now: Instant) {
        self.until.retain(|_, until| *until > now);
        let most = self.pace.max_idle / 4 * 3;
        if let Some(surplus) = self.until.len().checked_sub(most + 1) {
            let mut untils: Vec<_> = self.until.values().copied().collect();
            let (_, &mut last, _) = untils.select_nth_unstable(surplus);
            self.until.retain(|_, until| *until > last);
        }
    }
}

impl fmt::Debug for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intervals")
            .field("pace", &self.pace)
            .field("refs", &self.until.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::KeyBy;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(refs: &[&str]) -> CoalesceKey {
        CoalesceKey::new(KeyBy::Ref, "hook", "example.com/acme/widget", "push", refs)
    }

    fn intervals(interval: Duration) -> Intervals {
        Intervals::new(Pace::new(interval))
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_when_the_interval_ends() {
        let start = Instant::now();
        let mut intervals = intervals(3 * SECOND);
        assert_eq!(intervals.wait(&key(&["main"]), start), Duration::ZERO);
        intervals.began(&key(&["main"]), start);
        assert_eq!(intervals.wait(&key(&["main"]), start + SECOND), 2 * SECOND);
        assert_eq!(intervals.wait(&key(&["dev", "main"]), start + SECOND), 2 * SECOND);
        assert_eq!(intervals.wait(&key(&["dev"]), start + SECOND), Duration::ZERO);
        assert_eq!(intervals.wait(&key(&["main"]), start + 3 * SECOND), Duration::ZERO);
    }

    #[test]
    fn a_failed_send_does_not_eat_the_interval_and_ends_no_later_one() {
        let start = Instant::now();
        let mut intervals = intervals(3 * SECOND);
        intervals.began(&key(&["main"]), start);
        intervals.failed(&key(&["main"]), start);
        assert_eq!(intervals.wait(&key(&["main"]), start), Duration::ZERO);
        intervals.began(&key(&["main"]), start);
        intervals.began(&key(&["main"]), start + SECOND);
        intervals.failed(&key(&["main"]), start);
        assert_eq!(intervals.wait(&key(&["main"]), start + SECOND), 3 * SECOND);
    }

    #[test]
    fn none_waits_longer_than_it_may_and_none_less_than_the_delay() {
        let start = Instant::now();
        let mut pace = Pace::new(100 * SECOND);
        pace.max_wait = 10 * SECOND;
        pace.delay = 2 * SECOND;
        let mut intervals = Intervals::new(pace);
        assert_eq!(intervals.wait(&key(&["main"]), start), 2 * SECOND);
        intervals.began(&key(&["main"]), start);
        assert_eq!(intervals.wait(&key(&["main"]), start), 10 * SECOND);
        assert_eq!(intervals.wait(&key(&["main"]), start + 99 * SECOND), 2 * SECOND);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_remembered() {
        let start = Instant::now();
        let mut pace = Pace::new(1000 * SECOND);
        pace.max_idle = 100;
        pace.max_wait = 1000 * SECOND;
        let mut intervals = Intervals::new(pace);
        for n in 0..1000_u32 {
            let name = n.to_string();
            intervals.began(&key(&[&name]), start + n * SECOND / 10);
            assert!(intervals.until.len() <= 100, "{}", intervals.until.len());
            assert!(!intervals.wait(&key(&[&name]), start + n * SECOND / 10).is_zero());
        }
        assert!(intervals.until.len() > 70);
    }

    proptest! {
        /// Whoever waits as he is told sends each ref at most once an interval, and waits for no longer
        /// than one.
        #[test]
        fn two_sends_of_a_ref_are_an_interval_apart(
            pushes in proptest::collection::vec((0..2000_u64, 0..4_usize), 1..60)
        ) {
            let start = Instant::now();
            let mut intervals = intervals(SECOND);
            let (mut now, mut last) = (start, [None::<Instant>; 4]);
            for (pause, name) in pushes {
                now += Duration::from_millis(pause);
                let key = key(&[["a", "b", "c", "d"][name]]);
                let wait = intervals.wait(&key, now);
                prop_assert!(wait <= SECOND);
                if let Some(last) = last[name] {
                    prop_assert_eq!(now + wait, (last + SECOND).max(now));
                }
                now += wait;
                intervals.began(&key, now);
                last[name] = Some(now);
            }
        }
    }
}
