use backup_core::{Adapter, ErrorKind, PinRequest, Sink, StagePlan, WriteMode};
use backup_sqlite::rusqlite::Connection;
use futures::executor::block_on;

use crate::{
    fixture::{Place, RICH, hostile},
    kit::{dump, names, restore, rows, take, take_with},
};

fn round_trip(place: &Place) {
    let before = dump(&place.path);
    let taken = take(&place.store()).unwrap();
    // Into a place where there is nothing.
    let other = Place::new();
    restore(&other.store(), &taken).unwrap();
    assert_eq!(dump(&other.path), before);
    // And over what was changed since.
    place.run("CREATE TABLE since(a); INSERT INTO since VALUES (1)").close().unwrap();
    restore(&place.store(), &taken).unwrap();
    assert_eq!(dump(&place.path), before);
    let left: Vec<_> = names(place.dir()).into_iter().filter(|n| n.contains("restore")).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn everything_comes_back() {
    round_trip(&Place::with(RICH));
}

#[test]
fn everything_comes_back_in_wal_mode() {
    let place = Place::with("PRAGMA journal_mode = WAL;");
    place.run(RICH);
    round_trip(&place);
}

#[test]
fn names_are_names() {
    let place = Place::new();
    hostile(&place);
    round_trip(&place);
}

#[test]
fn an_empty_file_and_an_empty_database_come_back() {
    let place = Place::new();
    std::fs::write(&place.path, b"").unwrap();
    round_trip(&place);
    round_trip(&Place::with("CREATE TABLE t(a); DROP TABLE t; VACUUM;"));
}

#[test]
fn encodings_and_page_sizes_are_kept() {
    for settings in [
        "PRAGMA encoding = 'UTF-16le'; PRAGMA page_size = 512; PRAGMA auto_vacuum = FULL;",
        "PRAGMA encoding = 'UTF-16be'; PRAGMA page_size = 65536; PRAGMA auto_vacuum = INCREMENTAL;",
    ] {
        let place = Place::with(settings);
        place.run("CREATE TABLE t(a); INSERT INTO t VALUES ('é'), (zeroblob(100000)); DELETE FROM t WHERE a <> 'é';");
        round_trip(&place);
        let taken = take(&place.store()).unwrap();
        let other = Place::new();
        restore(&other.store(), &taken).unwrap();
        for pragma in ["PRAGMA page_size", "PRAGMA auto_vacuum", "PRAGMA freelist_count"] {
            let connection = Connection::open(&place.path).unwrap();
            assert_eq!(rows(&connection, pragma), rows(&other.run(""), pragma), "{pragma}");
        }
    }
}

// FAULTS 48: what stands in the log alone is in the backup.
#[test]
fn a_log_that_was_never_written_back_is_part_of_the_backup() {
    let place = Place::new();
    let writer = place.run(
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
         CREATE TABLE t(a); INSERT INTO t VALUES ('in the log');",
    );
    assert!(std::fs::metadata(&place.path).unwrap().len() <= 4096);
    let taken = take(&place.store()).unwrap();
    // The backup wrote nothing back, although that is allowed.
    assert!(std::fs::metadata(&place.path).unwrap().len() <= 4096);
    drop(writer);
    let other = Place::new();
    restore(&other.store(), &taken).unwrap();
    assert_eq!(rows(&other.run(""), "SELECT * FROM t"), rows(&place.run(""), "SELECT * FROM t"));
}

#[test]
fn the_journal_mode_of_the_target_stays() {
    let wal = Place::with("PRAGMA journal_mode = WAL; CREATE TABLE t(a);");
    let rollback = Place::with("CREATE TABLE u(b);");
    let (of_wal, of_rollback) = (take(&wal.store()).unwrap(), take(&rollback.store()).unwrap());
    let mode = |place: &Place| rows(&place.run(""), "PRAGMA journal_mode").join("");
    restore(&rollback.store(), &of_wal).unwrap();
    restore(&wal.store(), &of_rollback).unwrap();
    assert!(mode(&rollback).contains("delete") && mode(&wal).contains("wal"));
    // A new database gets the mode that it had.
    let new = Place::new();
    restore(&new.store(), &of_wal).unwrap();
    assert!(mode(&new).contains("wal"));
}

#[test]
fn a_target_in_wal_mode_gets_its_own_page_size() {
    let source = Place::with(&format!("PRAGMA page_size = 1024; {RICH}"));
    let before = dump(&source.path);
    let taken = take(&source.store()).unwrap();
    let target =
        Place::with("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; CREATE TABLE t(a);");
    let open = target.run("SELECT 1 FROM t");
    restore(&target.store(), &taken).unwrap();
    assert_eq!(rows(&open, "SELECT count(*) FROM plain"), ["Integer(14)"]);
    assert_eq!(rows(&open, "PRAGMA page_size"), ["Integer(8192)"]);
    assert_eq!(dump(&target.path), before);
    // In rollback mode the image is taken as it is.
    let target = Place::with("PRAGMA page_size = 8192; CREATE TABLE t(a);");
    let open = target.run("SELECT 1 FROM t");
    restore(&target.store(), &taken).unwrap();
    assert_eq!(rows(&open, "SELECT count(*) FROM plain"), ["Integer(14)"]);
    assert_eq!(dump(&target.path), before);
}

#[test]
fn the_manifest_learns_tables_and_counts() {
    let place = Place::with(RICH);
    let taken = take(&place.store()).unwrap();
    let tables = &taken.summary.metadata["tables"];
    assert_eq!(tables["plain"], 14);
    assert_eq!(tables["own"], 2);
    assert!(tables.get("own_data").is_none());
    assert_eq!(taken.summary.metadata["user_version"], 42);
    let description = block_on(place.store().describe()).unwrap();
    assert_eq!(description.engine, "SQLite");
    let plain = description.collections.iter().find(|c| c.name == "plain").unwrap();
    assert_eq!(plain.records, Some(14));
}

#[test]
fn temporary_copies_are_removed() {
    let place = Place::with(RICH);
    let temporary = tempfile::tempdir().unwrap();
    let store = place.store().temp_dir(temporary.path());
    let request = PinRequest::new();
    take_with(&store, &request, || ()).unwrap();
    assert_eq!(names(temporary.path()), Vec::<String>::new());
    request.cancel.cancel();
    let error = take_with(&store, &request, || ()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(names(temporary.path()), Vec::<String>::new());
}

#[test]
fn what_the_native_form_cannot_do_is_refused_first() {
    let place = Place::with(RICH);
    let mut request = PinRequest::new();
    request.collections = vec!["plain".into()];
    let error = take_with(&place.store(), &request, || ()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let mut plan = StagePlan::new("r", "state", "sqlite");
    plan.mode = WriteMode::Merge;
    plan.content = take(&place.store()).unwrap().content;
    let error = block_on(place.store().prepare(&plan)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
