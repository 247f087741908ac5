//! Collections whose shards lie on several servers of a cluster. A real server that tests may use is one.

use std::collections::BTreeSet;

use backup_core::{Catalog, ErrorKind, RestoreReport, archive::PartKind};
use qdrant_testserver::{Action, Fault, Match, Options};
use serde_json::json;

use super::{
    faults::all_or_nothing,
    fixture::{Site, run, same},
    keys::{self, catalog, digests, done_and_undone, restore, stores},
    merge::{no_traces, take},
};

async fn cluster(peers: u32) -> Site {
    Site::with(Options { peers, ..Options::default() }).await
}

async fn create(site: &Site, collection: &str, shards: u32, points: u64) {
    let vectors = json!({"size": 3, "distance": "Euclid"});
    site.create(collection, json!({"vectors": vectors, "shard_number": shards})).await;
    let point = |n: u64| json!({"id": n, "vector": [n, 1, 2], "payload": {"of": n % 7}});
    site.upsert(collection, (0..points).map(point).collect()).await;
    let index = json!({"field_name": "of", "field_schema": "integer"});
    site.ask("PUT", &format!("/collections/{collection}/index?wait=true"), index).await;
}

/// One collection whose shards the server chooses, and one with shard keys.
async fn fill(site: &Site) {
    create(site, "spread", 5, 200).await;
    keys::fill(site).await;
}

async fn spoil(site: &Site) {
    let body = json!({"points": [1, 2, 3, 4, 5, 6, 7, 8]});
    site.ask("POST", "/collections/spread/points/delete?wait=true", body).await;
    keys::delete_key(site, &json!("acme")).await;
}

async fn native(site: &Site, catalog: &Catalog) -> backup_core::Result<()> {
    let store = site.options().native().peers(site.peers()).open().expect("a store");
    stores(store).backup(catalog).await.map(drop)
}

/// With the other servers named, as native files need it.
async fn restore_native(site: &Site, catalog: &Catalog) -> backup_core::Result<RestoreReport> {
    let store = site.options().peers(site.peers()).open().expect("a store");
    stores(store).plan_restore(&catalog.latest()?).await?.execute().await
}

#[test]
fn collections_on_several_servers_come_back() {
    run(async {
        let site = cluster(3).await;
        let (_folder, catalog) = catalog();
        fill(&site).await;
        let before = site.all().await;
        let taken = take(&site).await;
        stores(site.store()).backup(&catalog).await.expect("a backup");
        spoil(&site).await;
        let archive = catalog.latest().expect("a backup");
        let plan = stores(site.store()).plan_restore(&archive).await.expect("a plan");
        assert!(plan.to_string().contains("replaced point by point"), "{plan}");
        restore(&site, &catalog).await.expect("a restore");
        same(&site.all().await, &before);
        no_traces(&site).await;
        spoil(&site).await;
        done_and_undone(&site, &site.store(), &taken).await;
        for peers in [1, 2] {
            let other = cluster(peers).await;
            restore(&other, &catalog).await.expect("a restore");
            same(&other.all().await, &before);
            no_traces(&other).await;
        }
    });
}

#[test]
fn each_shard_has_a_snapshot_of_its_own() {
    run(async {
        let site = cluster(3).await;
        let (_folder, files) = catalog();
        let (_records_folder, records) = catalog();
        fill(&site).await;
        let before = site.all().await;
        stores(site.store()).backup(&records).await.expect("a backup");
        native(&site, &files).await.expect("a backup");
        no_traces(&site).await;
        let archive = files.latest().expect("a backup");
        let store = &archive.manifest().stores["vectors"];
        let names: Vec<_> = store.blobs.keys().cloned().collect();
        let shards = [("spread", 0..5), ("tenants", 1..6)].into_iter();
        let expected: Vec<_> = shards
            .flat_map(|(of, numbers)| numbers.map(move |number| format!("{of}.{number}.shard")))
            .collect();
        assert_eq!(names, expected);
        let parts = archive.entries().map(|part| part.expect("the index").kind);
        let metadata = parts.filter_map(|part| match part {
            PartKind::Blob { metadata, .. } => Some(metadata),
            _ => None,
        });
        let metadata: Vec<_> = metadata.collect();
        let facts = |fact: &str| -> BTreeSet<String> {
            metadata.iter().map(|of| of[fact].to_string()).collect()
        };
        assert_eq!((facts("peer").len(), facts("server").len()), (3, 3));
        let manifest = serde_json::to_string(archive.manifest()).expect("JSON");
        assert!(manifest.contains("each is of a moment of its own"), "{manifest}");

        spoil(&site).await;
        let report = restore_native(&site, &files).await.expect("a restore");
        assert!(report.restored() && report.warnings.is_empty(), "{report:?}");
        same(&site.all().await, &before);
        no_traces(&site).await;
        for peers in [1, 2] {
            let other = cluster(peers).await;
            restore_native(&other, &files).await.expect("a restore");
            same(&other.all().await, &before);
            no_traces(&other).await;
        }

        // As records: the engine reads each shard, under its key.
        let (_pinned_folder, pinned) = catalog();
        let scratch = tempfile::tempdir().expect("a folder");
        let store = site.options().pinned(scratch.path()).peers(site.peers()).open();
        stores(store.expect("a store")).backup(&pinned).await.expect("a backup");
        for collection in ["spread", "tenants"] {
            assert_eq!(digests(&pinned, collection), digests(&records, collection));
        }
        no_traces(&site).await;
        assert_eq!(std::fs::read_dir(scratch.path()).expect("a folder").count(), 0);
    });
}

#[test]
fn servers_that_are_not_named_are_told() {
    run(async {
        let site = cluster(3).await;
        let (_folder, files) = catalog();
        fill(&site).await;
        let before = site.all().await;
        // Their points are read.
        let store = site.options().native().peers(site.peers().into_iter().take(1)).open();
        stores(store.expect("a store")).backup(&files).await.expect("a backup");
        let archive = files.latest().expect("a backup");
        assert!(archive.manifest().stores["vectors"].blobs.is_empty());
        let manifest = serde_json::to_string(archive.manifest()).expect("JSON");
        assert!(manifest.contains("of which not all are named"), "{manifest}");
        restore(&site, &files).await.expect("a restore");
        same(&site.all().await, &before);

        // Their shards are not restored.
        native(&site, &files).await.expect("a backup");
        let refused = restore(&site, &files).await.expect_err("servers that are not named");
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
        assert!(refused.report().contains("name the other servers"), "{}", refused.report());
        same(&site.all().await, &before);
        no_traces(&site).await;

        // The snapshot of a whole collection has no place on several servers.
        let alone = cluster(1).await;
        create(&alone, "whole", 2, 20).await;
        let (_whole_folder, whole) = catalog();
        native(&alone, &whole).await.expect("a backup");
        let refused = restore_native(&site, &whole).await.expect_err("several servers");
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
        same(&site.all().await, &before);
        no_traces(&site).await;
    });
}

#[test]
fn a_shard_whose_snapshot_fails_leaves_none() {
    run(async {
        let site = cluster(2).await;
        let (_folder, catalog) = catalog();
        create(&site, "spread", 4, 100).await;
        let faults = site.faults().expect("a test server");
        let third = "/collections/spread/shards/3/snapshots";
        let forbidden = Action::Status(403, "Forbidden: snapshots are not allowed".to_owned());
        faults.push(Fault::new(Match::rest("POST", third), forbidden));
        native(&site, &catalog).await.expect("a backup");
        let archive = catalog.latest().expect("a backup");
        assert!(archive.manifest().stores["vectors"].blobs.is_empty());
        no_traces(&site).await;
        for action in [Action::Corrupt(2000), Action::Cut(2000)] {
            faults.push(Fault::new(Match::rest("GET", &format!("{third}/spread")), action));
            native(&site, &catalog).await.expect_err("a snapshot that lies");
            assert_eq!(faults.left(), 0);
            no_traces(&site).await;
        }
        // A shard that is not recovered: nothing is switched.
        native(&site, &catalog).await.expect("a backup");
        let restored = site.all().await;
        faults.push(
            Fault::new(
                Match::rest("POST", "/collections/backup-kit."),
                Action::Status(500, "broken".to_owned()),
            )
            .after(2),
        );
        restore_native(&site, &catalog).await.expect_err("a shard that is not recovered");
        assert_eq!(faults.left(), 0);
        same(&site.all().await, &restored);
        no_traces(&site).await;
    });
}

#[test]
fn whichever_request_of_a_cluster_fails_it_is_all_or_nothing() {
    run(async {
        let site = cluster(2).await;
        let (_folder, catalog) = catalog();
        create(&site, "spread", 2, 20).await;
        native(&site, &catalog).await.expect("a backup");
        let store = || site.options().peers(site.peers()).open().expect("a store");
        let spoil = async || {
            let body = json!({"points": [1, 2, 3]});
            site.ask("POST", "/collections/spread/points/delete?wait=true", body).await;
        };
        let tried = all_or_nothing(&site, &catalog, store, spoil).await;
        assert!(tried.is_none_or(|(failed, done)| failed > 2 && done > 3), "{tried:?}");
    });
}
