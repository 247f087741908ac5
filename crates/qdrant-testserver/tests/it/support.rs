//! A small HTTP client, and the fixtures.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// An answer: its status, its headers in lower case, its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The result of what had to succeed.
    pub(crate) fn result(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()["result"].take()
    }

    /// Status and text of what had to fail.
    pub(crate) fn error(&self) -> (u16, String) {
        assert_ne!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        (self.status, self.json()["status"]["error"].as_str().unwrap().to_owned())
    }
}

pub(crate) struct Http {
    host: String,
    pub(crate) api_key: Option<String>,
}

impl Http {
    pub(crate) fn new(url: &str) -> Self {
        Self { host: url.strip_prefix("http://").unwrap().to_owned(), api_key: None }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", b"")
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "application/json", b"")
    }

    pub(crate) fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(method, path, "application/json", body.to_string().as_bytes())
    }

    pub(crate) fn upload(&self, path: &str, file_name: &str, file: &[u8]) -> Answer {
        let mut body = format!(
            "--XX\r\ncontent-disposition: form-data; name=\"snapshot\"; \
             filename=\"{file_name}\"\r\ncontent-type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n--XX--\r\n");
        self.send("POST", path, "multipart/form-data; boundary=XX", &body)
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        self.try_send(method, path, kind, body).unwrap()
    }

    /// Fails where the connection breaks before the answer is complete.
    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(&self.host)?;
        let key = self.api_key.iter().map(|key| format!("api-key: {key}\r\n")).collect::<String>();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n{key}\r\n",
            self.host,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let body = answer[end + 4..].to_vec();
        if headers["content-length"].parse() != Ok(body.len()) {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Answer { status, headers, body })
    }
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/qdrant").join(name)
}

pub(crate) fn fixture_bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

/// The points of the fixture, by id as text.
pub(crate) fn fixture_points() -> BTreeMap<String, Value> {
    let text = String::from_utf8(fixture_bytes("rich.points.jsonl")).unwrap();
    by_id(text.lines().map(|line| serde_json::from_str(line).unwrap()))
}

pub(crate) fn by_id(points: impl Iterator<Item = Value>) -> BTreeMap<String, Value> {
    points.map(|point| (point["id"].to_string(), point)).collect()
}

/// All points of a collection, in pages, over REST.
pub(crate) fn scroll(http: &Http, collection: &str) -> BTreeMap<String, Value> {
    let mut points = BTreeMap::new();
    let mut offset = Value::Null;
    loop {
        let body = serde_json::json!({
            "limit": 64, "offset": offset, "with_payload": true, "with_vector": true,
        });
        let mut page =
            http.json("POST", &format!("/collections/{collection}/points/scroll"), &body).result();
        let Value::Array(part) = page["points"].take() else { panic!("{page}") };
        points.extend(by_id(part.into_iter()));
        offset = page["next_page_offset"].take();
        if offset.is_null() {
            return points;
        }
    }
}
