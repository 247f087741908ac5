//! Records as rows of statements that make nodes and relationships which the application does not
//! see.

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
    /// Relationships of this type. A row: both ends, and properties. An end is a key, or where
    /// `numbered` the number of a node.
    Relationships { name: String, numbered: [bool; 2] },
    /// Relationships of this type between nodes with these labels, which may be live only. A row: as
    /// above, and the properties that make up the keys of both ends.
    Between(String, Vec<String>, Vec<String>),
}

impl Target {
    /// Relationships whose ends have keys.
    pub(crate) fn relationships(name: &str) -> Self {
        Self::Relationships { name: name.to_owned(), numbered: [false; 2] }
    }
}

/// Rows of one transaction.
pub(super) struct Batch {
    pub(super) target: Target,
    pub(super) rows: Vec<Value>,
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

impl Rows {
    /// # Errors
    /// A value that no property can have, a relationship without ends.
    pub(crate) fn of(kind: &Kind, batch: &RecordBatch) -> Result<Self> {
        let target = match kind {
            Kind::Nodes(labels) => Target::Nodes(labels.clone()),
            Kind::Relationships(name) => Target::relationships(name),
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

    pub(super) fn into_batches(self) -> Vec<Batch> {
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
