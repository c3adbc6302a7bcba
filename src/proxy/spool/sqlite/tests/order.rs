//! Which delivery's turn it is.

use super::*;

#[tokio::test]
async fn of_a_repository_only_the_oldest_can_be_leased_and_it_alone() {
    let bed = Bed::new();
    let first = bed.append(push("github.com/acme/a", 1)).await;
    let second = bed.append(push("github.com/acme/a", 2)).await;
    let other = bed.append(push("github.com/acme/b", 3)).await;
    assert_eq!(bed.due(10).await, [first, other]);
    assert_eq!(bed.due(10).await, []);

    let bed = bed.reopen().await;
    bed.spool.release("worker", at(10)).await.unwrap();
    let leased = bed.next(10).await.unwrap();
    assert_eq!(leased.entry.id, first);
    bed.spool.ack(&leased.lease, at(11)).await.unwrap();
    assert_eq!(bed.due(11).await, [second, other], "the longest due first");
}

#[tokio::test]
async fn the_younger_wait_while_the_oldest_backs_off_and_not_behind_a_dead_one() {
    let bed = Bed::new();
    let first = bed.append(push("github.com/acme/a", 1)).await;
    let second = bed.append(push("github.com/acme/a", 2)).await;
    let leased = bed.next(10).await.unwrap();
    bed.spool.nack(&leased.lease, at(20), "no", at(10)).await.unwrap();
    assert_eq!(bed.due(19).await, []);
    let leased = bed.next(20).await.unwrap();
    assert_eq!(leased.entry.id, first);
    bed.spool.dead_letter(&leased.lease, "upstream answered 404", at(20)).await.unwrap();
    let entry = bed.entry(first).await;
    assert_eq!((entry.state, entry.finished_at), (State::Dead, Some(at(20))));
    assert_eq!(entry.last_error.as_deref(), Some("upstream answered 404"));
    assert_eq!(bed.due(20).await, [second]);
}

#[tokio::test]
async fn one_that_is_sent_again_has_its_turn_before_a_younger_one_that_could_go_already() {
    let bed = Bed::new();
    let first = bed.append(push("github.com/acme/a", 1)).await;
    let second = bed.append(push("github.com/acme/a", 2)).await;
    let leased = bed.next(10).await.unwrap();
    bed.spool.ack(&leased.lease, at(11)).await.unwrap();
    let again = Selection::of_ids([first]);
    bed.spool.redeliver(again, Page::default(), at(12)).await.unwrap();
    let leased = bed.next(12).await.unwrap();
    assert_eq!(leased.entry.id, first);
    bed.spool.ack(&leased.lease, at(13)).await.unwrap();
    assert_eq!(bed.due(13).await, [second]);
}

#[tokio::test]
async fn nothing_is_leased_before_its_time_and_the_younger_wait_for_it() {
    let bed = Bed::new();
    let held = Record { not_before: at(30), ..push("github.com/acme/a", 1) };
    let held = bed.append(held).await;
    let behind = bed.append(push("github.com/acme/a", 2)).await;
    let mut request = LeaseRequest::new("worker", &["hook"], at(29), at(90));
    let leases = bed.spool.lease(request.clone()).await.unwrap();
    assert_eq!((leases.leased.len(), leases.next_due), (0, Some(at(30))));
    request.now = at(30);
    let leases = bed.spool.lease(request).await.unwrap();
    assert_eq!((leases.leased[0].entry.id, leases.next_due), (held, Some(at(90))));
    bed.spool.ack(&leases.leased[0].lease, at(31)).await.unwrap();
    assert_eq!(bed.due(31).await, [behind]);
}

#[tokio::test]
async fn hooks_and_what_has_no_repository_do_not_wait_for_each_other() {
    let bed = Bed::new();
    let mut elsewhere = push("github.com/acme/a", 1);
    elsewhere.about.hook = "other".to_owned();
    let elsewhere = bed.append(elsewhere).await;
    let here = bed.append(push("github.com/acme/a", 2)).await;
    let mut expected = vec![here];
    for seconds in [3, 4] {
        let mut record = push("", seconds);
        record.about.repository = None;
        expected.push(bed.append(record).await);
    }
    assert_eq!(bed.due(10).await, expected, "and not what is of another hook");
    let request = LeaseRequest::new("worker", &["none", "other"], at(10), at(20));
    assert_eq!(bed.spool.lease(request).await.unwrap().leased[0].entry.id, elsewhere);
}

#[tokio::test]
async fn while_a_late_call_is_under_way_nothing_of_its_repository_is_leased() {
    let bed = Bed::new();
    let waiting = bed.append(push("github.com/acme/a", 1)).await;
    let first = bed.spool.append_leased(push("github.com/acme/a", 2), "call", at(60));
    let second = bed.spool.append_leased(push("github.com/acme/a", 3), "call", at(60));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(bed.due(10).await, []);
    bed.spool.ack(&second, at(10)).await.unwrap();
    assert_eq!(bed.due(10).await, []);
    bed.spool.nack(&first, at(10), "no", at(10)).await.unwrap();
    let leased = bed.next(10).await.unwrap();
    assert_eq!(leased.entry.id, waiting);
    bed.spool.ack(&leased.lease, at(11)).await.unwrap();
    assert_eq!(bed.due(11).await, [first.id()]);
}

#[tokio::test]
async fn a_worker_gets_no_more_than_it_asked_for() {
    let bed = Bed::new();
    for n in 0..6 {
        let mut record = push(&format!("github.com/acme/{n}"), n);
        record.content.body = vec![b'x'; 1_000].into();
        bed.append(record).await;
    }
    let lease = async |limit, max_bytes| {
        let mut request = LeaseRequest::new("worker", &["hook"], at(10), at(90));
        (request.limit, request.max_bytes) = (limit, max_bytes);
        let leases = bed.spool.lease(request).await.unwrap();
        (leases.leased.len(), leases.next_due)
    };
    assert_eq!(lease(0, u64::MAX).await, (0, Some(at(0))));
    assert_eq!(lease(1, u64::MAX).await, (1, Some(at(1))));
    assert_eq!(lease(9, 0).await, (1, Some(at(2))), "the first comes whatever its size");
    assert_eq!(lease(9, 3_000).await, (2, Some(at(4))));
    assert_eq!(lease(9, u64::MAX).await, (2, Some(at(90))));
}

#[tokio::test]
async fn a_repository_has_something_pending_until_nothing_of_it_is_left_to_send() {
    let bed = Bed::new();
    let has = async |hook, repository| bed.spool.has_pending(hook, repository).await.unwrap();
    assert!(!has("hook", "github.com/acme/a").await);
    bed.append(push("github.com/acme/a", 1)).await;
    assert!(has("hook", "github.com/acme/a").await);
    assert!(!has("hook", "github.com/acme/b").await);
    assert!(!has("other", "github.com/acme/a").await);
    let leased = bed.next(2).await.unwrap();
    assert!(has("hook", "github.com/acme/a").await);
    bed.append(push("github.com/acme/b", 3)).await;
    bed.spool.dead_letter(&leased.lease, "no", at(3)).await.unwrap();
    assert!(!has("hook", "github.com/acme/a").await);
}
