//! The embeddings, in memory.

use std::path::Path;

use backup_kit::{
    MemoryStore, Result,
    manifest::{CollectionInfo, VectorInfo},
    record::{BatchBuilder, ElementType, Key},
};
use serde_json::Value;

/// Numbers of one embedding.
pub(crate) const DIM: usize = 384;
/// Where the embeddings are.
pub(crate) const PLACE: &str = "in memory, in the place of a vector database";

pub(crate) struct Vectors(MemoryStore);

/// What there is.
#[derive(Debug, PartialEq)]
pub(crate) struct Look {
    pub(crate) count: u64,
    /// A digest of ids and payloads.
    pub(crate) records: String,
    pub(crate) embeddings: String,
}

impl Vectors {
    pub(crate) fn fill(_: &Path, points: &[Value], embeddings: Vec<Vec<f32>>) -> Result<Self> {
        let vectors = MemoryStore::new();
        let mut info = CollectionInfo::default();
        let vector = VectorInfo {
            dim: Some(DIM as u64),
            element: ElementType::F32,
            distance: Some("cosine".into()),
        };
        info.vector_info.insert("text".into(), vector);
        info.model = Some("all-MiniLM-L6-v2".into());
        for (field, place) in [
            (&mut info.fields.project, "/project"),
            (&mut info.fields.category, "/category"),
            (&mut info.fields.tags, "/tags"),
            (&mut info.fields.title, "/title"),
            (&mut info.fields.content, "/content"),
        ] {
            *field = Some(place.to_owned());
        }
        vectors.create("passages", serde_json::json!({}), info);

        let mut batch = BatchBuilder::new("passages");
        let text = batch.dense("text", ElementType::F32, DIM);
        for (point, row) in points.iter().zip(embeddings) {
            let id = point["id"].as_str().unwrap_or_default();
            batch.push(&Key::from(id), |json| json.value(&point["payload"]))?;
            batch.set_f32(text, &row)?;
        }
        vectors.insert_batch(&batch.finish()?)?;
        Ok(Self(vectors))
    }

    /// For backup-kit; both share one store.
    pub(crate) fn store(&self) -> MemoryStore {
        self.0.clone()
    }

    pub(crate) fn destroy(self) -> Result<Self> {
        self.0.clear();
        Ok(self)
    }

    pub(crate) fn look(&self) -> Result<Look> {
        let tally = &self.0.content().collections["passages"];
        Ok(Look {
            count: tally.records,
            records: tally.digest.to_string(),
            embeddings: tally.vectors["text"].digest.to_string(),
        })
    }
}
