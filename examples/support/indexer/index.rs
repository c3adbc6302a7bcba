//! The full-text index: one row a line, found by any three or more characters in it.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};
use serde_json::{Value, json};

use super::BoxError;
use super::mirror::Mirror;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS repository (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE IF NOT EXISTS line (
        id INTEGER PRIMARY KEY, repository INTEGER NOT NULL REFERENCES repository,
        path TEXT NOT NULL, number INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS line_repository ON line (repository);
    CREATE VIRTUAL TABLE IF NOT EXISTS line_text USING fts5 (text, tokenize = 'trigram');";

/// How long one writer waits for another.
const PATIENCE: Duration = Duration::from_secs(60);

/// Each call opens the file for itself, so that a search never waits for a rebuild.
pub(super) struct Index(PathBuf);

impl Index {
    pub(super) fn open(path: PathBuf) -> Result<Self, BoxError> {
        let index = Self(path);
        index.connect()?.execute_batch(SCHEMA)?;
        Ok(index)
    }

    fn connect(&self) -> Result<Connection, BoxError> {
        let connection = Connection::open(&self.0)?;
        connection.busy_timeout(PATIENCE)?;
        Ok(connection)
    }

    /// The number of the repository with this name, which it keeps.
    pub(super) fn number(&self, name: &str) -> Result<i64, BoxError> {
        let connection = self.connect()?;
        connection.execute("INSERT OR IGNORE INTO repository (name) VALUES (?1)", [name])?;
        let sql = "SELECT id FROM repository WHERE name = ?1";
        Ok(connection.query_row(sql, [name], |row| row.get(0))?)
    }

    /// Puts the lines of the mirror in the place of those that were there, all at once for whoever
    /// searches.
    pub(super) fn rebuild(&self, repository: i64, mirror: Option<&Mirror>) -> Result<(), BoxError> {
        let mut connection = self.connect()?;
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let of_it = "SELECT id FROM line WHERE repository = ?1";
        let sql = format!("DELETE FROM line_text WHERE rowid IN ({of_it})");
        change.execute(&sql, [repository])?;
        change.execute("DELETE FROM line WHERE repository = ?1", [repository])?;
        if let Some(mirror) = mirror {
            let sql = "INSERT INTO line (repository, path, number) VALUES (?1, ?2, ?3)";
            let mut line = change.prepare(sql)?;
            let sql = "INSERT INTO line_text (rowid, text) VALUES (?1, ?2)";
            let mut line_text = change.prepare(sql)?;
            mirror.each_file(|path, text| {
                for (number, text) in (1_i64..).zip(text.lines()) {
                    let id = line.insert(params![repository, path, number])?;
                    line_text.execute(params![id, text])?;
                }
                Ok(())
            })?;
        }
        Ok(change.commit()?)
    }

    /// Lines with this text, in any case of its letters, at most 50.
    pub(super) fn search(&self, query: &str) -> Result<Vec<Value>, BoxError> {
        let connection = self.connect()?;
        let mut select = connection.prepare(
            "SELECT repository.name, line.path, line.number, substr(line_text.text, 1, 500)
             FROM line_text JOIN line ON line.id = line_text.rowid
             JOIN repository ON repository.id = line.repository
             WHERE line_text MATCH ?1 ORDER BY line.id LIMIT 50",
        )?;
        // One phrase, whatever stands in it: quoted, it has no operators.
        let phrase = format!("\"{}\"", query.replace('"', "\"\""));
        let rows = select.query_map([phrase], |row| {
            let (repository, path): (String, String) = (row.get(0)?, row.get(1)?);
            let (number, text): (i64, String) = (row.get(2)?, row.get(3)?);
            Ok(json!({"repository": repository, "path": path, "line": number, "text": text}))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
