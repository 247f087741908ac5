//! Records of an archive into a live database.

use std::collections::BTreeMap;

use backup_core::{
    Cancel, ErrorKind, Reattached, Sink, SinkSession, StagePlan, WriteMode, record::Key,
};
use backup_sqlite::{SqliteStore, rusqlite::Connection};
use futures::executor::block_on;

use crate::{
    fixture::{Place, RICH},
    kit::{Taken, dump, merge, names, rows, stage_to, take},
};

const MODES: [&str; 2] = ["PRAGMA journal_mode = DELETE;", "PRAGMA journal_mode = WAL;"];

fn archive(sql: &str) -> Taken {
    take(&Place::with(sql).store().logical()).unwrap()
}

fn stage(store: &SqliteStore, taken: &Taken) -> Box<dyn SinkSession> {
    stage_to(store, taken, WriteMode::Merge).unwrap().1
}

// Refused, by the commit at the latest, and nothing is other than it was.
fn refused(place: &Place, store: &SqliteStore, taken: &Taken) -> backup_core::Error {
    let before = dump(&place.path);
    let mut plan = StagePlan::new("r1", "state", "sqlite");
    plan.mode = WriteMode::Merge;
    let token = block_on(store.prepare(&plan)).unwrap().token;
    let error = block_on(async {
        let session = store.begin(&token, &Cancel::new()).await.unwrap();
        let merged = async {
            for piece in &taken.parts {
                session.write(piece.part()).await?;
            }
            session.verify(&taken.content).await?;
            session.commit().await
        };
        let error = merged.await.unwrap_err();
        session.abort().await.unwrap();
        error
    });
    assert_eq!(dump(&place.path), before);
    assert!(names(place.dir()).iter().all(|name| !name.starts_with('.')));
    error
}

// All lines by collection and key.
fn lines(taken: &Taken) -> BTreeMap<(String, String), String> {
    let records = taken.batches().flat_map(|batch| {
        let line = |r: backup_core::record::RecordRef<'_>| {
            ((batch.collection().to_owned(), r.key_json().to_owned()), r.line().to_owned())
        };
        batch.iter().map(line).collect::<Vec<_>>()
    });
    records.collect()
}

// A table without any name for the row id cannot be merged.
fn rich() -> String {
    format!("{RICH} DROP TABLE taken;")
}

#[test]
fn what_is_there_already_changes_nothing() {
    for mode in MODES {
        let place = Place::with(mode);
        place.run(&rich());
        let before = dump(&place.path);
        let taken = take(&place.store().logical()).unwrap();
        merge(&place.store(), &taken).unwrap();
        assert_eq!(dump(&place.path), before);
        assert_eq!(rows(&place.run(""), "SELECT rowid FROM outside('fox')"), ["Integer(11)"]);
        assert_eq!(rows(&place.run(""), "SELECT rowid FROM own('run')"), ["Integer(7)"]);
    }
}

#[test]
fn every_kind_of_table_takes_what_is_new_and_what_is_other_and_keeps_the_rest() {
    for mode in MODES {
        let taken = archive(&rich());
        let place = Place::with(mode);
        place.run(&rich());
        place.run(
            "UPDATE plain SET v = 'live' WHERE id < 5; DELETE FROM plain WHERE id > 12;
             INSERT INTO plain VALUES (100, 1, 'live');
             UPDATE real_column SET b = 'live'; UPDATE no_key SET b = 'live' WHERE rowid = 5;
             DELETE FROM no_key WHERE rowid = 9; INSERT INTO no_key(rowid, a) VALUES (77, 'live');
             UPDATE text_key SET v = 'live'; DELETE FROM text_key WHERE rowid = 3;
             DELETE FROM composite WHERE a = 'y'; UPDATE composite SET c = 'live' WHERE b = 2;
             INSERT INTO composite VALUES ('z', 1, 'live');
             UPDATE made SET a = 5 WHERE d = 'x'; DELETE FROM strict_one WHERE id = 2;
             UPDATE own SET title = 'live words' WHERE rowid = 7; DELETE FROM own WHERE rowid = 90;
             INSERT INTO own(rowid, title) VALUES (200, 'more live words');
             UPDATE docs SET body = 'live' WHERE name = 'one'; DELETE FROM docs WHERE name = 'two';
             INSERT INTO docs(rowid, name, body) VALUES (50, 'three', 'living');
             UPDATE old SET a = 'live'; DELETE FROM boxes WHERE id = 4;
             INSERT INTO boxes VALUES (9, 0, 1, 'live');
             INSERT INTO outside(outside) VALUES ('rebuild');",
        );
        let before = dump(&place.path);
        let mut expected = lines(&take(&place.store().logical()).unwrap());
        let live = expected.len();
        expected.extend(lines(&taken));
        assert!(expected.len() > live);
        let session = stage(&place.store(), &taken);
        assert_eq!(dump(&place.path), before);
        block_on(session.commit()).unwrap();
        assert_eq!(block_on(session.verify(&taken.content)).unwrap(), taken.content);
        assert_eq!(lines(&take(&place.store().logical()).unwrap()), expected);
        let find = |query: &str| rows(&place.run(""), query);
        assert_eq!(find("SELECT rowid FROM own('run')"), ["Integer(7)"]);
        assert_eq!(find("SELECT rowid FROM own('live') ORDER BY 1"), ["Integer(200)"]);
        assert_eq!(find("SELECT rowid FROM outside('fox')"), ["Integer(11)"]);
        assert_eq!(find("SELECT rowid FROM outside('live')"), [""; 0]);
        assert_eq!(find("SELECT rowid FROM outside('living')"), ["Integer(50)"]);
        assert_eq!(find("SELECT id FROM boxes WHERE x0 > 0 ORDER BY id"), ["Integer(4)"]);
        find("INSERT INTO own(own, rank) VALUES ('integrity-check', 1)");
        find("INSERT INTO outside(outside, rank) VALUES ('integrity-check', 1)");
        block_on(session.undo()).unwrap_or_else(|e| panic!("{}", e.report()));
        block_on(session.finish()).unwrap();
        assert_eq!(dump(&place.path), before);
    }
}

#[test]
fn where_there_is_no_database_it_is_made_and_taken_away_again() {
    let taken = archive(&format!("PRAGMA journal_mode = WAL; {}", rich()));
    let place = Place::new();
    let (token, session) = stage_to(&place.store(), &taken, WriteMode::Merge).unwrap();
    block_on(session.commit()).unwrap();
    assert!(matches!(block_on(place.store().reattach(&token)).unwrap(), Reattached::Committed(_)));
    assert_eq!(take(&place.store().logical()).unwrap().content, taken.content);
    let settings = "SELECT * FROM pragma_user_version, pragma_application_id, pragma_journal_mode";
    assert_eq!(rows(&place.run(""), settings), ["Integer(42) Integer(-7) Text(wal)"]);
    block_on(session.undo()).unwrap();
    block_on(session.finish()).unwrap();
    assert_eq!(names(place.dir()), Vec::<String>::new());
}

#[test]
fn settings_views_and_other_tables_stay_and_what_is_missing_is_made() {
    for mode in MODES {
        let taken = archive(
            "PRAGMA user_version = 9; PRAGMA page_size = 8192;
             CREATE TABLE both(a INTEGER PRIMARY KEY, b); CREATE INDEX only_archive ON both(b);
             INSERT INTO both VALUES (1, 'archive');
             CREATE TABLE new(a INTEGER PRIMARY KEY AUTOINCREMENT, b);
             INSERT INTO new(b) VALUES ('x'), ('y'); DELETE FROM new WHERE a = 2;
             CREATE INDEX by_b ON new(b);
             CREATE TRIGGER counts AFTER INSERT ON new BEGIN UPDATE both SET b = 'fired'; END;
             CREATE VIEW seen AS SELECT 'archive' AS a; CREATE VIEW unseen AS SELECT a FROM new;",
        );
        let place = Place::with(&format!(
            "PRAGMA page_size = 1024; {mode} PRAGMA user_version = 5; PRAGMA application_id = 6;
             CREATE TABLE both(a INTEGER PRIMARY KEY, b); INSERT INTO both VALUES (2, 'live');
             CREATE TABLE other(a); INSERT INTO other VALUES (1);
             CREATE VIEW SEEN AS SELECT 'live' AS a;"
        ));
        merge(&place.store(), &taken).unwrap();
        let find = |query: &str| rows(&place.run(""), query);
        let settings = "SELECT * FROM pragma_user_version, pragma_application_id, pragma_page_size";
        assert_eq!(find(settings), ["Integer(5) Integer(6) Integer(1024)"]);
        assert_eq!(find("SELECT b FROM both ORDER BY a"), ["Text(archive)", "Text(live)"]);
        assert_eq!(find("SELECT seen.a, other.a FROM seen, other"), ["Text(live) Integer(1)"]);
        assert_eq!(find("SELECT a FROM unseen"), ["Integer(1)"]);
        let made = "SELECT name FROM sqlite_schema WHERE type IN ('index', 'trigger') ORDER BY 1";
        assert_eq!(find(made), ["Text(by_b)", "Text(counts)"]);
        find("INSERT INTO new(b) VALUES ('z')");
        assert_eq!(find("SELECT max(a) FROM new"), ["Integer(3)"]);
        assert_eq!(find("SELECT DISTINCT b FROM both"), ["Text(fired)"]);
    }
}

#[test]
fn no_trigger_fires_and_no_full_text_index_is_left_behind() {
    let schema = "
        CREATE TABLE docs(id INTEGER PRIMARY KEY, body); CREATE TABLE log(a);
        CREATE VIEW shown AS SELECT id, upper(body) AS body FROM docs;
        CREATE VIRTUAL TABLE words USING fts5(body, content='docs', content_rowid='id');
        CREATE TRIGGER added AFTER INSERT ON docs BEGIN
            INSERT INTO words(rowid, body) VALUES (new.id, new.body);
            INSERT INTO log VALUES ('added'); END;
        CREATE TRIGGER gone AFTER DELETE ON docs BEGIN
            INSERT INTO words(words, rowid, body) VALUES ('delete', old.id, old.body);
            INSERT INTO log VALUES ('gone'); END;";
    let taken = archive(&format!(
        "{schema} INSERT INTO docs VALUES (1, 'red'), (3, 'green'); DELETE FROM log;"
    ));
    let place = Place::with(&format!(
        "{schema} CREATE VIRTUAL TABLE shouted USING fts5(body, content='shown', content_rowid='id');
         INSERT INTO docs VALUES (1, 'blue'), (2, 'yellow');
         INSERT INTO shouted(shouted) VALUES ('rebuild'); DELETE FROM log;"
    ));
    merge(&place.store(), &taken).unwrap();
    let find = |query: &str| rows(&place.run(""), query);
    assert_eq!(find("SELECT count(*) FROM log"), ["Integer(0)"]);
    for index in ["words", "shouted"] {
        let hits = |word| find(&format!("SELECT rowid FROM {index}('{word}')"));
        assert_eq!(hits("blue"), [""; 0], "{index}");
        for (word, id) in [("red", 1), ("yellow", 2), ("green", 3)] {
            assert_eq!(hits(word), [format!("Integer({id})")], "{index}");
        }
        find(&format!("INSERT INTO {index}({index}, rank) VALUES ('integrity-check', 1)"));
    }
    // The triggers are there again.
    find("DELETE FROM docs WHERE id = 3");
    assert_eq!(find("SELECT a FROM log"), ["Text(gone)"]);
}

#[test]
fn counters_never_go_back() {
    let table = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v);";
    let counted = |to: i64| format!("{table} INSERT INTO t VALUES ({to}, 'x'); DELETE FROM t;");
    for (live, archived, next) in [(20, 10, 21), (10, 20, 21), (0, 7, 8), (7, 0, 8)] {
        let place = Place::with(if live > 0 { counted(live) } else { table.into() }.as_str());
        let taken = archive(if archived > 0 { counted(archived) } else { table.into() }.as_str());
        merge(&place.store(), &taken).unwrap();
        let id = rows(&place.run(""), "INSERT INTO t(v) VALUES ('next') RETURNING id");
        assert_eq!(id, [format!("Integer({next})")]);
    }
}

#[test]
fn a_row_that_is_replaced_keeps_its_row_id_and_a_key_of_null_is_one() {
    let table = "CREATE TABLE t(k TEXT PRIMARY KEY, v);";
    let taken = archive(&format!(
        "{table} INSERT INTO t(rowid, k, v) VALUES
         (1, 'new', 1), (2, 'b', 1), (5, NULL, 1), (9, NULL, 1), (12, 'a', 1);"
    ));
    let place = Place::with(&format!(
        "{table} INSERT INTO t(rowid, k, v) VALUES
         (1, 'a', 0), (5, 'in the way', 0), (7, 'b', 0), (8, NULL, 0), (9, NULL, 0);"
    ));
    merge(&place.store(), &taken).unwrap();
    assert_eq!(
        rows(&place.run(""), "SELECT rowid, k, v FROM t ORDER BY k IS NULL, k, rowid"),
        [
            "Integer(1) Text(a) Integer(1)",
            "Integer(7) Text(b) Integer(1)",
            "Integer(11) Text(in the way) Integer(0)",
            "Integer(10) Text(new) Integer(1)",
            "Integer(5) Null Integer(1)",
            "Integer(8) Null Integer(0)",
            "Integer(9) Null Integer(1)",
        ]
    );
}

#[test]
fn rows_may_exchange_unique_values_and_none_is_pushed_out() {
    let table = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE);";
    let place = Place::with(&format!("{table} INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');"));
    let exchanged = archive(&format!("{table} INSERT INTO t VALUES (1, 'b'), (2, 'a');"));
    merge(&place.store(), &exchanged).unwrap();
    let names = "SELECT name FROM t ORDER BY id";
    assert_eq!(rows(&place.run(""), names), ["Text(b)", "Text(a)", "Text(c)"]);
    let taken = archive(&format!("{table} INSERT INTO t VALUES (9, 'c');"));
    let error = refused(&place, &place.store(), &taken);
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert!(error.to_string().contains("t, record 9"), "{error}");

    // A key that only the collation takes for another one.
    let table = "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v);";
    let place = Place::with(&format!("{table} INSERT INTO t VALUES ('A', 0);"));
    let taken = archive(&format!("{table} INSERT INTO t VALUES ('a', 1);"));
    let error = refused(&place, &place.store(), &taken);
    assert!(error.to_string().contains(r#"t, record "a""#), "{error}");

    // And one that the key tells apart, although the column does not.
    let table = "CREATE TABLE t(k COLLATE NOCASE, v, PRIMARY KEY (k COLLATE BINARY));";
    let place = Place::with(&format!("{table} INSERT INTO t VALUES ('A', 0), ('a', 0);"));
    merge(&place.store(), &archive(&format!("{table} INSERT INTO t VALUES ('a', 1);"))).unwrap();
    assert_eq!(rows(&place.run(""), "SELECT v FROM t ORDER BY v"), ["Integer(0)", "Integer(1)"]);

    let table = "CREATE TABLE t(k PRIMARY KEY, v CHECK (v > 0));";
    let place = Place::with(table);
    let taken = archive("CREATE TABLE t(k PRIMARY KEY, v); INSERT INTO t VALUES (1, -1);");
    let error = refused(&place, &place.store(), &taken);
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
}

#[test]
fn keys_are_told_apart_as_records_tell_them_apart() {
    let place = Place::with(
        "CREATE TABLE t(k COLLATE NOCASE, v, PRIMARY KEY (k COLLATE BINARY));
         INSERT INTO t VALUES ('a', 'a'), ('A', 'A'), (1, 'one'), (x'61', 'blob'), ('1', 'text'), (2.5, '');
         CREATE TABLE i(k INTEGER PRIMARY KEY, v); INSERT INTO i VALUES (1, 'x'), (5, 'y');
         CREATE TABLE c(a, b, PRIMARY KEY (b, a)) WITHOUT ROWID; INSERT INTO c VALUES (1, 'x');",
    );
    let session = stage(&place.store(), &Taken::default());
    let ask = |collection: &str, keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|key| Key::from_json(key).unwrap()).collect();
        let found = block_on(session.existing(collection, &keys)).unwrap();
        let lines = found.iter().flat_map(|batch| {
            batch.iter().map(|record| record.line().to_owned()).collect::<Vec<_>>()
        });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(ask("t", &[r#""a""#]), [r#"{"key":"a","value":{"k":"a","v":"a"}}"#]);
    assert_eq!(ask("t", &[r#""A""#]), [r#"{"key":"A","value":{"k":"A","v":"A"}}"#]);
    assert_eq!(ask("t", &["1"]), [r#"{"key":1,"value":{"k":1,"v":"one"}}"#]);
    assert_eq!(ask("t", &[r#""1""#]), [r#"{"key":"1","value":{"k":"1","v":"text"}}"#]);
    let blob = r#"{"$type":"Base64","_value":"YQ=="}"#;
    assert_eq!(ask("t", &[blob]).len(), 1);
    assert_eq!(ask("t", &["1.0", "2", "null", "true", "[1]", r#"{"a":1}"#]), [""; 0]);
    assert_eq!(ask("i", &["1", "1", r#""1""#, "5.0", "5"]).len(), 2);
    assert_eq!(ask("c", &[r#"["x",1]"#]), [r#"{"key":["x",1],"value":{"a":1,"b":"x"}}"#]);
    assert_eq!(ask("c", &[r#"[1,"x"]"#, "1", r#"["x",1,1]"#]), [""; 0]);
    assert_eq!(ask("nowhere", &["1"]), [""; 0]);
    block_on(session.abort()).unwrap();
}

#[test]
fn references_may_lead_to_live_rows_and_must_lead_somewhere() {
    let schema = "PRAGMA foreign_keys = OFF; CREATE TABLE p(id INTEGER PRIMARY KEY, v);
                  CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE);
                  CREATE TABLE w(p REFERENCES p, n, PRIMARY KEY (n)) WITHOUT ROWID;";
    let place = Place::with(&format!(
        "{schema} INSERT INTO p VALUES (1, 'live'), (2, 'live'); INSERT INTO c VALUES (1, 1);"
    ));
    // To a live row, to one that comes too, and from a live row to one that is replaced.
    let taken = archive(&format!(
        "{schema} INSERT INTO p VALUES (1, 'new'), (3, 'new'); INSERT INTO c VALUES (2, 2), (3, 3);"
    ));
    merge(&place.store(), &taken).unwrap();
    let pairs = "SELECT c.id, p.v FROM c JOIN p ON p.id = c.p ORDER BY 1";
    assert_eq!(
        rows(&place.run(""), pairs),
        ["Integer(1) Text(new)", "Integer(2) Text(live)", "Integer(3) Text(new)"]
    );
    let nowhere = archive(&format!("{schema} INSERT INTO c VALUES (4, 99);"));
    let error = refused(&place, &place.store(), &nowhere);
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error:?}");
    assert!(error.to_string().contains("c refers to rows of p"), "{error}");
    // What led nowhere before is not the merge's doing.
    place.run(
        "PRAGMA foreign_keys = OFF; INSERT INTO c VALUES (7, 70); INSERT INTO w VALUES (70, 1)",
    );
    merge(&place.store(), &taken).unwrap();
    refused(&place, &place.store(), &nowhere);
    refused(&place, &place.store(), &archive(&format!("{schema} INSERT INTO w VALUES (99, 2);")));
    merge(&place.store().accept_dangling_references(), &nowhere).unwrap();
    assert_eq!(rows(&place.run(""), "SELECT p FROM c WHERE id = 4"), ["Integer(99)"]);
}

#[test]
fn a_record_that_was_changed_since_it_was_read_is_not_written_over() {
    let table = "CREATE TABLE t(k TEXT PRIMARY KEY, v);";
    let taken = archive(&format!("{table} INSERT INTO t VALUES ('a', 1), ('new', 1);"));
    for (change, subject) in [
        ("UPDATE t SET v = 'since' WHERE k = 'a'", Some(r#"t, record "a""#)),
        ("DELETE FROM t WHERE k = 'a'", Some(r#"t, record "a""#)),
        ("INSERT INTO t VALUES ('new', 'since')", Some(r#"t, record "new""#)),
        ("DROP TABLE t", Some(r#"t, record "a""#)),
        ("UPDATE t SET v = 'since' WHERE k = 'b'", None),
        ("DELETE FROM t WHERE k = 'b'; VACUUM", None),
    ] {
        let place = Place::with(&format!("{table} INSERT INTO t VALUES ('a', 0), ('b', 0);"));
        let (token, session) = stage_to(&place.store(), &taken, WriteMode::Merge).unwrap();
        let keys = ["a", "b", "new"].map(Key::from);
        let found = block_on(session.existing("t", &keys)).unwrap();
        assert_eq!(found.iter().map(|batch| batch.len()).sum::<usize>(), 2);
        drop(session);
        place.run(change).close().unwrap();
        let between = dump(&place.path);
        let find = || block_on(place.store().reattach(&token)).unwrap();
        let Reattached::Staged(session) = find() else { panic!("{:?}", find()) };
        let committed = block_on(session.commit());
        let Some(subject) = subject else {
            committed.unwrap();
            block_on(session.finish()).unwrap();
            continue;
        };
        let error = committed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{change}: {error:?}");
        assert!(error.to_string().contains(subject), "{change}: {error}");
        assert_eq!(dump(&place.path), between);
        let Reattached::Staged(session) = find() else { panic!("{:?}", find()) };
        block_on(session.abort()).unwrap();
        assert_eq!(names(place.dir()), ["state.db"]);
    }
}

#[test]
fn tables_of_another_form_are_refused_with_their_schema() {
    for (live, theirs, why) in [
        ("CREATE TABLE t(a PRIMARY KEY, b)", "CREATE TABLE t(a PRIMARY KEY, c)", "columns"),
        ("CREATE TABLE t(a PRIMARY KEY, b)", "CREATE TABLE t(a PRIMARY KEY)", "columns"),
        (
            "CREATE TABLE t(a PRIMARY KEY, b INT)",
            "CREATE TABLE t(a PRIMARY KEY, b TEXT)",
            "columns",
        ),
        ("CREATE TABLE t(a PRIMARY KEY, b)", "CREATE TABLE t(a, b PRIMARY KEY)", "key"),
        ("CREATE TABLE t(a PRIMARY KEY, b)", "CREATE TABLE t(a, b)", "key"),
        ("CREATE TABLE T(a PRIMARY KEY)", "CREATE TABLE t(a PRIMARY KEY)", "upper and lower"),
        ("CREATE VIEW t AS SELECT 1 AS a", "CREATE TABLE t(a PRIMARY KEY)", "something else"),
        ("CREATE VIRTUAL TABLE t USING dbstat", "CREATE TABLE t(a PRIMARY KEY)", "something else"),
        ("CREATE TABLE t(rowid, oid, _rowid_)", "CREATE TABLE t(rowid, oid, _rowid_)", "no key"),
        ("CREATE TABLE t(a)", "CREATE VIRTUAL TABLE t USING fts5(a, content='')", "elsewhere"),
    ] {
        let place = Place::with(live);
        let taken = archive(theirs);
        let store = place.store();
        let mut plan = StagePlan::new("r1", "state", "sqlite");
        plan.mode = WriteMode::Merge;
        let token = block_on(store.prepare(&plan)).unwrap().token;
        let session = block_on(store.begin(&token, &Cancel::new())).unwrap();
        let written = taken.parts.iter().map(|piece| block_on(session.write(piece.part())));
        let error = written.collect::<backup_core::Result<Vec<_>>>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{theirs}: {error:?}");
        assert!(error.to_string().contains(why), "{theirs}: {error}");
        assert!(error.advice().contains("another name"), "{}", error.report());
        block_on(session.abort()).unwrap();
    }
    // Other columns that are not stored, another order and another type of the same kind fit.
    let place = Place::with(
        "CREATE TABLE t(b VARCHAR(9), a INTEGER PRIMARY KEY, g AS (a + 1)); INSERT INTO t VALUES ('x', 1)",
    );
    let taken =
        archive("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); INSERT INTO t VALUES (1, 'y')");
    merge(&place.store(), &taken).unwrap();
    assert_eq!(rows(&place.run(""), "SELECT b, g FROM t"), ["Text(y) Integer(2)"]);
}

#[test]
fn a_form_that_changed_after_staging_is_refused_by_the_commit() {
    let taken = archive("CREATE TABLE t(a PRIMARY KEY, b); INSERT INTO t VALUES (1, 1)");
    let place = Place::with("CREATE TABLE t(a PRIMARY KEY, b)");
    let session = stage(&place.store(), &taken);
    place.run("ALTER TABLE t ADD COLUMN c").close().unwrap();
    let error = block_on(session.commit()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert!(error.to_string().contains("other columns"), "{error}");
    block_on(session.abort()).unwrap();
    // A column that changes what it is given, although it looks the same.
    let place = Place::with("CREATE TABLE t(a INT PRIMARY KEY, b ANY)");
    let strict = "CREATE TABLE t(a INT PRIMARY KEY, b ANY) STRICT; INSERT INTO t VALUES (1, '2')";
    let error = refused(&place, &place.store(), &archive(strict));
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert!(error.to_string().contains("as they are"), "{error}");
}

#[test]
fn images_and_ruins_are_no_matter_of_merging() {
    let place = Place::with("CREATE TABLE t(a)");
    let image = take(&place.store()).unwrap();
    let error = stage_to(&place.store(), &image, WriteMode::Merge).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.advice().contains("logical form"), "{}", error.report());
    let error = refused(&place, &place.store(), &image);
    assert_eq!(error.kind(), ErrorKind::Unsupported);

    let ruin = Place::new();
    std::fs::write(&ruin.path, b"no database at all, but something of somebody's nevertheless")
        .unwrap();
    let error = stage_to(&ruin.store(), &archive("CREATE TABLE t(a)"), WriteMode::Merge).err();
    assert_eq!(error.unwrap().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_check_holds_for_what_comes_and_not_for_what_was_there() {
    let checked = "PRAGMA ignore_check_constraints = ON;
                   CREATE TABLE t(id INTEGER PRIMARY KEY, v CHECK (v > 0));";
    let place = Place::with(&format!("{checked} INSERT INTO t VALUES (1, -1);"));
    merge(&place.store(), &archive(&format!("{checked} INSERT INTO t VALUES (2, 2);"))).unwrap();
    let taken = archive(&format!("{checked} INSERT INTO t VALUES (3, -3);"));
    let error = refused(&place, &place.store(), &taken);
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    assert!(error.to_string().contains("t, record 3"), "{error}");
    // A table that is not there yet is made as it was.
    let other = Place::with("CREATE TABLE u(a)");
    merge(&other.store(), &taken).unwrap();
    assert_eq!(rows(&other.run(""), "SELECT v FROM t"), ["Integer(-3)"]);
}

#[test]
fn a_database_with_an_opener_is_told_by_its_rows() {
    let taken = archive("CREATE TABLE t(a PRIMARY KEY, b); INSERT INTO t VALUES (1, 'new')");
    let place = Place::with("CREATE TABLE t(a PRIMARY KEY, b); INSERT INTO t VALUES (1, 'old')");
    let store = place.store().opener(|path, flags| Connection::open_with_flags(path, flags));
    let before = dump(&place.path);
    let (token, session) = stage_to(&store, &taken, WriteMode::Merge).unwrap();
    block_on(session.existing("t", &[Key::from(1)])).unwrap();
    block_on(session.commit()).unwrap();
    assert_eq!(rows(&place.run("VACUUM"), "SELECT b FROM t"), ["Text(new)"]);
    let found = block_on(store.reattach(&token)).unwrap();
    assert!(matches!(found, Reattached::Committed(_)), "{found:?}");
    block_on(session.undo()).unwrap();
    block_on(session.finish()).unwrap();
    assert_eq!(dump(&place.path), before);
}

#[test]
fn encodings_need_not_be_the_same() {
    for (live, theirs) in [("UTF-8", "UTF-16le"), ("UTF-16be", "UTF-8"), ("UTF-16le", "UTF-16be")] {
        let table = "CREATE TABLE t(k TEXT PRIMARY KEY, v);";
        let place = Place::with(&format!(
            "PRAGMA encoding = '{live}'; {table} INSERT INTO t VALUES ('ключ', 'live'), ('☃', 1);"
        ));
        let taken = archive(&format!(
            "PRAGMA encoding = '{theirs}'; {table} INSERT INTO t VALUES ('ключ', '😀'), ('é', 2);"
        ));
        merge(&place.store(), &taken).unwrap();
        let found = rows(&place.run(""), "SELECT count(*), max(v) FROM t");
        assert_eq!(found, [format!("Integer(3) Text({})", "😀".as_bytes().escape_ascii())]);
        assert_eq!(rows(&place.run(""), "PRAGMA encoding"), [format!("Text({live})")]);
    }
}

#[test]
fn a_merge_of_nothing_leaves_every_byte() {
    for mode in MODES {
        for content in
            ["", "PRAGMA user_version = 5;", "CREATE TABLE t(a); INSERT INTO t VALUES (1);"]
        {
            let place = Place::with(&format!("{mode} {content}"));
            let before = take(&place.store()).unwrap().content;
            merge(&place.store(), &archive("CREATE TABLE x(a); DROP TABLE x;")).unwrap();
            assert_eq!(take(&place.store()).unwrap().content, before, "{mode} {content}");
        }
    }
}
