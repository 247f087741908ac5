//! Records that are added to a graph in use.

use backup_core::{ErrorKind, Reattached, Result, Sink, Switch, WriteMode, record::Key};
use backup_neo4j::{Neo4jOptions, Neo4jStore};
use neo4j_testserver::{Server, shared};
use serde_json::{Value, json};

use crate::{
    archive::Archive,
    kit::{content, leftovers, options, runtime},
};

const WAYS: [(u64, Switch); 2] = [(u64::MAX, Switch::AtomicCopy), (0, Switch::Stepwise)];

/// A graph in which people are found by `id`, and towns by what the host says.
fn live(server: &Server) {
    server.clear().expect("empty");
    for statement in [
        "CREATE CONSTRAINT people FOR (n:Person) REQUIRE n.id IS UNIQUE",
        "CREATE CONSTRAINT mails FOR (n:Person) REQUIRE n.mail IS UNIQUE",
        "CREATE (a:Person {id: 1, name: 'old', mail: 'a@x', gone: true}), (b:Person {id: 2, name: 'b'}), \
         (c:Person:Admin {id: 7, mail: 'c@x'}), (t:Town {land: 'de', name: 'Berlin', size: 3}), \
         (a)-[:KNOWS {since: 1}]->(b), (a)-[:KNOWS {since: 2}]->(b), (b)-[:KNOWS {since: 3}]->(c), \
         (a)-[:LIVES {rent: 1.5}]->(t), (a)-[:OWNS]->(:Thing {what: 'no key'})",
    ] {
        server.cypher(statement, json!({})).expect(statement);
    }
}

fn keyed(server: &Server) -> Neo4jOptions {
    options(server).key("Town", ["land", "name"])
}

fn document(labels: &[&str], key: &[&str]) -> Value {
    json!({"labels": labels, "key": key, "constraints": [], "indexes": []})
}

fn person(id: i64, more: Value) -> (Value, Value) {
    let mut value = json!({"id": id});
    for (name, member) in more.as_object().expect("an object") {
        value[name] = member.clone();
    }
    (json!(id), value)
}

fn link(from: &Value, to: &Value, number: u64, properties: Value) -> (Value, Value) {
    (json!([from, to, number]), json!({"from": from, "properties": properties, "to": to}))
}

fn people(records: &[(Value, Value)]) -> Archive {
    Archive::default().with("Person", document(&["Person"], &["id"]), records)
}

fn with_links(archive: Archive, name: &str, records: &[(Value, Value)]) -> Archive {
    let document = json!({"type": name, "constraints": [], "indexes": []});
    archive.with(&format!("[{name}]"), document, records)
}

/// One of every sort: there and other, new, and between them what is there, new, or ends at
/// something that is live only.
fn archive() -> Archive {
    let (a, b, new) = (json!(["Person", 1]), json!(["Person", 2]), json!(["Person", 3]));
    let (berlin, rome) = (json!(["Town", ["de", "Berlin"]]), json!(["Town", ["it", "Rome"]]));
    let rule = json!({"name": "things", "type": "UNIQUENESS", "entity": "NODE", "on": ["New"],
                      "properties": ["id"],
                      "options": {"indexConfig": {}, "indexProvider": "range-1.0"}});
    let index = json!({"name": "new names", "type": "TEXT", "entity": "NODE", "on": ["New"],
                       "properties": ["id"],
                       "options": {"indexConfig": {}, "indexProvider": "text-2.0"}});
    let mut with_rules = document(&["New"], &["id"]);
    with_rules["constraints"] = json!([rule]);
    with_rules["indexes"] = json!([index]);
    let all = people(&[
        person(1, json!({"name": "new", "mail": "a@x", "born": {"$type": "Date", "_value": "1970-01-01"}})),
        person(3, json!({"name": "third"})),
    ])
    .with(
        "Town",
        document(&["Town"], &["land", "name"]),
        &[(json!(["it", "Rome"]), json!({"land": "it", "name": "Rome"}))],
    )
    .with("New", with_rules, &[(json!("x"), json!({"id": "x"}))]);
    let all = with_links(
        all,
        "KNOWS",
        &[
            link(&a, &b, 1, json!({"since": 20})),
            link(&a, &b, 2, json!({"since": 30})),
            link(&a, &new, 0, json!({})),
            link(&new, &new, 0, json!({"self": true})),
        ],
    );
    with_links(
        all,
        "LIVES",
        &[link(&a, &berlin, 0, json!({"rent": 2.5})), link(&b, &rome, 0, json!({}))],
    )
}

async fn stage(store: &Neo4jStore, archive: &Archive) -> Result<Box<dyn backup_core::SinkSession>> {
    let (_, session) = archive.begin(store, "merge", WriteMode::Merge).await?;
    for batch in &archive.batches {
        let keys: Vec<Key> = batch.iter().map(|record| record.key()).collect();
        session.existing(batch.collection(), &keys).await?;
    }
    archive.write(&*session).await?;
    assert_eq!(session.verify(&archive.content()).await?, archive.content());
    Ok(session)
}

/// What a query gives.
fn rows(server: &Server, statement: &str) -> Value {
    server.cypher(statement, json!({})).expect(statement).into()
}

#[test]
fn records_come_into_a_live_graph_and_leave_it_again() {
    let Some(server) = shared() else { return };
    let ids = "MATCH (n) OPTIONAL MATCH (n)-[r]->() WITH n, r ORDER BY id(n), id(r) \
               RETURN id(n), collect(id(r))";
    for (memory, switch) in WAYS {
        live(&server);
        let (before, old_ids) = (content(&server), rows(&server, ids));
        runtime().block_on(async {
            let store = keyed(&server).transaction_memory(memory).connect().await.unwrap();
            let plan = archive().plan("merge", WriteMode::Merge);
            assert_eq!(store.prepare(&plan).await.unwrap().switch, switch);
            for undone in [true, false] {
                let session = stage(&store, &archive()).await.unwrap();
                assert_eq!(content(&server), before);
                session.commit().await.unwrap();
                let found = session.verify(&archive().content()).await.unwrap();
                assert_eq!(found, archive().content());
                if undone {
                    session.undo().await.unwrap();
                    assert_eq!(content(&server), before);
                    assert_eq!(
                        rows(&server, "MATCH (n:Person) RETURN count(n)")[0][0]["_value"],
                        "3"
                    );
                }
                session.finish().await.unwrap();
                assert_eq!(leftovers(&server), Vec::<String>::new());
                if undone {
                    assert_eq!(rows(&server, ids), old_ids);
                }
            }
        });
        let is = |statement: &str| {
            assert_eq!(
                rows(&server, statement),
                json!([[{"$type": "Boolean", "_value": true}]]),
                "{statement}"
            );
        };
        // The archive's, wholly; what else hung on the live nodes still does.
        is(
            "MATCH (n:Person {id: 1}) RETURN n.name = 'new' AND n.gone IS NULL AND n.born = date('1970-01-01')",
        );
        is("MATCH (:Person {id: 1})-[:OWNS]->(:Thing) RETURN count(*) = 1");
        is("MATCH (:Person {id: 2})-[r:KNOWS]->(:Admin) RETURN collect(r.since) = [3]");
        is(
            "MATCH (:Person {id: 1})-[r:KNOWS]->(:Person {id: 2}) WITH r.since AS s ORDER BY s RETURN collect(s) = [1, 20, 30]",
        );
        is(
            "MATCH (:Person {id: 1})-[r:KNOWS]->(:Person {id: 3, name: 'third'}) RETURN count(r) = 1",
        );
        is("MATCH (n:Person {id: 3})-[r:KNOWS]->(n) RETURN collect(r.self) = [true]");
        is(
            "MATCH (:Person {id: 1})-[r:LIVES]->(t:Town) RETURN collect([r.rent, t.size]) = [[2.5, 3]]",
        );
        is("MATCH (:Person {id: 2})-[:LIVES]->(t:Town) RETURN collect(t.name) = ['Rome']");
        is("MATCH (n) RETURN count(n) = 8");
        // A label that nothing live had brings its rules with it.
        is(
            "SHOW CONSTRAINTS YIELD name ORDER BY name RETURN collect(name) = ['mails', 'people', 'things']",
        );
        is("SHOW INDEXES YIELD name WHERE name = 'new names' RETURN count(*) = 1");
    }
}

#[test]
fn what_changes_after_it_was_compared_is_not_written_over() {
    let Some(server) = shared() else { return };
    let cases = [
        ("a node", "MATCH (n:Person {id: 1}) SET n.name = 'meanwhile'"),
        ("a key that was free", "CREATE (:Person {id: 3})"),
        ("a node that is gone", "MATCH (n:Person {id: 1}) DETACH DELETE n"),
        ("a relationship", "MATCH (:Person)-[r:LIVES]->() SET r.rent = 7.5"),
        (
            "a free number of one",
            "MATCH (a:Person {id: 1}), (b:Person {id: 2}) CREATE (a)-[:KNOWS {since: 9}]->(b)",
        ),
        ("a relationship that is gone", "MATCH (:Person {id: 1})-[r:LIVES]->() DELETE r"),
    ];
    for (memory, _) in WAYS {
        for (what, meanwhile) in cases {
            live(&server);
            runtime().block_on(async {
                let store = keyed(&server).transaction_memory(memory).connect().await.unwrap();
                let session = stage(&store, &archive()).await.unwrap();
                server.cypher(meanwhile, json!({})).expect(meanwhile);
                let before = content(&server);
                let error = session.commit().await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Changed, "{what}: {}", error.report());
                assert_eq!(content(&server), before, "{what}");
                session.abort().await.unwrap();
                assert_eq!(content(&server), before, "{what}");
                assert_eq!(leftovers(&server), Vec::<String>::new(), "{what}");
            });
        }
        // Of others, nobody's business.
        live(&server);
        runtime().block_on(async {
            let store = keyed(&server).transaction_memory(memory).connect().await.unwrap();
            let session = stage(&store, &archive()).await.unwrap();
            let other = "MATCH (n:Person {id: 2}) SET n.name = 'other' CREATE (:Person {id: 99})";
            server.cypher(other, json!({})).expect("written");
            session.commit().await.unwrap();
            session.finish().await.unwrap();
        });
    }
}

#[test]
fn a_record_that_a_live_constraint_refuses_leaves_all_as_it_was() {
    let Some(server) = shared() else { return };
    for (memory, _) in WAYS {
        for (what, record) in [
            ("a key under other labels", person(7, json!({}))),
            ("a value that another has", person(8, json!({"mail": "a@x"}))),
        ] {
            live(&server);
            let before = content(&server);
            // The first of the records could be written.
            let archive = people(&[person(2, json!({"name": "first"})), record]);
            runtime().block_on(async {
                let store = keyed(&server).transaction_memory(memory).connect().await.unwrap();
                let session = stage(&store, &archive).await.unwrap();
                let error = session.commit().await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Incompatible, "{what}: {}", error.report());
                assert!(error.report().contains("leave the archive's record out"), "{what}");
                assert_eq!(content(&server), before, "{what}");
                session.abort().await.unwrap();
            });
            assert_eq!(content(&server), before, "{what}");
            assert_eq!(leftovers(&server), Vec::<String>::new(), "{what}");
        }
    }
}

#[test]
fn records_that_nothing_tells_apart_are_refused_before_the_switch() {
    let Some(server) = shared() else { return };
    live(&server);
    server
        .cypher(
            "CREATE (:Town {land: 'fr', name: 'Paris'}), (:Town {land: 'fr', name: 'Paris'})",
            json!({}),
        )
        .expect("made");
    let before = content(&server);
    let number = json!({"$type": "Node", "_value": "7"});
    let (a, nobody) = (json!(["Person", 1]), json!(["Person", 55]));
    let to = |end: &Value| with_links(people(&[]), "KNOWS", &[link(&a, end, 0, json!({}))]);
    let mut clash = document(&["New"], &["id"]);
    clash["constraints"] = json!([{"name": "people", "type": "UNIQUENESS", "entity": "NODE",
        "on": ["New"], "properties": ["id"], "options": null}]);
    let paris = (json!(["fr", "Paris"]), json!({"land": "fr", "name": "Paris"}));
    let cases = [
        (
            "another key than the live one",
            Archive::default().with("Person", document(&["Person"], &["mail"]), &[]),
        ),
        (
            "a key that is none here",
            Archive::default().with("Thing", document(&["Thing"], &["what"]), &[]),
        ),
        (
            "nodes without a key",
            Archive::default().with(
                "Thing",
                document(&["Thing"], &[]),
                &[(number.clone(), json!({}))],
            ),
        ),
        ("an end without a key", to(&json!(["Thing", number]))),
        ("an end that is nowhere", to(&nobody)),
        ("a name that is taken", Archive::default().with("New", clash, &[])),
        (
            "two live nodes of one key",
            Archive::default().with("Town", document(&["Town"], &["land", "name"]), &[paris]),
        ),
    ];
    runtime().block_on(async {
        let store = keyed(&server).connect().await.unwrap();
        for (what, archive) in cases {
            let plan = archive.plan("merge", WriteMode::Merge);
            let token = store.prepare(&plan).await.unwrap().token;
            let error = stage(&store, &archive).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{what}: {}", error.report());
            let Reattached::Staged(session) = store.reattach(&token).await.unwrap() else {
                panic!("{what}")
            };
            session.abort().await.unwrap();
            assert_eq!(content(&server), before, "{what}");
            assert_eq!(leftovers(&server), Vec::<String>::new(), "{what}");
        }
    });
}

#[test]
fn what_a_lost_merge_left_can_be_removed() {
    let Some(server) = shared() else { return };
    for (committed, (memory, _)) in [false, true].into_iter().zip(WAYS) {
        live(&server);
        let before = content(&server);
        runtime().block_on(async {
            let store = keyed(&server).transaction_memory(memory).connect().await.unwrap();
            let session = stage(&store, &archive()).await.unwrap();
            if committed {
                session.commit().await.unwrap();
            }
            drop(session);
            assert!(!leftovers(&server).is_empty());
            assert_eq!(store.remove_leftovers().await.unwrap(), ["merge"]);
        });
        assert_eq!(leftovers(&server), Vec::<String>::new());
        assert_eq!(content(&server) == before, !committed);
    }
}
