//! When a delivery takes the place of another, and when it is no second copy.

use super::*;

#[tokio::test]
async fn the_latest_of_a_key_waits_at_the_place_and_time_of_the_first() {
    let bed = Bed::new();
    let first = Record { not_before: at(30), ..keyed("github.com/acme/a", 1, "push main") };
    let first = bed.append(first).await;
    let behind = bed.append(push("github.com/acme/a", 2)).await;
    let mut latest = keyed("github.com/acme/a", 3, "push main");
    latest.about.event = Some("later".to_owned());
    latest.content.headers.insert("x-later", HeaderValue::from_static("yes"));
    latest.content.body = "later".repeat(10_000).into();
    let appended = bed.spool.append(latest.clone()).await.unwrap();
    assert_eq!(appended, Appended::Coalesced(first));

    let Stored { entry, content } = bed.stored(first).await;
    assert_eq!((entry.about, content), (latest.about, latest.content));
    assert_eq!((entry.queued_at, entry.due_at), (at(1), at(30)));
    assert_eq!(bed.status().await.pending, 2);
    assert_eq!(bed.due(29).await, []);
    assert_eq!(bed.due(30).await, [first]);
    assert_eq!(bed.due(30).await, [], "{behind} waits behind it");
}

#[tokio::test]
async fn the_later_is_told_by_when_it_came_and_not_by_when_it_was_appended() {
    let bed = Bed::new();
    let id = bed.append(keyed("github.com/acme/a", 5, "push main")).await;
    let late = bed.spool.append(keyed("github.com/acme/a", 4, "push main")).await.unwrap();
    assert_eq!(late, Appended::Coalesced(id));
    assert_eq!(bed.entry(id).await.about.received_at, at(5));
}

#[tokio::test]
async fn other_keys_other_hooks_and_no_key_stay_by_themselves() {
    let bed = Bed::new();
    bed.append(keyed("github.com/acme/a", 1, "push main")).await;
    bed.append(keyed("github.com/acme/a", 2, "push dev")).await;
    let mut elsewhere = keyed("github.com/acme/a", 3, "push main");
    elsewhere.about.hook = "other".to_owned();
    bed.append(elsewhere).await;
    bed.append(push("github.com/acme/a", 4)).await;
    bed.append(push("github.com/acme/a", 5)).await;
    assert_eq!(bed.status().await.pending, 5);
}

#[tokio::test]
async fn what_is_being_sent_is_left_alone_and_gives_way_if_it_comes_back() {
    let bed = Bed::new();
    let first = bed.append(keyed("github.com/acme/a", 1, "push main")).await;
    let leased = bed.next(10).await.unwrap();
    let second = bed.append(keyed("github.com/acme/a", 11, "push main")).await;
    assert_eq!(bed.entry(first).await.about.received_at, at(1));

    let nacked = bed.spool.nack(&leased.lease, at(20), "no", at(12)).await.unwrap();
    assert_eq!(nacked, Nacked::Superseded(second));
    assert_eq!(bed.spool.show(first).await.unwrap(), None);
    let entry = bed.entry(second).await;
    assert_eq!((entry.queued_at, entry.due_at, entry.attempts), (at(1), at(20), 1));
    assert_eq!(entry.last_error.as_deref(), Some("no"));
    assert_eq!(bed.due(19).await, []);
    assert_eq!(bed.due(20).await, [second]);
}

#[tokio::test]
async fn what_arrived_does_not_give_way() {
    let bed = Bed::new();
    let first = bed.append(keyed("github.com/acme/a", 1, "push main")).await;
    let leased = bed.next(10).await.unwrap();
    let second = bed.append(keyed("github.com/acme/a", 11, "push main")).await;
    bed.spool.ack(&leased.lease, at(12)).await.unwrap();
    assert_eq!(bed.entry(first).await.state, State::Delivered);
    assert_eq!(bed.due(12).await, [second]);
}

#[tokio::test]
async fn of_two_late_calls_of_a_key_the_later_one_stays() {
    let bed = Bed::new();
    let late = async |seconds| {
        let record = keyed("github.com/acme/a", seconds, "push main");
        bed.spool.append_leased(record, "call", at(60)).await.unwrap()
    };
    let (later, earlier) = (late(2).await, late(1).await);
    let nacked = bed.spool.nack(&earlier, at(20), "no", at(10)).await.unwrap();
    assert_eq!(nacked, Nacked::Waiting, "nothing of its key waits yet");
    let nacked = bed.spool.nack(&later, at(15), "no", at(10)).await.unwrap();
    assert_eq!(nacked, Nacked::Waiting);
    assert_eq!(bed.spool.show(earlier.id()).await.unwrap(), None);
    let entry = bed.entry(later.id()).await;
    assert_eq!((entry.about.received_at, entry.queued_at), (at(2), at(1)));
    assert_eq!(bed.due(15).await, [later.id()]);
}

#[tokio::test]
async fn leases_that_end_together_give_way_to_the_latest_of_their_key() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for seconds in 1..4 {
        let record = keyed("github.com/acme/a", seconds, "push main");
        ids.push(bed.spool.append_leased(record, "call", at(10)).await.unwrap().id());
    }
    assert_eq!(bed.due(10).await, [ids[2]]);
    let status = bed.status().await;
    assert_eq!((status.pending, status.leased), (0, 1));
}

fn identical(repository: &str, seconds: i64, identity: u8) -> Record {
    let mut record = push(repository, seconds);
    record.about.identity = Some([identity; 32]);
    record
}

#[tokio::test]
async fn what_says_the_same_as_the_youngest_that_waits_is_no_second_copy() {
    let bed = Bed::new();
    let first = bed.append(identical("github.com/acme/a", 1, 1)).await;
    let again = bed.spool.append(identical("github.com/acme/a", 2, 1)).await.unwrap();
    assert_eq!(again, Appended::Identical(first));
    assert_eq!(bed.entry(first).await.about.received_at, at(1));
    let second = bed.append(identical("github.com/acme/a", 3, 2)).await;
    let again = bed.spool.append(identical("github.com/acme/a", 4, 2)).await.unwrap();
    assert_eq!(again, Appended::Identical(second));
    bed.append(identical("github.com/acme/b", 5, 1)).await;
    let mut elsewhere = identical("github.com/acme/a", 6, 1);
    elsewhere.about.hook = "other".to_owned();
    bed.append(elsewhere).await;
}

#[tokio::test]
async fn what_says_the_same_as_one_that_is_being_sent_is_no_second_copy_until_that_has_arrived() {
    let bed = Bed::new();
    let first = bed.append(identical("github.com/acme/a", 1, 1)).await;
    let leased = bed.next(10).await.expect("it is due");
    let again = bed.spool.append(identical("github.com/acme/a", 11, 1)).await.unwrap();
    assert_eq!(again, Appended::Identical(first));
    bed.append(identical("github.com/acme/a", 11, 2)).await;
    bed.spool.ack(&leased.lease, at(12)).await.unwrap();
    bed.append(identical("github.com/acme/a", 13, 1)).await;
    assert_eq!(bed.status().await.pending, 2);
}

#[tokio::test]
async fn what_says_the_same_as_an_older_one_is_stored() {
    let bed = Bed::new();
    // From A to B, to A, and to B again.
    for (seconds, identity) in [(1, 1), (2, 2), (3, 1)] {
        bed.append(identical("github.com/acme/a", seconds, identity)).await;
    }
    // Without an identity nothing says the same.
    bed.append(push("github.com/acme/c", 12)).await;
    bed.append(push("github.com/acme/c", 12)).await;
    assert_eq!(bed.status().await.pending, 5);
}
