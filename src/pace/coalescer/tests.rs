use super::super::KeyBy;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A coalescer and its clock, in milliseconds.
struct Bench {
    coalescer: Coalescer<&'static str>,
    start: Instant,
}

impl Bench {
    fn new(pace: Pace) -> Self {
        Self { coalescer: Coalescer::new(pace), start: Instant::now() }
    }

    fn at(&self, time: u64) -> Instant {
        self.start + Duration::from_millis(time)
    }

    fn offer(&mut self, refs: &[&str], item: &'static str, time: u64) -> Decision<&'static str> {
        let now = self.at(time);
        self.coalescer.offer(key(refs), item, now)
    }

    /// Offers what is to go at once.
    fn send(&mut self, refs: &[&str], item: &'static str, time: u64) -> Sending {
        match self.offer(refs, item, time) {
            Decision::SendNow(due) => due.sending,
            other => panic!("{item}: {other:?}"),
        }
    }

    /// Offers what is to be held, and gives what it replaced.
    fn hold(&mut self, refs: &[&str], item: &'static str, time: u64) -> Vec<&'static str> {
        match self.offer(refs, item, time) {
            Decision::Held { replaced } => replaced,
            other => panic!("{item}: {other:?}"),
        }
    }

    /// What is due at `time` and was not a millisecond before.
    fn take(&mut self, time: u64) -> Due<&'static str> {
        assert_eq!(self.coalescer.next_due(), Some(self.at(time)));
        self.nothing_is_due(time - 1);
        let now = self.at(time);
        self.coalescer.take_due(now).expect("it is due")
    }

    fn nothing_is_due(&mut self, time: u64) {
        let now = self.at(time);
        let due = self.coalescer.take_due(now);
        assert!(due.is_none(), "{due:?}");
    }

    fn failed(
        &mut self,
        due: Due<&'static str>,
        keep: bool,
        retry_at: u64,
    ) -> Option<&'static str> {
        let retry_at = self.at(retry_at);
        self.coalescer.failed(due.sending, keep.then_some(due.item), retry_at)
    }
}

fn key(refs: &[&str]) -> CoalesceKey {
    CoalesceKey::new(KeyBy::Ref, "hook", "example.com/acme/widget", "push", refs)
}

fn every(seconds: u64) -> Pace {
    Pace::new(SECOND * u32::try_from(seconds).unwrap())
}

#[test]
fn the_first_goes_at_once_and_the_latest_of_the_others_when_the_interval_ends() {
    let mut bench = Bench::new(every(3));
    let first = bench.send(&["main"], "first", 0);
    bench.coalescer.succeeded(first);
    assert!(bench.hold(&["main"], "second", 100).is_empty());
    assert_eq!(bench.hold(&["main"], "third", 200), ["second"]);
    assert_eq!(bench.hold(&["main"], "fourth", 2999), ["third"]);
    let due = bench.take(3000);
    assert_eq!(due.item, "fourth");
    bench.coalescer.succeeded(due.sending);
    bench.nothing_is_due(1_000_000);
    assert_eq!(bench.coalescer.next_due(), None);
}

#[test]
fn after_a_quiet_interval_the_next_goes_at_once_and_a_moment_earlier_it_does_not() {
    for (time, at_once) in [(2999, false), (3000, true)] {
        let mut bench = Bench::new(every(3));
        let first = bench.send(&["main"], "first", 0);
        bench.coalescer.succeeded(first);
        let second = bench.offer(&["main"], "second", time);
        assert_eq!(matches!(second, Decision::SendNow(_)), at_once, "{time}");
    }
}

#[test]
fn the_interval_begins_with_a_send_and_not_with_its_end() {
    let mut bench = Bench::new(every(3));
    let first = bench.send(&["main"], "first", 0);
    let _ = bench.hold(&["main"], "second", 100);
    bench.nothing_is_due(5000);
    bench.coalescer.succeeded(first);
    assert_eq!(bench.coalescer.next_due(), Some(bench.at(3000)));
    let now = bench.at(5000);
    assert_eq!(bench.coalescer.take_due(now).expect("it is overdue").item, "second");
}

#[test]
fn what_differs_in_any_part_of_the_key_is_not_held() {
    let mut bench = Bench::new(every(3));
    let first = bench.send(&["main"], "first", 0);
    bench.coalescer.succeeded(first);
    let _ = bench.send(&["dev"], "another branch", 1);
    let now = bench.at(1);
    let others = [("g", "r", "push"), ("h", "q", "push"), ("h", "r", "pull_request")];
    for (hook, repository, kind) in [("h", "r", "push")].into_iter().chain(others) {
        let key = CoalesceKey::new(KeyBy::Repository, hook, repository, kind, ["main"]);
        let decision = bench.coalescer.offer(key, "another", now);
        assert!(matches!(decision, Decision::SendNow(_)), "{decision:?}");
    }
    let _ = bench.hold(&["main"], "the same", 1);
}

#[test]
fn a_trickle_goes_every_interval_and_is_never_put_off() {
    let mut bench = Bench::new(every(3));
    let first = bench.send(&["main"], "first", 0);
    bench.coalescer.succeeded(first);
    let mut sent = Vec::new();
    for time in 1..=9000 {
        while let Some(due) = bench.coalescer.take_due(bench.at(time)) {
            sent.push(time);
            bench.coalescer.succeeded(due.sending);
        }
        let _ = bench.hold(&["main"], "more", time);
    }
    assert_eq!(sent, [3000, 6000, 9000]);
}

#[test]
fn of_a_burst_over_ten_repositories_twenty_go_and_the_last_of_each_is_among_them() {
    let names: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    let mut bench = Coalescer::new(every(2));
    let start = Instant::now();
    let mut sent = Vec::new();
    for push in 0..1000 {
        let now = start + Duration::from_millis(push);
        let name = &names[usize::try_from(push).unwrap() % 10];
        let key = CoalesceKey::new(KeyBy::Repository, "hook", name, "push", ["main"]);
        if let Decision::SendNow(due) = bench.offer(key, push, now) {
            sent.push(due.item);
            bench.succeeded(due.sending);
        }
    }
    while let Some(due) = bench.take_due(start + Duration::from_millis(2500)) {
        sent.push(due.item);
        bench.succeeded(due.sending);
    }
    assert_eq!(sent, (0..10).chain(990..1000).collect::<Vec<_>>());
    assert!(bench.is_empty());
}

#[test]
fn none_waits_longer_than_max_wait_for_an_interval_and_its_heirs_do_not_either() {
    let mut bench = Bench::new(Pace { max_wait: 10 * SECOND, ..every(600) });
    let first = bench.send(&["main"], "first", 0);
    bench.coalescer.succeeded(first);
    let _ = bench.hold(&["main"], "second", 2000);
    assert_eq!(bench.hold(&["main"], "third", 11_000), ["second"]);
    let due = bench.take(12_000);
    assert_eq!(due.item, "third");
    bench.coalescer.succeeded(due.sending);
    let _ = bench.hold(&["main"], "fourth", 13_000);
    assert_eq!(bench.take(23_000).item, "fourth");
}

#[test]
fn while_one_is_sent_no_other_of_its_refs_is() {
    let mut bench = Bench::new(Pace { max_wait: SECOND, ..every(0) });
    let first = bench.send(&["main"], "first", 0);
    let _ = bench.hold(&["main"], "second", 10);
    let _ = bench.send(&["dev"], "another branch", 10);
    bench.nothing_is_due(30_000);
    bench.coalescer.succeeded(first);
    let now = bench.at(30_000);
    assert_eq!(bench.coalescer.take_due(now).expect("it is overdue").item, "second");
}

#[test]
fn a_send_that_never_reports_holds_its_refs_back_for_max_send() {
    let mut bench = Bench::new(Pace { max_send: 40 * SECOND, ..every(3) });
    let lost = bench.send(&["main"], "first", 0);
    let _ = bench.hold(&["main"], "second", 10);
    let second = bench.take(40_000);
    assert_eq!(second.item, "second");
    // What it reports in the end changes nothing for the one that is under way.
    bench.coalescer.succeeded(lost);
    let _ = bench.hold(&["main"], "third", 40_001);
    assert_eq!(bench.coalescer.next_due(), Some(bench.at(80_000)));
    bench.coalescer.succeeded(second.sending);
    assert_eq!(bench.take(43_000).item, "third");
}

#[test]
fn one_that_fails_after_max_send_waits_for_a_newer_one_and_keeps_its_place_all_the_same() {
    let mut bench = Bench::new(Pace { max_send: SECOND, ..every(0) });
    let first = bench.send(&["a", "b"], "first", 0);
    let _ = bench.hold(&["a"], "second", 500);
    let third = bench.send(&["b"], "third", 1000);
    assert_eq!(bench.failed(Due { item: "first", sending: first }, true, 1000), None);
    // `b` is under way until 2 s, and `a` may not overtake.
    bench.nothing_is_due(1500);
    bench.coalescer.succeeded(third);
    let now = bench.at(1500);
    let first = bench.coalescer.take_due(now).expect("nothing keeps it back");
    assert_eq!(first.item, "first");
    bench.coalescer.succeeded(first.sending);
    assert_eq!(bench.coalescer.take_due(now).expect("nothing keeps it back").item, "second");
}

#[test]
fn a_failed_send_does_not_eat_the_interval_and_one_that_succeeded_does() {
    for fails in [true, false] {
        let mut bench = Bench::new(every(3));
        let first = bench.send(&["main"], "first", 0);
        if fails {
            assert_eq!(bench.failed(Due { item: "first", sending: first }, false, 100), None);
        } else {
            bench.coalescer.succeeded(first);
        }
        let second = bench.offer(&["main"], "second", 100);
        assert_eq!(matches!(second, Decision::SendNow(_)), fails);
    }
}

#[test]
fn a_held_one_that_came_meanwhile_goes_when_the_failed_one_would_be_tried_again() {
    let mut bench = Bench::new(every(3));
    let first = bench.send(&["main"], "first", 0);
    let _ = bench.hold(&["main"], "second", 10);
    assert_eq!(bench.failed(Due { item: "first", sending: first }, false, 500), None);
    assert_eq!(bench.take(500).item, "second");
}

#[test]
fn one_that_failed_is_put_back_unless_a_newer_one_covers_it() {
    for (refs, covers) in
        [(&["main"][..], true), (&["main", "v1"], true), (&["dev"], false), (&[], false)]
    {
        let mut bench = Bench::new(every(3));
        let dev = bench.send(&["dev"], "dev", 0);
        let none = bench.send(&[], "none", 0);
        bench.coalescer.succeeded(dev);
        bench.coalescer.succeeded(none);
        let first = bench.send(&["main"], "first", 0);
        let _ = bench.hold(refs, "newer", 10);
        let covered = bench.failed(Due { item: "first", sending: first }, true, 700);
        assert_eq!(covered, covers.then_some("first"), "{refs:?}");
        assert_eq!(bench.take(700).item, if covers { "newer" } else { "first" }, "{refs:?}");
    }
}

#[test]
fn what_was_put_back_keeps_its_place_before_newer_ones_that_share_a_ref() {
    let mut bench = Bench::new(every(3));
    let first = bench.send(&["main", "v1"], "first", 0);
    let _ = bench.hold(&["main", "v2"], "second", 10);
    assert_eq!(bench.failed(Due { item: "first", sending: first }, true, 700), None);
    let first = bench.take(700);
    assert_eq!(first.item, "first");
    bench.nothing_is_due(2000);
    bench.coalescer.succeeded(first.sending);
    assert_eq!(bench.take(3700).item, "second");
}

#[test]
fn a_retry_waits_also_where_max_wait_is_over() {
    let mut bench = Bench::new(Pace { max_wait: SECOND, ..every(3) });
    let first = bench.send(&["main"], "first", 0);
    assert_eq!(bench.failed(Due { item: "first", sending: first }, true, 60_000), None);
    assert_eq!(bench.hold(&["main"], "second", 30_000), ["first"]);
    assert_eq!(bench.take(60_000).item, "second");
}

#[test]
fn no_branch_swallows_another() {
    let mut bench = Bench::new(every(3));
    for refs in [&["a"][..], &["b"], &["c"]] {
        let sending = bench.send(refs, "first", 0);
        bench.coalescer.succeeded(sending);
    }
    assert!(bench.hold(&["a"], "a", 1).is_empty());
    assert!(bench.hold(&["b"], "b", 2).is_empty());
    assert!(bench.hold(&["b", "c"], "b and c", 3) == ["b"]);
    assert!(bench.hold(&["b"], "b again", 4).is_empty());
    let all = bench.coalescer.drain(bench.at(5));
    let items: Vec<_> = all.iter().map(|due| due.item).collect();
    assert_eq!(items, ["a", "b and c", "b again"]);
}

#[test]
fn one_that_covers_several_held_ones_replaces_them_all() {
    let mut bench = Bench::new(every(3));
    for refs in [&["a"][..], &["b"]] {
        let sending = bench.send(refs, "first", 0);
        bench.coalescer.succeeded(sending);
    }
    let _ = bench.hold(&["a"], "a", 1);
    let _ = bench.hold(&["b"], "b", 2);
    assert_eq!(bench.hold(&["b", "a"], "both", 3), ["a", "b"]);
    assert_eq!(bench.take(3000).item, "both");
}

#[test]
fn those_that_share_a_ref_go_in_the_order_in_which_they_came() {
    let mut bench = Bench::new(every(3));
    let first = bench.send(&["main"], "first", 0);
    bench.coalescer.succeeded(first);
    let _ = bench.hold(&["main", "v1"], "second", 1);
    // `v2` is free, and yet it may not overtake.
    let _ = bench.hold(&["main", "v2"], "third", 2);
    let _ = bench.hold(&["v2"], "fourth", 3);
    let mut time = 0;
    for item in ["second", "third", "fourth"] {
        time += 3000;
        let due = bench.take(time);
        assert_eq!(due.item, item);
        bench.coalescer.succeeded(due.sending);
    }
}

#[test]
fn an_heir_is_not_late_because_of_another_that_it_would_wait_for() {
    let mut bench = Bench::new(Pace { max_wait: 10 * SECOND, ..every(600) });
    let first = bench.send(&["main"], "first", 0);
    bench.coalescer.succeeded(first);
    let _ = bench.hold(&["main", "a"], "second", 1000);
    let _ = bench.hold(&["main", "b"], "third", 6000);
    // In place of the second it would have to go at 11 s, and the third not before 16 s.
    assert!(bench.hold(&["main", "a"], "fourth", 8000).is_empty());
    for (time, item) in [(11_000, "second"), (16_000, "third"), (18_000, "fourth")] {
        let due = bench.take(time);
        assert_eq!(due.item, item);
        bench.coalescer.succeeded(due.sending);
    }
}

#[test]
fn with_a_delay_even_the_first_waits_and_each_is_old_enough() {
    let mut bench = Bench::new(Pace { delay: 5 * SECOND, ..every(0) });
    assert!(bench.hold(&["main"], "first", 0).is_empty());
    assert_eq!(bench.hold(&["main"], "second", 4000), ["first"]);
    let due = bench.take(9000);
    assert_eq!(due.item, "second");
    bench.coalescer.succeeded(due.sending);
    assert!(bench.hold(&["main"], "third", 9000).is_empty());
    assert_eq!(bench.take(14_000).item, "third");
}

#[test]
fn a_stream_without_a_pause_is_neither_late_nor_too_young() {
    let pace = Pace { delay: 5 * SECOND, max_wait: 30 * SECOND, ..every(0) };
    let mut bench = Bench::new(pace);
    let mut came = HashMap::new();
    let mut oldest = HashMap::new();
    let names: Vec<&'static str> = (0..200).map(|n| &*n.to_string().leak()).collect();
    let mut sent = 0;
    for (time, name) in (0..).step_by(1000).zip(&names) {
        while let Some(due) = bench.coalescer.take_due(bench.at(time)) {
            assert!(came[due.item] + 5000 <= time && time <= oldest[due.item] + 30_000);
            bench.coalescer.succeeded(due.sending);
            sent += 1;
        }
        let replaced = bench.hold(&["main"], name, time);
        came.insert(*name, time);
        oldest.insert(*name, replaced.iter().map(|older| oldest[older]).min().unwrap_or(time));
        assert!(bench.coalescer.len() <= 2);
    }
    assert!((200 / 30..200 / 5).contains(&sent), "{sent}");
}

#[test]
fn a_long_delay_stretches_max_wait() {
    let mut bench = Bench::new(Pace { delay: 300 * SECOND, ..every(0) });
    let _ = bench.hold(&["main"], "first", 0);
    assert_eq!(bench.hold(&["main"], "second", 200_000), ["first"]);
    assert_eq!(bench.take(500_000).item, "second");
}

#[test]
fn when_room_runs_short_the_oldest_goes_and_when_there_is_none_the_newest_is_refused() {
    let mut bench = Bench::new(Pace { max_held: 4, ..every(30) });
    for name in ["a", "b", "c", "d", "e"] {
        let sending = bench.send(&[name], "first", 0);
        bench.coalescer.succeeded(sending);
    }
    for (time, name) in [(1, "a"), (2, "b"), (3, "c")] {
        let _ = bench.hold(&[name], name, time);
        bench.nothing_is_due(time);
    }
    let _ = bench.hold(&["d"], "d", 4);
    assert_eq!(bench.coalescer.next_due(), Some(bench.at(4)));
    // Nobody takes it, so there is no more room, but for what replaces another or need not be held.
    assert!(matches!(bench.offer(&["e"], "e", 5), Decision::Full("e")));
    assert_eq!(bench.hold(&["d"], "d again", 6), ["d"]);
    let _ = bench.send(&["f"], "f", 7);
    assert_eq!(bench.coalescer.len(), 4);
    let mut due = Vec::new();
    while let Some(next) = bench.coalescer.take_due(bench.at(8)) {
        due.push(next.item);
        bench.coalescer.succeeded(next.sending);
    }
    assert_eq!(due, ["a", "b"]);
    let _ = bench.hold(&["e"], "e", 9);
    assert_eq!(bench.coalescer.len(), 3);
}

#[test]
fn an_idle_ref_is_forgotten_when_its_interval_is_over_and_no_earlier() {
    let names: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let mut bench = Bench::new(every(3));
    for name in &names {
        let sending = bench.send(&[name], "first", 0);
        bench.coalescer.succeeded(sending);
    }
    let _ = bench.send(&["x"], "x", 2999);
    assert_eq!(bench.coalescer.slots.len(), 101);
    let _ = bench.send(&["y"], "y", 3000);
    assert_eq!(bench.coalescer.slots.len(), 2);
}

#[test]
fn no_more_idle_refs_are_remembered_than_wanted_and_those_with_held_ones_all() {
    let names: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let mut bench = Bench::new(Pace { max_idle: 10, ..every(3) });
    let held = bench.send(&["held"], "first", 0);
    let _ = bench.hold(&["held"], "second", 1);
    for name in &names {
        let sending = bench.send(&[name], "first", 1);
        bench.coalescer.succeeded(sending);
    }
    assert_eq!((bench.coalescer.slots.len(), bench.coalescer.idle.len()), (11, 10));
    bench.coalescer.succeeded(held);
    assert_eq!(bench.take(3000).item, "second");
}

#[test]
fn a_drain_gives_all_that_is_held_whatever_its_time_and_what_fails_can_be_put_back() {
    let mut bench = Bench::new(every(3));
    for name in ["a", "b"] {
        let sending = bench.send(&[name], "first", 0);
        bench.coalescer.succeeded(sending);
        let _ = bench.hold(&[name], "second", 1);
    }
    let mut all = bench.coalescer.drain(bench.at(2));
    assert_eq!(all.len(), 2);
    assert!(bench.coalescer.is_empty() && bench.coalescer.next_due().is_none());
    bench.coalescer.succeeded(all.remove(0).sending);
    assert_eq!(bench.failed(all.remove(0), true, 50), None);
    let all = bench.coalescer.drain(bench.at(3));
    assert_eq!(all.iter().map(|due| due.item).collect::<Vec<_>>(), ["second"]);
}

#[test]
fn a_thread_that_took_the_time_too_early_changes_nothing() {
    let mut bench = Bench::new(every(3));
    let first = bench.send(&["main"], "first", 10_000);
    bench.coalescer.succeeded(first);
    let _ = bench.hold(&["main"], "second", 9_000);
    let late = bench.send(&["dev"], "third", 9_000);
    bench.coalescer.succeeded(late);
    let _ = bench.hold(&["dev"], "fourth", 12_500);
    assert_eq!(bench.take(13_000).item, "second");
    let now = bench.at(12_000);
    assert!(bench.coalescer.take_due(now).is_some(), "it is 13 s already");
}

#[test]
fn endless_durations_are_long_and_never_a_panic() {
    let pace = Pace {
        max_wait: Duration::MAX,
        delay: Duration::MAX,
        max_send: Duration::MAX,
        ..Pace::new(Duration::MAX)
    };
    let mut bench = Bench::new(pace);
    let _ = bench.hold(&["main"], "first", 0);
    bench.nothing_is_due(1000 * 3600 * 24 * 364);
    let mut bench = Bench::new(Pace { max_held: 0, max_idle: 0, ..every(3) });
    let _ = bench.send(&["main"], "first", 0);
    let _ = bench.send(&["main"], "forgotten, so it goes", 0);
}

#[test]
fn debug_shows_no_item() {
    let mut bench = Bench::new(every(3));
    let _ = bench.send(&["main"], "canary", 0);
    let _ = bench.hold(&["main"], "canary", 0);
    let debug = format!("{:?}", bench.coalescer);
    assert!(debug.contains("held: 1") && !debug.contains("canary"), "{debug}");
}
