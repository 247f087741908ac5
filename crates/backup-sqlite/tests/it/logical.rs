use std::collections::BTreeSet;

use backup_core::{ErrorKind, NoticeKind, PinRequest, record::RecordBatch};
use backup_sqlite::rusqlite::Connection;

use crate::{
    fixture::{Place, RICH, hostile},
    kit::{Taken, dump, restore, rows, take, take_with},
};

// Hidden row ids of a table with another primary key are not kept; all else is.
fn same(found: &[String], expected: &[String]) {
    let strip = |dump: &[String]| -> BTreeSet<String> {
        let mut table = String::new();
        dump.iter()
            .map(|line| {
                if let Some(name) = line.strip_prefix("table ") {
                    table = name.to_owned();
                }
                let hidden = ["text_key", "real_column", "taken", "sqlite_sequence"]
                    .contains(&table.as_str());
                let line = match line.split_once(' ') {
                    Some((_, rest)) if hidden && line.starts_with("Integer") => rest,
                    _ => line,
                };
                format!("{table}: {line}")
            })
            .collect()
    };
    let (found, expected) = (strip(found), strip(expected));
    let missing: Vec<_> = expected.difference(&found).collect();
    let extra: Vec<_> = found.difference(&expected).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}\nextra {extra:#?}");
}

fn round_trip(place: &Place) -> Taken {
    let before = dump(&place.path);
    let taken = take(&place.store().logical()).unwrap();
    let other = Place::new();
    restore(&other.store().logical(), &taken).unwrap();
    same(&dump(&other.path), &before);
    place.run("CREATE TABLE since(a); INSERT INTO since VALUES (1)").close().unwrap();
    restore(&place.store().logical(), &taken).unwrap();
    same(&dump(&place.path), &before);
    let again = take(&place.store().logical()).unwrap();
    assert_eq!(again.content, taken.content);
    taken
}

#[test]
fn everything_comes_back() {
    let place = Place::with(RICH);
    let taken = round_trip(&place);
    assert_eq!(taken.notices, []);
    let connection = place.run("");
    // Indexes of words work, and triggers fire again.
    assert_eq!(rows(&connection, "SELECT rowid FROM own('run')"), ["Integer(7)"]);
    assert_eq!(rows(&connection, "SELECT rowid FROM outside('fox')"), ["Integer(11)"]);
    assert_eq!(rows(&connection, "SELECT count(*) FROM terms"), ["Integer(4)"]);
    assert_eq!(rows(&connection, "SELECT v FROM own_config WHERE k = 'automerge'"), ["Integer(6)"]);
    connection
        .execute_batch("INSERT INTO counted(v) VALUES ('d'); INSERT INTO some VALUES (99, 1)")
        .unwrap();
    assert_eq!(rows(&connection, "SELECT max(id) FROM counted"), ["Integer(4)"]);
    assert_eq!(rows(&connection, "SELECT b FROM no_key WHERE a = 99").len(), 1);
}

#[test]
fn everything_comes_back_in_wal_mode_and_other_encodings() {
    for settings in
        ["PRAGMA journal_mode = WAL;", "PRAGMA page_size = 512; PRAGMA auto_vacuum = 1;"]
    {
        let place = Place::with(settings);
        place.run(RICH);
        round_trip(&place);
    }
    let place = Place::with("PRAGMA encoding = 'UTF-16le';");
    place.run(&RICH.replace("CAST(x'ff41' AS TEXT)", "'☃'"));
    round_trip(&place);
}

#[test]
fn names_are_names() {
    let place = Place::new();
    hostile(&place);
    round_trip(&place);
}

#[test]
fn nothing_comes_back_as_nothing() {
    let place = Place::new();
    std::fs::write(&place.path, b"").unwrap();
    let taken = round_trip(&place);
    assert_eq!(taken.content.collections.keys().collect::<Vec<_>>(), ["sqlite_schema"]);
}

#[test]
fn records_are_what_a_reader_expects() {
    let place = Place::with(RICH);
    let taken = take(&place.store().logical()).unwrap();
    assert_eq!(
        taken.lines("composite"),
        [
            r#"{"key":[1,"x"],"value":{"a":"x","b":1,"c":"one"}}"#,
            r#"{"key":[1,"y"],"value":{"a":"y","b":1,"c":{"$type":"Base64","_value":"AQ=="}}}"#,
            r#"{"key":[2,"x"],"value":{"a":"x","b":2,"c":"two"}}"#,
        ]
    );
    assert_eq!(
        taken.lines("text_key"),
        [
            r#"{"key":"a","value":{"k":"a","v":2}}"#,
            r#"{"key":"b","value":{"k":"b","v":1}}"#,
            r#"{"key":{"$type":"Rowid","_value":"3"},"value":{"k":null,"v":3}}"#,
            r#"{"key":{"$type":"Rowid","_value":"4"},"value":{"k":null,"v":3}}"#,
        ]
    );
    // Generated columns are made again, not carried.
    assert_eq!(taken.lines("made")[0], r#"{"key":1,"value":{"a":1,"d":"x"}}"#);
    let not_utf8 =
        r#"{"key":13,"value":{"id":13,"t":"not UTF-8","v":{"$type":"Text","_value":"/0E="}}}"#;
    assert!(taken.lines("plain").contains(&not_utf8.to_owned()));
    assert_eq!(taken.document("counted")["autoincrement"], 3);
    let shadows = taken.document("own")["shadows"].as_array().unwrap();
    assert!(shadows.contains(&"own_data".into()) && shadows.contains(&"own_content".into()));
}

#[test]
fn rows_larger_than_a_batch_and_many_rows_come_back() {
    let place = Place::with(&format!(
        "CREATE TABLE big(id INTEGER PRIMARY KEY, t, b);
         INSERT INTO big VALUES (1, hex(zeroblob({size})), randomblob({size})), (2, 'small', NULL);
         CREATE TABLE many(a, b TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO many SELECT i * 1.25, 'row ' || i || ' of many' FROM n;",
        size = RecordBatch::TARGET_BYTES
    ));
    let taken = round_trip(&place);
    let batches: Vec<_> = taken.batches().filter(|b| b.collection() == "many").collect();
    assert!(batches.len() > 1);
    assert!(batches.iter().all(|b| b.byte_size() < RecordBatch::TARGET_BYTES + 200));
    assert_eq!(taken.content.collections["many"].records, 100_000);
}

#[test]
fn chosen_tables_come_alone() {
    let place = Place::with(RICH);
    let mut request = PinRequest::new();
    request.collections = vec!["plain".into(), "made".into()];
    let store = place.store().logical();
    let taken = take_with(&store, &request, || ()).unwrap();
    assert_eq!(taken.content.collections.keys().collect::<Vec<_>>(), ["made", "plain"]);
    let other = Place::new();
    restore(&other.store().logical(), &taken).unwrap();
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table'";
    assert_eq!(rows(&other.run(""), names).len(), 2);
    request.collections = vec!["missing".into()];
    let error = take_with(&store, &request, || ()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn what_cannot_be_rebuilt_is_said() {
    let place = Place::with(
        "CREATE TABLE t(a); INSERT INTO t VALUES (1); ANALYZE;
         CREATE VIRTUAL TABLE gone USING fts5(a, content='');
         INSERT INTO gone(rowid, a) VALUES (1, 'x');
         CREATE VIRTUAL TABLE odd USING dbstat;",
    );
    let taken = take(&place.store().logical()).unwrap();
    let said: Vec<_> = taken.notices.iter().map(|n| (n.subject.as_str(), n.kind)).collect();
    assert_eq!(
        said,
        [
            ("gone", NoticeKind::Unsupported),
            ("odd", NoticeKind::Unsupported),
            ("sqlite_stat1", NoticeKind::Remark),
        ]
    );
    let other = Place::new();
    restore(&other.store().logical(), &taken).unwrap();
    let connection = Connection::open(&other.path).unwrap();
    assert_eq!(rows(&connection, "SELECT * FROM gone('x')").len(), 0);
    connection.execute_batch("INSERT INTO gone(rowid, a) VALUES (2, 'y')").unwrap();
    // The native form carries both.
    let native = take(&place.store()).unwrap();
    restore(&other.store(), &native).unwrap();
    assert_eq!(rows(&other.run(""), "SELECT rowid FROM gone('x')"), ["Integer(1)"]);
}

#[test]
fn text_that_cannot_be_carried_is_reported_not_mangled() {
    let place =
        Place::with("PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(id INTEGER PRIMARY KEY, a);");
    // A high surrogate at the end of the text.
    place.run("INSERT INTO t VALUES (1, 'fine'), (2, CAST(x'410000d8' AS TEXT));");
    let taken = take(&place.store().logical()).unwrap();
    let lines = taken.lines("t");
    let reported = taken.notices.iter().any(|n| n.collection == "t" && n.subject == "2");
    assert!(reported || lines.len() == 2, "a row is carried or reported");
    let other = Place::new();
    restore(&other.store().logical(), &taken).unwrap();
}

#[test]
fn a_row_whose_key_is_null_keeps_its_row_id_which_is_its_key() {
    let place = Place::with(
        "CREATE TABLE t(k TEXT PRIMARY KEY, v);
         INSERT INTO t(rowid, k, v) VALUES (-3, 'a', 1), (1, NULL, 2), (4, 'b', 3), (7, NULL, 4);",
    );
    let taken = take(&place.store().logical()).unwrap();
    let other = Place::new();
    restore(&other.store().logical(), &taken).unwrap();
    let query = "SELECT rowid, v FROM t WHERE k IS NULL";
    assert_eq!(rows(&other.run(""), query), rows(&place.run(""), query));
}

#[test]
fn rows_that_break_a_check_which_came_later_come_back() {
    let place = Place::with(
        "PRAGMA ignore_check_constraints = ON; CREATE TABLE t(a CHECK (a > 0));
         INSERT INTO t VALUES (-1);",
    );
    for store in [place.store().logical(), place.store()] {
        let other = Place::new();
        restore(&other.store(), &take(&store).unwrap()).unwrap();
        assert_eq!(rows(&other.run(""), "SELECT a FROM t"), ["Integer(-1)"]);
    }
}
