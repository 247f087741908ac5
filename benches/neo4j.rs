//! Neo4j: export and import against bare loops over the same Bolt client, on one server.
//!
//! `cargo bench -p backup-neo4j --all-features [-- COUNT]` (default 1 000 000) makes so many
//! relationships between a fifth as many nodes, on a server of the tests with 1 GB of heap.
//! `GRAPH=folder` takes the graph from `nodes.jsonl` (`label`, `key`, `properties`) and
//! `edges.jsonl` (`type`, `start`, `end`, `properties`) instead, as often as COUNT asks for.
#![allow(clippy::print_stdout, missing_docs)]

// The client is private: the bare loops are built with its files.
#[path = "../crates/backup-neo4j/src/bolt/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod bolt;
#[path = "../crates/backup-neo4j/src/client.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod client;
mod common;
#[path = "../crates/backup-neo4j/src/error.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod error;
#[path = "../crates/backup-neo4j/src/options.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod options;
#[path = "common/steps.rs"]
mod steps;
#[path = "../crates/backup-neo4j/src/value/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod value;

use std::{collections::BTreeMap, env, fs, path::Path};

use backup_neo4j::Neo4jStore;
use client::{Client, Statement};
use common::{Result, Row, folder, head, number, ours, row, worker};
use neo4j_testserver::{Options, Server};
use serde_json::{Value as Json, json};
use value::Value;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if worker(|args| runtime.block_on(step(args)))? {
        return Ok(());
    }
    let count = number().unwrap_or(1_000_000);
    let folder = folder("bench-neo4j")?;
    let heap = Options { heap: "1g".to_owned(), quick: false, ..Options::default() };
    let server = Server::start(heap)?;
    let (url, n) = (server.bolt_url(), count.to_string());
    let place = folder.to_str().unwrap_or_default();
    let run = |step: &str, option: &str| ours(1, &[step, option, &url, &n, place]);
    let shown = |name: &str, (seconds, peak): (f64, f64), against, bytes| {
        row(name, &Row { seconds, bytes, against, peak: Some(peak) });
    };
    let graph = Graph::new(count)?;
    println!("{} nodes and {} relationships\n", graph.nodes(), graph.relationships());
    head();
    let mut create = f64::MAX;
    for batch in ["1000", "5000", "20000"] {
        server.clear()?;
        let figures = run("create", batch)?;
        create = create.min(figures.0);
        shown(&format!("bare UNWIND … CREATE, {batch} rows"), figures, None, None);
    }
    let mut matched = f64::MAX;
    for _ in 0..2 {
        let figures = run("match", "")?;
        matched = matched.min(figures.0);
        shown("bare MATCH … RETURN", figures, None, None);
    }
    for codec in ["gzip", "zstd", "gzip", "zstd"] {
        let figures = run("export", codec)?;
        let bytes = fs::metadata(folder.join(codec))?.len();
        shown(&format!("export, {codec}"), figures, Some(matched), Some(bytes));
    }
    server.clear()?;
    shown("import, until all is staged", run("import", "zstd")?, Some(create), None);
    let leftovers = Neo4jStore::options(&url);
    runtime.block_on(async { leftovers.connect().await?.remove_leftovers().await })?;
    shown("restore: staged, checked, switched, checked", run("restore", "zstd")?, None, None);
    let counted = server.cypher("MATCH ()-[r]->() RETURN count(r)", json!({}))?;
    assert_eq!(counted[0][0]["_value"], graph.relationships().to_string());
    drop(server);
    fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn step(args: &[String]) -> Result<()> {
    let [step, option, url, count, place] = args else {
        return Err("step, option, address, count, folder".into());
    };
    let archive = Path::new(place).join(option);
    let client = || Client::new(&options::Neo4jStore::options(url));
    match step.as_str() {
        "create" => {
            return create(&client()?, &Graph::new(count.parse()?)?, option.parse()?).await;
        }
        "match" => return read(&client()?).await,
        _ => {}
    }
    steps::step(step, Neo4jStore::options(url).open()?, &archive).await
}

/// All nodes and relationships, thrown away.
async fn read(client: &Client) -> Result<()> {
    for all in [
        "MATCH (n) RETURN id(n), labels(n), properties(n)",
        "MATCH (a)-[r]->(b) RETURN id(a), id(b), type(r), properties(r)",
    ] {
        let mut rows = client.rows(&Statement::new(all)).await?;
        while rows.next().await?.is_some() {}
    }
    Ok(())
}

/// One statement a batch, of which the next is made while the server works.
async fn create(client: &Client, graph: &Graph, batch: usize) -> Result<()> {
    for (label, nodes) in &graph.nodes {
        let rule = format!("CREATE CONSTRAINT FOR (n:{label}) REQUIRE n.id IS UNIQUE");
        client.ask(&Statement::new(rule)).await?;
        let text = format!("UNWIND $rows AS row CREATE (n:{label}) SET n = row");
        let rows = (0..graph.copies).flat_map(|copy| nodes.iter().map(move |node| node.row(copy)));
        send(client, &text, rows, batch).await?;
    }
    for ((kind, from, to), edges) in &graph.edges {
        let text = format!(
            "UNWIND $rows AS row MATCH (a:{from} {{id: row[0]}}) MATCH (b:{to} {{id: row[1]}}) \
             CREATE (a)-[r:{kind}]->(b) SET r = row[2]"
        );
        let rows = (0..graph.copies)
            .flat_map(|copy| edges.iter().map(move |edge| edge.row(copy, graph.copies)));
        send(client, &text, rows, batch).await?;
    }
    Ok(())
}

async fn send(
    client: &Client,
    text: &str,
    rows: impl Iterator<Item = Value>,
    batch: usize,
) -> Result<()> {
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let chunk: Vec<_> = rows.by_ref().take(batch).collect();
        client.ask(&Statement::new(text).with("rows", Value::List(chunk))).await?;
    }
    Ok(())
}

/// A small graph that is made many times.
struct Graph {
    copies: u64,
    /// By label.
    nodes: BTreeMap<String, Vec<Node>>,
    /// By type and the labels of their ends.
    edges: BTreeMap<(String, String, String), Vec<Edge>>,
}

struct Node {
    key: String,
    properties: Vec<(String, Value)>,
}

struct Edge {
    from: String,
    to: String,
    /// How many copies further on it ends.
    reach: u64,
    properties: Vec<(String, Value)>,
}

impl Node {
    fn row(&self, copy: u64) -> Value {
        let id = ("id".to_owned(), format!("{}#{copy}", self.key).into());
        Value::Map(self.properties.iter().cloned().chain([id]).collect())
    }
}

impl Edge {
    fn row(&self, copy: u64, copies: u64) -> Value {
        let end = |key: &str, copy| Value::from(format!("{key}#{copy}"));
        Value::List(vec![
            end(&self.from, copy),
            end(&self.to, (copy + self.reach) % copies),
            Value::Map(self.properties.clone()),
        ])
    }
}

impl Graph {
    /// With about so many relationships.
    fn new(count: u64) -> Result<Self> {
        let mut graph = match env::var_os("GRAPH") {
            Some(folder) => Self::read(Path::new(&folder))?,
            None => Self::made(),
        };
        let of_one = graph.edges.values().map(Vec::len).sum::<usize>() as u64;
        graph.copies = count.div_ceil(of_one);
        Ok(graph)
    }

    fn nodes(&self) -> u64 {
        self.copies * self.nodes.values().map(Vec::len).sum::<usize>() as u64
    }

    fn relationships(&self) -> u64 {
        self.copies * self.edges.values().map(Vec::len).sum::<usize>() as u64
    }

    fn made() -> Self {
        let nodes = (0..100_i64).map(|n| Node {
            key: format!("person-{n}"),
            properties: vec![
                ("name".to_owned(), format!("Somebody of the number {n}").into()),
                ("born".to_owned(), Value::Date(n * 97)),
                ("score".to_owned(), Value::Float(n as f64 / 7.0)),
            ],
        });
        let edges = (0..500_i64).map(|n| Edge {
            from: format!("person-{}", n % 100),
            to: format!("person-{}", n * 37 % 100),
            reach: n as u64 / 100 * 13,
            properties: vec![
                ("since".to_owned(), (1970 + n % 50).into()),
                ("weight".to_owned(), Value::Float(n as f64 / 11.0)),
            ],
        });
        let kind = ["KNOWS", "Person", "Person"].map(str::to_owned).into();
        Self {
            copies: 1,
            nodes: BTreeMap::from([("Person".to_owned(), nodes.collect())]),
            edges: BTreeMap::from([(kind, edges.collect())]),
        }
    }

    fn read(folder: &Path) -> Result<Self> {
        let mut graph = Self { copies: 1, nodes: BTreeMap::new(), edges: BTreeMap::new() };
        let text = |line: &Json, member: &str| match line[member].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(format!("{member} is missing: {line}")),
        };
        let mut label_of = BTreeMap::new();
        for line in fs::read_to_string(folder.join("nodes.jsonl"))?.lines() {
            let line: Json = serde_json::from_str(line)?;
            let (label, key) = (text(&line, "label")?, text(&line, "key")?);
            label_of.insert(key.clone(), label.clone());
            let node = Node { key, properties: properties(&line)? };
            graph.nodes.entry(label).or_default().push(node);
        }
        for line in fs::read_to_string(folder.join("edges.jsonl"))?.lines() {
            let line: Json = serde_json::from_str(line)?;
            let (from, to) = (text(&line, "start")?, text(&line, "end")?);
            let label = |key| label_of.get(key).cloned().ok_or_else(|| format!("no node {key}"));
            let kind = (text(&line, "type")?, label(&from)?, label(&to)?);
            let edge = Edge { from, to, reach: 0, properties: properties(&line)? };
            graph.edges.entry(kind).or_default().push(edge);
        }
        Ok(graph)
    }
}

fn properties(line: &Json) -> Result<Vec<(String, Value)>> {
    match Value::from_json(&line["properties"])? {
        Value::Map(members) => Ok(members),
        _ => Err(format!("no properties: {line}").into()),
    }
}
