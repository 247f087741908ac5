//! A restore whose connection is cut at every request, and whoever goes on with it.

use std::time::Duration;

use backup_core::{Reattached, Result, Sink, StageToken, WriteMode};
use backup_neo4j::Neo4jStore;
use neo4j_testserver::{Lease, Server, shared};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    archive::Archive,
    kit::{content, leftovers, runtime},
    proxy::Proxy,
};

fn old(server: &Server) {
    for statement in [
        "CREATE CONSTRAINT people IF NOT EXISTS FOR (n:Person) REQUIRE n.id IS UNIQUE",
        "CREATE INDEX old IF NOT EXISTS FOR (n:Person) ON (n.name)",
        "CREATE (a:Person {id: 1, name: 'old'})-[:KNOWS {since: 1}]->(:Person:Old {id: 2}), (:Old)-[:KNOWS]->(a), ()",
    ] {
        server.cypher(statement, json!({})).expect(statement);
    }
}

fn new() -> Archive {
    let people = json!({"name": "people", "type": "UNIQUENESS", "entity": "NODE", "on": ["Person"],
                        "properties": ["id"], "options": {"indexConfig": {}, "indexProvider": "range-1.0"}});
    let index = json!({"name": "new", "type": "TEXT", "entity": "NODE", "on": ["Person"],
                       "properties": ["name"], "options": {"indexConfig": {}, "indexProvider": "text-2.0"}});
    let schema = |labels: &[&str], key: &[&str]| json!({"labels": labels, "key": key, "constraints": [people], "indexes": [index]});
    let number = json!({"$type": "Node", "_value": "7"});
    let (one, bare) = (json!(["Person", 1]), json!(["Bare", number]));
    let link = |from: &Value, to: &Value| {
        let value = json!({"from": from, "properties": {"since": 2}, "to": to});
        (json!([from, to, 0]), value)
    };
    Archive::default()
        .with(
            "Person",
            schema(&["Person"], &["id"]),
            &[(json!(1), json!({"id": 1, "name": "new"})), (json!(3), json!({"id": 3}))],
        )
        .with(
            "Bare",
            json!({"labels": ["Bare"], "constraints": [], "indexes": []}),
            &[(number, json!({}))],
        )
        .with(
            "[KNOWS]",
            json!({"type": "KNOWS", "constraints": [], "indexes": []}),
            &[link(&one, &bare), link(&one, &one)],
        )
}

/// What is merged into the old graph: a node that is there, a new one, a relationship that is there
/// and ends at a node that is live only, and a new one.
fn added() -> Archive {
    let schema = json!({"labels": ["Person"], "key": ["id"], "constraints": [], "indexes": []});
    let link = |from: i64, to: &Value| {
        let from = json!(["Person", from]);
        (json!([from, to, 0]), json!({"from": from, "properties": {"since": 2}, "to": to}))
    };
    let links = [link(1, &json!(["Old:Person", 2])), link(3, &json!(["Person", 1]))];
    Archive::default()
        .with(
            "Person",
            schema,
            &[(json!(1), json!({"id": 1, "name": "new"})), (json!(3), json!({"id": 3}))],
        )
        .with("[KNOWS]", json!({"type": "KNOWS", "constraints": [], "indexes": []}), &links)
}

async fn open(url: &str, memory: u64) -> Result<Neo4jStore> {
    Neo4jStore::options(url).patience(Duration::ZERO).transaction_memory(memory).connect().await
}

/// From the staged on.
async fn switch(store: &Neo4jStore, token: &StageToken) -> Result<()> {
    let Reattached::Staged(session) = store.reattach(token).await? else { panic!() };
    session.commit().await?;
    session.finish().await
}

/// To one of the two ends, which the number picks.
async fn recover(store: &Neo4jStore, token: &StageToken, forward: bool) -> Result<()> {
    match store.reattach(token).await? {
        Reattached::Absent => Ok(()),
        Reattached::Staged(session) if forward => {
            session.commit().await?;
            session.finish().await
        }
        Reattached::Staged(session) => session.abort().await,
        Reattached::Committed(session) if forward => match session.commit().await {
            Ok(()) => session.finish().await,
            // On its way back.
            Err(_) => {
                session.undo().await?;
                session.finish().await
            }
        },
        Reattached::Committed(session) => match session.undo().await {
            // What was live before is being removed already.
            Err(error) if error.to_string().contains("is being removed") => session.finish().await,
            undone => {
                undone?;
                session.finish().await
            }
        },
        Reattached::Undone(session) => session.finish().await,
        other => panic!("{other:?}"),
    }
}

/// A server with the old graph, and what leads to it.
struct Scene {
    server: Lease,
    before: Vec<String>,
    rt: Runtime,
    proxy: Proxy,
    /// Not through the proxy.
    direct: Neo4jStore,
}

fn scene(memory: u64) -> Option<Scene> {
    let server = shared()?;
    old(&server);
    let before = content(&server);
    let rt = runtime();
    let proxy = Proxy::before(server.bolt_address());
    let direct = rt.block_on(open(&server.bolt_url(), memory)).unwrap();
    Some(Scene { server, before, rt, proxy, direct })
}

fn cut_everywhere(memory: u64, archive: &Archive, mode: WriteMode) {
    let Some(Scene { server, before, rt, proxy, direct }) = scene(memory) else { return };
    let staged = || rt.block_on(archive.stage_to(&direct, "cut", mode)).unwrap().0;
    // What it is when nothing goes wrong.
    let token = staged();
    proxy.cut_after(i64::MAX, false);
    rt.block_on(async { switch(&open(&proxy.url(), memory).await?, &token).await }).unwrap();
    let (after, requests) = (content(&server), proxy.seen());
    assert_ne!(before, after);
    assert!(requests > 10, "{requests}");
    // Some of them: by another kind of cut each time, and by another recovery.
    let full = std::env::var("BACKUP_KIT_SWEEP").is_ok_and(|sweep| sweep == "full");
    for (round, cut) in (1..requests).step_by(if full { 1 } else { 17 }).enumerate() {
        server.clear().unwrap();
        old(&server);
        let token = staged();
        proxy.cut_after(cut, round % 2 == 0);
        let cut = rt.block_on(async { switch(&open(&proxy.url(), memory).await?, &token).await });
        assert!(cut.is_err() || !proxy.is_cut(), "round {round}");
        // Another process, whose connection is cut as well, and a third one.
        let forward = round % 3 != 0;
        proxy.cut_after((round as i64 * 11) % requests, round % 4 < 2);
        let _ = rt
            .block_on(async { recover(&open(&proxy.url(), memory).await?, &token, forward).await });
        rt.block_on(async {
            let third = open(&server.bolt_url(), memory).await?;
            recover(&third, &token, forward).await
        })
        .unwrap();
        let found = content(&server);
        assert!(found == before || found == after, "round {round}: {found:#?}");
        assert_eq!(leftovers(&server), Vec::<String>::new(), "round {round}");
    }
}

#[test]
fn a_switch_at_once_that_is_cut_is_old_or_new() {
    cut_everywhere(u64::MAX, &new(), WriteMode::Replace);
}

#[test]
fn a_switch_in_batches_that_is_cut_is_old_or_new() {
    cut_everywhere(0, &new(), WriteMode::Replace);
}

#[test]
fn a_merge_at_once_that_is_cut_is_old_or_new() {
    cut_everywhere(u64::MAX, &added(), WriteMode::Merge);
}

#[test]
fn a_merge_in_batches_that_is_cut_is_old_or_new() {
    cut_everywhere(0, &added(), WriteMode::Merge);
}

#[test]
fn staging_that_is_cut_leaves_what_was_there() {
    let Some(Scene { server, before, rt, proxy, direct }) = scene(0) else { return };
    let archive = new();
    let mut requests = 0;
    loop {
        requests += 3;
        proxy.cut_after(requests, requests % 2 == 0);
        let plan = archive.plan("cut", WriteMode::Replace);
        let token = rt.block_on(direct.prepare(&plan)).unwrap().token;
        let staged = rt.block_on(async {
            archive.stage(&open(&proxy.url(), 0).await?, "cut").await.map(drop)
        });
        match rt.block_on(direct.reattach(&token)).unwrap() {
            Reattached::Absent => {}
            Reattached::Staged(session) => rt.block_on(session.abort()).unwrap(),
            other => panic!("{other:?}"),
        }
        assert_eq!(leftovers(&server), Vec::<String>::new(), "after {requests} requests");
        assert_eq!(content(&server), before, "after {requests} requests");
        if staged.is_ok() {
            break;
        }
    }
    assert!(requests > 10, "{requests}");
}
