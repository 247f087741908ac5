//! What of a collection is open: its shards, and which points belong to each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use qdrant_edge::{
    CreateIndex, EdgeConfig, EdgeShard, FieldIndexOperations, JsonPath, PayloadFieldSchema,
    PayloadOps, PointId, PointInsertOperations, PointOperations, SetPayloadOp, UpdateOperation,
};

use crate::collection::{CONFIG_FILE, INDEX_FILE, Indexes, KEYS_FILE, UpdateStatus, Updated};
use crate::config::CollectionConfig;
use crate::error::{Error, Result};
use crate::ring::Ring;
use crate::sharding::{KeyShards, Selector, ShardKey};

/// What a snapshot can replace as one.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: CollectionConfig,
    pub(crate) indexes: Indexes,
    /// By number.
    pub(crate) shards: BTreeMap<u32, Shard>,
    pub(crate) keys: Vec<KeyShards>,
    /// The shards of each key; where no keys choose them, all under none.
    pub(crate) rings: BTreeMap<Option<ShardKey>, Ring>,
    pub(crate) is_open: bool,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) edge: EdgeShard,
    pub(crate) key: Option<ShardKey>,
    /// Held while the shard is written or flushed: the engine allows only one of them at a time.
    writing: Mutex<()>,
    operations: AtomicU64,
}

impl Live {
    pub(crate) fn new(
        config: CollectionConfig,
        indexes: Indexes,
        shards: BTreeMap<u32, Shard>,
        keys: Vec<KeyShards>,
    ) -> Self {
        let rings = if config.is_custom() {
            let ring = |shards: &KeyShards| {
                (Some(shards.key.clone()), Ring::new(shards.shard_ids.clone()))
            };
            keys.iter().map(ring).collect()
        } else {
            BTreeMap::from([(None, Ring::new(shards.keys().copied().collect()))])
        };
        Self { config, indexes, shards, keys, rings, is_open: true }
    }

    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let config: CollectionConfig = serde_json::from_slice(&fs::read(dir.join(CONFIG_FILE))?)?;
        let indexes: Indexes = serde_json::from_slice(&fs::read(dir.join(INDEX_FILE))?)?;
        let keys: Vec<KeyShards> = serde_json::from_slice(&fs::read(dir.join(KEYS_FILE))?)?;
        let edge: EdgeConfig = config.edge()?;
        let mut shards = BTreeMap::new();
        let automatic = config.automatic_shards().map(|id| (id, None));
        let of_key = |of: &KeyShards| {
            let key = of.key.clone();
            of.shard_ids.clone().into_iter().map(move |id| (id, Some(key.clone())))
        };
        for (id, key) in automatic.chain(keys.iter().flat_map(of_key)) {
            let shard = EdgeShard::load(&dir.join(id.to_string()), Some(edge.clone()))?;
            shards.insert(id, Shard::new(shard, key));
        }
        let live = Self::new(config, indexes, shards, keys);
        live.index_what_is_not()?;
        Ok(live)
    }

    /// Closes the engine's files.
    pub(crate) fn close(&mut self) {
        self.shards.clear();
        self.is_open = false;
    }

    pub(crate) fn check_custom(&self) -> Result<()> {
        if self.config.is_custom() {
            return Ok(());
        }
        Err(Error::bad_request("Shard Key cannot be created with Auto sharding method"))
    }

    /// The shards of the keys that a request to read means: without any, all.
    pub(crate) fn rings_to_read(&self, keys: Option<&Selector>) -> Result<Vec<&Ring>> {
        let Some(keys) = keys else { return Ok(self.rings.values().collect()) };
        let ring = |key: &ShardKey| {
            let ring = self.rings.get(&Some(key.clone()));
            ring.ok_or_else(|| Error::bad_request(format!("Shard key {key} not found")))
        };
        keys.keys().iter().map(ring).collect()
    }

    pub(crate) fn shards_to_read(&self, keys: Option<&Selector>) -> Result<Vec<&Shard>> {
        let rings = self.rings_to_read(keys)?;
        rings.into_iter().flat_map(Ring::shards).map(|id| self.shard(*id)).collect()
    }

    /// The shards of the keys that a request to write means: it has to name them.
    pub(crate) fn rings_to_write(&self, keys: Option<&Selector>) -> Result<Vec<&Ring>> {
        let Some(keys) = keys else {
            let ring = self.rings.get(&None);
            return Ok(vec![ring.ok_or_else(|| Error::bad_input("Shard key not specified"))?]);
        };
        let ring = |key: &ShardKey| {
            let ring = self.rings.get(&Some(key.clone()));
            ring.ok_or_else(|| Error::bad_input(format!("Shard key {key} not found")))
        };
        keys.keys().iter().map(ring).collect()
    }

    /// Makes the indexes that a replaced shard came without.
    fn index_what_is_not(&self) -> Result<()> {
        for shard in self.shards.values() {
            let there = shard.edge.info().payload_schema;
            for (field, schema) in &self.indexes.schema {
                if !there.contains_key(field) {
                    shard.update(index_operation(field.clone(), schema.clone()))?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn shard(&self, id: u32) -> Result<&Shard> {
        self.shards.get(&id).ok_or_else(|| Error::not_found(format!("shard {id} not found")))
    }

    pub(crate) fn update(&self, operation: UpdateOperation, ring: &Ring) -> Result<Updated> {
        match operation {
            UpdateOperation::PointOperation(PointOperations::UpsertPoints(points)) => self.spread(
                ring,
                points.into_point_vec(),
                |p| p.id,
                |part| {
                    let points = PointInsertOperations::PointsList(part);
                    UpdateOperation::PointOperation(PointOperations::UpsertPoints(points))
                },
            ),
            UpdateOperation::PointOperation(PointOperations::DeletePoints { ids }) => self.spread(
                ring,
                ids,
                |id| *id,
                |ids| UpdateOperation::PointOperation(PointOperations::DeletePoints { ids }),
            ),
            UpdateOperation::PayloadOperation(PayloadOps::SetPayload(op)) => {
                self.set_payload(ring, op, PayloadOps::SetPayload)
            }
            UpdateOperation::PayloadOperation(PayloadOps::OverwritePayload(op)) => {
                self.set_payload(ring, op, PayloadOps::OverwritePayload)
            }
            other => self.update_each(ring.shards(), &other),
        }
    }

    fn set_payload(
        &self,
        ring: &Ring,
        mut op: SetPayloadOp,
        wrap: fn(SetPayloadOp) -> PayloadOps,
    ) -> Result<Updated> {
        match op.points.take() {
            None => self.update_each(ring.shards(), &UpdateOperation::PayloadOperation(wrap(op))),
            Some(ids) => self.spread(
                ring,
                ids,
                |id| *id,
                |ids| {
                    let op = SetPayloadOp { points: Some(ids), ..op.clone() };
                    UpdateOperation::PayloadOperation(wrap(op))
                },
            ),
        }
    }

    pub(crate) fn update_all(&self, operation: &UpdateOperation) -> Result<Updated> {
        self.update_each(self.shards.keys(), operation)
    }

    fn update_each<'a>(
        &self,
        shards: impl IntoIterator<Item = &'a u32>,
        operation: &UpdateOperation,
    ) -> Result<Updated> {
        let mut last = 0;
        for id in shards {
            last = last.max(self.shard(*id)?.update(operation.clone())?);
        }
        Ok(Updated { operation_id: last, status: UpdateStatus::Completed })
    }

    fn spread<T>(
        &self,
        ring: &Ring,
        items: Vec<T>,
        id: impl Fn(&T) -> PointId,
        operation: impl Fn(Vec<T>) -> UpdateOperation,
    ) -> Result<Updated> {
        let mut parts: BTreeMap<u32, Vec<T>> = BTreeMap::new();
        if let [shard] = ring.shards() {
            parts.insert(*shard, items);
        } else {
            for item in items {
                parts.entry(ring.shard_of(&id(&item))).or_default().push(item);
            }
        }
        let mut last = 0;
        for (shard, part) in parts {
            if !part.is_empty() {
                last = last.max(self.shard(shard)?.update(operation(part))?);
            }
        }
        Ok(Updated { operation_id: last, status: UpdateStatus::Completed })
    }
}

impl Shard {
    pub(crate) fn create(
        collection: &Path,
        id: u32,
        key: Option<ShardKey>,
        config: &CollectionConfig,
        indexes: &Indexes,
    ) -> Result<Self> {
        let dir = collection.join(id.to_string());
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let shard = Self::new(EdgeShard::new(&dir, config.edge()?)?, key);
        for (field, schema) in &indexes.schema {
            shard.update(index_operation(field.clone(), schema.clone()))?;
        }
        Ok(shard)
    }

    fn new(edge: EdgeShard, key: Option<ShardKey>) -> Self {
        Self { edge, key, writing: Mutex::new(()), operations: AtomicU64::new(0) }
    }

    /// Stops writers, so that the shard can be flushed and its files copied.
    pub(crate) fn stop_writers(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, operation: UpdateOperation) -> Result<u64> {
        let _writing = self.stop_writers();
        self.edge.update(operation)?;
        Ok(self.operations.fetch_add(1, Ordering::Relaxed))
    }
}

pub(crate) fn index_operation(field_name: JsonPath, schema: PayloadFieldSchema) -> UpdateOperation {
    let field_schema = Some(schema);
    let create = FieldIndexOperations::CreateIndex(CreateIndex { field_name, field_schema });
    UpdateOperation::FieldIndexOperation(create)
}
