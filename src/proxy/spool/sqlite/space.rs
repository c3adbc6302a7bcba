//! How much the spool takes, how much it may, and how it gives back what it no longer needs.
//!
//! Admission ends before the disk does: a file system without a free byte takes no note of a delivery
//! that arrived either, and SQLite needs space even to delete. So [`Room`] counts against two limits, the
//! bytes that the spool holds and the space that stays free; leasing, acknowledging and removing are bound
//! by neither.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::SpoolConfig;
use super::codec::Stage;
use super::queue::Queue;
use super::schema::BUSY_TIMEOUT;
use super::sql;
use crate::proxy::spool::{Limit, SpoolError, SpoolErrorKind, State};
use crate::time::Timestamp;

/// How many rows of the history go in one step.
const TRIM_AT_MOST: usize = 256;

/// So many pages may be free in the file; what is more is given back, so many in one step.
const KEEP_FREE_PAGES: i64 = 1024;
const VACUUM_AT_MOST: i64 = 512;

/// How many rows are in each state and what they take.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    states: [Total; State::ALL.len()],
    /// The leases that were given.
    pub(super) attempts: u64,
    /// The last number that was given.
    pub(super) last_id: i64,
    /// What the last delivery needed that found no room; zero if one has found some since.
    pub(super) refused: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl Totals {
    /// Counts what is there: one pass over the rows, without their content.
    pub(super) fn count(conn: &Connection, attempts: u64) -> rusqlite::Result<Self> {
        let last_id = conn.query_row(sql::LAST_ID, (), |row| row.get(0))?;
        let mut totals = Self { attempts, last_id, ..Self::default() };
        let mut select =
            conn.prepare("SELECT state, count(*), sum(size) FROM delivery GROUP BY state")?;
        let mut rows = select.query(())?;
        while let Some(row) = rows.next()? {
            let total = &mut totals.states[row.get::<_, Stage>(0)?.state() as usize];
            total.rows += row.get::<_, i64>(1)?.unsigned_abs();
            total.bytes += row.get::<_, i64>(2)?.unsigned_abs();
        }
        Ok(totals)
    }

    pub(super) fn of(&self, state: State) -> Total {
        self.states[state as usize]
    }

    /// How many are pending or leased.
    pub(super) fn active(&self) -> u64 {
        self.of(State::Pending).rows + self.of(State::Leased).rows
    }

    /// What counts against the limit.
    pub(super) fn bytes(&self) -> u64 {
        [State::Pending, State::Leased, State::Dead].iter().map(|state| self.of(*state).bytes).sum()
    }

    pub(super) fn added(&mut self, state: State, size: i64) {
        let total = &mut self.states[state as usize];
        total.rows += 1;
        total.bytes += size.unsigned_abs();
    }

    pub(super) fn removed(&mut self, state: State, size: i64) {
        let total = &mut self.states[state as usize];
        total.rows = total.rows.saturating_sub(1);
        total.bytes = total.bytes.saturating_sub(size.unsigned_abs());
    }

    pub(super) fn moved(&mut self, from: State, to: State, size: i64) {
        self.removed(from, size);
        self.added(to, size);
    }
}

/// What there is room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) max_bytes: u64,
    pub(super) free_floor: u64,
    /// What the file system has, where that can be told.
    pub(super) free: Option<u64>,
}

impl Room {
    /// Whether `growth` more bytes may be stored. What does not grow always may.
    pub(super) fn admit(&self, totals: &mut Totals, growth: i64) -> Result<(), SpoolError> {
        let Ok(growth @ 1..) = u64::try_from(growth) else { return Ok(()) };
        match self.limit(totals.bytes().saturating_add(growth)) {
            None => {
                totals.refused = 0;
                Ok(())
            }
            Some(limit) => {
                totals.refused = growth;
                Err(SpoolErrorKind::Full(limit).into())
            }
        }
    }

    /// The limit for which it takes nothing, or did not take what came last.
    pub(super) fn exhausted(&self, totals: &Totals) -> Option<Limit> {
        self.limit(totals.bytes().saturating_add(totals.refused.max(1)))
    }

    /// The limit that holding `bytes` exceeds.
    pub(super) fn limit(&self, bytes: u64) -> Option<Limit> {
        if bytes > self.max_bytes {
            Some(Limit::Bytes)
        } else if self.is_below_floor() {
            Some(Limit::FreeSpace)
        } else {
            None
        }
    }

    pub(super) fn is_below_floor(&self) -> bool {
        self.free.is_some_and(|free| free < self.free_floor)
    }
}

/// What an ordinary user can still write to the file system of `path`; `None` if that cannot be told.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::statvfs(path).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    #[cfg(not(unix))]
    return None;
}

/// What the files take.
pub(super) fn file_bytes(paths: &[&Path]) -> u64 {
    // Without opening them: closing would end the locks that SQLite has on them.
    paths.iter().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
}

/// What is left after a step of [`tidy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tidied {
    /// Nothing.
    All,
    /// More of the same.
    More,
    /// The log, which somebody reads.
    Log,
}

/// One step of what can wait: the end of the history, free pages, the log.
pub(super) fn tidy(
    conn: &mut Connection,
    totals: &mut Totals,
    config: &SpoolConfig,
    mut now: Option<Timestamp>,
) -> rusqlite::Result<Tidied> {
    let room = config.room(free_bytes(&config.folder));
    // Rather no history than no space.
    let history_bytes = if room.is_below_floor() { 0 } else { config.history_bytes };
    let age = i64::try_from(config.history_age.as_millis()).unwrap_or(i64::MAX);
    let before = now.map(|now| Timestamp::from_millis(now.as_millis().saturating_sub(age)));
    let mut after = totals.clone();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut queue =
        Queue { conn: &tx, totals: &mut after, room: &room, keeps_history: true, now: &mut now };
    let trimmed = queue.trim_history(history_bytes, before, TRIM_AT_MOST)?;
    tx.commit()?;
    *totals = after;
    if trimmed > 0 {
        return Ok(Tidied::More);
    }
    let free: i64 = conn.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if free > KEEP_FREE_PAGES {
        let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_AT_MOST})"))?;
        // One page at each step.
        let mut pages = vacuum.raw_query();
        while pages.next()?.is_some() {}
        return Ok(Tidied::More);
    }
    // Whoever reads just now is not waited for.
    conn.busy_timeout(Duration::ZERO)?;
    let emptied = checkpoint(conn, "TRUNCATE");
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(if emptied? { Tidied::All } else { Tidied::Log })
}

/// Copies the log into the file and syncs that; says whether all of it was.
pub(super) fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<bool> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    conn.query_row(&sql, (), |row| {
        let (busy, log, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == copied)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(max_bytes: u64, free: u64) -> Room {
        Room { max_bytes, free_floor: 1000, free: Some(free) }
    }

    fn admitted(room: Room, held: i64, growth: i64) -> Result<(), SpoolErrorKind> {
        let mut totals = Totals::default();
        totals.added(State::Dead, held);
        totals.added(State::Delivered, 1 << 40);
        room.admit(&mut totals, growth).map_err(|error| error.kind())
    }

    #[test]
    fn it_is_full_as_long_as_there_is_no_room_for_what_was_refused() {
        let mut totals = Totals::default();
        totals.added(State::Pending, 60);
        let room = room(100, 1000);
        assert_eq!(room.exhausted(&totals), None);
        room.admit(&mut totals, 41).unwrap_err();
        assert_eq!(room.exhausted(&totals), Some(Limit::Bytes));
        totals.removed(State::Pending, 1);
        assert_eq!(room.exhausted(&totals), None);
        totals.added(State::Pending, 1);
        room.admit(&mut totals, 40).unwrap();
        assert_eq!(room.exhausted(&totals), None, "there is room for smaller ones");
        totals.added(State::Pending, 40);
        assert_eq!(room.exhausted(&totals), Some(Limit::Bytes));
    }

    #[test]
    fn admission_ends_at_the_byte_limit_and_the_history_does_not_count() {
        let full = Err(SpoolErrorKind::Full(Limit::Bytes));
        assert_eq!(admitted(room(100, 1000), 60, 40), Ok(()));
        assert_eq!(admitted(room(100, 1000), 60, 41), full);
        assert_eq!(admitted(room(100, 1000), 60, i64::MAX), full);
    }

    #[test]
    fn admission_ends_at_the_floor_of_free_space() {
        let full = Err(SpoolErrorKind::Full(Limit::FreeSpace));
        assert_eq!(admitted(room(100, 1000), 0, 1), Ok(()));
        assert_eq!(admitted(room(100, 999), 0, 1), full);
        assert_eq!(admitted(Room { free: None, ..room(100, 0) }, 0, 1), Ok(()));
    }

    #[test]
    fn what_does_not_grow_is_admitted_however_full_it_is() {
        assert_eq!(admitted(room(100, 0), 200, 0), Ok(()));
        assert_eq!(admitted(room(100, 0), 200, -5), Ok(()));
    }

    #[test]
    fn free_space_is_told_of_a_folder_that_is_there_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        #[cfg(unix)]
        assert!(free_bytes(dir.path()).unwrap() > 0);
        assert_eq!(free_bytes(&dir.path().join("missing")), None);
    }
}
