//! What changes under a reader or a writer at the worst moment.

use std::sync::Arc;

use backup_core::{
    Error, ErrorKind, Part, SourceSession, WriteMode,
    record::{BatchBuilder, Key, tagged},
};
use backup_redis::RedisStore;

use crate::{
    cluster::Cluster,
    faults::{begin, open, pin, plan, read, strings},
    proxy::Proxy,
    server::{Raw, Server, available, content, has, leftovers, said_aloud},
};

/// Keys with the types that were carried of them.
async fn types(session: &dyn SourceSession) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for partition in session.partitions().await.unwrap() {
        while let Some(part) = session.next(&partition).await.unwrap() {
            let Part::Records(batch) = part else { continue };
            for record in batch.iter().filter(|record| record.element_json().is_none()) {
                let value: serde_json::Value = serde_json::from_str(record.value_json()).unwrap();
                let kind = value["type"].as_str().unwrap().to_owned();
                found.push((record.key_json().to_owned(), kind));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_goes_or_becomes_another_between_scan_and_read_is_as_it_is_then() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    let all = [
        "SET string x",
        "HSET hash f v",
        "RPUSH list a",
        "SADD set m",
        "ZADD zset 1 m",
        "XADD stream 1-1 f v",
    ];
    for later in ["DEL", "SET", "HSET", "XADD"] {
        raw.run("FLUSHALL");
        for command in all {
            raw.run(command);
        }
        raw.run("SET stays x");
        // After their types were told, and before the first value is.
        let mut meanwhile = server.raw();
        let mut done = false;
        let port = Proxy::before(server.port, move |words| {
            let reads = [&b"GETRANGE"[..], b"HSCAN", b"LRANGE", b"SSCAN", b"ZSCAN", b"XINFO"];
            if done || !reads.contains(&&words[0][..]) {
                return;
            }
            done = true;
            for key in all.map(|command| command.split(' ').nth(1).unwrap()) {
                meanwhile.run(&format!("DEL {key}"));
                match later {
                    "SET" => drop(meanwhile.run(&format!("SET {key} other"))),
                    "HSET" => drop(meanwhile.run(&format!("HSET {key} f other"))),
                    "XADD" => drop(meanwhile.run(&format!("XADD {key} 1-1 f other"))),
                    // As if it had expired.
                    _ => {}
                }
            }
        });
        let store = RedisStore::connect(&format!("redis://127.0.0.1:{port}")).await.unwrap();
        let found = types(&*pin(&store).await).await;
        let of = |key: &str, kind: &str| (format!("\"{key}\""), kind.to_owned());
        let mut wanted = vec![of("stays", "string")];
        let kind = match later {
            "SET" => Some("string"),
            "HSET" => Some("hash"),
            "XADD" => Some("stream"),
            _ => None,
        };
        for key in all.map(|command| command.split(' ').nth(1).unwrap()) {
            wanted.extend(kind.map(|kind| of(key, kind)));
        }
        wanted.sort();
        assert_eq!(found, wanted, "{later}");
    }
}

/// The slot of a key, and the places of its owner and of another server.
fn owner(raws: &mut [Raw], key: &str) -> (i64, usize, usize) {
    let slot = redis::from_redis_value(raws[0].run(&format!("CLUSTER KEYSLOT {key}"))).unwrap();
    let owner = raws.iter_mut().position(|raw| raw.try_run(&[b"EXISTS", key.as_bytes()]).is_ok());
    let owner = owner.unwrap();
    (slot, owner, (owner + 1) % raws.len())
}

fn moving(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
    assert!(error.advice().contains("moved slots"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_on_its_way_is_named_and_live_keys_stay() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let mut raws = cluster.raws();
    let (slot, from, to) = owner(&mut raws, "7");
    raws[from].run("SET 7 old");
    let ids = [from, to].map(|at| raws[at].text("CLUSTER MYID"));
    let store = RedisStore::connect(&cluster.url()).await.unwrap();
    raws[to].run(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[0]));
    raws[from].run(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[1]));

    // A key of the slot that is not there yet: the server sends elsewhere (ASK).
    let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
    let error = session.write(strings(7..8, "new")).await.unwrap_err();
    moving(&error);
    assert!(error.report().contains("ASK"), "{}", error.report());
    session.abort().await.unwrap();
    assert_eq!(raws[from].text("GET 7"), "old");

    // One that has gone over already: it is on a server that does not own its slot (MOVED).
    let port = cluster.servers[to].port;
    raws[from].run(&format!("MIGRATE 127.0.0.1 {port} 7 0 5000"));
    let session = pin(&store).await;
    let error = read(&*session).await.unwrap_err();
    moving(&error);
    assert!(error.report().contains("MOVED"), "{}", error.report());
    session.close().await.unwrap();

    // At rest again it is read, and replaced.
    for at in [to, from, 3 - from - to] {
        raws[at].run(&format!("CLUSTER SETSLOT {slot} NODE {}", ids[1]));
    }
    cluster.wait();
    let session = pin(&store).await;
    assert_eq!(read(&*session).await.unwrap(), 1);
    session.close().await.unwrap();
    let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
    session.write(strings(7..8, "new")).await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(raws[to].text("GET 7"), "new");
    session.undo().await.unwrap();
    session.finish().await.unwrap();
    assert_eq!(raws[to].text("GET 7"), "old");
    assert_eq!(raws.iter_mut().flat_map(leftovers).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_during_the_switch_takes_it_back() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let mut raws = cluster.raws();
    let (slot, from, to) = owner(&mut raws, "7");
    for key in ["7", "8", "9"] {
        cluster.bytes(&[b"SET", key.as_bytes(), b"old"], &mut raws);
    }
    let before: Vec<String> = raws.iter_mut().flat_map(content).collect();
    let store = RedisStore::connect(&cluster.url()).await.unwrap();
    let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
    session.write(strings(0..50, "new")).await.unwrap();
    session.verify(&Default::default()).await.unwrap();
    // Keys that are not there are asked for elsewhere: the note that there was none cannot be made.
    let ids = [from, to].map(|at| raws[at].text("CLUSTER MYID"));
    raws[to].run(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[0]));
    raws[from].run(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[1]));
    let error = session.commit().await.unwrap_err();
    let stable = |raws: &mut [Raw]| {
        for at in [from, to] {
            raws[at].run(&format!("CLUSTER SETSLOT {slot} STABLE"));
        }
    };
    if error.kind() == ErrorKind::RepairNeeded {
        stable(&mut raws);
        session.undo().await.unwrap();
    } else {
        moving(&error);
        stable(&mut raws);
    }
    assert_eq!(raws.iter_mut().flat_map(content).collect::<Vec<_>>(), before);
    session.finish().await.unwrap();
    assert_eq!(raws.iter_mut().flat_map(leftovers).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_older_server_does_not_have_is_refused_and_named() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.run("SET live old");
    let before = content(&mut raw);
    let store = open(&server).await;
    for (lacks, element, value, named) in [
        ("JSON.SET", None, r#"{"json":{"a":1},"type":"ReJSON-RL"}"#, "RedisJSON"),
        ("HPEXPIREAT", Some("f"), r#"{"expires_at":4102444800000,"value":"v"}"#, "Redis 7.4"),
    ] {
        if has(&mut raw, lacks) {
            said_aloud("the server has all of it");
            continue;
        }
        let session = begin(&store, &plan("r", WriteMode::Replace, 0)).await;
        let (mut batch, key) = (BatchBuilder::new("keys"), Key::from("key"));
        match element {
            None => batch.push_json(&key, value.as_bytes()).unwrap(),
            Some(field) => {
                batch.push_json(&key, br#"{"type":"hash"}"#).unwrap();
                let value: serde_json::Value = serde_json::from_str(value).unwrap();
                batch.push_element(&key, &Key::from(field), |json| json.value(&value)).unwrap();
            }
        }
        let outcome = session.write(Part::Records(batch.finish().unwrap())).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.advice().contains(named), "{error:?}");
        session.abort().await.unwrap();
        assert_eq!(content(&mut raw), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_comes_twice_is_not_in_its_own_way() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.run("HSET hash f v");
    let redis::Value::BulkString(payload) = raw.run("DUMP hash") else { panic!("no payload") };
    let payload = Arc::new(payload);
    for mode in [WriteMode::Replace, WriteMode::Merge] {
        let store = open(&server).await;
        let session = begin(&store, &plan("r", mode, 0)).await;
        // As where a restore was begun again: BUSYKEY is what `RESTORE` says without `REPLACE`.
        for _ in 0..2 {
            let mut batch = BatchBuilder::new("keys");
            let written = batch.push(&Key::from("hash"), |json| {
                json.begin_object()?;
                json.name("dump")?;
                tagged::bytes(json, &payload);
                json.name("type")?;
                json.string("hash");
                json.end_object();
                Ok(())
            });
            written.unwrap();
            session.write(Part::Records(batch.finish().unwrap())).await.unwrap();
        }
        session.commit().await.unwrap();
        session.finish().await.unwrap();
        assert_eq!(raw.text("HGET hash f"), "v");
    }
}
