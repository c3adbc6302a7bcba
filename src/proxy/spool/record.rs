//! What a spool takes and gives.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::error::Limit;
use crate::event::Kind;
use crate::provider::Provider;
use crate::time::Timestamp;

/// The number of a delivery in its spool: later ones have higher numbers, and none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(i64);

impl RecordId {
    /// From a number, which has to be positive.
    pub const fn new(number: i64) -> Option<Self> {
        if number > 0 { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RecordId {
    type Err = RecordIdError;

    fn from_str(text: &str) -> Result<Self, RecordIdError> {
        text.parse().ok().and_then(Self::new).ok_or(RecordIdError(()))
    }
}

/// The error of reading a [`RecordId`] from text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordIdError(());

impl fmt::Display for RecordIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the number of a delivery, expected one such as 17")
    }
}

impl std::error::Error for RecordIdError {}

/// A delivery that is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub about: About,
    /// What is sent.
    pub content: Content,
    /// The time before which it is not sent.
    pub not_before: Timestamp,
}

/// What a delivery is: all that decides where it goes and when, and what an operator looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct About {
    /// The hook that took it; where it is sent is read from the hook's configuration when it is sent.
    pub hook: String,
    /// Whose format it has.
    pub provider: Provider,
    /// What it is for the gate.
    pub kind: Kind,
    /// What the host calls the event.
    pub event: Option<String>,
    /// The identity of the repository; without one it waits for nobody and nobody for it.
    pub repository: Option<String>,
    /// The refs that changed; none if they are not known.
    pub refs: Vec<String>,
    /// The id under which it stands in the audit log.
    pub delivery: String,
    /// The name of the key that held. Never the key.
    pub key_name: Option<String>,
    /// What is the same for two deliveries that say the same; without it, it is never a second copy.
    pub identity: Option<[u8; 32]>,
    /// What a later delivery must have in common to take its place, the repository included; without it,
    /// none does.
    pub coalescing_key: Option<String>,
    /// When it came.
    pub received_at: Timestamp,
}

impl About {
    /// What there is to say of every delivery; the other fields are empty.
    pub fn new(hook: &str, provider: Provider, kind: Kind, received_at: Timestamp) -> Self {
        Self {
            hook: hook.to_owned(),
            provider,
            kind,
            event: None,
            repository: None,
            refs: Vec::new(),
            delivery: String::new(),
            key_name: None,
            identity: None,
            coalescing_key: None,
            received_at,
        }
    }
}

/// What of a delivery is sent.
///
/// `Debug` shows no byte of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The headers to send, with the content type among them.
    pub headers: HeaderMap,
    /// The body to send.
    pub body: Bytes,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("headers", &self.headers.len())
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What became of a delivery that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Appended {
    /// It waits.
    New(RecordId),
    /// One of its coalescing key waited, and the later of the two waits now in its place.
    Coalesced(RecordId),
    /// One that says the same waits already, or is being sent.
    Identical(RecordId),
}

impl Appended {
    /// Which delivery waits.
    pub fn id(self) -> RecordId {
        match self {
            Self::New(id) | Self::Coalesced(id) | Self::Identical(id) => id,
        }
    }
}

/// What became of a delivery that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nacked {
    /// It waits again.
    Waiting,
    /// It was given up for a later one of the same coalescing key.
    Superseded(RecordId),
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum State {
    /// It waits for its time or its turn.
    Pending,
    /// Somebody is sending it.
    Leased,
    /// It arrived, and is kept for a while to be looked up.
    Delivered,
    /// It was given up, and is kept until somebody decides.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Leased, Self::Delivered, Self::Dead];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = StateError;

    fn from_str(word: &str) -> Result<Self, StateError> {
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or(StateError(()))
    }
}

/// The error of reading a [`State`] from a word that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError(());

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown state, expected pending, leased, delivered or dead")
    }
}

impl std::error::Error for StateError {}

/// A delivery as it stands in the spool, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its number.
    pub id: RecordId,
    /// What it is.
    pub about: About,
    /// Where it stands.
    pub state: State,
    /// Since when it waits: of one that was coalesced since the first of them came, of one that is sent
    /// again since that was asked for.
    pub queued_at: Timestamp,
    /// When it can be leased, if it is its turn: of a pending one the time before which it is not sent,
    /// of a leased one the end of the lease.
    pub due_at: Timestamp,
    /// How often it was leased since it waits.
    pub attempts: u32,
    /// Who sends it.
    pub owner: Option<String>,
    /// Why it did not arrive the last time.
    pub last_error: Option<String>,
    /// When it arrived or was given up.
    pub finished_at: Option<Timestamp>,
    /// How many bytes of the spool it takes.
    pub stored_bytes: u64,
}

/// A delivery with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it is and how it stands.
    pub entry: Entry,
    /// What is sent.
    pub content: Content,
}

/// The right to send a delivery and to say what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub(super) id: RecordId,
    pub(super) owner: Arc<str>,
    /// Tells it from earlier and later leases of the same delivery.
    pub(super) number: i64,
    pub(super) until: Timestamp,
}

impl Lease {
    /// A lease that a store gives; `number` has to be another for each lease of the same delivery.
    pub fn new(id: RecordId, owner: &str, number: i64, until: Timestamp) -> Self {
        Self { id, owner: owner.into(), number, until }
    }

    /// Of which delivery.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Who has it.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Its number among the leases of the delivery.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// When it ends.
    pub fn until(&self) -> Timestamp {
        self.until
    }
}

/// A delivery and the right to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The right.
    pub lease: Lease,
    /// What it is; [`attempts`](Entry::attempts) counts this one.
    pub entry: Entry,
    /// What is to be sent.
    pub content: Content,
}

/// What a worker asks for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// Who asks.
    pub owner: String,
    /// The hooks whose deliveries he sends.
    pub hooks: Vec<String>,
    /// The time.
    pub now: Timestamp,
    /// Until when the leases last.
    pub until: Timestamp,
    /// At most so many deliveries; 16 unless something else is said.
    pub limit: usize,
    /// No further delivery after so many bytes, as they are stored; 8 MiB unless something else is said.
    /// The first comes whatever its size.
    pub max_bytes: u64,
}

impl LeaseRequest {
    /// With the default limits.
    pub fn new(owner: &str, hooks: &[&str], now: Timestamp, until: Timestamp) -> Self {
        let hooks = hooks.iter().copied().map(str::to_owned).collect();
        Self { owner: owner.to_owned(), hooks, now, until, limit: 16, max_bytes: 8 << 20 }
    }
}

/// What a worker gets.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Leases {
    /// What he is to send.
    pub leased: Vec<Leased>,
    /// When the next of his hooks' deliveries is due, or the next lease ends; a time that has passed if
    /// there was more than he asked for. Deliveries that wait behind another one do not count.
    pub next_due: Option<Timestamp>,
}

/// Which deliveries an operator means. The default is all.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Selection {
    /// Only these.
    pub ids: Option<Vec<RecordId>>,
    /// Only those in these states.
    pub states: Option<Vec<State>>,
    /// Only those of this hook.
    pub hook: Option<String>,
    /// Only those about this repository.
    pub repository: Option<String>,
    /// Only those that came before.
    pub received_before: Option<Timestamp>,
}

impl Selection {
    /// Those in `state`.
    pub fn of_state(state: State) -> Self {
        Self { states: Some(vec![state]), ..Self::default() }
    }

    /// Those of these numbers.
    pub fn of_ids(ids: impl IntoIterator<Item = RecordId>) -> Self {
        Self { ids: Some(ids.into_iter().collect()), ..Self::default() }
    }
}

/// A part of what was selected.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Only those with higher numbers.
    pub after: Option<RecordId>,
    /// At most so many; no page has more than 1000.
    pub limit: usize,
}

impl Default for Page {
    /// The first 100.
    fn default() -> Self {
        Self { after: None, limit: 100 }
    }
}

/// The deliveries of a [`Page`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    /// The deliveries.
    pub items: Vec<T>,
    /// Where the next page begins ([`Page::after`]); `None` if there is none.
    pub next: Option<RecordId>,
}

/// How a spool is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether it takes deliveries.
    pub health: Health,
    /// How many wait.
    pub pending: u64,
    /// How many are being sent.
    pub leased: u64,
    /// How many were given up.
    pub dead: u64,
    /// How many are in the history.
    pub delivered: u64,
    /// What counts against [`max_bytes`](Self::max_bytes): all but the history.
    pub bytes: u64,
    /// What the history takes.
    pub history_bytes: u64,
    /// What the spool may hold.
    pub max_bytes: u64,
    /// What it takes on disk.
    pub file_bytes: u64,
    /// What is free on disk, where that can be told.
    pub free_bytes: Option<u64>,
    /// Since when the oldest waits that has not arrived.
    pub oldest: Option<Timestamp>,
    /// How many leases were given since the spool was opened.
    pub attempts: u64,
    /// The names under which damaged files were set aside since the spool was opened.
    pub set_aside: Vec<String>,
}

/// Whether a spool takes deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It does.
    Open,
    /// There is no room for more; what is there can be leased and sent.
    Full(Limit),
    /// It cannot be used, for the reason that is given, and tries to recover.
    Failed(String),
    /// It was closed.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_id_is_a_positive_number() {
        let id: RecordId = "17".parse().unwrap();
        assert_eq!((id.get(), id.to_string().as_str()), (17, "17"));
        for wrong in ["", "0", "-1", "1.5", "x", "9223372036854775808"] {
            assert!(wrong.parse::<RecordId>().is_err(), "{wrong}");
        }
        assert_eq!("9223372036854775807".parse::<RecordId>().unwrap().get(), i64::MAX);
    }

    #[test]
    fn a_state_is_read_from_its_word() {
        for state in State::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        for wrong in ["", "Dead", "dead ", "alive"] {
            assert!(wrong.parse::<State>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn debug_shows_no_byte_of_the_content() {
        let mut headers = HeaderMap::new();
        headers.insert("x-canary", "canary".parse().unwrap());
        let content = Content { headers, body: Bytes::from_static(b"canary") };
        let debug = format!("{content:?}");
        assert!(!debug.contains("canary") && debug.contains("body_len: 6"), "{debug}");
    }
}
