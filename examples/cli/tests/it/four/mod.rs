//! An agent's memory in four stores: rows in SQLite, vectors in Qdrant, a graph in Neo4j and keys in
//! Redis. One archive of all, and back: all of them or none.

mod servers;

use backup_kit::sqlite::rusqlite::params;
use neo4j_testserver::{Lease, shared};
use serde_json::{Value, json};

use self::servers::{Qdrant, Redis};
use crate::world::{Ran, World};

/// One memory, and the servers that it is at.
struct Memory {
    world: World,
    qdrant: Qdrant,
    graph: Lease,
    redis: Redis,
}

/// Everything that is in the four stores, read in each store's own way.
#[derive(Debug, PartialEq)]
struct Content {
    rows: Vec<(i64, String, i64)>,
    collections: Value,
    points: Value,
    indexes: Value,
    graph: Vec<Value>,
    rules: Vec<Value>,
    databases: Vec<String>,
    keys: String,
    deadlines: Vec<String>,
}

/// What the application asks its memory.
#[derive(Debug, PartialEq)]
struct Answers {
    search: Value,
    walk: Vec<Value>,
    reads: Vec<String>,
}

const DOCUMENTS: i64 = 60;

/// A vector that only this document has.
fn vector(document: i64) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    (1..=4).map(|axis| (((document * axis * 37) % 101) as f64 - 50.0) / 50.0).collect()
}

/// How many keys each database has, and how many of them expire.
fn databases(info: &str) -> Vec<String> {
    let lines = info.lines().filter(|line| line.starts_with("db"));
    lines.map(|line| line.split(",avg_ttl").next().unwrap_or_default().to_owned()).collect()
}

/// What a search found, without the number of the write that each point comes of.
fn found(mut answer: Value) -> Value {
    for point in answer["points"].as_array_mut().into_iter().flatten() {
        point.as_object_mut().map(|members| members.remove("version"));
    }
    answer
}

impl Memory {
    /// Servers with nothing in them; none where one of them cannot be had.
    fn start() -> Option<Self> {
        let (qdrant, redis) = (Qdrant::start()?, Redis::start()?);
        let graph = shared()?;
        let world = World::with(&format!(
            r#"
[app]
name = "agent"
version = "2.1.0"

[catalog]
path = "backups"

[[store]]
name = "rows"
kind = "sqlite"
path = "state.db"
mode = "logical"

[[store]]
name = "vectors"
kind = "qdrant"
url = "{}"
rest_url = "{}"

[[store]]
name = "graph"
kind = "neo4j"
url = "{}"

[[store]]
name = "keys"
kind = "redis"
url = "redis://127.0.0.1:{}"
user = "backup"
password = {{ env = "KEYS_PASSWORD" }}

[[reference]]
from = "rows/documents:/id"
to = "vectors/documents"
"#,
            qdrant.grpc,
            qdrant.rest,
            graph.bolt_url(),
            redis.port
        ));
        Some(Self { world, qdrant, graph, redis })
    }

    /// Puts the documents into all four, in the state of this edition.
    fn fill(&self, edition: i64) {
        let db = self.world.db();
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS documents
                 (id INTEGER PRIMARY KEY, title TEXT NOT NULL, edition INTEGER NOT NULL);
             DELETE FROM documents;",
        )
        .unwrap();
        self.qdrant.ask("DELETE", "/collections/documents", &Value::Null);
        let vectors = json!({"vectors": {"size": 4, "distance": "Cosine"}});
        self.qdrant.ask("PUT", "/collections/documents", &vectors);
        let index = json!({"field_name": "kind", "field_schema": "keyword"});
        self.qdrant.ask("PUT", "/collections/documents/index?wait=true", &index);
        self.graph.clear().unwrap();
        let unique = "CREATE CONSTRAINT document FOR (d:Document) REQUIRE d.id IS UNIQUE";
        self.cypher(unique, json!({}));
        self.redis.ask(&["FLUSHALL"]);

        let count = DOCUMENTS + edition;
        let title = |id: i64| format!("Document {id}, edition {edition}");
        for id in 1..=count {
            db.execute("INSERT INTO documents VALUES (?, ?, ?)", params![id, title(id), edition])
                .unwrap();
        }
        let points = (1..=count).map(|id| {
            let payload = json!({"title": title(id), "kind": format!("k{}", id % 3)});
            json!({"id": id, "vector": vector(id * (edition + 1)), "payload": payload})
        });
        let points = json!({"points": points.collect::<Vec<_>>()});
        self.qdrant.ask("PUT", "/collections/documents/points?wait=true", &points);
        self.cypher(
            "UNWIND range(1, $count) AS id CREATE (:Document {id: id, edition: $edition})",
            json!({"count": count, "edition": edition}),
        );
        self.cypher(
            "MATCH (a:Document), (b:Document) WHERE b.id = a.id + 1 + $edition \
             CREATE (a)-[:CITES {page: a.id * 10 + $edition}]->(b)",
            json!({"edition": edition}),
        );
        for id in 1..=count {
            let (key, title) = (format!("document:{id}"), title(id));
            self.redis.ask(&["HSET", &key, "title", &title, "state", "indexed"]);
            self.redis.ask(&["ZADD", "by-age", &format!("{id}.5"), &key]);
        }
        let deadline = (4_000_000_000_000 + edition).to_string();
        self.redis.ask(&["SET", "session", &title(0), "PXAT", &deadline]);
    }

    fn cypher(&self, statement: &str, parameters: Value) -> Vec<Value> {
        self.graph.cypher(statement, parameters).unwrap()
    }

    fn content(&self) -> Content {
        let db = self.world.db();
        let mut rows = db.prepare("SELECT id, title, edition FROM documents ORDER BY id").unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        let everything = json!({"limit": 1000, "with_vector": true, "with_payload": true});
        let read = |path: &str| self.qdrant.ask("GET", path, &Value::Null);
        let of_keys = |statement: &str| self.cypher(statement, json!({}));
        Content {
            rows: rows.map(Result::unwrap).collect(),
            // The names of all: nothing that a restore stages may stay.
            collections: read("/collections"),
            points: self.qdrant.ask("POST", "/collections/documents/points/scroll", &everything),
            indexes: read("/collections/documents")["payload_schema"].clone(),
            graph: of_keys(
                "MATCH (n) OPTIONAL MATCH (n)-[r]->(m) \
                 RETURN labels(n), properties(n), type(r), properties(r), labels(m), m.id \
                 ORDER BY n.id, m.id",
            ),
            rules: [
                of_keys("SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties"),
                of_keys("SHOW INDEXES YIELD name, type, state, properties ORDER BY name"),
            ]
            .concat(),
            databases: databases(&self.redis.ask(&["INFO", "keyspace"])),
            keys: self.redis.ask(&["DEBUG", "DIGEST"]),
            deadlines: vec![self.redis.ask(&["PEXPIRETIME", "session"])],
        }
    }

    fn answers(&self) -> Answers {
        let near = json!({
            "query": vector(7),
            "limit": 5,
            "with_payload": true,
            "filter": {"must": [{"key": "kind", "match": {"value": "k1"}}]},
        });
        Answers {
            search: found(self.qdrant.ask("POST", "/collections/documents/points/query", &near)),
            walk: self.cypher(
                "MATCH path = (:Document {id: 3})-[:CITES*1..4]->(d) \
                 RETURN d.id, d.edition, [r IN relationships(path) | r.page] ORDER BY d.id",
                json!({}),
            ),
            reads: vec![
                self.redis.ask(&["GET", "session"]),
                self.redis.ask(&["HGETALL", "document:9"]),
                self.redis.ask(&["ZRANGE", "by-age", "0", "4", "WITHSCORES"]),
            ],
        }
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.world.command(args).env("KEYS_PASSWORD", servers::PASSWORD).output().unwrap().into()
    }

    fn good(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:#?}");
        ran
    }
}

#[test]
fn four_stores_come_back_together_or_not_at_all() {
    let Some(memory) = Memory::start() else { return };
    memory.fill(0);
    let (first, asked) = (memory.content(), memory.answers());
    assert_eq!(asked.search["points"].as_array().map(Vec::len), Some(5), "{asked:#?}");
    assert_eq!(asked.walk.len(), 4, "{asked:#?}");
    memory.good(&["create"]);
    memory.good(&["validate", "latest"]);
    let archive = memory.run(&["list", "--json"]).document()["archives"][0]["path"].clone();
    let archive = archive.as_str().expect("its path");

    memory.fill(1);
    let (second, since) = (memory.content(), memory.answers());
    assert_ne!(asked, since);

    // The store that switches last refuses to: its user may do everything but that.
    let plan = memory.good(&["restore", archive, "--dry-run", "--json"]).document();
    let order: Vec<_> = plan["plan"]["stores"].as_array().expect("stores").iter().collect();
    assert_eq!(order.len(), 4, "{plan:#}");
    assert_eq!(order[3]["name"], "keys", "{plan:#}");
    memory.redis.ask(&["ACL", "SETUSER", "backup", "-swapdb"]);
    let refused = memory.run(&["restore", archive, "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    // What it was refused is the switch, which comes after those of all the others.
    assert!(refused.err.contains("keys"), "{refused:#?}");
    assert!(refused.err.to_lowercase().contains("swapdb"), "{refused:#?}");
    assert!(refused.err.contains("live content is as before"), "{refused:#?}");
    assert_eq!(memory.content(), second);
    assert_eq!(memory.answers(), since);

    memory.redis.ask(&["ACL", "SETUSER", "backup", "+swapdb"]);
    let restored = memory.good(&["restore", archive, "--yes", "--json"]).document();
    assert_eq!(restored["restored"], true, "{restored:#}");
    assert_eq!(memory.content(), first);
    assert_eq!(memory.answers(), asked);
}
