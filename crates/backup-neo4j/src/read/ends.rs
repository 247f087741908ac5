//! How the ends of relationships are told by the rows that find them.

use std::collections::HashMap;

use backup_core::Result;

use super::unfinished;
use crate::{
    marks::{NUMBER, View, World},
    names::cypher,
    records::{node_key, reference},
    value::Value,
};

/// How the ends of relationships are told.
pub(crate) struct Ends {
    view: View,
    properties: Vec<String>,
    kinds: Vec<(String, Vec<String>)>,
    /// None: of another world.
    by_labels: HashMap<Vec<String>, Option<usize>>,
}

impl Ends {
    pub(crate) fn new(view: &View) -> Self {
        Self {
            view: view.clone(),
            properties: view.keys.properties(),
            kinds: Vec::new(),
            by_labels: HashMap::new(),
        }
    }

    pub(super) fn world(&self) -> World {
        self.view.world
    }

    /// What a statement returns of a node for [`tell`](Self::tell).
    pub(crate) fn columns(&self, node: &str) -> String {
        let mut columns = vec![format!("id({node})"), format!("labels({node})")];
        columns.extend(self.view.numbered.then(|| format!("{node}.{}", cypher(NUMBER))));
        columns.extend(self.properties.iter().map(|name| format!("{node}.{}", cypher(name))));
        format!("[{}]", columns.join(", "))
    }

    pub(super) fn id(end: &Value) -> i64 {
        match end {
            Value::List(columns) => columns.first().and_then(Value::as_integer).unwrap_or(-1),
            _ => -1,
        }
    }

    /// The text that names a node: from its number, its labels and what may be part of its key.
    pub(crate) fn tell(&mut self, end: Value) -> Result<String> {
        let Value::List(mut columns) = end else { return Ok(String::new()) };
        let mut values = columns.split_off(columns.len().min(2));
        let labels = columns.pop().map(Value::into_texts).unwrap_or_default();
        let mut id = columns.first().and_then(Value::as_integer).unwrap_or(-1);
        if self.view.numbered && !values.is_empty() {
            id = values.remove(0).as_integer().unwrap_or(id);
        }
        let at = match self.by_labels.get(&labels) {
            Some(at) => *at,
            None => {
                let at = self.view.kind(labels.clone()).map(|(kind, key)| {
                    self.kinds.push((kind.name(), key));
                    self.kinds.len() - 1
                });
                self.by_labels.insert(labels, at);
                at
            }
        };
        let Some(at) = at else { return Err(unfinished()) };
        let (collection, key) = &self.kinds[at];
        let properties = &self.properties;
        let key = node_key(key, id, |name| {
            properties.iter().position(|known| known == name).and_then(|at| values.get(at))
        })?;
        Ok(reference(collection, &key))
    }
}
