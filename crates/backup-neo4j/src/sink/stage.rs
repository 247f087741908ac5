//! Records as nodes and relationships that the application does not see.

use backup_core::{
    Error, ErrorKind, Result,
    record::{RecordBatch, RecordRef, Sha256Digest},
};

use crate::{
    client::{Client, Statement},
    marks::{KEY, MISSING, NUMBER, World, is_marked},
    names::{Kind, cypher},
    records::{End, reference},
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

/// Records of one collection, ready for the server.
pub(crate) struct Rows {
    /// Each of one transaction.
    batches: Vec<Vec<Value>>,
    /// Whether some nodes have only the number of the archive.
    pub(crate) numbered: bool,
}

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
        let mut rows = Self { batches: Vec::new(), numbered: false };
        let mut bytes = BATCH_BYTES;
        for record in batch.iter() {
            let row = match kind {
                Kind::Nodes(_) => rows.node(batch.collection(), &record),
                Kind::Relationships(_) => relationship(&record),
                Kind::Schema => Err(odd("the collection of constraints has no records")),
            };
            let row =
                row.map_err(|e| if e.subject().is_none() { e.on(record.key()) } else { e })?;
            if bytes >= BATCH_BYTES || rows.batches.last().is_none_or(|b| b.len() >= BATCH_ROWS) {
                rows.batches.push(Vec::new());
                bytes = 0;
            }
            bytes += record.line().len();
            if let Some(last) = rows.batches.last_mut() {
                last.push(Value::List(row));
            }
        }
        Ok(rows)
    }

    fn node(&mut self, collection: &str, record: &RecordRef<'_>) -> Result<Vec<Value>> {
        let mut properties = properties(&parsed(record.value_json())?)?;
        let key = record.key_json();
        if let Some(number) = number(key)
            && let Value::Map(members) = &mut properties
        {
            self.numbered = true;
            members.push((NUMBER.to_owned(), number.into()));
        }
        Ok(vec![key_text(&reference(collection, key)).into(), properties])
    }
}

/// The number in the key of a node that has no other.
fn number(key: &str) -> Option<i64> {
    let text = key.strip_prefix(r#"{"$type":"Node","_value":""#)?.strip_suffix(r#""}"#)?;
    text.parse().ok()
}

fn relationship(record: &RecordRef<'_>) -> Result<Vec<Value>> {
    let value = parsed(record.value_json())?;
    let end = |name: &str| {
        let end = End::from_json(value.get(name).unwrap_or(&serde_json::Value::Null))?;
        Ok::<_, Error>(Value::from(key_text(&reference(&end.collection.name(), &end.key))))
    };
    let none = serde_json::Value::Null;
    let properties = properties(value.get("properties").unwrap_or(&none))?;
    Ok(vec![end("from")?, end("to")?, properties])
}

fn parsed(json: &str) -> Result<serde_json::Value> {
    serde_json::from_str(json).map_err(|e| odd("a record is no JSON").because(e))
}

fn properties(json: &serde_json::Value) -> Result<Value> {
    let value = Value::from_json(json)?;
    match &value {
        Value::Map(members) if members.iter().any(|(name, _)| is_marked(name)) => {
            Err(odd("a property has a name that only a restore gives"))
        }
        Value::Map(_) => Ok(value),
        _ => Err(odd("a record does not hold the properties of a node or relationship")),
    }
}

fn key_text(reference: &str) -> String {
    if reference.len() <= LONG_KEY {
        return reference.to_owned();
    }
    format!("sha256:{}", Sha256Digest::of(reference.as_bytes()))
}

fn odd(what: &str) -> Error {
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
    pub(crate) async fn write(
        &mut self,
        client: &Client,
        journal: &Journal,
        kind: &Kind,
        rows: Rows,
    ) -> Result<()> {
        let mut batches: Vec<_> = rows.batches.into_iter().rev().collect();
        while let Some(mut batch) = batches.pop() {
            match self.batch(client, journal, kind, &batch).await {
                Ok(true) => {}
                // Ends that have not come yet are made, and filled when they come.
                Ok(false) if !self.ahead => {
                    self.ahead = true;
                    batches.push(batch);
                }
                Ok(false) => return Err(overtaken()),
                // What the server has no memory for at once it may have for halves of it.
                Err(error) if error.kind() == ErrorKind::LimitExceeded && batch.len() > 1 => {
                    let rest = batch.split_off(batch.len() / 2);
                    batches.extend([rest, batch]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all rows or none; whether it did. Repeated only where the server has certainly taken
    /// nothing.
    async fn batch(
        &self,
        client: &Client,
        journal: &Journal,
        kind: &Kind,
        rows: &[Value],
    ) -> Result<bool> {
        let statement = journal
            .guarded(State::Staging, &self.statement(kind))
            .with("rows", Value::List(rows.to_vec()));
        let wanted = rows.len() as i64;
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

    fn statement(&self, kind: &Kind) -> String {
        let world = World::Staged;
        let base = cypher(world.base().unwrap_or_default());
        let key = cypher(KEY);
        match kind {
            Kind::Nodes(labels) => {
                let labels: String =
                    labels.iter().map(|label| format!(":{}", cypher(&world.name(label)))).collect();
                if self.ahead {
                    let missing = cypher(MISSING);
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
            Kind::Relationships(name) => {
                let end = |node: &str, at: u8| {
                    if self.ahead {
                        let missing = cypher(MISSING);
                        return format!(
                            "MERGE ({node}:{base} {{{key}: row[{at}]}}) ON CREATE SET {node}:{missing}"
                        );
                    }
                    format!("MATCH ({node}:{base} {{{key}: row[{at}]}})")
                };
                let (from, to) = (end("a", 0), end("b", 1));
                let name = cypher(&world.name(name));
                format!(
                    "UNWIND $rows AS row {from} {to} CREATE (a)-[r:{name}]->(b) SET r = row[2] \
                     RETURN count(*) AS done"
                )
            }
            Kind::Schema => "RETURN 0 AS done".to_owned(),
        }
    }
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
