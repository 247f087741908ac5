//! Records that are added to those of a server.

use backup_core::{
    ErrorKind, Part, Reattached, Sink, WriteMode,
    record::{BatchBuilder, Key},
};

use crate::{
    faults::{begin, open, plan},
    server::{Server, available, content, leftovers},
};

/// A hash with these fields.
fn hash(key: &str, fields: &[(&str, &str)]) -> Part {
    let mut batch = BatchBuilder::new("keys");
    let key = Key::from(key);
    batch.push_json(&key, br#"{"type":"hash"}"#).unwrap();
    for (field, value) in fields {
        let written = batch.push_element(&key, &Key::from(*field), |json| {
            json.begin_object()?;
            json.name("value")?;
            json.string(value);
            json.end_object();
            Ok(())
        });
        written.unwrap();
    }
    Part::Records(batch.finish().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_key_is_replaced_as_a_whole_and_comes_back() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    for command in [
        "HSET both a live b live",
        "PEXPIRE both 10000000",
        "SET other stays",
        "RPUSH kind was a list",
    ] {
        raw.run(command);
    }
    let before = content(&mut raw);
    let store = open(&server).await;
    let session = begin(&store, &plan("r", WriteMode::Merge, 0)).await;
    let keys = ["both", "kind", "free"].map(Key::from);
    let existing = session.existing("keys", &keys).await.unwrap();
    assert_eq!(existing.iter().map(|batch| batch.len()).sum::<usize>(), 3 + 4);
    for key in ["both", "kind", "free"] {
        session.write(hash(key, &[("a", "archive"), ("c", "archive")])).await.unwrap();
    }
    let staged = session.verify(&Default::default()).await.unwrap();
    assert_eq!(content(&mut raw), before);
    session.commit().await.unwrap();
    let live = session.verify(&Default::default()).await.unwrap();
    assert_eq!(live, staged);
    assert_eq!(live.collections["keys"].records, 9);
    for key in ["both", "kind", "free"] {
        let mut fields = raw.strings(&[b"HGETALL", key.as_bytes()]);
        fields.sort();
        assert_eq!(fields, [&b"a"[..], b"archive", b"archive", b"c"]);
        assert_eq!(raw.run(&format!("PTTL {key}")), redis::Value::Int(-1));
    }
    assert_eq!(raw.text("GET other"), "stays");
    session.undo().await.unwrap();
    session.finish().await.unwrap();
    assert_eq!(content(&mut raw), before);
    assert_eq!(leftovers(&mut raw), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_was_changed_since_it_was_read_is_not_written_over() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.run("HSET both a live b live");
    let store = open(&server).await;
    let plan = plan("r", WriteMode::Merge, 0);
    let session = begin(&store, &plan).await;
    session.existing("keys", &[Key::from("both")]).await.unwrap();
    session.write(hash("both", &[("a", "archive")])).await.unwrap();
    raw.run("HSET both b meanwhile");
    let between = content(&mut raw);
    let error = session.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
    assert_eq!(content(&mut raw), between);
    let token = store.prepare(&plan).await.unwrap().token;
    let found = store.reattach(&token).await.unwrap();
    assert!(matches!(found, Reattached::Staged(_)), "{found:?}");
    session.abort().await.unwrap();
    assert_eq!(content(&mut raw), between);
}
