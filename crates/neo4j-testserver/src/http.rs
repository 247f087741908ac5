//! Cypher over plain HTTP: a client that shares nothing with the adapter.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// Runs one statement through the Query API, and returns its rows as typed values. Parameters are
/// such values, too, or plain JSON.
pub(crate) fn query(
    port: u16,
    credentials: Option<(&str, &str)>,
    statement: &str,
    parameters: &Value,
    typed: bool,
) -> io::Result<Vec<Value>> {
    let body = json!({ "statement": statement, "parameters": parameters }).to_string();
    let authorization = credentials.map_or_else(String::new, |(user, password)| {
        let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
        format!("authorization: Basic {both}\r\n")
    });
    let form = if typed { "vnd.neo4j.query" } else { "json" };
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    write!(
        stream,
        "POST /db/neo4j/query/v2 HTTP/1.0\r\nhost: localhost\r\n{authorization}\
         content-type: application/{form}\r\naccept: application/vnd.neo4j.query\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off");
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let body: Value = serde_json::from_str(body)?;
    if let Some(error) = body["errors"].as_array().and_then(|errors| errors.first()) {
        return Err(io::Error::other(format!("{}: {}", error["code"], error["message"])));
    }
    let rows = body["data"]["values"].as_array().ok_or_else(broken)?;
    Ok(rows.clone())
}
