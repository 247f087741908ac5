//! Nodes, as they come.

use std::collections::HashMap;

use backup_core::{
    Result,
    record::{Key, RecordBatch},
};

use super::{Known, Read, batches::Batches, unmark};
use crate::{
    client::{Client, Row, Rows, Statement},
    marks::{NUMBER, View},
    names::cypher,
    records::node_key,
    value::Value,
};

/// Nodes, of all collections or of one.
pub(crate) struct Nodes {
    rows: Rows,
    view: View,
    batches: Batches,
    kinds: Vec<NodeKind>,
    /// None: of another world.
    by_labels: HashMap<Vec<String>, Option<usize>>,
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
            let Some(row) = self.rows.next().await? else {
                return Ok(self.batches.rest()?.map(|(at, batch)| self.give(at, batch)));
            };
            if let Some((at, batch)) = self.take(row)? {
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

    fn take(&mut self, mut row: Row) -> Result<Option<(usize, RecordBatch)>> {
        let mut properties = row.values.pop().unwrap_or(Value::Null);
        let labels = row.values.pop().map(Value::into_texts).unwrap_or_default();
        let node = row.values.first().and_then(Value::as_integer).unwrap_or(-1);
        let number = match self.by_labels.get(&labels) {
            Some(number) => *number,
            None => self.kind(labels),
        };
        let Some(number) = number else { return Ok(None) };
        let mut id = node;
        if self.view.numbered
            && let Some(archived) = properties.member(NUMBER).and_then(Value::as_integer)
        {
            id = archived;
        }
        unmark(&mut properties);
        let kind = &self.kinds[number];
        let key = node_key(&kind.key, id, |name| properties.member(name))?;
        self.known.insert(node, kind.collection, &key);
        let key = Key::from_json(&key)?;
        if let Some(numbers) = &mut self.numbers {
            numbers[kind.at].push(node);
        }
        self.batches.push(kind.at, &key, |json| properties.write(json))
    }

    fn kind(&mut self, labels: Vec<String>) -> Option<usize> {
        let Some((kind, key)) = self.view.kind(labels.clone()) else {
            self.by_labels.insert(labels, None);
            return None;
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
        self.by_labels.insert(labels, Some(self.kinds.len() - 1));
        Some(self.kinds.len() - 1)
    }
}
