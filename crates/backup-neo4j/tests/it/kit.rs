//! What the tests share.

use std::collections::BTreeMap;

use backup_core::{Adapter, Error, Notice, Part, PinRequest, Pinned, Result, Source, Summary};
use backup_neo4j::{Neo4jOptions, Neo4jStore};
use neo4j_testserver::Server;
use tokio::runtime::Runtime;

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

pub(crate) fn options(server: &Server) -> Neo4jOptions {
    Neo4jStore::options(&server.bolt_url())
}

/// What a session gave.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Lines by collection, sorted.
    pub(crate) lines: BTreeMap<String, Vec<String>>,
    pub(crate) schemas: BTreeMap<String, serde_json::Value>,
    pub(crate) keys: BTreeMap<String, Vec<String>>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) statistics: BTreeMap<String, BTreeMap<String, u64>>,
    pub(crate) summary: Summary,
}

pub(crate) async fn read(store: &Neo4jStore, request: &PinRequest) -> Result<Read> {
    read_with(store, request, || {}).await
}

/// Reads all; `meanwhile` runs once the session has begun.
pub(crate) async fn read_with(
    store: &Neo4jStore,
    request: &PinRequest,
    meanwhile: impl FnOnce(),
) -> Result<Read> {
    let mut read = Read::default();
    let Pinned::Live { session, .. } = store.pin(request).await? else {
        return Err(Error::adapter("a graph over Bolt has no one moment"));
    };
    let mut meanwhile = Some(meanwhile);
    for partition in session.partitions().await? {
        while let Some(part) = session.next(&partition).await? {
            if let Some(meanwhile) = meanwhile.take() {
                meanwhile();
            }
            read.take(part);
        }
    }
    read.summary = session.close().await?;
    for lines in read.lines.values_mut() {
        lines.sort_unstable();
    }
    Ok(read)
}

impl Read {
    fn take(&mut self, part: Part) {
        match part {
            Part::Schema(schema) => {
                self.lines.entry(schema.collection.clone()).or_default();
                self.keys.insert(schema.collection.clone(), schema.info.key);
                let again = self.schemas.insert(schema.collection.clone(), schema.document);
                assert!(again.is_none(), "{} has two schemas", schema.collection);
            }
            Part::Records(batch) => {
                let lines = self.lines.get_mut(batch.collection()).expect("a schema came first");
                lines.extend(batch.iter().map(|record| record.line().to_owned()));
            }
            Part::End(end) => {
                let lines = self.lines[&end.collection].len() as u64;
                assert_eq!(end.count, Some(lines), "{}", end.collection);
                self.statistics.insert(end.collection, end.statistics);
            }
            Part::Notice(notice) => self.notices.push(notice),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn engine(store: &Neo4jStore) -> &'static str {
    store.kind()
}

/// All of a database as an application sees it, in order, without the adapter.
pub(crate) fn content(server: &Server) -> Vec<String> {
    let mut all = Vec::new();
    for statement in [
        "MATCH (n) WHERE none(l IN labels(n) WHERE l STARTS WITH 'backup-kit:') \
         RETURN COLLECT { UNWIND labels(n) AS l RETURN l ORDER BY l }, properties(n)",
        "MATCH (a)-[r]->(b) WHERE NOT type(r) STARTS WITH 'backup-kit:' \
         RETURN COLLECT { UNWIND labels(a) AS l RETURN l ORDER BY l }, properties(a), type(r), \
         properties(r), COLLECT { UNWIND labels(b) AS l RETURN l ORDER BY l }, properties(b)",
        "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties, options \
         WHERE NOT name STARTS WITH 'backup-kit:' \
         RETURN name, type, entityType, labelsOrTypes, properties, options",
        "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, options \
         WHERE NOT name STARTS WITH 'backup-kit:' \
         RETURN name, type, entityType, labelsOrTypes, properties, options",
    ] {
        let mut rows = server.cypher(statement, serde_json::json!({})).expect("content");
        // The server tells properties in the order in which they were set.
        rows.iter_mut().for_each(serde_json::Value::sort_all_objects);
        all.extend(rows.iter().map(ToString::to_string));
    }
    all.sort_unstable();
    all
}

/// Names of all that a restore has left in a database.
pub(crate) fn leftovers(server: &Server) -> Vec<String> {
    let mut all = Vec::new();
    for statement in [
        "CALL db.labels() YIELD label WHERE label STARTS WITH 'backup-kit:' RETURN label",
        "CALL db.relationshipTypes() YIELD relationshipType AS t \
         WHERE t STARTS WITH 'backup-kit:' RETURN t",
        "SHOW CONSTRAINTS YIELD name WHERE name STARTS WITH 'backup-kit:' RETURN name",
        "SHOW INDEXES YIELD name WHERE name STARTS WITH 'backup-kit:' RETURN name",
        "MATCH (n) UNWIND keys(n) AS k WITH k WHERE k STARTS WITH 'backup-kit:' RETURN DISTINCT k",
    ] {
        let rows = server.cypher(statement, serde_json::json!({})).expect("leftovers");
        all.extend(rows.iter().map(ToString::to_string));
    }
    all
}
