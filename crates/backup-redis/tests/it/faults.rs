//! What goes wrong outside.

use std::{sync::Arc, time::Duration};

use backup_core::{
    Adapter, Cancel, ErrorKind, Part, PinRequest, Pinned, Result, Schema, Sink, SinkSession,
    Source, SourceSession, StagePlan, WriteMode,
    manifest::CollectionInfo,
    record::{BatchBuilder, Key},
};
use backup_redis::{Consistency, RedisStore};

use crate::{
    cluster::Cluster,
    proxy::Proxy,
    server::{Server, available, content, free_port, leftovers, said_aloud},
    writer::Writer,
};

pub(crate) async fn open(server: &Server) -> RedisStore {
    RedisStore::connect(&server.url()).await.unwrap()
}

pub(crate) async fn pin(store: &RedisStore) -> Box<dyn SourceSession> {
    match store.pin(&PinRequest::new()).await.unwrap() {
        Pinned::Pinned { session, .. } | Pinned::Live { session, .. } => session,
    }
}

/// Reads to the end; the number of records.
pub(crate) async fn read(session: &dyn SourceSession) -> Result<usize> {
    let mut records = 0;
    for partition in session.partitions().await? {
        while let Some(part) = session.next(&partition).await? {
            if let Part::Records(batch) = part {
                records += batch.len();
            }
        }
    }
    Ok(records)
}

pub(crate) fn plan(id: &str, mode: WriteMode, bytes: u64) -> StagePlan {
    let mut plan = StagePlan::new(id, "store", "redis");
    plan.mode = mode;
    plan.bytes = bytes;
    plan.content.collections.insert("keys".to_owned(), Default::default());
    plan
}

pub(crate) fn schema() -> Part {
    Part::Schema(Schema {
        collection: "keys".to_owned(),
        document: serde_json::json!({"prefix": false}),
        info: CollectionInfo::default(),
    })
}

/// Strings, under keys that are numbers.
pub(crate) fn strings(numbers: std::ops::Range<i64>, value: &str) -> Part {
    let mut batch = BatchBuilder::new("keys");
    for number in numbers {
        let json = serde_json::json!({"type": "string", "value": value}).to_string();
        batch.push_json(&Key::from(number), json.as_bytes()).unwrap();
    }
    Part::Records(batch.finish().unwrap())
}

pub(crate) async fn begin(store: &RedisStore, plan: &StagePlan) -> Box<dyn SinkSession> {
    let token = store.prepare(plan).await.unwrap().token;
    let session = store.begin(&token, &Cancel::new()).await.unwrap();
    session.write(schema()).await.unwrap();
    session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_midway_ends_a_backup_and_a_restore() {
    if !available() {
        return;
    }
    let mut server = Server::start(&[]);
    let mut raw = server.raw();
    for number in 0..40_000 {
        raw.run(&format!("SET {number} {}", "x".repeat(400)));
    }
    let store = open(&server).await;
    let session = pin(&store).await;
    let partition = session.partitions().await.unwrap().remove(0);
    session.next(&partition).await.unwrap();
    server.kill();
    let error = read(&*session).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    session.close().await.ok();

    server.restart();
    let store = open(&server).await;
    let token = store.prepare(&plan("r", WriteMode::Replace, 0)).await.unwrap().token;
    let session = store.begin(&token, &Cancel::new()).await.unwrap();
    session.write(schema()).await.unwrap();
    session.write(strings(0..10, "new")).await.unwrap();
    server.kill();
    let error = session.write(strings(10..20, "new")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    assert!(store.reattach(&token).await.is_err());
    server.restart();
    let found = store.reattach(&token).await.unwrap();
    assert!(matches!(found, backup_core::Reattached::Absent), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_is_refused_before_it_throws_live_keys_away() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    for number in 0..1000 {
        raw.run(&format!("SET live:{number} {}", "x".repeat(100)));
    }
    let before = content(&mut raw);
    let used = raw.text("INFO memory");
    let used: u64 =
        used.lines().find_map(|l| l.strip_prefix("used_memory:")).unwrap().parse().unwrap();
    raw.run(&format!("CONFIG SET maxmemory {}", used + (1 << 20)));
    let store = open(&server).await;
    for (policy, named) in [("allkeys-lru", "throw live keys away"), ("noeviction", "raise")] {
        raw.run(&format!("CONFIG SET maxmemory-policy {policy}"));
        let refused = store.prepare(&plan("r", WriteMode::Replace, 50 << 20)).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        assert!(error.to_string().contains(policy) && error.advice().contains(named), "{error:?}");
    }
    // An archive that says less than it has: the server refuses, and nothing is lost.
    for mode in [WriteMode::Replace, WriteMode::Merge] {
        let session = begin(&store, &plan("r", mode, 0)).await;
        let mut outcome = Ok(());
        for round in 0..200 {
            outcome =
                session.write(strings(round * 100..round * 100 + 100, &"y".repeat(500))).await;
            if outcome.is_err() {
                break;
            }
        }
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        session.abort().await.unwrap();
        assert_eq!(content(&mut raw), before);
        assert_eq!(leftovers(&mut raw), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_is_taken_back_on_a_server_without_memory() {
    if !available() {
        return;
    }
    for options in [&[][..], &["databases 1"][..]] {
        let server = Server::start(options);
        let mut raw = server.raw();
        raw.run("SET live old");
        raw.run("SET 1 old");
        let before = content(&mut raw);
        let store = open(&server).await;
        let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
        session.write(strings(0..500, "new")).await.unwrap();
        session.verify(&Default::default()).await.unwrap();
        raw.run("CONFIG SET maxmemory 1000");
        session.commit().await.unwrap();
        assert_eq!(content(&mut raw).len(), 500);
        session.undo().await.unwrap();
        assert_eq!(content(&mut raw), before);
        session.finish().await.unwrap();
        assert_eq!(leftovers(&mut raw), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_read_and_not_written() {
    if !available() {
        return;
    }
    let (primary, replica) = (Server::start(&[]), Server::start(&[]));
    primary.raw().run("SET a 1");
    let mut raw = replica.raw();
    raw.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    while raw.text("INFO replication").contains("master_link_status:down") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let store = open(&replica).await;
    let session = pin(&store).await;
    assert_eq!(read(&*session).await.unwrap(), 1);
    session.close().await.unwrap();
    let error = store.prepare(&plan("r", WriteMode::Replace, 0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.advice().contains("primary"));
    // One that becomes a replica later refuses by itself.
    let other = Server::start(&[]);
    let store = open(&other).await;
    let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
    other.raw().run(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    let error = session.write(strings(0..3, "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_expire_vanish_or_change_their_type_while_they_are_read() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    for number in 0..2000 {
        raw.run(&format!("SET stays:{number} x"));
    }
    let writer = Writer::start(1, move |round| {
        for number in 0..50 {
            let key = format!("odd:{number}");
            raw.run(&format!("DEL {key}"));
            match (round + number) % 6 {
                0 => raw.run(&format!("SET {key} x PX 1")),
                1 => raw.run(&format!("HSET {key} f v")),
                2 => raw.run(&format!("RPUSH {key} a b")),
                3 => raw.run(&format!("XADD {key} * f v")),
                4 => raw.run(&format!("ZADD {key} 1 m")),
                _ => raw.run(&format!("SADD {key} m")),
            };
        }
    });
    let store = RedisStore::options(&server.url()).every_prefix().connect().await.unwrap();
    for _ in 0..20 {
        let session = pin(&store).await;
        let read = read(&*session).await.unwrap();
        assert!(read >= 2000, "{read} records");
        let summary = session.close().await.unwrap();
        assert_eq!(summary.changed, Some(true));
    }
    writer.stop();
    let session = pin(&store).await;
    read(&*session).await.unwrap();
    assert_eq!(session.close().await.unwrap().changed, Some(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_repeats_keys_counts_them_once() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.run("DEBUG POPULATE 3000 key");
    for number in 0..3000 {
        raw.run(&format!("HSET large field:{number} {number}"));
    }
    // As while a table is resized: what a cursor has passed comes again, once of each command.
    let again = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let repeated = Arc::clone(&again);
    let port = Proxy::before(server.port, move |words| {
        let cursor = match &words[0][..] {
            b"SCAN" => 1,
            b"HSCAN" => 2,
            _ => return,
        };
        if words[cursor] != b"0" && repeated.lock().unwrap().insert(words[0].clone()) {
            words[cursor] = b"0".to_vec();
        }
    });
    let url = format!("redis://127.0.0.1:{port}");
    let session = pin(&RedisStore::connect(&url).await.unwrap()).await;
    assert_eq!(read(&*session).await.unwrap(), 3000 + 1 + 3000);
    session.close().await.unwrap();
    assert_eq!(again.lock().unwrap().len(), 2, "nothing was repeated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moved_ends_the_restore_and_live_keys_stay() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let mut raws = cluster.raws();
    cluster.bytes(&[b"SET", b"live", b"old"], &mut raws);
    let store = RedisStore::connect(&cluster.url()).await.unwrap();
    let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
    session.write(strings(0..50, "new")).await.unwrap();
    // A slot that is empty, and belongs to the first server: it goes to the second.
    let slot = 100;
    let id = raws[1].text("CLUSTER MYID");
    for raw in &mut raws {
        raw.run(&format!("CLUSTER SETSLOT {slot} NODE {id}"));
    }
    let outcome = session.write(strings(50..60_000, "new")).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
    session.abort().await.unwrap();
    let found: Vec<String> = raws.iter_mut().flat_map(content).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(raws.iter_mut().flat_map(leftovers).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_payload_is_refused_and_live_keys_stay() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.run("SET live old");
    raw.run("HSET hash f v");
    let redis::Value::BulkString(good) = raw.run("DUMP hash") else { panic!("no payload") };
    let before = content(&mut raw);
    let store = open(&server).await;
    let (mut flipped, mut newer) = (good.clone(), good.clone());
    flipped[1] ^= 1;
    let version = newer.len() - 10;
    newer[version] = 200;
    for (payload, taken) in [(good, true), (flipped, false), (newer, false)] {
        let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
        let mut batch = BatchBuilder::new("keys");
        let written = batch.push(&Key::from("module"), |json| {
            json.begin_object()?;
            json.name("dump")?;
            backup_core::record::tagged::bytes(json, &payload);
            json.name("type")?;
            json.string("hash");
            json.end_object();
            Ok(())
        });
        written.unwrap();
        let outcome = session.write(Part::Records(batch.finish().unwrap())).await;
        assert_eq!(outcome.is_ok(), taken);
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
            assert!(error.advice().contains("damaged or of a newer server"), "{error:?}");
        }
        session.abort().await.unwrap();
        assert_eq!(content(&mut raw), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_asked_for_and_never_shown() {
    if !available() {
        return;
    }
    let mut server = Server::start(&["requirepass topsecret"]);
    let options = || RedisStore::options(&server.url());
    for wrong in [options(), options().password("wrongsecret")] {
        let shown = format!("{wrong:?}");
        let error = wrong.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        let said = format!("{shown} {error:?} {}", error.report());
        assert!(!said.contains("secret"), "{said}");
    }
    let store = options().password("topsecret").connect().await.unwrap();
    assert!(!format!("{store:?}").contains("secret"));
    let description = store.describe().await.unwrap();
    assert!(!format!("{description:?}").contains("secret"));
    let in_address = format!("redis://:topsecret@127.0.0.1:{}", server.port);
    let store = RedisStore::connect(&in_address).await.unwrap();
    let token = store.prepare(&plan("r", WriteMode::Replace, 0)).await.unwrap().token;
    server.kill();
    let error = store.describe().await.unwrap_err();
    let said = format!("{store:?} {token:?} {error:?}");
    assert!(!said.contains("secret"), "{said}");
    let error = RedisStore::connect("redis://:topsecret@[").await.unwrap_err();
    assert!(!error.report().contains("secret"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protected_mode_is_named() {
    if !available() {
        return;
    }
    let outside = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let Some(outside) = outside.ok().filter(|address| !address.ip().is_loopback()) else {
        return said_aloud("this machine has no address but loopback");
    };
    let server = Server::start(&["bind 0.0.0.0", "protected-mode yes"]);
    let url = format!("redis://{}:{}", outside.ip(), server.port);
    let error = RedisStore::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.advice().contains("protected mode"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_is_too_short_is_an_error_and_writers_go_on() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.run("DEBUG POPULATE 1000 key 100");
    let consistency = Consistency::Paused(Duration::from_millis(200));
    let store = RedisStore::options(&server.url()).consistency(consistency);
    let store = store.connect().await.unwrap();
    let session = pin(&store).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    let error = read(&*session).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    session.close().await.unwrap();
    // A session that is dropped leaves no pause behind that outlives its time.
    drop(pin(&store).await);
    let begun = std::time::Instant::now();
    raw.run("SET a b");
    assert!(begun.elapsed() < Duration::from_secs(2), "writers were held back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_swap_leaves_everything_as_it_was() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.run("SET live old");
    raw.run("ACL SETUSER some on >pw ~* +@all -swapdb");
    let before = content(&mut raw);
    let store = RedisStore::options(&server.url()).username("some").password("pw");
    let store = store.connect().await.unwrap();
    let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
    session.write(strings(0..10, "new")).await.unwrap();
    let error = session.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert_eq!(content(&mut raw), before);
    session.abort().await.unwrap();
    assert_eq!(leftovers(&mut raw), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_spare_database_keys_are_renamed() {
    if !available() {
        return;
    }
    let server = Server::start(&["databases 1"]);
    let mut raw = server.raw();
    raw.run("SET live old");
    raw.run("SET 1 old");
    let before = content(&mut raw);
    let store = open(&server).await;
    let prepared = store.prepare(&plan("r", WriteMode::Replace, 0)).await.unwrap();
    assert!(!prepared.switch.is_atomic());
    let session = store.begin(&prepared.token, &Cancel::new()).await.unwrap();
    session.write(schema()).await.unwrap();
    session.write(strings(0..2000, "new")).await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(content(&mut raw).len(), 2000);
    session.undo().await.unwrap();
    session.finish().await.unwrap();
    assert_eq!(content(&mut raw), before);
    assert_eq!(leftovers(&mut raw), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_checked_against_the_certificate_that_is_given() {
    if !available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let openssl = |arguments: &[&str]| {
        let done = std::process::Command::new("openssl").args(arguments).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    for ca in ["ca", "other"] {
        let (key, cert) = (path(&format!("{ca}.key")), path(&format!("{ca}.crt")));
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test ca",
            "-keyout",
            &key,
            "-out",
            &cert,
        ]);
    }
    let (key, request, cert) = (path("s.key"), path("s.csr"), path("s.crt"));
    let subject = "/CN=localhost";
    openssl(&[
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", &key, "-out", &request,
    ]);
    std::fs::write(path("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &path("ca.crt"),
        "-CAkey",
        &path("ca.key"),
        "-CAcreateserial",
        "-days",
        "2",
        "-out",
        &cert,
        "-extfile",
        &path("ext"),
    ]);
    let tls = free_port();
    let server = Server::start(&[
        &format!("tls-port {tls}"),
        &format!("tls-cert-file {cert}"),
        &format!("tls-key-file {key}"),
        &format!("tls-ca-cert-file {}", path("ca.crt")),
        "tls-auth-clients no",
    ]);
    server.raw().run("SET a 1");
    let url = format!("rediss://localhost:{tls}");
    let with =
        |ca: &str| RedisStore::options(&url).root_certificate(std::fs::read(path(ca)).unwrap());
    for consistency in [Consistency::Fuzzy, Consistency::Snapshot(Duration::from_secs(60))] {
        let store = with("ca.crt").consistency(consistency).connect().await.unwrap();
        let session = pin(&store).await;
        assert_eq!(read(&*session).await.unwrap(), 1);
        session.close().await.unwrap();
    }
    for wrong in [with("other.crt"), RedisStore::options(&url)] {
        let error = wrong.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_names_the_primary() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    server.raw().run("SET a 1");
    let monitor = format!("sentinel monitor main 127.0.0.1 {} 1", server.port);
    let sentinel = Server::start_sentinel(&[&monitor]);
    let options = |name: &str| RedisStore::options(&sentinel.url()).sentinel(name);
    let store = options("main").connect().await.unwrap();
    let session = pin(&store).await;
    assert_eq!(read(&*session).await.unwrap(), 1);
    session.close().await.unwrap();
    let error = options("nobody").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_is_told_of_both_switches() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let told = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let hook = Arc::clone(&told);
    let store = RedisStore::options(&server.url()).after_switch(move || {
        hook.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    let store = store.connect().await.unwrap();
    let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
    session.commit().await.unwrap();
    session.undo().await.unwrap();
    session.finish().await.unwrap();
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_restore_left_is_found_and_removed() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.run("SET live old");
    let before = content(&mut raw);
    let store = open(&server).await;
    assert_eq!(store.leftovers().await.unwrap(), []);
    // Beside the live keys: removed. In a spare database: named.
    for (mode, inside) in [(WriteMode::Merge, true), (WriteMode::Replace, false)] {
        let session = begin(&store, &plan("r", mode, 0)).await;
        session.write(strings(0..100, "new")).await.unwrap();
        drop(session);
        let found = store.leftovers().await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&*found[0].restore_id, &*found[0].state), ("r", "staged"));
        assert_eq!(found[0].database == 0, inside);
        let removed = store.remove_leftover(&found[0]).await;
        if inside {
            removed.unwrap();
            assert_eq!(leftovers(&mut raw), Vec::<String>::new());
        } else {
            let error = removed.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.advice().contains("FLUSHDB"), "{error:?}");
            raw.run("FLUSHALL");
            raw.run("SET live old");
        }
        assert_eq!(content(&mut raw), before);
    }
    // One that has switched is for its journal.
    let session = begin(&store, &plan("r", WriteMode::Merge, 0)).await;
    session.write(strings(0..10, "new")).await.unwrap();
    session.commit().await.unwrap();
    let found = store.leftovers().await.unwrap();
    let error = store.remove_leftover(&found[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unfinished, "{error:?}");
    session.undo().await.unwrap();
    session.finish().await.unwrap();
    assert_eq!(content(&mut raw), before);
}
