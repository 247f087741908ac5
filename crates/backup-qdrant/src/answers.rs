//! What a restore was told of live points, to refuse those that changed since.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backup_core::{
    Error, ErrorKind, Result,
    record::{Key, RecordBatch, RecordRef, Sha256Digest, VectorColumn},
};
use sha2::{Digest, Sha256};

use crate::{
    points::{Id, read_key, write_key},
    shard_key::ShardKey,
};

/// What this session was told of live points: by collection, shard key and id a digest, or that
/// the id was free. About 100 bytes each.
#[derive(Default)]
pub(crate) struct Answers(HashMap<Place, HashMap<Id, Option<Sha256Digest>>>);

type Place = (String, Option<ShardKey>);

impl Answers {
    /// What was told first counts: by that the caller decided.
    pub(crate) fn remember(
        &mut self,
        collection: &str,
        shard: Option<&ShardKey>,
        ids: &[Id],
        found: &[RecordBatch],
    ) -> Result<()> {
        let digests = digests(found, shard.is_some())?;
        let answers = self.0.entry((collection.to_owned(), shard.cloned())).or_default();
        for id in ids {
            answers.entry(*id).or_insert_with(|| digests.get(id).copied());
        }
        Ok(())
    }

    /// Refuses points that are not as they were told.
    pub(crate) fn check(
        &self,
        collection: &str,
        shard: Option<&ShardKey>,
        ids: &[Id],
        found: &[RecordBatch],
    ) -> Result<()> {
        let place = (collection.to_owned(), shard.cloned());
        let Some(answers) = self.0.get(&place) else { return Ok(()) };
        let digests = digests(found, shard.is_some())?;
        let changed =
            |id: &&Id| answers.get(id).is_some_and(|told| told.as_ref() != digests.get(id));
        let Some(id) = ids.iter().find(changed) else { return Ok(()) };
        let what = "a point was changed since the restore looked at it";
        Err(Error::new(ErrorKind::Changed, what)
            .on(format!("{collection}, point {}", write_key(shard, *id)))
            .advise("pause what writes to the collection, then restore again"))
    }
}

/// Of points that lie under one shard key, where there are any.
fn digests(batches: &[RecordBatch], keyed: bool) -> Result<HashMap<Id, Sha256Digest>> {
    let records = batches.iter().flat_map(RecordBatch::iter);
    records.map(|record| Ok((read_key(&record.key(), keyed)?.1, digest(record)))).collect()
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

/// The ids that keys stand for, in order and each once, by shard key where the collection has
/// them.
pub(crate) fn ids_of(keys: &[Key], keyed: bool) -> Result<BTreeMap<Option<ShardKey>, Vec<Id>>> {
    let mut places: BTreeMap<_, BTreeSet<Id>> = BTreeMap::new();
    for key in keys {
        let (shard, id) = read_key(key, keyed)?;
        if write_key(shard.as_ref(), id) != *key {
            let what = "the UUID of a point is not in lower case with hyphens";
            return Err(Error::new(ErrorKind::Incompatible, what).on(key));
        }
        places.entry(shard).or_default().insert(id);
    }
    Ok(places.into_iter().map(|(shard, ids)| (shard, ids.into_iter().collect())).collect())
}
