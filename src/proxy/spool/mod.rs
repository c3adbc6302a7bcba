//! Where a delivery waits until the service behind the gate has it.
//!
//! GitHub, GitLab, Gitea, Forgejo and Gogs never send a failed delivery again. So whatever the service
//! could not take, or is not to have yet, is written here before the host is told 202, and a worker takes
//! it from here later. [`Spool`] is what the rest of the sidecar sees; [`SqliteSpool`] keeps it in one
//! file on this machine.
//!
//! # The life of a delivery
//!
//! ```text
//!  append ──▶ pending ──lease──▶ leased ──ack──▶ delivered ──(history ends)──▶ gone
//!                ▲                │ │ ▲
//!                ├── nack, expiry ┘ │ └── append_leased
//!                │                  └──dead_letter──▶ dead ──purge──▶ gone
//!                └──────────── redeliver ─────────────┘ (also from delivered)
//! ```
//!
//! # Rules
//!
//! 1. **Durable, then told.** What changes something returns when the change would survive the loss of
//!    power, and not before.
//! 2. **At least once.** Whoever works on a delivery holds a [`Lease`] of it, which ends. Then anybody may
//!    take the delivery again, and the lease that was lost counts for nothing.
//! 3. **In order per repository.** Of the deliveries of one hook about one repository, only the oldest
//!    that waits can be leased, and only while none of them is leased: the younger ones wait behind it, also
//!    while it backs off. Deliveries without a repository wait for nobody. The order is that in which
//!    they were appended; a delivery that is sent again goes where it was.
//! 4. **One that waits per coalescing key.** A later delivery of the same hook and key takes the place of
//!    the one that waits: it gets its content, and keeps the turn, the time before which it is not sent, and
//!    the time since when it waits. Which one is later is told by when they were received. A delivery
//!    that is being sent is left alone; if it comes back and a later one of its key waits by then,
//!    it is given up for that.
//! 5. **No second copy.** A delivery with the same identity as the youngest of its repository that waits or
//!    is being sent is not stored again: that one arrives, or waits again. An older one does not count: a branch can go from A to B to A and to B
//!    again, and the last push says what the first said.
//! 6. **No credentials.** The types take what is to be sent and the *name* of the key that held. Bodies come
//!    in with the secrets in them blanked, headers from an allow-list; a header value that is marked
//!    sensitive is left out.
//!
//! Times are the caller's ([`Timestamp`]), owners have names, and every lease ends, so that several
//! machines can share one store. A clock that jumps makes leases and waiting longer or shorter, and
//! nothing is lost by it.

mod error;
mod record;
pub mod sqlite;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

pub use self::error::{Limit, SpoolError, SpoolErrorKind};
pub use self::record::{
    About, Appended, Content, Entry, Health, Lease, LeaseRequest, Leased, Leases, Nacked, Page,
    Paged, Record, RecordId, RecordIdError, Selection, State, StateError, Status, Stored,
};
pub use self::sqlite::{OpenError, OpenErrorKind, SpoolConfig, SqliteSpool};

use crate::time::Timestamp;

/// What every method of a [`Spool`] returns.
///
/// It borrows nothing, so that a call can be given to a task of its own.
pub type SpoolFuture<T> = Pin<Box<dyn Future<Output = Result<T, SpoolError>> + Send>>;

/// A store of deliveries that wait; see the [module](self) for its rules.
///
/// # Errors
///
/// Any method can fail with [`SpoolErrorKind::Failed`] while the store cannot be used, and with
/// [`SpoolErrorKind::Closed`] after its end. Then nothing was told to be done; it may still have been.
/// Other kinds are named at the method.
///
/// # Cancel safety
///
/// Nothing happens before a future is polled first. One that is dropped afterwards leaves the change done
/// as a whole or not at all, and the store goes on with it by itself. So a host that hangs up costs at
/// most a delivery more, never one less.
pub trait Spool: fmt::Debug + Send + Sync {
    /// Stores a delivery that is to be sent later.
    ///
    /// # Errors
    ///
    /// [`SpoolErrorKind::Full`] if there is no room for it. One that takes the place of another
    /// (rules 4 and 5) needs only what it is larger.
    fn append(&self, record: Record) -> SpoolFuture<Appended>;

    /// Stores a delivery that `owner` is sending at this moment, and leases it to him until `until`.
    ///
    /// It is always a row of its own: neither rule 4 nor rule 5 applies, and others of its repository
    /// may be under way. Its [`Record::not_before`] is of no account.
    ///
    /// # Errors
    ///
    /// [`SpoolErrorKind::Full`] if there is no room for it.
    fn append_leased(&self, record: Record, owner: &str, until: Timestamp) -> SpoolFuture<Lease>;

    /// Leases deliveries whose turn and time has come, the longest due first.
    ///
    /// Leases whose end has passed are given back first, whoever held them. If the future is dropped,
    /// what it would have returned stays leased until then.
    fn lease(&self, request: LeaseRequest) -> SpoolFuture<Leases>;

    /// Moves the end of a lease.
    ///
    /// # Errors
    ///
    /// [`SpoolErrorKind::LeaseLost`] if it is no longer held.
    fn renew(&self, lease: &Lease, until: Timestamp) -> SpoolFuture<Lease>;

    /// The delivery arrived: it goes into the history, and the next of its repository has its turn.
    ///
    /// # Errors
    ///
    /// [`SpoolErrorKind::LeaseLost`] if the lease is no longer held; the delivery will arrive again.
    fn ack(&self, lease: &Lease, now: Timestamp) -> SpoolFuture<()>;

    /// The delivery did not arrive, for `reason`, and is to be tried again at `retry_at`.
    ///
    /// # Errors
    ///
    /// [`SpoolErrorKind::LeaseLost`] if the lease is no longer held.
    fn nack(
        &self,
        lease: &Lease,
        retry_at: Timestamp,
        reason: &str,
        now: Timestamp,
    ) -> SpoolFuture<Nacked>;

    /// The delivery is given up, for `reason`, until somebody looks at it.
    ///
    /// # Errors
    ///
    /// [`SpoolErrorKind::LeaseLost`] if the lease is no longer held.
    fn dead_letter(&self, lease: &Lease, reason: &str, now: Timestamp) -> SpoolFuture<()>;

    /// Gives back at once whatever `owner` has leased; returns how many that were.
    ///
    /// For an owner that starts again under the name of an earlier life, and for one that stops.
    fn release(&self, owner: &str, now: Timestamp) -> SpoolFuture<u64>;

    /// Whether a delivery of `hook` about `repository` is pending or leased, so that another has to queue
    /// behind it.
    fn has_pending(&self, hook: &str, repository: &str) -> SpoolFuture<bool>;

    /// What is there, in the order of ids, without the content.
    fn list(&self, selection: Selection, page: Page) -> SpoolFuture<Paged<Entry>>;

    /// What is there, with its content. A page ends early when its bodies exceed 8 MiB.
    ///
    /// # Errors
    ///
    /// [`SpoolErrorKind::Unreadable`] if one of them cannot be read.
    fn export(&self, selection: Selection, page: Page) -> SpoolFuture<Paged<Stored>>;

    /// One delivery with its content; `None` if there is none of that id.
    ///
    /// # Errors
    ///
    /// [`SpoolErrorKind::Unreadable`] if it cannot be read.
    fn show(&self, id: RecordId) -> SpoolFuture<Option<Stored>>;

    /// Makes deliveries due at once, whatever they waited for: dead and delivered ones are sent again,
    /// with their attempts counted anew and no longer coalesced. Leased ones are left alone.
    ///
    /// Returns those that it did so with. The page bounds how much is done in one step.
    fn redeliver(
        &self,
        selection: Selection,
        page: Page,
        now: Timestamp,
    ) -> SpoolFuture<Paged<RecordId>>;

    /// Removes deliveries for good, also pending ones. Leased ones are left alone.
    ///
    /// Returns those that it removed. The page bounds how much is done in one step.
    fn purge(&self, selection: Selection, page: Page) -> SpoolFuture<Paged<RecordId>>;

    /// How much waits, since when, and whether there is room. It answers while the store cannot be used,
    /// too.
    fn status(&self) -> SpoolFuture<Status>;
}
