//! Collections whose vectors are not those of the archive.

use std::collections::BTreeSet;

use backup_core::{
    BackupOptions, Embedder, Embedding, Error, ErrorKind, RestoreOptions, RestoreReport, Result,
    Stores, archive::Archive, async_trait,
};
use backup_qdrant::QdrantOptions;
use serde_json::{Value, json};

use super::fixture::{Site, run, same};

/// A model: of each text its length and its first letter, and one.
struct Letters(&'static str);

#[async_trait]
impl Embedder for Letters {
    fn model(&self) -> &str {
        self.0
    }

    fn dimension(&self) -> usize {
        3
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let vector = |text: &String| vec![text.len() as f32, f32::from(text.as_bytes()[0]), 1.0];
        Ok(texts.iter().map(vector).collect())
    }
}

fn embedding(model: &'static str) -> Embedding {
    Embedding::new("vectors", "docs", "text", "/body", Letters(model))
}

fn bare() -> RestoreOptions {
    RestoreOptions::new().no_safety_backup()
}

struct Scene {
    site: Site,
    folder: tempfile::TempDir,
    before: Vec<String>,
}

fn config(model: &str, size: u64) -> Value {
    json!({
        "vectors": {
            "text": {"size": size, "distance": "Cosine", "datatype": "float16"},
            "image": {"size": 2, "distance": "Dot"},
        },
        "sparse_vectors": {"words": {}},
        "metadata": {"embedding_model": model, "owner": "docs"},
    })
}

/// A collection of a model of four dimensions, archived.
async fn scene() -> Scene {
    let site = Site::start().await;
    site.create("docs", config("old", 4)).await;
    let points = (1..=300_u64).map(|n| {
        let mut vector =
            json!({"image": [n as f32, 1.0], "words": {"indices": [n], "values": [1.0]}});
        // Some have none.
        if n % 3 != 0 {
            vector["text"] = json!([n as f32, 1.0, -2.0, 0.5]);
        }
        let body = if n == 7 { Value::Null } else { json!(format!("text number {}", n * n)) };
        json!({"id": n, "vector": vector, "payload": {"body": body}})
    });
    site.upsert("docs", points.collect()).await;
    site.ask(
        "PUT",
        "/collections/docs/index?wait=true",
        json!({
            "field_name": "body", "field_schema": "text",
        }),
    )
    .await;
    site.alias("current", "docs").await;
    let folder = tempfile::tempdir().expect("a folder");
    let memory = Stores::new("test", "1.0.0").with("vectors", site.store());
    let archive = folder.path().join("a.tar.gz");
    memory.backup_to_file(&archive, &BackupOptions::new()).await.expect("a backup");
    let before = site.all().await;
    Scene { site, folder, before }
}

impl Scene {
    async fn restore(
        &self,
        store: QdrantOptions,
        options: &RestoreOptions,
    ) -> Result<RestoreReport> {
        let memory = Stores::new("test", "1.0.0").with("vectors", store.open()?);
        let archive = Archive::open(self.folder.path().join("a.tar.gz"))?;
        memory.plan_restore_with(&archive, options).await?.execute().await
    }

    /// Refused when it is planned, with nothing made.
    async fn refused(&self, store: QdrantOptions, options: &RestoreOptions) -> Error {
        let before = self.site.all().await;
        let memory = Stores::new("test", "1.0.0").with("vectors", store.open().expect("a store"));
        let archive = Archive::open(self.folder.path().join("a.tar.gz")).expect("an archive");
        let error = memory.plan_restore_with(&archive, options).await.expect_err("other vectors");
        same(&self.site.all().await, &before);
        error
    }

    async fn replace_live(&self, config: Value) {
        self.site.ask("DELETE", "/collections/docs", Value::Null).await;
        self.site.create("docs", config).await;
    }

    async fn config(&self) -> Value {
        self.site.ask("GET", "/collections/docs", Value::Null).await["config"].clone()
    }
}

#[test]
fn other_vectors_are_refused_with_the_ways_out_before_any_data_moves() {
    run(async {
        let scene = scene().await;
        let mut other = config("old", 4);
        for (pointer, value, said) in [
            ("/vectors/text/size", json!(5), "dimension 5"),
            ("/vectors/text/distance", json!("Dot"), "dot"),
            ("/vectors/text/datatype", json!("float32"), "f32"),
            ("/metadata/embedding_model", json!("new"), "the model is old"),
            ("/sparse_vectors", json!({}), "no vector \"words\""),
        ] {
            let place = other.pointer_mut(pointer).expect("a member");
            let was = std::mem::replace(place, value);
            scene.replace_live(other.clone()).await;
            *other.pointer_mut(pointer).expect("a member") = was;
            for options in [bare(), bare().merge()] {
                let error = scene.refused(scene.site.options(), &options).await;
                assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
                assert!(error.to_string().contains(said), "{error}");
                for way in ["map", "drop_vector", "embed", "accept_other_vectors"] {
                    assert!(error.advice().contains(way), "{}", error.advice());
                }
            }
        }
    });
}

#[test]
fn a_vector_is_left_out_of_a_collection_that_has_none_or_another() {
    run(async {
        let scene = scene().await;
        let options = bare().drop_vector("vectors", "docs", "text");
        // The live one of another dimension, the collection without it, and none at all.
        for live in [Some(config("old", 5)), None] {
            scene.site.ask("DELETE", "/collections/docs", Value::Null).await;
            if let Some(live) = live {
                scene.site.create("docs", live).await;
            }
            let report = scene.restore(scene.site.options(), &options).await.expect("a restore");
            assert!(report.restored());
            let config = scene.config().await;
            assert!(config["params"]["vectors"]["text"].is_null(), "{config}");
            assert_eq!(config["params"]["vectors"]["image"]["size"], 2);
            let points = scene.site.points("docs").await;
            assert_eq!(points.len(), 300);
            for point in &points {
                let vectors = point["vector"].as_object().expect("vectors");
                let names: BTreeSet<_> = vectors.keys().map(String::as_str).collect();
                assert_eq!(names, ["image", "words"].into());
            }
        }
        // Into one that stays as it is: of those points the vector goes.
        scene.replace_live(config("old", 5)).await;
        let vector = json!({"text": [1, 0, 0, 0, 0], "image": [0, 1]});
        let mine = json!({"id": 1000, "vector": vector, "payload": {}});
        scene.site.upsert("docs", vec![mine]).await;
        scene.restore(scene.site.options(), &options.merge()).await.expect("a merge");
        assert_eq!(scene.config().await["params"]["vectors"]["text"]["size"], 5);
        let points = scene.site.points("docs").await;
        assert_eq!(points.len(), 301);
        let with_text = points.iter().filter(|point| !point["vector"]["text"].is_null());
        assert_eq!(with_text.map(|point| point["id"].clone()).collect::<Vec<_>>(), [1000]);
        assert_eq!(scene.site.traces().await, Vec::<String>::new());
    });
}

#[test]
fn texts_are_embedded_again_for_the_model_of_now() {
    run(async {
        let scene = scene().await;
        scene.replace_live(config("new", 3)).await;
        let options = bare().embed(embedding("new"));
        for options in [options.clone(), options.clone().merge()] {
            let report = scene.restore(scene.site.options(), &options).await.expect("a restore");
            assert!(report.restored());
            let said = report.stores[0].vectors["docs"]["text"].to_string();
            assert_eq!(said, "299 made by new, 0 kept, 1 without a text");
            let settings = scene.config().await;
            assert_eq!(settings["params"]["vectors"]["text"]["size"], 3);
            assert_eq!(settings["params"]["vectors"]["text"]["datatype"], "float16");
            assert_eq!(settings["metadata"], json!({"embedding_model": "new", "owner": "docs"}));
            let points = scene.site.points("docs").await;
            let text = |n: usize| points[n - 1]["vector"]["text"].as_array().cloned();
            assert_eq!(text(7), None);
            let length: f64 =
                text(3).expect("made").iter().map(|v| v.as_f64().expect("a number").powi(2)).sum();
            assert!((length - 1.0).abs() < 0.01, "{length}");
            scene.replace_live(config("new", 3)).await;
        }
        // The other model is refused without.
        let error = scene.refused(scene.site.options(), &bare().embed(embedding("newer"))).await;
        assert!(error.to_string().contains("the model is newer"), "{error}");
        assert_eq!(scene.site.traces().await, Vec::<String>::new());
    });
}

#[test]
fn of_the_same_model_only_points_without_a_vector_get_one() {
    run(async {
        let scene = scene().await;
        // The host knows better than the metadata what the model is called.
        let named = || scene.site.options().model("do*", "letters").model("*", "others");
        let memory = Stores::new("test", "1.0.0").with("vectors", named().open().expect("a store"));
        let path = scene.folder.path().join("a.tar.gz");
        std::fs::remove_file(&path).expect("removed");
        let mut plain = config("old", 3);
        plain["vectors"]["text"]["datatype"] = json!("float32");
        scene.replace_live(plain).await;
        let points = (1..=30_u64).map(|n| {
            let vector =
                if n % 3 == 0 { json!({}) } else { json!({"text": [n as f32, 1.0, -2.0]}) };
            json!({"id": n, "vector": vector, "payload": {"body": "x"}})
        });
        scene.site.upsert("docs", points.collect()).await;
        memory.backup_to_file(&path, &BackupOptions::new()).await.expect("a backup");
        let manifest = Archive::open(&path).expect("an archive").manifest().clone();
        let info = &manifest.stores["vectors"].collections["docs"].info;
        assert_eq!(info.model.as_deref(), Some("letters"));

        let before = scene.site.points("docs").await;
        let options = bare().embed(embedding("letters"));
        let report = scene.restore(named(), &options).await.expect("a restore");
        let said = report.stores[0].vectors["docs"]["text"].to_string();
        assert_eq!(said, "10 made by letters, 20 kept, 0 without a text");
        for (before, after) in before.iter().zip(&scene.site.points("docs").await) {
            if !before["vector"]["text"].is_null() {
                assert_eq!(before, after);
            } else {
                assert_eq!(after["vector"]["text"].as_array().expect("made").len(), 3);
            }
        }
        let other = scene.site.options().model("*", "another");
        let error = scene.refused(other, &options).await;
        assert!(error.to_string().contains("the model is letters"), "{error}");
        let other = scene.site.options().model("*", "another").accept_other_vectors();
        scene.restore(other, &bare().merge()).await.expect("only another model");
    });
}

#[test]
fn the_same_model_is_left_as_it_is() {
    run(async {
        let scene = scene().await;
        let report = scene.restore(scene.site.options(), &bare()).await.expect("a restore");
        assert!(report.stores[0].vectors.is_empty());
        same(&scene.site.all().await, &scene.before);
    });
}
