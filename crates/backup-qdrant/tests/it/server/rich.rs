//! What a real server held goes through an archive and comes back, to the last bit.

use std::path::PathBuf;

use backup_core::{Catalog, ErrorKind, Stores};
use serde_json::{Value, json};

use super::fixture::{Site, run, same};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/qdrant")).join(name)
}

/// A server with the collection `rich` of the fixtures and its two aliases.
pub(crate) async fn rich() -> Site {
    let site = Site::start().await;
    let bytes = std::fs::read(fixture("rich.snapshot")).expect("the fixture");
    site.upload("rich", bytes).await;
    site.alias("memories-live", "rich").await;
    site.alias("memories-eu", "rich").await;
    site
}

struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn catalog(&self) -> Catalog {
        Catalog::open(self.folder.path()).expect("a catalog")
    }

    async fn backup(&self, site: &Site) {
        let memory = Stores::new("test", "1.0.0").with("vectors", site.store());
        let backup = memory.backup(&self.catalog()).await.expect("a backup");
        assert!(backup.outcome.is_complete(), "{backup:?}");
    }

    async fn restore(&self, store: backup_qdrant::QdrantStore) -> backup_core::Result<()> {
        let catalog = self.catalog();
        let memory = Stores::new("test", "1.0.0").with("vectors", store);
        let plan = memory.plan_restore(&catalog.latest()?).await?;
        let report = plan.execute().await?;
        assert!(report.restored() && report.warnings.is_empty(), "{report:?}");
        Ok(())
    }
}

/// Points by id; those of the file and of a server come in one order.
fn same_points(file: &str, points: &[Value]) {
    let expected: Vec<Value> =
        file.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(expected.len(), points.len());
    let by_id = |id: &Value| points.iter().find(|point| point["id"] == *id);
    for wanted in &expected {
        let found = by_id(&wanted["id"]).expect("a point of this id");
        assert_eq!(found["payload"], wanted["payload"]);
        assert_eq!(found["vector"], wanted["vector"], "point {}", wanted["id"]);
    }
}

#[test]
fn a_rich_collection_comes_back_on_another_server() {
    run(async {
        let (from, home) = (rich().await, Home::new());
        let file = std::fs::read_to_string(fixture("rich.points.jsonl")).expect("the fixture");
        same_points(&file, &from.points("rich").await);
        let before = from.all().await;
        home.backup(&from).await;
        drop(from);

        let to = Site::start().await;
        home.restore(to.store()).await.expect("a restore");
        same_points(&file, &to.points("rich").await);
        same(&to.all().await, &before);
        assert_eq!(to.traces().await, Vec::<String>::new());
    });
}

#[test]
fn a_damaged_collection_is_made_whole_in_place() {
    run(async {
        let (site, home) = (rich().await, Home::new());
        let before = site.all().await;
        home.backup(&site).await;
        site.ask("POST", "/collections/rich/points/delete?wait=true", json!({"points": [1, 3]}))
            .await;
        site.upsert("rich", vec![json!({"id": 5, "vector": {}, "payload": {"lost": true}})]).await;
        site.ask("DELETE", "/collections/rich/index/city?wait=true", Value::Null).await;
        let action = json!({"delete_alias": {"alias_name": "memories-eu"}});
        site.ask("POST", "/collections/aliases", json!({"actions": [action]})).await;
        assert_ne!(site.all().await, before);

        home.restore(site.store()).await.expect("a restore");
        same(&site.all().await, &before);
        assert_eq!(site.traces().await, Vec::<String>::new());
    });
}

#[test]
fn a_name_that_is_an_alias_is_pointed_at_the_new_collection() {
    run(async {
        let (from, home) = (rich().await, Home::new());
        home.backup(&from).await;
        let points = from.points("rich").await;
        drop(from);

        let to = Site::start().await;
        to.create("rich-2025", rich_vectors()).await;
        to.alias("rich", "rich-2025").await;
        let refused = home.restore(to.store()).await.expect_err("other vectors");
        assert_eq!(refused.kind(), ErrorKind::Incompatible, "{refused:?}");
        assert!(refused.report().contains("accept_other_vectors"), "{}", refused.report());
        assert_eq!(to.collections().await, ["rich-2025"]);
        let store = to.options().accept_other_vectors().open().expect("a store");
        home.restore(store).await.expect("a restore");
        assert!(to.points("rich").await == points);
        let names = to.collections().await;
        assert!(names.len() == 1 && names[0].starts_with("rich."), "{names:?}");
        assert_eq!(to.traces().await, Vec::<String>::new());
    });
}

fn rich_vectors() -> Value {
    json!({"vectors": {"text": {"size": 8, "distance": "Dot"}}})
}

#[test]
fn what_grpc_and_cosine_would_change_comes_back() {
    run(async {
        let (site, home) = (Site::start().await, Home::new());
        let config = json!({
            "vectors": {
                "half": {"size": 3, "distance": "Cosine", "datatype": "float16"},
                "rows": {
                    "size": 2, "distance": "Cosine", "datatype": "float16",
                    "multivector_config": {"comparator": "max_sim"},
                },
                "full": {"size": 5, "distance": "Cosine"},
                "bytes": {"size": 2, "distance": "Cosine", "datatype": "uint8"},
            },
            "sparse_vectors": {"words": {"modifier": "idf"}},
        });
        site.create("odd", config).await;
        let value = |n: u64, i: u64| ((n * 31 + i * 17) % 101) as f32 / 50.0 - 1.0;
        let points = (0..2000_u64).map(|n| {
            let id = if n % 2 == 0 {
                json!(u64::MAX - n)
            } else {
                json!(format!("00000000-0000-4000-8000-{n:012x}"))
            };
            let half: Vec<f32> = (0..3).map(|i| value(n, i)).collect();
            let full: Vec<f32> = (0..5).map(|i| value(n * 7, i)).collect();
            json!({
                "id": id,
                "vector": {
                    "half": half, "full": full, "rows": [[1.0, value(n, 9)], [value(n, 4), 0.3]],
                    "bytes": [n % 256, 7], "words": {"indices": [9, 2], "values": [0.5, n as f32]},
                },
                "payload": {
                    "large": u64::MAX - n, "edge": 9_223_372_036_854_775_808_u64,
                    "low": i64::MIN, "float": 1e19, "one": 1.0, "minus": -0.0,
                    "deep": {"list": [u64::MAX, null, {"$type": "Integer", "_value": "1"}]},
                },
            })
        });
        let points: Vec<_> = points.collect();
        for chunk in points.chunks(500) {
            site.upsert("odd", chunk.to_vec()).await;
        }
        let before = site.all().await;
        assert!(before.iter().any(|line| line.contains("18446744073709551615")));
        home.backup(&site).await;
        site.ask("DELETE", "/collections/odd", Value::Null).await;
        home.restore(site.store()).await.expect("a restore");
        same(&site.all().await, &before);
    });
}

#[test]
fn a_vector_with_a_value_that_is_no_number_comes_back() {
    run(async {
        let (site, home) = (Site::start().await, Home::new());
        site.create("odd", json!({"vectors": {"size": 3, "distance": "Dot"}})).await;
        let vector = [f32::NAN, f32::INFINITY, -0.0];
        site.upsert_dense("odd", 1, &vector).await;
        let bits = |vector: Vec<f32>| vector.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let before = bits(site.dense("odd").await);
        assert_eq!(before, bits(vector.to_vec()));
        home.backup(&site).await;
        site.ask("DELETE", "/collections/odd", Value::Null).await;
        home.restore(site.store()).await.expect("a restore");
        assert_eq!(bits(site.dense("odd").await), before);
    });
}

#[test]
fn patterns_say_what_is_backed_up_and_replaced() {
    run(async {
        let (site, home) = (Site::start().await, Home::new());
        let config = json!({"vectors": {"size": 2, "distance": "Dot"}});
        for name in ["docs-a", "docs-b", "docs-tmp", "other"] {
            site.create(name, config.clone()).await;
            site.upsert(
                name,
                vec![json!({"id": 1, "vector": [1.0, 2.0], "payload": {"in": name}})],
            )
            .await;
        }
        let store =
            || site.options().collections(["docs-*"]).without(["*-tmp"]).open().expect("a store");
        let memory = Stores::new("test", "1.0.0").with("vectors", store());
        memory.backup(&home.catalog()).await.expect("a backup");
        let before = site.all().await;
        // One is changed, one is new and belongs to the store, two do not.
        site.upsert("docs-a", vec![json!({"id": 2, "vector": [0.0, 1.0]})]).await;
        site.create("docs-new", config.clone()).await;
        home.restore(store()).await.expect("a restore");
        same(&site.all().await, &before);
        assert_eq!(site.traces().await, Vec::<String>::new());
    });
}
