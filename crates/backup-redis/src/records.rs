//! Items into batches of records, collection by collection.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use backup_core::{
    CollectionEnd, Error, ErrorKind, Part, Result, Schema,
    manifest::CollectionInfo,
    record::{BatchBuilder, Key, RecordBatch},
};
use bytes::Bytes;
use serde_json::json;

use crate::{
    model::{self, Item, ItemPart},
    naming::Naming,
};

/// Most collections of one store: more of them are a sign of keys that begin with an id.
pub(crate) const MOST_COLLECTIONS: usize = 4096;
/// Most bytes of batches that are not full, together.
const MOST_PENDING: usize = 16 << 20;

/// Makes parts of items. Give it every item, [take](Self::next) parts until there is none,
/// and [finish](Self::finish) it at the end.
pub(crate) struct Records {
    naming: Naming,
    look_inside: bool,
    /// Collections that are wanted; `None`: all.
    only: Option<BTreeSet<String>>,
    lanes: BTreeMap<LaneId, Option<Lane>>,
    /// Bytes of the batches of all lanes.
    pending: usize,
    ready: VecDeque<Part>,
    /// The key of the latest item: its elements follow.
    latest: Option<Latest>,
}

/// The logical database, and the prefix of the keys where they have one.
type LaneId = (u32, Option<String>);

struct Latest {
    key: Bytes,
    lane: LaneId,
    record: Key,
}

struct Lane {
    collection: String,
    batch: BatchBuilder,
    count: u64,
}

impl Records {
    /// `only`: the collections that are asked for, none for all.
    pub(crate) fn new(naming: Naming, look_inside: bool, only: &[String]) -> Self {
        let only = (!only.is_empty()).then(|| only.iter().cloned().collect());
        Self {
            naming,
            look_inside,
            only,
            lanes: BTreeMap::new(),
            pending: 0,
            ready: VecDeque::new(),
            latest: None,
        }
    }

    /// Announces a collection that has to be there even where it has no record.
    pub(crate) fn announce(&mut self, db: u32) -> Result<()> {
        self.lane(&(db, None)).map(drop)
    }

    /// Announces the collection of a key.
    pub(crate) fn see(&mut self, db: u32, key: &[u8]) -> Result<()> {
        let prefix = self.naming.split(key).0.map(str::to_owned);
        self.lane(&(db, prefix)).map(drop)
    }

    pub(crate) fn push(&mut self, item: &Item) -> Result<()> {
        let latest = self.latest.take().filter(|it| it.lane.0 == item.db && it.key == item.key);
        let latest = latest.unwrap_or_else(|| {
            let (prefix, rest) = self.naming.split(&item.key);
            Latest {
                key: item.key.clone(),
                lane: (item.db, prefix.map(str::to_owned)),
                record: model::record_key(rest),
            }
        });
        let pushed = self.add(&latest, &item.part);
        self.latest = Some(latest);
        pushed
    }

    fn add(&mut self, key: &Latest, part: &ItemPart) -> Result<()> {
        let look_inside = self.look_inside;
        let Some(lane) = self.lane(&key.lane)? else { return Ok(()) };
        let before = lane.batch.byte_size();
        model::push(&mut lane.batch, &key.record, part, look_inside)?;
        lane.count += 1;
        let after = lane.batch.byte_size();
        let full = lane.batch.is_full().then(|| lane.take()).transpose()?;
        self.pending += after - before;
        if let Some(batch) = full {
            self.pending -= after;
            self.ready.push_back(Part::Records(batch));
        } else if self.pending >= MOST_PENDING {
            self.shed()?;
        }
        Ok(())
    }

    /// The next part that is complete.
    pub(crate) fn next(&mut self) -> Option<Part> {
        self.ready.pop_front()
    }

    /// The last batches, and the end of each collection.
    pub(crate) fn finish(&mut self) -> Result<()> {
        for lane in self.lanes.values_mut().flatten() {
            if !lane.batch.is_empty() {
                let batch = lane.take()?;
                self.ready.push_back(Part::Records(batch));
            }
            let mut end = CollectionEnd::default();
            end.collection.clone_from(&lane.collection);
            end.count = Some(lane.count);
            self.ready.push_back(Part::End(end));
        }
        self.lanes.clear();
        Ok(())
    }

    // Ends the largest batch: all of them together are too large.
    fn shed(&mut self) -> Result<()> {
        let largest = self.lanes.values_mut().flatten().max_by_key(|lane| lane.batch.byte_size());
        if let Some(lane) = largest {
            self.pending -= lane.batch.byte_size();
            let batch = lane.take()?;
            self.ready.push_back(Part::Records(batch));
        }
        Ok(())
    }

    fn lane(&mut self, id: &LaneId) -> Result<Option<&mut Lane>> {
        if !self.lanes.contains_key(id) {
            if self.lanes.len() >= MOST_COLLECTIONS {
                let what = format!("the keys have more than {MOST_COLLECTIONS} prefixes");
                return Err(Error::new(ErrorKind::LimitExceeded, what)
                    .advise("name the prefixes that are collections, or use none"));
            }
            let (db, prefix) = (id.0, id.1.as_deref());
            let collection = self.naming.collection(db, prefix);
            let wanted = self.only.as_ref().is_none_or(|only| only.contains(&collection));
            let lane = wanted.then(|| {
                self.ready.push_back(Part::Schema(schema(&collection, prefix.is_some())));
                Lane { batch: BatchBuilder::new(&collection), collection, count: 0 }
            });
            self.lanes.insert(id.clone(), lane);
        }
        Ok(self.lanes.get_mut(id).and_then(Option::as_mut))
    }
}

/// Collections whose schema was given.
#[derive(Default)]
pub(crate) struct Announced(Mutex<BTreeSet<String>>);

impl Announced {
    /// Not a schema that was given already, by another partition.
    pub(crate) fn is_new(&self, part: &Part) -> bool {
        let Part::Schema(schema) = part else { return true };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(schema.collection.clone())
    }
}

impl Lane {
    fn take(&mut self) -> Result<RecordBatch> {
        std::mem::replace(&mut self.batch, BatchBuilder::new(&self.collection)).finish()
    }
}

/// What recreates a collection: whether its name is a prefix of keys.
pub(crate) fn schema(collection: &str, prefix: bool) -> Schema {
    Schema {
        collection: collection.to_owned(),
        document: json!({ "prefix": prefix }),
        info: CollectionInfo::default(),
    }
}
