//! Through an archive and back.

use std::{collections::HashMap, fs};

use backup_core::{Catalog, Stores, record::Tally};
use backup_qdrant::edge::{EdgeStore, Snapshot, qdrant_edge::*};
use futures::executor::block_on;
use serde_json::{Value, json};

use super::kit::{Place, Taken, dump, fixture, put, restore, take};

/// The rich collection as an archive of its server would hold it.
pub(crate) fn rich() -> Taken {
    let scratch = tempfile::tempdir().unwrap();
    let snapshot = Snapshot::open(fixture("rich.snapshot"), scratch.path()).unwrap();
    let mut taken = Taken::of_snapshot(&snapshot, "rich");
    let transcript = fs::read_to_string(fixture("rest-transcript.json")).unwrap();
    let transcript: Value = serde_json::from_str(&transcript).unwrap();
    let answer = |path: &str| {
        let mut answers = transcript.as_array().unwrap().iter();
        let found = answers.find(|one| one["request"]["path"] == path).unwrap();
        found["response"]["body"]["result"].clone()
    };
    let info = answer("/collections/rich");
    let indexes = info["payload_schema"].as_object().unwrap().iter().map(|(field, index)| {
        let params = index.get("params").unwrap_or(&index["data_type"]);
        (field.clone(), params.clone())
    });
    let aliases = answer("/collections/rich/aliases");
    let aliases = aliases["aliases"].as_array().unwrap().iter().map(|a| a["alias_name"].clone());
    taken.schema.as_mut().unwrap().document = json!({
        "config": info["config"],
        "payload_indexes": indexes.collect::<serde_json::Map<_, _>>(),
        "aliases": aliases.collect::<Vec<_>>(),
    });
    taken
}

fn through_an_archive(from: &EdgeStore, to: &EdgeStore) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(folder.path()).unwrap();
    let stores = |store: &EdgeStore| Stores::new("test", "1.0.0").with("vectors", store.clone());
    block_on(async {
        let backup = stores(from).backup(&catalog).await?;
        assert!(backup.outcome.is_complete());
        let plan = stores(to).plan_restore(&catalog.latest()?).await?;
        assert!(plan.execute().await?.restored());
        Ok::<_, backup_core::Error>(())
    })
    .unwrap();
}

#[test]
fn a_servers_collection_comes_through_an_embedded_shard() {
    let rich = rich();
    let first = Place::new();
    restore(&first.store, &rich).unwrap();
    let first = first.reopen();
    let again = take(&first.store);
    assert_eq!(again.tally(), rich.tally());
    // Also what a shard has no place for: shards, metadata, aliases.
    assert_eq!(again.document(), rich.document());
    assert_eq!(again.schema.as_ref().unwrap().info.model.as_deref(), Some("example-model-1"));

    let second = Place::new();
    through_an_archive(&first.store, &second.store);
    assert_eq!(dump(&second.store), dump(&first.store));
    assert_eq!(take(&second.store).document(), rich.document());
    let info = second.store.shard().unwrap().info();
    assert_eq!((info.points_count, info.payload_schema.len()), (500, 9));
    assert_eq!(info.payload_schema[&"city".parse().unwrap()].points, 490);
}

#[test]
fn what_the_host_changed_is_told_and_the_rest_is_kept() {
    let rich = rich();
    let place = Place::new();
    restore(&place.store, &rich).unwrap();
    {
        let shard = place.store.shard().unwrap();
        let mut hnsw = shard.config().hnsw_config;
        hnsw.m = 48;
        shard.set_hnsw_config(hnsw).unwrap();
        let index = |operation| shard.update(UpdateOperation::FieldIndexOperation(operation));
        index(FieldIndexOperations::DeleteIndex("ok".parse().unwrap())).unwrap();
        let keyword = PayloadFieldSchema::FieldType(PayloadSchemaType::Keyword);
        index(FieldIndexOperations::CreateIndex(CreateIndex {
            field_name: "nested.name".parse().unwrap(),
            field_schema: Some(keyword),
        }))
        .unwrap();
    }
    let mut expected = rich.document().clone();
    expected["config"]["hnsw_config"]["m"] = json!(48);
    expected["payload_indexes"].as_object_mut().unwrap().remove("ok");
    expected["payload_indexes"]["nested.name"] = json!("keyword");
    assert_eq!(take(&place.reopen().store).document(), &expected);
}

#[test]
fn a_shard_of_its_own_making_is_described_for_a_server() {
    let place = Place::new();
    let quantized: QuantizationConfig =
        serde_json::from_value(json!({"scalar": {"type": "int8", "always_ram": true}})).unwrap();
    let mut text = EdgeVectorParams::builder(4, Distance::Cosine).build();
    text.datatype = Some(VectorStorageDatatype::Float16);
    text.quantization_config = Some(quantized);
    let mut sparse = EdgeSparseVectorParams::builder().build();
    sparse.modifier = Some(Modifier::Idf);
    sparse.on_disk = Some(true);
    let config = EdgeConfig::builder().vector("", text).sparse_vector("words", sparse).build();
    place.store.create(config).unwrap();
    let document = take(&place.store).document().clone();
    let params = &document["config"]["params"];
    assert_eq!(params["vectors"]["size"], 4);
    assert_eq!(params["vectors"]["datatype"], "float16");
    assert_eq!(params["vectors"]["quantization_config"]["scalar"]["type"], "int8");
    assert_eq!(
        params["sparse_vectors"]["words"],
        json!({"index": {"on_disk": true}, "modifier": "idf"})
    );
    let other = Place::new();
    through_an_archive(&place.store, &other.store);
    assert_eq!(dump(&other.store), dump(&place.store));
}

/// Numbers from a seed.
fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[test]
fn cosine_vectors_of_every_type_come_back_to_the_bit() {
    let place = Place::new();
    let mut config = EdgeConfig::builder();
    for (name, datatype) in [
        ("f32", VectorStorageDatatype::Float32),
        ("f16", VectorStorageDatatype::Float16),
        ("u8", VectorStorageDatatype::Uint8),
    ] {
        for dim in [2, 3, 5] {
            let mut params = EdgeVectorParams::builder(dim, Distance::Cosine).build();
            params.datatype = Some(datatype);
            let comparator = MultiVectorComparator::MaxSim;
            params.multivector_config = (dim == 3).then_some(MultiVectorConfig { comparator });
            config = config.vector(format!("{name}-{dim}"), params);
        }
    }
    place.store.create(config.build()).unwrap();
    let mut random = random(7);
    let points = (0..2000_u64).map(|number| {
        let mut all = HashMap::new();
        for name in ["f32", "f16", "u8"] {
            for dim in [2, 3, 5] {
                let mut values = || {
                    let value = |v: f32| if name == "u8" { (v.abs() * 255.0).floor() } else { v };
                    (0..dim).map(|_| value(random())).collect::<Vec<_>>()
                };
                let vector = match dim {
                    3 => Vector::new_multi(vec![values(), values()]).unwrap(),
                    _ => Vector::new_dense(values()),
                };
                all.insert(format!("{name}-{dim}"), vector);
            }
        }
        PointStruct::new(number, all, json!({}))
    });
    put(&place.store, points.collect());
    let other = Place::new();
    through_an_archive(&place.store, &other.store);
    assert_eq!(dump(&other.store), dump(&place.store));
}

#[test]
fn ids_and_numbers_at_their_limits() {
    let place = Place::new();
    place.store.create(EdgeConfig::default()).unwrap();
    let payload = json!({
        "u": u64::MAX, "i": i64::MIN, "above": (1_u64 << 63) + 1, "safe": (1_u64 << 53) + 1,
        "float": 1e22, "tiny": 5e-324, "minus": -0.0, "none": null, "list": [], "map": {},
        "deep": {"a": [1, null, {"b": "\"\n\t\u{0} 😀"}]},
        "$type": "Integer", "_value": "7",
    });
    let none = HashMap::<String, Vector>::new();
    let uuid = external::uuid::Uuid::from_u128(u128::MAX);
    put(
        &place.store,
        vec![
            PointStruct::new(u64::MAX, none.clone(), payload.clone()),
            PointStruct::new(0, none.clone(), json!({})),
            PointStruct::new(PointId::Uuid(uuid), none, payload),
        ],
    );
    let other = Place::new();
    through_an_archive(&place.store, &other.store);
    let lines = dump(&other.store);
    assert_eq!(lines, dump(&place.store));
    assert!(lines.iter().any(|line| line.contains("9223372036854775809")), "{lines:?}");
    assert_eq!(take(&other.store).tally(), take(&place.store).tally());
    assert_ne!(*take(&other.store).tally(), Tally::new());
}
