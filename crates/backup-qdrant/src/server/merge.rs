//! Adding points to a collection that is there, and taking them out again.
//!
//! The commit first copies the live points of the ids that are staged into a collection of its
//! own, the pre-image; ids that are staged and not in it were free. Then it writes the staged
//! points over them. Both ways may be repeated.

use std::collections::{BTreeSet, HashMap, HashSet};

use backup_core::{
    Error, ErrorKind, Result,
    record::{Key, RecordBatch, RecordRef, Sha256Digest, Tally, VectorColumn},
};
use sha2::{Digest, Sha256};

use super::{
    grpc::{self, Of},
    lookup::{Ids, Lookup},
    rest::retry,
    scroll::Scroll,
    stage::Session,
    token::Target,
};
use crate::{points::Id, schema::Document};

/// What this session was told of live points: by collection and id a digest, or that the id
/// was free. About 100 bytes each.
#[derive(Default)]
pub(super) struct Answers(HashMap<String, HashMap<Id, Option<Sha256Digest>>>);

impl Answers {
    /// What was told first counts: by that the caller decided.
    fn remember(&mut self, collection: &str, ids: &[Id], found: &[RecordBatch]) -> Result<()> {
        let digests = digests(found)?;
        let answers = self.0.entry(collection.to_owned()).or_default();
        for id in ids {
            answers.entry(*id).or_insert_with(|| digests.get(id).copied());
        }
        Ok(())
    }

    /// Refuses points that are not as they were told.
    fn check(&self, collection: &str, ids: &[Id], found: &[RecordBatch]) -> Result<()> {
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

fn id_of(key: &Key) -> Result<Id> {
    let id = Id::from_key(key)?;
    if id.key() == *key {
        return Ok(id);
    }
    let what = "the UUID of a point is not in lower case with hyphens";
    Err(Error::new(ErrorKind::Incompatible, what).on(key))
}

impl Session {
    /// The live points of some keys; remembers the answer.
    pub(super) async fn look_up(&self, name: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        let ids = keys.iter().map(id_of).collect::<Result<BTreeSet<_>>>()?;
        let ids: Vec<Id> = ids.into_iter().collect();
        let target = self.token.targets.iter().find(|target| target.name == name);
        let place = target.map_or(name, Target::place);
        let found = match self.client.rest.get(&["collections", place]).find().await? {
            None => Vec::new(),
            Some(info) => {
                let forms = Document::from_rest(&info, Vec::new()).forms()?;
                Lookup::new(&self.client, place, name, &forms).read(&ids).await?
            }
        };
        self.answers().remember(name, &ids, &found)?;
        Ok(found)
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Copies aside the live points that are about to be written over, and proves the copy.
    pub(super) async fn keep_touched(&self, target: &Target) -> Result<()> {
        let place = target.place();
        if self.client.collections().await?.contains(&target.old) {
            self.client.drop_collection(&target.old).await?;
        }
        let live = self.client.settings(place).await?;
        self.client.create_collection(&target.old, live.scratch_request()).await?;
        let forms = live.forms()?;
        let mut kept = Tally::new();
        let mut ids = Ids::of(&self.client, &target.shadow);
        let mut points = Lookup::new(&self.client, place, &target.name, &forms);
        while let Some(page) = ids.next().await? {
            let found = points.read(&page).await?;
            self.answers().check(&target.name, &page, &found)?;
            for batch in found {
                kept.add_batch(&batch);
                self.send(&target.old, &forms, &batch).await?;
            }
        }
        let copy = Scroll::start(&self.client, &target.old, &target.name, &forms);
        if copy.tally().await? == kept {
            return Ok(());
        }
        let what = "the safety copy of points is not equal to them";
        Err(Error::new(ErrorKind::Mismatch, what).advise("look into the log of the Qdrant server"))
    }

    /// Writes all points of a collection over the live ones.
    pub(super) async fn add(&self, from: &str, target: &Target) -> Result<()> {
        let forms = self.client.settings(from).await?.forms()?;
        let mut points = Scroll::start(&self.client, from, &target.name, &forms);
        while let Some(batch) = points.next().await? {
            self.send(target.place(), &forms, &batch).await?;
        }
        Ok(())
    }

    /// Brings the live points back to what was kept of them.
    pub(super) async fn take_out(&self, target: &Target) -> Result<()> {
        self.add(&target.old, target).await?;
        let mut ids = Ids::of(&self.client, &target.shadow);
        while let Some(mut page) = ids.next().await? {
            let kept = || grpc::retrieve(&self.client.grpc, &target.old, &page, Of::Ids);
            let kept = retry(kept).await?.into_iter().map(|point| grpc::read_id(point.id));
            let kept = kept.collect::<Result<HashSet<Id>>>()?;
            page.retain(|id| !kept.contains(id));
            if !page.is_empty() {
                retry(|| grpc::delete(&self.client.grpc, target.place(), &page)).await?;
            }
        }
        Ok(())
    }

    /// The tally of the live points whose ids are staged.
    pub(super) async fn tally_merged(&self, target: &Target) -> Result<Tally> {
        let forms = self.client.settings(target.place()).await?.forms()?;
        let mut tally = Tally::new();
        let mut ids = Ids::of(&self.client, &target.shadow);
        let mut points = Lookup::new(&self.client, target.place(), &target.name, &forms);
        while let Some(page) = ids.next().await? {
            self.cancel.check()?;
            points.read(&page).await?.iter().for_each(|batch| tally.add_batch(batch));
        }
        Ok(tally)
    }
}
