//! Records that are added to those of a server.

use std::sync::{Arc, Mutex};

use backup_core::{
    ErrorKind, Part, Reattached, Sink, WriteMode,
    record::{BatchBuilder, Key},
};

use backup_redis::RedisStore;

use crate::{
    faults::{begin, open, plan},
    proxy::Proxy,
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

/// A writer that comes between the last look at a key and its switch: what it wrote stays, and
/// keys that had been switched are old again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_between_the_last_look_and_the_switch_is_kept() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    // Two rounds.
    let keys: Vec<_> = (0..700).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        raw.run(&format!("HSET {key} a live"));
    }
    let (mut other, mut rounds) = (server.raw(), 0);
    let meddled = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&meddled);
    let port = Proxy::before(server.port, move |words| match &words[0][..] {
        b"MULTI" => rounds += 1,
        b"EVAL" if rounds == 2 => {
            let mut meddled = seen.lock().unwrap();
            if meddled.is_none() {
                other.bytes(&[b"HSET", &words[3], b"b", b"meanwhile"]);
                *meddled = Some(String::from_utf8(words[3].clone()).unwrap());
            }
        }
        _ => {}
    });
    let store = RedisStore::connect(&format!("redis://127.0.0.1:{port}")).await.unwrap();
    let session = begin(&store, &plan("r", WriteMode::Merge, 0)).await;
    let asked: Vec<_> = keys.iter().map(|key| Key::from(key.as_str())).collect();
    session.existing("keys", &asked).await.unwrap();
    for key in &keys {
        session.write(hash(key, &[("a", "archive")])).await.unwrap();
    }
    let error = session.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
    session.undo().await.unwrap();
    session.finish().await.unwrap();
    let meddled = meddled.lock().unwrap().clone().expect("a second round");
    for key in &keys {
        let mut fields = raw.strings(&[b"HGETALL", key.as_bytes()]);
        fields.sort();
        let wanted: &[&[u8]] =
            if *key == meddled { &[b"a", b"b", b"live", b"meanwhile"] } else { &[b"a", b"live"] };
        assert_eq!(fields, wanted, "{key}");
    }
    assert_eq!(leftovers(&mut raw), Vec::<String>::new());
}
