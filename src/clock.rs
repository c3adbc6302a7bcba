//! The one place that asks what time it is.
//!
//! Every rule takes the time as an argument; the gate and the key store get it from a [`Clock`], so
//! that a test can choose it.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// Something that knows what time it is.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present time of day.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "every other place asks this one")]
    fn now(&self) -> Timestamp {
        // Milliseconds since 1970 fit an i64 for 292 million years; a clock before 1970 is 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still, for tests and for looking at a recorded delivery.
impl Clock for Timestamp {
    fn now(&self) -> Timestamp {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_past_the_day_this_was_written_and_a_fixed_one_stands() {
        let written: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
        assert!(SystemClock.now() > written);
        assert_eq!(Clock::now(&written), written);
    }
}
