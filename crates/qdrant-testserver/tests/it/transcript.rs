//! The requests that a real server was sent, in their order.

use std::collections::BTreeSet;

use qdrant_testserver::TestServer;
use serde_json::{Value, json};

use crate::support::{Answer, Http, fixture_bytes};

/// The members and the types of `expected`, whatever the values.
fn check_shape(expected: &Value, got: &Value, place: &str) {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => {
            let names =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(expected), names(got), "{place}");
            for (name, value) in expected {
                check_shape(value, &got[name], &format!("{place}.{name}"));
            }
        }
        (Value::Array(expected), Value::Array(got)) => {
            assert_eq!(expected.len(), got.len(), "{place}");
            for (expected, got) in expected.iter().zip(got) {
                check_shape(expected, got, place);
            }
        }
        (expected, got) => {
            let kind = std::mem::discriminant::<Value>;
            assert_eq!(kind(expected), kind(got), "{place}: {expected} and {got}");
        }
    }
}

/// Values that differ from server to server and from time to time.
fn without_chance(mut answer: Value) -> Value {
    answer["time"] = json!(0);
    let result = &mut answer["result"];
    if let Some(object) = result.as_object_mut() {
        for name in ["name", "creation_time", "size", "checksum", "peer_id"] {
            object.remove(name);
        }
    }
    answer
}

/// Status and body of an answer that the transcript holds as text.
fn parse_raw(raw: &str) -> (u16, Value) {
    let last = raw.rfind("HTTP/1.1").unwrap();
    let status = raw[last..].split(' ').nth(1).unwrap().parse().unwrap();
    let body = raw.rsplit("\n\n").next().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn check_json(expected: &Value, answer: &Answer, place: &str) {
    let got = answer.json();
    check_shape(expected, &got, place);
    if !expected["result"].is_array() {
        assert_eq!(without_chance(expected.clone()), without_chance(got), "{place}");
    }
}

fn renamed(text: &str, names: &[(String, String)]) -> String {
    names.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_server_answered() {
    let server = TestServer::start().await.unwrap();
    let http = Http::new(&server.rest_url());
    let snapshot = fixture_bytes("rich.snapshot");
    http.upload("/collections/rich/snapshots/upload", "rich", &snapshot).result();
    let alias = |name| json!({"create_alias": {"collection_name": "rich", "alias_name": name}});
    let aliases = json!({"actions": [alias("memories-live"), alias("memories-eu")]});
    http.json("POST", "/collections/aliases", &aliases).result();

    let transcript: Vec<Value> =
        serde_json::from_slice(&fixture_bytes("rest-transcript.json")).unwrap();
    // Names of snapshots there, and here.
    let mut names: Vec<(String, String)> = Vec::new();
    for entry in &transcript {
        let (request, response) = (&entry["request"], &entry["response"]);
        let method = request["method"].as_str().unwrap_or("GET");
        let path = renamed(request["path"].as_str().unwrap(), &names);
        let answer = match request["body"].as_str() {
            Some(text) if text.contains("no snapshot") => {
                http.upload(&path, "bad", text.as_bytes())
            }
            Some(_) => http.upload(&path, "rich", &snapshot),
            None if method == "POST" => http.json("POST", &path, &json!({})),
            None if method == "DELETE" => http.delete(&path),
            None => http.get(&path),
        };
        let place = format!("{method} {path}");
        if let Some(raw) = response["raw"].as_str() {
            let (status, body) = parse_raw(raw);
            assert_eq!(answer.status, status, "{place}");
            check_json(&body, &answer, &place);
            continue;
        }
        assert_eq!(json!(answer.status), response["status"], "{place}");
        for header in ["content-type", "content-disposition", "accept-ranges"] {
            let expected = response[header].as_str().map(|h| renamed(h, &names));
            assert_eq!(answer.headers.get(header), expected.as_ref(), "{place}: {header}");
        }
        if response["body"]["<binary>"].is_number() {
            continue;
        }
        check_json(&response["body"], &answer, &place);
        if method == "POST" {
            let name = |body: &Value| body["result"]["name"].as_str().unwrap().to_owned();
            names.push((name(&response["body"]), name(&answer.json())));
        }
    }
}
