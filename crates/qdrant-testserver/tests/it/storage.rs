//! Collections and aliases, and what a restart finds.

use std::time::Duration;

use qdrant_testserver::{Action, Fault, Match, Options, TestServer};
use serde_json::{Value, json};

use crate::support::{Http, fixture_bytes, fixture_points, scroll};

fn alias(collection: &str, alias: &str) -> Value {
    json!({"create_alias": {"collection_name": collection, "alias_name": alias}})
}

fn change_aliases(http: &Http, actions: &[Value]) -> crate::support::Answer {
    http.json("POST", "/collections/aliases", &json!({"actions": actions}))
}

fn create(http: &Http, name: &str) {
    let config = json!({"vectors": {"size": 2, "distance": "Dot"}});
    http.json("PUT", &format!("/collections/{name}"), &config).result();
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_follow_the_rules_of_the_server() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    create(&http, "a");
    create(&http, "b");
    change_aliases(&http, &[alias("a", "live"), alias("a", "old")]).result();
    let rename = json!({"rename_alias": {"old_alias_name": "old", "new_alias_name": "older"}});
    change_aliases(&http, &[alias("b", "live"), rename]).result();
    let of = |collection: &str| http.get(&format!("/collections/{collection}/aliases")).result();
    assert_eq!(of("a"), json!({"aliases": [{"alias_name": "older", "collection_name": "a"}]}));
    assert_eq!(of("b"), json!({"aliases": [{"alias_name": "live", "collection_name": "b"}]}));

    let point = json!({"points": [{"id": 1, "vector": [1, 2]}]});
    http.json("PUT", "/collections/live/points?wait=true", &point).result();
    assert_eq!(scroll(&http, "b").len(), 1);

    let taken = change_aliases(&http, &[alias("a", "b")]).error();
    assert_eq!(taken, (409, "Wrong input: Collection `b` already exists!".to_owned()));
    let missing = change_aliases(&http, &[alias("nope", "x")]).error();
    assert_eq!(missing, (404, "Not found: Collection `nope` doesn't exist!".to_owned()));
    let config = json!({"vectors": {"size": 2, "distance": "Dot"}});
    let (status, text) = http.json("PUT", "/collections/live", &config).error();
    assert_eq!((status, text.contains("Alias with the same name already exists")), (400, true));

    assert_eq!(http.delete("/collections/live").result(), json!(false));
    assert_eq!(http.delete("/collections/b").result(), json!(true));
    assert_eq!(http.get("/collections/live").status, 404);
    assert_eq!(of("b"), json!({"aliases": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_created_as_asked_and_only_once() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let config = json!({
        "vectors": {"size": 2, "distance": "Dot", "hnsw_config": {"m": 8, "payload_m": null}},
        "optimizers_config": {"indexing_threshold": 0},
        "strict_mode_config": {"enabled": true, "max_query_limit": null},
        "metadata": {"model": "x"},
    });
    http.json("PUT", "/collections/c", &config).result();
    let shown = || http.get("/collections/c").result()["config"].take();
    let params = json!({"size": 2, "distance": "Dot", "hnsw_config": {"m": 8}});
    assert_eq!(shown()["params"]["vectors"], params);
    assert_eq!(shown()["optimizer_config"]["indexing_threshold"], 0);
    assert_eq!(shown()["optimizer_config"]["deleted_threshold"], 0.2);
    assert_eq!(shown()["strict_mode_config"], json!({"enabled": true}));
    let patch = json!({
        "optimizers_config": {"indexing_threshold": 20000},
        "metadata": {"model": null, "by": "y"},
        "strict_mode_config": {"enabled": false},
    });
    http.json("PATCH", "/collections/c", &patch).result();
    assert_eq!(shown()["optimizer_config"]["indexing_threshold"], 20000);
    assert_eq!(shown()["metadata"], json!({"by": "y"}));
    assert_eq!(shown()["strict_mode_config"], json!({"enabled": false}));

    let again = http.json("PUT", "/collections/c", &config).error();
    assert_eq!(again, (409, "Wrong input: Collection `c` already exists!".to_owned()));
    for wrong in [
        json!({"vectors": {"size": 0, "distance": "Dot"}}),
        json!({"vectors": {"size": 2, "distance": "Up"}}),
        json!({"vectors": {"size": 2, "distance": "Dot"}, "quantization_config": {"no": 1}}),
    ] {
        assert_eq!(http.json("PUT", "/collections/wrong", &wrong).error().0, 400, "{wrong}");
    }
    assert_eq!(http.json("PUT", "/collections/a:b", &config).error().0, 422);
    assert_eq!(http.get("/collections/wrong/exists").result(), json!({"exists": false}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(dir.path(), Options::default()).await.unwrap();
    let http = Http::new(&server.rest_url());
    let snapshot = fixture_bytes("rich.snapshot");
    http.upload("/collections/rich/snapshots/upload", "rich.snapshot", &snapshot).result();
    change_aliases(&http, &[alias("rich", "live")]).result();
    let index = json!({"field_name": "nested.a", "field_schema": {"type": "integer", "lookup": true, "range": false}});
    http.json("PUT", "/collections/rich/index?wait=true", &index).result();
    http.delete("/collections/rich/index/city").result();
    let before = http.get("/collections/rich").result();
    let snapshots = http.get("/collections/rich/snapshots").result();
    assert_eq!(snapshots[0]["name"], "rich.snapshot");
    server.stop().await;

    let server = TestServer::start_in(dir.path(), Options::default()).await.unwrap();
    let http = Http::new(&server.rest_url());
    assert_eq!(http.get("/collections/live").result(), before);
    assert_eq!(before["payload_schema"]["nested.a"]["params"]["lookup"], true);
    assert!(before["payload_schema"].get("city").is_none());
    assert_eq!(http.get("/collections/rich/snapshots").result(), snapshots);
    assert_eq!(scroll(&http, "rich"), fixture_points());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_breaks_its_connections() {
    let server = TestServer::start().await.unwrap();
    let url = server.rest_url();
    let http = Http::new(&url);
    let slow = Action::Delay(Duration::from_secs(600));
    let any = Match::rest("GET", "/collections");
    server.faults().push(Fault::new(any, slow));
    let (sender, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        sender.send(http.try_send("GET", "/collections", "application/json", b""))
    });
    while server.faults().left() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stop().await;
    let waited = waiting.recv_timeout(Duration::from_secs(30));
    assert!(waited.expect("the connection is still there").is_err());
    assert!(Http::new(&url).try_send("GET", "/", "text/plain", b"").is_err());
}
