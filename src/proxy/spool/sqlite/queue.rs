//! What the operations of a spool do to its rows. Each is part of a transaction of the writer.
//!
//! An operation that is refused has changed nothing, so that the others of its transaction stand.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::codec::{Encoded, RawContent, RawEntry, Stage, record_id};
use super::rows::{Held, LEASE_EXPIRED};
use super::space::{Room, Totals};
use super::sql;
use crate::proxy::spool::{
    Appended, Lease, LeaseRequest, Nacked, RecordId, SpoolError, SpoolErrorKind, State,
};
use crate::time::Timestamp;

/// An operation's result, inside of what SQLite says.
pub(super) type Answer<T> = rusqlite::Result<Result<T, SpoolError>>;

/// What was leased: rows as they are stored.
pub(super) struct RawLeases {
    pub(super) leased: Vec<(Lease, RawEntry, RawContent)>,
    pub(super) next_due: Option<Timestamp>,
}

/// The rows of a spool within a transaction.
pub(super) struct Queue<'a> {
    pub(super) conn: &'a Connection,
    pub(super) totals: &'a mut Totals,
    pub(super) room: &'a Room,
    /// Whether what arrived is kept.
    pub(super) keeps_history: bool,
    /// What time it is, as far as was told.
    pub(super) now: &'a mut Option<Timestamp>,
}

impl Queue<'_> {
    pub(super) fn append(&mut self, record: &Encoded) -> Answer<Appended> {
        let about = &record.about;
        let mut stage = Stage::Ready;
        if let Some(lane) = record.lane
            && let Some(youngest) = self.youngest(lane)?
        {
            let is_same = |own: [u8; 32]| youngest.identity.as_deref() == Some(&own[..]);
            if about.identity.is_some_and(is_same) {
                return Ok(Ok(Appended::Identical(youngest.id)));
            }
            stage = Stage::Waiting;
        }
        if let Some(key) = &about.coalescing_key
            && let Some(waiting) = self.waiting_with_key(&about.hook, key)?
        {
            return self.replace(&waiting, record);
        }
        if let Err(full) = self.room.admit(self.totals, record.size) {
            return Ok(Err(full));
        }
        Ok(Ok(Appended::New(self.insert(record, stage, None)?)))
    }

    pub(super) fn append_leased(
        &mut self,
        record: &Encoded,
        owner: &Arc<str>,
        until: Timestamp,
    ) -> Answer<Lease> {
        if let Err(full) = self.room.admit(self.totals, record.size) {
            return Ok(Err(full));
        }
        if let Some(lane) = record.lane {
            // While this one is under way, no other has its turn.
            self.cached(sql::TAKE_TURN)?.execute((lane,))?;
        }
        let id = self.insert(record, Stage::Leased, Some((owner, until)))?;
        self.totals.attempts += 1;
        Ok(Ok(Lease { id, owner: owner.clone(), number: 1, until }))
    }

    pub(super) fn lease(&mut self, request: &LeaseRequest) -> Answer<RawLeases> {
        self.is_now(request.now);
        let now = request.now.as_millis();
        self.expire(now)?;
        let mut due = Vec::new();
        for hook in &request.hooks {
            let mut select = self.cached(sql::DUE)?;
            let limit = i64::try_from(request.limit).unwrap_or(i64::MAX);
            let rows = select.query_map((hook, now, limit), |row| {
                Ok((row.get::<_, i64>(0)?, record_id(row, 1)?, row.get::<_, i64>(2)?))
            })?;
            due.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        due.sort_unstable();
        // A hook may be named twice.
        due.dedup();
        let owner: Arc<str> = request.owner.as_str().into();
        let mut leased = Vec::new();
        let mut bytes = 0_u64;
        for (_, id, size) in due.into_iter().take(request.limit) {
            bytes = bytes.saturating_add(size.unsigned_abs());
            if bytes > request.max_bytes && !leased.is_empty() {
                break;
            }
            leased.push(self.lease_row(id, &owner, request.until)?);
        }
        Ok(Ok(RawLeases { leased, next_due: self.next_due(&request.hooks)? }))
    }

    pub(super) fn renew(&mut self, lease: &Lease, until: Timestamp) -> Answer<Lease> {
        let Some(held) = self.held(lease)? else { return lost() };
        self.cached(sql::SET_DUE)?.execute((held.id.get(), until.as_millis()))?;
        Ok(Ok(Lease { until, ..lease.clone() }))
    }

    pub(super) fn ack(&mut self, lease: &Lease, now: Timestamp) -> Answer<()> {
        self.is_now(now);
        let Some(held) = self.held(lease)? else { return lost() };
        if self.keeps_history {
            self.finish(&held, Stage::Delivered, None, now)?;
        } else {
            self.remove(&held)?;
        }
        Ok(Ok(()))
    }

    pub(super) fn nack(
        &mut self,
        lease: &Lease,
        retry_at: Timestamp,
        reason: &str,
        now: Timestamp,
    ) -> Answer<Nacked> {
        self.is_now(now);
        let Some(held) = self.held(lease)? else { return lost() };
        let by = self.give_back(&held, retry_at.as_millis(), reason)?;
        Ok(Ok(by.map_or(Nacked::Waiting, Nacked::Superseded)))
    }

    pub(super) fn dead_letter(
        &mut self,
        lease: &Lease,
        reason: &str,
        now: Timestamp,
    ) -> Answer<()> {
        self.is_now(now);
        let Some(held) = self.held(lease)? else { return lost() };
        self.finish(&held, Stage::Dead, Some(reason), now)?;
        Ok(Ok(()))
    }

    pub(super) fn release(&mut self, owner: &str, now: Timestamp) -> Answer<u64> {
        self.is_now(now);
        let rows = {
            let mut select = self.cached(sql::ROWS_OF_OWNER)?;
            let rows = select.query_map((owner,), Held::from_row)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()?
        };
        for held in &rows {
            self.give_back(held, now.as_millis(), LEASE_EXPIRED)?;
        }
        Ok(Ok(rows.len() as u64))
    }

    /// Those of `ids` that are in one of `states` by now, and not leased, are due at once.
    pub(super) fn redeliver(
        &mut self,
        ids: &[RecordId],
        states: Option<&[State]>,
        now: Timestamp,
    ) -> Answer<Vec<RecordId>> {
        self.is_now(now);
        let mut done = Vec::new();
        for &id in ids {
            let Some(held) = self.row_in(id, states)? else { continue };
            match held.stage {
                Stage::Waiting | Stage::Ready => {
                    self.cached(sql::SET_DUE)?.execute((held.id.get(), now.as_millis()))?;
                }
                Stage::Delivered | Stage::Dead => {
                    self.cached(sql::SEND_AGAIN)?.execute((
                        held.id.get(),
                        now.as_millis(),
                        held.waiting(),
                    ))?;
                    self.totals.moved(held.stage.state(), State::Pending, held.size);
                    if let Some(lane) = held.lane {
                        // It is older than the one whose turn it is, or not: the oldest is next.
                        self.cached(sql::TAKE_TURN)?.execute((lane,))?;
                    }
                    self.give_turn(&held)?;
                }
                Stage::Leased => continue,
            }
            done.push(id);
        }
        Ok(Ok(done))
    }

    /// Those of `ids` that are in one of `states` by now, and not leased, are gone.
    pub(super) fn purge(
        &mut self,
        ids: &[RecordId],
        states: Option<&[State]>,
    ) -> Answer<Vec<RecordId>> {
        let mut done = Vec::new();
        for &id in ids {
            let Some(held) = self.row_in(id, states)? else { continue };
            if held.stage != Stage::Leased {
                self.remove(&held)?;
                done.push(id);
            }
        }
        Ok(Ok(done))
    }

    /// Removes the oldest of the history, as many as make `bytes` if it is too large, and those that
    /// were finished before `before`; at most `limit` in one step. Returns how many.
    pub(super) fn trim_history(
        &mut self,
        max_bytes: u64,
        before: Option<Timestamp>,
        limit: usize,
    ) -> rusqlite::Result<usize> {
        let mut removed = 0;
        while removed < limit {
            let oldest = self
                .cached(sql::OLDEST_OF_HISTORY)?
                .query_row((), |row| Ok((Held::from_row(row)?, row.get::<_, i64>(9)?)))
                .optional()?;
            let Some((held, finished_at)) = oldest else { break };
            let is_old = before.is_some_and(|before| finished_at < before.as_millis());
            if !is_old && self.totals.of(State::Delivered).bytes <= max_bytes {
                break;
            }
            self.remove(&held)?;
            removed += 1;
        }
        Ok(removed)
    }
}

fn lost<T>() -> Answer<T> {
    Ok(Err(SpoolErrorKind::LeaseLost.into()))
}
