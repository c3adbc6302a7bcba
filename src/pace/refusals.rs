//! What one source may do before it has proved anything.
//!
//! Only what was *refused* is charged: whoever shows good credentials uses nothing up, however many deliveries
//! come at once from one address. That alone would let a stranger who shares an address with a git host (a
//! NAT, a balancer that nobody declared) lock the host out. So a source from which something authentic came
//! is not limited for a day after that: what strangers behind it cost is bounded by the shares of
//! connections and of memory, as it was before. To be such a source takes a key.
//!
//! The two stores are apart and bounded, so that strangers, however many, cannot push out who has proved
//! something.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::rate::{Rate, RateLimits};

/// How long a source is known for something authentic that came from it.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Sources that are remembered in each of the two stores: about 3 MiB each.
const MAX_SOURCES: usize = 65_536;

/// How many requests of each source were refused, and from which something authentic came.
pub struct Refusals<K> {
    refused: RateLimits<K>,
    known: HashMap<K, Instant>,
    max_sources: usize,
}

impl<K: Eq + Hash + Copy> Refusals<K> {
    /// With nothing refused yet. `rate` is what each source may have refused.
    pub fn new(rate: Rate) -> Self {
        Self::with_room(rate, MAX_SOURCES)
    }

    /// The same with room for so many sources in each store, at least four.
    pub fn with_room(rate: Rate, max_sources: usize) -> Self {
        let max_sources = max_sources.max(4);
        Self { refused: RateLimits::new(rate, max_sources), known: HashMap::new(), max_sources }
    }

    /// How long `source` has to wait until a request may come that proves nothing before its body is read;
    /// zero if it need not.
    pub fn wait(&self, source: K, now: Instant) -> Duration {
        let wait = self.refused.wait(&source, now);
        if wait.is_zero() || self.is_known(source, now) { Duration::ZERO } else { wait }
    }

    /// A request of `source` was refused for its credentials.
    pub fn refused(&mut self, source: K, now: Instant) {
        if !self.is_known(source, now) {
            self.refused.take(source, now);
        }
    }

    /// Something authentic came from `source`.
    pub fn authentic(&mut self, source: K, now: Instant) {
        if self.known.len() >= self.max_sources && !self.known.contains_key(&source) {
            self.forget(now);
        }
        self.known.insert(source, now);
    }

    fn is_known(&self, source: K, now: Instant) -> bool {
        let last = self.known.get(&source);
        last.is_some_and(|last| now.saturating_duration_since(*last) < KNOWN_FOR)
    }

    /// Those that are known no longer, and then those that came longest ago, until a quarter is free.
    fn forget(&mut self, now: Instant) {
        self.known.retain(|_, last| now.saturating_duration_since(*last) < KNOWN_FOR);
        let most = self.max_sources / 4 * 3;
        if let Some(surplus) = self.known.len().checked_sub(most + 1) {
            let mut times: Vec<_> = self.known.values().copied().collect();
            let (_, &mut oldest, _) = times.select_nth_unstable(surplus);
            self.known.retain(|_, last| *last > oldest);
        }
    }
}

impl<K> fmt::Debug for Refusals<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals")
            .field("refused", &self.refused)
            .field("known", &self.known.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn refusals(rate: &str) -> Refusals<u16> {
        Refusals::with_room(rate.parse().unwrap(), 100)
    }

    #[test]
    fn a_source_whose_refusals_are_used_up_waits_and_another_does_not() {
        let start = Instant::now();
        let mut refusals = refusals("3/30s");
        for _ in 0..3 {
            assert_eq!(refusals.wait(1, start), Duration::ZERO);
            refusals.refused(1, start);
        }
        assert_eq!(refusals.wait(1, start), 10 * SECOND);
        assert_eq!(refusals.wait(2, start), Duration::ZERO);
        assert_eq!(refusals.wait(1, start + 10 * SECOND), Duration::ZERO);
    }

    #[test]
    fn a_source_from_which_something_authentic_came_is_free_for_a_day() {
        let start = Instant::now();
        let mut refusals = refusals("1/1h");
        refusals.refused(1, start);
        refusals.authentic(1, start);
        for _ in 0..100 {
            refusals.refused(1, start + SECOND);
        }
        assert_eq!(refusals.wait(1, start + SECOND), Duration::ZERO);
        let day_after = start + KNOWN_FOR;
        refusals.refused(1, day_after);
        assert!(!refusals.wait(1, day_after).is_zero());
    }

    #[test]
    fn strangers_push_nobody_out_who_has_proved_something_and_neither_store_grows() {
        let start = Instant::now();
        let mut refusals = refusals("1/1h");
        refusals.authentic(9999, start);
        for source in 0..5000 {
            refusals.refused(source, start);
            refusals.refused(9999, start);
            assert!(refusals.refused.len() <= 100);
        }
        assert_eq!(refusals.wait(9999, start), Duration::ZERO);
        for source in 0..5000 {
            refusals.authentic(source, start + u32::from(source) * SECOND / 100);
            assert!(refusals.known.len() <= 100);
        }
        refusals.refused(4999, start + 50 * SECOND);
        assert_eq!(refusals.wait(4999, start + 50 * SECOND), Duration::ZERO, "the latest is known");
    }

    proptest! {
        /// Against a list of all that happened.
        #[test]
        fn it_does_what_the_list_of_all_that_happened_says(
            steps in proptest::collection::vec((0..40_000_u64, 0..4_u16, 0..10_u8), 1..120)
        ) {
            const INTERVAL: u64 = 10_000_000;
            const BURST: u64 = 3;
            let start = Instant::now();
            let mut refusals = refusals("3/30000s");
            let (mut now, mut charged, mut proofs) = (0, Vec::new(), Vec::new());
            for (pause, source, what) in steps {
                now += pause * 1000;
                let at = start + Duration::from_millis(now);
                let is_known = proofs.iter().any(|&(when, who)| {
                    who == source && now - when < KNOWN_FOR.as_millis() as u64
                });
                let of_source = charged.iter().filter(|(_, who)| *who == source);
                let paid = of_source.fold(0, |paid: u64, (when, _)| paid.max(*when) + INTERVAL);
                let owed = paid.saturating_sub(now).saturating_sub(INTERVAL * (BURST - 1));
                let wait = refusals.wait(source, at);
                prop_assert_eq!(wait.as_millis() as u64, if is_known { 0 } else { owed });
                if what == 0 {
                    refusals.authentic(source, at);
                    proofs.push((now, source));
                } else if wait.is_zero() {
                    refusals.refused(source, at);
                    if !is_known {
                        charged.push((now, source));
                    }
                }
            }
        }
    }
}
