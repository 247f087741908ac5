//! Reading the records of a merge: as they are staged, or as they are live.

use std::collections::BTreeMap;

use backup_core::{
    Cancel, Content, Error, Result,
    record::{BatchBuilder, Key},
};

use crate::{
    client::{Client, Row, Statement},
    marks::{DONE, NUMBER, World},
    names::{Kind, cypher},
    read::{Ends, unmark},
    records::{node_key, relationship_key, write_relationship},
    schema::Document,
    sink::{
        merge::{
            identity::Identity,
            statements::{live_node, live_relationship},
        },
        stage,
    },
    value::{Value, WriteJson},
};

/// Counts and digests of the staged records, or of what they have become where `live`.
pub(crate) async fn tally(
    client: &Client,
    identity: &Identity,
    documents: &BTreeMap<String, Document>,
    live: bool,
    cancel: &Cancel,
) -> Result<Content> {
    let world = if live { World::Live } else { World::Staged };
    let mut ends = Ends::new(&identity.view(world));
    let mut content = Content::new();
    for collection in documents.keys() {
        let tally = content.collections.entry(collection.clone()).or_default();
        let kind = Kind::parse(collection)?;
        let statement = match &kind {
            Kind::Nodes(labels) => nodes(labels, live),
            Kind::Relationships(name) => relationships(name, &ends, live),
            Kind::Schema => continue,
        };
        let mut batch = BatchBuilder::new(collection);
        let mut rows = client.rows(&Statement::new(statement)).await?;
        while let Some(row) = rows.next().await? {
            match &kind {
                Kind::Nodes(labels) => node(&mut batch, &identity.key(labels), row)?,
                _ => relationship(&mut batch, &mut ends, row)?,
            }
            if batch.is_full() {
                cancel.check()?;
                let full = std::mem::replace(&mut batch, BatchBuilder::new(collection));
                tally.add_batch(&full.finish()?);
            }
        }
        tally.add_batch(&batch.finish()?);
    }
    Ok(content)
}

fn nodes(labels: &[String], live: bool) -> String {
    let staged = format!(
        "MATCH (s:{}{}) WHERE size(labels(s)) = {}",
        cypher(World::Staged.base().unwrap_or_default()),
        stage::labels(World::Staged, labels),
        labels.len() + 1
    );
    if !live {
        return format!("{staged} RETURN properties(s)");
    }
    format!(
        "{staged} AND s.{} IS NOT NULL {} AND size(labels(n)) = {} RETURN properties(n)",
        cypher(DONE),
        live_node(labels),
        labels.len()
    )
}

fn relationships(name: &str, ends: &Ends, live: bool) -> String {
    let number = cypher(NUMBER);
    let (from, to) = (ends.columns("a"), ends.columns("b"));
    let staged = cypher(&World::Staged.name(name));
    if !live {
        return format!(
            "MATCH (a)-[s:{staged}]->(b) RETURN {from}, {to}, s.{number}, properties(s)"
        );
    }
    format!(
        "MATCH (x)-[s:{staged}]->(y) WHERE s.{} IS NOT NULL {} \
         RETURN {from}, {to}, s.{number}, properties(r)",
        cypher(DONE),
        live_relationship(name)
    )
}

fn node(batch: &mut BatchBuilder, key: &[String], row: Row) -> Result<()> {
    let Ok([mut properties]) = <[Value; 1]>::try_from(row.values) else { return Err(odd()) };
    unmark(&mut properties);
    let key = Key::from_json(&node_key(key, -1, |name| properties.member(name))?)?;
    batch.push(&key, |json| properties.write(json))
}

fn relationship(batch: &mut BatchBuilder, ends: &mut Ends, row: Row) -> Result<()> {
    let Ok([from, to, number, mut properties]) = <[Value; 4]>::try_from(row.values) else {
        return Err(odd());
    };
    unmark(&mut properties);
    let (from, to) = (ends.tell(from)?, ends.tell(to)?);
    let number = number.as_integer().and_then(|number| u64::try_from(number).ok());
    let key = relationship_key(&from, &to, number.ok_or_else(odd)?)?;
    let properties = properties.to_json()?;
    batch.push(&key, |json| write_relationship(json, &from, &properties, &to))
}

fn odd() -> Error {
    Error::adapter("a staged record is not of the form in which it was written")
}
