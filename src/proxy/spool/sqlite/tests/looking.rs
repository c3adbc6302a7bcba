//! What an operator sees and does.

use super::*;

/// One delivery in each state, and two that wait: pending, leased, delivered, dead, pending.
async fn one_of_each(bed: &Bed) -> [RecordId; 5] {
    let mut ids = Vec::new();
    for n in 1..=5 {
        ids.push(bed.append(push(&format!("github.com/acme/{n}"), n)).await);
    }
    let mut request = LeaseRequest::new("worker", &["hook"], at(10), at(90));
    request.limit = 4;
    let leased = bed.spool.lease(request).await.unwrap().leased;
    bed.spool.nack(&leased[0].lease, at(50), "no", at(11)).await.unwrap();
    bed.spool.ack(&leased[2].lease, at(12)).await.unwrap();
    bed.spool.dead_letter(&leased[3].lease, "no", at(13)).await.unwrap();
    ids.try_into().unwrap()
}

async fn listed(bed: &Bed, selection: Selection) -> Vec<RecordId> {
    let listed = bed.spool.list(selection, Page::default()).await.unwrap();
    assert_eq!(listed.next, None);
    listed.items.iter().map(|entry| entry.id).collect()
}

#[tokio::test]
async fn the_list_shows_what_was_selected_and_nothing_else() {
    let bed = Bed::new();
    let ids = one_of_each(&bed).await;
    assert_eq!(listed(&bed, Selection::default()).await, ids);
    assert_eq!(listed(&bed, Selection::of_state(State::Pending)).await, [ids[0], ids[4]]);
    assert_eq!(listed(&bed, Selection::of_state(State::Leased)).await, [ids[1]]);
    assert_eq!(listed(&bed, Selection::of_state(State::Delivered)).await, [ids[2]]);
    assert_eq!(listed(&bed, Selection::of_state(State::Dead)).await, [ids[3]]);
    let none = Selection { states: Some(Vec::new()), ..Selection::default() };
    assert_eq!(listed(&bed, none).await, []);
    let of = |hook: &str| Selection { hook: Some(hook.into()), ..Selection::default() };
    assert_eq!(listed(&bed, of("hook")).await, ids);
    assert_eq!(listed(&bed, of("other")).await, []);
    let repository = Some("github.com/acme/4".into());
    let of = Selection { repository, ..Selection::default() };
    assert_eq!(listed(&bed, of.clone()).await, [ids[3]]);
    let both = Selection { states: Some(vec![State::Pending]), ..of };
    assert_eq!(listed(&bed, both).await, []);
    let before = Selection { received_before: Some(at(3)), ..Selection::default() };
    assert_eq!(listed(&bed, before).await, ids[..2]);
    let missing = RecordId::new(99).unwrap();
    let some = Selection::of_ids([ids[4], missing, ids[1], ids[4]]);
    assert_eq!(listed(&bed, some).await, [ids[1], ids[4]]);
    assert_eq!(listed(&bed, Selection::of_ids([])).await, []);
    assert_eq!(bed.spool.show(missing).await.unwrap(), None);
}

#[tokio::test]
async fn pages_show_everything_once() {
    let bed = Bed::new();
    let ids = one_of_each(&bed).await;
    for selection in [Selection::default(), Selection::of_ids(ids)] {
        let mut seen = Vec::new();
        let mut page = Page { after: None, limit: 2 };
        loop {
            let listed = bed.spool.list(selection.clone(), page).await.unwrap();
            assert!(listed.items.len() <= 2);
            seen.extend(listed.items.iter().map(|entry| entry.id));
            page.after = listed.next;
            if listed.next.is_none() {
                break;
            }
        }
        assert_eq!(seen, ids);
    }
}

#[tokio::test]
async fn an_export_has_the_contents_and_ends_a_page_before_it_is_too_large() {
    let bed = Bed::new();
    let mut noise = 1_u64;
    for n in 1..=3 {
        let mut record = push("github.com/acme/a", n);
        let random = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 56) as u8
        });
        record.content.body = random.take(5 << 20).collect();
        bed.append(record).await;
    }
    let first = bed.spool.export(Selection::default(), Page::default()).await.unwrap();
    assert_eq!(first.items.len(), 2);
    let page = Page { after: first.next, ..Page::default() };
    let rest = bed.spool.export(Selection::default(), page).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    for stored in first.items.iter().chain(&rest.items) {
        assert_eq!(*stored, bed.stored(stored.entry.id).await);
    }
}

#[tokio::test]
async fn dead_and_delivered_ones_are_sent_again_and_pending_ones_at_once() {
    let bed = Bed::new();
    let ids = one_of_each(&bed).await;
    assert_eq!(bed.due(49).await, [ids[4]]);
    bed.spool.release("worker", at(49)).await.unwrap();
    let page = Page { limit: 3, ..Page::default() };
    let done = bed.spool.redeliver(Selection::default(), page, at(40)).await.unwrap();
    assert_eq!((&done.items[..], done.next), (&ids[..3], Some(ids[2])));
    let page = Page { after: done.next, limit: 3 };
    let done = bed.spool.redeliver(Selection::default(), page, at(40)).await.unwrap();
    assert_eq!((&done.items[..], done.next), (&ids[3..], None));
    let sent_again = bed.entry(ids[3]).await;
    assert_eq!((sent_again.state, sent_again.attempts), (State::Pending, 0));
    assert_eq!((sent_again.queued_at, sent_again.due_at), (at(40), at(40)));
    assert_eq!((sent_again.last_error, sent_again.finished_at), (None, None));
    assert_eq!(bed.entry(ids[0]).await.attempts, 1, "it goes on with what it was");
    assert_eq!(bed.due(40).await, ids);
}

#[tokio::test]
async fn what_is_being_sent_is_neither_sent_again_nor_removed() {
    let bed = Bed::new();
    let leased = bed.spool.append_leased(push("github.com/acme/a", 1), "call", at(60));
    let leased = leased.await.unwrap();
    let all = Selection::default;
    let done = bed.spool.redeliver(all(), Page::default(), at(2)).await.unwrap();
    assert_eq!(done.items, []);
    assert_eq!(bed.spool.purge(all(), Page::default()).await.unwrap().items, []);
    bed.spool.ack(&leased, at(3)).await.unwrap();
    assert_eq!(bed.spool.purge(all(), Page::default()).await.unwrap().items, [leased.id()]);
}

#[tokio::test]
async fn one_that_is_sent_again_goes_before_the_younger_and_not_beside_one() {
    let bed = Bed::new();
    let old = bed.append(keyed("github.com/acme/a", 1, "push main")).await;
    let leased = bed.next(10).await.unwrap();
    bed.spool.dead_letter(&leased.lease, "no", at(10)).await.unwrap();
    bed.append(keyed("github.com/acme/a", 11, "push main")).await;
    let young = bed.append(push("github.com/acme/a", 12)).await;
    let leased = bed.next(20).await.unwrap();
    bed.spool.redeliver(Selection::of_ids([old]), Page::default(), at(21)).await.unwrap();
    assert_eq!(bed.due(21).await, []);
    bed.spool.ack(&leased.lease, at(22)).await.unwrap();
    let leased = bed.next(22).await.unwrap();
    assert_eq!((leased.entry.id, leased.entry.about.coalescing_key), (old, None));
    bed.spool.ack(&leased.lease, at(23)).await.unwrap();
    assert_eq!(bed.due(23).await, [young]);
}

#[tokio::test]
async fn what_is_purged_is_gone_and_the_next_has_its_turn() {
    let bed = Bed::new();
    let ids = one_of_each(&bed).await;
    let behind = bed.append(push("github.com/acme/5", 14)).await;
    let dead = bed.spool.purge(Selection::of_state(State::Dead), Page::default()).await.unwrap();
    assert_eq!(dead.items, [ids[3]]);
    let purged = bed.spool.purge(Selection::of_ids([ids[4]]), Page::default()).await.unwrap();
    assert_eq!(purged.items, [ids[4]]);
    assert_eq!(bed.due(20).await, [behind]);
    assert_eq!(listed(&bed, Selection::default()).await, [ids[0], ids[1], ids[2], behind]);
    let new = bed.append(push("github.com/acme/6", 15)).await;
    bed.spool.purge(Selection::of_ids([new]), Page::default()).await.unwrap();
    let bed = bed.reopen().await;
    assert!(bed.append(push("github.com/acme/6", 16)).await > new, "no number is used twice");
}

#[tokio::test]
async fn the_status_counts_what_is_there() {
    let bed = Bed::new();
    let empty = bed.status().await;
    assert_eq!((empty.pending, empty.bytes, empty.oldest), (0, 0, None));
    assert_eq!(empty.health, Health::Open);
    let ids = one_of_each(&bed).await;
    let status = bed.status().await;
    assert_eq!((status.pending, status.leased), (2, 1));
    assert_eq!((status.delivered, status.dead, status.attempts), (1, 1, 4));
    assert_eq!(status.oldest, Some(at(1)));
    let size = bed.entry(ids[2]).await.stored_bytes;
    assert_eq!(status.history_bytes, size);
    assert!(status.bytes >= 4 * size && status.file_bytes > status.bytes);
    #[cfg(unix)]
    assert!(status.free_bytes.unwrap() > 0);

    bed.spool.purge(Selection::of_ids([ids[0]]), Page::default()).await.unwrap();
    bed.spool.redeliver(Selection::of_ids([ids[2]]), Page::default(), at(99)).await.unwrap();
    let status = bed.status().await;
    assert_eq!((status.pending, status.delivered, status.history_bytes), (2, 0, 0));
    assert_eq!(status.oldest, Some(at(2)), "one that is sent again is not old");
    let counted = (status.bytes, status.pending, status.leased, status.dead);
    let status = bed.reopen().await.status().await;
    assert_eq!((status.bytes, status.pending, status.leased, status.dead), counted);
}
