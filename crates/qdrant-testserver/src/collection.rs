//! One collection: what is asked of it, and of its points.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use qdrant_edge::{
    CountRequest, FieldIndexOperations, JsonPath, Payload, PayloadFieldSchema, PayloadIndexInfo,
    PointId, PointInsertOperations, PointOperations, PointStructPersisted, Record, ScrollRequest,
    SparseVector, UpdateOperation, VectorPersisted, VectorStructPersisted, WithPayloadInterface,
    WithVector,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{CollectionConfig, UpdateCollection};
use crate::error::{Error, Result};
use crate::files::write_json;
use crate::live::{Live, Shard, index_operation};
use crate::peer::Peer;
use crate::ring::Ring;
use crate::sharding::{KeyShards, NewKey, Selector, ShardKey};

pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const INDEX_FILE: &str = "payload_index.json";
pub(crate) const KEYS_FILE: &str = "shard_key_mapping.json";

/// The payload indexes of a collection, by field.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Indexes {
    pub(crate) schema: BTreeMap<JsonPath, PayloadFieldSchema>,
}

#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) name: String,
    dir: PathBuf,
    live: RwLock<Live>,
}

/// What a change answers: the number of its operation, and whether it was waited for.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Updated {
    pub(crate) operation_id: u64,
    pub(crate) status: UpdateStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UpdateStatus {
    Acknowledged,
    Completed,
}

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: Vec<Placed>,
    pub(crate) next: Option<PointId>,
}

/// A record, and the shard key under which it lies.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) record: Record,
    pub(crate) key: Option<ShardKey>,
}

impl Collection {
    /// Creates a collection in `dir`, which must not exist. Its configuration is written last: a
    /// folder without it is a creation that was cut short.
    ///
    /// Where shard keys choose the shards there are none until keys are made.
    pub(crate) fn create(
        name: &str,
        dir: &Path,
        config: CollectionConfig,
        indexes: Indexes,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut shards = BTreeMap::new();
        for id in config.automatic_shards() {
            shards.insert(id, Shard::create(dir, id, None, &config, &indexes)?);
        }
        write_json(&dir.join(KEYS_FILE), &json!([]))?;
        write_json(&dir.join(INDEX_FILE), &indexes)?;
        write_json(&dir.join(CONFIG_FILE), &config)?;
        let live = Live::new(config, indexes, shards, Vec::new());
        Ok(Self { name: name.to_owned(), dir: dir.to_owned(), live: RwLock::new(live) })
    }

    pub(crate) fn open(name: &str, dir: &Path) -> Result<Self> {
        let live = Live::open(dir)?;
        Ok(Self { name: name.to_owned(), dir: dir.to_owned(), live: RwLock::new(live) })
    }

    pub(crate) fn read(&self) -> Result<RwLockReadGuard<'_, Live>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        self.check_open(&live)?;
        Ok(live)
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, Live>> {
        let live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        self.check_open(&live)?;
        Ok(live)
    }

    fn check_open(&self, live: &Live) -> Result<()> {
        if live.is_open { Ok(()) } else { Err(Error::no_collection(&self.name)) }
    }

    /// Closes the engine's files, so that they can be removed: it writes to them until then.
    pub(crate) fn close(&self) {
        self.live.write().unwrap_or_else(PoisonError::into_inner).close();
    }

    pub(crate) fn info(&self) -> Result<Value> {
        let live = self.read()?;
        let mut points = 0;
        let mut indexed = 0;
        let mut segments = 0;
        let mut schema: BTreeMap<String, PayloadIndexInfo> = BTreeMap::new();
        for shard in live.shards.values() {
            let info = shard.edge.info();
            points += info.points_count;
            indexed += info.indexed_vectors_count;
            segments += info.segments_count;
            for (field, info) in info.payload_schema {
                schema
                    .entry(field.to_string())
                    .and_modify(|total| total.points += info.points)
                    .or_insert(info);
            }
        }
        Ok(json!({
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": indexed,
            "points_count": points,
            "segments_count": segments,
            "config": live.config.shown()?,
            "payload_schema": schema,
            "update_queue": {"length": 0},
        }))
    }

    pub(crate) fn cluster(&self, peer: Peer) -> Result<Value> {
        let live = self.read()?;
        let (mut local, mut remote) = (Vec::new(), Vec::new());
        for (id, shard) in &live.shards {
            let mut shown = json!({"shard_id": id, "state": "Active"});
            if let Some(key) = &shard.key {
                shown["shard_key"] = json!(key);
            }
            if peer.has(*id) {
                shown["points_count"] = json!(shard.edge.info().points_count);
                local.push(shown);
            } else {
                shown["peer_id"] = json!(peer.of(*id).id());
                remote.push(shown);
            }
        }
        Ok(json!({
            "peer_id": peer.id(),
            "shard_count": live.shards.len(),
            "local_shards": local,
            "remote_shards": remote,
            "shard_transfers": [],
        }))
    }

    pub(crate) fn update_config(&self, update: UpdateCollection) -> Result<()> {
        let mut live = self.write()?;
        let mut config = live.config.clone();
        config.update(update)?;
        write_json(&self.dir.join(CONFIG_FILE), &config)?;
        live.config = config;
        Ok(())
    }

    pub(crate) fn create_index(
        &self,
        field: JsonPath,
        schema: PayloadFieldSchema,
    ) -> Result<Updated> {
        let mut live = self.write()?;
        let updated = live.update_all(&index_operation(field.clone(), schema.clone()))?;
        live.indexes.schema.insert(field, schema);
        write_json(&self.dir.join(INDEX_FILE), &live.indexes)?;
        Ok(updated)
    }

    pub(crate) fn delete_index(&self, field: JsonPath) -> Result<Updated> {
        let mut live = self.write()?;
        let delete = FieldIndexOperations::DeleteIndex(field.clone());
        let updated = live.update_all(&UpdateOperation::FieldIndexOperation(delete))?;
        live.indexes.schema.remove(&field);
        write_json(&self.dir.join(INDEX_FILE), &live.indexes)?;
        Ok(updated)
    }

    /// The shard keys, in the order in which they were made.
    pub(crate) fn keys(&self) -> Result<Value> {
        let live = self.read()?;
        let keys: Vec<_> = live.keys.iter().map(|shards| json!({"key": shards.key})).collect();
        Ok(json!({ "shard_keys": keys }))
    }

    pub(crate) fn create_key(&self, new: NewKey, peer: Peer) -> Result<()> {
        let mut live = self.write()?;
        live.check_custom()?;
        let key = new.shard_key;
        if live.keys.iter().any(|shards| shards.key == key) {
            let name = &self.name;
            let text = format!("Sharding key {key} already exists for collection {name}");
            return Err(Error::bad_request(text));
        }
        if let Some(other) = new.placement.iter().flatten().find(|asked| **asked != peer.id()) {
            return Err(Error::bad_request(format!("Peer {other} does not exist")));
        }
        let last = live.keys.iter().flat_map(|shards| &shards.shard_ids).max().copied();
        let first = last.unwrap_or(0) + 1;
        let number = new.shards_number.unwrap_or(live.config.params.shard_number).get();
        let ids: Vec<u32> = (first..first + number).collect();
        for id in &ids {
            let shard =
                Shard::create(&self.dir, *id, Some(key.clone()), &live.config, &live.indexes)?;
            live.shards.insert(*id, shard);
        }
        live.rings.insert(Some(key.clone()), Ring::new(ids.clone()));
        live.keys.push(KeyShards { key, shard_ids: ids });
        Ok(write_json(&self.dir.join(KEYS_FILE), &live.keys)?)
    }

    /// Removes a shard key with its points.
    pub(crate) fn delete_key(&self, key: ShardKey) -> Result<()> {
        let mut live = self.write()?;
        live.check_custom()?;
        let Some(at) = live.keys.iter().position(|shards| shards.key == key) else {
            let name = &self.name;
            let text = format!("Sharding key {key} does not exist for collection {name}");
            return Err(Error::bad_request(text));
        };
        let removed = live.keys.remove(at);
        write_json(&self.dir.join(KEYS_FILE), &live.keys)?;
        live.rings.remove(&Some(key));
        for id in removed.shard_ids {
            live.shards.remove(&id);
            fs::remove_dir_all(self.dir.join(id.to_string()))?;
        }
        Ok(())
    }

    /// Each id once, though several keys may have it.
    pub(crate) fn retrieve(
        &self,
        ids: &[PointId],
        payload: Option<WithPayloadInterface>,
        vector: WithVector,
        keys: Option<&Selector>,
    ) -> Result<Vec<Placed>> {
        let live = self.read()?;
        let mut records: Vec<Placed> = Vec::with_capacity(ids.len());
        let mut found = HashSet::new();
        for ring in live.rings_to_read(keys)? {
            let mut parts: BTreeMap<u32, Vec<PointId>> = BTreeMap::new();
            for id in ids {
                parts.entry(ring.shard_of(id)).or_default().push(*id);
            }
            for (id, part) in parts {
                let shard = live.shard(id)?;
                let read = shard.edge.retrieve(&part, payload.clone(), Some(vector.clone()))?;
                let new = read.into_iter().filter(|record| found.insert(record.id));
                records.extend(new.map(|record| Placed { record, key: shard.key.clone() }));
            }
        }
        Ok(records)
    }

    pub(crate) fn scroll(&self, request: ScrollRequest, keys: Option<&Selector>) -> Result<Page> {
        let live = self.read()?;
        let shards = live.shards_to_read(keys)?;
        let placed = |shard: &Shard, records: Vec<Record>| -> Vec<Placed> {
            let key = &shard.key;
            records.into_iter().map(|record| Placed { record, key: key.clone() }).collect()
        };
        if let [shard] = shards[..] {
            let (records, next) = shard.edge.scroll(request)?;
            return Ok(Page { records: placed(shard, records), next });
        }
        if request.order_by.is_some() {
            return Err(Error::bad_request("This server orders only collections of one shard"));
        }
        let limit = request.limit.unwrap_or(ScrollRequest::default_limit());
        let request = ScrollRequest { limit: Some(limit.saturating_add(1)), ..request };
        let mut records = Vec::new();
        for shard in shards {
            records.extend(placed(shard, shard.edge.scroll(request.clone())?.0));
        }
        records.sort_by_key(|placed| placed.record.id);
        records.dedup_by_key(|placed| placed.record.id);
        let next = records.get(limit).map(|placed| placed.record.id);
        records.truncate(limit);
        Ok(Page { records, next })
    }

    pub(crate) fn count(&self, request: &CountRequest, keys: Option<&Selector>) -> Result<usize> {
        let live = self.read()?;
        let mut count = 0;
        for shard in live.shards_to_read(keys)? {
            count += shard.edge.count(request.clone())?;
        }
        Ok(count)
    }

    /// Applies a change. Without `wait`, a server answers before it knows whether the change could
    /// be made: neither does this answer tell, though it comes after the change.
    pub(crate) fn update(
        &self,
        operation: UpdateOperation,
        keys: Option<&Selector>,
        wait: bool,
    ) -> Result<Updated> {
        check(&operation)?;
        let live = self.read()?;
        let rings = live.rings_to_write(keys)?;
        let updates = rings.into_iter().map(|ring| live.update(operation.clone(), ring));
        let updated = updates.collect::<Result<Vec<_>>>().map(|all| all.into_iter().next());
        match updated {
            Ok(None) => Err(Error::bad_input("Empty shard keys selection")),
            Ok(Some(updated)) if wait => Ok(updated),
            Ok(Some(updated)) => Ok(Updated { status: UpdateStatus::Acknowledged, ..updated }),
            Err(error) if !wait && error.is_bad_input() => {
                Ok(Updated { operation_id: 0, status: UpdateStatus::Acknowledged })
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces the data with those in `folder`, a prepared folder of the same vectors and shards.
    /// What was there goes to `trash`.
    pub(crate) fn replace(&self, folder: &Path, trash: &Path) -> Result<()> {
        let mut live = self.write()?;
        let missing = |id: &&u32| !folder.join(id.to_string()).exists();
        if let Some(id) = live.shards.keys().find(missing) {
            let text = format!("No shard found: {id} at {}", folder.display());
            return Err(Error::service(text));
        }
        write_json(&folder.join(CONFIG_FILE), &live.config)?;
        write_json(&folder.join(INDEX_FILE), &live.indexes)?;
        write_json(&folder.join(KEYS_FILE), &live.keys)?;
        live.close();
        fs::rename(&self.dir, trash)?;
        let moved = fs::rename(folder, &self.dir);
        if moved.is_err() {
            fs::rename(trash, &self.dir)?;
        }
        *live = Live::open(&self.dir)?;
        moved?;
        Ok(())
    }

    /// Replaces the data of one shard.
    pub(crate) fn replace_shard(&self, id: u32, folder: &Path, trash: &Path) -> Result<()> {
        let mut live = self.write()?;
        let dir = self.dir.join(id.to_string());
        live.close();
        fs::rename(&dir, trash)?;
        let moved = fs::rename(folder, &dir);
        if moved.is_err() {
            fs::rename(trash, &dir)?;
        }
        *live = Live::open(&self.dir)?;
        moved?;
        Ok(())
    }
}

/// What the server checks before a change reaches the engine, which relies on it.
fn check(operation: &UpdateOperation) -> Result<()> {
    if let UpdateOperation::PointOperation(PointOperations::UpsertPoints(
        PointInsertOperations::PointsList(points),
    )) = operation
    {
        points.iter().try_for_each(check_point)?;
    }
    Ok(())
}

fn check_point(point: &PointStructPersisted) -> Result<()> {
    match &point.vector {
        VectorStructPersisted::Single(_) => Ok(()),
        VectorStructPersisted::MultiDense(rows) => check_rows(rows),
        VectorStructPersisted::Named(named) => named.values().try_for_each(|vector| match vector {
            VectorPersisted::Dense(_) => Ok(()),
            VectorPersisted::MultiDense(rows) => check_rows(rows),
            VectorPersisted::Sparse(sparse) => check_sparse(sparse),
        }),
    }
}

fn check_rows(rows: &[Vec<f32>]) -> Result<()> {
    let dim = rows.first().map_or(0, Vec::len);
    if dim == 0 {
        return Err(Error::validation("Validation error in body: [data: empty multi vector]"));
    }
    match rows.iter().find(|row| row.len() != dim) {
        None => Ok(()),
        Some(row) => Err(Error::validation(format!(
            "Validation error in body: [data: all vectors must have the same dimension, found \
             vector with dimension {}, expected {dim}]",
            row.len()
        ))),
    }
}

fn check_sparse(sparse: &SparseVector) -> Result<()> {
    if sparse.indices.len() != sparse.values.len() {
        return Err(Error::validation(
            "Validation error in body: [values: must be the same length as indices]",
        ));
    }
    let mut indices = sparse.indices.clone();
    indices.sort_unstable();
    if indices.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Error::validation("Validation error in body: [indices: must be unique]"));
    }
    Ok(())
}

/// A record as REST shows it.
#[derive(Serialize)]
pub(crate) struct Shown {
    id: PointId,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<VectorStructPersisted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_key: Option<ShardKey>,
}

impl From<Placed> for Shown {
    fn from(Placed { record, key }: Placed) -> Self {
        let vector = record.vector.map(VectorStructPersisted::from);
        Self { id: record.id, payload: record.payload, vector, shard_key: key }
    }
}
