//! Faults happen as often as they should, to the requests they should.

use std::time::{Duration, Instant};

use qdrant_client::Payload;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::{
    CountPoints, CountPointsBuilder, PointStruct, UpsertPoints, UpsertPointsBuilder,
};
use qdrant_testserver::{Action, Fault, Match, TestServer};
use serde_json::json;
use tonic::Code;

use crate::support::{Http, fixture_bytes};

#[tokio::test(flavor = "multi_thread")]
async fn rest_answers_go_wrong() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let snapshot = fixture_bytes("rich.snapshot");
    http.upload("/collections/rich/snapshots/upload", "rich.snapshot", &snapshot).result();
    let faults = server.faults();

    let forbidden = Action::Status(403, "Forbidden: Snapshots are disabled".to_owned());
    let snapshots = Match::rest("POST", "/collections/rich/snapshots");
    faults.push(Fault::new(snapshots, forbidden).after(1).times(2));
    let create = || http.json("POST", "/collections/rich/snapshots", &json!({})).status;
    assert_eq!(http.get("/collections/rich/snapshots").status, 200);
    assert_eq!([create(), create(), create(), create()], [200, 403, 403, 200]);

    let path = "/collections/rich/snapshots/rich.snapshot";
    let download = || http.try_send("GET", path, "text/plain", b"");
    faults.push(Fault::new(Match::rest("GET", path), Action::Cut(500_000)));
    assert!(download().is_err());
    faults.push(Fault::new(Match::rest("GET", path), Action::Corrupt(1_500_000)));
    let corrupt = download().unwrap().body;
    let wrong: Vec<usize> = (0..corrupt.len()).filter(|i| corrupt[*i] != snapshot[*i]).collect();
    assert_eq!((corrupt.len(), wrong), (snapshot.len(), vec![1_500_000]));
    faults.push(Fault::new(Match::rest("", "/"), Action::Delay(Duration::from_millis(300))));
    let started = Instant::now();
    assert_eq!(download().unwrap().body, snapshot);
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(faults.left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_answers_go_wrong() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let config = json!({"vectors": {"size": 1, "distance": "Dot"}});
    http.json("PUT", "/collections/c", &config).result();
    // Not the client that repeats what failed.
    let client = PointsClient::connect(server.grpc_url()).await.unwrap();
    let upsert = async |id: u64| {
        let point = PointStruct::new(id, vec![1.0], Payload::new());
        let request = UpsertPoints::from(UpsertPointsBuilder::new("c", vec![point]).wait(true));
        client.clone().upsert(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    let count = async || {
        let count = CountPoints::from(CountPointsBuilder::new("c").exact(true));
        client.clone().count(count).await.unwrap().into_inner().result.unwrap().count
    };
    let to = || Match::grpc("Upsert");
    server.faults().push(Fault::new(to(), Action::disk_full()));
    server.faults().push(Fault::new(to(), Action::Status(503, "busy".to_owned())));
    server.faults().push(Fault::new(to(), Action::Cut(0)));
    assert_eq!(upsert(1).await, Code::Internal);
    assert_eq!(upsert(2).await, Code::Unavailable);
    assert_eq!(count().await, 0);
    // Carried out, though the answer is lost.
    assert_eq!(upsert(3).await, Code::Unavailable);
    assert_eq!(count().await, 1);
    assert_eq!(upsert(4).await, Code::Ok);
}
