//! Durable acknowledgements a second, beside the plain insert of the same rows.
//!
//! 64 senders each wait for the acknowledgement of a delivery of 8 KiB before they send the next. The
//! baseline is the least that a program can do that keeps them in SQLite: one table, no index, one thread
//! that inserts all that waits in one transaction, with the same log, sync and limits of a transaction.
//!
//! The file is in the folder for temporary files (`TMPDIR`): a disk, and no file system in memory.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use hookgate::event::Kind;
use hookgate::provider::Provider;
use hookgate::proxy::spool::{
    About, Content, LeaseRequest, Leased, Record, Spool, SpoolConfig, SqliteSpool,
};
use hookgate::time::Timestamp;
use http::{HeaderMap, HeaderValue};
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// How many are sent in one iteration, to a spool of its own.
const RECORDS: u64 = 10_000;
const SENDERS: u64 = 64;
const PAIRS: usize = 9;
const BODY: usize = 8 << 10;
const REPOSITORIES: u64 = 2_000;
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

criterion_group!(benches, append, drain);
criterion_main!(benches);

fn append(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("durable append, 64 senders of 8 KiB");
    group.throughput(Throughput::Elements(RECORDS)).sampling_mode(SamplingMode::Flat);
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    group.bench_function("plain insert", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| append_plainly(&runtime)).sum());
    });
    for (name, has_key) in [("spool", false), ("spool, coalescing keys", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| append_all(&runtime, has_key)).sum());
        });
    }
    group.finish();
    if std::env::args().any(|arg| arg == "--bench") {
        compare(&runtime);
    }
}

/// One after the other, so that whatever else the machine does happens to both.
fn compare(runtime: &Runtime) {
    let mut ratios: Vec<_> = (0..PAIRS)
        .map(|_| append_plainly(runtime).as_secs_f64() / append_all(runtime, false).as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    let [low, median, high] = [ratios[0], ratios[PAIRS / 2], ratios[PAIRS - 1]];
    println!("spool/plain insert       thrpt: [{low:.2} {median:.2} {high:.2}] of {PAIRS} pairs");
}

fn append_plainly(runtime: &Runtime) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let (to_writer, rows) = mpsc::channel();
    let path = folder.path().join("plain.db");
    let writer = thread::spawn(move || plain_insert(&path, &rows));
    let elapsed = runtime.block_on(send(|record| {
        let (done, committed) = oneshot::channel();
        to_writer.send((record, done)).unwrap();
        async { committed.await.unwrap() }
    }));
    drop(to_writer);
    writer.join().unwrap();
    elapsed
}

fn append_all(runtime: &Runtime, has_key: bool) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let elapsed = runtime.block_on(send(|mut record| {
        if has_key {
            record.about.coalescing_key = Some(record.about.delivery.clone());
        }
        let append = spool.append(record);
        async {
            append.await.unwrap();
        }
    }));
    runtime.block_on(spool.close());
    elapsed
}

/// A worker that leases and acknowledges whatever there is.
fn drain(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("drain, 8 KiB");
    group.throughput(Throughput::Elements(RECORDS)).sampling_mode(SamplingMode::Flat);
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    group.bench_function("lease and acknowledge", |bencher| {
        bencher.iter_custom(|times| {
            let drain = || {
                let folder = tempfile::tempdir().unwrap();
                let spool = open(folder.path());
                runtime.block_on(async {
                    send(|record| {
                        let append = spool.append(record);
                        async {
                            append.await.unwrap();
                        }
                    })
                    .await;
                    let start = Instant::now();
                    lease_and_acknowledge(&spool).await;
                    let elapsed = start.elapsed();
                    spool.close().await;
                    elapsed
                })
            };
            (0..times).map(|_| drain()).sum()
        });
    });
    group.finish();
}

async fn lease_and_acknowledge(spool: &SqliteSpool) {
    let mut left = RECORDS;
    while left > 0 {
        let until = NOW.saturating_add(Duration::from_secs(60));
        let mut request = LeaseRequest::new("worker", &["default"], NOW, until);
        request.limit = 64;
        let leased = spool.lease(request).await.unwrap().leased;
        left -= leased.len() as u64;
        let ack = |leased: &Leased| tokio::spawn(spool.ack(&leased.lease, NOW));
        let acks: Vec<_> = leased.iter().map(ack).collect();
        for ack in acks {
            ack.await.unwrap().unwrap();
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn open(folder: &Path) -> SqliteSpool {
    let mut config = SpoolConfig::new(folder.join("spool"));
    config.max_bytes = u64::MAX;
    SqliteSpool::open(config).unwrap()
}

/// How long it takes until all records are acknowledged.
async fn send<F>(append: impl Fn(Record) -> F) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    let body = Bytes::from(vec![b'x'; BODY]);
    let start = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for number in 0..RECORDS {
        if number >= SENDERS {
            senders.join_next().await.unwrap().unwrap();
        }
        senders.spawn(append(record(number, body.clone())));
    }
    while let Some(done) = senders.join_next().await {
        done.unwrap();
    }
    start.elapsed()
}

fn record(number: u64, body: Bytes) -> Record {
    let mut about = About::new("default", Provider::Github, Kind::Push, NOW);
    // Spread over the repositories, as deliveries are.
    let repository = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % REPOSITORIES;
    about.event = Some("push".to_owned());
    about.repository = Some(format!("github.com/acme/repository-{repository}"));
    about.refs = vec!["refs/heads/main".to_owned()];
    about.delivery = format!("72d3162e-cc78-11e3-81ab-{number:012x}");
    about.key_name = Some("2026-11".to_owned());
    let mut identity = [0; 32];
    identity[..8].copy_from_slice(&number.to_be_bytes());
    about.identity = Some(identity);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", "GitHub-Hookshot/044aadd"),
        ("x-github-event", "push"),
        ("x-github-hook-id", "292430182"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Record { about, content: Content { headers, body }, not_before: NOW }
}

/// Inserts all that waits in one transaction, until nobody is left to send.
fn plain_insert(path: &Path, rows: &mpsc::Receiver<(Record, oneshot::Sender<()>)>) {
    let mut conn = Connection::open(path).unwrap();
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    conn.execute_batch(
        "CREATE TABLE delivery (id INTEGER PRIMARY KEY, hook TEXT, provider TEXT, kind TEXT, \
         event TEXT, repository TEXT, refs TEXT, delivery TEXT, key_name TEXT, identity BLOB, \
         received_at INTEGER, not_before INTEGER, state INTEGER, attempts INTEGER, headers BLOB, \
         body BLOB)",
    )
    .unwrap();
    while let Ok(first) = rows.recv() {
        let mut batch = vec![first];
        while batch.len() < 256 && batch.len() * BODY < 1 << 20 {
            let Ok(row) = rows.try_recv() else { break };
            batch.push(row);
        }
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let mut insert = tx
            .prepare_cached(
                "INSERT INTO delivery (hook, provider, kind, event, repository, refs, delivery, \
                 key_name, identity, received_at, not_before, state, attempts, headers, body) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)",
            )
            .unwrap();
        for (Record { about, content, not_before }, _) in &batch {
            let mut headers = Vec::new();
            for (name, value) in &content.headers {
                headers.extend_from_slice(name.as_str().as_bytes());
                headers.extend_from_slice(value.as_bytes());
            }
            insert
                .execute(params![
                    about.hook,
                    about.provider.as_str(),
                    about.kind.as_str(),
                    about.event,
                    about.repository,
                    about.refs[0],
                    about.delivery,
                    about.key_name,
                    about.identity,
                    about.received_at.as_millis(),
                    not_before.as_millis(),
                    headers,
                    &*content.body,
                ])
                .unwrap();
        }
        drop(insert);
        tx.commit().unwrap();
        for (_, done) in batch {
            let _ = done.send(());
        }
    }
}
