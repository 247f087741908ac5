//! The configuration of a collection: as the API takes and shows it, and as the engine takes it.

use std::collections::{BTreeMap, HashMap};
use std::num::{NonZeroU32, NonZeroUsize};

use qdrant_edge::{
    Distance, EdgeConfig, EdgeOptimizersConfig, EdgeSparseVectorParams, EdgeVectorParams,
    HnswIndexConfig, Modifier, MultiVectorConfig, QuantizationConfig, VectorStorageDatatype,
    WalOptions,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// What `config.json` of a collection and of its snapshots holds, and what the API shows.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CollectionConfig {
    pub(crate) params: CollectionParams,
    pub(crate) hnsw_config: Value,
    pub(crate) optimizer_config: Value,
    pub(crate) wal_config: Value,
    #[serde(default)]
    pub(crate) quantization_config: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) strict_mode_config: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CollectionParams {
    #[serde(default)]
    pub(crate) vectors: Vectors,
    pub(crate) shard_number: NonZeroU32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sharding_method: Option<ShardingMethod>,
    replication_factor: NonZeroU32,
    write_consistency_factor: NonZeroU32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_fan_out_factor: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_fan_out_delay_ms: Option<u64>,
    on_disk_payload: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sparse_vectors: Option<BTreeMap<String, SparseParams>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ShardingMethod {
    Auto,
    Custom,
}

/// One unnamed vector, or any number of named ones.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
#[serde(expecting = "Expected a single vector configuration or a map of named ones")]
pub(crate) enum Vectors {
    Single(Box<VectorParams>),
    Named(BTreeMap<String, VectorParams>),
}

impl Default for Vectors {
    fn default() -> Self {
        Self::Named(BTreeMap::new())
    }
}

impl Vectors {
    fn iter_mut(&mut self) -> Vec<(&str, &mut VectorParams)> {
        match self {
            Self::Single(params) => vec![("", params)],
            Self::Named(named) => named.iter_mut().map(|(n, p)| (n.as_str(), p)).collect(),
        }
    }

    fn iter(&self) -> Vec<(&str, &VectorParams)> {
        match self {
            Self::Single(params) => vec![("", params)],
            Self::Named(named) => named.iter().map(|(n, p)| (n.as_str(), p)).collect(),
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct VectorParams {
    size: NonZeroUsize,
    distance: Distance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hnsw_config: Option<Value>,
    #[serde(default, alias = "quantization", skip_serializing_if = "Option::is_none")]
    quantization_config: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_disk: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datatype: Option<VectorStorageDatatype>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    multivector_config: Option<MultiVectorConfig>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct SparseParams {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<SparseIndex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modifier: Option<Modifier>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct SparseIndex {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    full_scan_threshold: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_disk: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datatype: Option<VectorStorageDatatype>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Memory {
    Cold,
    Cached,
    Pinned,
}

/// The body of a request that creates a collection.
#[derive(Debug, Deserialize)]
pub(crate) struct CreateCollection {
    #[serde(default)]
    vectors: Vectors,
    shard_number: Option<u32>,
    sharding_method: Option<ShardingMethod>,
    replication_factor: Option<u32>,
    write_consistency_factor: Option<u32>,
    on_disk_payload: Option<bool>,
    payload: Option<Value>,
    hnsw_config: Option<Map<String, Value>>,
    wal_config: Option<Map<String, Value>>,
    #[serde(alias = "optimizer_config")]
    optimizers_config: Option<Map<String, Value>>,
    #[serde(alias = "quantization")]
    quantization_config: Option<Value>,
    sparse_vectors: Option<BTreeMap<String, SparseParams>>,
    strict_mode_config: Option<Value>,
    metadata: Option<Map<String, Value>>,
}

/// The body of a request that changes a collection.
#[derive(Debug, Deserialize)]
pub(crate) struct UpdateCollection {
    params: Option<ParamsDiff>,
    hnsw_config: Option<Map<String, Value>>,
    #[serde(alias = "optimizer_config")]
    optimizers_config: Option<Map<String, Value>>,
    strict_mode_config: Option<Map<String, Value>>,
    metadata: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct ParamsDiff {
    replication_factor: Option<NonZeroU32>,
    write_consistency_factor: Option<NonZeroU32>,
    read_fan_out_factor: Option<u32>,
    read_fan_out_delay_ms: Option<u64>,
    on_disk_payload: Option<bool>,
}

impl CreateCollection {
    /// The configuration with the defaults of a server filled in.
    pub(crate) fn into_config(self) -> Result<CollectionConfig> {
        let mut config = CollectionConfig {
            params: CollectionParams {
                vectors: self.vectors,
                shard_number: at_least_one("shard_number", self.shard_number)?,
                sharding_method: self.sharding_method,
                replication_factor: at_least_one("replication_factor", self.replication_factor)?,
                write_consistency_factor: at_least_one(
                    "write_consistency_factor",
                    self.write_consistency_factor,
                )?,
                read_fan_out_factor: None,
                read_fan_out_delay_ms: None,
                on_disk_payload: self.on_disk_payload.unwrap_or(true),
                payload: self.payload,
                sparse_vectors: self.sparse_vectors,
            },
            hnsw_config: default_hnsw(),
            optimizer_config: default_optimizers(),
            wal_config: json!({
                "wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1,
            }),
            quantization_config: self.quantization_config.map(without_nulls),
            strict_mode_config: self.strict_mode_config.map(without_nulls),
            metadata: self.metadata,
        };
        merge(&mut config.hnsw_config, self.hnsw_config);
        merge(&mut config.optimizer_config, self.optimizers_config);
        merge(&mut config.wal_config, self.wal_config);
        for (_, params) in config.params.vectors.iter_mut() {
            params.hnsw_config = params.hnsw_config.take().map(without_nulls);
            params.quantization_config = params.quantization_config.take().map(without_nulls);
        }
        config.check()?;
        Ok(config)
    }
}

impl CollectionConfig {
    /// What the API shows under `config`.
    pub(crate) fn shown(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// What a collection's snapshot holds: the same and the collection's (unused) identity.
    pub(crate) fn for_snapshot(&self) -> Result<Value> {
        let mut config = self.shown()?;
        config["uuid"] = Value::Null;
        Ok(config)
    }

    /// Whether shard keys choose the shards.
    pub(crate) fn is_custom(&self) -> bool {
        self.params.sharding_method == Some(ShardingMethod::Custom)
    }

    /// The numbers of the shards that are there without any key.
    pub(crate) fn automatic_shards(&self) -> std::ops::Range<u32> {
        0..if self.is_custom() { 0 } else { self.params.shard_number.get() }
    }

    /// Whether a snapshot with this configuration may replace the data of a collection.
    pub(crate) fn check_replaces(&self, live: &Self) -> Result<()> {
        let (new, old) = (&self.params, &live.params);
        if new.vectors != old.vectors {
            return Err(Error::bad_input(format!(
                "Snapshot is not compatible with existing collection: Collection vectors: {:?} \
                 Snapshot Vectors: {:?}",
                old.vectors, new.vectors
            )));
        }
        if new.shard_number != old.shard_number {
            return Err(Error::bad_input(format!(
                "Snapshot is not compatible with existing collection: Collection shard number: \
                 {:?} Snapshot shard number: {:?}",
                old.shard_number, new.shard_number
            )));
        }
        Ok(())
    }

    pub(crate) fn update(&mut self, update: UpdateCollection) -> Result<()> {
        let mut new = self.clone();
        merge(&mut new.optimizer_config, update.optimizers_config);
        merge(&mut new.hnsw_config, update.hnsw_config);
        if let Some(params) = update.params {
            let live = &mut new.params;
            live.replication_factor = params.replication_factor.unwrap_or(live.replication_factor);
            live.write_consistency_factor =
                params.write_consistency_factor.unwrap_or(live.write_consistency_factor);
            live.read_fan_out_factor = params.read_fan_out_factor.or(live.read_fan_out_factor);
            live.read_fan_out_delay_ms =
                params.read_fan_out_delay_ms.or(live.read_fan_out_delay_ms);
            live.on_disk_payload = params.on_disk_payload.unwrap_or(live.on_disk_payload);
        }
        if update.strict_mode_config.is_some() {
            let strict = new.strict_mode_config.get_or_insert_with(|| json!({}));
            merge(strict, update.strict_mode_config);
        }
        for (key, value) in update.metadata.unwrap_or_default() {
            let metadata = new.metadata.get_or_insert_default();
            if value.is_null() {
                metadata.remove(&key);
            } else {
                metadata.insert(key, value);
            }
        }
        new.check()?;
        *self = new;
        Ok(())
    }

    pub(crate) fn edge(&self) -> Result<EdgeConfig> {
        let hnsw: HnswIndexConfig = read("hnsw_config", &self.hnsw_config)?;
        let optimizers: EdgeOptimizersConfig = read("optimizers_config", &self.optimizer_config)?;
        let mut vectors = HashMap::new();
        for (name, params) in self.params.vectors.iter() {
            vectors.insert(name.to_owned(), params.edge(&self.hnsw_config)?);
        }
        let sparse = self.params.sparse_vectors.iter().flatten();
        Ok(EdgeConfig {
            on_disk_payload: self.params.on_disk_payload,
            vectors,
            sparse_vectors: sparse.map(|(name, params)| (name.clone(), params.edge())).collect(),
            hnsw_config: hnsw,
            quantization_config: read_opt("quantization_config", &self.quantization_config)?,
            optimizers: EdgeOptimizersConfig {
                // Would hide points until an optimizer ran, and none does.
                prevent_unoptimized: None,
                ..optimizers
            },
            wal_options: Some(self.wal()?),
        })
    }

    fn wal(&self) -> Result<WalOptions> {
        #[derive(Deserialize)]
        struct Wal {
            wal_capacity_mb: NonZeroUsize,
            wal_segments_ahead: usize,
        }
        let wal: Wal = read("wal_config", &self.wal_config)?;
        Ok(WalOptions {
            segment_capacity: wal.wal_capacity_mb.get() * 1024 * 1024,
            segment_queue_len: wal.wal_segments_ahead,
            ..WalOptions::default()
        })
    }

    fn check(&self) -> Result<()> {
        self.edge()?;
        let dense = self.params.vectors.iter();
        for (name, params) in &dense {
            if params.size.get() > 65_536 {
                return Err(Error::validation(format!(
                    "Validation error in JSON body: [vectors.size: value {} invalid, must be from \
                     1 to 65536]",
                    params.size
                )));
            }
            check_vector_name("dense", name)?;
        }
        for name in self.params.sparse_vectors.iter().flat_map(BTreeMap::keys) {
            check_vector_name("sparse", name)?;
            if name.is_empty() {
                return Err(Error::bad_input("Sparse vector name cannot be empty"));
            }
            if dense.iter().any(|(dense, _)| dense == name) {
                return Err(Error::bad_input(format!(
                    "Dense and sparse vector names must be unique - duplicate found with '{name}'"
                )));
            }
        }
        Ok(())
    }
}

impl VectorParams {
    fn edge(&self, global: &Value) -> Result<EdgeVectorParams> {
        let hnsw = match &self.hnsw_config {
            None => None,
            Some(diff) => {
                let mut merged = global.clone();
                merge(&mut merged, diff.as_object().cloned());
                Some(read("vectors.hnsw_config", &merged)?)
            }
        };
        Ok(EdgeVectorParams {
            size: self.size.get(),
            distance: self.distance,
            on_disk: self.on_disk,
            multivector_config: self.multivector_config,
            datatype: self.datatype,
            quantization_config: read_opt(
                "vectors.quantization_config",
                &self.quantization_config,
            )?,
            hnsw_config: hnsw,
        })
    }
}

impl SparseParams {
    fn edge(&self) -> EdgeSparseVectorParams {
        let index = self.index.as_ref();
        EdgeSparseVectorParams {
            full_scan_threshold: index.and_then(|i| i.full_scan_threshold),
            on_disk: index.and_then(|i| i.on_disk),
            modifier: self.modifier,
            datatype: index.and_then(|i| i.datatype),
        }
    }
}

/// Characters that no name of a collection or a vector may have.
const NOT_IN_NAMES: [char; 11] = ['<', '>', ':', '"', '/', '\\', '|', '?', '*', '\0', '\u{1F}'];

pub(crate) fn check_collection_name(name: &str) -> Result<()> {
    let length = name.chars().count();
    if !(1..=255).contains(&length) {
        return Err(Error::validation(format!(
            "Validation error in path parameters: [collection_name: value {name:?} invalid, must \
             be from 1 to 255 characters]"
        )));
    }
    match name.chars().find(|c| NOT_IN_NAMES.contains(c)) {
        Some(c) => Err(Error::validation(format!(
            "Validation error in path parameters: [collection_name: value {name:?} invalid, \
             collection name cannot contain \"{c}\" char]"
        ))),
        None => Ok(()),
    }
}

fn check_vector_name(kind: &str, name: &str) -> Result<()> {
    let problem = match name.chars().find(|c| NOT_IN_NAMES.contains(c)) {
        Some(c) => format!("vector name cannot contain \"{c}\" char"),
        None if name.len() > 200 => "vector name must be at most 200 bytes long".to_owned(),
        None => return Ok(()),
    };
    Err(Error::bad_input(format!("Invalid {kind} vector name `{name}`: {problem}")))
}

fn at_least_one(field: &str, value: Option<u32>) -> Result<NonZeroU32> {
    NonZeroU32::new(value.unwrap_or(1)).ok_or_else(|| {
        Error::validation(format!(
            "Validation error in JSON body: [{field}: value 0 invalid, must be 1 or larger]"
        ))
    })
}

fn default_hnsw() -> Value {
    json!({
        "m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0,
        "on_disk": false,
    })
}

fn default_optimizers() -> Value {
    json!({
        "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0,
        "max_segment_size": null, "memmap_threshold": null, "indexing_threshold": 10000,
        "flush_interval_sec": 5, "max_optimization_threads": null, "prevent_unoptimized": null,
    })
}

fn merge(config: &mut Value, diff: Option<Map<String, Value>>) {
    for (key, value) in diff.unwrap_or_default() {
        if !value.is_null() {
            config[key] = value;
        }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k, without_nulls(v)))
                .collect(),
        ),
        other => other,
    }
}

fn read<T: DeserializeOwned>(what: &str, value: &Value) -> Result<T> {
    T::deserialize(value)
        .map_err(|e| Error::format(format!("Format error in JSON body: {what}: {e}")))
}

fn read_opt(what: &str, value: &Option<Value>) -> Result<Option<QuantizationConfig>> {
    value.as_ref().map(|v| read(what, v)).transpose()
}
