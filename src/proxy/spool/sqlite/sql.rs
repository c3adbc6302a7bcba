//! The statements of the writer and the reader.
//!
//! `state` is 0 waiting, 1 ready, 2 leased, 3 delivered, 4 dead. Conditions on it are written exactly as
//! in the index that serves them: SQLite uses a partial index only if it sees that its condition holds.

/// The columns of [`Held`](super::rows::Held).
macro_rules! held {
    () => {
        "id, hook, lane, coalescing_key, state, received_at, queued_at, attempts, size"
    };
}

/// The columns of [`RawEntry`](super::codec::RawEntry).
macro_rules! entry {
    () => {
        "delivery.id, hook, provider, kind, event, repository, refs, delivery, key_name, \
         identity, coalescing_key, received_at, queued_at, due_at, state, attempts, owner, \
         last_error, finished_at, size"
    };
}

/// The columns of [`RawContent`](super::codec::RawContent), behind those of the entry.
macro_rules! stored {
    () => {
        concat!(entry!(), ", headers, length, crc, body")
    };
}

/// The rows with their content; without one if that is lost.
macro_rules! with_content {
    () => {
        "delivery LEFT JOIN content ON content.id = delivery.id"
    };
}

/// Without the rows of a selection that are of no interest: `?2` hook, `?3` repository, `?4` came before,
/// `?5` the states, one bit each. `?6` of them at most.
macro_rules! selected {
    () => {
        " AND (?5 >> state) & 1 AND (?2 IS NULL OR hook = ?2) \
         AND (?3 IS NULL OR repository = ?3) AND (?4 IS NULL OR received_at < ?4) \
         ORDER BY delivery.id LIMIT ?6"
    };
}

/// The three ways to go through a selection, each from (or at) `?1`.
macro_rules! select {
    ($columns:expr, $from:expr) => {
        Select {
            all: concat!(
                "SELECT ",
                $columns,
                " FROM ",
                $from,
                " WHERE delivery.id > ?1",
                selected!()
            ),
            dead: concat!(
                "SELECT ",
                $columns,
                " FROM ",
                $from,
                " WHERE delivery.id > ?1 AND state = 4",
                selected!()
            ),
            one: concat!(
                "SELECT ",
                $columns,
                " FROM ",
                $from,
                " WHERE delivery.id = ?1",
                selected!()
            ),
        }
    };
}

/// What reads a selection.
pub(super) struct Select {
    /// Reads past what is of no interest.
    pub(super) all: &'static str,
    /// If only dead ones are meant, of which there is an index.
    pub(super) dead: &'static str,
    /// A single one.
    pub(super) one: &'static str,
}

pub(super) const SELECT_ENTRIES: Select = select!(entry!(), "delivery");
pub(super) const SELECT_STORED: Select = select!(stored!(), with_content!());
pub(super) const SELECT_IDS: Select = select!("id, size", "delivery");

pub(super) const STORED: &str =
    concat!("SELECT ", stored!(), " FROM ", with_content!(), " WHERE delivery.id = ?1");

pub(super) const ROW: &str = concat!("SELECT ", held!(), " FROM delivery WHERE id = ?1");

pub(super) const ROW_OF_LEASE: &str = concat!(
    "SELECT ",
    held!(),
    " FROM delivery WHERE id = ?1 AND state = 2 AND owner = ?2 AND lease = ?3"
);

pub(super) const ROWS_OF_OWNER: &str =
    concat!("SELECT ", held!(), " FROM delivery WHERE state = 2 AND owner = ?1");

pub(super) const ENDED_LEASES: &str = concat!(
    "SELECT ",
    held!(),
    ", due_at FROM delivery WHERE state = 2 AND due_at <= ?1 ORDER BY due_at LIMIT ?2"
);

pub(super) const PENDING_WITH_KEY: &str = concat!(
    "SELECT ",
    held!(),
    " FROM delivery WHERE hook = ?1 AND coalescing_key = ?2 \
     AND state IN (0, 1) AND coalescing_key IS NOT NULL"
);

pub(super) const OLDEST_OF_HISTORY: &str = concat!(
    "SELECT ",
    held!(),
    ", finished_at FROM delivery WHERE state = 3 ORDER BY finished_at LIMIT 1"
);

pub(super) const YOUNGEST_WAITING: &str = "SELECT id, identity FROM delivery \
    WHERE lane = ?1 AND state = 0 ORDER BY id DESC LIMIT 1";

pub(super) const YOUNGEST_HEAD: &str = "SELECT id, identity FROM delivery \
    WHERE lane = ?1 AND state IN (1, 2) ORDER BY id DESC LIMIT 1";

/// Among those that wait, are ready or leased there is always one that does not wait.
pub(super) const HAS_PENDING: &str =
    "SELECT 1 FROM delivery WHERE lane = ?1 AND state IN (1, 2) LIMIT 1";

pub(super) const DUE: &str = "SELECT due_at, id, size FROM delivery \
    WHERE hook = ?1 AND state = 1 AND due_at <= ?2 ORDER BY due_at, id LIMIT ?3";

pub(super) const NEXT_DUE: &str =
    "SELECT due_at FROM delivery WHERE hook = ?1 AND state = 1 ORDER BY due_at, id LIMIT 1";

pub(super) const NEXT_LEASE_END: &str =
    "SELECT due_at FROM delivery WHERE state = 2 ORDER BY due_at LIMIT 1";

pub(super) const OLDEST: &str =
    "SELECT queued_at FROM delivery WHERE state IN (0, 1, 2) ORDER BY queued_at LIMIT 1";

pub(super) const INSERT: &str = "INSERT INTO delivery (id, hook, provider, kind, event, repository, \
    lane, refs, delivery, key_name, identity, coalescing_key, received_at, queued_at, due_at, state, \
    owner, attempts, lease, size) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, \
    ?13, ?14, ?15, ?16, ?17, ?17, ?18)";

pub(super) const INSERT_CONTENT: &str =
    "INSERT INTO content (id, headers, length, crc, body) VALUES (?1, ?2, ?3, ?4, ?5)";

pub(super) const REPLACE: &str = "UPDATE delivery SET provider = ?2, kind = ?3, event = ?4, \
    refs = ?5, delivery = ?6, key_name = ?7, identity = ?8, received_at = ?9, size = ?10 WHERE id = ?1";

pub(super) const REPLACE_CONTENT: &str =
    "UPDATE content SET headers = ?2, length = ?3, crc = ?4, body = ?5 WHERE id = ?1";

pub(super) const LEASE: &str = "UPDATE delivery SET state = 2, owner = ?2, due_at = ?3, \
    lease = lease + 1, attempts = attempts + 1 WHERE id = ?1 RETURNING lease";

pub(super) const SET_DUE: &str = "UPDATE delivery SET due_at = ?2 WHERE id = ?1";

pub(super) const GIVE_BACK: &str = "UPDATE delivery SET state = ?2, owner = NULL, due_at = ?3, \
    queued_at = ?4, last_error = ?5 WHERE id = ?1";

/// How long the key waits, and that it was tried.
pub(super) const INHERIT: &str = "UPDATE delivery SET queued_at = min(queued_at, ?2), \
    due_at = max(due_at, ?3), attempts = max(attempts, ?4), last_error = ?5 WHERE id = ?1";

pub(super) const FINISH: &str = "UPDATE delivery SET state = ?2, owner = NULL, last_error = ?3, \
    finished_at = ?4 WHERE id = ?1";

pub(super) const SEND_AGAIN: &str = "UPDATE delivery SET state = ?3, due_at = ?2, queued_at = ?2, \
    attempts = 0, coalescing_key = NULL, last_error = NULL, finished_at = NULL WHERE id = ?1";

pub(super) const DELETE: &str = "DELETE FROM delivery WHERE id = ?1";

pub(super) const DELETE_CONTENT: &str = "DELETE FROM content WHERE id = ?1";

pub(super) const TAKE_TURN: &str = "UPDATE delivery SET state = 0 \
    WHERE lane = ?1 AND state IN (1, 2) AND state = 1";

pub(super) const GIVE_TURN: &str = "UPDATE delivery SET state = 1 WHERE id = (\
      SELECT id FROM delivery WHERE lane = ?1 AND state = 0 ORDER BY id LIMIT 1) \
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE lane = ?1 AND state IN (1, 2))";

pub(super) const LAST_ID: &str =
    "SELECT max(last, (SELECT ifnull(max(id), 0) FROM delivery)) FROM counter";

pub(super) const SET_LAST_ID: &str = "UPDATE counter SET last = ?1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::spool::sqlite::schema::open_writer;

    /// How SQLite will go about it.
    fn plan(conn: &rusqlite::Connection, sql: &str) -> Vec<String> {
        let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        explain.raw_query().mapped(|row| row.get("detail")).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn no_statement_reads_through_all_rows_or_sorts_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let conn = open_writer(file.path()).unwrap();
        let statements = [
            STORED,
            ROW,
            ROW_OF_LEASE,
            ENDED_LEASES,
            PENDING_WITH_KEY,
            HAS_PENDING,
            YOUNGEST_WAITING,
            YOUNGEST_HEAD,
            DUE,
            NEXT_DUE,
            INSERT,
            INSERT_CONTENT,
            REPLACE,
            REPLACE_CONTENT,
            LEASE,
            SET_DUE,
            GIVE_BACK,
            INHERIT,
            FINISH,
            SEND_AGAIN,
            DELETE,
            DELETE_CONTENT,
            TAKE_TURN,
            GIVE_TURN,
            SELECT_ENTRIES.all,
            SELECT_ENTRIES.dead,
            SELECT_ENTRIES.one,
            SELECT_STORED.all,
            SELECT_STORED.dead,
            SELECT_STORED.one,
            SELECT_IDS.all,
            SELECT_IDS.dead,
            SELECT_IDS.one,
        ];
        for sql in statements {
            let plan = plan(&conn, sql);
            let is_slow = |step: &String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
            assert!(!plan.iter().any(is_slow), "{sql}: {plan:?}");
        }
        for sql in [SELECT_ENTRIES.dead, SELECT_STORED.dead, SELECT_IDS.dead] {
            assert!(plan(&conn, sql)[0].contains("delivery_dead"), "{sql}: {:?}", plan(&conn, sql));
        }
        // These read an index from its beginning, and stop at the first row or have only what is leased.
        for (sql, index) in [
            (ROWS_OF_OWNER, "delivery_lease"),
            (NEXT_LEASE_END, "delivery_lease"),
            (OLDEST, "delivery_age"),
            (OLDEST_OF_HISTORY, "delivery_history"),
        ] {
            let plan = plan(&conn, sql);
            assert!(plan.len() == 1 && plan[0].contains(index), "{sql}: {plan:?}");
        }
    }
}
