//! A [`Spool`] in one SQLite file of this machine.
//!
//! SQLite, since there is no file format that is trusted more, and since `sqlite3 spool.db` shows what is
//! in it. It is used as it is meant to be used for this: a log that is written ahead (WAL), a sync for every commit
//! (`synchronous=FULL`), one writer.
//!
//! 1. **One thread writes** (`writer`) and one reads (`read`), each with its own connection; neither is
//!    one of the runtime's. What waits is written in one transaction with one sync.
//! 2. **One process.** A lock on a file beside the database refuses a second one (`file`). Programs that only look
//!    (`sqlite3 -readonly`, a backup) are no harm.
//! 3. **Space** (`space`) is limited by what the spool may hold and by what is to stay free on disk. Admission ends
//!    there; leasing, acknowledging and removing go on. If the disk has too little free space, the history
//!    goes first. Free pages are given back when nothing else is to be done.
//! 4. **Failure.** Any error of the file ends its use until it can be opened, written and synced again.
//!    Until then every call fails with [`SpoolErrorKind::Failed`], and [`Health::Failed`](super::Health) says why. A
//!    damaged file is set aside under a name that the log and the status tell, never removed.
//!
//! # Cost
//!
//! An append is two rows, three to five index entries and a share of one sync. Memory: the operations that wait, at
//! most 1024 with their bodies, and two page caches of 2 MiB each. A body above 16 KiB is compressed on a
//! thread of the runtime that may block.

mod codec;
#[cfg(test)]
mod crash;
mod fault;
mod file;
mod job;
mod queue;
mod read;
mod rows;
mod schema;
#[cfg(test)]
mod simulation;
mod space;
mod sql;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use self::codec::decode_stored;
use self::fault::Fault;
use self::file::Files;
use self::job::{Jobs, Message, closed};
use self::queue::{Answer, Queue, RawLeases};
use self::read::Query;
use self::schema::SchemaError;
use self::space::Room;
use self::writer::{Shared, Writer};
use super::{
    Appended, Entry, Lease, LeaseRequest, Leased, Leases, Nacked, Page, Paged, Record, RecordId,
    Selection, Spool, SpoolError, SpoolErrorKind, SpoolFuture, State, Status, Stored,
};
use crate::time::Timestamp;

/// Why a delivery is in the dead letters that this program cannot read.
const UNREADABLE: &str = "damaged, or stored in a way that this version cannot read";

/// Where a [`SqliteSpool`] is, and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolConfig {
    /// The folder, which is the spool's own. It is made if it is missing, and nobody but its owner may look
    /// into it from then on.
    pub folder: PathBuf,
    /// How many bytes it may hold beside the history, as they are stored; 1 GiB unless something else is
    /// said.
    pub max_bytes: u64,
    /// How many bytes of the file system are to stay free; 256 MiB unless something else is said.
    pub free_floor: u64,
    /// How long what was delivered is kept; 3 days unless something else is said, zero for not at all.
    pub history_age: Duration,
    /// How many bytes of what was delivered are kept; 256 MiB unless something else is said, zero for none.
    pub history_bytes: u64,
}

impl SpoolConfig {
    /// With the default limits.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            max_bytes: 1 << 30,
            free_floor: 256 << 20,
            history_age: Duration::from_secs(3 * 24 * 60 * 60),
            history_bytes: 256 << 20,
        }
    }

    fn keeps_history(&self) -> bool {
        self.history_bytes > 0 && !self.history_age.is_zero()
    }

    fn room(&self, free: Option<u64>) -> Room {
        Room { max_bytes: self.max_bytes, free_floor: self.free_floor, free }
    }
}

/// A spool in one file of this machine.
///
/// When it is dropped, what was asked for is done, and the file is closed a moment later;
/// [`close`](Self::close) waits for that.
pub struct SqliteSpool {
    jobs: Jobs,
    reader: Sender<Query>,
    shared: Arc<Shared>,
    room: Room,
}

impl SqliteSpool {
    /// Opens the spool, or begins one. It blocks; what it takes grows with the number of deliveries, some
    /// 100 ms for 100,000.
    ///
    /// A file that is damaged is set aside and a new one begun. A disk that is full or fails is no error:
    /// the spool is [`Failed`](super::Health::Failed) then and recovers.
    ///
    /// # Errors
    ///
    /// See [`OpenErrorKind`].
    pub fn open(config: SpoolConfig) -> Result<Self, OpenError> {
        let files = Files::acquire(&config.folder)?;
        let room = config.room(None);
        let (writer, shared) = Writer::open(files, config).map_err(OpenError::of_fault)?;
        let (to_writer, messages) = mpsc::channel();
        let (reader, queries) = mpsc::channel();
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        spawn("spool-write").spawn(move || writer.run(&messages)).map_err(OpenError::io)?;
        let for_reader = shared.clone();
        spawn("spool-read")
            .spawn(move || read::run(&queries, &for_reader))
            .map_err(OpenError::io)?;
        Ok(Self { jobs: Jobs::new(to_writer), reader, shared, room })
    }

    /// Does what was asked for so far, and closes the file. From then on every call fails with
    /// [`SpoolErrorKind::Closed`].
    ///
    /// # Cancel safety
    ///
    /// The spool is closed also if the future is dropped after it was polled.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.jobs.tell(Message::Close(done)) {
            // It ended already, or ends without a word: it is closed either way.
            let _ = closed.await;
        }
    }

    /// Has the writer do something small.
    fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Queue<'_>) -> Answer<T> + Send + 'static,
    ) -> SpoolFuture<T> {
        Box::pin(self.jobs.clone().run(0, operation))
    }

    /// Has the writer do something with the deliveries that the reader finds.
    fn change(
        &self,
        selection: Selection,
        page: Page,
        change: impl FnOnce(&mut Queue<'_>, &[RecordId], Option<&[State]>) -> Answer<Vec<RecordId>>
        + Send
        + 'static,
    ) -> SpoolFuture<Paged<RecordId>> {
        // Until the writer gets there, somebody else may have changed their states.
        let states = selection.states.clone();
        let found = self.read(move |conn| read::ids(conn, &selection, page).map(Ok));
        let jobs = self.jobs.clone();
        Box::pin(async move {
            let Paged { items, next } = found.await?;
            let weight = items.len() << 10;
            let items =
                jobs.run(weight, move |queue| change(queue, &items, states.as_deref())).await?;
            Ok(Paged { items, next })
        })
    }

    /// Asks the reader.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<Result<T, SpoolError>>
        + Send
        + 'static,
    ) -> SpoolFuture<T> {
        let (shared, reader, jobs) = (self.shared.clone(), self.reader.clone(), self.jobs.clone());
        Box::pin(async move {
            let (query, answer) = read::query(shared, jobs, read);
            // If the reader is gone, so is the one who answers.
            let _ = reader.send(query);
            answer.await.unwrap_or_else(closed)
        })
    }
}

impl Spool for SqliteSpool {
    fn append(&self, record: Record) -> SpoolFuture<Appended> {
        Box::pin(self.jobs.clone().run_with(record, |queue, record| queue.append(record)))
    }

    fn append_leased(&self, record: Record, owner: &str, until: Timestamp) -> SpoolFuture<Lease> {
        let owner: Arc<str> = owner.into();
        let append =
            move |queue: &mut Queue<'_>, record: &_| queue.append_leased(record, &owner, until);
        Box::pin(self.jobs.clone().run_with(record, append))
    }

    fn lease(&self, request: LeaseRequest) -> SpoolFuture<Leases> {
        let jobs = self.jobs.clone();
        Box::pin(async move {
            let now = request.now;
            let raw = jobs.clone().run(0, move |queue| queue.lease(&request)).await?;
            let next_due = raw.next_due;
            let is_large = raw.leased.iter().any(|(.., content)| content.is_compressed());
            let (leased, unreadable) = if is_large {
                let decoded = spawn_blocking(move || decode(raw)).await;
                decoded.map_err(|_| SpoolError::from(SpoolErrorKind::Closed))?
            } else {
                decode(raw)
            };
            for lease in unreadable {
                tracing::error!(spool.id = %lease.id(), reason = UNREADABLE, "dead letter");
                // If this fails, it is leased again and found unreadable again.
                let bury = move |queue: &mut Queue<'_>| queue.dead_letter(&lease, UNREADABLE, now);
                let _ = jobs.clone().run(0, bury).await;
            }
            Ok(Leases { leased, next_due })
        })
    }

    fn renew(&self, lease: &Lease, until: Timestamp) -> SpoolFuture<Lease> {
        let lease = lease.clone();
        self.write(move |queue| queue.renew(&lease, until))
    }

    fn ack(&self, lease: &Lease, now: Timestamp) -> SpoolFuture<()> {
        let lease = lease.clone();
        self.write(move |queue| queue.ack(&lease, now))
    }

    fn nack(
        &self,
        lease: &Lease,
        retry_at: Timestamp,
        reason: &str,
        now: Timestamp,
    ) -> SpoolFuture<Nacked> {
        let (lease, reason) = (lease.clone(), reason.to_owned());
        self.write(move |queue| queue.nack(&lease, retry_at, &reason, now))
    }

    fn dead_letter(&self, lease: &Lease, reason: &str, now: Timestamp) -> SpoolFuture<()> {
        let (lease, reason) = (lease.clone(), reason.to_owned());
        self.write(move |queue| queue.dead_letter(&lease, &reason, now))
    }

    fn release(&self, owner: &str, now: Timestamp) -> SpoolFuture<u64> {
        let owner = owner.to_owned();
        self.write(move |queue| queue.release(&owner, now))
    }

    fn has_pending(&self, hook: &str, repository: &str) -> SpoolFuture<bool> {
        if self.shared.is_idle() {
            return Box::pin(async { Ok(false) });
        }
        let (hook, repository) = (hook.to_owned(), repository.to_owned());
        self.read(move |conn| read::has_pending(conn, &hook, &repository).map(Ok))
    }

    fn list(&self, selection: Selection, page: Page) -> SpoolFuture<Paged<Entry>> {
        self.read(move |conn| read::list(conn, &selection, page))
    }

    fn export(&self, selection: Selection, page: Page) -> SpoolFuture<Paged<Stored>> {
        self.read(move |conn| read::export(conn, &selection, page))
    }

    fn show(&self, id: RecordId) -> SpoolFuture<Option<Stored>> {
        self.read(move |conn| read::show(conn, id))
    }

    fn redeliver(
        &self,
        selection: Selection,
        page: Page,
        now: Timestamp,
    ) -> SpoolFuture<Paged<RecordId>> {
        self.change(selection, page, move |queue, ids, states| queue.redeliver(ids, states, now))
    }

    fn purge(&self, selection: Selection, page: Page) -> SpoolFuture<Paged<RecordId>> {
        self.change(selection, page, |queue, ids, states| queue.purge(ids, states))
    }

    fn status(&self) -> SpoolFuture<Status> {
        let (shared, reader, jobs) = (self.shared.clone(), self.reader.clone(), self.jobs.clone());
        let room = self.room;
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let query: Query = Box::new(move |conn| {
                let (status, fault) = read::status(conn, &shared, room);
                if let Some(fault) = fault {
                    jobs.tell(Message::Fault(fault));
                }
                // Whoever asked may not wait any more.
                let _ = reply.send(status);
            });
            // If the reader is gone, so is the one who answers.
            let _ = reader.send(query);
            answer.await.or_else(closed)
        })
    }
}

impl fmt::Debug for SqliteSpool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSpool")
            .field("file", &self.shared.paths.database)
            .finish_non_exhaustive()
    }
}

/// What can be sent, and the leases of what cannot be read.
fn decode(raw: RawLeases) -> (Vec<Leased>, Vec<Lease>) {
    let (mut leased, mut unreadable) = (Vec::new(), Vec::new());
    for (lease, entry, content) in raw.leased {
        match decode_stored(entry, content) {
            Ok(Stored { entry, content }) => leased.push(Leased { lease, entry, content }),
            Err(_) => unreadable.push(lease),
        }
    }
    (leased, unreadable)
}

/// The error of opening a [`SqliteSpool`].
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What kind of [`OpenError`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// The folder or a file in it cannot be made, read or written.
    Io,
    /// Another process uses it.
    InUse,
    /// It was written by a newer hookgate. It is left as it is.
    Newer,
    /// It is a database of another program. It is left as it is.
    Foreign,
}

impl OpenError {
    /// What kind it is.
    pub fn kind(&self) -> OpenErrorKind {
        self.kind
    }

    fn io(error: io::Error) -> Self {
        Self { kind: OpenErrorKind::Io, source: Some(error.into()) }
    }

    fn in_use() -> Self {
        Self { kind: OpenErrorKind::InUse, source: None }
    }

    fn of_fault(fault: Fault) -> Self {
        match fault {
            Fault::Schema(SchemaError::Foreign) => {
                Self { kind: OpenErrorKind::Foreign, source: None }
            }
            Fault::Schema(SchemaError::Newer) => Self { kind: OpenErrorKind::Newer, source: None },
            Fault::Schema(SchemaError::Sqlite(error)) => {
                Self { kind: OpenErrorKind::Io, source: Some(error.into()) }
            }
            Fault::Io(error) => Self::io(error),
            fault @ (Fault::LogInUse | Fault::Damaged) => {
                Self { kind: OpenErrorKind::Io, source: Some(fault.to_string().into()) }
            }
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            OpenErrorKind::Io => "the spool cannot be opened",
            OpenErrorKind::InUse => "another process uses the spool",
            OpenErrorKind::Newer => "the spool was written by a newer hookgate",
            OpenErrorKind::Foreign => "the spool's file is a database of another program",
        })
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
