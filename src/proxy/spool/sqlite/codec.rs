//! How a delivery is written into columns, and read from them.
//!
//! Bodies above [`COMPRESS_ABOVE`] are compressed with zlib ([RFC 1950](https://www.rfc-editor.org/rfc/rfc1950)),
//! if that makes them smaller. A body is compressed exactly if it is shorter than `length` says: this is
//! how SQLite's own archives do it, so its shell shows every body with `sqlar_uncompress(body, length)`.

use std::io::Read;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql};
use sha2::{Digest, Sha256};

use crate::event::Kind;
use crate::provider::Provider;
use crate::proxy::spool::{About, Content, Entry, Record, RecordId, State, Stored};
use crate::time::Timestamp;

/// Bodies that are larger, in bytes, are compressed.
pub(super) const COMPRESS_ABOVE: usize = 16 << 10;

/// What a row takes beside its texts: columns, indexes and pages that are not full.
const ROW_OVERHEAD: usize = 256;

/// Where a row stands. The first two are one to the outside: see [`schema`](super::schema).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    Ready,
    Leased,
    Delivered,
    Dead,
}

impl Stage {
    /// What the outside sees of it.
    pub(super) fn state(self) -> State {
        match self {
            Self::Waiting | Self::Ready => State::Pending,
            Self::Leased => State::Leased,
            Self::Delivered => State::Delivered,
            Self::Dead => State::Dead,
        }
    }
}

impl ToSql for Stage {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for Stage {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let stages = [Self::Waiting, Self::Ready, Self::Leased, Self::Delivered, Self::Dead];
        let number = value.as_i64()?;
        let stage = stages.into_iter().find(|stage| *stage as i64 == number);
        stage.ok_or(FromSqlError::OutOfRange(number))
    }
}

/// A record as it is written.
pub(super) struct Encoded {
    pub(super) about: About,
    pub(super) not_before: Timestamp,
    pub(super) lane: Option<i64>,
    pub(super) refs: String,
    pub(super) headers: Vec<u8>,
    /// The length of the body before it was compressed.
    pub(super) length: i64,
    pub(super) body: Bytes,
    /// The check sum of the body as it is stored.
    pub(super) crc: i64,
    /// What it takes, all in all.
    pub(super) size: i64,
}

impl Encoded {
    /// One pass over the body, more if it is compressed: some 100 MB a second.
    pub(super) fn new(record: Record) -> Self {
        let Record { about, content, not_before } = record;
        let refs = serde_json::to_string(&about.refs).unwrap_or_else(|_| "[]".to_owned());
        let headers = encode_headers(&content.headers);
        let length = content.body.len();
        let body = compress(content.body);
        let texts = [
            about.hook.len(),
            about.repository.as_ref().map_or(0, String::len),
            about.coalescing_key.as_ref().map_or(0, String::len),
            about.delivery.len(),
            refs.len(),
            headers.len(),
            body.len(),
        ];
        let size = texts.iter().sum::<usize>() + ROW_OVERHEAD;
        let (length, size) = (length as i64, size as i64);
        let lane = about.repository.as_deref().map(|repository| lane(&about.hook, repository));
        Self { about, not_before, lane, refs, headers, length, crc: crc(&body), body, size }
    }
}

/// An entry as it is stored: nothing in it was looked at yet.
pub(super) struct RawEntry {
    id: RecordId,
    about: RawAbout,
    queued_at: i64,
    due_at: i64,
    stage: Stage,
    attempts: i64,
    owner: Option<String>,
    last_error: Option<String>,
    finished_at: Option<i64>,
    size: i64,
}

struct RawAbout {
    hook: String,
    provider: String,
    kind: String,
    event: Option<String>,
    repository: Option<String>,
    refs: String,
    delivery: String,
    key_name: Option<String>,
    identity: Option<Vec<u8>>,
    coalescing_key: Option<String>,
    received_at: i64,
}

impl RawEntry {
    /// From the columns that [`sql`](super::sql) names.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: record_id(row, 0)?,
            about: RawAbout {
                hook: row.get(1)?,
                provider: row.get(2)?,
                kind: row.get(3)?,
                event: row.get(4)?,
                repository: row.get(5)?,
                refs: row.get(6)?,
                delivery: row.get(7)?,
                key_name: row.get(8)?,
                identity: row.get(9)?,
                coalescing_key: row.get(10)?,
                received_at: row.get(11)?,
            },
            queued_at: row.get(12)?,
            due_at: row.get(13)?,
            stage: row.get(14)?,
            attempts: row.get(15)?,
            owner: row.get(16)?,
            last_error: row.get(17)?,
            finished_at: row.get(18)?,
            size: row.get(19)?,
        })
    }

    /// `None` if something in it is not known to this program.
    pub(super) fn decode(self) -> Option<Entry> {
        let about = self.about;
        Some(Entry {
            id: self.id,
            about: About {
                provider: about.provider.parse::<Provider>().ok()?,
                kind: kind(&about.kind)?,
                refs: serde_json::from_str(&about.refs).ok()?,
                identity: match about.identity {
                    Some(digest) => Some(digest.try_into().ok()?),
                    None => None,
                },
                received_at: Timestamp::from_millis(about.received_at),
                hook: about.hook,
                event: about.event,
                repository: about.repository,
                delivery: about.delivery,
                key_name: about.key_name,
                coalescing_key: about.coalescing_key,
            },
            state: self.stage.state(),
            queued_at: Timestamp::from_millis(self.queued_at),
            due_at: Timestamp::from_millis(self.due_at),
            attempts: self.attempts.try_into().ok()?,
            owner: self.owner,
            last_error: self.last_error,
            finished_at: self.finished_at.map(Timestamp::from_millis),
            stored_bytes: self.size.try_into().ok()?,
        })
    }
}

/// The content of an entry as it is stored; nothing if it was lost.
pub(super) struct RawContent {
    headers: Option<Vec<u8>>,
    length: Option<i64>,
    crc: Option<i64>,
    body: Option<Vec<u8>>,
}

impl RawContent {
    /// From the columns behind those of the entry.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            headers: row.get(20)?,
            length: row.get(21)?,
            crc: row.get(22)?,
            body: row.get(23)?,
        })
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.body.as_ref().map(|body| body.len() as i64) != self.length
    }

    /// `None` if it is not what was stored.
    pub(super) fn decode(self) -> Option<Content> {
        let is_compressed = self.is_compressed();
        let headers = decode_headers(&self.headers?)?;
        let body = self.body?;
        if self.crc != Some(crc(&body)) {
            return None;
        }
        let body =
            if is_compressed { inflate(&body, usize::try_from(self.length?).ok()?)? } else { body };
        Some(Content { headers, body: body.into() })
    }
}

/// An entry with its content, or the number of the one that cannot be read.
pub(super) fn decode_stored(entry: RawEntry, content: RawContent) -> Result<Stored, RecordId> {
    let id = entry.id;
    match (entry.decode(), content.decode()) {
        (Some(entry), Some(content)) => Ok(Stored { entry, content }),
        _ => Err(id),
    }
}

/// The number that stands for a repository of a hook.
pub(super) fn lane(hook: &str, repository: &str) -> i64 {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(hook)
        .chain_update([0])
        .chain_update(repository)
        .finalize()
        .into();
    digest[..8].iter().fold(0, |lane, byte| lane << 8 | i64::from(*byte))
}

/// The number of a delivery in column `column`.
pub(super) fn record_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RecordId> {
    let number = row.get(column)?;
    RecordId::new(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn kind(word: &str) -> Option<Kind> {
    let kinds = [Kind::Push, Kind::PullRequest, Kind::Ping, Kind::Other];
    kinds.into_iter().find(|kind| kind.as_str() == word)
}

/// One field line each, as they would be sent ([RFC 9112 section 5](https://www.rfc-editor.org/rfc/rfc9112#section-5)),
/// without what is marked sensitive.
fn encode_headers(headers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::with_capacity(headers.len() * 48);
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_sensitive()) {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines
}

fn decode_headers(mut lines: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    while !lines.is_empty() {
        // Neither a name nor a value can hold a line feed, and a name no colon.
        let end = lines.iter().position(|&byte| byte == b'\n')?;
        let colon = lines[..end].iter().position(|&byte| byte == b':')?;
        let value = lines[colon..end].strip_prefix(b": ")?;
        let name = HeaderName::from_bytes(&lines[..colon]).ok()?;
        headers.try_append(name, HeaderValue::from_bytes(value).ok()?).ok()?;
        lines = &lines[end + 1..];
    }
    Some(headers)
}

/// SQLite notices a page that has a wrong form, and not one that has wrong bytes.
fn crc(bytes: &[u8]) -> i64 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().into()
}

/// The fastest level: the disk is to be spared, and not the last percent of it.
fn compress(body: Bytes) -> Bytes {
    if body.len() <= COMPRESS_ABOVE {
        return body;
    }
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    let compressed = std::io::Write::write_all(&mut encoder, &body).and_then(|()| encoder.finish());
    match compressed {
        Ok(compressed) if compressed.len() < body.len() => compressed.into(),
        // Writing into memory does not fail; what does not shrink stays as it is.
        _ => body,
    }
}

/// `None` if it is not zlib, its check sum is wrong, or it is not exactly `length` long.
fn inflate(compressed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    // One more than it may be, so that more is noticed and the check sum is read.
    let mut decoder = ZlibDecoder::new(compressed).take(length as u64 + 1);
    decoder.read_to_end(&mut body).ok()?;
    (body.len() == length).then_some(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(len: usize) -> Bytes {
        (0..).flat_map(|n| format!("{{\"commit\":{n}}},").into_bytes()).take(len).collect()
    }

    #[test]
    fn a_body_is_compressed_above_16_kib_and_only_if_that_helps() {
        let at = compress(json(COMPRESS_ABOVE));
        assert_eq!(at, json(COMPRESS_ABOVE));
        let above = compress(json(COMPRESS_ABOVE + 1));
        assert!(above.len() < COMPRESS_ABOVE / 3, "{}", above.len());
        let mut state = 1_u64;
        let noise: Bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(COMPRESS_ABOVE * 2)
        .collect();
        assert_eq!(compress(noise.clone()), noise);
    }

    #[test]
    fn a_compressed_body_that_was_damaged_cut_or_grew_is_not_read() {
        let body = json(20_000);
        let compressed = compress(body.clone());
        assert_eq!(inflate(&compressed, body.len()).as_deref(), Some(&*body));
        assert_eq!(inflate(&compressed, body.len() - 1), None);
        assert_eq!(inflate(&compressed, body.len() + 1), None);
        assert_eq!(inflate(&compressed[..compressed.len() - 1], body.len()), None);
        for at in [compressed.len() / 2, compressed.len() - 1] {
            let mut damaged = compressed.to_vec();
            damaged[at] ^= 1;
            assert_eq!(inflate(&damaged, body.len()), None, "byte {at}");
        }
    }

    #[test]
    fn a_sensitive_header_is_never_written() {
        let mut headers = HeaderMap::new();
        let mut token = HeaderValue::from_static("canary");
        token.set_sensitive(true);
        headers.append("x-thing", token);
        headers.append("x-thing", HeaderValue::from_static("kept"));
        assert_eq!(encode_headers(&headers), b"x-thing: kept\n");
    }

    #[test]
    fn what_are_no_field_lines_is_not_read() {
        for wrong in ["no colon\n", "a:b\n", ": b\n", "a: b", "a: \u{1}\n", "\n"] {
            assert!(decode_headers(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
        assert_eq!(decode_headers(b"").unwrap().len(), 0);
    }

    proptest! {
        #[test]
        fn headers_are_read_as_they_were_written(
            fields in proptest::collection::vec(
                ("[a-z][a-z0-9-]{0,20}", proptest::collection::vec(any::<u8>(), 0..30)), 0..12),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
                }
            }
            prop_assert_eq!(decode_headers(&encode_headers(&headers)).unwrap(), headers);
        }
    }
}
