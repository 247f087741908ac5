//! Puts batches together again from their lines and the arrays that follow them.

use bytes::Bytes;

use super::{
    entry::{PartEntry, PartKind, VectorRole},
    npy,
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::{ElementType, RecordBatch},
};

/// The batch whose arrays are still coming.
#[derive(Default)]
pub(super) struct Assembler {
    batch: Option<(String, RecordBatch)>,
    columns: Vec<(String, ElementType, Arrays)>,
}

type Arrays = Vec<(VectorRole, Vec<u64>, Bytes)>;

impl Assembler {
    /// Takes a part that is lines or an array; call [`finish`](Self::finish) before lines.
    pub(super) fn take(&mut self, part: &PartEntry, content: Bytes) -> Result<()> {
        let corrupt = |what: &str| Err(Error::new(ErrorKind::Corrupt, what).on(&part.path));
        match &part.kind {
            PartKind::Records { store, collection, records, .. } => {
                let batch = RecordBatch::from_lines(collection.clone(), content)
                    .map_err(|e| e.on(&part.path))?;
                if batch.len() as u64 != *records {
                    return corrupt("a batch has another number of records than the index says");
                }
                self.batch = Some((store.clone(), batch));
            }
            PartKind::Vector { vector, role, element, shape, .. } => {
                if self.columns.last().is_none_or(|(name, ..)| name != vector) {
                    self.columns.push((vector.clone(), *element, Vec::new()));
                }
                if let Some((_, _, arrays)) = self.columns.last_mut() {
                    arrays.push((*role, shape.clone(), content));
                }
            }
            _ => return corrupt("a part is neither lines nor an array"),
        }
        Ok(())
    }

    /// The batch with its columns and its store, if one is under way.
    pub(super) fn finish(&mut self) -> Result<Option<(String, RecordBatch)>> {
        let Some((store, batch)) = self.batch.take() else { return Ok(None) };
        let columns = std::mem::take(&mut self.columns)
            .into_iter()
            .map(|(name, element, arrays)| npy::column(&name, element, batch.len(), arrays))
            .collect::<Result<_>>()?;
        Ok(Some((store, batch.with_columns(columns)?)))
    }
}
