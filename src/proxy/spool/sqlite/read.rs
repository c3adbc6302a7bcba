//! What is read beside the writer: on a thread and a connection of its own, so that nobody who looks
//! at the spool holds up those who write.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::oneshot;

use super::codec::{RawContent, RawEntry, Stage, decode_stored, lane, record_id};
use super::job::{Jobs, Message};
use super::space::{Room, file_bytes, free_bytes};
use super::sql;
use super::writer::Shared;
use crate::proxy::spool::{
    Entry, Health, Page, Paged, RecordId, Selection, SpoolError, SpoolErrorKind, State, Status,
    Stored,
};
use crate::time::Timestamp;

/// No page has more deliveries.
const MAX_PAGE: usize = 1000;

/// No page of contents goes on after so many bytes.
const MAX_PAGE_BYTES: i64 = 8 << 20;

/// Something to read. Without a connection, the spool cannot be used at present.
pub(super) type Query = Box<dyn FnOnce(Option<&Connection>) + Send>;

/// Answers queries until there is nobody left to ask.
pub(super) fn run(queries: &Receiver<Query>, shared: &Shared) {
    for query in queries {
        let connection = shared.reader.lock().unwrap_or_else(PoisonError::into_inner);
        query(connection.as_ref());
    }
}

/// A query, and where its answer comes. The writer hears of an error of SQLite's.
pub(super) fn query<T: Send + 'static>(
    shared: Arc<Shared>,
    writer: Jobs,
    read: impl FnOnce(&Connection) -> rusqlite::Result<Result<T, SpoolError>> + Send + 'static,
) -> (Query, oneshot::Receiver<Result<T, SpoolError>>) {
    let (reply, answer) = oneshot::channel();
    let query = move |connection: Option<&Connection>| {
        let result = match connection.map(read) {
            None => Err(shared.unusable()),
            Some(Ok(result)) => result,
            Some(Err(error)) => {
                let told = SpoolError::with_detail(SpoolErrorKind::Failed, error.to_string());
                writer.tell(Message::Fault(error));
                Err(told)
            }
        };
        // Whoever asked may not wait any more.
        let _ = reply.send(result);
    };
    (Box::new(query), answer)
}

pub(super) fn has_pending(
    conn: &Connection,
    hook: &str,
    repository: &str,
) -> rusqlite::Result<bool> {
    conn.prepare_cached(sql::HAS_PENDING)?.exists((lane(hook, repository),))
}

pub(super) fn show(
    conn: &Connection,
    id: RecordId,
) -> rusqlite::Result<Result<Option<Stored>, SpoolError>> {
    let raw = conn.prepare_cached(sql::STORED)?.query_row((id.get(),), stored_row).optional()?;
    Ok(raw.map(|(entry, content)| decode_stored(entry, content)).transpose().map_err(unreadable))
}

pub(super) fn list(
    conn: &Connection,
    selection: &Selection,
    page: Page,
) -> rusqlite::Result<Result<Paged<Entry>, SpoolError>> {
    let raw = scan(conn, &sql::SELECT_ENTRIES, selection, page, None, |row| {
        Ok((record_id(row, 0)?, RawEntry::from_row(row)?))
    })?;
    let decode = |(id, entry): (_, RawEntry)| entry.decode().ok_or_else(|| unreadable(id));
    let items = raw.items.into_iter().map(decode).collect::<Result<_, _>>();
    Ok(items.map(|items| Paged { items, next: raw.next }))
}

pub(super) fn export(
    conn: &Connection,
    selection: &Selection,
    page: Page,
) -> rusqlite::Result<Result<Paged<Stored>, SpoolError>> {
    let raw = scan(conn, &sql::SELECT_STORED, selection, page, Some(MAX_PAGE_BYTES), stored_row)?;
    let decode = |(entry, content)| decode_stored(entry, content).map_err(unreadable);
    let items = raw.items.into_iter().map(decode).collect::<Result<_, _>>();
    Ok(items.map(|items| Paged { items, next: raw.next }))
}

pub(super) fn ids(
    conn: &Connection,
    selection: &Selection,
    page: Page,
) -> rusqlite::Result<Paged<RecordId>> {
    scan(conn, &sql::SELECT_IDS, selection, page, None, |row| record_id(row, 0))
}

/// How the spool is, as far as can be told without a connection.
pub(super) fn status(
    conn: Option<&Connection>,
    shared: &Shared,
    room: Room,
) -> (Status, Option<rusqlite::Error>) {
    let snapshot = shared.snapshot();
    let totals = &snapshot.totals;
    let paths = &shared.paths;
    let room = Room { free: free_bytes(&paths.folder), ..room };
    let (oldest, fault) = match conn.map(oldest) {
        None => (None, None),
        Some(Ok(oldest)) => (oldest, None),
        Some(Err(error)) => (None, Some(error)),
    };
    let health = match (&snapshot.unusable, room.exhausted(totals)) {
        (Some(error), _) if error.kind() == SpoolErrorKind::Closed => Health::Closed,
        (Some(error), _) => Health::Failed(error.to_string()),
        (None, Some(limit)) => Health::Full(limit),
        (None, None) => Health::Open,
    };
    let of = |state| totals.of(state);
    let status = Status {
        health,
        pending: of(State::Pending).rows,
        leased: of(State::Leased).rows,
        dead: of(State::Dead).rows,
        delivered: of(State::Delivered).rows,
        bytes: totals.bytes(),
        history_bytes: of(State::Delivered).bytes,
        max_bytes: room.max_bytes,
        file_bytes: file_bytes(&[&paths.database, &paths.wal]),
        free_bytes: room.free,
        oldest,
        attempts: totals.attempts,
        set_aside: snapshot.set_aside,
    };
    (status, fault)
}

fn oldest(conn: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let oldest = conn.prepare_cached(sql::OLDEST)?.query_row((), |row| row.get(0)).optional()?;
    Ok(oldest.map(Timestamp::from_millis))
}

fn stored_row(row: &Row<'_>) -> rusqlite::Result<(RawEntry, RawContent)> {
    Ok((RawEntry::from_row(row)?, RawContent::from_row(row)?))
}

fn unreadable(id: RecordId) -> SpoolError {
    SpoolError::with_detail(SpoolErrorKind::Unreadable, format!("delivery {id}"))
}

/// The rows of a page, in the order of ids.
fn scan<T>(
    conn: &Connection,
    select: &sql::Select,
    selection: &Selection,
    page: Page,
    max_bytes: Option<i64>,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Paged<T>> {
    let stages = stages(selection);
    let select = match &selection.ids {
        Some(_) => select.one,
        None if stages == 1 << Stage::Dead as i64 => select.dead,
        None => select.all,
    };
    let mut select = conn.prepare_cached(select)?;
    let size = select.column_index("size")?;
    let limit = page.limit.clamp(1, MAX_PAGE);
    let after = page.after.map_or(0, RecordId::get);
    let places = match &selection.ids {
        None => vec![after],
        Some(ids) => {
            let mut ids: Vec<_> = ids.iter().map(|id| id.get()).filter(|id| *id > after).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        }
    };
    let mut items = Vec::new();
    let mut bytes = 0_i64;
    for place in places {
        let before = selection.received_before.map(Timestamp::as_millis);
        let left = (limit - items.len()) as i64;
        let filter = (place, &selection.hook, &selection.repository, before, stages, left);
        let mut rows = select.query(filter)?;
        while let Some(row) = rows.next()? {
            items.push(read(row)?);
            bytes = bytes.saturating_add(row.get(size)?);
            let is_full = max_bytes.is_some_and(|max| bytes >= max);
            if is_full || items.len() == limit {
                return Ok(Paged { items, next: Some(record_id(row, 0)?) });
            }
        }
    }
    Ok(Paged { items, next: None })
}

/// The stages that are selected, one bit each.
fn stages(selection: &Selection) -> i64 {
    let all = [Stage::Waiting, Stage::Ready, Stage::Leased, Stage::Delivered, Stage::Dead];
    let is_selected = |stage: &Stage| match &selection.states {
        None => true,
        Some(states) => states.contains(&stage.state()),
    };
    all.into_iter().filter(is_selected).fold(0, |bits, stage| bits | 1 << stage as i64)
}
