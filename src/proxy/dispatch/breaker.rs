//! Whether a service is worth calling: a circuit breaker.
//!
//! The time comes in as an argument.
//!
//! 1. *Closed*, everything goes. After [`THRESHOLD`] failures without a success between them it opens.
//! 2. *Open*, nothing goes for a while, which is longer each time, up to [`LONGEST`].
//! 3. When that is over, one delivery goes as a probe. If it arrives, the breaker closes; else it
//!    stays open.
//!
//! A service that says when it wants to hear of us again (`Retry-After`) opens it until then.

use std::time::{Duration, Instant};

/// So many failures in a row are no accident.
const THRESHOLD: u32 = 8;
const SHORTEST: Duration = Duration::from_secs(1);
/// A night without the service costs so much at its end.
const LONGEST: Duration = Duration::from_secs(30);
/// What a service can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success.
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    /// How long it was open for.
    pause: Duration,
    is_probed: bool,
}

/// The right to make one call. It is to be reported.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Pass {
    /// One of many.
    Call,
    /// The one that tells whether the service is back.
    Probe,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The service answered for itself, whatever it said.
    Alive,
    /// It did not, or wants to be left alone.
    Down {
        /// For so long.
        retry_after: Option<Duration>,
    },
    /// Nothing was sent.
    Unused,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Nothing goes for so long.
    Opened(Duration),
    Closed,
}

impl Breaker {
    /// `None` if nothing may go now.
    pub(super) fn try_pass(&mut self, now: Instant) -> Option<Pass> {
        match &mut self.open {
            None => Some(Pass::Call),
            Some(open) if open.is_probed || now < open.until => None,
            Some(open) => {
                open.is_probed = true;
                Some(Pass::Probe)
            }
        }
    }

    /// When something may go, if not now and not depending on a call that is under way.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        self.open.as_ref().filter(|open| !open.is_probed).map(|open| open.until)
    }

    /// Whether the service is taken to be there.
    pub(super) fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    pub(super) fn report(&mut self, pass: Pass, verdict: Verdict, now: Instant) -> Change {
        match verdict {
            Verdict::Unused => {
                if let (Pass::Probe, Some(open)) = (pass, &mut self.open) {
                    open.is_probed = false;
                }
                Change::None
            }
            Verdict::Alive => {
                self.failures = 0;
                // A call that began before is as good as the probe.
                if self.open.take().is_some() { Change::Closed } else { Change::None }
            }
            Verdict::Down { retry_after } => {
                self.failures = self.failures.saturating_add(1);
                let asked = retry_after.map(|asked| asked.min(LONGEST_PAUSE));
                let is_probe = pass == Pass::Probe;
                let pause = match &self.open {
                    // The failures of calls that began before are no news.
                    Some(open) if !is_probe => {
                        let until = asked.map(|asked| now + asked);
                        if until.is_none_or(|until| until <= open.until) {
                            return Change::None;
                        }
                        open.pause
                    }
                    Some(open) => open.pause.saturating_mul(2).min(LONGEST),
                    None if asked.is_some() || self.failures >= THRESHOLD => SHORTEST,
                    None => return Change::None,
                };
                let closed_for = asked.map_or(pause, |asked| asked.max(pause));
                let is_probed = !is_probe && self.open.as_ref().is_some_and(|open| open.is_probed);
                self.open = Some(Open { until: now + closed_for, pause, is_probed });
                Change::Opened(closed_for)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Verdict = Verdict::Down { retry_after: None };

    fn asks_for(seconds: u64) -> Verdict {
        Verdict::Down { retry_after: Some(Duration::from_secs(seconds)) }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for n in 1..=THRESHOLD {
            let pass = breaker.try_pass(now).unwrap();
            let change = breaker.report(pass, DOWN, now);
            assert_eq!(change != Change::None, n == THRESHOLD, "{n}");
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not_let_them() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..THRESHOLD {
                let pass = breaker.try_pass(now).unwrap();
                assert_eq!(breaker.report(pass, DOWN, now), Change::None);
            }
            let pass = breaker.try_pass(now).unwrap();
            assert_eq!(breaker.report(pass, Verdict::Alive, now), Change::None);
        }
        let mut breaker = opened(now);
        assert!(!breaker.is_closed());
        assert_eq!(breaker.try_pass(now), None);
        assert_eq!(breaker.opens_at(), Some(now + seconds(1)));
    }

    #[test]
    fn one_probe_at_a_time_decides_and_each_failure_makes_the_pause_longer() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(breaker.try_pass(now + seconds(pause) - Duration::from_millis(1)), None);
            now += seconds(pause);
            assert_eq!(breaker.try_pass(now), Some(Pass::Probe));
            assert_eq!((breaker.try_pass(now), breaker.opens_at()), (None, None));
            let change = breaker.report(Pass::Probe, DOWN, now);
            assert_eq!(change, Change::Opened(seconds((pause * 2).min(30))));
        }
        now += seconds(30);
        assert_eq!(breaker.try_pass(now), Some(Pass::Probe));
        assert_eq!(breaker.report(Pass::Probe, Verdict::Alive, now), Change::Closed);
        assert_eq!(breaker.try_pass(now), Some(Pass::Call));
        assert_eq!(opened(now).opens_at(), Some(now + seconds(1)), "it begins anew");
    }

    #[test]
    fn a_probe_that_is_not_used_can_be_made_by_another() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + seconds(1);
        assert_eq!(breaker.try_pass(later), Some(Pass::Probe));
        assert_eq!(breaker.report(Pass::Probe, Verdict::Unused, later), Change::None);
        assert_eq!(breaker.try_pass(later), Some(Pass::Probe));
    }

    #[test]
    fn calls_that_began_before_it_opened_close_it_if_they_succeed_and_change_nothing_if_not() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.report(Pass::Call, DOWN, now + seconds(1)), Change::None);
        assert_eq!(breaker.opens_at(), Some(now + seconds(1)));
        assert_eq!(breaker.report(Pass::Call, Verdict::Alive, now), Change::Closed);
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_service_that_wants_to_be_left_alone_is_at_once_and_for_no_longer_than_five_minutes() {
        let now = Instant::now();
        for (asked, granted) in [(0, 1), (7, 7), (299, 299), (86_400, 300)] {
            let mut breaker = Breaker::default();
            let pass = breaker.try_pass(now).unwrap();
            let change = breaker.report(pass, asks_for(asked), now);
            assert_eq!(change, Change::Opened(seconds(granted)));
            assert_eq!(breaker.opens_at(), Some(now + seconds(granted)));
        }
        let mut breaker = opened(now);
        assert_eq!(breaker.report(Pass::Call, asks_for(9), now), Change::Opened(seconds(9)));
        assert_eq!(breaker.report(Pass::Call, asks_for(5), now), Change::None);
        assert_eq!(breaker.opens_at(), Some(now + seconds(9)));
    }
}
