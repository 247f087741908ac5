//! Snapshots: those of a real server here, those made here in the engine.

use std::collections::BTreeMap;
use std::path::Path;

use qdrant_edge::{EdgeShard, ScrollRequest, VectorStructPersisted, WithVector};
use qdrant_testserver::TestServer;
use serde_json::{Value, json};

use crate::support::{Http, by_id, fixture, fixture_bytes, fixture_points, scroll};

/// All points of a shard's snapshot, read with the engine alone.
fn points_of_snapshot(snapshot: &Path) -> BTreeMap<String, Value> {
    let dir = tempfile::tempdir().unwrap();
    EdgeShard::unpack_snapshot(snapshot, dir.path()).unwrap();
    let shard = EdgeShard::load(dir.path(), None).unwrap();
    let all = ScrollRequest {
        limit: Some(1_000_000),
        with_vector: WithVector::Bool(true),
        ..ScrollRequest::default()
    };
    let (records, _) = shard.scroll(all).unwrap();
    by_id(records.into_iter().map(|record| {
        let vector = record.vector.map(VectorStructPersisted::from);
        // By way of text, because a float of 32 bits is written with other digits as one of 64.
        let point =
            serde_json::to_string(&Point { id: record.id, payload: record.payload, vector });
        serde_json::from_str(&point.unwrap()).unwrap()
    }))
}

#[derive(serde::Serialize)]
struct Point {
    id: qdrant_edge::PointId,
    payload: Option<qdrant_edge::Payload>,
    vector: Option<VectorStructPersisted>,
}

fn shard_of_fixture() -> BTreeMap<String, Value> {
    points_of_snapshot(&fixture("rich.shard0.snapshot"))
}

#[test]
fn a_real_shard_snapshot_opens_in_the_engine() {
    let mut expected = fixture_points();
    let points = shard_of_fixture();
    assert_eq!(points.len(), 272);
    expected.retain(|id, _| points.contains_key(id));
    assert_eq!(points, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_snapshot_gives_the_points_that_were_in_it() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let upload = "/collections/back/snapshots/upload?priority=snapshot";
    http.upload(upload, "rich.snapshot", &fixture_bytes("rich.snapshot")).result();
    assert_eq!(scroll(&http, "back"), fixture_points());

    // Each point is in the shard where it is looked for, and a change reaches it.
    let ids: Vec<Value> = fixture_points().into_values().map(|mut p| p["id"].take()).collect();
    let found = http.json("POST", "/collections/back/points", &json!({"ids": ids})).result();
    assert_eq!(found.as_array().unwrap().len(), 500);
    for id in [json!(1), json!(3), ids[499].clone()] {
        let point =
            json!({"id": id, "vector": {"image": [1, 2, 3, 4, 5, 6, 7, 8]}, "payload": {"new": 1}});
        let body = json!({"points": [point]});
        http.json("PUT", "/collections/back/points?wait=true", &body).result();
        let got =
            http.get(&format!("/collections/back/points/{}", id.to_string().trim_matches('"')));
        assert_eq!(got.result()["payload"], json!({"new": 1}), "{id}");
    }
    assert_eq!(http.get("/collections/back").result()["points_count"], 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_made_here_opens_in_the_engine() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let snapshot = fixture_bytes("rich.snapshot");
    http.upload("/collections/rich/snapshots/upload", "rich", &snapshot).result();
    let made = http.json("POST", "/collections/rich/shards/0/snapshots", &json!({})).result();
    let name = made["name"].as_str().unwrap();
    let file = http.get(&format!("/collections/rich/shards/0/snapshots/{name}")).body;
    assert_eq!(made["size"], json!(file.len()));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.snapshot");
    std::fs::write(&path, &file).unwrap();
    assert_eq!(points_of_snapshot(&path), shard_of_fixture());

    // And goes back into a shard, over what was written since.
    let delete = json!({"filter": {"must": []}});
    http.json("POST", "/collections/rich/points/delete?wait=true", &delete).result();
    assert_eq!(scroll(&http, "rich").len(), 0);
    http.upload("/collections/rich/shards/0/snapshots/upload", "x", &file).result();
    assert_eq!(scroll(&http, "rich"), shard_of_fixture());
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_replaces_the_points_and_keeps_the_rest() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let vectors = json!({"vectors": {"size": 2, "distance": "Dot"}});
    for (name, id) in [("live", 1), ("shadow", 2)] {
        let mut config = vectors.clone();
        config["metadata"] = json!({"of": name});
        http.json("PUT", &format!("/collections/{name}"), &config).result();
        let points = json!({"points": [{"id": id, "vector": [1, 2]}]});
        http.json("PUT", &format!("/collections/{name}/points?wait=true"), &points).result();
    }
    let alias = json!({"create_alias": {"collection_name": "live", "alias_name": "now"}});
    http.json("POST", "/collections/aliases", &json!({"actions": [alias]})).result();
    let index = json!({"field_name": "city", "field_schema": "keyword"});
    http.json("PUT", "/collections/live/index?wait=true", &index).result();

    let made = http.json("POST", "/collections/shadow/snapshots", &json!({})).result();
    let path = format!("/collections/shadow/snapshots/{}", made["name"].as_str().unwrap());
    let location = format!("{}{path}", server.rest_url());
    let recover =
        json!({"location": location, "priority": "snapshot", "checksum": made["checksum"]});
    http.json("PUT", "/collections/now/snapshots/recover", &recover).result();

    assert_eq!(scroll(&http, "now").into_keys().collect::<Vec<_>>(), ["2"]);
    let info = http.get("/collections/live").result();
    assert_eq!(info["config"]["metadata"], json!({"of": "live"}));
    assert_eq!(info["payload_schema"], json!({"city": {"data_type": "keyword", "points": 0}}));
    assert_eq!(http.get("/collections").result()["collections"].as_array().unwrap().len(), 2);

    // A snapshot of other vectors does not fit.
    let other = fixture_bytes("rich.snapshot");
    let (status, text) = http.upload("/collections/live/snapshots/upload", "x", &other).error();
    assert_eq!(status, 400);
    assert!(text.contains("Snapshot is not compatible with existing collection"), "{text}");
    assert_eq!(scroll(&http, "live").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_checksum_recovers_nothing() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let wrong = "0".repeat(64);
    let snapshot = fixture_bytes("rich.snapshot");
    let upload = format!("/collections/back/snapshots/upload?checksum={wrong}");
    let (status, text) = http.upload(&upload, "rich.snapshot", &snapshot).error();
    assert_eq!((status, text.starts_with("Checksum mismatch: ")), (400, true), "{text}");
    assert_eq!(http.get("/collections/back").status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_outlive_their_collection_out_of_reach() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let config = json!({"vectors": {"size": 2, "distance": "Dot"}});
    http.json("PUT", "/collections/c", &config).result();
    let made = http.json("POST", "/collections/c/snapshots", &json!({})).result();
    http.delete("/collections/c").result();
    assert_eq!(http.get("/collections/c/snapshots").status, 404);
    http.json("PUT", "/collections/c", &config).result();
    assert_eq!(http.get("/collections/c/snapshots").result(), json!([made]));
}
