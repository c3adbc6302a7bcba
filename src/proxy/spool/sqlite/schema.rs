//! The tables, and how a file comes to have them.
//!
//! The version of the schema is `PRAGMA user_version`: how many of [`MIGRATIONS`] were applied. One is
//! never changed once it was released; what comes later is appended. A file of a newer program is left
//! alone.
//!
//! A delivery and its content are two rows, so that a change of state never writes the body again. What
//! decides how many pages a commit writes is how small the indexes are whose order is not that of time:
//! hence the lanes, numbers that stand for hook and repository. Two that had the same number would wait
//! for each other, and nothing worse.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

/// Says in the file's head whose it is: `HkSp`.
const APPLICATION_ID: i32 = 0x486b_5370;

/// How long a lock of another program that looks at the file is waited for.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// `state`: 0 waits behind an older one of its repository, 1 is ready as soon as it is due, 2 leased,
/// 3 delivered, 4 dead. Of the rows of a repository that are 0, 1 or 2 at least one is not 0.
const MIGRATIONS: &[&str] = &["
CREATE TABLE delivery (
  id             INTEGER PRIMARY KEY,
  hook           TEXT NOT NULL,
  provider       TEXT NOT NULL,
  kind           TEXT NOT NULL,
  event          TEXT,
  repository     TEXT,
  lane           INTEGER,           -- one for each repository of a hook
  refs           TEXT NOT NULL,     -- JSON, an array of strings
  delivery       TEXT NOT NULL,
  key_name       TEXT,
  identity       BLOB,
  coalescing_key TEXT,
  received_at    INTEGER NOT NULL,  -- times are milliseconds since 1970 in UTC
  queued_at      INTEGER NOT NULL,
  due_at         INTEGER NOT NULL,  -- leased: the end of the lease
  state          INTEGER NOT NULL   -- 0 waiting, 1 ready, 2 leased, 3 delivered, 4 dead
                 CHECK (state BETWEEN 0 AND 4),
  attempts       INTEGER NOT NULL DEFAULT 0,
  owner          TEXT,
  lease          INTEGER NOT NULL DEFAULT 0,  -- the number of the last lease
  last_error     TEXT,
  finished_at    INTEGER,
  size           INTEGER NOT NULL
) STRICT;

CREATE TABLE content (
  id      INTEGER PRIMARY KEY,
  headers BLOB NOT NULL,            -- field lines
  length  INTEGER NOT NULL,
  crc     INTEGER NOT NULL,         -- CRC-32 of body
  body    BLOB NOT NULL             -- sqlar_uncompress(body, length)
) STRICT;

-- The last number that was given.
CREATE TABLE counter (last INTEGER NOT NULL) STRICT;
INSERT INTO counter VALUES (0);

CREATE INDEX delivery_waiting ON delivery (lane, id) WHERE state = 0;
CREATE INDEX delivery_head ON delivery (lane, id) WHERE state IN (1, 2);
CREATE INDEX delivery_due ON delivery (hook, due_at, id) WHERE state = 1;
CREATE INDEX delivery_lease ON delivery (due_at) WHERE state = 2;
CREATE UNIQUE INDEX delivery_coalescing ON delivery (hook, coalescing_key)
  WHERE state IN (0, 1) AND coalescing_key IS NOT NULL;
CREATE INDEX delivery_age ON delivery (queued_at) WHERE state IN (0, 1, 2);
CREATE INDEX delivery_history ON delivery (finished_at) WHERE state = 3;
CREATE INDEX delivery_dead ON delivery (state) WHERE state = 4;
"];

/// Why a file was not opened.
#[derive(Debug)]
pub(super) enum SchemaError {
    /// It is of another program.
    Foreign,
    /// It is of a newer hookgate.
    Newer,
    /// What SQLite says.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Opens the file for the writer and brings its schema up to date. The file has to exist.
pub(super) fn open_writer(path: &Path) -> Result<Connection, SchemaError> {
    let mut conn = connect(path)?;
    // Before anything is written: it may not be ours.
    let found = version(&conn, MIGRATIONS)?;
    configure(&conn)?;
    migrate(&mut conn, found, MIGRATIONS)?;
    Ok(conn)
}

/// Opens the file for the reader, after the writer.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path)?;
    configure(&conn)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

/// Writes to the file and syncs it, and changes nothing.
pub(super) fn probe(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "user_version", MIGRATIONS.len() as i64)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Not made here: who makes it says who may read it. No URI: a path is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(64);
    // A connection that is given up because the disk failed must not write when it is closed.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // Or else a statement is compiled anew for each value that could decide whether an index serves it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    Ok(conn)
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    // Only before the first table, and not inside of a transaction.
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "fullfsync", true)?;
    conn.pragma_update(None, "checkpoint_fullfsync", true)?;
    // Its errors would be lost; the writer does it itself.
    conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    conn.pragma_update(None, "temp_store", "MEMORY")
}

/// How many of `migrations` were applied to the file.
fn version(conn: &Connection, migrations: &[&str]) -> Result<usize, SchemaError> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let found: i32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    let is_empty = application == 0 && found == 0 && tables == 0;
    if !is_empty && application != APPLICATION_ID {
        return Err(SchemaError::Foreign);
    }
    match usize::try_from(found) {
        Ok(count) if count <= migrations.len() => Ok(count),
        _ => Err(SchemaError::Newer),
    }
}

fn migrate(conn: &mut Connection, found: usize, migrations: &[&str]) -> rusqlite::Result<()> {
    if found == migrations.len() {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    for step in &migrations[found..] {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", migrations.len() as i64)?;
    tx.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[&str] = &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y; CREATE TABLE b (z)"];

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool.db");
        std::fs::File::create(&path).unwrap();
        (dir, path)
    }

    fn bring_up_to(conn: &mut Connection, migrations: &[&str]) -> Result<(), SchemaError> {
        let found = version(conn, migrations)?;
        Ok(migrate(conn, found, migrations)?)
    }

    #[test]
    fn an_older_file_gets_only_the_steps_that_it_lacks() {
        let (_dir, path) = file();
        let mut conn = connect(&path).unwrap();
        bring_up_to(&mut conn, &TWO[..1]).unwrap();
        conn.execute("INSERT INTO a (x) VALUES (7)", ()).unwrap();
        bring_up_to(&mut conn, TWO).unwrap();
        bring_up_to(&mut conn, TWO).unwrap();
        let row = conn.query_row("SELECT x, y FROM a", (), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
        });
        assert_eq!(row.unwrap(), (7, None));
        conn.execute("INSERT INTO b (z) VALUES (1)", ()).unwrap();
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let (_dir, path) = file();
        let mut conn = connect(&path).unwrap();
        bring_up_to(&mut conn, &TWO[..1]).unwrap();
        let broken = [TWO[0], "CREATE TABLE b (z); CREATE TABLE a (again)"];
        assert!(bring_up_to(&mut conn, &broken).is_err());
        assert!(conn.prepare("SELECT * FROM b").is_err());
        bring_up_to(&mut conn, TWO).unwrap();
    }

    #[test]
    fn a_newer_file_and_one_of_another_program_are_left_alone() {
        let (_dir, path) = file();
        let mut conn = connect(&path).unwrap();
        bring_up_to(&mut conn, TWO).unwrap();
        let newer = bring_up_to(&mut conn, &TWO[..1]);
        assert!(matches!(newer, Err(SchemaError::Newer)), "{newer:?}");
        conn.pragma_update(None, "application_id", 7).unwrap();
        assert!(matches!(bring_up_to(&mut conn, TWO), Err(SchemaError::Foreign)));

        let (_dir, path) = file();
        connect(&path).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(open_writer(&path), Err(SchemaError::Foreign)));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_connection_writes_ahead_syncs_every_commit_and_gives_pages_back() {
        let (_dir, path) = file();
        let conn = open_writer(&path).unwrap();
        let says = |name, expected: &str| {
            let value: rusqlite::types::Value =
                conn.pragma_query_value(None, name, |row| row.get(0)).unwrap();
            assert_eq!(format!("{value:?}"), expected, "{name}");
        };
        says("journal_mode", "Text(\"wal\")");
        says("synchronous", "Integer(2)");
        says("auto_vacuum", "Integer(2)");
        says("wal_autocheckpoint", "Integer(0)");
        let reader = open_reader(&path).unwrap();
        assert!(reader.execute("DELETE FROM delivery", ()).is_err());
        conn.execute("DELETE FROM delivery", ()).unwrap();
    }
}
