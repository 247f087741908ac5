//! Shards whose vectors are not those of the archive.

use backup_core::{
    BackupOptions, Embedder, Embedding, ErrorKind, RestoreOptions, RestoreReport, Result, Stores,
    archive::Archive, async_trait,
};
use backup_qdrant::edge::{EdgeStore, qdrant_edge::*};
use futures::executor::block_on;

use super::kit::{Place, dump, names, stage, take};

struct Lengths;

#[async_trait]
impl Embedder for Lengths {
    fn model(&self) -> &str {
        "lengths"
    }

    fn dimension(&self) -> usize {
        6
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|text| vec![text.len() as f32; 6]).collect())
    }
}

/// A shard with a vector of so many dimensions, and nothing in it.
fn other(dim: usize) -> Place {
    let place = Place::new();
    let text = EdgeVectorParams::builder(dim, Distance::Cosine).build();
    place.store.create(EdgeConfig::builder().vector("text", text).build()).unwrap();
    place
}

fn restore(to: &EdgeStore, options: &RestoreOptions) -> Result<RestoreReport> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar.gz");
    let from = Place::with(40);
    let stores = |store: &EdgeStore| Stores::new("test", "1.0.0").with("vectors", store.clone());
    block_on(async {
        stores(&from.store).backup_to_file(&path, &BackupOptions::new()).await?;
        let archive = Archive::open(&path)?;
        stores(to).plan_restore_with(&archive, options).await?.execute().await
    })
}

fn bare() -> RestoreOptions {
    RestoreOptions::new().no_safety_backup()
}

#[test]
fn a_shard_of_other_vectors_takes_others_only_when_asked() {
    let place = other(6);
    let before = dump(&place.store);
    let error = restore(&place.store, &bare()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(error.to_string().contains("dimension 4, cosine, f32 in the archive"), "{error}");
    assert!(error.advice().contains("accept_other_vectors"), "{}", error.advice());
    assert_eq!(dump(&place.store), before);
    assert_eq!(names(place.dir.path()), ["notes"]);
    // Where the manifest was not asked, when the collection is announced.
    let taken = take(&Place::with(3).store);
    let error = stage(&place.store, &taken).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert_eq!(dump(&place.store), before);

    let place = other(6);
    let store = place.store.clone().accept_other_vectors();
    assert!(restore(&store, &bare()).unwrap().restored());
    assert_eq!(place.store.shard().unwrap().info().points_count, 40);
}

#[test]
fn a_vector_is_left_out() {
    let place = other(6);
    let report = restore(&place.store, &bare().drop_vector("vectors", "notes", "text")).unwrap();
    assert_eq!(report.stores[0].vectors["notes"]["text"].to_string(), "left out");
    let shard = place.store.shard().unwrap();
    assert_eq!((shard.info().points_count, shard.config().vectors.len()), (40, 0));
}

#[test]
fn texts_are_embedded_again() {
    let place = other(6);
    let store = place.store.clone().model("lengths");
    let embedding = Embedding::new("vectors", "notes", "text", "/text", Lengths);
    let report = restore(&store, &bare().embed(embedding)).unwrap();
    let said = report.stores[0].vectors["notes"]["text"].to_string();
    assert_eq!(said, "40 made by lengths, 0 kept, 0 without a text");
    assert_eq!(place.store.shard().unwrap().config().vectors["text"].size, 6);
    let taken = take(&store);
    assert_eq!(taken.schema.as_ref().unwrap().info.model.as_deref(), Some("lengths"));
    assert_eq!(taken.batches[0].columns()[0].row_f32(0), vec![(1.0_f64 / 6.0).sqrt() as f32; 6]);
}
