//! Batches under way, of many collections at once.

use std::collections::HashMap;

use backup_core::{
    Result,
    record::{BatchBuilder, Key, RecordBatch, canonical::Writer},
};

use crate::names::Kind;

/// Bytes of batches that are not full, of all collections together, from which on the largest is
/// given away: a graph may have a thousand sets of labels.
const OPEN: usize = 2 * RecordBatch::TARGET_BYTES;

/// Batches under way, by collection.
pub(super) struct Batches {
    open: Vec<Open>,
    by_kind: HashMap<Kind, usize>,
    bytes: usize,
}

struct Open {
    name: String,
    batch: BatchBuilder,
}

impl Batches {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), by_kind: HashMap::new(), bytes: 0 }
    }

    /// The number of a collection; whether it is new.
    pub(super) fn of(&mut self, kind: Kind) -> (usize, bool) {
        if let Some(at) = self.by_kind.get(&kind) {
            return (*at, false);
        }
        let name = kind.name();
        self.open.push(Open { batch: BatchBuilder::new(&*name), name });
        self.by_kind.insert(kind, self.open.len() - 1);
        (self.open.len() - 1, true)
    }

    /// A collection's name.
    pub(super) fn name(&self, at: usize) -> &str {
        &self.open[at].name
    }

    /// Adds a record; the batch that is to be given away now, if one is.
    pub(super) fn push(
        &mut self,
        at: usize,
        key: &Key,
        write: impl FnOnce(&mut Writer<'_>) -> Result<()>,
    ) -> Result<Option<(usize, RecordBatch)>> {
        let open = &mut self.open[at];
        let before = open.batch.byte_size();
        open.batch.push(key, write)?;
        self.bytes += open.batch.byte_size() - before;
        if open.batch.is_full() {
            return self.take(at).map(Some);
        }
        if self.bytes < OPEN {
            return Ok(None);
        }
        let largest = (0..self.open.len()).max_by_key(|at| self.open[*at].batch.byte_size());
        largest.map(|at| self.take(at)).transpose()
    }

    fn take(&mut self, at: usize) -> Result<(usize, RecordBatch)> {
        let open = &mut self.open[at];
        let full = std::mem::replace(&mut open.batch, BatchBuilder::new(&*open.name));
        self.bytes -= full.byte_size();
        Ok((at, full.finish()?))
    }

    /// What is left of all.
    pub(super) fn rest(&mut self) -> Result<Option<(usize, RecordBatch)>> {
        let at = (0..self.open.len()).find(|at| !self.open[*at].batch.is_empty());
        at.map(|at| self.take(at)).transpose()
    }
}
