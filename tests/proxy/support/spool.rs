//! A look into the spool's file while the program has it open, as an operator could with `sqlite3 -readonly`.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};

/// How many deliveries are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that wait for their time or their turn.
    pub(crate) pending: usize,
    /// Those that are being sent.
    pub(crate) leased: usize,
    /// Those that arrived.
    pub(crate) delivered: usize,
    /// Those that were set aside.
    pub(crate) dead: usize,
}

impl Counts {
    /// Those that are on their way.
    pub(crate) fn active(self) -> usize {
        self.pending + self.leased
    }
}

/// What the spool of this state folder holds.
#[track_caller]
pub(crate) fn counts(state_dir: &Path) -> Counts {
    let sql = "SELECT state, count(*) FROM delivery GROUP BY state";
    let rows =
        select(state_dir, sql, |row| Ok((row.get::<_, u8>(0)?, row.get::<_, u32>(1)? as usize)));
    let mut counts = Counts::default();
    for (state, count) in rows {
        match state {
            0 | 1 => counts.pending += count,
            2 => counts.leased += count,
            3 => counts.delivered += count,
            _ => counts.dead += count,
        }
    }
    counts
}

/// The rows that `sql` finds in the spool of this state folder.
#[track_caller]
pub(crate) fn select<T>(
    state_dir: &Path,
    sql: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let path = state_dir.join("spool/spool.db");
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a file");
    conn.busy_timeout(Duration::from_secs(5)).expect("a connection");
    let mut statement = conn.prepare(sql).expect("our tables");
    let rows = statement.query_map((), read).expect("rows");
    rows.collect::<rusqlite::Result<_>>().expect("rows")
}
