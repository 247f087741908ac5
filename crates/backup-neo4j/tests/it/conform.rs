//! The suite that every adapter runs.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use backup_conformance::{Asked, Dataset, Harness, Row, Rows};
use backup_core::{
    Error, ErrorKind, Result, async_trait,
    record::{Key, tagged::Scalar},
};
use backup_neo4j::{Neo4jOptions, Neo4jStore};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use neo4j_testserver::{Lease, several};
use serde_json::{Value, json};

use crate::kit::{content, leftovers, runtime};

/// Two servers, which are used again and again.
struct Kit {
    idle: Mutex<Vec<Lease>>,
    /// Whether nodes are followed by relationships.
    related: bool,
    options: fn(Neo4jOptions) -> Neo4jOptions,
}

struct Place<'a> {
    kit: &'a Kit,
    server: Option<Lease>,
}

impl Place<'_> {
    fn server(&self) -> &Lease {
        self.server.as_ref().expect("until it is dropped")
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.kit.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.server.take());
    }
}

fn name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``").replace('\\', "\\u005C"))
}

fn typed(value: &Scalar) -> Value {
    let (name, text) = match value {
        Scalar::Null => return json!({"$type": "Null", "_value": null}),
        Scalar::Bool(value) => return json!({"$type": "Boolean", "_value": value}),
        Scalar::Integer(value) => ("Integer", value.to_string()),
        Scalar::Float(value) if value.is_nan() => ("Float", "NaN".to_owned()),
        Scalar::Float(value) if value.is_infinite() => {
            ("Float", if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned())
        }
        Scalar::Float(value) => ("Float", format!("{value:?}")),
        Scalar::Text(value) => ("String", value.clone()),
        Scalar::Bytes(value) => ("Base64", BASE64_STANDARD.encode(value)),
    };
    json!({"$type": name, "_value": text})
}

/// The properties that hold a key.
fn key(key: &Key) -> Vec<(String, Scalar)> {
    let scalars = key.scalars().expect("the kit's keys are scalars");
    match &scalars[..] {
        [one] => vec![("key".to_owned(), one.clone())],
        several => {
            (0..).zip(several).map(|(n, s): (u8, _)| (format!("key{n}"), s.clone())).collect()
        }
    }
}

fn properties(row: &Row) -> Value {
    let fields = row.fields.iter().map(|(name, value)| (name.clone(), typed(value)));
    let key = key(&row.key).into_iter().map(|(name, value)| (name, typed(&value)));
    let all: serde_json::Map<String, Value> = fields.chain(key).collect();
    json!({"$type": "Map", "_value": all})
}

fn io(error: std::io::Error) -> Error {
    Error::io("the test's own statement failed", error)
}

impl Place<'_> {
    /// Nodes that are found by their key, and relationships from each to the next.
    fn put(&self, rows: &Rows) -> Result<()> {
        let server = self.server();
        if rows.name.contains([':', '`']) || rows.name.starts_with(['(', '[']) {
            let what = "a collection has another name than its label";
            return Err(Error::new(ErrorKind::Unsupported, what).on(&rows.name));
        }
        let label = name(&rows.name);
        let Some(first) = rows.rows.first() else { return Ok(()) };
        let on: Vec<_> = key(&first.key).iter().map(|(key, _)| format!("n.{key}")).collect();
        let rule = format!(
            "CREATE CONSTRAINT {} FOR (n:{label}) REQUIRE ({}) IS UNIQUE",
            name(&format!("key of {}.", rows.name)),
            on.join(", ")
        );
        server.cypher(&rule, json!({})).map_err(io)?;
        for chunk in rows.rows.chunks(1000) {
            let all: Vec<_> = chunk.iter().map(properties).collect();
            let made = format!("UNWIND $rows AS row CREATE (n:{label}) SET n = row");
            let all = json!({"rows": {"$type": "List", "_value": all}});
            server.cypher_typed(&made, all).map_err(io)?;
        }
        if !self.kit.related {
            return Ok(());
        }
        let next = format!(
            "MATCH (n:{label}) WITH n ORDER BY n.mark WITH collect(n) AS ns \
             UNWIND range(0, size(ns) - 2) AS i WITH ns[i] AS a, ns[i + 1] AS b, i \
             CREATE (a)-[:NEXT {{n: i}}]->(b)"
        );
        server.cypher(&next, json!({})).map_err(io).map(drop)
    }
}

#[async_trait(?Send)]
impl<'a> Harness for &'a Kit {
    type Place = Place<'a>;
    type Store = Neo4jStore;

    async fn place(&self) -> Result<Place<'a>> {
        let server = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let server = server.ok_or_else(|| Error::adapter("a case needs more than two places"))?;
        server.clear().map_err(io)?;
        Ok(Place { kit: self, server: Some(server) })
    }

    async fn open(&self, place: &Place<'a>) -> Result<Neo4jStore> {
        let options = Neo4jStore::options(&place.server().bolt_url());
        (self.options)(options).patience(Duration::from_secs(1)).connect().await
    }

    async fn fill(&self, place: &Place<'a>, data: &Dataset) -> Result<()> {
        data.collections.iter().try_for_each(|rows| place.put(rows))
    }

    async fn change(&self, place: &Place<'a>) -> Result<()> {
        let statement = "CREATE (:notes {key: 999999, mark: 'another'})";
        place.server().cypher(statement, json!({})).map_err(io).map(drop)
    }

    async fn dump(&self, place: &Place<'a>) -> Result<Option<Vec<String>>> {
        Ok(Some(content(place.server())))
    }

    async fn trace(&self, place: &Place<'a>) -> Result<Option<Vec<String>>> {
        Ok(Some(leftovers(place.server())))
    }

    fn holds(&self, asked: Asked<'_>) -> bool {
        // A label that no node has is not there.
        !matches!(asked, Asked::Collection("empty"))
    }

    fn block_on(&self, case: Pin<Box<dyn Future<Output = ()> + '_>>) {
        runtime().block_on(case);
    }
}

fn conforms(options: fn(Neo4jOptions) -> Neo4jOptions, asked: fn(&str) -> bool) {
    let Some(servers) = several(2) else { return };
    let mut kit = Kit { idle: Mutex::new(servers), related: true, options };
    // Relationships alone are none: their ends are not selected.
    let alone = |name: &str| name == "selection";
    let report = backup_conformance::check_only(&&kit, |name| asked(name) && !alone(name));
    assert!(report.failed().is_empty(), "{report}");
    #[expect(clippy::print_stderr, reason = "it names the cases that were skipped")]
    {
        eprintln!("{report}");
    }
    kit.related = false;
    let report = backup_conformance::check_only(&&kit, |name| asked(name) && alone(name));
    assert!(report.failed().is_empty(), "{report}");
}

#[test]
fn in_one_transaction() {
    conforms(|options| options, |_| true);
}

#[test]
fn in_batches() {
    conforms(|options| options.transaction_memory(0), asked_of_a_switch);
}

// What a record may hold, how it is read and what is staged has nothing to do with the switch.
fn asked_of_a_switch(case: &str) -> bool {
    let parts =
        ["commit", "undo", "finish", "live_is", "merge", "abort", "cancel", "reattach", "replace"];
    parts.iter().any(|part| case.contains(part))
}
