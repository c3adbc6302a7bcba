//! Random lives of a spool, each step beside a model in memory that follows the rules word by word.
//!
//! The model knows nothing of indexes, states between states or transactions: it looks at all of its rows
//! each time. After every step both say the same of it; after every restart and at the end both hold
//! the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::tests::{at, config, push};
use super::*;

/// What the outside sees of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    repository: Option<String>,
    key: Option<String>,
    identity: Option<[u8; 32]>,
    body: String,
    received: i64,
    queued: i64,
    due: i64,
    state: State,
    attempts: u32,
    lease: i64,
    finished: Option<i64>,
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<i64, Row>,
    last: i64,
}

impl Model {
    fn active(&self, repository: &str) -> impl Iterator<Item = (&i64, &Row)> {
        self.rows.iter().filter(move |(_, row)| {
            row.repository.as_deref() == Some(repository)
                && matches!(row.state, State::Pending | State::Leased)
        })
    }

    fn pending_with_key(&self, key: &Option<String>, but: i64) -> Option<i64> {
        let same = |row: &Row| key.is_some() && row.key == *key && row.state == State::Pending;
        self.rows.iter().find(|(id, row)| same(row) && **id != but).map(|(id, _)| *id)
    }

    fn insert(&mut self, row: Row) -> RecordId {
        self.last += 1;
        self.rows.insert(self.last, row);
        id(self.last)
    }

    fn append(&mut self, row: Row) -> Appended {
        if let Some(repository) = &row.repository
            && let Some((number, youngest)) = self.active(repository).last()
            && row.identity.is_some()
            && youngest.identity == row.identity
        {
            return Appended::Identical(id(*number));
        }
        if let Some(number) = self.pending_with_key(&row.key, 0) {
            let waiting = self.rows.get_mut(&number).unwrap();
            if row.received >= waiting.received {
                waiting.body = row.body;
                waiting.identity = row.identity;
                waiting.received = row.received;
            }
            return Appended::Coalesced(id(number));
        }
        Appended::New(self.insert(row))
    }

    /// Which can be leased, in the order in which they are.
    fn due(&self, now: i64) -> Vec<i64> {
        let mut due: Vec<_> = self
            .rows
            .iter()
            .filter(|(number, row)| {
                let is_head = row.repository.as_ref().is_none_or(|repository| {
                    let mut active = self.active(repository);
                    active.all(|(other, row)| other >= number && row.state == State::Pending)
                });
                row.state == State::Pending && row.due <= now && is_head
            })
            .map(|(number, row)| (row.due, *number))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, number)| number).collect()
    }

    fn give_back(&mut self, number: i64, due: i64) -> Nacked {
        let row = self.rows[&number].clone();
        if let Some(other) = self.pending_with_key(&row.key, number) {
            let waiting = self.rows.get_mut(&other).unwrap();
            if (waiting.received, other) > (row.received, number) {
                waiting.queued = waiting.queued.min(row.queued);
                waiting.due = waiting.due.max(due);
                waiting.attempts = waiting.attempts.max(row.attempts);
                self.rows.remove(&number);
                return Nacked::Superseded(id(other));
            }
            let queued = waiting.queued.min(row.queued);
            self.rows.remove(&other);
            self.rows.get_mut(&number).unwrap().queued = queued;
        }
        let row = self.rows.get_mut(&number).unwrap();
        (row.state, row.due) = (State::Pending, due);
        Nacked::Waiting
    }

    fn expire(&mut self, now: i64) {
        let mut ended: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, row)| row.state == State::Leased && row.due <= now)
            .map(|(number, row)| (row.due, *number))
            .collect();
        ended.sort_unstable();
        for (due, number) in ended {
            self.give_back(number, due);
        }
    }

    /// The row that `lease` holds.
    fn held(&mut self, lease: &Lease) -> Option<&mut Row> {
        let row = self.rows.get_mut(&lease.id().get())?;
        (row.state == State::Leased && row.lease == lease.number()).then_some(row)
    }
}

/// One step; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Append { repository: u8, key: u8, identity: u8, wait: u8, age: u8 },
    AppendLeased { repository: u8, key: u8, last: u8 },
    Lease { limit: usize, last: u8 },
    Renew { which: usize, last: u8 },
    Ack { which: usize },
    Nack { which: usize, wait: u8 },
    DeadLetter { which: usize },
    Release,
    Redeliver { which: usize },
    Purge { which: usize },
    Pass { seconds: u8 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::*;
    let append = (0..4_u8, 0..4_u8, 0..4_u8, 0..6_u8, 0..3_u8).prop_map(
        |(repository, key, identity, wait, age)| Append { repository, key, identity, wait, age },
    );
    let append_leased = (0..4_u8, 0..4_u8, 0..9_u8)
        .prop_map(|(repository, key, last)| AppendLeased { repository, key, last });
    let step = prop_oneof![
        8 => append,
        2 => append_leased,
        5 => (0..4_usize, 1..9_u8).prop_map(|(limit, last)| Lease { limit, last }),
        1 => (0..9_usize, 1..9_u8).prop_map(|(which, last)| Renew { which, last }),
        3 => (0..9_usize).prop_map(|which| Ack { which }),
        4 => (0..9_usize, 0..9_u8).prop_map(|(which, wait)| Nack { which, wait }),
        1 => (0..9_usize).prop_map(|which| DeadLetter { which }),
        1 => Just(Release),
        1 => (0..99_usize).prop_map(|which| Redeliver { which }),
        1 => (0..99_usize).prop_map(|which| Purge { which }),
        4 => (1..5_u8).prop_map(|seconds| Pass { seconds }),
        1 => Just(Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A spool, its model, and what a worker knows.
struct Run {
    config: SpoolConfig,
    spool: SqliteSpool,
    model: Model,
    now: i64,
    /// Every lease that was ever given, also those that are over.
    leases: Vec<Lease>,
    appended: u32,
}

impl Run {
    fn row(&mut self, repository: u8, key: u8, identity: u8, age: u8) -> (Record, Row) {
        self.appended += 1;
        let mut record = push("", self.now - i64::from(age));
        let about = &mut record.about;
        // The last stands for none.
        about.repository = (repository < 3).then(|| format!("github.com/acme/{repository}"));
        about.coalescing_key =
            (key < 2).then(|| format!("{}/{key}", about.repository.as_deref().unwrap_or("")));
        about.identity = (identity < 2).then_some([identity; 32]);
        record.content.body = format!("body {}", self.appended).into();
        let row = Row {
            repository: about.repository.clone(),
            key: about.coalescing_key.clone(),
            identity: about.identity,
            body: format!("body {}", self.appended),
            received: self.now - i64::from(age),
            queued: self.now - i64::from(age),
            due: 0,
            state: State::Pending,
            attempts: 0,
            lease: 0,
            finished: None,
        };
        (record, row)
    }

    fn lease(&self, which: usize) -> Option<Lease> {
        // The latest first: of those that are over there are many.
        self.leases.iter().rev().nth(which).cloned()
    }

    async fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let now = self.now;
        match step {
            Step::Append { repository, key, identity, wait, age } => {
                let (mut record, mut row) = self.row(repository, key, identity, age);
                row.due = now + i64::from(wait);
                record.not_before = at(row.due);
                let appended = self.spool.append(record).await.unwrap();
                prop_assert_eq!(appended, self.model.append(row));
            }
            Step::AppendLeased { repository, key, last } => {
                let (record, row) = self.row(repository, key, 3, 0);
                let until = now + i64::from(last);
                let row = Row { due: until, state: State::Leased, attempts: 1, lease: 1, ..row };
                let lease = self.spool.append_leased(record, "worker", at(until)).await.unwrap();
                prop_assert_eq!(lease.id(), self.model.insert(row));
                self.leases.push(lease);
            }
            Step::Lease { limit, last } => {
                self.model.expire(now);
                let until = now + i64::from(last);
                let mut request = LeaseRequest::new("worker", &["hook"], at(now), at(until));
                request.limit = limit;
                let leased = self.spool.lease(request).await.unwrap().leased;
                let mut due = self.model.due(now);
                due.truncate(limit);
                let got: Vec<_> = leased.iter().map(|leased| leased.entry.id.get()).collect();
                prop_assert_eq!(&got, &due);
                for leased in leased {
                    let row = self.model.rows.get_mut(&leased.entry.id.get()).unwrap();
                    (row.state, row.due) = (State::Leased, until);
                    (row.attempts, row.lease) = (row.attempts + 1, row.lease + 1);
                    prop_assert_eq!(&*leased.content.body, row.body.as_bytes());
                    prop_assert_eq!(leased.entry.attempts, row.attempts);
                    self.leases.push(leased.lease);
                }
            }
            Step::Renew { which, last } => {
                let Some(lease) = self.lease(which) else { return Ok(()) };
                let until = now + i64::from(last);
                let renewed = self.spool.renew(&lease, at(until)).await;
                let held = self.model.held(&lease);
                prop_assert_eq!(renewed.is_ok(), held.is_some());
                if let Some(row) = held {
                    row.due = until;
                }
            }
            Step::Ack { which } => {
                let Some(lease) = self.lease(which) else { return Ok(()) };
                let acked = self.spool.ack(&lease, at(now)).await;
                let held = self.model.held(&lease);
                prop_assert_eq!(acked.is_ok(), held.is_some());
                if let Some(row) = held {
                    (row.state, row.finished) = (State::Delivered, Some(now));
                }
            }
            Step::Nack { which, wait } => {
                let Some(lease) = self.lease(which) else { return Ok(()) };
                let retry = now + i64::from(wait);
                let nacked = self.spool.nack(&lease, at(retry), "no", at(now)).await;
                if self.model.held(&lease).is_some() {
                    prop_assert_eq!(nacked.unwrap(), self.model.give_back(lease.id().get(), retry));
                } else {
                    prop_assert_eq!(nacked.unwrap_err().kind(), SpoolErrorKind::LeaseLost);
                }
            }
            Step::DeadLetter { which } => {
                let Some(lease) = self.lease(which) else { return Ok(()) };
                let buried = self.spool.dead_letter(&lease, "no", at(now)).await;
                let held = self.model.held(&lease);
                prop_assert_eq!(buried.is_ok(), held.is_some());
                if let Some(row) = held {
                    (row.state, row.finished) = (State::Dead, Some(now));
                }
            }
            Step::Release => {
                let released = self.spool.release("worker", at(now)).await.unwrap();
                let is_leased = |row: &Row| row.state == State::Leased;
                let mut leased: Vec<_> = self
                    .model
                    .rows
                    .iter()
                    .filter(|(_, row)| is_leased(row))
                    .map(|(number, row)| (row.due, *number))
                    .collect();
                leased.sort_unstable();
                prop_assert_eq!(released, leased.len() as u64);
                for (_, number) in leased {
                    self.model.give_back(number, now);
                }
            }
            Step::Redeliver { which } => {
                let Some((number, _)) = self.pick(which) else { return Ok(()) };
                let only = Selection::of_ids([id(number)]);
                let done = self.spool.redeliver(only, Page::default(), at(now)).await.unwrap();
                let row = self.model.rows.get_mut(&number).unwrap();
                prop_assert_eq!(done.items.len(), usize::from(row.state != State::Leased));
                match row.state {
                    State::Leased => {}
                    State::Pending => row.due = now,
                    State::Delivered | State::Dead => {
                        (row.due, row.queued, row.attempts) = (now, now, 0);
                        (row.state, row.key, row.finished) = (State::Pending, None, None);
                    }
                }
            }
            Step::Purge { which } => {
                let Some((number, row)) = self.pick(which) else { return Ok(()) };
                let only = Selection::of_ids([id(number)]);
                let purged = self.spool.purge(only, Page::default()).await.unwrap().items;
                if row.state == State::Leased {
                    prop_assert_eq!(purged, []);
                } else {
                    prop_assert_eq!(purged, [id(number)]);
                    self.model.rows.remove(&number);
                }
            }
            Step::Pass { seconds } => self.now += i64::from(seconds),
            Step::Restart => {
                self.spool.close().await;
                self.spool = SqliteSpool::open(self.config.clone()).unwrap();
                self.compare().await?;
            }
        }
        Ok(())
    }

    fn pick(&self, which: usize) -> Option<(i64, Row)> {
        let count = self.model.rows.len().max(1);
        let row = self.model.rows.iter().nth(which % count);
        row.map(|(number, row)| (*number, row.clone()))
    }

    /// Whether the spool holds what the model holds.
    async fn compare(&self) -> Result<(), TestCaseError> {
        let all = Page { after: None, limit: 1_000 };
        let stored = self.spool.export(Selection::default(), all).await.unwrap().items;
        let rows: BTreeMap<_, _> = stored
            .into_iter()
            .map(|Stored { entry, content }| {
                let number = entry.id.get();
                let row = Row {
                    repository: entry.about.repository,
                    key: entry.about.coalescing_key,
                    identity: entry.about.identity,
                    body: String::from_utf8(content.body.to_vec()).unwrap(),
                    received: seconds(entry.about.received_at),
                    queued: seconds(entry.queued_at),
                    due: seconds(entry.due_at),
                    state: entry.state,
                    attempts: entry.attempts,
                    // It is not to be seen; a lease that is over tells.
                    lease: self.model.rows.get(&number).map_or(0, |row| row.lease),
                    finished: entry.finished_at.map(seconds),
                };
                (number, row)
            })
            .collect();
        prop_assert_eq!(&rows, &self.model.rows);
        let status = self.spool.status().await.unwrap();
        let count = |state| rows.values().filter(|row| row.state == state).count() as u64;
        prop_assert_eq!(status.pending, count(State::Pending));
        prop_assert_eq!(status.leased, count(State::Leased));
        prop_assert_eq!(status.dead, count(State::Dead));
        prop_assert_eq!(status.delivered, count(State::Delivered));
        let active = |row: &&Row| matches!(row.state, State::Pending | State::Leased);
        let oldest = rows.values().filter(active).map(|row| at(row.queued)).min();
        prop_assert_eq!(status.oldest, oldest);
        for n in 0..3 {
            let repository = format!("github.com/acme/{n}");
            let has = self.spool.has_pending("hook", &repository).await.unwrap();
            prop_assert_eq!(has, self.model.active(&repository).next().is_some());
        }
        Ok(())
    }
}

fn id(number: i64) -> RecordId {
    RecordId::new(number).unwrap()
}

fn seconds(time: Timestamp) -> i64 {
    time.as_seconds() - at(0).as_seconds()
}

async fn live(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let spool = SqliteSpool::open(config.clone()).unwrap();
    let (model, leases) = (Model::default(), Vec::new());
    let mut run = Run { config, spool, model, now: 0, leases, appended: 0 };
    for step in steps {
        run.step(step).await?;
    }
    run.compare().await?;
    // Whatever happened, everything that waits can be delivered, each repository in order.
    run.now += 100;
    loop {
        let before = run.leases.len();
        run.step(Step::Lease { limit: 9, last: 9 }).await?;
        let leased = run.leases.len() - before;
        if leased == 0 {
            break;
        }
        for which in 0..leased {
            run.step(Step::Ack { which }).await?;
        }
    }
    prop_assert!(run.model.rows.values().all(|row| row.state > State::Leased));
    run.compare().await?;
    run.spool.close().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_spool_does_what_its_rules_say_whatever_comes(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(steps))?;
    }
}
