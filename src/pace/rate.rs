//! How many in how much time: the rate, and what keeps to it.
//!
//! The algorithm is GCRA, the leaky bucket as a meter (ITU-T I.371, appendix A): for each key one time, up to
//! which it is paid for. There is no timer, and what is unused is as good as new. It is written here and not
//! taken from the crate `governor`, since all who use it need what that lacks: to look without taking, to
//! take what was not allowed, and the time as an argument.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::after;

/// The longest time that a rate is over: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// So many in so much time, such as `60/1m`.
///
/// As many may come at once; after that they come back one by one, evenly. So in any stretch of that time
/// there are at most twice as many. `60/1m burst 5` lets only 5 come at once, and `burst 600` more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    count: NonZeroU32,
    per: Duration,
    burst: NonZeroU32,
}

impl Rate {
    /// `count` in `per`, as many at once. A time of less than a nanosecond for each counts as one.
    pub const fn new(count: NonZeroU32, per: Duration) -> Self {
        Self { count, per, burst: count }
    }

    /// With so many at once.
    pub const fn burst(self, burst: NonZeroU32) -> Self {
        Self { burst, ..self }
    }

    /// The time after which one more may come.
    pub fn interval(self) -> Duration {
        (self.per.min(LONGEST) / self.count.get()).max(Duration::from_nanos(1))
    }

    /// How much may be owed before one is too many.
    fn tolerance(self) -> Duration {
        self.interval().saturating_mul(self.burst.get() - 1)
    }
}

/// `60/1m`, `10/1s`, `1000/1h burst 50`: a number, a length of time and, where it is another, how many may
/// come at once.
impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (rate, burst) = match text.split_once(" burst ") {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (text, None),
        };
        let (count, per) = rate.split_once('/').ok_or(RateError(()))?;
        let number = |text: &str| text.trim().parse::<NonZeroU32>().map_err(|_| RateError(()));
        let per: jiff::SignedDuration = per.trim().parse().map_err(|_| RateError(()))?;
        let per = Duration::try_from(per).map_err(|_| RateError(()))?;
        if per.is_zero() || per > LONGEST {
            return Err(RateError(()));
        }
        let rate = Self::new(number(count)?, per);
        burst.map_or(Ok(rate), |burst| Ok(rate.burst(number(burst)?)))
    }
}

/// `60/1m`, with the burst if it is another.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = jiff::SignedDuration::try_from(self.per).unwrap_or(jiff::SignedDuration::MAX);
        write!(f, "{}/{per:#}", self.count)?;
        if self.burst != self.count { write!(f, " burst {}", self.burst) } else { Ok(()) }
    }
}

/// The error of reading a [`Rate`] from text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateError(());

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "expected a number in a length of time, such as \"60/1m\" or \"60/1m burst 10\"",
        )
    }
}

impl std::error::Error for RateError {}

/// One stream that keeps to a [`Rate`].
#[derive(Clone, Debug)]
pub struct RateLimit {
    rate: Rate,
    paid_until: Option<Instant>,
}

impl RateLimit {
    /// Nothing has come yet.
    pub const fn new(rate: Rate) -> Self {
        Self { rate, paid_until: None }
    }

    /// How long one that comes now has to wait; zero if it need not. Takes nothing.
    pub fn wait(&self, now: Instant) -> Duration {
        wait(self.rate, self.paid_until, now)
    }

    /// One comes now, whether it should have waited or not.
    pub fn take(&mut self, now: Instant) {
        self.paid_until = Some(taken(self.rate, self.paid_until, now));
    }

    /// Owes at least what `other` does from now on: for a plan that must not fall behind what happened.
    pub fn keep_up_with(&mut self, other: &Self) {
        self.paid_until = self.paid_until.max(other.paid_until);
    }

    /// How long one that comes now has to wait, and takes its place in the order of those that wait.
    pub fn reserve(&mut self, now: Instant) -> Duration {
        let wait = self.wait(now);
        self.take(now);
        wait
    }
}

/// Many streams, each of which keeps to the same [`Rate`], in bounded memory.
///
/// A key that owes nothing is not stored. Of more keys than there is room for, those are forgotten that owe
/// least: whoever comes under many names makes the gate forget those names, and not the one that it has had
/// most from.
pub struct RateLimits<K> {
    rate: Rate,
    max_keys: usize,
    paid_until: HashMap<K, Instant>,
}

impl<K: Eq + Hash> RateLimits<K> {
    /// Nothing has come yet. At most `max_keys` keys are remembered, and at least four.
    pub fn new(rate: Rate, max_keys: usize) -> Self {
        Self { rate, max_keys: max_keys.max(4), paid_until: HashMap::new() }
    }

    /// How long one with this key that comes now has to wait; zero if it need not. Takes nothing.
    pub fn wait<Q>(&self, key: &Q, now: Instant) -> Duration
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        wait(self.rate, self.paid_until.get(key).copied(), now)
    }

    /// One with this key comes now, whether it should have waited or not.
    ///
    /// Costs a look at every key once in so many new ones that it is constant on average.
    pub fn take(&mut self, key: K, now: Instant) {
        if self.paid_until.len() >= self.max_keys && !self.paid_until.contains_key(&key) {
            self.forget(now);
        }
        let rate = self.rate;
        let entry = self.paid_until.entry(key);
        entry
            .and_modify(|until| *until = taken(rate, Some(*until), now))
            .or_insert_with(|| taken(rate, None, now));
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.paid_until.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.paid_until.is_empty()
    }

    /// What owes nothing, and then as much as leaves a quarter free.
    fn forget(&mut self, now: Instant) {
        self.paid_until.retain(|_, until| *until > now);
        let most = self.max_keys / 4 * 3;
        if let Some(surplus) = self.paid_until.len().checked_sub(most + 1) {
            let mut untils: Vec<_> = self.paid_until.values().copied().collect();
            let (_, &mut last, _) = untils.select_nth_unstable(surplus);
            self.paid_until.retain(|_, until| *until > last);
        }
    }
}

impl<K> fmt::Debug for RateLimits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits")
            .field("rate", &self.rate)
            .field("keys", &self.paid_until.len())
            .finish_non_exhaustive()
    }
}

fn wait(rate: Rate, paid_until: Option<Instant>, now: Instant) -> Duration {
    let owed = paid_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
    owed.saturating_sub(rate.tolerance())
}

fn taken(rate: Rate, paid_until: Option<Instant>, now: Instant) -> Instant {
    let from = paid_until.map_or(now, |until| until.max(now));
    // Nobody owes more than what clears in a year.
    after(from, rate.interval()).min(after(now, LONGEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_is_read_and_written_in_the_same_words() {
        for (text, interval, written) in [
            ("60/1m", SECOND, "60/1m"),
            ("1/3s", 3 * SECOND, "1/3s"),
            ("100 / 50ms", SECOND / 2000, "100/50ms"),
            ("1/1h burst 5", 3600 * SECOND, "1/1h burst 5"),
            ("60/60s burst 60", SECOND, "60/1m"),
            ("4294967295/1s", Duration::from_nanos(1), "4294967295/1s"),
        ] {
            let rate = rate(text);
            assert_eq!((rate.interval(), rate.to_string().as_str()), (interval, written), "{text}");
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
        for wrong in [
            "",
            "60",
            "/1m",
            "60/",
            "0/1m",
            "-1/1m",
            "1.5/1m",
            "60/0s",
            "60/-1m",
            "60/1y",
            "60/1m burst",
            "60/1m burst 0",
            "60/1m burst x",
            "60/1m 5",
            "60/m",
            "99999999999/1m",
            "60/9999h burst 1 burst 2",
        ] {
            assert_eq!(wrong.parse::<Rate>(), Err(RateError(())), "{wrong}");
        }
    }

    #[test]
    fn as_many_come_at_once_and_then_one_an_interval() {
        let start = Instant::now();
        let mut limit = RateLimit::new(rate("3/30s"));
        for _ in 0..3 {
            assert_eq!(limit.wait(start), Duration::ZERO);
            limit.take(start);
        }
        assert_eq!(limit.wait(start), 10 * SECOND);
        assert_eq!(limit.wait(start + 9 * SECOND), SECOND);
        limit.take(start + 10 * SECOND);
        assert_eq!(limit.wait(start + 10 * SECOND), 10 * SECOND);
        assert_eq!(limit.wait(start + 100 * SECOND), Duration::ZERO);
    }

    #[test]
    fn those_that_reserve_come_one_after_the_other() {
        let start = Instant::now();
        let mut limit = RateLimit::new(rate("1/10s"));
        let waits: Vec<_> = (0..4).map(|_| limit.reserve(start).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 30]);
    }

    #[test]
    fn no_key_costs_another_anything() {
        let start = Instant::now();
        let mut limits = RateLimits::new(rate("1/10s"), 100);
        limits.take("a", start);
        assert_eq!(
            (limits.wait("a", start), limits.wait("b", start)),
            (10 * SECOND, Duration::ZERO)
        );
    }

    #[test]
    fn memory_is_bounded_and_who_owes_most_is_remembered() {
        let start = Instant::now();
        let mut limits = RateLimits::new(rate("1/10s"), 100);
        for _ in 0..5 {
            limits.take(u32::MAX, start);
        }
        for key in 0..10_000 {
            limits.take(key, start);
            assert!(limits.len() <= 100);
        }
        assert_eq!(limits.wait(&u32::MAX, start), 50 * SECOND);
        limits.take(7, start + 100 * SECOND);
        for key in 0..100 {
            limits.take(key, start + 100 * SECOND);
        }
        assert!(limits.wait(&u32::MAX, start + 100 * SECOND).is_zero());
    }

    /// The rate as a bucket that is filled in small steps: another arithmetic for the same thing.
    struct Bucket {
        tokens: f64,
        at: u64,
    }

    proptest! {
        #[test]
        fn it_is_a_token_bucket(
            count in 1..20_u32,
            burst in 1..20_u32,
            seconds in 1..20_u32,
            steps in proptest::collection::vec((0..4_000_u64, any::<bool>(), 0..3_usize), 1..80),
        ) {
            let rate = Rate::new(NonZeroU32::new(count).unwrap(), seconds * SECOND);
            let rate = rate.burst(NonZeroU32::new(burst).unwrap());
            let per_milli = f64::from(count) / f64::from(seconds) / 1000.0;
            let start = Instant::now();
            let (mut now, mut limits) = (0, RateLimits::new(rate, 1000));
            let mut buckets: [Bucket; 3] =
                std::array::from_fn(|_| Bucket { tokens: f64::from(burst), at: 0 });
            for (pause, insists, key) in steps {
                now += pause;
                let at = start + Duration::from_millis(now);
                let bucket = &mut buckets[key];
                let filled = bucket.tokens + (now - bucket.at) as f64 * per_milli;
                (bucket.tokens, bucket.at) = (filled.min(f64::from(burst)), now);
                let expected = ((1.0 - bucket.tokens) / per_milli / 1000.0).max(0.0);
                let wait = limits.wait(&key, at);
                prop_assert!((wait.as_secs_f64() - expected).abs() < 1e-3, "{wait:?} {expected}");
                if wait.is_zero() || insists {
                    limits.take(key, at);
                    bucket.tokens -= 1.0;
                }
            }
        }
    }
}
