//! Nodes, as they come.

use std::collections::HashMap;

use backup_core::{
    Result,
    record::{Key, RecordBatch, tagged},
};

use super::{Known, Read, batches::Batches};
use crate::{
    bolt::{Raw, Reader},
    client::{Client, Rows, Statement},
    marks::{NUMBER, View, is_marked},
    names::cypher,
    records::node_key,
    value::{Value, WriteJson},
};

/// Nodes, of all collections or of one.
pub(crate) struct Nodes {
    rows: Rows,
    view: View,
    batches: Batches,
    kinds: Vec<NodeKind>,
    /// By the labels as the server sends them. None: of another world.
    by_labels: HashMap<Box<[u8]>, Option<usize>>,
    /// Numbers of the nodes of batches under way, where somebody has to know which were taken.
    numbers: Option<Vec<Vec<i64>>>,
    known: Known,
    pending: Vec<Read>,
}

struct NodeKind {
    key: Vec<String>,
    /// Of the batches.
    at: usize,
    /// Of those that are known.
    collection: u32,
}

impl Nodes {
    /// Begins to read nodes: all, or those of one collection. They are added to those that are known.
    pub(crate) async fn begin(
        client: &Client,
        view: &View,
        only: Option<&[String]>,
        numbered: bool,
        known: Known,
    ) -> Result<Self> {
        let chosen = match (only, view.world.base()) {
            (None, None) => "MATCH (n)".to_owned(),
            (None, Some(base)) => format!("MATCH (n:{})", cypher(base)),
            (Some(labels), _) => {
                let wanted: String =
                    labels.iter().map(|label| format!(":{}", cypher(label))).collect();
                format!("MATCH (n{wanted}) WHERE size(labels(n)) = {}", labels.len())
            }
        };
        let statement = Statement::new(format!("{chosen} RETURN id(n), labels(n), properties(n)"));
        Ok(Self {
            rows: client.rows(&statement).await?,
            view: view.clone(),
            batches: Batches::new(),
            kinds: Vec::new(),
            by_labels: HashMap::new(),
            numbers: numbered.then(Vec::new),
            known,
            pending: Vec::new(),
        })
    }

    /// The next thing, and the numbers of the nodes of a batch where they are asked for.
    pub(crate) async fn next(&mut self) -> Result<Option<(Read, Vec<i64>)>> {
        loop {
            if let Some(read) = self.pending.pop() {
                return Ok(Some((read, Vec::new())));
            }
            let Some(row) = self.rows.next_raw().await? else {
                return Ok(self.batches.rest()?.map(|(at, batch)| self.give(at, batch)));
            };
            if let Some((at, batch)) = self.take(&row)? {
                return Ok(Some(self.give(at, batch)));
            }
        }
    }

    /// The nodes that were read.
    pub(crate) fn known(self) -> Known {
        self.known
    }

    fn give(&mut self, at: usize, batch: RecordBatch) -> (Read, Vec<i64>) {
        let numbers = self.numbers.as_mut().map(|numbers| std::mem::take(&mut numbers[at]));
        (Read::Batch(batch), numbers.unwrap_or_default())
    }

    fn take(&mut self, row: &[u8]) -> Result<Option<(usize, RecordBatch)>> {
        let mut row = Reader::row(row, 3)?;
        let (node, labels, mut properties) = (row.integer()?, row.raw()?, row.map()?);
        row.end()?;
        let number = match self.by_labels.get(labels.bytes()) {
            Some(number) => *number,
            None => self.kind(labels)?,
        };
        let Some(number) = number else { return Ok(None) };
        let mut id = node;
        if self.view.numbered
            && let Some(Value::Integer(archived)) =
                member(&properties, NUMBER).map(Raw::value).transpose()?
        {
            id = archived;
        }
        properties.retain(|(name, _)| !is_marked(name));
        let kind = &self.kinds[number];
        let key = node_key(&kind.key, id, |name| member(&properties, name))?;
        self.known.insert(node, kind.collection, &key);
        let key = Key::write(|json| {
            json.canonical_text(&key);
            Ok(())
        })?;
        if let Some(numbers) = &mut self.numbers {
            numbers[kind.at].push(node);
        }
        self.batches.push(kind.at, &key, |json| {
            tagged::object(json, properties, |json, value| value.write(json))
        })
    }

    fn kind(&mut self, labels: Raw<'_>) -> Result<Option<usize>> {
        let sent = labels.bytes().into();
        let Some((kind, key)) = self.view.kind(labels.value()?.into_texts()) else {
            self.by_labels.insert(sent, None);
            return Ok(None);
        };
        // The same labels may come in another order.
        let (at, new) = self.batches.of(kind.clone());
        if new {
            self.pending.push(Read::Begin(kind));
            if let Some(numbers) = &mut self.numbers {
                numbers.push(Vec::new());
            }
        }
        let collection = self.known.collection(self.batches.name(at).to_owned());
        self.kinds.push(NodeKind { key, at, collection });
        self.by_labels.insert(sent, Some(self.kinds.len() - 1));
        Ok(Some(self.kinds.len() - 1))
    }
}

fn member<'a>(members: &[(&str, Raw<'a>)], name: &str) -> Option<Raw<'a>> {
    members.iter().find(|member| member.0 == name).map(|member| member.1)
}
