//! Bad input: files, images, schemas, tokens, places.

use std::{fs, time::Duration};

use backup_core::{
    Cancel, ErrorKind, Part, Reattached, Schema, Sink, StagePlan, StageToken, record::RecordBatch,
};
use futures::executor::block_on;

use crate::{
    fixture::{Place, RICH},
    kit::{Taken, dump, names, restore, rows, stage, take, token},
};

fn old() -> Place {
    Place::with("CREATE TABLE t(a); INSERT INTO t VALUES ('old');")
}

fn new() -> Taken {
    take(&Place::with("CREATE TABLE t(a); INSERT INTO t VALUES ('new');").store()).unwrap()
}

#[test]
fn what_is_missing_or_no_database_is_no_source() {
    let place = Place::new();
    for store in [place.store(), place.store().logical()] {
        assert_eq!(take(&store).err().unwrap().kind(), ErrorKind::NotFound);
        assert!(!place.path.exists(), "asking made nothing");
    }
    fs::write(&place.path, b"this is not a database, although it is quite long").unwrap();
    for store in [place.store(), place.store().logical()] {
        let error = take(&store).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    }
}

// Staging must fail, and leave no trace.
fn refused(taken: &Taken, kind: ErrorKind) {
    let place = old();
    let before = dump(&place.path);
    let store = place.store();
    let token = token(&store, taken).unwrap();
    block_on(async {
        let session = store.begin(&token, &Cancel::new()).await.unwrap();
        let staged = async {
            for piece in &taken.parts {
                session.write(piece.part()).await?;
            }
            session.verify(&taken.content).await.map(drop)
        };
        let error = staged.await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        session.abort().await.unwrap();
    });
    assert_eq!(dump(&place.path), before);
    assert_eq!(names(place.dir()), ["state.db"]);
}

#[test]
fn damaged_images_are_refused() {
    let place = Place::with(
        "CREATE TABLE t(a, b); CREATE INDEX i ON t(b);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO t SELECT i, randomblob(50) FROM n;",
    );
    let whole = take(&place.store()).unwrap().image().to_vec();
    let mut torn = whole.clone();
    torn[4096 * 3..4096 * 3 + 2000].fill(0x55);
    refused(&Taken::of_image(torn), ErrorKind::Corrupt);
    refused(&Taken::of_image(whole[..whole.len() - 4096].to_vec()), ErrorKind::Corrupt);
    refused(
        &Taken::of_image(b"no database at all, nor anything like one".to_vec()),
        ErrorKind::Corrupt,
    );
    // A row that its index does not know.
    place
        .run("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'i';")
        .close()
        .unwrap();
    refused(&Taken::of_image(fs::read(&place.path).unwrap()), ErrorKind::Corrupt);
}

#[test]
fn foreign_keys_that_point_nowhere_are_refused_unless_accepted() {
    let place = Place::with(
        "PRAGMA foreign_keys = OFF;
         CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p);
         INSERT INTO c VALUES (5);",
    );
    for store in [place.store(), place.store().logical()] {
        let taken = take(&store).unwrap();
        refused(&taken, ErrorKind::Mismatch);
        let other = Place::new();
        restore(&other.store().accept_dangling_references(), &taken).unwrap();
        assert_eq!(rows(&other.run(""), "SELECT p FROM c"), ["Integer(5)"]);
    }
}

// FAULTS 51.
#[test]
fn checks_of_a_database_from_outside_end_in_time() {
    let source = Place::with(
        "CREATE TABLE t(a); CREATE INDEX i ON t(length(replace(hex(zeroblob(20000)), '0', a)));
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO t SELECT 'x' FROM n;",
    );
    let taken = take(&source.store()).unwrap();
    let place = Place::new();
    let store = place.store().check_limit(Duration::from_millis(1));
    let error = stage(&store, &taken).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
    assert!(!place.path.exists());
}

#[test]
fn statements_make_their_object_and_nothing_else() {
    let document = |sql: &str| {
        serde_json::json!({
            "sqlite": 1, "content": "records", "sql": sql,
            "database": {
                "application_id": 0, "auto_vacuum": 0, "encoding": "UTF-8",
                "journal_mode": "delete", "page_size": 4096, "user_version": 0
            },
        })
    };
    let write = |place: &Place, document: serde_json::Value| {
        let store = place.store().check_limit(Duration::from_millis(500));
        let token = token(&store, &Taken::default()).unwrap();
        block_on(async {
            let session = store.begin(&token, &Cancel::new()).await.unwrap();
            let schema = Schema { collection: "t".into(), document, info: Default::default() };
            let written = session.write(Part::Schema(schema)).await;
            session.abort().await.unwrap();
            written
        })
    };
    let place = Place::new();
    write(&place, document("CREATE TABLE t(a)")).unwrap();
    let attach = format!("ATTACH '{}' AS x", place.dir().join("attached").display());
    for sql in [
        attach.as_str(),
        "DROP TABLE t",
        "CREATE TABLE other(a)",
        "CREATE TABLE t(a); CREATE TABLE u(b)",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TABLE IF NOT EXISTS t(a)",
        "CREATE TEMP TABLE t(a)",
        "CREATE VIRTUAL TABLE t USING csv(filename='/etc/passwd')",
        "CREATE VIRTUAL TABLE t USING dbstat",
    ] {
        let error = write(&place, document(sql)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Hostile, "{sql}: {error:?}");
    }
    let endless = "CREATE TABLE t AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n";
    let error = write(&place, document(endless)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
    let mut newer = document("CREATE TABLE t(a)");
    newer["sqlite"] = 2.into();
    assert_eq!(write(&place, newer).unwrap_err().kind(), ErrorKind::UnknownVersion);
    assert_eq!(names(place.dir()), Vec::<String>::new());
}

#[test]
fn records_that_do_not_fit_their_table_are_refused() {
    let place =
        Place::with("CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 2);");
    let taken = take(&place.store().logical()).unwrap();
    for line in [
        r#"{"key":2,"value":{"a":1}}"#,
        r#"{"key":2,"value":{"a":1,"b":2,"id":2}}"#,
        r#"{"key":2,"value":{"a":true,"id":2}}"#,
        r#"{"key":2,"value":[1]}"#,
    ] {
        let other = Place::new();
        let (_, session) = stage(&other.store().logical(), &taken).unwrap();
        block_on(session.abort()).unwrap();
        let store = other.store().logical();
        let token = token(&store, &taken).unwrap();
        block_on(async {
            let session = store.begin(&token, &Cancel::new()).await.unwrap();
            for piece in &taken.parts {
                session.write(piece.part()).await.unwrap();
            }
            let batch = RecordBatch::from_lines("t", format!("{line}\n").into()).unwrap();
            let error = session.write(Part::Records(batch)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{line}: {error:?}");
            session.abort().await.unwrap();
        });
    }
}

#[test]
fn what_is_no_database_is_moved_aside_and_back() {
    let truncated = {
        let place = Place::with(RICH);
        let bytes = fs::read(&place.path).unwrap();
        bytes[..bytes.len() / 2].to_vec()
    };
    for garbage in [b"this is no database, and longer than a header would be: it is only text that somebody left lying here".to_vec(), truncated] {
        let place = Place::new();
        fs::write(&place.path, &garbage).unwrap();
        fs::write(place.path.with_file_name("state.db-wal"), b"and this no log").unwrap();
        let before = names(place.dir());
        let store = place.store();
        let (token, session) = stage(&store, &new()).unwrap();
        assert_eq!(fs::read(&place.path).unwrap(), garbage);
        block_on(session.commit()).unwrap();
        assert_eq!(rows(&place.run(""), "SELECT a FROM t"), ["Text(new)"]);
        assert!(matches!(block_on(store.reattach(&token)).unwrap(), Reattached::Committed(_)));
        block_on(session.undo()).unwrap();
        assert_eq!(fs::read(&place.path).unwrap(), garbage);
        assert!(matches!(block_on(store.reattach(&token)).unwrap(), Reattached::Undone(_)));
        block_on(session.finish()).unwrap();
        let mut after = names(place.dir());
        // SQLite itself makes this one whenever it looks at a file beside which a log lies.
        after.retain(|name| !name.ends_with("-shm"));
        assert_eq!(after, before);
        restore(&store, &new()).unwrap();
        assert_eq!(rows(&place.run(""), "SELECT a FROM t"), ["Text(new)"]);
    }
}

#[test]
fn a_content_that_is_neither_old_nor_new_is_not_decided() {
    let place = old();
    let store = place.store();
    let (token, session) = stage(&store, &new()).unwrap();
    block_on(session.commit()).unwrap();
    place.run("INSERT INTO t VALUES ('since')");
    let Reattached::Unknown { reason } = block_on(store.reattach(&token)).unwrap() else {
        panic!()
    };
    assert!(reason.contains("state.db"), "{reason}");
    block_on(session.undo()).unwrap();
    block_on(session.finish()).unwrap();
    assert_eq!(rows(&place.run(""), "SELECT a FROM t"), ["Text(old)"]);
}

#[test]
fn an_undo_that_cannot_be_done_keeps_everything_and_can_be_repeated() {
    let place = old();
    let store = place.store().busy_timeout(Duration::from_millis(50));
    let (_, session) = stage(&store, &new()).unwrap();
    block_on(session.commit()).unwrap();
    let reader = place.run("BEGIN; SELECT * FROM t;");
    let error = block_on(session.undo()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RepairNeeded);
    assert!(error.is_retryable() && error.advice().contains("restore-r1"), "{}", error.report());
    reader.execute_batch("COMMIT").unwrap();
    block_on(session.undo()).unwrap();
    block_on(session.finish()).unwrap();
    assert_eq!(rows(&reader, "SELECT a FROM t"), ["Text(old)"]);
}

#[test]
fn places_that_cannot_take_a_restore_are_refused_before_it_begins() {
    let place = old();
    let refuse = |change: &dyn Fn(&mut StagePlan)| {
        let mut plan = StagePlan::new("r", "state", "sqlite");
        change(&mut plan);
        let error = block_on(place.store().prepare(&plan)).unwrap_err();
        assert_eq!(names(place.dir()), ["state.db"]);
        error.kind()
    };
    // FAULTS 71.
    assert_eq!(refuse(&|plan| plan.bytes = 1 << 60), ErrorKind::NoSpace);
    assert_eq!(refuse(&|plan| plan.avoid.push(place.path.clone())), ErrorKind::InvalidInput);
    assert_eq!(refuse(&|plan| plan.kind = "files".into()), ErrorKind::Incompatible);
    let nowhere = backup_sqlite::SqliteStore::open(place.dir().join("no/such/state.db")).unwrap();
    let error = block_on(nowhere.prepare(&StagePlan::new("r", "state", "sqlite"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn tokens_lead_nowhere_else() {
    let place = old();
    let mut token = token(&place.store(), &new()).unwrap();
    let begin = |token: &StageToken| {
        block_on(place.store().begin(token, &Cancel::new())).err().unwrap().kind()
    };
    let other = Place::new();
    let elsewhere = block_on(other.store().begin(&token, &Cancel::new())).err().unwrap();
    assert_eq!(elsewhere.kind(), ErrorKind::Incompatible);
    for folder in ["..", "../x", "/tmp/x", "a/b", ""] {
        token.data["folder"] = folder.into();
        assert_eq!(begin(&token), ErrorKind::Hostile, "{folder:?}");
    }
    token.data = serde_json::json!({"x": 1});
    assert_eq!(begin(&token), ErrorKind::Corrupt);
}
