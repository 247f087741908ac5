//! Fetches a snapshot from another server, over plain HTTP.

use std::path::Path;

use tokio::fs::File;
use tokio::io::{self, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::error::{Error, Result};

pub(crate) async fn get(url: &str, api_key: Option<&str>, into: &Path) -> Result<()> {
    let Some(rest) = url.strip_prefix("http://") else {
        let scheme = url.split(':').next().unwrap_or_default();
        let text = format!("URL {url} with scheme {scheme} is not supported");
        return Err(Error::bad_request(text));
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let failed =
        |what: &str| Error::bad_input(format!("Failed to download snapshot from {url}: {what}"));
    let mut stream = TcpStream::connect(host).await.map_err(|e| failed(&e.to_string()))?;
    let key = api_key.map(|key| format!("api-key: {key}\r\n")).unwrap_or_default();
    let request = format!("GET /{path} HTTP/1.0\r\nhost: {host}\r\n{key}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = BufReader::new(stream);
    let (mut status, mut length) = (String::new(), None);
    answer.read_line(&mut status).await?;
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<u64>().ok();
        }
    }
    if status.split(' ').nth(1) != Some("200") {
        return Err(failed(&format!("status - {}", status.trim())));
    }
    let length = length.ok_or_else(|| failed("no content-length"))?;
    let mut file = File::create(into).await?;
    let copied = io::copy(&mut answer.take(length), &mut file).await?;
    file.flush().await?;
    if copied < length { Err(failed("the answer broke off")) } else { Ok(()) }
}
