//! Points over gRPC and over REST.

use std::collections::HashMap;

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::vector_output::Vector as Output;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::{
    self, Condition, CountPointsBuilder, DeletePointsBuilder, Filter, GetPointsBuilder, ListValue,
    NamedVectors, PointStruct, RetrievedPoint, ScrollPointsBuilder, Struct, UpsertPointsBuilder,
    Vector,
};
use qdrant_client::{Payload, Qdrant, QdrantError};
use qdrant_testserver::{Options, TestServer};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{Http, fixture_bytes, fixture_points, scroll};

fn client(server: &TestServer) -> Qdrant {
    Qdrant::from_url(&server.grpc_url()).build().unwrap()
}

fn payload(json: Value) -> Payload {
    let Value::Object(members) = json else { panic!("{json}") };
    let members = members.into_iter().map(|(name, value)| (name, proto(value)));
    Payload::from(members.collect::<HashMap<_, _>>())
}

fn proto(json: Value) -> qdrant::Value {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Number(number) => Kind::IntegerValue(number.as_i64().unwrap()),
        Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(proto).collect() })
        }
        Value::Object(members) => Kind::StructValue(Struct {
            fields: members.into_iter().map(|(name, value)| (name, proto(value))).collect(),
        }),
        other => panic!("{other}"),
    };
    qdrant::Value { kind: Some(kind) }
}

/// The status of what had to fail.
fn status<T: std::fmt::Debug>(result: Result<T, QdrantError>) -> (Code, String) {
    match result.unwrap_err() {
        QdrantError::ResponseError { status } => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}

const EVERY_KIND: &str = r#"{
    "vectors": {
        "dense": {"size": 3, "distance": "Dot"},
        "bytes": {"size": 3, "distance": "Euclid", "datatype": "uint8"},
        "rows": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}
    },
    "sparse_vectors": {"sparse": {"modifier": "idf"}},
    "shard_number": 2
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_vector_comes_back() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    http.json("PUT", "/collections/c", &serde_json::from_str(EVERY_KIND).unwrap()).result();
    let client = client(&server);
    let vectors = NamedVectors::default()
        .add_vector("dense", Vector::new_dense(vec![0.1, -2.5, 1e-30]))
        .add_vector("bytes", Vector::new_dense(vec![0.0, 7.0, 255.0]))
        .add_vector("rows", Vector::new_multi(vec![vec![1.0, 2.0], vec![3.0, 4.0]]))
        .add_vector("sparse", Vector::new_sparse(vec![3, 9], vec![0.5, -0.25]));
    let uuid = "6f6e0bd8-9c9c-4c2e-9d3b-3f6c7f4b4a10";
    let points = vec![
        PointStruct::new(
            u64::MAX,
            vectors,
            payload(json!({"big": i64::MIN, "nested": {"a": [null]}})),
        ),
        PointStruct::new(uuid, NamedVectors::default(), payload(json!({}))),
    ];
    client.upsert_points(UpsertPointsBuilder::new("c", points).wait(true)).await.unwrap();

    let all = ScrollPointsBuilder::new("c").limit(1).with_payload(true).with_vectors(true);
    let first = client.scroll(all.clone()).await.unwrap();
    let next = first.next_page_offset.clone().unwrap();
    let second = client.scroll(all.offset(next)).await.unwrap();
    assert_eq!(second.next_page_offset, None);
    let point = &first.result[0];
    assert_eq!(point.id, Some(u64::MAX.into()));
    assert_eq!(point.payload["big"].kind, Some(Kind::IntegerValue(i64::MIN)));
    let named = named(point);
    let dense = |name: &str| match named[name].clone().vector {
        Some(Output::Dense(dense)) => dense.data,
        other => panic!("{other:?}"),
    };
    assert_eq!(dense("dense"), [0.1, -2.5, 1e-30]);
    assert_eq!(dense("bytes"), [0.0, 7.0, 255.0]);
    match named["rows"].clone().vector {
        Some(Output::MultiDense(rows)) => {
            let rows: Vec<_> = rows.vectors.into_iter().map(|row| row.data).collect();
            assert_eq!(rows, [[1.0, 2.0], [3.0, 4.0]]);
        }
        other => panic!("{other:?}"),
    }
    match named["sparse"].clone().vector {
        Some(Output::Sparse(sparse)) => {
            assert_eq!((sparse.indices, sparse.values), (vec![3, 9], vec![0.5, -0.25]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(second.result[0].id, Some(uuid.into()));
    assert!(self::named(&second.result[0]).is_empty());

    let one = DeletePointsBuilder::new("c").points(vec![u64::MAX]).wait(true);
    client.delete_points(one).await.unwrap();
    let count = client.count(CountPointsBuilder::new("c").exact(true)).await.unwrap();
    assert_eq!(count.result.unwrap().count, 1);
}

fn named(point: &RetrievedPoint) -> HashMap<String, qdrant_client::qdrant::VectorOutput> {
    match point.vectors.clone().unwrap().vectors_options {
        Some(VectorsOptions::Vectors(named)) => named.vectors,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unnamed_vector_has_no_name() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let config = json!({"vectors": {"size": 2, "distance": "Cosine"}});
    http.json("PUT", "/collections/c", &config).result();
    let client = client(&server);
    let point = PointStruct::new(7, vec![3.0, 4.0], payload(json!({"a": 1})));
    client.upsert_points(UpsertPointsBuilder::new("c", vec![point]).wait(true)).await.unwrap();
    let get = GetPointsBuilder::new("c", vec![7.into()]).with_vectors(true).with_payload(true);
    let got = client.get_points(get).await.unwrap();
    match got.result[0].vectors.clone().unwrap().vectors_options {
        Some(VectorsOptions::Vector(vector)) => match vector.vector {
            Some(Output::Dense(dense)) => assert_eq!(dense.data, [0.6, 0.8]),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    let shown = http.get("/collections/c/points/7").result();
    assert_eq!(shown, json!({"id": 7, "payload": {"a": 1}, "vector": [0.6, 0.8]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn great_integers_are_floats_over_grpc_and_exact_over_rest() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    http.json("PUT", "/collections/c", &json!({"vectors": {}})).result();
    let great = json!({"great": u64::MAX, "most": i64::MAX});
    let points = json!({"points": [{"id": 1, "vector": {}, "payload": great}]});
    http.json("PUT", "/collections/c/points?wait=true", &points).result();
    assert_eq!(scroll(&http, "c")["1"]["payload"], great);
    let page = client(&server).scroll(ScrollPointsBuilder::new("c")).await.unwrap();
    let got = &page.result[0].payload;
    assert_eq!(got["great"].kind, Some(Kind::DoubleValue(u64::MAX as f64)));
    assert_eq!(got["most"].kind, Some(Kind::IntegerValue(i64::MAX)));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_reach_the_engine() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let snapshot = fixture_bytes("rich.snapshot");
    http.upload("/collections/rich/snapshots/upload", "rich", &snapshot).result();
    let city = "Zürich".to_owned();
    let matches = |point: &&Value| {
        point["payload"]["city"] == city.as_str()
            && point["payload"]["n"].as_i64().is_some_and(|n| n >= 0)
            && point["payload"]["tenant"] != "t1"
    };
    let expected = fixture_points().values().filter(matches).count() as u64;
    assert!(expected > 0);
    let mut filter = Filter::must([
        Condition::matches("city", city.clone()),
        Condition::range(
            "n",
            qdrant_client::qdrant::Range { gte: Some(0.0), ..Default::default() },
        ),
    ]);
    filter.must_not.push(Condition::matches("tenant", "t1".to_owned()));
    let count = CountPointsBuilder::new("rich").exact(true).filter(filter.clone());
    let count = client(&server).count(count).await.unwrap();
    assert_eq!(count.result.unwrap().count, expected);
    let scroll = ScrollPointsBuilder::new("rich").limit(1000).filter(filter);
    assert_eq!(client(&server).scroll(scroll).await.unwrap().result.len() as u64, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_points_are_refused_in_the_words_of_the_server() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let config = json!({"vectors": {"a": {"size": 4, "distance": "Dot"}}});
    http.json("PUT", "/collections/c", &config).result();
    let client = client(&server);
    let put = |collection: &str, name: &str, vector: Vec<f32>, wait: bool| {
        let vectors = NamedVectors::default().add_vector(name, Vector::new_dense(vector));
        let point = PointStruct::new(1, vectors, Payload::new());
        client.upsert_points(UpsertPointsBuilder::new(collection, vec![point]).wait(wait))
    };
    let short = "Wrong input: Vector dimension error: expected dim: 4, got 3";
    let (code, text) = status(put("c", "a", vec![1.0; 3], true).await);
    assert_eq!((code, text.as_str()), (Code::InvalidArgument, short));
    let (code, text) = status(put("c", "b", vec![1.0; 4], true).await);
    let unknown = "Wrong input: Not existing vector name error: b";
    assert_eq!((code, text.as_str()), (Code::InvalidArgument, unknown));
    let (code, text) = status(put("nope", "a", vec![1.0; 4], true).await);
    let missing = "Not found: Collection `nope` doesn't exist!";
    assert_eq!((code, text.as_str()), (Code::NotFound, missing));
    // Who does not wait is not told.
    put("c", "a", vec![1.0; 3], false).await.unwrap();

    let point = json!({"points": [{"id": 1, "vector": {"a": [1, 2, 3]}}]});
    let answer = http.json("PUT", "/collections/c/points?wait=true", &point);
    assert_eq!(answer.error(), (400, short.to_owned()));
    assert_eq!(scroll(&http, "c").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_are_set_and_overwritten() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let config = json!({"vectors": {"size": 1, "distance": "Dot"}, "shard_number": 3});
    http.json("PUT", "/collections/c", &config).result();
    let batch = json!({"batch": {"ids": [1, 2, 3], "vectors": [[1], [2], [3]], "payloads": [{"a": 1}, {"a": 2}, null]}});
    http.json("PUT", "/collections/c/points?wait=true", &batch).result();
    let set = json!({"payload": {"b": 1}, "points": [1, 3]});
    http.json("POST", "/collections/c/points/payload?wait=true", &set).result();
    let overwrite = json!({"payload": {"c": 1}, "points": [2]});
    let operations = json!({"operations": [
        {"overwrite_payload": overwrite},
        {"upsert": {"points": [{"id": 4, "vector": [4]}]}},
        {"delete": {"points": [1]}},
    ]});
    let done = http.json("POST", "/collections/c/points/batch?wait=true", &operations).result();
    assert_eq!(done.as_array().unwrap().len(), 3);
    let payloads: Vec<Value> =
        scroll(&http, "c").into_values().map(|mut point| point["payload"].take()).collect();
    assert_eq!(payloads, [json!({"c": 1}), json!({"b": 1}), json!({})]);
    let missing = json!({"payload": {"c": 1}, "points": [99]});
    let answer = http.json("PUT", "/collections/c/points/payload?wait=true", &missing);
    assert_eq!(answer.error(), (404, "Not found: No point with id 99 found".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_asked_for() {
    let options = Options { api_key: Some("secret".to_owned()), ..Options::default() };
    let server = TestServer::start_with(options).await.unwrap();
    let mut http = Http::new(&server.rest_url());
    assert_eq!(http.get("/").status, 200);
    let refused = http.get("/collections");
    assert_eq!(refused.status, 401);
    assert_eq!(refused.body, b"Must provide an API key or an Authorization bearer token");
    http.api_key = Some("other".to_owned());
    assert_eq!(http.get("/collections").body, b"Invalid API key or JWT");
    http.api_key = Some("secret".to_owned());
    assert_eq!(http.get("/collections").status, 200);

    let scroll = || ScrollPointsBuilder::new("c");
    let (code, text) = status(client(&server).scroll(scroll()).await);
    let asked = "Must provide an API key or an Authorization bearer token";
    assert_eq!((code, text.as_str()), (Code::Unauthenticated, asked));
    let keyed = Qdrant::from_url(&server.grpc_url()).api_key("secret").build().unwrap();
    assert_eq!(status(keyed.scroll(scroll()).await).0, Code::NotFound);
    assert_eq!(keyed.health_check().await.unwrap().version, "1.19.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_come_first() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let vectors = json!({"vectors": {"size": 2, "distance": "Cosine"}});
    http.json("PUT", "/collections/c", &vectors).result();
    let points = [(1, [1.0, 0.0]), (2, [1.0, 1.0]), (3, [0.0, 1.0]), (4, [-1.0, 0.0])];
    let points = points.map(|(id, vector)| {
        let payload = json!({"half": if id < 3 { "first" } else { "second" }});
        json!({"id": id, "vector": vector, "payload": payload})
    });
    let body = json!({"points": points});
    http.json("PUT", "/collections/c/points?wait=true", &body).result();
    let found = |body: Value| {
        let result = http.json("POST", "/collections/c/points/query", &body).result();
        let points = result["points"].as_array().unwrap().iter();
        let found = points.map(|point| (point["id"].clone(), point["score"].as_f64().unwrap()));
        found.collect::<Vec<_>>()
    };
    let near = found(json!({"query": [2.0, 0.1], "limit": 3}));
    assert_eq!(near.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(near[0].1 > 0.99 && near.is_sorted_by(|a, b| a.1 > b.1), "{near:?}");
    let second = json!({"must": [{"key": "half", "match": {"value": "second"}}]});
    let near = found(json!({"query": [2.0, 0.1], "filter": second}));
    assert_eq!(near.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [3, 4]);
    let none = json!({"query": [2.0, 0.1], "limit": 0});
    http.json("POST", "/collections/c/points/query", &none).error();
    http.json("POST", "/collections/none/points/query", &json!({"query": [2.0, 0.1]})).error();
}
