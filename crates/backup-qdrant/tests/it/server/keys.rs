//! Collections whose application chooses the shards, by shard keys.

use backup_core::{
    Cancel, Catalog, Content, ErrorKind, Part, PinRequest, Pinned, Sink, Source, StagePlan, Stores,
    WriteMode, record::Key,
};
use backup_qdrant::QdrantStore;
use qdrant_testserver::{Action, Fault, Match, Options, TestServer};
use serde_json::{Value, json};

use super::{
    faults::all_or_nothing,
    fixture::{Site, run, same},
    merge::{Taken, live, no_traces, stage, take},
};

/// A server that makes shard keys; a real one that runs alone does not.
async fn cluster() -> Option<Site> {
    let site = Site::start().await;
    let found = site.ask("GET", "/cluster", Value::Null).await;
    if found["status"] == "disabled" {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("SKIPPED: this server has no shard keys");
        }
        return None;
    }
    Some(site)
}

async fn make_key(site: &Site, key: &Value, shards: u32) {
    let body = json!({"shard_key": key, "shards_number": shards});
    site.ask("PUT", "/collections/tenants/shards", body).await;
}

pub(super) async fn delete_key(site: &Site, key: &Value) {
    site.ask("POST", "/collections/tenants/shards/delete", json!({ "shard_key": key })).await;
}

async fn put(site: &Site, key: &Value, points: Vec<Value>) {
    for chunk in points.chunks(300) {
        let body = json!({"shard_key": key, "points": chunk});
        site.ask("PUT", "/collections/tenants/points?wait=true", body).await;
    }
}

/// A point whose vector and payload gRPC and the engine would change.
fn point(n: u64, of: u64) -> Value {
    let id = if n.is_multiple_of(5) {
        json!(format!("00000000-0000-4000-8000-{n:012x}"))
    } else {
        json!(n)
    };
    let value = |i: u64| ((n * 31 + i * 17 + of * 7) % 101) as f32 / 50.0 - 1.0;
    json!({
        "id": id,
        "vector": {"half": [value(1), value(2), 0.5], "words": {"indices": [9, 2], "values": [1, n]}},
        "payload": {"of": of, "large": u64::MAX - n},
    })
}

fn keys() -> [Value; 4] {
    // `7` is not `"7"`, and nothing lies under the last.
    [json!("acme"), json!(7), json!("7"), json!("nobody")]
}

fn vectors() -> Value {
    json!({
        "vectors": {"half": {"size": 3, "distance": "Cosine", "datatype": "float16"}},
        "sparse_vectors": {"words": {}},
    })
}

/// A collection with shard keys, of which two have the same ids; one has several shards.
async fn create(site: &Site) {
    let mut config = vectors();
    config["sharding_method"] = json!("custom");
    site.create("tenants", config).await;
    let index = json!({"field_name": "of", "field_schema": "integer"});
    site.ask("PUT", "/collections/tenants/index?wait=true", index).await;
    site.alias("live", "tenants").await;
}

pub(super) async fn fill(site: &Site) {
    create(site).await;
    let [acme, seven, text, nobody] = keys();
    make_key(site, &acme, 2).await;
    make_key(site, &seven, 1).await;
    make_key(site, &text, 1).await;
    make_key(site, &nobody, 1).await;
    put(site, &acme, (0..400).map(|n| point(n, 1)).collect()).await;
    put(site, &seven, (0..400).map(|n| point(n, 2)).collect()).await;
    put(site, &text, (390..420).map(|n| point(n, 3)).collect()).await;
}

pub(super) fn stores(store: QdrantStore) -> Stores {
    Stores::new("test", "1.0.0").with("vectors", store)
}

pub(super) async fn restore(site: &Site, catalog: &Catalog) -> backup_core::Result<()> {
    let plan = stores(site.store()).plan_restore(&catalog.latest()?).await?;
    let report = plan.execute().await?;
    assert!(report.restored() && report.warnings.is_empty(), "{report:?}");
    Ok(())
}

pub(super) fn catalog() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = Catalog::open(folder.path()).expect("a catalog");
    (folder, catalog)
}

/// Replaces what is live, and takes it back.
pub(super) async fn done_and_undone(site: &Site, store: &QdrantStore, taken: &Taken) {
    let before = site.all().await;
    let mut plan = StagePlan::new("back", "vectors", "qdrant");
    plan.content = taken.content.clone();
    let token = store.prepare(&plan).await.expect("a plan").token;
    let session = store.begin(&token, &Cancel::new()).await.expect("a beginning");
    for schema in &taken.schemas {
        session.write(Part::Schema(schema.clone())).await.expect("taken");
    }
    for batch in &taken.batches {
        session.write(Part::Records(batch.clone())).await.expect("taken");
    }
    assert_eq!(session.verify(&taken.content).await.expect("read back"), taken.content);
    same(&live(site).await, &before);
    session.commit().await.expect("a commit");
    assert_eq!(session.verify(&taken.content).await.expect("read back"), taken.content);
    session.undo().await.expect("an undo");
    same(&live(site).await, &before);
    session.finish().await.expect("the end");
    same(&site.all().await, &before);
    no_traces(site).await;
}

#[test]
fn the_same_id_under_two_shard_keys_comes_back() {
    run(async {
        let Some(site) = cluster().await else { return };
        fill(&site).await;
        let (before, (_folder, catalog)) = (site.all().await, catalog());
        assert_eq!(site.points("tenants").await.len(), 830);
        let taken = take(&site).await;
        let records = taken.batches.iter().flat_map(|batch| batch.iter());
        let found: Vec<Key> = records.map(|record| record.key()).collect();
        for key in [r#"["acme",1]"#, "[7,1]", r#"["7",399]"#] {
            assert!(found.iter().any(|found| found.as_json() == key), "no {key}");
        }
        let backup = stores(site.store()).backup(&catalog).await.expect("a backup");
        assert!(backup.outcome.is_complete(), "{backup:?}");

        // In place, where shard keys were removed and made again, and others made.
        delete_key(&site, &json!("acme")).await;
        make_key(&site, &json!("acme"), 1).await;
        make_key(&site, &json!("late"), 1).await;
        put(&site, &json!("late"), vec![point(1, 9)]).await;
        let body = json!({"points": [1, 2], "shard_key": 7});
        site.ask("POST", "/collections/tenants/points/delete?wait=true", body).await;
        let changed = site.all().await;
        assert_ne!(changed, before);
        restore(&site, &catalog).await.expect("a restore");
        same(&site.all().await, &before);
        no_traces(&site).await;

        // In place at one moment: the shards have the same numbers now.
        put(&site, &json!("acme"), vec![point(1, 8), point(5, 8)]).await;
        restore(&site, &catalog).await.expect("a restore");
        same(&site.all().await, &before);

        // Into a free name.
        if std::env::var("QDRANT_URL").is_err() {
            let other = cluster().await.expect("shard keys");
            other.create("old", json!({"vectors": {"size": 1, "distance": "Dot"}})).await;
            restore(&other, &catalog).await.expect("a restore");
            same(&other.all().await, &before);
            no_traces(&other).await;
        }
    });
}

#[test]
fn whichever_request_about_shard_keys_fails_it_is_all_or_nothing() {
    run(async {
        let Some(site) = cluster().await else { return };
        let (_folder, catalog) = catalog();
        create(&site).await;
        make_key(&site, &json!("acme"), 2).await;
        make_key(&site, &json!(7), 1).await;
        put(&site, &json!("acme"), (0..20).map(|n| point(n, 1)).collect()).await;
        put(&site, &json!(7), (0..20).map(|n| point(n, 2)).collect()).await;
        stores(site.store()).backup(&catalog).await.expect("a backup");
        // Shards of other numbers: copied point by point, and the name is free for a while.
        let spoil = async || {
            delete_key(&site, &json!("acme")).await;
            make_key(&site, &json!("acme"), 1).await;
            put(&site, &json!("acme"), vec![point(1, 3)]).await;
        };
        let tried = all_or_nothing(&site, &catalog, || site.store(), spoil).await;
        assert!(tried.is_none_or(|(failed, done)| failed > 3 && done > 3), "{tried:?}");
    });
}

#[test]
fn a_restore_of_shard_keys_is_taken_back() {
    run(async {
        let Some(site) = cluster().await else { return };
        fill(&site).await;
        let taken = take(&site).await;
        // The live shards have numbers that no new collection has.
        delete_key(&site, &json!("acme")).await;
        make_key(&site, &json!("other"), 1).await;
        put(&site, &json!("other"), (0..50).map(|n| point(n, 4)).collect()).await;
        let store = site.store();
        done_and_undone(&site, &store, &taken).await;
    });
}

#[test]
fn points_are_merged_under_their_shard_keys_and_taken_out() {
    run(async {
        let taken = {
            let Some(from) = cluster().await else { return };
            fill(&from).await;
            take(&from).await
        };
        let site = cluster().await.expect("shard keys");
        create(&site).await;
        for key in [json!("late"), json!("nobody"), json!("7"), json!(7), json!("acme")] {
            make_key(&site, &key, 1).await;
        }
        // On both sides under the one key, only here under the other.
        put(&site, &json!("acme"), (200..500).map(|n| point(n, 5)).collect()).await;
        put(&site, &json!("late"), (0..20).map(|n| point(n, 6)).collect()).await;
        let before = site.all().await;
        let store = site.store();
        let (_, session) = stage(&store, "keys", &taken, &Cancel::new()).await;
        same(&live(&site).await, &before);
        session.commit().await.expect("a commit");
        assert_eq!(session.verify(&taken.content).await.expect("read back"), taken.content);
        let points = |key: Value| site.points_under("tenants", key);
        assert_eq!(points(json!("late")).await.len(), 20);
        assert_eq!(points(json!(7)).await.len(), 400);
        let acme = points(json!("acme")).await;
        assert_eq!(acme.len(), 500);
        let of = |n: u64| acme.iter().filter(|point| point["payload"]["of"] == n).count();
        assert_eq!((of(1), of(5)), (400, 100));
        session.undo().await.expect("an undo");
        same(&live(&site).await, &before);
        session.finish().await.expect("the end");
        no_traces(&site).await;

        // Changed since the restore looked at it: under this key, not under another.
        let (_, session) = stage(&store, "seen", &taken, &Cancel::new()).await;
        put(&site, &json!("late"), vec![point(201, 7)]).await;
        put(&site, &json!("acme"), vec![point(201, 7)]).await;
        let before = live(&site).await;
        let refused = session.commit().await.expect_err("a point that was changed");
        assert_eq!(refused.kind(), ErrorKind::Changed, "{refused:?}");
        assert!(refused.report().contains(r#"["acme",201]"#), "{}", refused.report());
        session.abort().await.expect("no trace");
        same(&site.all().await, &before);
    });
}

#[test]
fn what_cannot_be_merged_for_its_shard_keys_is_refused_before_any_data_moves() {
    run(async {
        let keyed = {
            let Some(from) = cluster().await else { return };
            fill(&from).await;
            take(&from).await
        };
        let site = cluster().await.expect("shard keys");
        create(&site).await;
        make_key(&site, &json!("acme"), 1).await;
        let before = site.all().await;
        let mut plan = StagePlan::new("refused", "vectors", "qdrant");
        plan.mode = WriteMode::Merge;
        plan.content = keyed.content.clone();
        let info = |schemas: &[backup_core::Schema]| {
            schemas.iter().map(|s| (s.collection.clone(), s.info.clone())).collect()
        };
        // With what the manifest tells, when it is planned; else when the schema comes.
        let mut told = plan.clone();
        told.info = info(&keyed.schemas);
        let refused = site.store().prepare(&told).await.expect_err("keys that are missing");
        assert_eq!(refused.kind(), ErrorKind::Incompatible, "{refused:?}");
        assert!(refused.report().contains(r#"no shard key 7, "7", "nobody""#), "{refused:?}");
        for collection in ["tenants", "plain"] {
            if collection == "plain" {
                site.ask("DELETE", "/collections/tenants", Value::Null).await;
                site.create("tenants", vectors()).await;
            }
            let store = site.store();
            let token = store.prepare(&plan).await.expect("a plan").token;
            let session = store.begin(&token, &Cancel::new()).await.expect("a beginning");
            let schema = Part::Schema(keyed.schemas[0].clone());
            let refused = session.write(schema).await.expect_err("keys that do not fit");
            assert_eq!(refused.kind(), ErrorKind::Incompatible, "{refused:?}");
            session.abort().await.expect("no trace");
            if collection == "tenants" {
                same(&site.all().await, &before);
            }
            no_traces(&site).await;
        }
        // And the other way round.
        let plain = take(&site).await;
        site.ask("DELETE", "/collections/tenants", Value::Null).await;
        create(&site).await;
        let store = site.store();
        plan.info = info(&plain.schemas);
        let token = store.prepare(&plan).await.expect("a plan").token;
        let session = store.begin(&token, &Cancel::new()).await.expect("a beginning");
        let schema = Part::Schema(plain.schemas[0].clone());
        let refused = session.write(schema).await.expect_err("no keys");
        assert!(refused.report().contains("the live collection has shard keys"), "{refused:?}");
        session.abort().await.expect("no trace");
        no_traces(&site).await;
    });
}

#[test]
fn a_server_without_shard_keys_is_told_before_any_data_moves() {
    run(async {
        let Some(from) = cluster().await else { return };
        let (_folder, catalog) = catalog();
        fill(&from).await;
        stores(from.store()).backup(&catalog).await.expect("a backup");
        let alone = Options { cluster: false, ..Options::default() };
        let alone = Site::of(TestServer::start_with(alone).await.expect("a server"), None);
        let archive = catalog.latest().expect("a backup");
        let planned = stores(alone.store()).plan_restore(&archive).await;
        let refused = planned.map(drop).expect_err("no cluster");
        assert_eq!(refused.kind(), ErrorKind::Incompatible, "{refused:?}");
        assert!(refused.report().contains("runs as a cluster"), "{}", refused.report());
        assert_eq!(alone.collections().await, Vec::<String>::new());

        // One that refuses to make a shard key.
        let Some(faults) = from.faults() else { return };
        let before = from.all().await;
        let made = Match::rest("PUT", "/collections/backup-kit.");
        let answer = Action::Status(405, "Qdrant is running in standalone mode".to_owned());
        // The anchor, the shadow, a key.
        faults.push(Fault::new(made, answer).after(3));
        let refused = restore(&from, &catalog).await.expect_err("no shard key");
        assert_eq!(refused.kind(), ErrorKind::Incompatible, "{refused:?}");
        assert!(refused.report().contains("shard key 7"), "{}", refused.report());
        same(&from.all().await, &before);
        no_traces(&from).await;
    });
}

#[test]
fn a_shard_key_that_goes_meanwhile_is_told() {
    run(async {
        let Some(site) = cluster().await else { return };
        let (_folder, catalog) = catalog();
        fill(&site).await;
        stores(site.store()).backup(&catalog).await.expect("a backup");
        let taken = take(&site).await;

        // While it is read.
        let store = site.store();
        let pinned = store.pin(&PinRequest::new()).await.expect("a session");
        let Pinned::Live { session, .. } = pinned else { panic!("a scroll pins nothing") };
        delete_key(&site, &json!("nobody")).await;
        let partition = session.partitions().await.expect("partitions").remove(0);
        let refused = loop {
            match session.next(&partition).await {
                Ok(part) => assert!(part.is_some(), "read to the end"),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused:?}");
        assert!(refused.report().contains(r#"shard key "nobody""#), "{}", refused.report());
        session.close().await.expect("closed");
        make_key(&site, &json!("nobody"), 1).await;

        // While points are merged.
        let (_, session) = stage(&store, "gone", &taken, &Cancel::new()).await;
        delete_key(&site, &json!("7")).await;
        let before = live(&site).await;
        let refused = session.commit().await.expect_err("a shard key that is gone");
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused:?}");
        session.abort().await.expect("no trace");
        same(&site.all().await, &before);
        no_traces(&site).await;

        // While they are staged, as the server says it of a selector.
        let Some(faults) = site.faults() else { return };
        let said = "Wrong input: Shard key \"acme\" not found".to_owned();
        faults.push(Fault::new(Match::grpc("Upsert"), Action::Status(400, said)));
        let refused = restore(&site, &catalog).await.expect_err("a selector that is refused");
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused:?}");
        same(&site.all().await, &before);
        no_traces(&site).await;
    });
}

#[test]
fn records_without_a_shard_key_are_refused() {
    run(async {
        let Some(site) = cluster().await else { return };
        create(&site).await;
        make_key(&site, &json!("acme"), 1).await;
        put(&site, &json!("acme"), vec![point(1, 1)]).await;
        let (before, taken) = (site.all().await, take(&site).await);
        let store = site.store();
        for key in ["1", r#"["acme"]"#, r#"["acme",-1]"#, r#"[1.5,1]"#, r#"["other",1]"#] {
            let mut plan = StagePlan::new("odd", "vectors", "qdrant");
            plan.content = Content::default();
            plan.content.collections.insert("tenants".to_owned(), Default::default());
            let token = store.prepare(&plan).await.expect("a plan").token;
            let session = store.begin(&token, &Cancel::new()).await.expect("a beginning");
            session.write(Part::Schema(taken.schemas[0].clone())).await.expect("taken");
            let mut batch = backup_core::record::BatchBuilder::new("tenants");
            batch
                .push(&Key::from_json(key).expect("a key"), |json| {
                    json.begin_object()?;
                    json.end_object();
                    Ok(())
                })
                .expect("a record");
            let batch = Part::Records(batch.finish().expect("a batch"));
            let refused = session.write(batch).await.expect_err("a key that is none");
            let wanted =
                if key.contains("other") { ErrorKind::NotFound } else { ErrorKind::Incompatible };
            assert_eq!(refused.kind(), wanted, "{key}: {refused:?}");
            session.abort().await.expect("no trace");
            same(&site.all().await, &before);
        }
    });
}

/// What the manifest says of the content of a collection.
pub(super) fn digests(catalog: &Catalog, collection: &str) -> Value {
    let archive = catalog.latest().expect("a backup");
    let manifest = serde_json::to_value(archive.manifest()).expect("JSON");
    let found = manifest.pointer(&format!("/stores/vectors/collections/{collection}")).cloned();
    let found = found.unwrap_or_else(|| panic!("{manifest}"));
    json!({"records": found["records"], "digest": found["digest"], "vectors": found["vectors"]})
}

#[test]
fn a_native_snapshot_with_shard_keys_comes_back_and_is_read_without_a_server() {
    run(async {
        let Some(site) = cluster().await else { return };
        let (_folder, records) = catalog();
        let (_native_folder, native) = catalog();
        fill(&site).await;
        let before = site.all().await;
        stores(site.store()).backup(&records).await.expect("a backup");
        let scrolled = digests(&records, "tenants");
        let store = site.options().native().open().expect("a store");
        stores(store).backup(&native).await.expect("a backup");
        let archive = native.latest().expect("a backup");
        assert_eq!(archive.manifest().stores["vectors"].blobs.len(), 1);
        no_traces(&site).await;
        put(&site, &json!("acme"), vec![point(1, 8)]).await;
        restore(&site, &native).await.expect("a restore");
        same(&site.all().await, &before);
        site.ask("DELETE", "/collections/tenants", Value::Null).await;
        restore(&site, &native).await.expect("a restore");
        same(&site.all().await, &before);
        no_traces(&site).await;

        // As records of one moment: the engine reads shard keys from the snapshot.
        let (_pinned_folder, pinned) = catalog();
        let scratch = tempfile::tempdir().expect("a folder");
        let store = site.options().pinned(scratch.path()).open().expect("a store");
        stores(store).backup(&pinned).await.expect("a backup");
        assert_eq!(digests(&pinned, "tenants"), scrolled);

        // Shards of other numbers than a new collection has are read point by point.
        delete_key(&site, &json!("acme")).await;
        let before = site.all().await;
        let store = site.options().native().open().expect("a store");
        stores(store).backup(&native).await.expect("a backup");
        let archive = native.latest().expect("a backup");
        let manifest = serde_json::to_string(archive.manifest()).expect("JSON");
        assert!(manifest.contains("shard keys were removed"), "{manifest}");
        restore(&site, &native).await.expect("a restore");
        same(&site.all().await, &before);
    });
}

#[test]
fn an_embedded_shard_takes_no_shard_keys() {
    run(async {
        let Some(site) = cluster().await else { return };
        let (_folder, catalog) = catalog();
        fill(&site).await;
        stores(site.store()).backup(&catalog).await.expect("a backup");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shard");
        let store = backup_qdrant::edge::EdgeStore::open(&path).expect("a store");
        let memory = Stores::new("test", "1.0.0").with("vectors", store);
        let plan = memory.plan_restore(&catalog.latest().expect("a backup")).await.expect("a plan");
        let refused = plan.execute().await.expect_err("shard keys");
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
        assert!(!path.exists());
    });
}
