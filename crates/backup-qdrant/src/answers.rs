//! What a restore was told of live points, to refuse those that changed since.

use std::collections::{BTreeSet, HashMap};

use backup_core::{
    Error, ErrorKind, Result,
    record::{Key, RecordBatch, RecordRef, Sha256Digest, VectorColumn},
};
use sha2::{Digest, Sha256};

use crate::points::Id;

/// What this session was told of live points: by collection and id a digest, or that the id
/// was free. About 100 bytes each.
#[derive(Default)]
pub(crate) struct Answers(HashMap<String, HashMap<Id, Option<Sha256Digest>>>);

impl Answers {
    /// What was told first counts: by that the caller decided.
    pub(crate) fn remember(
        &mut self,
        collection: &str,
        ids: &[Id],
        found: &[RecordBatch],
    ) -> Result<()> {
        let digests = digests(found)?;
        let answers = self.0.entry(collection.to_owned()).or_default();
        for id in ids {
            answers.entry(*id).or_insert_with(|| digests.get(id).copied());
        }
        Ok(())
    }

    /// Refuses points that are not as they were told.
    pub(crate) fn check(&self, collection: &str, ids: &[Id], found: &[RecordBatch]) -> Result<()> {
        let Some(answers) = self.0.get(collection) else { return Ok(()) };
        let digests = digests(found)?;
        let changed =
            |id: &&Id| answers.get(id).is_some_and(|told| told.as_ref() != digests.get(id));
        let Some(id) = ids.iter().find(changed) else { return Ok(()) };
        let what = "a point was changed since the restore looked at it";
        Err(Error::new(ErrorKind::Changed, what)
            .on(format!("{collection}, point {}", id.key()))
            .advise("pause what writes to the collection, then restore again"))
    }
}

fn digests(batches: &[RecordBatch]) -> Result<HashMap<Id, Sha256Digest>> {
    let records = batches.iter().flat_map(RecordBatch::iter);
    records.map(|record| Ok((Id::from_key(&record.key())?, digest(record)))).collect()
}

/// Of all that a point has.
fn digest(record: RecordRef<'_>) -> Sha256Digest {
    let row = record.row();
    let mut columns: Vec<&VectorColumn> =
        record.vectors().filter(|column| column.is_present(row)).collect();
    columns.sort_by_key(|column| column.name());
    let mut hasher = Sha256::new();
    let mut framed = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    framed(record.line().as_bytes());
    for column in columns {
        framed(column.name().as_bytes());
        framed(column.row_bytes(row));
        let places = column.sparse_indices(row).iter();
        framed(&places.flat_map(|place| place.to_le_bytes()).collect::<Vec<_>>());
    }
    Sha256Digest::finish(hasher)
}

/// The ids that keys stand for, in order and each once.
pub(crate) fn ids_of(keys: &[Key]) -> Result<Vec<Id>> {
    let ids = keys.iter().map(id_of).collect::<Result<BTreeSet<_>>>()?;
    Ok(ids.into_iter().collect())
}

fn id_of(key: &Key) -> Result<Id> {
    let id = Id::from_key(key)?;
    if id.key() == *key {
        return Ok(id);
    }
    let what = "the UUID of a point is not in lower case with hyphens";
    Err(Error::new(ErrorKind::Incompatible, what).on(key))
}
