//! Random days in the life of a coalescer, beside a model that is slow and plain.
//!
//! [`live`] plays one day: pushes come, a worker sends what is due, upstream takes its time and fails.
//! Every answer is compared with the [`Model`]'s, which states the rules anew without an index. What
//! is written down, the [`Day`], is then held against what users are promised, with no model at all.
//! Times are in milliseconds since the start.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::KeyBy;
use super::*;

/// A push tells of some of five refs, each of which is a bit.
type Refs = u8;

/// The rules over again.
struct Model {
    pace: Pace,
    /// By ref: until when nothing goes, until when one is held that can wait, and who was sent last.
    refs: BTreeMap<u32, (u64, u64, usize)>,
    held: Vec<Waiting>,
    pressed: Option<usize>,
}

#[derive(Clone)]
struct Waiting {
    push: usize,
    refs: Refs,
    came: u64,
    deadline: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    SendNow,
    Held(Vec<usize>),
    Full,
}

impl Model {
    fn offer(&mut self, push: usize, refs: Refs, now: u64) -> Answer {
        let deadline = now + millis(self.pace.max_wait);
        let mut new = Waiting { push, refs, came: now, deadline };
        let delay = millis(self.pace.delay);
        let sharing: Vec<_> =
            self.held.iter().filter(|held| held.refs & refs != 0).cloned().collect();
        if sharing.is_empty() && self.ready(&new) <= now {
            self.send(&new, now);
            return Answer::SendNow;
        }
        let can_go = |held: &Waiting| {
            let keeps_its_deadline = now <= held.deadline && held.deadline < now + delay;
            held.refs & !refs == 0 && !keeps_its_deadline
        };
        let stay = sharing.iter().filter(|held| !can_go(held)).map(|held| held.deadline).max();
        let gone: Vec<_> = sharing
            .iter()
            .filter(|held| can_go(held) && stay.is_none_or(|stay| stay <= held.deadline))
            .collect();
        if gone.is_empty() && self.held.len() >= self.pace.max_held {
            return Answer::Full;
        }
        self.held.retain(|held| gone.iter().all(|gone| gone.push != held.push));
        if self.held.len() >= self.pace.max_held / 4 * 3 {
            let pressed = self.pressed;
            if let Some(oldest) = self.held.iter_mut().find(|held| Some(held.push) > pressed) {
                oldest.deadline = oldest.deadline.min(now);
                self.pressed = Some(oldest.push);
            }
        }
        new.deadline =
            gone.iter().map(|gone| gone.deadline).min().unwrap_or(deadline).min(deadline);
        self.held.push(new);
        Answer::Held(gone.iter().map(|gone| gone.push).collect())
    }

    fn ready(&self, push: &Waiting) -> u64 {
        let of_refs = || bits(push.refs).filter_map(|bit| self.refs.get(&bit));
        let blocked = of_refs().map(|of| of.0).max().unwrap_or(0).max(push.came);
        let free = of_refs().map(|of| of.1).max().unwrap_or(0);
        blocked.max(free.max(push.came + millis(self.pace.delay)).min(push.deadline))
    }

    fn next(&self) -> Option<(u64, usize)> {
        let first = self.held.iter().enumerate().filter(|(at, held)| {
            self.held[..*at].iter().all(|earlier| earlier.refs & held.refs == 0)
        });
        first.map(|(_, held)| (self.ready(held), held.push)).min()
    }

    fn take(&mut self, now: u64) -> Option<usize> {
        let (_, push) = self.next().filter(|(due, _)| *due <= now)?;
        let at = self.held.iter().position(|held| held.push == push)?;
        let held = self.held.remove(at);
        self.send(&held, now);
        Some(push)
    }

    fn send(&mut self, push: &Waiting, now: u64) {
        let state = (now + millis(self.pace.max_send), now + millis(self.pace.interval), push.push);
        self.refs.extend(bits(push.refs).map(|bit| (bit, state)));
    }

    fn succeeded(&mut self, push: &Waiting, started: u64) {
        for (_, state) in self.refs.iter_mut().filter(|(bit, _)| push.refs & (1 << **bit) != 0) {
            if state.2 == push.push {
                state.0 = started;
            }
        }
    }

    /// Whether it was put back.
    fn failed(&mut self, push: Waiting, put_back: bool, started: u64, retry_at: u64) -> bool {
        for (_, state) in self.refs.iter_mut().filter(|(bit, _)| push.refs & (1 << **bit) != 0) {
            if state.2 <= push.push {
                (state.0, state.1) = (retry_at, started);
            }
        }
        let mut later = self.held.iter().filter(|held| held.push > push.push);
        let put_back = put_back && later.all(|held| push.refs & !held.refs != 0);
        if put_back {
            self.held.push(push);
            self.held.sort_by_key(|held| held.push);
        }
        put_back
    }
}

/// The keys of all sets of refs.
static KEYS: LazyLock<Vec<CoalesceKey>> = LazyLock::new(|| {
    let key = |refs| {
        let names = bits(refs).map(|bit| format!("refs/heads/{bit}"));
        CoalesceKey::new(KeyBy::Ref, "hook", "repository", "push", names)
    };
    (0..32).map(key).collect()
});

fn bits(refs: Refs) -> impl Iterator<Item = u32> {
    (0..8).filter(move |bit| refs & (1 << bit) != 0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

/// What happens on a day.
#[derive(Clone, Debug)]
struct Script {
    pace: Pace,
    pushes: Vec<Coming>,
    /// How upstream behaves, send after send; in the end it is well.
    sends: Vec<Fate>,
    /// The worker looks at multiples of this. Zero: exactly when something is due.
    lag: u64,
    /// What comes first of what happens in the same millisecond: ends of sends, pushes, the worker.
    order: Vec<What>,
    /// After the last push the process shuts down.
    drain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    End,
    Push,
    Work,
}

#[derive(Clone, Debug)]
struct Coming {
    after: u64,
    refs: Refs,
    /// If it goes at once and fails, whether it is kept. One that was held always is.
    keep: bool,
}

#[derive(Clone, Debug)]
struct Fate {
    takes: u64,
    /// After how long it is tried again, if it fails.
    retry: Option<u64>,
}

/// What happened.
#[derive(Debug, Default)]
struct Day {
    pushes: Vec<Pushed>,
    sends: Vec<Send>,
    /// The longest list of held ones.
    most: usize,
    refused: usize,
    put_back: usize,
    pressed: bool,
}

#[derive(Debug)]
struct Pushed {
    refs: Refs,
    came: u64,
    /// When the first of those came in whose place it goes.
    oldest: u64,
    /// The host was told that it will arrive.
    promised: bool,
}

#[derive(Debug)]
struct Send {
    push: usize,
    start: u64,
    end: u64,
    retry_at: Option<u64>,
    drained: bool,
}

struct UnderWay {
    /// In the list of sends.
    index: usize,
    due: Due<usize>,
    waiting: Waiting,
    keep: bool,
}

/// Plays a day. Where slots are forgotten that still matter, the model, which forgets none, is not asked.
fn live(script: &Script) -> Result<Day, TestCaseError> {
    let start = Instant::now();
    let at = |time: u64| start + Duration::from_millis(time);
    let since = |instant: Instant| millis(instant.duration_since(start));
    let compare = script.pace.max_idle > 100 && script.pace.max_send > Duration::from_secs(1);
    let mut coalescer = Coalescer::new(script.pace.clone());
    let pace = coalescer.pace.clone();
    let mut model =
        Model { pace: pace.clone(), refs: BTreeMap::new(), held: Vec::new(), pressed: None };
    let mut day = Day::default();
    let mut under_way: Vec<UnderWay> = Vec::new();
    let mut deadlines: Vec<u64> = Vec::new();
    let mut fates = script.sends.iter();
    let mut coming = script.pushes.iter();
    let (mut next_push, mut now) = (coming.next(), 0);
    let mut push_at = next_push.map_or(0, |push| push.after);

    loop {
        let end_at = under_way.iter().map(|it| day.sends[it.index].end).min();
        let down = script.drain && next_push.is_none();
        let work_at = coalescer.next_due().filter(|_| !down).map(|due| {
            let due = since(due).max(now);
            if script.lag == 0 { due } else { due.next_multiple_of(script.lag) }
        });
        let what =
            [(end_at, What::End), (next_push.map(|_| push_at), What::Push), (work_at, What::Work)];
        let rank = |what| script.order.iter().position(|it| *it == what);
        let next = what.into_iter().filter_map(|(at, what)| Some((at?, rank(what), what)));
        let Some((time, _, what)) = next.min_by_key(|(at, rank, _)| (*at, *rank)) else { break };
        now = time;

        let mut to_send = None;
        match what {
            What::Push => {
                let Coming { refs, keep, .. } = *next_push.unwrap();
                let push = day.pushes.len();
                deadlines.push(now + millis(pace.max_wait));
                let is_pressing = coalescer.len() >= pace.max_held / 4 * 3;
                let mut pushed = Pushed { refs, came: now, oldest: now, promised: true };
                let answer = match coalescer.offer(KEYS[usize::from(refs)].clone(), push, at(now)) {
                    Decision::SendNow(due) => {
                        to_send = Some((due, keep));
                        pushed.promised = keep;
                        Answer::SendNow
                    }
                    Decision::Held { replaced } => {
                        day.pressed |= is_pressing;
                        for older in &replaced {
                            let older = &day.pushes[*older];
                            prop_assert_eq!(older.refs & !refs, 0, "swallowed another branch");
                            pushed.oldest = pushed.oldest.min(older.oldest);
                        }
                        Answer::Held(replaced)
                    }
                    Decision::Full(item) => {
                        prop_assert_eq!(item, push);
                        pushed.promised = false;
                        day.refused += 1;
                        Answer::Full
                    }
                };
                day.pushes.push(pushed);
                if compare {
                    prop_assert_eq!(&answer, &model.offer(push, refs, now));
                }
                next_push = coming.next();
                push_at = now + next_push.map_or(0, |push| push.after);
            }
            What::Work => {
                let taken = coalescer.take_due(at(now));
                prop_assert!(taken.is_some(), "what is due is there");
                if compare {
                    prop_assert_eq!(taken.as_ref().map(|due| due.item), model.take(now));
                }
                to_send = taken.map(|due| (due, true));
            }
            What::End => {
                let ended = under_way.iter().position(|it| day.sends[it.index].end == now).unwrap();
                let UnderWay { index, due: Due { item, sending }, waiting, keep } =
                    under_way.remove(ended);
                let started = day.sends[index].start;
                if let Some(retry_at) = day.sends[index].retry_at {
                    let given_back = coalescer.failed(sending, keep.then_some(item), at(retry_at));
                    day.put_back += usize::from(keep && given_back.is_none());
                    if compare {
                        let put_back = model.failed(waiting, keep, started, retry_at);
                        prop_assert_eq!(keep && given_back.is_none(), put_back);
                    }
                } else {
                    day.pushes[item].promised = true;
                    coalescer.succeeded(sending);
                    model.succeeded(&waiting, started);
                }
            }
        }
        if let Some((due, keep)) = to_send {
            let push = due.item;
            let fate = fates.next().unwrap_or(&Fate { takes: 0, retry: None });
            let end = now + fate.takes;
            let retry_at = fate.retry.map(|retry| end + retry);
            day.sends.push(Send { push, start: now, end, retry_at, drained: false });
            let Pushed { refs, came, .. } = day.pushes[push];
            let deadline = since(due.sending.deadline);
            let waiting = Waiting { push, refs, came, deadline };
            under_way.push(UnderWay { index: day.sends.len() - 1, due, waiting, keep });
        }
        day.most = day.most.max(coalescer.len());
        if compare {
            let due = coalescer.next_due().map(since);
            prop_assert_eq!(due, model.next().map(|(due, _)| due), "at {}", now);
            prop_assert_eq!(coalescer.len(), model.held.len());
        }
        prop_assert!(day.sends.len() <= script.sends.len() + script.pushes.len(), "it would spin");
    }

    let held = coalescer.len();
    prop_assert!(held == 0 || script.drain);
    let drained = coalescer.drain(at(now));
    prop_assert_eq!(drained.len(), held);
    for due in drained {
        let push = due.item;
        day.sends.push(Send { push, start: now, end: now, retry_at: None, drained: true });
        coalescer.succeeded(due.sending);
    }
    prop_assert!(coalescer.is_empty() && coalescer.next_due().is_none());
    // Nothing stays behind once every interval is over.
    let forever = at(now + 1_000_000);
    let last = coalescer.offer(KEYS[1].clone(), usize::MAX, forever);
    if pace.delay.is_zero() {
        prop_assert!(matches!(last, Decision::SendNow(_)), "{:?}", last);
        prop_assert!(coalescer.slots.len() <= 1 && coalescer.idle.len() <= 1);
    }
    Ok(day)
}

impl Day {
    /// What came before this send and shares a ref with it.
    fn before(&self, index: usize) -> impl Iterator<Item = &Send> {
        let refs = self.refs(&self.sends[index]);
        self.sends[..index].iter().filter(move |earlier| self.refs(earlier) & refs != 0)
    }

    fn refs(&self, send: &Send) -> Refs {
        self.pushes[send.push].refs
    }

    /// The promise: it arrives, or a later one that tells of all its refs.
    fn no_push_is_missing(&self) -> Result<(), TestCaseError> {
        for (push, pushed) in self.pushes.iter().enumerate().filter(|(_, it)| it.promised) {
            let arrived = self.sends.iter().any(|send| {
                send.retry_at.is_none()
                    && send.push >= push
                    && send.start >= pushed.came
                    && pushed.refs & !self.refs(send) == 0
            });
            prop_assert!(arrived, "push {push} of {self:?}");
        }
        Ok(())
    }

    /// No ref hears an older push after a newer one, or two at a time.
    fn each_ref_is_in_order(&self) -> Result<(), TestCaseError> {
        for (index, send) in self.sends.iter().enumerate() {
            for earlier in self.before(index) {
                prop_assert!(earlier.push <= send.push, "{earlier:?} {send:?}");
                prop_assert!(earlier.end <= send.start, "{earlier:?} {send:?}");
                prop_assert!(earlier.retry_at.is_none_or(|at| at <= send.start || send.drained));
            }
        }
        Ok(())
    }

    /// At most one send of a ref an interval, after one that did not fail, and where nothing had to go
    /// at its `max_wait`.
    fn the_interval_is_kept(&self, pace: &Pace) -> Result<(), TestCaseError> {
        for (index, send) in self.sends.iter().enumerate().filter(|(_, send)| !send.drained) {
            let deadline = self.pushes[send.push].oldest + millis(pace.max_wait);
            for bit in bits(self.refs(send)) {
                let last = self.before(index).filter(|it| self.refs(it) & (1 << bit) != 0).last();
                if let Some(last) = last.filter(|last| last.retry_at.is_none()) {
                    let next = last.start + millis(pace.interval);
                    prop_assert!(next.min(deadline) <= send.start, "{last:?} {send:?}");
                }
            }
        }
        Ok(())
    }

    /// None is held longer than `max_wait`, but for one before it that was slow or had failed until then.
    ///
    /// Which may share no ref with it: there can be another between the two that shares one with each.
    fn none_is_late(&self, pace: &Pace) -> Result<(), TestCaseError> {
        for (index, send) in self.sends.iter().enumerate() {
            let deadline = self.pushes[send.push].oldest + millis(pace.max_wait);
            let mut before = self.sends[..index].iter();
            let is_excused = before.any(|it| send.start <= it.retry_at.unwrap_or(it.end));
            prop_assert!(send.start <= deadline || is_excused, "{send:?} of {self:?}");
        }
        Ok(())
    }

    /// None goes before it is so old.
    fn the_delay_is_kept(&self, pace: &Pace) -> Result<(), TestCaseError> {
        for send in self.sends.iter().filter(|send| !send.drained) {
            let old_enough = self.pushes[send.push].came + millis(pace.delay);
            prop_assert!(old_enough <= send.start, "{send:?} of {self:?}");
        }
        Ok(())
    }
}

fn pace() -> impl Strategy<Value = Pace> {
    let delay = prop_oneof![3 => Just(0_u64), 1 => 1_u64..60];
    (0_u64..300, 1_u64..600, delay).prop_map(|(interval, max_wait, delay)| Pace {
        max_wait: Duration::from_millis(max_wait),
        delay: Duration::from_millis(delay),
        ..Pace::new(Duration::from_millis(interval))
    })
}

fn pushes() -> impl Strategy<Value = Vec<Coming>> {
    let after = prop_oneof![2 => Just(0_u64), 3 => 0_u64..40, 1 => 0_u64..500];
    let refs = prop_oneof![3 => (0_u32..3).prop_map(|bit| 1 << bit), 1 => 1_u8..32];
    let coming = (after, refs, any::<bool>());
    vec(coming.prop_map(|(after, refs, keep)| Coming { after, refs, keep }), 1..50)
}

fn script(pace: impl Strategy<Value = Pace>) -> impl Strategy<Value = Script> {
    let takes = prop_oneof![Just(0_u64), 0_u64..30, 0_u64..400];
    let fate = (takes, proptest::option::weighted(0.3, 0_u64..200));
    let sends = vec(fate.prop_map(|(takes, retry)| Fate { takes, retry }), 0..50);
    let lag = prop_oneof![Just(0_u64), 1_u64..50];
    let order = Just(vec![What::End, What::Push, What::Work]).prop_shuffle();
    (pace, pushes(), sends, lag, order, any::<bool>()).prop_map(
        |(pace, pushes, sends, lag, order, drain)| Script {
            pace,
            pushes,
            sends,
            lag,
            order,
            drain,
        },
    )
}

/// Upstream answers at once and well, and the worker is never late.
fn calm(script: Script) -> Script {
    Script { sends: Vec::new(), lag: 0, ..script }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_happens_every_push_arrives_in_order_at_its_pace(script in script(pace())) {
        let day = live(&script)?;
        prop_assert!(!day.pressed && day.refused == 0);
        day.no_push_is_missing()?;
        day.each_ref_is_in_order()?;
        let pace = Coalescer::<()>::new(script.pace).pace;
        day.the_interval_is_kept(&pace)?;
        if script.lag == 0 && !script.drain {
            day.none_is_late(&pace)?;
        }
    }

    #[test]
    fn when_all_is_well_none_is_late_and_none_too_young(script in script(pace()).prop_map(calm)) {
        let day = live(&script)?;
        day.no_push_is_missing()?;
        let pace = Coalescer::<()>::new(script.pace).pace;
        day.the_interval_is_kept(&pace)?;
        day.the_delay_is_kept(&pace)?;
        if !script.drain {
            let in_time = |send: &Send| {
                send.start <= day.pushes[send.push].oldest + millis(pace.max_wait)
            };
            prop_assert!(day.sends.iter().all(in_time), "{day:?}");
        }
    }

    #[test]
    fn without_room_the_pace_suffers_and_no_push_is_missing(
        script in script((pace(), 0_usize..8).prop_map(|(pace, max_held)| Pace { max_held, ..pace })),
    ) {
        let day = live(&script)?;
        prop_assert!(day.most <= script.pace.max_held + day.put_back, "{day:?}");
        day.no_push_is_missing()?;
        day.each_ref_is_in_order()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_forgotten_goes_early_and_no_push_is_missing(
        script in script((pace(), 0_usize..4).prop_map(|(pace, max_idle)| Pace { max_idle, ..pace })),
    ) {
        live(&script)?.no_push_is_missing()?;
    }

    #[test]
    fn sends_that_take_too_long_lose_the_order_and_no_push(
        script in script((pace(), 0_u64..100).prop_map(|(pace, max_send)| Pace {
            max_send: Duration::from_millis(max_send),
            ..pace
        })),
    ) {
        live(&script)?.no_push_is_missing()?;
    }
}
