//! What recreates a collection, as the configuration of a shard and back.

use std::{collections::HashMap, num::NonZeroUsize};

use backup_core::{Error, ErrorKind, Result};
use qdrant_edge::{
    CreateIndex, EdgeConfig, EdgeSparseVectorParams, EdgeVectorParams, FieldIndexOperations,
    HnswIndexConfig, JsonPath, PayloadFieldSchema, PayloadIndexInfo, UpdateOperation, WalOptions,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::schema::{Document, Layout};

/// The most that a server accepts.
const MAX_DIM: usize = 65_536;
/// The engine makes a folder of each name.
const MAX_NAME_BYTES: usize = 200;
/// A log's file is made whole at once.
const MAX_WAL_MB: u64 = 256;

/// The configuration of a shard for a collection.
pub(crate) fn edge_config(document: &Document) -> Result<EdgeConfig> {
    let params = &document.config["params"];
    let hnsw: HnswIndexConfig = part("hnsw_config", &document.config["hnsw_config"])?;
    let mut config = EdgeConfig::builder()
        .hnsw_config(hnsw)
        .optimizers(part("optimizer_config", &document.config["optimizer_config"])?)
        .build();
    config.quantization_config =
        part("quantization_config", &document.config["quantization_config"])?;
    config.wal_options = wal_options(&document.config["wal_config"]);
    if let Some(on_disk) = params["on_disk_payload"].as_bool() {
        config.on_disk_payload = on_disk;
    }
    for form in document.forms()? {
        check_name(&form.name)?;
        match form.layout {
            Layout::Sparse => {
                let sparse = sparse_vector(&form.name, &params["sparse_vectors"][&form.name])?;
                config.sparse_vectors.insert(form.name, sparse);
            }
            Layout::Dense { dim } | Layout::Multi { dim } => {
                if !(1..=MAX_DIM).contains(&dim) {
                    let what = format!("a vector of {dim} dimensions cannot be kept");
                    return Err(Error::new(ErrorKind::Unsupported, what).on(&form.name));
                }
                let vector = dense_vector(&form.name, dense_json(params, &form.name), &hnsw)?;
                config.vectors.insert(form.name, vector);
            }
        }
    }
    Ok(config)
}

/// Refuses a name that would lead the engine out of its folder.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let odd = |c: char| matches!(c, '/' | '\\' | '\0');
    if name.contains(odd) || name.len() > MAX_NAME_BYTES {
        let what = "the engine keeps a vector in a folder of its name, and this can be none";
        return Err(Error::new(ErrorKind::Unsupported, what).on(format!("vector {name:?}")));
    }
    Ok(())
}

fn dense_json<'a>(params: &'a Value, name: &str) -> &'a Value {
    let vectors = &params["vectors"];
    // An object with a size is the one unnamed vector.
    if vectors["size"].is_u64() { vectors } else { &vectors[name] }
}

fn dense_vector(name: &str, json: &Value, hnsw: &HnswIndexConfig) -> Result<EdgeVectorParams> {
    let mut json = json.clone();
    if let Some(changes) = json.get_mut("hnsw_config").filter(|changes| changes.is_object()) {
        // A collection's vector names only what differs.
        let mut full = to_json(hnsw);
        overwrite(&mut full, changes.take());
        *changes = full;
    }
    read(&format!("vector {name:?}"), json)
}

fn sparse_vector(name: &str, json: &Value) -> Result<EdgeSparseVectorParams> {
    let mut flat = json["index"].as_object().cloned().unwrap_or_default();
    flat.insert("modifier".to_owned(), json["modifier"].clone());
    read(&format!("vector {name:?}"), Value::Object(flat))
}

fn wal_options(json: &Value) -> Option<WalOptions> {
    let number = |name: &str| json[name].as_u64();
    let megabytes = number("wal_capacity_mb")?.clamp(1, MAX_WAL_MB);
    let mut options = WalOptions {
        segment_capacity: usize::try_from(megabytes << 20).ok()?,
        ..WalOptions::default()
    };
    let count = |name| number(name).and_then(|n| usize::try_from(n.min(16)).ok());
    options.segment_queue_len = count("wal_segments_ahead").unwrap_or(0);
    options.retain_closed =
        count("wal_retain_closed").and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN);
    Some(options)
}

/// The operations that make a collection's payload indexes.
pub(crate) fn index_operations(document: &Document) -> Result<Vec<(String, UpdateOperation)>> {
    let operation = |(field, schema): (&String, &Value)| {
        let what = format!("payload index {field:?}");
        let field_name: JsonPath = field
            .parse()
            .map_err(|()| Error::new(ErrorKind::Unsupported, "no field is called so").on(&what))?;
        let schema: PayloadFieldSchema = read(&what, schema.clone())?;
        let create = CreateIndex { field_name, field_schema: Some(schema) };
        let operation = FieldIndexOperations::CreateIndex(create);
        Ok((field.clone(), UpdateOperation::FieldIndexOperation(operation)))
    };
    document.payload_indexes.iter().map(operation).collect()
}

/// What recreates a shard: `kept` where the shard is still as that says, since a collection has
/// more to it than a shard does; else the shard's own words.
pub(crate) fn document(
    kept: Option<&Document>,
    config: &EdgeConfig,
    indexes: &HashMap<JsonPath, PayloadIndexInfo>,
) -> Document {
    let mut document = kept.cloned().unwrap_or_default();
    let was = kept.and_then(|kept| edge_config(kept).ok());
    for part in ["params", "hnsw_config", "optimizer_config", "wal_config"] {
        object(&mut document.config).entry(part).or_insert_with(|| json!({}));
    }
    let same = |equal: fn(&EdgeConfig, &EdgeConfig) -> bool| {
        was.as_ref().is_some_and(|was| equal(was, config))
    };
    let all = &mut document.config;
    if !same(|a, b| a.hnsw_config == b.hnsw_config) {
        overwrite(&mut all["hnsw_config"], to_json(&config.hnsw_config));
    }
    if !same(|a, b| a.optimizers == b.optimizers) {
        overwrite(&mut all["optimizer_config"], to_json(&config.optimizers));
    }
    if !same(|a, b| a.quantization_config == b.quantization_config) {
        all["quantization_config"] = to_json(&config.quantization_config);
    }
    if !same(|a, b| a.wal_options == b.wal_options) {
        all["wal_config"] = config.wal_options.as_ref().map_or_else(|| json!({}), wal_json);
    }
    if !same(|a, b| a.on_disk_payload == b.on_disk_payload) {
        all["params"]["on_disk_payload"] = config.on_disk_payload.into();
    }
    if !same(|a, b| a.vectors == b.vectors) {
        all["params"]["vectors"] = vectors(&all["params"], was.as_ref(), config);
    }
    if !same(|a, b| a.sparse_vectors == b.sparse_vectors) {
        all["params"]["sparse_vectors"] = sparse_vectors(&all["params"], was.as_ref(), config);
    }
    let kept = std::mem::take(&mut document.payload_indexes);
    document.payload_indexes = indexes
        .iter()
        .map(|(field, info)| {
            let field = field.to_string();
            let now = info.params.as_ref().map_or_else(|| to_json(&info.data_type), to_json);
            let same = |kept: &&Value| {
                let kept = serde_json::from_value::<PayloadFieldSchema>((*kept).clone()).ok();
                kept.is_some() && kept == serde_json::from_value(now.clone()).ok()
            };
            let kept = kept.get(&field).filter(same).cloned();
            (field, kept.unwrap_or(now))
        })
        .collect();
    document
}

fn vectors(kept: &Value, was: Option<&EdgeConfig>, config: &EdgeConfig) -> Value {
    let one = |(name, vector): (&String, &EdgeVectorParams)| {
        let same = was.is_some_and(|was| was.vectors.get(name) == Some(vector));
        (name.clone(), if same { dense_json(kept, name).clone() } else { to_json(vector) })
    };
    let mut all: Map<String, Value> = config.vectors.iter().map(one).collect();
    match all.remove("") {
        Some(unnamed) if all.is_empty() => unnamed,
        Some(unnamed) => {
            all.insert(String::new(), unnamed);
            Value::Object(all)
        }
        None => Value::Object(all),
    }
}

fn sparse_vectors(kept: &Value, was: Option<&EdgeConfig>, config: &EdgeConfig) -> Value {
    let one = |(name, vector): (&String, &EdgeSparseVectorParams)| {
        if was.is_some_and(|was| was.sparse_vectors.get(name) == Some(vector)) {
            return (name.clone(), kept["sparse_vectors"][name].clone());
        }
        let mut index = to_json(vector);
        let modifier = object(&mut index).remove("modifier");
        let mut json = json!({});
        if object(&mut index).values().any(|value| !value.is_null()) {
            json["index"] = index;
        }
        if let Some(modifier) = modifier {
            json["modifier"] = modifier;
        }
        (name.clone(), json)
    };
    Value::Object(config.sparse_vectors.iter().map(one).collect())
}

fn wal_json(options: &WalOptions) -> Value {
    json!({
        "wal_capacity_mb": options.segment_capacity.div_ceil(1 << 20),
        "wal_segments_ahead": options.segment_queue_len,
        "wal_retain_closed": options.retain_closed,
    })
}

fn part<T: DeserializeOwned + Default>(what: &str, json: &Value) -> Result<T> {
    if json.is_null() { Ok(T::default()) } else { read(what, json.clone()) }
}

fn read<T: DeserializeOwned>(what: &str, json: Value) -> Result<T> {
    serde_json::from_value(json).map_err(|e| {
        Error::new(ErrorKind::Unsupported, "this engine cannot be configured so")
            .on(what)
            .advise("restore into a server, or with a newer version")
            .because(e)
    })
}

// The engine's types are plain: this does not fail.
fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// What is not an object becomes an empty one.
fn object(json: &mut Value) -> &mut Map<String, Value> {
    if !json.is_object() {
        *json = json!({});
    }
    match json {
        Value::Object(members) => members,
        _ => unreachable!("made an object above"),
    }
}

/// Sets the members of `changes` that are not null.
fn overwrite(json: &mut Value, changes: Value) {
    if let Value::Object(changes) = changes {
        object(json).extend(changes.into_iter().filter(|(_, value)| !value.is_null()));
    }
}
