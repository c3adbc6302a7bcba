//! Points in time, and the question whether two of them are near enough.
//!
//! All arithmetic is checked: a sender chooses the numbers, and an overflow is a refusal and never
//! a panic or a wrapped-around pass.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A point in time with millisecond precision, as milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since the epoch; `None` where that does not fit.
    pub const fn from_seconds(seconds: i64) -> Option<Self> {
        match seconds.checked_mul(1000) {
            Some(millis) => Some(Self(millis)),
            None => None,
        }
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whether `self` lies at most `tolerance` before or after `now`, bounds included.
    pub const fn is_within(self, tolerance: Duration, now: Self) -> bool {
        self.0.abs_diff(now.0) as u128 <= tolerance.as_millis()
    }

    /// The time that has passed since `earlier`; zero if it lies in the future.
    pub const fn since(self, earlier: Self) -> Duration {
        match self.0.checked_sub(earlier.0) {
            Some(millis) if millis > 0 => Duration::from_millis(millis as u64),
            Some(_) => Duration::ZERO,
            None => Duration::from_millis(if self.0 > earlier.0 { i64::MAX as u64 } else { 0 }),
        }
    }

    /// `self` plus `duration`, or the last representable time.
    pub const fn saturating_add(self, duration: Duration) -> Self {
        let millis = duration.as_millis();
        Self(self.0.saturating_add(if millis > i64::MAX as u128 {
            i64::MAX
        } else {
            millis as i64
        }))
    }
}

/// RFC 3339 in UTC, such as `2026-12-01T00:00:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// Reads [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339#section-5.6) with its offset.
impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        // jiff reads more than RFC 3339: hours without minutes, and zone names in brackets.
        let strict = text.len() >= 20 && text.is_ascii() && !text.contains(['[', ' ']);
        match text.parse::<jiff::Timestamp>() {
            Ok(timestamp) if strict => Ok(Self(timestamp.as_millisecond())),
            _ => Err(TimestampError(())),
        }
    }
}

/// The error of reading a [`Timestamp`] from text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampError(());

impl fmt::Display for TimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an RFC 3339 time such as 2026-12-01T00:00:00Z")
    }
}

impl std::error::Error for TimestampError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_reads_and_prints() {
        let time: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        assert_eq!(time.as_seconds(), 1_796_083_200);
        assert_eq!(time.to_string(), "2026-12-01T00:00:00Z");
        assert_eq!("2026-12-01T01:00:00+01:00".parse(), Ok(time));
        for wrong in [
            "",
            "tomorrow",
            "2026-12-01",
            "2026-12-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "1796083200",
        ] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_tolerance_includes_its_bounds_on_both_sides() {
        let now = Timestamp::from_seconds(1_000_000).unwrap();
        let at = |offset: i64| Timestamp::from_seconds(1_000_000 + offset).unwrap();
        let tolerance = Duration::from_secs(300);
        for near in [-300, -1, 0, 1, 300] {
            assert!(at(near).is_within(tolerance, now), "{near}");
        }
        for far in [-301, 301] {
            assert!(!at(far).is_within(tolerance, now), "{far}");
        }
    }

    #[test]
    fn extreme_times_are_far_and_never_a_panic() {
        let now = Timestamp::from_seconds(1_000_000).unwrap();
        for millis in [i64::MIN, i64::MAX] {
            assert!(!Timestamp::from_millis(millis).is_within(Duration::from_secs(300), now));
            assert!(!Timestamp::from_millis(millis).to_string().is_empty());
        }
        assert_eq!(Timestamp::from_seconds(i64::MIN), None);
        assert_eq!(Timestamp::from_seconds(i64::MAX), None);
        assert_eq!(now.since(Timestamp::from_millis(i64::MAX)), Duration::ZERO);
        assert_eq!(
            Timestamp::from_millis(i64::MAX).since(Timestamp::from_millis(i64::MIN)),
            Duration::from_millis(i64::MAX as u64)
        );
        assert_eq!(now.saturating_add(Duration::MAX), Timestamp::from_millis(i64::MAX));
    }
}
