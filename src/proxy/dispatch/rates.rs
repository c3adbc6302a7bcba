//! How often the service of a hook is called, in all and for one repository.
//!
//! What may not be sent yet waits in the spool, and is looked at again when it is due: what counts are the
//! calls that began, failed ones too. So that a thousand that wait do not all come at the same time to hear
//! that they have to wait, each is given a time of its own in the order in which they asked. Those times are
//! a plan and not a promise; after a restart, which begins to count anew, the times in the spool still hold.
//!
//! Of one repository only the oldest asks, since the others wait behind it: so it needs no plan.

use std::time::{Duration, Instant};

use crate::pace::{Rate, RateLimit, RateLimits};
use crate::proxy::config::Paces;

/// Repositories that are remembered; only those whose allowance is not full again count.
const MAX_REPOSITORIES: usize = 65_536;

/// The calls of one hook. Empty where it has no limit.
#[derive(Debug)]
pub(super) struct Rates {
    hook: Option<Planned>,
    repositories: Option<RateLimits<String>>,
}

#[derive(Debug)]
struct Planned {
    /// The calls that began.
    begun: RateLimit,
    /// These, and the times that were given out.
    plan: RateLimit,
}

impl Rates {
    pub(super) fn new(paces: &Paces) -> Self {
        let hook = |rate: Rate| Planned { begun: RateLimit::new(rate), plan: RateLimit::new(rate) };
        let repositories = |rate| RateLimits::new(rate, MAX_REPOSITORIES);
        Self { hook: paces.rate.map(hook), repositories: paces.repository_rate.map(repositories) }
    }

    /// How long one that comes now has to wait; zero if it is to be sent now. Its place is taken.
    pub(super) fn arrived(&mut self, repository: Option<&str>, now: Instant) -> Duration {
        let wait = self.of_repository(repository, now);
        match &mut self.hook {
            // When its turn comes it is looked at again: until then it takes nobody's place.
            Some(hook) if wait.is_zero() => hook.plan.reserve(now),
            _ => wait,
        }
    }

    /// How long one that waited has to wait longer, if that is more than `slack`.
    pub(super) fn due(
        &mut self,
        repository: Option<&str>,
        now: Instant,
        slack: Duration,
    ) -> Option<Duration> {
        let wait = self.of_repository(repository, now);
        if wait > slack {
            return Some(wait);
        }
        let hook = self.hook.as_mut().filter(|hook| hook.begun.wait(now) > slack)?;
        Some(hook.plan.reserve(now))
    }

    /// A call begins.
    pub(super) fn began(&mut self, repository: Option<&str>, now: Instant) {
        if let Some(Planned { begun, plan }) = &mut self.hook {
            begun.take(now);
            plan.keep_up_with(begun);
        }
        if let (Some(repositories), Some(repository)) = (&mut self.repositories, repository) {
            repositories.take(repository.to_owned(), now);
        }
    }

    fn of_repository(&self, repository: Option<&str>, now: Instant) -> Duration {
        let of_repository = self.repositories.as_ref().zip(repository);
        of_repository.map_or(Duration::ZERO, |(limits, repository)| limits.wait(repository, now))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::pace::KeyBy;

    const SECOND: Duration = Duration::from_secs(1);
    const SLACK: Duration = Duration::from_millis(20);

    fn rates(rate: Option<&str>, repository_rate: Option<&str>) -> Rates {
        Rates::new(&Paces {
            coalesce: None,
            coalesce_by: KeyBy::Ref,
            dedupe_window: Duration::ZERO,
            rate: rate.map(|rate| rate.parse().unwrap()),
            repository_rate: repository_rate.map(|rate| rate.parse().unwrap()),
        })
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let (mut rates, now) = (rates(None, None), Instant::now());
        for _ in 0..1000 {
            assert_eq!(rates.arrived(Some("a"), now), Duration::ZERO);
            rates.began(Some("a"), now);
            assert_eq!(rates.due(Some("a"), now, SLACK), None);
        }
    }

    #[test]
    fn those_that_wait_are_given_times_one_after_the_other_and_keep_them() {
        let (mut rates, start) = (rates(Some("1/10s"), None), Instant::now());
        assert_eq!(rates.arrived(Some("a"), start), Duration::ZERO);
        rates.began(Some("a"), start);
        let waits = ["b", "c", "d"].map(|name| rates.arrived(Some(name), start).as_secs());
        assert_eq!(waits, [10, 20, 30]);
        for (wait, name) in waits.into_iter().zip(["b", "c", "d"]) {
            let at = start + Duration::from_secs(wait);
            assert_eq!(rates.due(Some(name), at, SLACK), None, "{name}");
            rates.began(Some(name), at);
            assert!(rates.arrived(Some("e"), at) >= 10 * SECOND, "nobody overtakes");
        }
    }

    #[test]
    fn a_repository_that_is_over_its_rate_takes_nothing_from_the_others() {
        let (mut rates, start) = (rates(Some("10/100s"), Some("1/100s")), Instant::now());
        assert_eq!(rates.arrived(Some("a"), start), Duration::ZERO);
        rates.began(Some("a"), start);
        for _ in 0..100 {
            assert_eq!(rates.arrived(Some("a"), start), 100 * SECOND);
            assert_eq!(rates.due(Some("a"), start, SLACK), Some(100 * SECOND));
        }
        assert_eq!(rates.arrived(Some("b"), start), Duration::ZERO);
        assert_eq!(rates.arrived(None, start), Duration::ZERO, "without a repository");
    }

    #[test]
    fn one_that_comes_due_too_early_is_given_another_time() {
        let (mut rates, start) = (rates(Some("1/10s"), None), Instant::now());
        rates.began(None, start);
        let first = rates.due(None, start, SLACK);
        let second = rates.due(None, start, SLACK);
        assert_eq!((first, second), (Some(10 * SECOND), Some(20 * SECOND)));
        assert_eq!(rates.due(None, start + 10 * SECOND - SLACK, SLACK), None);
    }

    proptest! {
        /// A queue that asks as the gate does: all are sent, none more often than the rates allow, and
        /// those of a repository in order.
        #[test]
        fn all_are_sent_in_order_at_the_rates(
            pushes in proptest::collection::vec((0..3000_u64, 0..4_usize), 1..60)
        ) {
            const NAMES: [&str; 4] = ["a", "b", "c", "d"];
            let mut rates = rates(Some("2/2s"), Some("1/3s"));
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            // Of each repository: when the oldest is due, and the numbers that wait.
            let mut queues: BTreeMap<usize, (u64, Vec<usize>)> = BTreeMap::new();
            let mut sent: Vec<(u64, usize, usize)> = Vec::new();
            let (mut now, mut looks) = (0, 0);
            let mut arrivals = pushes.iter().scan(0, |time, (pause, name)| {
                *time += pause;
                Some((*time, *name))
            }).enumerate().peekable();
            loop {
                let due = queues.iter().map(|(name, (due, _))| (*due, *name)).min();
                let coming = arrivals.peek().map(|(_, (time, _))| *time);
                let Some(next) = due.map(|(due, _)| due).into_iter().chain(coming).min() else { break };
                now = next.max(now);
                looks += 1;
                if coming.is_some_and(|time| time <= now) {
                    let Some((number, (_, name))) = arrivals.next() else { break };
                    if let Some((_, waiting)) = queues.get_mut(&name) {
                        waiting.push(number);
                        continue;
                    }
                    let wait = rates.arrived(Some(NAMES[name]), at(now));
                    if wait.is_zero() {
                        rates.began(Some(NAMES[name]), at(now));
                        sent.push((now, name, number));
                    } else {
                        queues.insert(name, (now + wait.as_millis() as u64, vec![number]));
                    }
                } else if let Some((_, name)) = due
                    && let Some((due, waiting)) = queues.get_mut(&name)
                {
                    if let Some(wait) = rates.due(Some(NAMES[name]), at(now), SLACK) {
                        *due = now + wait.as_millis() as u64;
                        continue;
                    }
                    rates.began(Some(NAMES[name]), at(now));
                    sent.push((now, name, waiting.remove(0)));
                    *due = now;
                    if waiting.is_empty() {
                        queues.remove(&name);
                    }
                }
            }
            prop_assert_eq!(sent.len(), pushes.len());
            prop_assert!(looks < pushes.len() * 20, "{looks} looks");
            for name in 0..4 {
                let of_one: Vec<_> = sent.iter().filter(|(_, it, _)| *it == name).collect();
                for pair in of_one.windows(2) {
                    prop_assert!(pair[0].2 < pair[1].2);
                    prop_assert!(pair[1].0 - pair[0].0 >= 3000 - 25);
                }
            }
            // Two at once, then one a second; each can be as early as the slack.
            for run in sent.windows(6) {
                prop_assert!(run[5].0 - run[0].0 >= 4000 - 25, "{run:?}");
            }
        }
    }
}
