//! The document that recreates a collection.

use std::collections::BTreeMap;

use backup_core::{
    Error, ErrorKind, Result, Schema,
    manifest::{CollectionInfo, VectorInfo},
    record::ElementType,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::shard_key::{KeyedShards, ShardKey};

/// What recreates a collection, in the words of Qdrant's REST interface: so nothing is lost
/// that this version does not know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Document {
    /// `result.config` of `GET /collections/{name}`.
    pub(crate) config: Value,
    /// For each indexed field what creates its index: a type, or an object of parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) payload_indexes: BTreeMap<String, Value>,
    /// Where the application chooses the shards: its shard keys, in the order of their shards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) shard_keys: Vec<KeyedShards>,
    /// The aliases that pointed at the collection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) aliases: Vec<String>,
}

/// Where the manifest lists the shard keys of a collection that has them.
pub(crate) const SHARD_KEYS: &str = "shard_keys";

/// Where a collection's metadata names the model.
pub(crate) const MODEL: [&str; 4] = ["embedding_model", "model", "embedding-model", "model_name"];

/// The form of one vector of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VectorForm {
    /// Its name; the unnamed vector is `""`.
    pub(crate) name: String,
    pub(crate) element: ElementType,
    pub(crate) layout: Layout,
    /// In lower case, as the manifest has it.
    pub(crate) distance: Option<String>,
}

/// How the values of a vector are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Dense { dim: usize },
    Multi { dim: usize },
    Sparse,
}

impl VectorForm {
    pub(crate) fn is_multi(&self) -> bool {
        matches!(self.layout, Layout::Multi { .. })
    }
}

impl Document {
    /// From what `GET /collections/{name}` and its list of aliases answered.
    #[cfg(feature = "qdrant")]
    pub(crate) fn from_rest(info: &Value, mut aliases: Vec<String>) -> Self {
        let indexes = info.get("payload_schema").and_then(Value::as_object);
        let payload_indexes = indexes.into_iter().flatten().map(|(field, index)| {
            let wanted = index.get("params").filter(|params| !params.is_null());
            let kind = index.get("data_type");
            (field.clone(), wanted.or(kind).cloned().unwrap_or_default())
        });
        aliases.sort();
        Self {
            config: info.get("config").cloned().unwrap_or_default(),
            payload_indexes: payload_indexes.collect(),
            shard_keys: Vec::new(),
            aliases,
        }
    }

    /// From a part of an archive.
    pub(crate) fn read(schema: &Schema) -> Result<Self> {
        serde_json::from_value(schema.document.clone()).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "the description of a collection cannot be read")
                .on(&schema.collection)
                .because(e)
        })
    }

    /// As a part, with what the manifest says. `model` is the host's word for it.
    pub(crate) fn part(&self, collection: &str, model: Option<&str>) -> Result<Schema> {
        let document = serde_json::to_value(self)
            .map_err(|e| Error::adapter("a collection cannot be described").because(e))?;
        Ok(Schema { collection: collection.to_owned(), document, info: self.info(model)? })
    }

    /// What the manifest says of the collection.
    pub(crate) fn info(&self, model: Option<&str>) -> Result<CollectionInfo> {
        let mut info = CollectionInfo::default();
        for form in self.forms()? {
            let dim = match form.layout {
                Layout::Dense { dim } | Layout::Multi { dim } => Some(dim as u64),
                Layout::Sparse => None,
            };
            let vector = VectorInfo { dim, element: form.element, distance: form.distance };
            info.vector_info.insert(form.name, vector);
        }
        info.model = model.map(str::to_owned).or_else(|| self.model());
        if self.is_keyed() {
            let keys: Vec<&ShardKey> = self.shard_keys.iter().map(|shards| &shards.key).collect();
            info.metadata.insert(SHARD_KEYS.to_owned(), json!(keys));
        }
        Ok(info)
    }

    /// The model that the collection's own metadata names.
    pub(crate) fn model(&self) -> Option<String> {
        let metadata = self.config.get("metadata")?;
        MODEL.iter().find_map(|name| metadata.get(name)?.as_str()).map(str::to_owned)
    }

    fn params(&self) -> Option<&Map<String, Value>> {
        self.config.get("params")?.as_object()
    }

    /// The collection's vectors, in the order of their names.
    pub(crate) fn forms(&self) -> Result<Vec<VectorForm>> {
        let mut forms = Vec::new();
        let params = self.params();
        let vectors = params.and_then(|params| params.get("vectors")?.as_object());
        // An object with a size is the one unnamed vector.
        if let Some(unnamed) =
            vectors.filter(|vectors| vectors.get("size").is_some_and(Value::is_u64))
        {
            forms.push(dense("", unnamed)?);
        } else {
            for (name, vector) in vectors.into_iter().flatten() {
                let vector = vector.as_object().ok_or_else(|| odd(name))?;
                forms.push(dense(name, vector)?);
            }
        }
        let sparse = params.and_then(|params| params.get("sparse_vectors")?.as_object());
        forms.extend(sparse.into_iter().flatten().map(|(name, _)| VectorForm {
            name: name.clone(),
            element: ElementType::F32,
            layout: Layout::Sparse,
            distance: None,
        }));
        forms.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(forms)
    }

    /// Whether the application chooses the shard of each point, by a shard key.
    pub(crate) fn is_keyed(&self) -> bool {
        self.params().and_then(|params| params.get("sharding_method")?.as_str()) == Some("custom")
    }

    /// Whether there is a shard key.
    #[cfg(feature = "qdrant")]
    pub(crate) fn has(&self, key: &ShardKey) -> bool {
        self.shard_keys.iter().any(|shards| shards.key == *key)
    }

    /// What `PUT /collections/{name}` is asked for.
    #[cfg(feature = "qdrant")]
    pub(crate) fn create_request(&self) -> Value {
        let mut request = self.params().cloned().unwrap_or_default();
        for (from, to) in [
            ("hnsw_config", "hnsw_config"),
            ("optimizer_config", "optimizers_config"),
            ("wal_config", "wal_config"),
            ("quantization_config", "quantization_config"),
            ("strict_mode_config", "strict_mode_config"),
            ("metadata", "metadata"),
        ] {
            if let Some(part) = self.config.get(from).filter(|part| !part.is_null()) {
                request.insert(to.to_owned(), part.clone());
            }
        }
        request.retain(|_, value| !value.is_null());
        Value::Object(request)
    }

    /// What makes a collection that keeps points of this one for a while: nobody searches it,
    /// and no limits of the application hold there.
    #[cfg(feature = "qdrant")]
    pub(crate) fn scratch_request(&self) -> Value {
        let mut request = self.params().cloned().unwrap_or_default();
        request.retain(|_, value| !value.is_null());
        request.insert("optimizers_config".to_owned(), json!({"indexing_threshold": 0}));
        Value::Object(request)
    }
}

fn odd(name: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "the configuration of a vector cannot be read").on(name)
}

fn dense(name: &str, vector: &Map<String, Value>) -> Result<VectorForm> {
    let size = vector.get("size").and_then(Value::as_u64).ok_or_else(|| odd(name))?;
    let dim = usize::try_from(size).map_err(|_| odd(name))?;
    let multi = vector.get("multivector_config").is_some_and(|config| !config.is_null());
    Ok(VectorForm {
        name: name.to_owned(),
        element: match vector.get("datatype").and_then(Value::as_str) {
            None | Some("float32") => ElementType::F32,
            Some("float16") => ElementType::F16,
            Some("uint8") => ElementType::U8,
            Some(other) => {
                let what = format!("vectors of the type {other} are not known");
                return Err(Error::new(ErrorKind::Unsupported, what).on(name));
            }
        },
        layout: if multi { Layout::Multi { dim } } else { Layout::Dense { dim } },
        distance: vector.get("distance").and_then(Value::as_str).map(str::to_lowercase),
    })
}
