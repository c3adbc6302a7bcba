//! How deliveries are written for programs, on the socket and by the commands' `--json`: the same in both.
//!
//! Times are RFC 3339. What is no text (a body, a header's value) stands as base64 in a field of another
//! name, so that it cannot be taken for text.

use std::str::FromStr;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::event::Kind;
use crate::proxy::spool::{
    About, Content, Entry, Health, Limit, Page, Paged, RecordId, Selection, State, Status, Stored,
};
use crate::proxy::telemetry::TraceParent;

/// A delivery without its content, on one line.
pub fn entry_json(entry: &Entry) -> String {
    write(&EntryJson::from(entry))
}

/// A delivery with its content, on one line.
pub fn stored_json(stored: &Stored) -> String {
    write(&StoredJson::from(stored))
}

/// How a spool is, on one line.
pub fn status_json(status: &Status) -> String {
    write(&StatusJson::from(status))
}

/// These types have no value that JSON has not.
pub(super) fn write(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A part of what was selected.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PageJson<T> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<i64>,
}

impl<T> PageJson<T> {
    pub(super) fn of<U>(paged: &Paged<U>, item: impl Fn(&U) -> T) -> Self {
        let next = paged.next.map(RecordId::get);
        Self { items: paged.items.iter().map(item).collect(), next }
    }

    pub(super) fn read<U>(self, item: impl Fn(T) -> Option<U>) -> Option<Paged<U>> {
        let next = match self.next {
            None => None,
            Some(next) => Some(RecordId::new(next)?),
        };
        Some(Paged { items: self.items.into_iter().map(item).collect::<Option<_>>()?, next })
    }
}

/// What is to be changed, and up to where.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ChangeJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    states: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    /// Has to be there if nothing else selects.
    all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

impl ChangeJson {
    pub(super) fn of(selection: &Selection, page: Page) -> Self {
        let ids = selection.ids.as_ref();
        let states = selection.states.as_ref();
        Self {
            ids: ids.map(|ids| ids.iter().map(|id| id.get()).collect()),
            states: states.map(|states| states.iter().map(State::to_string).collect()),
            hook: selection.hook.clone(),
            repository: selection.repository.clone(),
            before: selection.received_before.map(|before| before.to_string()),
            all: true,
            after: page.after.map(RecordId::get),
            limit: Some(page.limit),
        }
    }

    /// What is wrong with it, in the words of the answer.
    pub(super) fn read(self) -> Result<(Selection, Page), String> {
        let id = |id| RecordId::new(id).ok_or("the number of a delivery is positive");
        let selects = self.ids.is_some()
            || self.states.is_some()
            || self.hook.is_some()
            || self.repository.is_some()
            || self.before.is_some();
        if !selects && !self.all {
            return Err("say which deliveries, or \"all\": true".into());
        }
        let ids = self.ids.map(|ids| ids.into_iter().map(id).collect::<Result<_, _>>());
        let states = self.states.map(|states| states.iter().map(|state| read(state)).collect());
        let selection = Selection {
            ids: ids.transpose()?,
            states: states.transpose()?,
            hook: self.hook,
            repository: self.repository,
            received_before: self.before.map(|before| read(&before)).transpose()?,
        };
        let after = self.after.map(id).transpose()?;
        Ok((selection, Page { after, limit: self.limit.unwrap_or_else(|| Page::default().limit) }))
    }
}

fn read<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EntryJson {
    id: i64,
    state: String,
    hook: String,
    provider: String,
    kind: String,
    event: Option<String>,
    repository: Option<String>,
    refs: Vec<String>,
    delivery: String,
    key: Option<String>,
    identity: Option<String>,
    coalescing_key: Option<String>,
    received_at: String,
    queued_at: String,
    due_at: String,
    attempts: u32,
    owner: Option<String>,
    last_error: Option<String>,
    finished_at: Option<String>,
    stored_bytes: u64,
}

impl From<&Entry> for EntryJson {
    fn from(entry: &Entry) -> Self {
        let about = &entry.about;
        Self {
            id: entry.id.get(),
            state: entry.state.to_string(),
            hook: about.hook.clone(),
            provider: about.provider.to_string(),
            kind: about.kind.to_string(),
            event: about.event.clone(),
            repository: about.repository.clone(),
            refs: about.refs.clone(),
            delivery: about.delivery.clone(),
            key: about.key_name.clone(),
            identity: about.identity.map(|identity| HEXLOWER.encode(&identity)),
            coalescing_key: about.coalescing_key.clone(),
            received_at: about.received_at.to_string(),
            queued_at: entry.queued_at.to_string(),
            due_at: entry.due_at.to_string(),
            attempts: entry.attempts,
            owner: entry.owner.clone(),
            last_error: entry.last_error.clone(),
            finished_at: entry.finished_at.map(|at| at.to_string()),
            stored_bytes: entry.stored_bytes,
        }
    }
}

impl EntryJson {
    pub(super) fn read(self) -> Option<Entry> {
        let identity = match self.identity {
            None => None,
            Some(hex) => Some(HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()?),
        };
        let about = About {
            hook: self.hook,
            provider: self.provider.parse().ok()?,
            kind: kind(&self.kind)?,
            event: self.event,
            repository: self.repository,
            refs: self.refs,
            delivery: self.delivery,
            key_name: self.key,
            identity,
            coalescing_key: self.coalescing_key,
            received_at: self.received_at.parse().ok()?,
        };
        let finished_at = match self.finished_at {
            None => None,
            Some(at) => Some(at.parse().ok()?),
        };
        Some(Entry {
            id: RecordId::new(self.id)?,
            about,
            state: self.state.parse().ok()?,
            queued_at: self.queued_at.parse().ok()?,
            due_at: self.due_at.parse().ok()?,
            attempts: self.attempts,
            owner: self.owner,
            last_error: self.last_error,
            finished_at,
            stored_bytes: self.stored_bytes,
        })
    }
}

/// `Kind` reads only what a hook can want.
fn kind(word: &str) -> Option<Kind> {
    let kinds = [Kind::Push, Kind::PullRequest, Kind::ReindexAll, Kind::Ping, Kind::Other];
    kinds.into_iter().find(|kind| kind.as_str() == word)
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredJson {
    #[serde(flatten)]
    entry: EntryJson,
    /// Told by the headers too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    headers: Vec<HeaderJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HeaderJson {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl From<&Stored> for StoredJson {
    fn from(stored: &Stored) -> Self {
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            let (value, value_base64) = text_or_base64(value.as_bytes());
            HeaderJson { name: name.to_string(), value, value_base64 }
        };
        let (body, body_base64) = text_or_base64(&stored.content.body);
        Self {
            entry: EntryJson::from(&stored.entry),
            trace_id: TraceParent::of(&stored.content.headers).map(|it| it.trace_id.to_string()),
            headers: stored.content.headers.iter().map(header).collect(),
            body,
            body_base64,
        }
    }
}

impl StoredJson {
    pub(super) fn read(self) -> Option<Stored> {
        let mut headers = HeaderMap::new();
        for header in self.headers {
            let value = bytes(header.value, header.value_base64)?;
            headers.append(
                HeaderName::from_bytes(header.name.as_bytes()).ok()?,
                HeaderValue::from_bytes(&value).ok()?,
            );
        }
        let body = Bytes::from(bytes(self.body, self.body_base64)?);
        Some(Stored { entry: self.entry.read()?, content: Content { headers, body } })
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

fn bytes(text: Option<String>, base64: Option<String>) -> Option<Vec<u8>> {
    match (text, base64) {
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(base64)) => BASE64.decode(base64.as_bytes()).ok(),
        _ => None,
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StatusJson {
    health: String,
    /// Why, where there is more to say.
    reason: Option<String>,
    pending: u64,
    leased: u64,
    dead: u64,
    delivered: u64,
    bytes: u64,
    history_bytes: u64,
    /// None is no limit.
    max_bytes: Option<u64>,
    file_bytes: u64,
    free_bytes: Option<u64>,
    oldest: Option<String>,
    attempts: u64,
    set_aside: Vec<String>,
}

impl From<&Status> for StatusJson {
    fn from(status: &Status) -> Self {
        let (health, reason) = match &status.health {
            Health::Open => ("open", None),
            Health::Full(Limit::Bytes) => ("full", Some("bytes".into())),
            Health::Full(Limit::FreeSpace) => ("full", Some("free-space".into())),
            Health::Failed(reason) => ("failed", Some(reason.clone())),
            Health::Closed => ("closed", None),
        };
        Self {
            health: health.into(),
            reason,
            pending: status.pending,
            leased: status.leased,
            dead: status.dead,
            delivered: status.delivered,
            bytes: status.bytes,
            history_bytes: status.history_bytes,
            max_bytes: Some(status.max_bytes).filter(|max| *max < u64::MAX),
            file_bytes: status.file_bytes,
            free_bytes: status.free_bytes,
            oldest: status.oldest.map(|oldest| oldest.to_string()),
            attempts: status.attempts,
            set_aside: status.set_aside.clone(),
        }
    }
}

impl StatusJson {
    pub(super) fn read(self) -> Option<Status> {
        let health = match (self.health.as_str(), self.reason.as_deref()) {
            ("open", None) => Health::Open,
            ("full", Some("bytes")) => Health::Full(Limit::Bytes),
            ("full", Some("free-space")) => Health::Full(Limit::FreeSpace),
            ("failed", Some(reason)) => Health::Failed(reason.to_owned()),
            ("closed", None) => Health::Closed,
            _ => return None,
        };
        let oldest = match self.oldest {
            None => None,
            Some(oldest) => Some(oldest.parse().ok()?),
        };
        Some(Status {
            health,
            pending: self.pending,
            leased: self.leased,
            dead: self.dead,
            delivered: self.delivered,
            bytes: self.bytes,
            history_bytes: self.history_bytes,
            max_bytes: self.max_bytes.unwrap_or(u64::MAX),
            file_bytes: self.file_bytes,
            free_bytes: self.free_bytes,
            oldest,
            attempts: self.attempts,
            set_aside: self.set_aside,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Provider;
    use crate::time::Timestamp;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    fn stored() -> Stored {
        let mut about = About::new("hook", Provider::BitbucketServer, Kind::ReindexAll, at(1));
        about.event = Some("pr:opened".into());
        about.refs = vec!["refs/heads/\"a\u{1b}".into()];
        about.identity = Some([7; 32]);
        let mut headers = HeaderMap::new();
        headers.append("content-type", HeaderValue::from_static("application/json"));
        headers.append("x-twice", HeaderValue::from_static("one"));
        headers.append("x-twice", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let entry = Entry {
            id: RecordId::new(17).unwrap(),
            about,
            state: State::Dead,
            queued_at: at(2),
            due_at: at(3),
            attempts: 4,
            owner: None,
            last_error: Some("no".into()),
            finished_at: Some(at(5)),
            stored_bytes: 6,
        };
        Stored { entry, content: Content { headers, body: Bytes::from_static(b"{\"a\":1}") } }
    }

    fn again(stored: &Stored) -> Option<Stored> {
        serde_json::from_str::<StoredJson>(&stored_json(stored)).ok()?.read()
    }

    #[test]
    fn a_delivery_is_read_as_it_was_written() {
        let mut stored = stored();
        assert_eq!(again(&stored), Some(stored.clone()));
        let text = stored_json(&stored);
        assert!(text.contains(r#""body":"{\"a\":1}""#) && !text.contains('\n'), "{text}");
        stored.content.body = Bytes::from_static(b"\0\xff");
        assert_eq!(again(&stored), Some(stored.clone()));
        let text = stored_json(&stored);
        assert!(text.contains(r#""body_base64":"AP8=""#), "{text}");
        let entry = serde_json::from_str::<EntryJson>(&entry_json(&stored.entry)).unwrap();
        assert_eq!(entry.read(), Some(stored.entry));
    }

    #[test]
    fn what_no_delivery_can_say_is_not_read() {
        let good = stored_json(&stored());
        for (from, to) in [
            ("\"id\":17", "\"id\":0"),
            ("\"dead\"", "\"alive\""),
            ("bitbucket-server", "sourceforge"),
            ("reindex_all", "everything"),
            ("0707", "07"),
            ("2027-", "x"),
            ("content-type", "content type"),
            ("\"body\"", "\"text\""),
            ("value_base64", "value_base32"),
        ] {
            assert!(good.contains(from), "{from} in {good}");
            let wrong = serde_json::from_str::<StoredJson>(&good.replace(from, to)).unwrap();
            assert_eq!(wrong.read(), None, "{to}");
        }
    }

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let mut status = Status {
            health: Health::Open,
            pending: 1,
            leased: 2,
            dead: 3,
            delivered: 4,
            bytes: 5,
            history_bytes: 6,
            max_bytes: u64::MAX,
            file_bytes: 8,
            free_bytes: None,
            oldest: Some(at(9)),
            attempts: 10,
            set_aside: vec!["spool.db.damaged-1".into()],
        };
        for health in [
            Health::Open,
            Health::Full(Limit::Bytes),
            Health::Full(Limit::FreeSpace),
            Health::Failed("disk I/O error".into()),
            Health::Closed,
        ] {
            status.max_bytes = if health == Health::Open { 7 } else { u64::MAX };
            status.health = health;
            let text = status_json(&status);
            let read = serde_json::from_str::<StatusJson>(&text).unwrap().read();
            assert_eq!(read, Some(status.clone()));
        }
        let odd = status_json(&status).replace("closed", "half-open");
        assert_eq!(serde_json::from_str::<StatusJson>(&odd).unwrap().read(), None);
    }
}
