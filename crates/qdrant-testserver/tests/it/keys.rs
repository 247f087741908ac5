//! Shard keys, as a cluster has them.

use std::collections::HashMap;

use qdrant_client::Qdrant;
use qdrant_client::qdrant::{
    self as proto, CountPointsBuilder, PointStruct, ScrollPointsBuilder, UpsertPointsBuilder,
    shard_key::Key,
};
use qdrant_testserver::{Options, TestServer};
use serde_json::{Value, json};

use crate::support::Http;

fn create(http: &Http) {
    let config = json!({"vectors": {"size": 2, "distance": "Dot"}, "sharding_method": "custom"});
    http.json("PUT", "/collections/c", &config).result();
}

fn make(http: &Http, body: &Value) {
    assert_eq!(http.json("PUT", "/collections/c/shards", body).result(), json!(true));
}

fn points(http: &Http, keys: &Value) -> Vec<Value> {
    let body = json!({"limit": 100, "with_payload": true, "shard_key": keys});
    let page = http.json("POST", "/collections/c/points/scroll", &body).result();
    page["points"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn points_lie_under_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(dir.path(), Options::default()).await.unwrap();
    let http = Http::new(&server.rest_url());
    create(&http);
    assert_eq!(http.get("/collections/c/shards").result(), json!({"shard_keys": []}));
    make(&http, &json!({"shard_key": "cats", "shards_number": 2}));
    make(&http, &json!({"shard_key": 7}));
    let put = |key: &str, name: &str| {
        let body = format!(
            r#"{{"shard_key": {key}, "points": [{{"id": 1, "vector": [1, 2], "payload": {{"n": "{name}"}}}}]}}"#
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        http.json("PUT", "/collections/c/points?wait=true", &body)
    };
    put("\"cats\"", "Tom").result();
    put("7", "Seven").result();
    let missing = json!({"points": [{"id": 1, "vector": [1, 2]}]});
    let refused = http.json("PUT", "/collections/c/points", &missing).error();
    assert_eq!(refused, (400, "Wrong input: Shard key not specified".to_owned()));
    let refused = put("\"dogs\"", "Rex").error();
    assert_eq!(refused, (400, "Wrong input: Shard key \"dogs\" not found".to_owned()));

    let check = |http: &Http| {
        // Without a key an id comes once, whichever shards have it; it is counted in each.
        assert_eq!(points(http, &Value::Null).len(), 1);
        let count = http.json("POST", "/collections/c/points/count", &json!({})).result();
        assert_eq!(count, json!({"count": 2}));
        let cats = json!([{"id": 1, "payload": {"n": "Tom"}, "shard_key": "cats"}]);
        assert_eq!(json!(points(http, &json!("cats"))), cats);
        let seven = json!([{"id": 1, "payload": {"n": "Seven"}, "shard_key": 7}]);
        assert_eq!(json!(points(http, &json!([7]))), seven);
        let get = json!({"ids": [1], "with_payload": true, "shard_key": 7});
        assert_eq!(http.json("POST", "/collections/c/points", &get).result(), seven);
        let shards = http.get("/collections/c/cluster").result();
        let shards = shards["local_shards"].as_array().unwrap().iter();
        let shards: Vec<_> = shards.map(|s| json!([s["shard_id"], s["shard_key"]])).collect();
        assert_eq!(json!(shards), json!([[1, "cats"], [2, "cats"], [3, 7]]));
    };
    check(&http);
    server.stop().await;
    let server = TestServer::start_in(dir.path(), Options::default()).await.unwrap();
    let http = Http::new(&server.rest_url());
    check(&http);

    let again = http.json("PUT", "/collections/c/shards", &json!({"shard_key": 7})).error();
    assert_eq!(again.1, "Bad request: Sharding key 7 already exists for collection c");
    let body = json!({"shard_key": "cats"});
    http.json("POST", "/collections/c/shards/delete", &body).result();
    let keys = http.get("/collections/c/shards").result();
    assert_eq!(keys, json!({"shard_keys": [{"key": 7}]}));
    let gone = json!({"shard_key": "cats"});
    let gone = http.json("POST", "/collections/c/points/scroll", &gone).error();
    assert_eq!(gone, (400, "Bad request: Shard key \"cats\" not found".to_owned()));
    assert_eq!(points(&http, &Value::Null).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_select_over_grpc() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    create(&http);
    make(&http, &json!({"shard_key": "a"}));
    make(&http, &json!({"shard_key": u64::MAX}));
    let client = Qdrant::from_url(&server.grpc_url()).build().unwrap();
    let point = |text: &str| {
        let payload = HashMap::from([("n".to_owned(), proto::Value::from(text))]);
        vec![PointStruct::new(1, vec![1.0, 2.0], payload)]
    };
    let without = UpsertPointsBuilder::new("c", point("none")).wait(true);
    let refused = client.upsert_points(without).await.unwrap_err().to_string();
    assert!(refused.contains("Shard key not specified"), "{refused}");
    for (key, text) in [(Key::Keyword("a".to_owned()), "A"), (Key::Number(u64::MAX), "Max")] {
        let upsert = UpsertPointsBuilder::new("c", point(text)).wait(true);
        client.upsert_points(upsert.shard_key_selector(vec![key.clone()])).await.unwrap();
        let scroll = ScrollPointsBuilder::new("c").shard_key_selector(vec![key.clone()]);
        let found = client.scroll(scroll).await.unwrap().result;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].payload["n"], text.into());
        assert_eq!(found[0].shard_key.clone().unwrap().key, Some(key));
    }
    let count = client.count(CountPointsBuilder::new("c")).await.unwrap().result.unwrap().count;
    assert_eq!(count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_brings_no_keys() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    create(&http);
    make(&http, &json!({"shard_key": "a"}));
    let put = json!({"shard_key": "a", "points": [{"id": 1, "vector": [1, 2]}]});
    http.json("PUT", "/collections/c/points?wait=true", &put).result();
    let taken = http.json("POST", "/collections/c/snapshots", &json!({})).result();
    let path = format!("/collections/c/snapshots/{}", taken["name"].as_str().unwrap());
    let snapshot = http.get(&path).body;
    http.upload("/collections/d/snapshots/upload", "s", &snapshot).result();
    assert_eq!(http.get("/collections/d/shards").result(), json!({"shard_keys": []}));
    assert_eq!(http.get("/collections/d").result()["points_count"], 0);
    // Shards of the same numbers are filled.
    http.json("PUT", "/collections/d/shards", &json!({"shard_key": "b"})).result();
    http.upload("/collections/d/snapshots/upload", "s", &snapshot).result();
    assert_eq!(http.get("/collections/d").result()["points_count"], 1);
    http.json("PUT", "/collections/d/shards", &json!({"shard_key": "more"})).result();
    let (status, text) = http.upload("/collections/d/snapshots/upload", "s", &snapshot).error();
    assert!(status == 500 && text.contains("No shard found: 2"), "{status} {text}");
    assert_eq!(http.get("/collections/d").result()["points_count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_cluster_makes_keys_and_only_of_such_collections() {
    let alone = Options { cluster: false, ..Options::default() };
    let server = TestServer::start_with(alone).await.unwrap();
    let http = Http::new(&server.rest_url());
    assert_eq!(http.get("/cluster").result(), json!({"status": "disabled"}));
    create(&http);
    let refused = http.json("PUT", "/collections/c/shards", &json!({"shard_key": "a"})).error();
    assert_eq!(refused, (405, "Qdrant is running in standalone mode".to_owned()));

    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    assert_eq!(http.get("/cluster").result()["status"], "enabled");
    let config = json!({"vectors": {"size": 2, "distance": "Dot"}});
    http.json("PUT", "/collections/c", &config).result();
    let (status, text) =
        http.json("PUT", "/collections/c/shards", &json!({"shard_key": "a"})).error();
    assert!(status == 400 && text.contains("Auto sharding method"), "{status} {text}");
}
