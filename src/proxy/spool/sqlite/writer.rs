//! The one thread that writes.
//!
//! It takes all that waits, up to [`MAX_BATCH`] operations or [`MAX_BATCH_BYTES`], and does it in one
//! transaction: one sync of the disk for all of them, and no delay for one that comes alone. Whoever
//! asked hears after the commit.
//!
//! # When the disk fails
//!
//! An error of SQLite's, whichever, fails the whole transaction and closes the file: after a sync that
//! failed, the operating system may have dropped what was to be written, and what is written behind it
//! in the same log could not be found again. Until the file can be opened, copied whole out of the
//! log, written to and synced, every operation fails. This is tried again after 250 ms, later every 5 s.
//!
//! A file that is damaged is checked first: memory or a cable may have been at fault. If it is
//! damaged indeed, or if it fails again at once, it is set aside and a new one begun.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::SpoolConfig;
use super::fault::Fault;
use super::file::{Files, Paths};
use super::job::{Job, Message};
use super::queue::Queue;
use super::schema;
use super::space::{Tidied, Totals, checkpoint, free_bytes, tidy};
use super::sql;
use crate::proxy::spool::{SpoolError, SpoolErrorKind, State};
use crate::time::Timestamp;

/// At most so many operations in one transaction.
const MAX_BATCH: usize = 256;

/// No further operation in a transaction after so many bytes.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// After so many bytes the log is copied into the file, so that it begins anew.
const CHECKPOINT_AFTER: usize = 16 << 20;

/// What the log takes for an operation beside its body: a few pages.
const OPERATION_BYTES: usize = 8 << 10;

/// The writer tidies up when nobody has asked for anything for so long.
const IDLE_AFTER: Duration = Duration::from_millis(200);

/// How many rows of the history go in one step beside other work.
const TRIM_AT_MOST: usize = 64;

/// How long after a failure recovery is tried, the first time and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// A failure so soon after the last recovery is the same one.
const SAME_FAILURE: Duration = Duration::from_secs(10);

/// What the writer shares with those who ask.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) paths: Paths,
    /// The reader's connection; none while the spool cannot be used.
    pub(super) reader: Mutex<Option<Connection>>,
    snapshot: Mutex<Snapshot>,
    /// How many deliveries are pending or leased.
    active: AtomicU64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) totals: Totals,
    /// Why it cannot be used.
    pub(super) unusable: Option<SpoolError>,
    pub(super) set_aside: Vec<String>,
}

impl Shared {
    pub(super) fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Whether nothing is pending or leased. A delivery whose append was answered is counted.
    pub(super) fn is_idle(&self) -> bool {
        self.active.load(Ordering::Acquire) == 0
    }

    /// What to tell whoever asks while there is no connection.
    pub(super) fn unusable(&self) -> SpoolError {
        self.lock().unusable.clone().unwrap_or_else(|| SpoolErrorKind::Closed.into())
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, totals: &Totals) {
        self.active.store(totals.active(), Ordering::Release);
        self.lock().totals = totals.clone();
    }

    fn set_reader(&self, reader: Option<Connection>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = reader;
    }
}

/// The thread's own.
pub(super) struct Writer {
    files: Files,
    config: SpoolConfig,
    shared: Arc<Shared>,
    condition: Condition,
    /// What time it is, as far as anybody told.
    now: Option<Timestamp>,
    recovered_at: Option<Instant>,
    pause: Duration,
}

enum Condition {
    Open(Open),
    Failed { error: SpoolError, retry_at: Instant },
}

/// A file that can be used.
struct Open {
    conn: Connection,
    totals: Totals,
    /// What the log may hold.
    log_bytes: usize,
    /// When to tidy up next, if nothing else comes.
    tidy_after: Option<Duration>,
    /// Whether deliveries were refused for want of free space.
    pressed: bool,
}

impl Open {
    /// Does all of `batch` or nothing.
    fn transact(
        &mut self,
        config: &SpoolConfig,
        now: &mut Option<Timestamp>,
        batch: &mut [Box<dyn Job>],
    ) -> rusqlite::Result<()> {
        let room = config.room(free_bytes(&config.folder));
        let mut totals = self.totals.clone();
        let keeps_history = config.keeps_history();
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut queue = Queue { conn: &tx, totals: &mut totals, room: &room, keeps_history, now };
        for job in batch {
            job.apply(&mut queue)?;
        }
        if queue.totals.of(State::Delivered).bytes > config.history_bytes {
            queue.trim_history(config.history_bytes, None, TRIM_AT_MOST)?;
        }
        if totals.last_id != self.totals.last_id {
            tx.prepare_cached(sql::SET_LAST_ID)?.execute((totals.last_id,))?;
        }
        tx.commit()?;
        self.totals = totals;
        self.tidy_after = Some(IDLE_AFTER);
        self.pressed = room.is_below_floor();
        Ok(())
    }

    fn tidy(&mut self, config: &SpoolConfig, now: Option<Timestamp>) -> rusqlite::Result<()> {
        self.tidy_after = match tidy(&mut self.conn, &mut self.totals, config, now)? {
            Tidied::More => Some(Duration::ZERO),
            Tidied::Log => Some(IDLE_AFTER),
            Tidied::All => None,
        };
        Ok(())
    }
}

impl Writer {
    /// Opens the files. One that is damaged is set aside; a disk that takes no writes is waited for.
    ///
    /// # Errors
    ///
    /// If waiting would be of no use.
    pub(super) fn open(files: Files, config: SpoolConfig) -> Result<(Self, Arc<Shared>), Fault> {
        let shared = Arc::new(Shared {
            paths: files.paths().clone(),
            reader: Mutex::default(),
            snapshot: Mutex::default(),
            // Not known yet.
            active: AtomicU64::new(u64::MAX),
        });
        let mut writer = Self {
            files,
            config,
            shared: shared.clone(),
            condition: Condition::Failed {
                error: SpoolErrorKind::Failed.into(),
                retry_at: Instant::now(),
            },
            now: None,
            recovered_at: None,
            pause: FIRST_PAUSE,
        };
        let opened = match writer.try_open(false) {
            Err(fault) if fault.is_damage() => {
                writer.set_aside(&fault)?;
                writer.try_open(false)
            }
            opened => opened,
        };
        match opened {
            Ok(open) => writer.use_from_now_on(open),
            Err(fault) if fault.is_of_the_disk() => {
                writer.fail(&fault);
            }
            Err(fault) => return Err(fault),
        }
        Ok((writer, shared))
    }

    /// Works until it is told to end or nobody is left to ask.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        // Also if a bug ends the thread.
        let _ended = Ended(self.shared.clone());
        loop {
            let mut next = match self.next(messages) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => {
                    self.idle();
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return self.close(),
            };
            while let Some(message) = next.take() {
                match message {
                    Message::Job(first) => {
                        let (batch, other) = gather(first, messages);
                        self.commit(batch);
                        next = other;
                    }
                    Message::Fault(error) => {
                        self.fail(&error.into());
                    }
                    Message::Close(done) => {
                        self.close();
                        // Whoever waits for it may be gone.
                        let _ = done.send(());
                        return;
                    }
                }
            }
        }
    }

    fn next(&self, messages: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        match &self.condition {
            Condition::Open(open) => match open.tidy_after {
                Some(pause) => messages.recv_timeout(pause),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            },
            Condition::Failed { retry_at, .. } => {
                messages.recv_timeout(retry_at.saturating_duration_since(Instant::now()))
            }
        }
    }

    fn idle(&mut self) {
        match &mut self.condition {
            Condition::Failed { .. } => self.recover(),
            Condition::Open(open) => match open.tidy(&self.config, self.now) {
                Ok(()) => self.shared.publish(&open.totals),
                Err(error) => {
                    self.fail(&error.into());
                }
            },
        }
    }

    fn commit(&mut self, mut batch: Vec<Box<dyn Job>>) {
        if let Condition::Failed { retry_at, .. } = &self.condition
            && *retry_at <= Instant::now()
        {
            self.recover();
        }
        let open = match &mut self.condition {
            Condition::Open(open) => open,
            Condition::Failed { error, .. } => {
                let error = error.clone();
                return answer(batch, &Err(error));
            }
        };
        let weight: usize = batch.iter().map(|job| job.weight() + OPERATION_BYTES).sum();
        match open.transact(&self.config, &mut self.now, &mut batch) {
            Ok(()) => {
                open.log_bytes += weight;
                self.shared.publish(&open.totals);
                answer(batch, &Ok(()));
            }
            Err(error) => {
                let error = self.fail(&error.into());
                return answer(batch, &Err(error));
            }
        }
        // What was answered is safe; if this fails, what comes next is not.
        let after = if open.log_bytes >= CHECKPOINT_AFTER {
            open.log_bytes = 0;
            checkpoint(&open.conn, "PASSIVE").map(drop)
        } else {
            Ok(())
        };
        // With work all the time there is no idle moment in which to make space.
        let pressed = std::mem::take(&mut open.pressed);
        let after = match after {
            Ok(()) if pressed => open.tidy(&self.config, self.now),
            after => after,
        };
        match after {
            Ok(()) => self.shared.publish(&open.totals),
            Err(error) => {
                self.fail(&error.into());
            }
        }
    }

    /// Closes the file and says so; returns what to tell whoever asks. A damaged one is seen to at once.
    fn fail(&mut self, fault: &Fault) -> SpoolError {
        let now = Instant::now();
        let again = self.recovered_at.is_some_and(|at| now.duration_since(at) < SAME_FAILURE);
        self.pause = if again { (self.pause * 2).min(LAST_PAUSE) } else { FIRST_PAUSE };
        let error = SpoolError::with_detail(SpoolErrorKind::Failed, fault.to_string());
        tracing::error!(%error, "the spool takes nothing until its file can be used again");
        self.shared.lock().unusable = Some(error.clone());
        self.shared.set_reader(None);
        self.condition = Condition::Failed { error: error.clone(), retry_at: now + self.pause };
        if fault.is_damage() {
            let opened = if again {
                self.set_aside(fault).and_then(|()| self.try_open(true))
            } else {
                self.open_checked()
            };
            self.recovered(opened);
        }
        error
    }

    fn recover(&mut self) {
        let opened = match self.try_open(true) {
            Err(fault) if fault.is_damage() => self.open_checked(),
            opened => opened,
        };
        self.recovered(opened);
    }

    fn recovered(&mut self, opened: Result<Open, Fault>) {
        match opened {
            Ok(open) => {
                tracing::info!("the spool can be used again");
                self.use_from_now_on(open);
                self.recovered_at = Some(Instant::now());
            }
            Err(fault) => {
                self.pause = (self.pause * 2).min(LAST_PAUSE);
                let error = SpoolError::with_detail(SpoolErrorKind::Failed, fault.to_string());
                tracing::debug!(%error, "the spool cannot be used yet");
                self.shared.lock().unusable = Some(error.clone());
                let retry_at = Instant::now() + self.pause;
                self.condition = Condition::Failed { error, retry_at };
            }
        }
    }

    /// Opens a file that is said to be damaged, or another in its place if it is.
    fn open_checked(&mut self) -> Result<Open, Fault> {
        let checked = self.try_open(true).and_then(|open| {
            let verdict: String =
                open.conn.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
            if verdict == "ok" { Ok(open) } else { Err(Fault::Damaged) }
        });
        match checked {
            Err(fault) if fault.is_damage() => {
                self.shared.set_reader(None);
                self.set_aside(&fault)?;
                self.try_open(true)
            }
            checked => checked,
        }
    }

    fn set_aside(&mut self, fault: &Fault) -> Result<(), Fault> {
        let name = self.files.set_aside()?;
        tracing::error!(
            error = %fault,
            file = %self.files.paths().folder.join(&name).display(),
            "the spool's file is damaged; it was set aside under this name and a new one begun"
        );
        self.shared.lock().set_aside.push(name);
        Ok(())
    }

    /// Opens the file, and sees that it can be written and synced. The reader gets a connection too.
    ///
    /// `after_failure`, what is in the log is not trusted to be on disk: it is copied into the file.
    fn try_open(&self, after_failure: bool) -> Result<Open, Fault> {
        let path = &self.files.paths().database;
        let conn = schema::open_writer(path)?;
        let emptied = checkpoint(&conn, "TRUNCATE")?;
        if after_failure && !emptied {
            return Err(Fault::LogInUse);
        }
        schema::probe(&conn)?;
        self.files.sync_folder()?;
        let totals = Totals::count(&conn, self.shared.lock().totals.attempts)?;
        self.shared.set_reader(Some(schema::open_reader(path)?));
        Ok(Open { conn, totals, log_bytes: 0, tidy_after: Some(IDLE_AFTER), pressed: false })
    }

    fn use_from_now_on(&mut self, open: Open) {
        self.shared.publish(&open.totals);
        self.shared.lock().unusable = None;
        self.condition = Condition::Open(open);
    }

    fn close(self) {
        self.shared.lock().unusable = Some(SpoolErrorKind::Closed.into());
        self.shared.set_reader(None);
        let Condition::Open(open) = self.condition else { return };
        let closed = checkpoint(&open.conn, "TRUNCATE").and_then(|_| {
            // The last one to close removes the log, which is empty.
            open.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            open.conn.close().map_err(|(_, error)| error)
        });
        if let Err(error) = closed {
            tracing::warn!(%error, "the spool's log could not be emptied; it will be the next time");
        }
    }
}

/// Says that the spool is closed, however the thread ends.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.set_reader(None);
        self.0.lock().unusable = Some(SpoolErrorKind::Closed.into());
    }
}

/// What waits behind `first`, and what came that is no operation.
fn gather(
    first: Box<dyn Job>,
    messages: &Receiver<Message>,
) -> (Vec<Box<dyn Job>>, Option<Message>) {
    let mut bytes = first.weight();
    let mut batch = vec![first];
    while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
        match messages.try_recv() {
            Ok(Message::Job(job)) => {
                bytes += job.weight();
                batch.push(job);
            }
            Ok(other) => return (batch, Some(other)),
            Err(_) => break,
        }
    }
    (batch, None)
}

fn answer(batch: Vec<Box<dyn Job>>, committed: &Result<(), SpoolError>) {
    for job in batch {
        job.answer(committed.clone());
    }
}
