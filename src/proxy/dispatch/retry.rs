//! When a delivery that did not arrive is tried again.
//!
//! Exponential backoff with *full jitter*: any time between none and twice as long as the last time at
//! most, so that a thousand deliveries that failed together do not come back together. Source:
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// What a service can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// The pause after the attempt of this number, the first of which is 1. `asked` is what the service
/// said, of which an hour counts.
pub(super) fn pause(attempt: u32, asked: Option<Duration>) -> Duration {
    // Without chance, all come at the latest time: late, and in step, but not lost.
    let chance = getrandom::u64().unwrap_or(u64::MAX);
    pause_at(attempt, asked, chance)
}

fn pause_at(attempt: u32, asked: Option<Duration>, chance: u64) -> Duration {
    let most = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    let jittered = most.mul_f64(chance as f64 / u64::MAX as f64);
    asked.map_or(jittered, |asked| jittered.max(asked.min(LONGEST_ASKED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_doubles_from_a_second_to_five_minutes() {
        let longest = |attempt| pause_at(attempt, None, u64::MAX).as_secs();
        let expected = [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
        assert_eq!(std::array::from_fn(|attempt| longest(attempt as u32)), expected);
        assert_eq!(longest(u32::MAX), 300);
    }

    #[test]
    fn chance_decides_between_none_and_that() {
        assert_eq!(pause_at(5, None, 0), Duration::ZERO);
        assert_eq!(pause_at(5, None, u64::MAX / 2).as_secs(), 8);
        let pauses: Vec<_> = (0..50).map(|_| pause(9, None)).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(256)));
    }

    #[test]
    fn what_the_service_asks_for_is_the_least_and_no_more_than_an_hour() {
        let asked = |seconds| pause_at(1, Some(Duration::from_secs(seconds)), 0).as_secs();
        assert_eq!((asked(0), asked(120), asked(86_400)), (0, 120, 3600));
        assert_eq!(pause_at(9, Some(Duration::from_secs(3)), u64::MAX).as_secs(), 256);
    }
}
