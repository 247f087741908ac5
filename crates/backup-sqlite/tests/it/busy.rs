//! Others hold the database. FAULTS 49, 53.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use backup_core::{ErrorKind, Reattached, Sink, WriteMode};
use backup_sqlite::rusqlite::Connection;
use futures::executor::block_on;

use crate::{
    fixture::Place,
    kit::{Taken, rows, stage, stage_to, take},
};

const WAIT: Duration = Duration::from_millis(300);
// Several waits may come one after the other, on a slow machine.
const BOUND: Duration = Duration::from_secs(10);

fn old(mode: &str) -> Place {
    Place::with(&format!(
        "PRAGMA journal_mode = {mode}; CREATE TABLE t(a); INSERT INTO t VALUES ('old');"
    ))
}

fn new() -> Taken {
    new_for(WriteMode::Replace)
}

fn new_for(mode: WriteMode) -> Taken {
    let place = Place::with("CREATE TABLE t(a); INSERT INTO t VALUES ('new');");
    let store = place.store();
    take(&if mode == WriteMode::Merge { store.logical() } else { store }).unwrap()
}

const BOTH: [WriteMode; 2] = [WriteMode::Replace, WriteMode::Merge];

const READ: &str = "SELECT a FROM t";

#[test]
fn a_writer_that_never_ends_gives_a_backup_a_bounded_error() {
    let place = old("DELETE");
    let writer = place.run("BEGIN EXCLUSIVE;");
    for store in [place.store(), place.store().logical()] {
        let begun = Instant::now();
        let error = take(&store.busy_timeout(WAIT)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        assert!(error.is_retryable() && error.advice().contains("WAL"), "{}", error.report());
        assert!(begun.elapsed() >= WAIT && begun.elapsed() < BOUND);
    }
    drop(writer);
    take(&place.store()).unwrap();
}

#[test]
fn a_reader_that_never_ends_gives_a_restore_a_bounded_error() {
    for write in BOTH {
        let place = old("DELETE");
        let store = place.store().busy_timeout(WAIT);
        let (token, session) = stage_to(&store, &new_for(write), write).unwrap();
        let reader = place.run("BEGIN; SELECT * FROM t;");
        let begun = Instant::now();
        let error = block_on(session.commit()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        assert!(begun.elapsed() >= WAIT && begun.elapsed() < BOUND);
        // Nothing happened, to anybody.
        assert_eq!(rows(&reader, READ), ["Text(old)"]);
        assert_eq!(rows(&place.run(""), READ), ["Text(old)"]);
        assert!(matches!(block_on(store.reattach(&token)).unwrap(), Reattached::Staged(_)));
        reader.execute_batch("COMMIT").unwrap();
        block_on(session.commit()).unwrap();
        assert_eq!(rows(&reader, READ), ["Text(new)"]);
        block_on(session.finish()).unwrap();
    }
}

#[test]
fn in_wal_mode_a_reader_keeps_its_moment_and_a_writer_is_waited_for() {
    let place = old("WAL");
    let store = place.store().busy_timeout(WAIT);
    let (_, session) = stage(&store, &new()).unwrap();
    let writer = place.run("BEGIN IMMEDIATE; INSERT INTO t VALUES ('under way');");
    let begun = Instant::now();
    let error = block_on(session.commit()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(begun.elapsed() < BOUND);
    writer.execute_batch("COMMIT").unwrap();
    let reader = place.run("BEGIN; SELECT * FROM t;");
    block_on(session.commit()).unwrap();
    assert_eq!(rows(&reader, READ), ["Text(old)", "Text(under way)"]);
    assert_eq!(rows(&writer, READ), ["Text(new)"]);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(rows(&reader, READ), ["Text(new)"]);
    // What was written between staging and the switch is in the pre-image.
    block_on(session.undo()).unwrap();
    assert_eq!(rows(&reader, READ), ["Text(old)", "Text(under way)"]);
    block_on(session.finish()).unwrap();
}

// Writes by row number until told to stop; returns what was acknowledged.
fn write_on(connection: &Connection, stop: &AtomicBool) -> Vec<i64> {
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    let mut done = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = done.len() as i64;
        connection.execute("INSERT INTO t VALUES (?1)", [number]).unwrap();
        done.push(number);
        // SQLite's locks are not fair: without a pause nobody else would get one.
        thread::sleep(Duration::from_millis(1));
    }
    done
}

#[test]
fn no_write_falls_between_the_pre_image_and_the_switch() {
    for mode in ["DELETE", "WAL"] {
        let place = old(mode);
        let store = place.store().busy_timeout(Duration::from_secs(20));
        let (_, session) = stage(&store, &new()).unwrap();
        let stop = AtomicBool::new(false);
        let written = thread::scope(|scope| {
            let writer = scope.spawn(|| write_on(&place.run(""), &stop));
            thread::sleep(Duration::from_millis(50));
            let committed = block_on(session.commit());
            thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
            committed.unwrap();
            writer.join().unwrap()
        });
        let numbers = "SELECT a FROM t WHERE typeof(a) = 'integer' ORDER BY a";
        let after = rows(&place.run(""), numbers);
        block_on(session.undo()).unwrap();
        let before = rows(&place.run(""), numbers);
        block_on(session.finish()).unwrap();
        assert!(!before.is_empty() && !after.is_empty(), "{mode}: writes on both sides");
        let all: Vec<_> = written.iter().map(|n| format!("Integer({n})")).collect();
        assert_eq!([before, after].concat(), all, "{mode}: each write is on one side");
    }
}

#[test]
fn no_write_falls_between_the_pre_image_of_a_merge_and_the_switch() {
    for mode in ["DELETE", "WAL"] {
        let place = old(mode);
        let store = place.store().busy_timeout(Duration::from_secs(20));
        let write = WriteMode::Merge;
        let (_, session) = stage_to(&store, &new_for(write), write).unwrap();
        let stop = AtomicBool::new(false);
        let written = thread::scope(|scope| {
            let writer = scope.spawn(|| write_on(&place.run(""), &stop));
            thread::sleep(Duration::from_millis(50));
            let committed = block_on(session.commit());
            thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
            committed.unwrap();
            writer.join().unwrap()
        });
        let all: Vec<_> = written.iter().map(|n| format!("Integer({n})")).collect();
        let numbers = "SELECT a FROM t WHERE typeof(a) = 'integer' ORDER BY a";
        assert_eq!(rows(&place.run(""), numbers), all, "{mode}: none is lost");
        block_on(session.undo()).unwrap();
        let before = rows(&place.run(""), numbers);
        block_on(session.finish()).unwrap();
        assert!(!before.is_empty() && before.len() < all.len(), "{mode}: writes on both sides");
        assert_eq!(before, all[..before.len()]);
    }
}
