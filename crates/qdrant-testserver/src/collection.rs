//! One collection: its shards, each an engine shard, and the points in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use qdrant_edge::{
    CountRequest, CreateIndex, EdgeConfig, EdgeShard, FieldIndexOperations, JsonPath, Payload,
    PayloadFieldSchema, PayloadIndexInfo, PayloadOps, PointId, PointInsertOperations,
    PointOperations, PointStructPersisted, Record, ScrollRequest, SetPayloadOp, SparseVector,
    UpdateOperation, VectorPersisted, VectorStructPersisted, WithPayloadInterface, WithVector,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{CollectionConfig, UpdateCollection};
use crate::error::{Error, Result};
use crate::files::write_json;
use crate::ring::Ring;

pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const INDEX_FILE: &str = "payload_index.json";

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

/// What a snapshot can replace as one.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: CollectionConfig,
    pub(crate) indexes: Indexes,
    pub(crate) shards: Vec<Shard>,
    ring: Ring,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) edge: EdgeShard,
    /// Held while the shard is written or flushed: the engine allows only one of them at a time.
    writing: Mutex<()>,
    operations: AtomicU64,
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
    pub(crate) records: Vec<Record>,
    pub(crate) next: Option<PointId>,
}

impl Collection {
    /// Creates a collection in `dir`, which must not exist. Its configuration is written last: a
    /// folder without it is a creation that was cut short.
    pub(crate) fn create(name: &str, dir: &Path, config: CollectionConfig) -> Result<Self> {
        let edge = config.edge()?;
        let indexes = Indexes::default();
        let mut shards = Vec::new();
        for id in 0..config.shards() {
            let dir = dir.join(id.to_string());
            fs::create_dir_all(&dir)?;
            shards.push(Shard::new(EdgeShard::new(&dir, edge.clone())?));
        }
        write_json(&dir.join(INDEX_FILE), &indexes)?;
        write_json(&dir.join(CONFIG_FILE), &config)?;
        let live = Live { ring: Ring::new(shards.len()), config, indexes, shards };
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
        if live.shards.is_empty() { Err(Error::no_collection(&self.name)) } else { Ok(()) }
    }

    /// Closes the engine's files, so that they can be removed: it writes to them until then.
    pub(crate) fn close(&self) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.shards.clear();
    }

    pub(crate) fn info(&self) -> Result<Value> {
        let live = self.read()?;
        let mut points = 0;
        let mut indexed = 0;
        let mut segments = 0;
        let mut schema: BTreeMap<String, PayloadIndexInfo> = BTreeMap::new();
        for shard in &live.shards {
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

    pub(crate) fn cluster(&self, peer: u64) -> Result<Value> {
        let live = self.read()?;
        let shards: Vec<Value> = (live.shards.iter().enumerate())
            .map(|(id, shard)| {
                let points = shard.edge.info().points_count;
                json!({"shard_id": id, "points_count": points, "state": "Active"})
            })
            .collect();
        Ok(json!({
            "peer_id": peer,
            "shard_count": shards.len(),
            "local_shards": shards,
            "remote_shards": [],
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

    pub(crate) fn retrieve(
        &self,
        ids: &[PointId],
        payload: Option<WithPayloadInterface>,
        vector: WithVector,
    ) -> Result<Vec<Record>> {
        let live = self.read()?;
        let mut parts = vec![Vec::new(); live.shards.len()];
        for id in ids {
            parts[live.ring.shard_of(id)].push(*id);
        }
        let mut records = Vec::with_capacity(ids.len());
        for (shard, part) in live.shards.iter().zip(&parts).filter(|(_, part)| !part.is_empty()) {
            records.extend(shard.edge.retrieve(part, payload.clone(), Some(vector.clone()))?);
        }
        Ok(records)
    }

    pub(crate) fn scroll(&self, request: ScrollRequest) -> Result<Page> {
        let live = self.read()?;
        if let [shard] = &live.shards[..] {
            let (records, next) = shard.edge.scroll(request)?;
            return Ok(Page { records, next });
        }
        if request.order_by.is_some() {
            return Err(Error::bad_request("This server orders only collections of one shard"));
        }
        let limit = request.limit.unwrap_or(ScrollRequest::default_limit());
        let request = ScrollRequest { limit: Some(limit.saturating_add(1)), ..request };
        let mut records = Vec::new();
        for shard in &live.shards {
            records.extend(shard.edge.scroll(request.clone())?.0);
        }
        records.sort_unstable_by_key(|record| record.id);
        let next = records.get(limit).map(|record| record.id);
        records.truncate(limit);
        Ok(Page { records, next })
    }

    pub(crate) fn count(&self, request: &CountRequest) -> Result<usize> {
        let live = self.read()?;
        let mut count = 0;
        for shard in &live.shards {
            count += shard.edge.count(request.clone())?;
        }
        Ok(count)
    }

    /// Applies a change. Without `wait`, a server answers before it knows whether the change could
    /// be made: neither does this answer tell, though it comes after the change.
    pub(crate) fn update(&self, operation: UpdateOperation, wait: bool) -> Result<Updated> {
        check(&operation)?;
        let live = self.read()?;
        match live.update(operation) {
            Ok(updated) if wait => Ok(updated),
            Ok(updated) => Ok(Updated { status: UpdateStatus::Acknowledged, ..updated }),
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
        write_json(&folder.join(CONFIG_FILE), &live.config)?;
        write_json(&folder.join(INDEX_FILE), &live.indexes)?;
        live.shards.clear();
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
    pub(crate) fn replace_shard(&self, id: usize, folder: &Path, trash: &Path) -> Result<()> {
        let mut live = self.write()?;
        let dir = self.dir.join(id.to_string());
        live.shards.clear();
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

impl Live {
    fn open(dir: &Path) -> Result<Self> {
        let config: CollectionConfig = serde_json::from_slice(&fs::read(dir.join(CONFIG_FILE))?)?;
        let indexes: Indexes = serde_json::from_slice(&fs::read(dir.join(INDEX_FILE))?)?;
        let edge: EdgeConfig = config.edge()?;
        let mut shards = Vec::new();
        for id in 0..config.shards() {
            let shard = EdgeShard::load(&dir.join(id.to_string()), Some(edge.clone()))?;
            shards.push(Shard::new(shard));
        }
        let live = Self { ring: Ring::new(shards.len()), config, indexes, shards };
        live.index_what_is_not()?;
        Ok(live)
    }

    /// Makes the indexes that a replaced shard came without.
    fn index_what_is_not(&self) -> Result<()> {
        for shard in &self.shards {
            let there = shard.edge.info().payload_schema;
            for (field, schema) in &self.indexes.schema {
                if !there.contains_key(field) {
                    shard.update(index_operation(field.clone(), schema.clone()))?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn shard(&self, id: usize) -> Result<&Shard> {
        self.shards.get(id).ok_or_else(|| Error::not_found(format!("shard {id} not found")))
    }

    fn update(&self, operation: UpdateOperation) -> Result<Updated> {
        match operation {
            UpdateOperation::PointOperation(PointOperations::UpsertPoints(points)) => self.spread(
                points.into_point_vec(),
                |p| p.id,
                |part| {
                    let points = PointInsertOperations::PointsList(part);
                    UpdateOperation::PointOperation(PointOperations::UpsertPoints(points))
                },
            ),
            UpdateOperation::PointOperation(PointOperations::DeletePoints { ids }) => self.spread(
                ids,
                |id| *id,
                |ids| UpdateOperation::PointOperation(PointOperations::DeletePoints { ids }),
            ),
            UpdateOperation::PayloadOperation(PayloadOps::SetPayload(op)) => {
                self.set_payload(op, PayloadOps::SetPayload)
            }
            UpdateOperation::PayloadOperation(PayloadOps::OverwritePayload(op)) => {
                self.set_payload(op, PayloadOps::OverwritePayload)
            }
            other => self.update_all(&other),
        }
    }

    fn set_payload(
        &self,
        mut op: SetPayloadOp,
        wrap: fn(SetPayloadOp) -> PayloadOps,
    ) -> Result<Updated> {
        match op.points.take() {
            None => self.update_all(&UpdateOperation::PayloadOperation(wrap(op))),
            Some(ids) => self.spread(
                ids,
                |id| *id,
                |ids| {
                    let op = SetPayloadOp { points: Some(ids), ..op.clone() };
                    UpdateOperation::PayloadOperation(wrap(op))
                },
            ),
        }
    }

    fn update_all(&self, operation: &UpdateOperation) -> Result<Updated> {
        let mut last = 0;
        for shard in &self.shards {
            last = last.max(shard.update(operation.clone())?);
        }
        Ok(Updated { operation_id: last, status: UpdateStatus::Completed })
    }

    fn spread<T>(
        &self,
        items: Vec<T>,
        id: impl Fn(&T) -> PointId,
        operation: impl Fn(Vec<T>) -> UpdateOperation,
    ) -> Result<Updated> {
        let mut parts: Vec<Vec<T>> = Vec::new();
        if self.shards.len() == 1 {
            parts.push(items);
        } else {
            parts.resize_with(self.shards.len(), Vec::new);
            for item in items {
                parts[self.ring.shard_of(&id(&item))].push(item);
            }
        }
        let mut last = 0;
        for (shard, part) in self.shards.iter().zip(parts) {
            if !part.is_empty() {
                last = last.max(shard.update(operation(part))?);
            }
        }
        Ok(Updated { operation_id: last, status: UpdateStatus::Completed })
    }
}

impl Shard {
    fn new(edge: EdgeShard) -> Self {
        Self { edge, writing: Mutex::new(()), operations: AtomicU64::new(0) }
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

fn index_operation(field_name: JsonPath, schema: PayloadFieldSchema) -> UpdateOperation {
    let field_schema = Some(schema);
    let create = FieldIndexOperations::CreateIndex(CreateIndex { field_name, field_schema });
    UpdateOperation::FieldIndexOperation(create)
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
}

impl From<Record> for Shown {
    fn from(record: Record) -> Self {
        let vector = record.vector.map(VectorStructPersisted::from);
        Self { id: record.id, payload: record.payload, vector }
    }
}
