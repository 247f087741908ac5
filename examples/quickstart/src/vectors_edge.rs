//! The embeddings, in a shard of Qdrant's embedded engine.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use backup_kit::{
    Error, ErrorKind, Result,
    qdrant::edge::{
        EdgeStore,
        qdrant_edge::{
            CreateIndex, Distance, EdgeConfig, EdgeVectorParams, FieldIndexOperations,
            OperationError, PayloadFieldSchema, PayloadSchemaType, PointId, PointInsertOperations,
            PointOperations, PointStruct, ScrollRequest, UpdateOperation, VectorInternal,
            VectorStructInternal, Vectors as PointVectors, WithVector, external::uuid::Uuid,
        },
    },
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::memory::hex;

/// Numbers of one embedding.
pub(crate) const DIM: usize = 384;
/// Where the embeddings are.
pub(crate) const PLACE: &str = "a shard of Qdrant's embedded engine";

pub(crate) struct Vectors {
    path: PathBuf,
    store: EdgeStore,
}

/// What there is.
#[derive(Debug, PartialEq)]
pub(crate) struct Look {
    pub(crate) count: u64,
    /// A digest of ids and payloads.
    pub(crate) records: String,
    pub(crate) embeddings: String,
}

impl Vectors {
    pub(crate) fn fill(folder: &Path, points: &[Value], embeddings: Vec<Vec<f32>>) -> Result<Self> {
        let path = folder.join("vectors");
        let vectors = Self { store: open(&path)?, path };
        let text = EdgeVectorParams::builder(DIM, Distance::Cosine).build();
        vectors.store.create(EdgeConfig::builder().vector("text", text).build())?;
        let points = points.iter().zip(embeddings).map(|(point, embedding)| {
            let id = Uuid::try_parse(point["id"].as_str().unwrap_or_default())
                .map_err(|e| Error::new(ErrorKind::Corrupt, "the sample is damaged").because(e))?;
            let embedding = PointVectors::new_named([("text", embedding)]);
            Ok(PointStruct::new(PointId::Uuid(id), embedding, point["payload"].clone()).into())
        });
        let points = PointInsertOperations::PointsList(points.collect::<Result<_>>()?);
        vectors.update(UpdateOperation::PointOperation(PointOperations::UpsertPoints(points)))?;
        let field_name = "tags".parse().map_err(|()| Error::adapter("a field without a name"))?;
        let keyword = PayloadFieldSchema::FieldType(PayloadSchemaType::Keyword);
        vectors.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(
            CreateIndex { field_name, field_schema: Some(keyword) },
        )))?;
        Ok(vectors)
    }

    fn update(&self, update: UpdateOperation) -> Result<()> {
        self.store.shard()?.update(update).map_err(engine)
    }

    /// For backup-kit; both share one shard.
    pub(crate) fn store(&self) -> EdgeStore {
        self.store.clone()
    }

    pub(crate) fn destroy(self) -> Result<Self> {
        let Self { path, store } = self;
        drop(store);
        fs::remove_dir_all(&path)?;
        Ok(Self { store: open(&path)?, path })
    }

    /// Reads every point, in the order of ids.
    pub(crate) fn look(&self) -> Result<Look> {
        let shard = self.store.shard()?;
        let (mut records, mut embeddings) = (Sha256::new(), Sha256::new());
        let (mut count, mut offset) = (0, None);
        loop {
            let with_vector = WithVector::Bool(true);
            let limit = Some(100);
            let request = ScrollRequest { offset, limit, with_vector, ..Default::default() };
            let (points, next) = shard.scroll(request).map_err(engine)?;
            for point in points {
                count += 1;
                // The engine keeps members in the order in which they came.
                let payload = point.payload.map(|payload| payload.0).unwrap_or_default();
                let payload: BTreeMap<_, _> = payload.into_iter().collect();
                records.update(format!("{} {payload:?}\n", point.id));
                let Some(VectorStructInternal::Named(named)) = &point.vector else { continue };
                let Some(VectorInternal::Dense(text)) = named.get("text") else { continue };
                text.iter().for_each(|value| embeddings.update(value.to_le_bytes()));
            }
            offset = next;
            if offset.is_none() {
                let (records, embeddings) = (hex(records), hex(embeddings));
                return Ok(Look { count, records, embeddings });
            }
        }
    }
}

fn open(path: &Path) -> Result<EdgeStore> {
    Ok(EdgeStore::open(path)?.collection("passages"))
}

fn engine(error: OperationError) -> Error {
    Error::new(ErrorKind::Io, "the engine failed").because(error)
}
