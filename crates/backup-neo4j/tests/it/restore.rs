//! Graphs that come back as they were, and what is refused.

use std::time::Duration;

use backup_core::{Adapter, Cancel, ErrorKind, Part, Reattached, Sink, Switch, WriteMode};
use backup_neo4j::{Neo4jOptions, Neo4jStore};
use neo4j_testserver::{Options, Server, available, several, shared, skip};
use serde_json::{Value, json};

use crate::{
    archive::Archive,
    kit::{content, leftovers, options, runtime},
    types::{RULES, TYPES},
};

/// A graph with everything in it that the Community edition has.
fn rich(server: &Server) {
    let run = |statement: &str| {
        server.cypher(statement, json!({})).expect(statement);
    };
    for (at, (written, _)) in TYPES.iter().enumerate() {
        run(&format!(
            "CREATE (a:Type {{key: {at}, value: {written}}})-[:TYPE {{value: {written}}}]->(a)"
        ));
    }
    run("CREATE CONSTRAINT c1 FOR (n:Type) REQUIRE n.key IS UNIQUE");
    RULES.into_iter().for_each(run);
    for statement in [
        "CREATE (a:A {x: 1, y: 1, t: 'text'}), (ab:A:B {x: 1, y: 2, v: [1.0, 2.0, 3.0]}), (b:B), \
         (bare {t: 'no label'}), (alike:B), (`odd`:`b``a\\u005Cck`:A {`p q`: 1, `$type`: 'x'}) \
         CREATE (a)-[:R {id: 1}]->(ab), (a)-[:R {id: 2}]->(ab), (a)-[:R]->(a), (ab)-[:R]->(a), \
         (b)-[:S]->(alike), (b)-[:S]->(alike), (bare)-[:`o]d``d` {`x y`: [1, 2]}]->(bare), \
         (odd)-[:S {`$type`: 'y'}]->(bare)",
        // A key that no index takes as it is.
        "MATCH (b:B) WHERE b.v IS NULL WITH b LIMIT 1 CREATE (b)-[:LONG]->(:Long {k: reduce(s = '', i IN range(1, 3000) | s + 'xy')})",
    ] {
        run(statement);
    }
}

/// Another graph, some of whose rules have the same names.
fn other(server: &Server) {
    for statement in [
        "CREATE CONSTRAINT c1 FOR (n:A) REQUIRE n.id IS UNIQUE",
        "CREATE CONSTRAINT old FOR ()-[r:S]-() REQUIRE r.id IS UNIQUE",
        "CREATE INDEX i1 FOR (n:Old) ON (n.x)",
        "CREATE TEXT INDEX i2 FOR (n:A) ON (n.t)",
        "UNWIND range(1, 20) AS i CREATE (:A {id: i, x: 1})-[:S {id: i}]->(:Old {x: i}) CREATE ({i: i})",
        "MATCH (a:A), (o:Old) WHERE o.x = a.id % 20 + 1 CREATE (o)-[:BACK]->(a)",
    ] {
        server.cypher(statement, json!({})).expect(statement);
    }
}

fn keyed(server: &Server) -> Neo4jOptions {
    options(server).key("Long", ["k"]).patience(Duration::from_secs(1))
}

fn comes_back(switch: Switch, with: fn(Neo4jOptions) -> Neo4jOptions) {
    let Some(servers) = several(2) else { return };
    let [from, to] = &servers[..] else { panic!() };
    rich(from);
    other(to);
    let (wanted, before) = (content(from), content(to));
    assert_ne!(wanted, before);
    runtime().block_on(async {
        let archive = Archive::of(&keyed(from).connect().await.unwrap()).await.unwrap();
        let store = with(keyed(to)).connect().await.unwrap();
        let plan = archive.plan("rich", WriteMode::Replace);
        assert_eq!(store.prepare(&plan).await.unwrap().switch, switch);
        for undone in [true, false] {
            let (_, session) = archive.stage(&store, "rich").await.unwrap();
            assert_eq!(content(to), before);
            session.commit().await.unwrap();
            assert_eq!(session.verify(&archive.content()).await.unwrap(), archive.content());
            if undone {
                session.undo().await.unwrap();
                assert_eq!(content(to), before);
            }
            session.finish().await.unwrap();
            assert_eq!(leftovers(to), Vec::<String>::new());
        }
        assert_eq!(content(to), wanted);
        let pairs = [
            store.describe().await.unwrap(),
            keyed(from).connect().await.unwrap().describe().await.unwrap(),
        ];
        assert_eq!(pairs[0].collections, pairs[1].collections);
    });
}

#[test]
fn a_graph_with_everything_comes_back_in_one_transaction_and_can_be_taken_back() {
    comes_back(Switch::AtomicCopy, |options| options);
}

#[test]
fn a_graph_with_everything_comes_back_in_batches_and_can_be_taken_back() {
    comes_back(Switch::Stepwise, |options| options.transaction_memory(0));
}

/// A collection of nodes that have `id`.
fn document(labels: &[&str], more: Value) -> Value {
    let mut document = json!({"labels": labels, "key": ["id"], "constraints": [], "indexes": []});
    for (name, value) in more.as_object().expect("an object") {
        document[name] = value.clone();
    }
    document
}

fn rule(kind: &str, properties: &[&str], options: Value) -> Value {
    json!({"name": "made up", "type": kind, "entity": "NODE", "on": ["New"],
           "properties": properties, "options": options})
}

#[test]
fn what_the_server_would_not_take_is_refused_before_the_switch() {
    let Some(server) = shared() else { return };
    other(&server);
    let before = content(&server);
    let ok = [(json!(1), json!({"id": 1, "x": 1})), (json!(2), json!({"id": 2, "x": 1}))];
    let new = |more: Value| Archive::default().with("New", document(&["New"], more), &ok);
    let with = |value: Value| {
        let records = [(json!(1), json!({"id": 1, "x": value}))];
        Archive::default().with("New", document(&["New"], json!({})), &records)
    };
    let links = |from: Value, to: Value| {
        let document = json!({"type": "LINKS", "constraints": [], "indexes": []});
        let link = (json!([from, to, 0]), json!({"from": from, "properties": {}, "to": to}));
        new(json!({})).with("[LINKS]", document, &[link])
    };
    let there = json!(["New", 1]);
    let one = |rule: Value| new(json!({"constraints": [rule]}));
    let index = |rule: Value| new(json!({"indexes": [rule]}));
    let provider = json!({"indexProvider": "range-9.9"});
    let cases: Vec<(&str, Archive, Option<ErrorKind>)> = vec![
        ("nothing wrong", links(there.clone(), json!(["New", 2])), None),
        ("a constraint that holds", one(rule("UNIQUENESS", &["id"], Value::Null)), None),
        (
            "a constraint that the records violate",
            one(rule("UNIQUENESS", &["x"], Value::Null)),
            Some(ErrorKind::Incompatible),
        ),
        (
            "a constraint of another edition",
            one(rule("NODE_PROPERTY_EXISTENCE", &["x"], Value::Null)),
            Some(ErrorKind::Incompatible),
        ),
        (
            "a constraint of an unknown kind",
            one(rule("NODE_PROPERTY_EVENNESS", &["x"], Value::Null)),
            Some(ErrorKind::Unsupported),
        ),
        (
            "an unknown index provider",
            index(rule("RANGE", &["x"], provider)),
            Some(ErrorKind::Unsupported),
        ),
        (
            "an unknown setting of an index",
            index(rule("POINT", &["x"], json!({"indexConfig": {"spatial.flat.min": [1.0, 2.0]}}))),
            Some(ErrorKind::Unsupported),
        ),
        (
            "a type of property that the server does not know",
            with(json!({"$type": "Vector", "_value": "FLOAT32[1.0,2.0]"})),
            Some(ErrorKind::Unsupported),
        ),
        (
            "a type that nobody knows",
            with(json!({"$type": "Colour", "_value": "red"})),
            Some(ErrorKind::Unsupported),
        ),
        ("an object", with(json!({"a": 1})), Some(ErrorKind::Unsupported)),
        ("a list of lists", with(json!([[1], [2]])), Some(ErrorKind::Unsupported)),
        ("a list of unlike things", with(json!([1, "a"])), Some(ErrorKind::Unsupported)),
        (
            "a relationship to a node that is not there",
            links(there.clone(), json!(["New", 3])),
            Some(ErrorKind::Corrupt),
        ),
        ("a relationship without an end", links(there, json!(7)), Some(ErrorKind::Corrupt)),
        (
            "a key that is there twice",
            Archive::default().with(
                "New",
                document(&["New"], json!({})),
                &[ok[0].clone(), ok[0].clone()],
            ),
            Some(ErrorKind::Corrupt),
        ),
        (
            "a property that only a restore has",
            Archive::default().with(
                "New",
                document(&["New"], json!({})),
                &[(json!(1), json!({"id": 1, "backup-kit:number": 1}))],
            ),
            Some(ErrorKind::Corrupt),
        ),
        (
            "the schema of other labels",
            Archive::default().with("New", document(&["Other"], json!({})), &[]),
            Some(ErrorKind::Incompatible),
        ),
    ];
    let rt = runtime();
    let store = rt.block_on(keyed(&server).connect()).unwrap();
    for (what, archive, refused) in cases {
        let outcome = rt.block_on(async {
            let (token, session) = archive.begin(&store, "bad", WriteMode::Replace).await?;
            let staged = async {
                archive.write(&*session).await?;
                let found = session.verify(&archive.content()).await?;
                assert_eq!(found, archive.content(), "{what}");
                Ok(())
            };
            let staged = staged.await;
            drop(session);
            let Reattached::Staged(session) = store.reattach(&token).await? else {
                panic!("{what}")
            };
            session.abort().await?;
            staged
        });
        let kind = outcome.as_ref().err().map(backup_core::Error::kind);
        assert_eq!(kind, refused, "{what}: {outcome:?}");
        assert_eq!(content(&server), before, "{what}");
        assert_eq!(leftovers(&server), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn names_of_a_plan_that_are_none_are_refused() {
    let Some(server) = shared() else { return };
    runtime().block_on(async {
        let store = keyed(&server).connect().await.unwrap();
        for name in ["", "[", "b:a", "`backup-kit:old`", "[backup-kit:old:R]"] {
            let archive = Archive::default().with(name, json!({}), &[]);
            assert!(store.prepare(&archive.plan("x", WriteMode::Replace)).await.is_err(), "{name}");
        }
        for id in ["", "a b", "`", "é"] {
            let plan = Archive::default().plan(id, WriteMode::Replace);
            assert!(store.prepare(&plan).await.is_err(), "{id}");
        }
    });
}

#[test]
fn of_two_restores_at_once_the_second_is_refused() {
    let Some(server) = shared() else { return };
    other(&server);
    let before = content(&server);
    runtime().block_on(async {
        let store = keyed(&server).connect().await.unwrap();
        let archive = Archive::of(&store).await.unwrap();
        let late = store.prepare(&archive.plan("late", WriteMode::Replace)).await.unwrap().token;
        let (_, first) = archive.begin(&store, "first", WriteMode::Replace).await.unwrap();
        // Refused where it is planned, or where it begins if it was planned before.
        let error = store.prepare(&archive.plan("second", WriteMode::Replace)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.report());
        let error = store.begin(&late, &Cancel::new()).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.report());
        assert!(matches!(store.reattach(&late).await.unwrap(), Reattached::Absent));
        archive.write(&*first).await.unwrap();
        first.commit().await.unwrap();
        first.finish().await.unwrap();
    });
    assert_eq!(content(&server), before);
    assert_eq!(leftovers(&server), Vec::<String>::new());
}

#[test]
fn what_a_lost_restore_left_can_be_removed() {
    let Some(server) = shared() else { return };
    other(&server);
    let before = content(&server);
    let document = document(&["New"], json!({}));
    let new = Archive::default().with("New", document, &[(json!(1), json!({"id": 1}))]);
    runtime().block_on(async {
        for (committed, memory) in [(false, 0), (true, 0), (true, u64::MAX)] {
            let store = keyed(&server).transaction_memory(memory).connect().await.unwrap();
            assert_eq!(store.remove_leftovers().await.unwrap(), Vec::<String>::new());
            let (_, session) = new.stage(&store, "lost").await.unwrap();
            if committed {
                session.commit().await.unwrap();
            }
            drop(session);
            assert!(!leftovers(&server).is_empty());
            assert_eq!(store.remove_leftovers().await.unwrap(), ["lost"]);
            assert_eq!(leftovers(&server), Vec::<String>::new());
            // What was committed had come to its end.
            assert_eq!(content(&server) == before, !committed);
            server.clear().expect("empty");
            other(&server);
        }
    });
}

#[test]
fn a_write_that_comes_late_leaves_nothing() {
    let Some(server) = shared() else { return };
    runtime().block_on(async {
        let store = Neo4jStore::options(&server.bolt_url()).connect().await.unwrap();
        let records: Vec<_> = (0..20_000).map(|i| (json!(i), json!({"id": i}))).collect();
        let archive = Archive::default().with("New", document(&["New"], json!({})), &records);
        let (token, session) = archive.begin(&store, "late", WriteMode::Replace).await.unwrap();
        session.write(Part::Schema(archive.schemas[0].clone())).await.unwrap();
        // Nobody waits for it any more, and the restore is given up.
        let write = session.write(Part::Records(archive.batches[0].clone()));
        let _ = tokio::time::timeout(Duration::from_millis(60), write).await;
        let Reattached::Staged(other) = store.reattach(&token).await.unwrap() else { panic!() };
        other.abort().await.unwrap();
        let write = session.write(Part::Records(archive.batches[0].clone()));
        let error = write.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.report());
    });
    assert_eq!(leftovers(&server), Vec::<String>::new());
    assert_eq!(server.cypher("MATCH (n) RETURN n", json!({})).unwrap(), Vec::<Value>::new());
}

#[test]
fn a_server_with_little_memory_takes_less_at_once_and_is_never_half_switched() {
    if let Err(missing) = available() {
        return skip(&missing);
    }
    let little = ("dbms.memory.transaction.total.max".to_owned(), "16m".to_owned());
    let server = Server::start(Options { settings: vec![little], ..Options::default() });
    let server = server.expect("a server");
    other(&server);
    let before = content(&server);
    let nodes: Vec<_> = (0..8000).map(|i| (json!(i), json!({"id": i}))).collect();
    let links = (1..8000).map(|i| {
        let (from, to) = (json!(["New", i - 1]), json!(["New", i]));
        (json!([from, to, 0]), json!({"from": from, "properties": {"n": i}, "to": to}))
    });
    let links: Vec<_> = links.collect();
    let link = json!({"type": "LINKS", "constraints": [], "indexes": []});
    let archive = Archive::default()
        .with("New", document(&["New"], json!({})), &nodes)
        .with("[LINKS]", link, &links);
    runtime().block_on(async {
        // The host insists on one transaction, and the server refuses it.
        let store = keyed(&server).transaction_memory(u64::MAX).connect().await.unwrap();
        let (_, session) = archive.stage(&store, "once").await.unwrap();
        let error = session.commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{}", error.report());
        assert_eq!(content(&server), before);
        session.abort().await.unwrap();
        assert_eq!(leftovers(&server), Vec::<String>::new());

        let store = keyed(&server).connect().await.unwrap();
        let plan = archive.plan("batches", WriteMode::Replace);
        assert_eq!(store.prepare(&plan).await.unwrap().switch, Switch::Stepwise);
        let (_, session) = archive.stage(&store, "batches").await.unwrap();
        session.commit().await.unwrap();
        assert_eq!(session.verify(&archive.content()).await.unwrap(), archive.content());
        session.finish().await.unwrap();
    });
    assert_eq!(leftovers(&server), Vec::<String>::new());
    let count = server.cypher("MATCH (:New)-[r:LINKS]->(:New) RETURN count(r)", json!({}));
    assert_eq!(count.expect("rows"), [json!([{"$type": "Integer", "_value": "7999"}])]);
}
