//! Records as nodes and relationships that the application does not see.

use std::collections::BTreeMap;

use backup_core::{
    Error, ErrorKind, Result,
    record::{RecordBatch, RecordRef, Sha256Digest},
};

use crate::{
    client::{Client, Statement},
    marks::{KEY, MISSING, NUMBER, World, is_marked},
    names::{Kind, cypher},
    records::{End, archived_number, reference},
    sink::journal::{Journal, State, overtaken},
    value::Value,
};

/// Bytes of records that go to the server in one transaction, and how many at most.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_ROWS: usize = 10_000;

/// Longest key that is found by its text; an index takes no more than 8 kB.
const LONG_KEY: usize = 1000;

/// The constraint on the keys of staged nodes.
const STAGED_KEY: &str = "backup-kit:key";

/// What rows are written to, by one statement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// Nodes with these labels. A row: key and properties.
    Nodes(Vec<String>),
    /// Relationships of this type. A row: the keys of both ends, and properties.
    Relationships(String),
    /// Relationships of this type between nodes with these labels, which may be live only. A row: as
    /// above, and the properties that make up the keys of both ends.
    Between(String, Vec<String>, Vec<String>),
}

/// Rows of one transaction.
pub(crate) struct Batch {
    target: Target,
    rows: Vec<Value>,
}

/// Records of one collection, ready for the server.
#[derive(Default)]
pub(crate) struct Rows {
    batches: BTreeMap<Target, Filling>,
    /// Whether some nodes have only the number of the archive.
    pub(crate) numbered: bool,
}

/// Rows, those of each transaction, and bytes of the last ones.
#[derive(Default)]
struct Filling(Vec<Vec<Value>>, usize);

/// Writes rows, one batch after the other.
#[derive(Default)]
pub(crate) struct Stager {
    /// Relationships have named nodes that had not come yet.
    ahead: bool,
}

impl Rows {
    /// # Errors
    /// A value that no property can have, a relationship without ends.
    pub(crate) fn of(kind: &Kind, batch: &RecordBatch) -> Result<Self> {
        let target = match kind {
            Kind::Nodes(labels) => Target::Nodes(labels.clone()),
            Kind::Relationships(name) => Target::Relationships(name.clone()),
            Kind::Schema => return Err(no_records()),
        };
        let mut rows = Self::default();
        for record in batch.iter() {
            let row = match &target {
                Target::Nodes(_) => rows.node(batch.collection(), &record),
                _ => relationship(&record),
            };
            let row = row.map_err(|e| of(&record, e))?;
            rows.push(&target, row, record.line().len());
        }
        Ok(rows)
    }

    pub(crate) fn push(&mut self, target: &Target, row: Vec<Value>, bytes: usize) {
        if !self.batches.contains_key(target) {
            self.batches.insert(target.clone(), Filling::default());
        }
        let Some(Filling(batches, filled)) = self.batches.get_mut(target) else { return };
        if *filled >= BATCH_BYTES || batches.last().is_none_or(|b| b.len() >= BATCH_ROWS) {
            batches.push(Vec::new());
            *filled = 0;
        }
        *filled += bytes;
        if let Some(last) = batches.last_mut() {
            last.push(Value::List(row));
        }
    }

    fn into_batches(self) -> Vec<Batch> {
        let all = self.batches.into_iter().flat_map(|(target, Filling(batches, _))| {
            batches.into_iter().map(move |rows| Batch { target: target.clone(), rows })
        });
        all.collect()
    }

    fn node(&mut self, collection: &str, record: &RecordRef<'_>) -> Result<Vec<Value>> {
        let mut properties = properties(&parsed(record.value_json())?)?;
        let key = record.key_json();
        if let Some(number) = archived_number(key)
            && let Value::Map(members) = &mut properties
        {
            self.numbered = true;
            members.push((NUMBER.to_owned(), number.into()));
        }
        Ok(vec![key_text(&reference(collection, key)).into(), properties])
    }
}

pub(crate) fn no_records() -> Error {
    odd("the collection of constraints has no records")
}

/// A failure with the record in which it is.
pub(crate) fn of(record: &RecordRef<'_>, error: Error) -> Error {
    if error.subject().is_none() { error.on(record.key()) } else { error }
}

fn relationship(record: &RecordRef<'_>) -> Result<Vec<Value>> {
    let value = parsed(record.value_json())?;
    let [from, to] = ends(&value)?.map(|end| end.key_text().into());
    Ok(vec![from, to, properties(member(&value, "properties"))?])
}

/// Where a relationship begins and ends.
pub(crate) fn ends(value: &serde_json::Value) -> Result<[End; 2]> {
    Ok([End::from_json(member(value, "from"))?, End::from_json(member(value, "to"))?])
}

pub(crate) fn member<'a>(value: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    value.get(name).unwrap_or(&serde_json::Value::Null)
}

impl End {
    /// By what the staged node is found.
    pub(crate) fn key_text(&self) -> String {
        key_text(&self.reference())
    }
}

pub(crate) fn parsed(json: &str) -> Result<serde_json::Value> {
    serde_json::from_str(json).map_err(|e| odd("a record is no JSON").because(e))
}

pub(crate) fn properties(json: &serde_json::Value) -> Result<Value> {
    let value = Value::from_json(json)?;
    match &value {
        Value::Map(members) if members.iter().any(|(name, _)| is_marked(name)) => {
            Err(odd("a property has a name that only a restore gives"))
        }
        Value::Map(_) => Ok(value),
        _ => Err(odd("a record does not hold the properties of a node or relationship")),
    }
}

pub(crate) fn key_text(reference: &str) -> String {
    if reference.len() <= LONG_KEY {
        return reference.to_owned();
    }
    format!("sha256:{}", Sha256Digest::of(reference.as_bytes()))
}

pub(crate) fn odd(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what.to_owned())
}

/// Makes the place where nodes are found by their keys.
pub(crate) async fn prepare(client: &Client) -> Result<()> {
    let label = World::Staged.base().unwrap_or_default();
    let made = format!(
        "CREATE CONSTRAINT {} IF NOT EXISTS FOR (n:{}) REQUIRE n.{} IS UNIQUE",
        cypher(STAGED_KEY),
        cypher(label),
        cypher(KEY)
    );
    client.ask(&Statement::new(made)).await.map(drop)
}

impl Stager {
    /// For records of a merge: ends may be live only, and stand for those.
    pub(crate) fn for_merge() -> Self {
        Self { ahead: true }
    }

    pub(crate) async fn write(
        &mut self,
        client: &Client,
        journal: &Journal,
        rows: Rows,
    ) -> Result<()> {
        let mut batches = rows.into_batches();
        batches.reverse();
        while let Some(mut batch) = batches.pop() {
            match self.batch(client, journal, &batch).await {
                Ok(true) => {}
                // Ends that have not come yet are made, and filled when they come.
                Ok(false) if !self.ahead => {
                    self.ahead = true;
                    batches.push(batch);
                }
                Ok(false) => return Err(overtaken()),
                // What the server has no memory for at once it may have for halves of it.
                Err(error) if error.kind() == ErrorKind::LimitExceeded && batch.rows.len() > 1 => {
                    let rest = batch.rows.split_off(batch.rows.len() / 2);
                    batches.extend([Batch { target: batch.target.clone(), rows: rest }, batch]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all rows or none; whether it did. Repeated only where the server has certainly taken
    /// nothing.
    async fn batch(&self, client: &Client, journal: &Journal, batch: &Batch) -> Result<bool> {
        let statement = journal
            .guarded(State::Staging, &self.statement(&batch.target))
            .with("rows", Value::List(batch.rows.clone()));
        let wanted = batch.rows.len() as i64;
        client
            .again_if_refused(|| async {
                let mut transaction = client.begin().await?;
                let written = transaction.ask(&statement).await;
                let written = written.and_then(|answer| match answer.first() {
                    Some(row) => row.integer("done"),
                    None => Ok(0),
                });
                match written {
                    Ok(done) if done == wanted => transaction.commit().await.map(|_| true),
                    Ok(_) => transaction.rollback().await.map(|()| false),
                    Err(error) => {
                        let _ = transaction.rollback().await;
                        Err(error)
                    }
                }
            })
            .await
    }

    fn statement(&self, target: &Target) -> String {
        let world = World::Staged;
        let base = cypher(world.base().unwrap_or_default());
        let (key, missing) = (cypher(KEY), cypher(MISSING));
        let end = |node: &str, at: u8, more: &str| {
            if self.ahead {
                return format!(
                    "MERGE ({node}:{base} {{{key}: row[{at}]}}) ON CREATE SET {node}:{missing}{more}"
                );
            }
            format!("MATCH ({node}:{base} {{{key}: row[{at}]}})")
        };
        let between = |name: &str, from: &str, to: &str| {
            let name = cypher(&world.name(name));
            format!(
                "UNWIND $rows AS row {from} {to} CREATE (a)-[r:{name}]->(b) SET r = row[2] \
                 RETURN count(*) AS done"
            )
        };
        match target {
            Target::Nodes(of) => {
                let labels = labels(world, of);
                if self.ahead {
                    return format!(
                        "UNWIND $rows AS row MERGE (n:{base} {{{key}: row[0]}}) \
                         SET n:{base}{labels}, n += row[1] REMOVE n:{missing} RETURN count(*) AS done"
                    );
                }
                format!(
                    "UNWIND $rows AS row CREATE (n:{base}{labels} {{{key}: row[0]}}) \
                     SET n += row[1] RETURN count(*) AS done"
                )
            }
            Target::Relationships(name) => between(name, &end("a", 0, ""), &end("b", 1, "")),
            Target::Between(name, from, to) => {
                let from = format!("{}, a += row[3]", labels(world, from));
                let to = format!("{}, b += row[4]", labels(world, to));
                between(name, &end("a", 0, &from), &end("b", 1, &to))
            }
        }
    }
}

/// Labels in a world, as they stand in a statement.
pub(crate) fn labels(world: World, of: &[String]) -> String {
    of.iter().map(|label| format!(":{}", cypher(&world.name(label)))).collect()
}

/// Refuses relationships whose ends have not come.
pub(crate) async fn complete(client: &Client) -> Result<()> {
    let missing = format!("MATCH (n:{}) RETURN n.{} AS key LIMIT 1", cypher(MISSING), cypher(KEY));
    match client.ask(&Statement::new(missing)).await?.first() {
        None => Ok(()),
        Some(row) => {
            let what = "a relationship begins or ends at a node that is not in the archive";
            Err(Error::new(ErrorKind::Corrupt, what)
                .on(row.text("key")?)
                .advise("restore the nodes together with the relationships"))
        }
    }
}
