//! When to look, when to read and whom to ask: the rules, without files, threads and clocks.
//!
//! The thread calls [`State::hint`] for each sign of a change, [`State::on_look`] once a second and
//! when something is [due](State::due), [`State::on_read`] after each read that this asked for, and
//! [`State::on_answer`] after the reader was asked.

use std::time::{Duration, Instant};

use super::Take;
use super::read::Seen;

/// The times of the rules. A finished change that shows in the stamp is in force after at most
/// `look + 2 * longest`: found by a look while other files of its folder are busy, and doubted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long it must be quiet after the last sign of a change before the file is read.
    pub(super) quiet: Duration,
    /// After which time it is read even if it never gets quiet.
    pub(super) longest: Duration,
    /// Between the two equal reads that a doubtful content needs.
    pub(super) confirm: Duration,
    /// Between two looks.
    pub(super) look: Duration,
    /// How long after a change each look reads, since the stamps of two writes may be the same.
    pub(super) restless: Duration,
    /// After which time a look reads in any case.
    pub(super) full: Duration,
}

impl Pace {
    pub(super) const DEFAULT: Self = Self {
        quiet: Duration::from_millis(250),
        longest: Duration::from_millis(500),
        confirm: Duration::from_millis(250),
        look: Duration::from_secs(1),
        restless: Duration::from_secs(3),
        full: Duration::from_secs(5),
    };
}

/// What [`State::on_look`] wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// Read, as something pointed at a change some time ago.
    Read,
    /// Read, as a stamp is no proof. If there is news, it has not yet been quiet for long.
    ReadUnprompted,
}

/// What is known of one file. `S` is what a look sees of it.
#[derive(Debug)]
pub(super) struct State<S> {
    pace: Pace,
    stamp: Option<S>,
    looked_at: Option<Instant>,
    /// Read at the next opportunity.
    urged: Option<Instant>,
    /// First and last sign of a change since the last read.
    signs: Option<(Instant, Instant)>,
    /// What needs a second equal read, and when the first was.
    doubted: Option<(Seen, Instant)>,
    /// What the reader last took or refused.
    answered: Option<Seen>,
    read_at: Option<Instant>,
    restless_until: Option<Instant>,
}

impl<S: PartialEq> State<S> {
    /// To be read at once; `answered` is what the reader has already taken.
    pub(super) const fn new(pace: Pace, answered: Option<Seen>, now: Instant) -> Self {
        Self {
            pace,
            stamp: None,
            looked_at: None,
            urged: Some(now),
            signs: None,
            doubted: None,
            answered,
            read_at: None,
            restless_until: None,
        }
    }

    /// Something may have changed at `at`.
    pub(super) fn hint(&mut self, at: Instant) {
        let (first, last) = self.signs.unwrap_or((at, at));
        self.signs = Some((first, last.max(at)));
    }

    /// Wants a read now, whether anything changed or not.
    pub(super) const fn urge(&mut self, now: Instant) {
        self.urged = Some(now);
    }

    /// Whether it waits for quiet: further hints need no attention before [`due`](Self::due).
    pub(super) const fn is_settling(&self) -> bool {
        self.signs.is_some()
    }

    /// When it wants to be looked at, beside the look of each second.
    pub(super) fn due(&self) -> Option<Instant> {
        self.urged.or_else(|| self.settled_at()).or_else(|| self.confirm_at())
    }

    /// The file was looked at.
    pub(super) fn on_look(&mut self, now: Instant, stamp: S) -> Next {
        if self.stamp.as_ref() != Some(&stamp) {
            self.stamp = Some(stamp);
            self.restless_until = Some(now + self.pace.restless);
            // Else it is what the signs since the last look told of.
            let is_old_news = self.signs.is_some_and(|(first, _)| self.looked_at < Some(first));
            if !is_old_news {
                self.hint(now);
            }
        }
        self.looked_at = Some(now);
        if self.urged.take().is_some() {
            self.signs = None;
            return Next::Read;
        }
        if let Some(at) = self.settled_at() {
            if now < at {
                return Next::Nothing;
            }
            self.signs = None;
            return Next::Read;
        }
        if let Some(at) = self.confirm_at() {
            return if now < at { Next::Nothing } else { Next::Read };
        }
        let is_over = |since: Option<Instant>, time| since.is_none_or(|since| now >= since + time);
        if self.restless_until.is_some_and(|until| now < until)
            || is_over(self.read_at, self.pace.full)
        {
            return Next::ReadUnprompted;
        }
        Next::Nothing
    }

    /// The file was read for `next`. `Some` if the reader has to be asked, with whether this is the
    /// second equal read.
    pub(super) fn on_read(&mut self, now: Instant, next: Next, seen: &Seen) -> Option<bool> {
        self.read_at = Some(now);
        if self.answered.as_ref() == Some(seen) {
            self.doubted = None;
            return None;
        }
        self.restless_until = Some(now + self.pace.restless);
        if next == Next::ReadUnprompted {
            self.hint(now);
            return None;
        }
        match &self.doubted {
            Some((doubted, since)) if doubted == seen => {
                // Somebody who urges may be early.
                (now >= *since + self.pace.confirm).then_some(true)
            }
            _ if seen.is_doubtful() => {
                self.doubted = Some((seen.clone(), now));
                None
            }
            _ => {
                self.doubted = None;
                Some(false)
            }
        }
    }

    /// The reader was asked about `seen`, which was read at `read_at`, and answered.
    pub(super) fn on_answer(&mut self, read_at: Instant, seen: Seen, confirmed: bool, take: Take) {
        if take == Take::Suspicious && !confirmed {
            self.doubted = Some((seen, read_at));
        } else {
            self.doubted = None;
            self.answered = Some(seen);
        }
    }

    fn settled_at(&self) -> Option<Instant> {
        let (first, last) = self.signs?;
        Some((last + self.pace.quiet).min(first + self.pace.longest))
    }

    fn confirm_at(&self) -> Option<Instant> {
        self.doubted.as_ref().map(|(_, since)| *since + self.pace.confirm)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace::DEFAULT;

    /// A content by number; odd ones look half written.
    fn seen(content: u8) -> Seen {
        Seen::Content { digest: [content; 32], mode: 0o600, detached: false }
    }

    const MISSING: Seen = Seen::Error { kind: super::super::ReadErrorKind::Missing, os: Some(2) };

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A state that has answered on content 0 with stamp 0, 10 s ago.
    fn settled(now: Instant) -> State<u32> {
        let mut state = State::new(PACE, Some(seen(0)), now);
        assert_eq!(state.on_look(now, 0), Next::Read);
        assert_eq!(state.on_read(now, Next::Read, &seen(0)), None);
        let later = now + Duration::from_secs(10);
        assert_eq!(state.on_look(later, 0), Next::ReadUnprompted);
        assert_eq!(state.on_read(later, Next::ReadUnprompted, &seen(0)), None);
        assert_eq!(state.due(), None);
        state
    }

    #[test]
    fn it_is_read_when_it_was_quiet_and_not_before() {
        let start = Instant::now();
        let mut state = settled(start);
        let now = start + Duration::from_secs(20);
        state.hint(now);
        state.hint(now + ms(100));
        assert_eq!(state.due(), Some(now + ms(350)));
        assert_eq!(state.on_look(now + ms(349), 0), Next::Nothing);
        assert_eq!(state.on_look(now + ms(350), 0), Next::Read);
        assert!(!state.is_settling());
    }

    #[test]
    fn a_stamp_that_moves_is_a_sign_unless_a_hint_came_before() {
        let start = Instant::now();
        let mut state = settled(start);
        let now = start + Duration::from_secs(20);
        // The hint told of it, so it is quiet since then.
        state.hint(now);
        assert_eq!(state.on_look(now + ms(250), 1), Next::Read);
        // Found by a look, and found to go on by the next.
        let now = now + Duration::from_secs(1);
        assert_eq!(state.on_look(now, 2), Next::Nothing);
        assert_eq!(state.on_look(now + ms(250), 3), Next::Nothing);
        assert_eq!(state.on_look(now + ms(499), 3), Next::Nothing);
        assert_eq!(state.on_look(now + ms(500), 3), Next::Read);
    }

    #[test]
    fn it_is_read_in_time_even_if_it_never_gets_quiet() {
        let start = Instant::now();
        let mut state = settled(start);
        let now = start + Duration::from_secs(20);
        for at in 0..=50 {
            state.hint(now + ms(10 * at));
        }
        assert_eq!(state.on_look(now + ms(499), 0), Next::Nothing);
        assert_eq!(state.on_look(now + ms(500), 1), Next::Read);
    }

    #[test]
    fn a_doubtful_content_needs_an_equal_read_a_quarter_second_later() {
        let now = Instant::now();
        let mut state = State::<u32>::new(PACE, None, now);
        assert_eq!(state.on_look(now, 0), Next::Read);
        assert_eq!(state.on_read(now, Next::Read, &seen(1)), Some(false));
        state.on_answer(now, seen(1), false, Take::Suspicious);
        assert_eq!(state.due(), Some(now + ms(250)));
        // Who urges it gets no answer earlier.
        state.urge(now + ms(100));
        assert_eq!(state.on_look(now + ms(100), 0), Next::Read);
        assert_eq!(state.on_read(now + ms(100), Next::Read, &seen(1)), None);
        // Another content is not the second read.
        assert_eq!(state.on_look(now + ms(250), 0), Next::Read);
        assert_eq!(state.on_read(now + ms(250), Next::Read, &seen(3)), Some(false));
        state.on_answer(now + ms(250), seen(3), false, Take::Suspicious);
        assert_eq!(state.on_look(now + ms(500), 0), Next::Read);
        assert_eq!(state.on_read(now + ms(500), Next::Read, &seen(3)), Some(true));
        // There is no third.
        state.on_answer(now + ms(500), seen(3), true, Take::Suspicious);
        assert_eq!(state.due(), None);
        assert_eq!(state.on_read(now + ms(600), Next::Read, &seen(3)), None);
    }

    #[test]
    fn an_error_is_told_after_two_reads_and_forgotten_if_it_passes() {
        let start = Instant::now();
        let mut state = settled(start);
        let now = start + Duration::from_secs(20);
        assert_eq!(state.on_read(now, Next::Read, &MISSING), None);
        assert_eq!(state.on_read(now + ms(250), Next::Read, &seen(0)), None);
        assert_eq!(state.due(), None);
        assert_eq!(state.on_read(now + ms(500), Next::Read, &MISSING), None);
        assert_eq!(state.on_read(now + ms(750), Next::Read, &MISSING), Some(true));
        state.on_answer(now + ms(750), MISSING, true, Take::Refused);
        assert_eq!(state.on_read(now + ms(900), Next::Read, &MISSING), None);
        // And so does its end need no more than one.
        assert_eq!(state.on_read(now + ms(950), Next::Read, &seen(0)), Some(false));
    }

    #[test]
    fn news_found_without_a_sign_must_settle_first() {
        let start = Instant::now();
        let mut state = settled(start);
        let now = start + Duration::from_secs(20);
        assert_eq!(state.on_look(now, 0), Next::ReadUnprompted);
        assert_eq!(state.on_read(now, Next::ReadUnprompted, &seen(2)), None);
        assert_eq!(state.on_look(now + ms(249), 0), Next::Nothing);
        assert_eq!(state.on_look(now + ms(250), 0), Next::Read);
        assert_eq!(state.on_read(now + ms(250), Next::Read, &seen(2)), Some(false));
    }

    #[test]
    fn after_any_sign_in_the_stamp_each_look_reads_for_a_while() {
        let start = Instant::now();
        let mut state = settled(start);
        let now = start + Duration::from_secs(11);
        assert_eq!(state.on_look(now, 0), Next::Nothing);
        assert_eq!(state.on_look(now, 1), Next::Nothing);
        assert_eq!(state.on_look(now + ms(250), 1), Next::Read);
        // It was only touched, but what follows within the same tick would look the same.
        assert_eq!(state.on_read(now + ms(250), Next::Read, &seen(0)), None);
        for second in [1, 2] {
            let look = now + Duration::from_secs(second);
            assert_eq!(state.on_look(look, 1), Next::ReadUnprompted);
            assert_eq!(state.on_read(look, Next::ReadUnprompted, &seen(0)), None);
        }
        assert_eq!(state.on_look(now + Duration::from_secs(3), 1), Next::Nothing);
    }

    /// One change in the simulated life of a file.
    #[derive(Clone, Debug)]
    struct Change {
        /// Since the one before.
        after: u64,
        content: Option<u8>,
        /// The clock of the file system did not tick since the one before.
        same_tick: bool,
        /// When notifications tell of it, if they do.
        hint_after: Option<u64>,
    }

    fn change() -> impl Strategy<Value = Change> {
        let after = prop_oneof![2 => 0_u64..40, 3 => 0_u64..700, 1 => 0_u64..9000];
        (
            after,
            proptest::option::weighted(0.9, 0_u8..6),
            any::<bool>(),
            proptest::option::of(0_u64..60),
        )
            .prop_map(|(after, content, same_tick, hint_after)| Change {
                after,
                content,
                same_tick: same_tick && after < 20,
                hint_after,
            })
    }

    proptest! {
        #[test]
        fn the_last_state_wins_in_time_whatever_is_lost(
            changes in proptest::collection::vec(change(), 1..12),
            phase in 0_u64..1000,
            noise in proptest::option::of((20_u64..300, 0_u64..12_000)),
        ) {
            let start = Instant::now();
            let at = |millis: u64| start + ms(millis);
            let (mut file, mut stamp) = (Some(0), 0_u32);
            let mut history = vec![(0, file)];
            let mut state = State::new(PACE, None, start);
            let mut hints: Vec<u64> = Vec::new();
            let mut answered = None;
            let mut suspicions: Vec<(u64, u8)> = Vec::new();
            let (mut reads_at, mut asks_at) = (Vec::new(), Vec::new());

            let mut coming = changes.iter();
            let mut next = coming.next();
            let mut changed_at = 0;
            let mut end = u64::MAX;
            let mut now = 0;
            while now < end {
                while let Some(change) = next && changed_at + change.after <= now {
                    file = change.content;
                    stamp += u32::from(!change.same_tick);
                    hints.extend(change.hint_after.map(|delay| now + delay));
                    history.push((now, file));
                    changed_at = now;
                    next = coming.next();
                }
                if next.is_none() && end == u64::MAX {
                    end = now + 20_000;
                }
                hints.retain(|&due| {
                    if due <= now {
                        state.hint(at(due));
                    }
                    due > now
                });
                if noise.is_some_and(|(every, from)| now >= from && now % every < 5) {
                    state.hint(at(now));
                }
                let looking = now % 1000 == phase / 5 * 5;
                if looking || state.due().is_some_and(|due| due <= at(now)) {
                    let wanted = state.on_look(at(now), stamp);
                    if wanted != Next::Nothing {
                        reads_at.push(now);
                        let found = file.map_or(MISSING, seen);
                        if let Some(confirmed) = state.on_read(at(now), wanted, &found) {
                            asks_at.push(now);
                            prop_assert_ne!(Some(file), answered, "asked twice about the same");
                            prop_assert!(confirmed || file.is_some(), "an error at first sight");
                            let half = file.filter(|content| content % 2 == 1);
                            let take = match half {
                                Some(content) if !confirmed => {
                                    suspicions.push((now, content));
                                    Take::Suspicious
                                }
                                Some(content) => {
                                    let first = suspicions.iter().rev().find(|(_, of)| *of == content);
                                    let first = first.expect("confirmed what was never doubted").0;
                                    prop_assert!(now - first >= 250, "{first} to {now}");
                                    Take::Taken
                                }
                                None => Take::Taken,
                            };
                            if take == Take::Taken {
                                answered = Some(file);
                            }
                            state.on_answer(at(now), found, confirmed, take);
                        }
                    }
                    prop_assert!(state.due().is_none_or(|due| due > at(now)), "it would spin");
                }
                if now >= changed_at + 2000 && next.is_none() {
                    prop_assert_eq!(answered, Some(file), "not in force in time; {:?}", history);
                }
                now += 5;
            }
            let calm = changed_at + 5000;
            prop_assert!(asks_at.iter().all(|at| *at < calm), "asked without a change");
            if noise.is_none() {
                let reads = reads_at.iter().filter(|at| **at >= calm).count();
                prop_assert!(reads <= 4, "{reads} reads in 15 s without a change");
            }
        }
    }
}
