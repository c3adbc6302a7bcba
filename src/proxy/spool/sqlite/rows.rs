//! The steps of which the operations on the [`Queue`] are made.

use std::sync::Arc;

use rusqlite::{CachedStatement, OptionalExtension, Row, params};

use super::codec::{Encoded, RawContent, RawEntry, Stage, record_id};
use super::queue::{Answer, Queue};
use super::sql;
use crate::proxy::spool::{Appended, Lease, RecordId, State};
use crate::time::Timestamp;

/// How many leases that have ended are given back in one step.
const EXPIRE_AT_MOST: i64 = 256;

/// What the last error of a delivery says when nobody told what became of it.
pub(super) const LEASE_EXPIRED: &str = "the lease ended without a word";

/// The longest text that is kept of an error, in bytes.
const MAX_REASON: usize = 200;

/// A row that is about to change its state.
pub(super) struct Held {
    pub(super) id: RecordId,
    pub(super) hook: String,
    pub(super) lane: Option<i64>,
    pub(super) coalescing_key: Option<String>,
    pub(super) stage: Stage,
    pub(super) received_at: i64,
    pub(super) queued_at: i64,
    pub(super) attempts: i64,
    pub(super) size: i64,
}

/// The last row of a repository that has not arrived.
pub(super) struct Youngest {
    pub(super) id: RecordId,
    pub(super) identity: Option<Vec<u8>>,
}

impl Held {
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: record_id(row, 0)?,
            hook: row.get(1)?,
            lane: row.get(2)?,
            coalescing_key: row.get(3)?,
            stage: row.get(4)?,
            received_at: row.get(5)?,
            queued_at: row.get(6)?,
            attempts: row.get(7)?,
            size: row.get(8)?,
        })
    }

    /// Where it stands when it is to wait, before it is given its turn.
    pub(super) fn waiting(&self) -> Stage {
        if self.lane.is_some() { Stage::Waiting } else { Stage::Ready }
    }
}

impl Queue<'_> {
    pub(super) fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.conn.prepare_cached(sql)
    }

    pub(super) fn is_now(&mut self, now: Timestamp) {
        *self.now = Some(now);
    }

    pub(super) fn youngest(&self, lane: i64) -> rusqlite::Result<Option<Youngest>> {
        let youngest = |sql| {
            self.cached(sql)?
                .query_row((lane,), |row| {
                    Ok(Youngest { id: record_id(row, 0)?, identity: row.get(1)? })
                })
                .optional()
        };
        // Nothing waits where nothing is to be waited for.
        let Some(head) = youngest(sql::YOUNGEST_HEAD)? else { return Ok(None) };
        let waiting = youngest(sql::YOUNGEST_WAITING)?;
        Ok(Some(waiting.filter(|waiting| waiting.id > head.id).unwrap_or(head)))
    }

    pub(super) fn waiting_with_key(&self, hook: &str, key: &str) -> rusqlite::Result<Option<Held>> {
        self.cached(sql::PENDING_WITH_KEY)?.query_row((hook, key), Held::from_row).optional()
    }

    /// The row, if it is in one of `states`.
    pub(super) fn row_in(
        &self,
        id: RecordId,
        states: Option<&[State]>,
    ) -> rusqlite::Result<Option<Held>> {
        let row = self.cached(sql::ROW)?.query_row((id.get(),), Held::from_row).optional()?;
        Ok(row.filter(|row| states.is_none_or(|states| states.contains(&row.stage.state()))))
    }

    pub(super) fn held(&self, lease: &Lease) -> rusqlite::Result<Option<Held>> {
        self.cached(sql::ROW_OF_LEASE)?
            .query_row((lease.id.get(), &*lease.owner, lease.number), Held::from_row)
            .optional()
    }

    pub(super) fn insert(
        &mut self,
        record: &Encoded,
        stage: Stage,
        lease: Option<(&str, Timestamp)>,
    ) -> rusqlite::Result<RecordId> {
        let about = &record.about;
        self.totals.last_id += 1;
        let id = self.totals.last_id;
        self.cached(sql::INSERT)?.execute(params![
            id,
            about.hook,
            about.provider.as_str(),
            about.kind.as_str(),
            about.event,
            about.repository,
            record.lane,
            record.refs,
            about.delivery,
            about.key_name,
            about.identity,
            about.coalescing_key,
            about.received_at.as_millis(),
            lease.map_or(record.not_before, |(_, until)| until).as_millis(),
            stage,
            lease.map(|(owner, _)| owner),
            i64::from(lease.is_some()),
            record.size,
        ])?;
        self.cached(sql::INSERT_CONTENT)?.execute((
            id,
            &record.headers,
            record.length,
            record.crc,
            &*record.body,
        ))?;
        self.totals.added(stage.state(), record.size);
        RecordId::new(id).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, id))
    }

    /// The later of the two waits, at the place and time of the one that waited.
    pub(super) fn replace(&mut self, waiting: &Held, record: &Encoded) -> Answer<Appended> {
        let about = &record.about;
        if about.received_at.as_millis() < waiting.received_at {
            return Ok(Ok(Appended::Coalesced(waiting.id)));
        }
        if let Err(full) = self.room.admit(self.totals, record.size - waiting.size) {
            return Ok(Err(full));
        }
        self.cached(sql::REPLACE)?.execute(params![
            waiting.id.get(),
            about.provider.as_str(),
            about.kind.as_str(),
            about.event,
            record.refs,
            about.delivery,
            about.key_name,
            about.identity,
            about.received_at.as_millis(),
            record.size,
        ])?;
        self.cached(sql::REPLACE_CONTENT)?.execute((
            waiting.id.get(),
            &record.headers,
            record.length,
            record.crc,
            &*record.body,
        ))?;
        self.totals.removed(State::Pending, waiting.size);
        self.totals.added(State::Pending, record.size);
        Ok(Ok(Appended::Coalesced(waiting.id)))
    }

    pub(super) fn expire(&mut self, now: i64) -> rusqlite::Result<()> {
        let ended = {
            let mut select = self.cached(sql::ENDED_LEASES)?;
            let rows = select.query_map((now, EXPIRE_AT_MOST), |row| {
                Ok((Held::from_row(row)?, row.get::<_, i64>(9)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()?
        };
        for (held, due_at) in &ended {
            self.give_back(held, *due_at, LEASE_EXPIRED)?;
        }
        Ok(())
    }

    pub(super) fn lease_row(
        &mut self,
        id: RecordId,
        owner: &Arc<str>,
        until: Timestamp,
    ) -> rusqlite::Result<(Lease, RawEntry, RawContent)> {
        let number: i64 = self
            .cached(sql::LEASE)?
            .query_one((id.get(), &**owner, until.as_millis()), |row| row.get(0))?;
        let (entry, content, size) = self.cached(sql::STORED)?.query_one((id.get(),), |row| {
            let content = RawContent::from_row(row)?;
            Ok((RawEntry::from_row(row)?, content, row.get::<_, i64>(19)?))
        })?;
        self.totals.moved(State::Pending, State::Leased, size);
        self.totals.attempts += 1;
        Ok((Lease { id, owner: owner.clone(), number, until }, entry, content))
    }

    pub(super) fn next_due(&self, hooks: &[String]) -> rusqlite::Result<Option<Timestamp>> {
        let mut next: Option<i64> =
            self.cached(sql::NEXT_LEASE_END)?.query_row((), |row| row.get(0)).optional()?;
        for hook in hooks {
            let due: Option<i64> =
                self.cached(sql::NEXT_DUE)?.query_row((hook,), |row| row.get(0)).optional()?;
            next = next.into_iter().chain(due).min();
        }
        Ok(next.map(Timestamp::from_millis))
    }

    /// A leased row waits again, or one of it and another that waits with its key goes: then the
    /// number of the one that stays is returned, unless it is this.
    pub(super) fn give_back(
        &mut self,
        held: &Held,
        due: i64,
        reason: &str,
    ) -> rusqlite::Result<Option<RecordId>> {
        let reason = cut(reason);
        let mut queued_at = held.queued_at;
        if let Some(key) = &held.coalescing_key
            && let Some(other) = self.waiting_with_key(&held.hook, key)?
        {
            if (other.received_at, other.id) > (held.received_at, held.id) {
                self.cached(sql::INHERIT)?.execute((
                    other.id.get(),
                    queued_at,
                    due,
                    held.attempts,
                    reason,
                ))?;
                self.remove(held)?;
                return Ok(Some(other.id));
            }
            queued_at = queued_at.min(other.queued_at);
            self.remove(&other)?;
        }
        self.cached(sql::GIVE_BACK)?.execute((
            held.id.get(),
            held.waiting(),
            due,
            queued_at,
            reason,
        ))?;
        self.totals.moved(State::Leased, State::Pending, held.size);
        self.give_turn(held)?;
        Ok(None)
    }

    pub(super) fn finish(
        &mut self,
        held: &Held,
        stage: Stage,
        error: Option<&str>,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        self.cached(sql::FINISH)?.execute((
            held.id.get(),
            stage,
            error.map(cut),
            now.as_millis(),
        ))?;
        self.totals.moved(held.stage.state(), stage.state(), held.size);
        self.give_turn(held)
    }

    pub(super) fn remove(&mut self, held: &Held) -> rusqlite::Result<()> {
        self.cached(sql::DELETE)?.execute((held.id.get(),))?;
        self.cached(sql::DELETE_CONTENT)?.execute((held.id.get(),))?;
        self.totals.removed(held.stage.state(), held.size);
        self.give_turn(held)
    }

    /// If nothing of the repository is ready or leased, the oldest that waits has its turn.
    pub(super) fn give_turn(&self, held: &Held) -> rusqlite::Result<()> {
        let Some(lane) = held.lane else { return Ok(()) };
        self.cached(sql::GIVE_TURN)?.execute((lane,))?;
        Ok(())
    }
}

fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
