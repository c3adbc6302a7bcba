//! The spool as those who use it see it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tempfile::TempDir;

use super::queue::Queue;
use super::*;
use crate::event::Kind;
use crate::provider::Provider;
use crate::proxy::spool::{About, Content, Health, Limit, State};

mod coalescing;
mod failure;
mod looking;
mod order;

/// A spool in a folder that goes with it. Free space is of no account.
struct Bed {
    dir: TempDir,
    config: SpoolConfig,
    spool: SqliteSpool,
}

impl Bed {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut SpoolConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let spool = SqliteSpool::open(config.clone()).unwrap();
        Self { dir, config, spool }
    }

    async fn reopen(self) -> Self {
        self.reopen_with(|_| {}).await
    }

    async fn reopen_with(self, change: impl FnOnce(&mut SpoolConfig)) -> Self {
        let Self { dir, mut config, spool } = self;
        spool.close().await;
        drop(spool);
        change(&mut config);
        let spool = SqliteSpool::open(config.clone()).unwrap();
        Self { dir, config, spool }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("spool/spool.db")
    }

    async fn append(&self, record: Record) -> RecordId {
        match self.spool.append(record).await.unwrap() {
            Appended::New(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// The next delivery at `seconds`, if there is one.
    async fn next(&self, seconds: i64) -> Option<Leased> {
        let mut request = LeaseRequest::new("worker", &["hook"], at(seconds), at(seconds + 60));
        request.limit = 1;
        self.spool.lease(request).await.unwrap().leased.pop()
    }

    /// What can be leased at `seconds`, by number.
    async fn due(&self, seconds: i64) -> Vec<RecordId> {
        let request = LeaseRequest::new("worker", &["hook"], at(seconds), at(seconds + 60));
        let leased = self.spool.lease(request).await.unwrap().leased;
        leased.iter().map(|leased| leased.entry.id).collect()
    }

    async fn entry(&self, id: RecordId) -> Entry {
        self.stored(id).await.entry
    }

    async fn stored(&self, id: RecordId) -> Stored {
        self.spool.show(id).await.unwrap().expect("it is there")
    }

    async fn status(&self) -> Status {
        self.spool.status().await.unwrap()
    }

    /// Waits until the status is as it should be.
    async fn until(&self, is_so: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status().await;
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(super) fn config(dir: &Path) -> SpoolConfig {
    SpoolConfig { free_floor: 0, ..SpoolConfig::new(dir.join("spool")) }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seconds).unwrap()
}

/// A push to `repository` that came at `seconds` and is due at once. Its body is its own.
pub(super) fn push(repository: &str, seconds: i64) -> Record {
    let mut about = About::new("hook", Provider::Github, Kind::Push, at(seconds));
    about.repository = Some(repository.to_owned());
    about.refs = vec!["refs/heads/main".to_owned()];
    about.delivery = format!("{repository}-{seconds}");
    let body = format!("{{\"repository\":\"{repository}\",\"at\":{seconds}}}");
    let content = Content { headers: HeaderMap::new(), body: body.into() };
    Record { about, content, not_before: at(seconds) }
}

fn keyed(repository: &str, seconds: i64, key: &str) -> Record {
    let mut record = push(repository, seconds);
    record.about.coalescing_key = Some(key.to_owned());
    record
}

fn kind<T: fmt::Debug>(result: Result<T, SpoolError>) -> SpoolErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn a_delivery_is_given_back_as_it_was_also_after_reopening() {
    let bed = Bed::new();
    let mut headers = HeaderMap::new();
    headers.append("content-type", HeaderValue::from_static("application/json"));
    headers.append("x-twice", HeaderValue::from_static("one"));
    headers.append("x-twice", HeaderValue::from_bytes(b" caf\xe9\t").unwrap());
    let small = Record {
        about: About {
            hook: "hook".into(),
            provider: Provider::BitbucketServer,
            kind: Kind::PullRequest,
            event: Some("pr:opened".into()),
            repository: Some("git.example.com/acme/widget".into()),
            refs: vec!["refs/heads/a\"b".into(), "refs/tags/\u{e9}\n".into()],
            delivery: "72d3162e".into(),
            key_name: Some("2026-11".into()),
            identity: Some([7; 32]),
            coalescing_key: Some("push main".into()),
            received_at: at(1),
        },
        content: Content { headers: headers.clone(), body: Bytes::from_static(b"\0\xff{}") },
        not_before: at(2),
    };
    let mut large = push("github.com/acme/large", 3);
    large.content.body = "0123456789abcdef".repeat(10_000).into();
    let empty = Record {
        about: About::new("hook", Provider::Manual, Kind::Other, at(4)),
        content: Content { headers: HeaderMap::new(), body: Bytes::new() },
        not_before: at(4),
    };
    let records = [small, large, empty];
    let mut ids = Vec::new();
    for record in &records {
        ids.push(bed.append(record.clone()).await);
    }
    let bed = bed.reopen().await;
    for (id, record) in ids.iter().zip(&records) {
        let Stored { entry, content } = bed.stored(*id).await;
        assert_eq!((&entry.about, &content), (&record.about, &record.content));
        assert_eq!((entry.state, entry.due_at), (State::Pending, record.not_before));
        assert_eq!((entry.attempts, entry.queued_at), (0, record.about.received_at));
        assert_eq!((entry.owner, entry.last_error, entry.finished_at), (None, None, None));
    }
    assert!(bed.entry(ids[1]).await.stored_bytes < 5_000, "it is compressed");
    let request = LeaseRequest::new("worker", &["hook"], at(10), at(20));
    let leased = bed.spool.lease(request).await.unwrap().leased;
    let contents: Vec<_> = leased.into_iter().map(|leased| leased.content).collect();
    assert_eq!(contents, records.map(|record| record.content));
}

#[tokio::test]
async fn a_future_that_is_dropped_after_it_was_polled_leaves_the_delivery_stored() {
    let bed = Bed::new();
    let mut large = push("github.com/acme/b", 2);
    large.content.body = "0123456789abcdef".repeat(100_000).into();
    for record in [push("github.com/acme/a", 1), large] {
        let mut append = bed.spool.append(record);
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(append.as_mut().poll(cx)));
        assert!(polled.await.is_pending());
    }
    bed.until(|status| status.pending == 2).await;

    drop(bed.spool.append(push("github.com/acme/c", 3)));
    let bed = bed.reopen().await;
    assert_eq!(bed.status().await.pending, 2, "what was never polled is not stored");
}

#[tokio::test]
async fn a_spool_that_was_closed_or_is_in_use_takes_nothing() {
    let bed = Bed::new();
    let second = SqliteSpool::open(bed.config.clone()).unwrap_err();
    assert_eq!(second.kind(), OpenErrorKind::InUse);
    bed.append(push("github.com/acme/a", 1)).await;
    bed.spool.close().await;
    bed.spool.close().await;
    let spool = &bed.spool;
    assert_eq!(kind(spool.append(push("github.com/acme/b", 2)).await), SpoolErrorKind::Closed);
    assert_eq!(
        kind(spool.list(Selection::default(), Page::default()).await),
        SpoolErrorKind::Closed
    );
    assert_eq!(bed.status().await.health, Health::Closed);
    let names: Vec<_> = std::fs::read_dir(bed.dir.path().join("spool")).unwrap().collect();
    assert_eq!(names.len(), 2, "the log is gone: {names:?}");
    let again = SqliteSpool::open(bed.config.clone()).unwrap();
    assert_eq!(again.status().await.unwrap().pending, 1);
}

#[tokio::test]
async fn a_full_spool_refuses_deliveries_and_goes_on_with_what_it_has() {
    let bed = Bed::with(|config| config.max_bytes = 2_000);
    let mut ids = Vec::new();
    let refused = loop {
        match bed.spool.append(keyed("github.com/acme/a", 1, &ids.len().to_string())).await {
            Ok(appended) => ids.push(appended.id()),
            Err(error) => break error.kind(),
        }
    };
    assert_eq!((refused, ids.len()), (SpoolErrorKind::Full(Limit::Bytes), 5));
    assert_eq!(bed.status().await.health, Health::Full(Limit::Bytes));
    let late = bed.spool.append_leased(push("github.com/acme/b", 1), "worker", at(9)).await;
    assert_eq!(kind(late), SpoolErrorKind::Full(Limit::Bytes));

    let same = bed.spool.append(keyed("github.com/acme/a", 1, "4")).await.unwrap();
    assert_eq!(same, Appended::Coalesced(ids[4]), "it needs no room");
    let mut larger = keyed("github.com/acme/a", 2, "4");
    larger.content.body = "x".repeat(2_000).into();
    assert_eq!(kind(bed.spool.append(larger).await), SpoolErrorKind::Full(Limit::Bytes));

    let leased = bed.next(10).await.unwrap();
    bed.spool.nack(&leased.lease, at(11), "no", at(10)).await.unwrap();
    let leased = bed.next(11).await.unwrap();
    bed.spool.ack(&leased.lease, at(11)).await.unwrap();
    bed.append(push("github.com/acme/b", 12)).await;
    assert_eq!(bed.status().await.health, Health::Open);
}

#[tokio::test]
async fn too_little_free_space_ends_admission_and_then_the_history() {
    let bed = Bed::new();
    for repository in ["github.com/acme/a", "github.com/acme/b", "github.com/acme/c"] {
        bed.append(push(repository, 1)).await;
    }
    let leased = bed.next(2).await.unwrap();
    bed.spool.ack(&leased.lease, at(2)).await.unwrap();
    assert_eq!(bed.status().await.delivered, 1);

    let bed = bed.reopen_with(|config| config.free_floor = u64::MAX).await;
    let full = SpoolErrorKind::Full(Limit::FreeSpace);
    assert_eq!(kind(bed.spool.append(push("github.com/acme/d", 3)).await), full);
    assert_eq!(bed.status().await.health, Health::Full(Limit::FreeSpace));
    let leased = bed.next(4).await.unwrap();
    bed.spool.ack(&leased.lease, at(4)).await.unwrap();
    let status = bed.until(|status| status.delivered == 0).await;
    assert_eq!((status.pending, status.history_bytes), (1, 0));

    let bed = bed.reopen_with(|config| config.free_floor = 0).await;
    bed.append(push("github.com/acme/d", 3)).await;
}

#[tokio::test]
async fn what_a_lease_ended_with_is_final_and_a_lost_lease_ends_nothing() {
    let bed = Bed::new();
    let id = bed.append(push("github.com/acme/a", 1)).await;
    let leased = bed.next(2).await.unwrap();
    assert_eq!((leased.entry.id, leased.entry.attempts), (id, 1));
    bed.spool.ack(&leased.lease, at(3)).await.unwrap();
    let entry = bed.entry(id).await;
    assert_eq!((entry.state, entry.finished_at), (State::Delivered, Some(at(3))));

    let lost = SpoolErrorKind::LeaseLost;
    let (spool, lease) = (&bed.spool, &leased.lease);
    assert_eq!(kind(spool.ack(lease, at(4)).await), lost);
    assert_eq!(kind(spool.nack(lease, at(4), "no", at(4)).await), lost);
    assert_eq!(kind(spool.dead_letter(lease, "no", at(4)).await), lost);
    assert_eq!(kind(spool.renew(lease, at(99)).await), lost);
    assert_eq!(bed.entry(id).await, entry);
}

#[tokio::test]
async fn a_delivery_that_did_not_arrive_is_tried_again_at_its_time() {
    let bed = Bed::new();
    let id = bed.append(push("github.com/acme/a", 1)).await;
    let leased = bed.next(2).await.unwrap();
    let nacked = bed.spool.nack(&leased.lease, at(30), "upstream answered 503", at(3)).await;
    assert_eq!(nacked.unwrap(), Nacked::Waiting);
    let entry = bed.entry(id).await;
    assert_eq!((entry.state, entry.due_at), (State::Pending, at(30)));
    assert_eq!(entry.last_error.as_deref(), Some("upstream answered 503"));
    assert_eq!((entry.owner, entry.queued_at), (None, at(1)));

    assert_eq!(bed.next(29).await, None);
    let leased = bed.next(30).await.unwrap();
    assert_eq!(leased.entry.attempts, 2);
    let long = "\u{e9}".repeat(200);
    bed.spool.nack(&leased.lease, at(40), &long, at(30)).await.unwrap();
    assert_eq!(bed.entry(id).await.last_error.unwrap(), "\u{e9}".repeat(100));
}

#[tokio::test]
async fn a_lease_that_ended_is_given_to_another_and_counts_for_nothing() {
    let bed = Bed::new();
    let id = bed.append(push("github.com/acme/a", 1)).await;
    let first = bed.next(10).await.unwrap().lease;
    assert_eq!(bed.next(69).await, None, "it ends at 70");
    let first = bed.spool.renew(&first, at(80)).await.unwrap();
    assert_eq!((first.until(), bed.next(79).await), (at(80), None));

    let second = bed.next(80).await.unwrap();
    assert_eq!((second.entry.id, second.entry.attempts), (id, 2));
    assert_eq!(second.entry.last_error.as_deref(), Some("the lease ended without a word"));
    assert_eq!(kind(bed.spool.ack(&first, at(81)).await), SpoolErrorKind::LeaseLost);
    assert_eq!(bed.entry(id).await.state, State::Leased);
    let stranger = Lease::new(id, "stranger", second.lease.number(), at(99));
    assert_eq!(kind(bed.spool.ack(&stranger, at(81)).await), SpoolErrorKind::LeaseLost);
    bed.spool.ack(&second.lease, at(81)).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_ended_still_counts_as_long_as_nobody_else_has_it() {
    let bed = Bed::new();
    let id = bed.append(push("github.com/acme/a", 1)).await;
    let leased = bed.next(10).await.unwrap();
    bed.spool.ack(&leased.lease, at(1_000)).await.unwrap();
    assert_eq!(bed.entry(id).await.state, State::Delivered);
}

#[tokio::test]
async fn a_call_that_is_under_way_is_stored_with_its_lease() {
    let bed = Bed::new();
    let lease =
        bed.spool.append_leased(push("github.com/acme/a", 1), "call", at(60)).await.unwrap();
    let entry = bed.entry(lease.id()).await;
    assert_eq!((entry.state, entry.attempts, entry.due_at), (State::Leased, 1, at(60)));
    assert_eq!(entry.owner.as_deref(), Some("call"));
    assert_eq!(bed.next(59).await, None);

    let bed = bed.reopen().await;
    bed.spool.ack(&lease, at(5)).await.unwrap();
    let late = bed.spool.append_leased(push("github.com/acme/a", 2), "call", at(60)).await.unwrap();
    let leased = bed.next(60).await.unwrap();
    assert_eq!((leased.entry.id, leased.entry.attempts), (late.id(), 2));
}

#[tokio::test]
async fn an_owner_that_starts_again_gets_back_what_it_had_and_no_other_does() {
    let bed = Bed::new();
    bed.append(push("github.com/acme/a", 1)).await;
    bed.append(push("github.com/acme/b", 1)).await;
    let theirs = bed.spool.append_leased(push("github.com/acme/c", 1), "other", at(999)).await;
    assert_eq!(bed.due(2).await.len(), 2);
    assert_eq!(bed.due(3).await.len(), 0);

    let bed = bed.reopen().await;
    assert_eq!(bed.spool.release("worker", at(4)).await.unwrap(), 2);
    assert_eq!(bed.spool.release("worker", at(4)).await.unwrap(), 0);
    assert_eq!(bed.due(4).await.len(), 2);
    bed.spool.ack(&theirs.unwrap(), at(5)).await.unwrap();
}

#[tokio::test]
async fn what_arrived_is_kept_until_it_is_too_old_or_too_much() {
    let deliver = async |bed: &Bed, seconds| {
        bed.append(push("github.com/acme/a", seconds)).await;
        let leased = bed.next(seconds).await.unwrap();
        bed.spool.ack(&leased.lease, at(seconds)).await.unwrap();
    };
    let bed = Bed::with(|config| config.history_age = Duration::from_secs(100));
    for seconds in [0, 50, 100] {
        deliver(&bed, seconds).await;
    }
    assert_eq!(bed.status().await.delivered, 3);
    deliver(&bed, 101).await;
    bed.until(|status| status.delivered == 3).await;
    let left = bed.spool.list(Selection::default(), Page::default()).await.unwrap().items;
    assert_eq!(left[0].finished_at, Some(at(50)));

    let bed = bed.reopen_with(|config| config.history_bytes = 1_000).await;
    deliver(&bed, 102).await;
    let status = bed.status().await;
    assert_eq!(status.delivered, 2, "{status:?}");
    assert!(status.history_bytes <= 1_000);

    let bed = bed.reopen_with(|config| config.history_bytes = 0).await;
    deliver(&bed, 103).await;
    assert_eq!(bed.status().await.delivered, 0);
}

#[tokio::test]
async fn space_that_is_no_longer_needed_is_given_back() {
    let bed = Bed::with(|config| config.history_bytes = 0);
    let appends: Vec<_> = (0..2_000)
        .map(|n| {
            let mut record = push(&format!("github.com/acme/{n}"), 1);
            record.content.body = vec![b'x'; 8 << 10].into();
            tokio::spawn(bed.spool.append(record))
        })
        .collect();
    for append in appends {
        append.await.unwrap().unwrap();
    }
    let full = bed.until(|status| status.pending == 2_000).await;
    assert!(full.file_bytes > 16 << 20, "{full:?}");
    loop {
        let page = Page { limit: 1_000, ..Page::default() };
        if bed.spool.purge(Selection::default(), page).await.unwrap().items.is_empty() {
            break;
        }
    }
    // Some pages stay for what comes next.
    let drained = bed.until(|status| status.file_bytes < 6 << 20).await;
    assert_eq!((drained.pending, drained.bytes), (0, 0));
}
