//! What happens when the file fails.

use std::fs;

use rusqlite::Connection;

use super::*;

fn overwrite(file: &Path, offset: u64, bytes: &[u8]) {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Makes the writer meet an error of SQLite's.
async fn fault(bed: &Bed, code: i32) -> SpoolError {
    let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    let failing = bed.spool.write(move |_: &mut Queue<'_>| -> Answer<()> { Err(error) });
    failing.await.unwrap_err()
}

#[tokio::test]
async fn an_error_fails_all_that_was_written_with_it_and_the_spool_recovers() {
    let bed = Bed::new();
    let kept = bed.append(push("github.com/acme/a", 1)).await;
    let (fails, with_it) = tokio::join!(
        fault(&bed, rusqlite::ffi::SQLITE_IOERR),
        bed.spool.append(push("github.com/acme/b", 2))
    );
    assert_eq!(fails.kind(), SpoolErrorKind::Failed);
    assert_eq!(kind(with_it), SpoolErrorKind::Failed);
    bed.until(|status| status.health == Health::Open).await;
    assert_eq!(bed.status().await.pending, 1);
    assert_eq!(bed.due(3).await, [kept]);
    bed.append(push("github.com/acme/b", 4)).await;
}

#[tokio::test]
async fn a_full_disk_is_an_error_until_there_is_space_again() {
    let bed = Bed::new();
    let kept = bed.append(push("github.com/acme/a", 1)).await;
    let no_space = bed.spool.write(|queue: &mut Queue<'_>| {
        let pages: i64 = queue.conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
        queue.conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(Ok(())))
    });
    no_space.await.unwrap();
    let mut large = push("github.com/acme/b", 2);
    large.content.body = vec![b'x'; 16 << 10].into();
    let refused = bed.spool.append(large.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), SpoolErrorKind::Failed);
    assert!(refused.to_string().contains("full"), "{refused}");
    bed.until(|status| status.health == Health::Open).await;
    bed.append(large).await;
    assert_eq!(bed.due(3).await[0], kept);
}

#[tokio::test]
async fn a_spool_that_cannot_be_opened_again_says_so_until_it_can() {
    let bed = Bed::new();
    let kept = bed.append(push("github.com/acme/a", 1)).await;
    let away = bed.dir.path().join("away");
    fs::rename(bed.file(), &away).unwrap();
    fault(&bed, rusqlite::ffi::SQLITE_IOERR).await;
    let failed = |status: &Status| matches!(status.health, Health::Failed(_));
    let status = bed.until(failed).await;
    assert_eq!(status.pending, 1, "what was last known");
    let refused = bed.spool.append(push("github.com/acme/b", 2)).await;
    assert_eq!(kind(refused), SpoolErrorKind::Failed);
    assert_eq!(kind(bed.spool.show(kept).await), SpoolErrorKind::Failed);
    bed.until(|status| matches!(&status.health, Health::Failed(why) if why.contains("open"))).await;
    assert!(!bed.file().exists(), "none is made in the place of one that may come back");

    fs::rename(&away, bed.file()).unwrap();
    let status = bed.until(|status| status.health == Health::Open).await;
    assert_eq!(status.set_aside, [""; 0]);
    assert_eq!(bed.due(3).await, [kept]);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_at_the_start_and_a_new_one_begun() {
    let bed = Bed::new();
    bed.append(push("github.com/acme/a", 1)).await;
    bed.spool.close().await;
    fs::write(bed.file(), "this is no database, however long one looks at it").unwrap();
    let bed = bed.reopen().await;
    let status = bed.status().await;
    assert_eq!((status.health, status.pending), (Health::Open, 0));
    assert_eq!(status.set_aside, ["spool.db.damaged-1"]);
    let aside = bed.dir.path().join("spool").join(&status.set_aside[0]);
    assert!(fs::read_to_string(aside).unwrap().starts_with("this is no database"));
    bed.append(push("github.com/acme/b", 2)).await;
    let bed = bed.reopen().await;
    assert_eq!(bed.status().await.set_aside, [""; 0], "that was the last time");
}

#[tokio::test]
async fn damage_that_is_met_later_is_set_aside_too() {
    let bed = Bed::new();
    for n in 0..50 {
        let mut record = push(&format!("github.com/acme/{n}"), n);
        record.content.body = vec![b'x'; 4 << 10].into();
        bed.append(record).await;
    }
    bed.spool.close().await;
    let root: u32 = Connection::open(bed.file())
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'delivery_due'", (), |row| {
            row.get(0)
        })
        .unwrap();
    overwrite(&bed.file(), u64::from(root - 1) * 4096, &[0xa5; 4096]);
    let bed = bed.reopen().await;
    assert_eq!(bed.status().await.set_aside, [""; 0]);
    let mut request = LeaseRequest::new("worker", &["hook"], at(100), at(200));
    request.limit = 50;
    assert_eq!(kind(bed.spool.lease(request).await), SpoolErrorKind::Failed);
    let status = bed.until(|status| status.health == Health::Open).await;
    assert_eq!((status.set_aside.len(), status.pending), (1, 0), "{status:?}");
    bed.append(push("github.com/acme/a", 1)).await;
}

#[tokio::test]
async fn a_file_that_only_seemed_damaged_is_kept_unless_it_seems_so_again() {
    let bed = Bed::new();
    let kept = bed.append(push("github.com/acme/a", 1)).await;
    fault(&bed, rusqlite::ffi::SQLITE_CORRUPT).await;
    let status = bed.until(|status| status.health == Health::Open).await;
    assert_eq!(status.set_aside, [""; 0]);
    assert_eq!(bed.due(2).await, [kept]);
    fault(&bed, rusqlite::ffi::SQLITE_CORRUPT).await;
    let status = bed.until(|status| status.health == Health::Open).await;
    assert_eq!((status.set_aside.len(), status.pending), (1, 0));
}

#[tokio::test]
async fn an_error_that_the_reader_meets_is_told_to_the_writer() {
    let bed = Bed::new();
    bed.append(push("github.com/acme/a", 1)).await;
    // The writer may hear of the second before it has recovered from the first: then it is the same failure.
    let deadline = Instant::now() + Duration::from_secs(20);
    while bed.status().await.set_aside.is_empty() {
        assert!(Instant::now() < deadline, "{:?}", bed.status().await);
        let read = bed.spool.read(|_| -> rusqlite::Result<Result<(), SpoolError>> {
            let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
            Err(rusqlite::Error::SqliteFailure(error, None))
        });
        assert_eq!(kind(read.await), SpoolErrorKind::Failed);
        bed.until(|status| status.health == Health::Open).await;
    }
    bed.until(|status| !status.set_aside.is_empty() && status.health == Health::Open).await;
}

#[tokio::test]
async fn a_newer_and_a_foreign_file_are_left_as_they_are() {
    let bed = Bed::new();
    bed.spool.close().await;
    let change = |sql: &str| Connection::open(bed.file()).unwrap().execute_batch(sql).unwrap();
    change("PRAGMA user_version = 99");
    let newer = SqliteSpool::open(bed.config.clone()).unwrap_err();
    assert_eq!(newer.kind(), OpenErrorKind::Newer);
    change("PRAGMA application_id = 99");
    let before = fs::read(bed.file()).unwrap();
    let foreign = SqliteSpool::open(bed.config.clone()).unwrap_err();
    assert_eq!(foreign.kind(), OpenErrorKind::Foreign);
    assert_eq!(fs::read(bed.file()).unwrap(), before);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("spool"), "a file").unwrap();
    let error = SqliteSpool::open(config(dir.path())).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Io);
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_delivery_that_this_version_cannot_read_is_a_dead_letter_and_blocks_nothing() {
    let bed = Bed::new();
    let unknown = bed.append(push("github.com/acme/a", 1)).await;
    let next = bed.append(push("github.com/acme/a", 2)).await;
    bed.spool.close().await;
    let conn = Connection::open(bed.file()).unwrap();
    conn.execute("UPDATE delivery SET provider = 'later' WHERE id = ?1", (unknown.get(),)).unwrap();
    drop(conn);
    let bed = bed.reopen().await;
    assert_eq!(bed.due(3).await, []);
    assert_eq!(bed.due(3).await, [next]);
    assert_eq!(kind(bed.spool.show(unknown).await), SpoolErrorKind::Unreadable);
    let status = bed.status().await;
    assert_eq!((status.dead, status.leased), (1, 1));
    let purged = bed.spool.purge(Selection::of_state(State::Dead), Page::default()).await;
    assert_eq!(purged.unwrap().items, [unknown]);
}

#[tokio::test]
async fn a_body_that_is_not_what_was_stored_is_never_sent() {
    let bed = Bed::new();
    let mut ids = Vec::new();
    for (n, byte) in [b'x', b'y', b'z'].into_iter().enumerate() {
        let mut record = push(&format!("github.com/acme/{n}"), 1);
        record.content.body = vec![byte; 16 << 10].into();
        ids.push(bed.append(record).await);
    }
    bed.spool.close().await;
    let bytes = fs::read(bed.file()).unwrap();
    let inside = bytes.windows(64).position(|window| window == [b'x'; 64]).unwrap();
    overwrite(&bed.file(), inside as u64, b"X");
    let conn = Connection::open(bed.file()).unwrap();
    conn.execute("DELETE FROM content WHERE id = ?1", (ids[1].get(),)).unwrap();
    drop(conn);
    let bed = bed.reopen().await;
    assert_eq!(bed.due(2).await, [ids[2]]);
    let dead = bed.spool.list(Selection::of_state(State::Dead), Page::default()).await.unwrap();
    let dead: Vec<_> = dead.items.iter().map(|entry| entry.id).collect();
    assert_eq!(dead, ids[..2]);
    assert_eq!(kind(bed.spool.show(ids[0]).await), SpoolErrorKind::Unreadable);
}
