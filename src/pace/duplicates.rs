//! Which deliveries have been here before.
//!
//! Of each ref the last delivery is remembered, and no other. So what came between two that are the
//! same is seen by its being there, and nothing has to be searched for and ended.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use super::after;
use super::key::{ChangedRefs, Digest, Identity};

/// Remembers what upstream accepted, so that it need not hear it twice.
///
/// Every delivery that is to be sent is told when it comes, by [`arrived`](Self::arrived) or
/// [`arrived_without_ids`](Self::arrived_without_ids), and once more when upstream
/// [`accepted`](Self::accepted) it. For one that fails there is nothing to tell.
///
/// Costs about 200 bytes a ref, and a few look-ups a delivery.
pub struct Duplicates {
    window: Duration,
    max_refs: usize,
    last: HashMap<Digest, Last>,
    /// Oldest first.
    by_age: BTreeSet<(u64, Digest)>,
    count: u64,
}

/// What is known of the last delivery of a ref.
struct Last {
    number: u64,
    /// Which it is and until when that counts, once upstream accepted it.
    accepted: Option<(Identity, Instant)>,
}

/// What a delivery is that has just come.
#[derive(Debug)]
#[must_use]
pub enum Arrival {
    /// Upstream has not accepted it, or not as the last of its refs.
    New(Pending),
    /// Upstream has accepted the same delivery, and no other of its refs has come since.
    Duplicate,
}

/// A delivery that is under way. If it fails, drop it.
#[derive(Debug)]
pub struct Pending {
    number: u64,
    identity: Identity,
    changed: ChangedRefs,
}

impl Duplicates {
    /// Remembers deliveries for `window` after upstream accepted them, and `max_refs` refs; of
    /// more, those go first about which nothing came for the longest time.
    ///
    /// A window of zero finds no duplicates. What is longer than a year is a year.
    pub fn new(window: Duration, max_refs: usize) -> Self {
        let (last, by_age) = (HashMap::new(), BTreeSet::new());
        Self { window, max_refs, last, by_age, count: 0 }
    }

    /// Takes in a delivery that says from which objects to which its refs go.
    ///
    /// One that is new ends what was remembered of its refs, whatever becomes of it. One of unknown
    /// or too many refs is always new.
    pub fn arrived(&mut self, identity: Identity, changed: ChangedRefs, now: Instant) -> Arrival {
        if self.is_duplicate(&identity, &changed, now) {
            return Arrival::Duplicate;
        }
        let number = self.remember(&changed);
        Arrival::New(Pending { number, identity, changed })
    }

    /// Takes in a delivery without old and new ids: a manual trigger, a test, a mirror's report.
    ///
    /// It is never a duplicate, and ends what was remembered of its refs: it may be about any state.
    pub fn arrived_without_ids(&mut self, changed: &ChangedRefs) {
        self.remember(changed);
    }

    /// Upstream has accepted a delivery.
    ///
    /// It counts from now on, unless another of its refs came meanwhile: nobody can tell which of the
    /// two upstream saw last.
    pub fn accepted(&mut self, pending: Pending, now: Instant) {
        let until = after(now, self.window);
        for scope in &pending.changed.refs {
            if let Some(last) = self.last.get_mut(scope)
                && last.number == pending.number
            {
                last.accepted = Some((pending.identity, until));
            }
        }
    }

    /// Forgets everything, and all that is under way: for an event that is about no repository, such
    /// as a reindex of all.
    pub fn clear(&mut self) {
        self.last.clear();
        self.by_age.clear();
    }

    /// How many refs are remembered, whole repositories among them.
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    fn is_duplicate(&self, identity: &Identity, changed: &ChangedRefs, now: Instant) -> bool {
        // What is forgotten here is older than every ref that is not.
        let whole = self.last.get(&changed.repository).map_or(0, |last| last.number);
        let holds = |last: &Last| {
            last.number > whole
                && last.accepted.is_some_and(|(known, until)| known == *identity && now < until)
        };
        let mut refs = changed.refs.iter();
        !changed.refs.is_empty() && refs.all(|scope| self.last.get(scope).is_some_and(holds))
    }

    /// Makes this the last delivery of its refs, and gives its number.
    fn remember(&mut self, changed: &ChangedRefs) -> u64 {
        self.count += 1;
        let number = self.count;
        let whole = [changed.repository];
        let scopes = if changed.refs.is_empty() { &whole[..] } else { &changed.refs };
        for scope in scopes {
            if let Some(last) = self.last.insert(*scope, Last { number, accepted: None }) {
                self.by_age.remove(&(last.number, *scope));
            }
            self.by_age.insert((number, *scope));
        }
        while self.last.len() > self.max_refs
            && let Some((_, scope)) = self.by_age.pop_first()
        {
            self.last.remove(&scope);
        }
        number
    }
}

impl fmt::Debug for Duplicates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplicates")
            .field("window", &self.window)
            .field("max_refs", &self.max_refs)
            .field("refs", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn identity(body: u8) -> Identity {
        Identity::new("hook", None, &[body; 32])
    }

    fn changed(refs: &[&str]) -> ChangedRefs {
        ChangedRefs::new("hook", "example.com/acme/widget", refs)
    }

    impl Duplicates {
        /// A delivery that is to be new.
        fn new_one(&mut self, body: u8, refs: &[&str], now: Instant) -> Pending {
            match self.arrived(identity(body), changed(refs), now) {
                Arrival::New(pending) => pending,
                Arrival::Duplicate => panic!("{body} {refs:?} is a duplicate"),
            }
        }

        fn sees_again(&mut self, body: u8, refs: &[&str], now: Instant) -> bool {
            matches!(self.arrived(identity(body), changed(refs), now), Arrival::Duplicate)
        }
    }

    #[test]
    fn what_upstream_accepted_is_a_duplicate_until_the_window_ends() {
        let start = Instant::now();
        for (later, expected) in [(0, true), (3599, true), (3600, false)] {
            let mut duplicates = Duplicates::new(HOUR, 100);
            let pending = duplicates.new_one(1, &["main"], start);
            // The window begins with the answer.
            let accepted = start + Duration::from_secs(20);
            duplicates.accepted(pending, accepted);
            let now = accepted + Duration::from_secs(later);
            assert_eq!(duplicates.sees_again(1, &["main"], now), expected, "{later}");
        }
    }

    #[test]
    fn a_redelivery_does_not_lengthen_the_window() {
        let start = Instant::now();
        let mut duplicates = Duplicates::new(HOUR, 100);
        let pending = duplicates.new_one(1, &["main"], start);
        duplicates.accepted(pending, start);
        assert!(duplicates.sees_again(1, &["main"], start + HOUR - Duration::from_secs(1)));
        assert!(!duplicates.sees_again(1, &["main"], start + HOUR));
    }

    #[test]
    fn what_failed_or_is_under_way_goes_again() {
        let now = Instant::now();
        let mut duplicates = Duplicates::new(HOUR, 100);
        let failed = duplicates.new_one(1, &["main"], now);
        drop(failed);
        let first = duplicates.new_one(1, &["main"], now);
        let twin = duplicates.new_one(1, &["main"], now);
        // Of the two the later one decides.
        duplicates.accepted(first, now);
        assert!(!duplicates.is_duplicate(&identity(1), &changed(&["main"]), now));
        duplicates.accepted(twin, now);
        assert!(duplicates.sees_again(1, &["main"], now));
    }

    #[test]
    fn a_branch_that_goes_back_and_forth_is_told_each_time() {
        let now = Instant::now();
        let (a_to_b, b_to_a) = (1, 2);
        let mut duplicates = Duplicates::new(HOUR, 100);
        for body in [a_to_b, b_to_a, a_to_b, b_to_a, a_to_b] {
            let pending = duplicates.new_one(body, &["main"], now);
            duplicates.accepted(pending, now);
        }
        assert!(duplicates.sees_again(a_to_b, &["main"], now));
        assert!(!duplicates.sees_again(b_to_a, &["main"], now));
    }

    #[test]
    fn it_is_told_each_time_also_while_the_way_back_is_held_or_has_failed() {
        let now = Instant::now();
        let (a_to_b, b_to_a) = (1, 2);
        let mut duplicates = Duplicates::new(HOUR, 100);
        let first = duplicates.new_one(a_to_b, &["main"], now);
        duplicates.accepted(first, now);
        let held = duplicates.new_one(b_to_a, &["main"], now);
        let third = duplicates.new_one(a_to_b, &["main"], now);
        duplicates.accepted(third, now);
        // Accepted late, it is not the last of its ref any more.
        duplicates.accepted(held, now);
        assert!(duplicates.sees_again(a_to_b, &["main"], now));
        assert!(!duplicates.sees_again(b_to_a, &["main"], now));
    }

    #[test]
    fn an_answer_that_comes_after_another_push_of_the_ref_does_not_count() {
        let now = Instant::now();
        let mut duplicates = Duplicates::new(HOUR, 100);
        let slow = duplicates.new_one(1, &["main"], now);
        let quick = duplicates.new_one(2, &["main"], now);
        duplicates.accepted(quick, now);
        duplicates.accepted(slow, now);
        assert!(!duplicates.sees_again(1, &["main"], now));
    }

    #[test]
    fn only_what_shares_a_ref_of_the_same_repository_and_hook_ends_it() {
        let now = Instant::now();
        let repository = "example.com/acme/widget";
        for (other, ends) in [
            (changed(&["v1"]), true),
            (changed(&["dev", "main"]), true),
            (changed(&["dev"]), false),
            (ChangedRefs::new("hook", "example.com/acme/gadget", ["main"]), false),
            (ChangedRefs::new("another", repository, ["main"]), false),
        ] {
            let mut duplicates = Duplicates::new(HOUR, 100);
            let pending = duplicates.new_one(1, &["main", "v1"], now);
            duplicates.accepted(pending, now);
            assert!(matches!(duplicates.arrived(identity(2), other, now), Arrival::New(_)));
            assert_eq!(duplicates.sees_again(1, &["v1", "main"], now), !ends);
        }
    }

    #[test]
    fn an_event_without_ids_ends_what_it_may_be_about_and_is_never_a_duplicate() {
        let now = Instant::now();
        let none: [&str; 0] = [];
        let many: Vec<_> = (0..65).map(|n| n.to_string()).collect();
        let elsewhere = ChangedRefs::new("hook", "example.com/acme/gadget", none);
        for (other, ends) in [
            (changed(&["main"]), true),
            (changed(&[]), true),
            (ChangedRefs::new("hook", "example.com/acme/widget", &many), true),
            (changed(&["dev"]), false),
            (elsewhere, false),
        ] {
            let mut duplicates = Duplicates::new(HOUR, 100);
            let pending = duplicates.new_one(1, &["main"], now);
            duplicates.accepted(pending, now);
            duplicates.arrived_without_ids(&other);
            assert_eq!(duplicates.sees_again(1, &["main"], now), !ends, "{other:?}");
        }
        let mut duplicates = Duplicates::new(HOUR, 100);
        for _ in 0..2 {
            let pending = duplicates.new_one(1, &[], now);
            duplicates.accepted(pending, now);
        }
    }

    #[test]
    fn when_all_is_forgotten_what_is_under_way_is_too() {
        let now = Instant::now();
        let mut duplicates = Duplicates::new(HOUR, 100);
        let accepted = duplicates.new_one(1, &["main"], now);
        duplicates.accepted(accepted, now);
        let pending = duplicates.new_one(2, &["dev"], now);
        duplicates.clear();
        assert!(duplicates.is_empty());
        duplicates.accepted(pending, now);
        assert!(!duplicates.sees_again(1, &["main"], now));
        assert!(!duplicates.sees_again(2, &["dev"], now));
    }

    #[test]
    fn of_too_many_refs_the_oldest_is_forgotten() {
        let now = Instant::now();
        let mut duplicates = Duplicates::new(HOUR, 3);
        for (body, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "d")] {
            let pending = duplicates.new_one(body, &[name], now);
            duplicates.accepted(pending, now);
            assert!(duplicates.len() <= 3);
        }
        for (body, name, known) in [(4, "a", true), (3, "c", true), (5, "d", true), (2, "b", false)]
        {
            assert_eq!(duplicates.sees_again(body, &[name], now), known, "{name}");
        }
        assert_eq!(duplicates.last.len(), duplicates.by_age.len());
    }

    #[test]
    fn without_a_window_or_room_nothing_is_a_duplicate() {
        let now = Instant::now();
        for (window, room) in [(Duration::ZERO, 100), (HOUR, 0)] {
            let mut duplicates = Duplicates::new(window, room);
            let pending = duplicates.new_one(1, &["main"], now);
            duplicates.accepted(pending, now);
            assert!(!duplicates.sees_again(1, &["main"], now));
        }
    }

    /// The rules over again: everything that came, searched from the start.
    #[derive(Default)]
    struct Model(Vec<Came>);

    struct Came {
        /// `None` for one without ids.
        body: Option<u8>,
        repository: u8,
        /// As bits; none are all.
        refs: u8,
        accepted: Option<u64>,
    }

    impl Model {
        fn is_duplicate(&self, body: u8, repository: u8, refs: u8, now: u64, window: u64) -> bool {
            refs != 0
                && self.0.iter().enumerate().any(|(index, came)| {
                    let same = came.body == Some(body)
                        && (came.repository, came.refs) == (repository, refs);
                    let counts = came.accepted.is_some_and(|at| now < at + window);
                    let is_last = self.0[index + 1..].iter().all(|later| {
                        let shares = later.refs & refs != 0 || later.refs == 0;
                        later.repository != repository || !shares
                    });
                    same && counts && is_last
                })
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A body says which refs it is about: the same body, the same refs.
        Arrives {
            body: u8,
        },
        ArrivesWithoutIds {
            repository: u8,
            refs: u8,
        },
        /// One of those under way, by its place among them.
        Ends {
            which: usize,
            accepted: bool,
        },
        Passes {
            millis: u64,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u8..12).prop_map(|body| Step::Arrives { body }),
            1 => (0_u8..2, 0_u8..8)
                .prop_map(|(repository, refs)| Step::ArrivesWithoutIds { repository, refs }),
            8 => (any::<usize>(), proptest::bool::weighted(0.8))
                .prop_map(|(which, accepted)| Step::Ends { which, accepted }),
            2 => (0_u64..80).prop_map(|millis| Step::Passes { millis }),
        ]
    }

    fn refs_of(repository: u8, refs: u8) -> ChangedRefs {
        let names = (0..8).filter(|bit| refs & (1 << bit) != 0).map(|bit| bit.to_string());
        ChangedRefs::new("hook", &repository.to_string(), names)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_duplicate_is_what_was_accepted_as_the_last_of_its_refs_and_nothing_else(
            steps in vec(step(), 1..120),
            abouts in vec((0_u8..2, prop_oneof![4 => 1_u8..4, 1 => 0_u8..8]), 12),
            max_refs in prop_oneof![Just(1000_usize), 0_usize..6],
        ) {
            let start = Instant::now();
            let at = |now| start + Duration::from_millis(now);
            let window = 100;
            let mut duplicates = Duplicates::new(Duration::from_millis(window), max_refs);
            let mut model = Model::default();
            let deliveries: Vec<_> = (0_u8..).zip(&abouts)
                .map(|(body, (repository, refs))| (identity(body), refs_of(*repository, *refs)))
                .collect();
            let mut under_way = Vec::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Arrives { body } => {
                        let (repository, refs) = abouts[usize::from(body)];
                        let expected = model.is_duplicate(body, repository, refs, now, window);
                        let (identity, changed) = deliveries[usize::from(body)].clone();
                        match duplicates.arrived(identity, changed, at(now)) {
                            Arrival::Duplicate => prop_assert!(expected),
                            Arrival::New(pending) => {
                                // What was forgotten for want of room only goes once more.
                                prop_assert!(!expected || max_refs < 1000);
                                under_way.push((model.0.len(), pending));
                                let body = Some(body);
                                model.0.push(Came { body, repository, refs, accepted: None });
                            }
                        }
                    }
                    Step::ArrivesWithoutIds { repository, refs } => {
                        duplicates.arrived_without_ids(&refs_of(repository, refs));
                        model.0.push(Came { body: None, repository, refs, accepted: None });
                    }
                    Step::Ends { which, accepted } if !under_way.is_empty() => {
                        let (index, pending) = under_way.swap_remove(which % under_way.len());
                        if accepted {
                            duplicates.accepted(pending, at(now));
                            model.0[index].accepted = Some(now);
                        }
                    }
                    Step::Ends { .. } => {}
                    Step::Passes { millis } => now += millis,
                }
                prop_assert!(duplicates.len() <= max_refs);
                prop_assert_eq!(duplicates.last.len(), duplicates.by_age.len());
            }
        }
    }
}
