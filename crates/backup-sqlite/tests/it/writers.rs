//! Backups beside writers that never stop. FAULTS 49.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use backup_sqlite::{SqliteStore, rusqlite::Connection};

use crate::{
    fixture::Place,
    kit::{restore, rows, take},
};

const ACCOUNTS: i64 = 2_000;

// Moves money about as fast as it can; the sum stays.
fn hammer(path: &Path, stop: &AtomicBool, moves: &AtomicU64) {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
    let mut seed = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (from, to) = ((seed >> 33) as i64 % ACCOUNTS, (seed >> 13) as i64 % ACCOUNTS);
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 UPDATE accounts SET sum = sum - 1 WHERE id = {from};
                 UPDATE accounts SET sum = sum + 1 WHERE id = {to};
                 COMMIT"
            ))
            .unwrap();
        moves.fetch_add(1, Ordering::Relaxed);
    }
}

fn under_fire(mode: &str, form: fn(SqliteStore) -> SqliteStore) {
    let place = Place::with(&format!(
        "PRAGMA journal_mode = {mode};
         CREATE TABLE accounts(id INTEGER PRIMARY KEY, sum INTEGER, filler);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS} - 1)
         INSERT INTO accounts SELECT i, 100, randomblob(2000) FROM n;"
    ));
    let (stop, moves) = (AtomicBool::new(false), AtomicU64::new(0));
    let taken: Vec<_> = thread::scope(|scope| {
        let writer = scope.spawn(|| hammer(&place.path, &stop, &moves));
        while moves.load(Ordering::Relaxed) < 10 {
            assert!(!writer.is_finished());
            thread::yield_now();
        }
        let begun = Instant::now();
        let store = form(place.store().busy_timeout(Duration::from_secs(20)));
        let taken = (0..3).map(|_| take(&store)).collect();
        stop.store(true, Ordering::Relaxed);
        // Not kept from its end by the writer, who went on meanwhile.
        assert!(begun.elapsed() < Duration::from_secs(60));
        taken
    });
    assert!(moves.load(Ordering::Relaxed) > 10, "the writer stood still");
    for taken in taken {
        let other = Place::new();
        restore(&form(other.store()), &taken.unwrap()).unwrap();
        let sum = rows(&other.run(""), "SELECT sum(sum) FROM accounts");
        assert_eq!(sum, [format!("Integer({})", ACCOUNTS * 100)], "one moment, not several");
    }
}

#[test]
fn a_writer_in_wal_mode_disturbs_no_backup() {
    under_fire("WAL", SqliteStore::native);
    under_fire("WAL", SqliteStore::logical);
}

#[test]
fn a_writer_in_rollback_mode_disturbs_no_backup() {
    under_fire("DELETE", SqliteStore::native);
    under_fire("DELETE", SqliteStore::logical);
}
