//! A switch that breaks off anywhere, and whoever goes on with it.

use std::{sync::Arc, time::Duration};

use backup_core::{Cancel, Reattached, Sink, StagePlan, StageToken, WriteMode};
use backup_redis::RedisStore;

use crate::{
    cluster::Cluster,
    faults::{plan, schema, strings},
    server::{Raw, Server, available, content, leftovers},
};

const KEYS: i64 = 3000;

fn all(raws: &mut [Raw]) -> Vec<String> {
    let mut all: Vec<String> = raws.iter_mut().flat_map(content).collect();
    all.sort();
    all
}

async fn staged(store: &RedisStore, plan: &StagePlan) -> StageToken {
    let token = store.prepare(plan).await.unwrap().token;
    let session = store.begin(&token, &Cancel::new()).await.unwrap();
    session.write(schema()).await.unwrap();
    session.write(strings(KEYS / 2..KEYS, "new")).await.unwrap();
    session.verify(&Default::default()).await.unwrap();
    token
}

fn put_old(raws: &mut [Raw]) {
    for raw in raws.iter_mut() {
        raw.run("FLUSHALL");
    }
    for number in 0..KEYS * 3 / 4 {
        let key = number.to_string();
        let done =
            raws.iter_mut().any(|raw| raw.try_run(&[b"SET", key.as_bytes(), b"old"]).is_ok());
        assert!(done);
    }
}

/// Breaks connections while it switches, at another moment each time, and lets another process
/// go on: forward or back, all keys are new or all are old.
async fn broken_off(url: &str, raws: &mut [Raw], mode: WriteMode) {
    let store = RedisStore::connect(url).await.unwrap();
    put_old(raws);
    let old = all(raws);
    // What it is when nothing goes wrong.
    let token = staged(&store, &plan("right", mode, 0)).await;
    let Reattached::Staged(session) = store.reattach(&token).await.unwrap() else { panic!() };
    let begun = std::time::Instant::now();
    session.commit().await.unwrap();
    let takes = begun.elapsed();
    session.finish().await.unwrap();
    let new = all(raws);
    assert_ne!(old, new);
    let mut broke = 0;
    // Where the machine is busy the connection may be cut too late each time: then more often.
    for round in 0..160_u32 {
        if round >= 16 && broke > 0 {
            break;
        }
        put_old(raws);
        let token = staged(&store, &plan(&format!("r{round}"), mode, 0)).await;
        let Reattached::Staged(session) = store.reattach(&token).await.unwrap() else { panic!() };
        let session: Arc<dyn backup_core::SinkSession> = session.into();
        let commit = tokio::spawn(async move { session.commit().await });
        tokio::time::sleep(takes * (round % 8) / 8 + Duration::from_micros(200)).await;
        for raw in raws.iter_mut() {
            raw.run("CLIENT KILL TYPE normal SKIPME yes");
        }
        let committed = commit.await.unwrap();
        broke += u32::from(committed.is_err());
        // Another process, which goes forward or back.
        let forward = round % 2 == 0;
        let again = RedisStore::connect(url).await.unwrap();
        let wanted = match again.reattach(&token).await.unwrap() {
            Reattached::Staged(session) if forward => {
                session.commit().await.unwrap();
                session.commit().await.unwrap();
                session.finish().await.unwrap();
                &new
            }
            Reattached::Staged(session) => {
                session.abort().await.unwrap();
                session.abort().await.unwrap();
                &old
            }
            Reattached::Committed(session) if forward && committed.is_ok() => {
                session.finish().await.unwrap();
                &new
            }
            // Committed, or being taken back.
            Reattached::Committed(session) => {
                session.undo().await.unwrap();
                session.undo().await.unwrap();
                session.finish().await.unwrap();
                &old
            }
            Reattached::Undone(session) => {
                session.finish().await.unwrap();
                &old
            }
            other => panic!("{other:?}"),
        };
        let found = all(raws);
        assert!(found == *wanted, "round {round}: {} keys of {}", found.len(), wanted.len());
        let left: Vec<String> = raws.iter_mut().flat_map(leftovers).collect();
        assert_eq!(left, Vec::<String>::new(), "round {round}");
    }
    assert!(broke > 0, "no switch broke off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_breaks_off_is_old_or_new() {
    if available() {
        let server = Server::start(&[]);
        broken_off(&server.url(), &mut [server.raw()], WriteMode::Replace).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_breaks_off_is_old_or_new() {
    if available() {
        let server = Server::start(&[]);
        broken_off(&server.url(), &mut [server.raw()], WriteMode::Merge).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_of_a_cluster_that_breaks_off_is_old_or_new() {
    if available() {
        let cluster = Cluster::start();
        broken_off(&cluster.url(), &mut cluster.raws(), WriteMode::Replace).await;
    }
}
