//! Snapshots of collections and of shards.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Instant;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Multipart, Path, State as Ext};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::stream;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::answers::{Body_, answer, blocking, timed_or_accepted, work};
use super::{Params, Server};
use crate::error::{Error, Result};
use crate::fetch;
use crate::peer::Peer;
use crate::snapshot::sha256;

/// Where snapshots are: of a collection or, where the path says so, of one of its shards.
#[derive(Deserialize)]
pub(super) struct Place {
    name: String,
    shard: Option<u32>,
    #[serde(default)]
    snapshot: String,
}

pub(super) async fn list_snapshots(
    Ext(state): Ext<Server>,
    Extension(peer): Extension<Peer>,
    Path(place): Path<Place>,
) -> Response {
    work(move || {
        peer.check(place.shard)?;
        state.snapshots(&place.name, place.shard)
    })
    .await
}

pub(super) async fn create_snapshot(
    Ext(state): Ext<Server>,
    Extension(peer): Extension<Peer>,
    Path(place): Path<Place>,
    params: Params,
) -> Response {
    let created = blocking(move || {
        peer.check(place.shard)?;
        state.create_snapshot(&place.name, place.shard, peer)
    });
    timed_or_accepted(&params, created).await
}

pub(super) async fn delete_snapshot(
    Ext(state): Ext<Server>,
    Extension(peer): Extension<Peer>,
    Path(place): Path<Place>,
    params: Params,
) -> Response {
    let deleted = blocking(move || {
        peer.check(place.shard)?;
        state.delete_snapshot(&place.name, place.shard, &place.snapshot).map(|()| true)
    });
    timed_or_accepted(&params, deleted).await
}

pub(super) async fn download_snapshot(
    Ext(state): Ext<Server>,
    Extension(peer): Extension<Peer>,
    Path(place): Path<Place>,
    headers: HeaderMap,
) -> Response {
    let started = Instant::now();
    let name = place.snapshot.clone();
    let path = blocking(move || {
        peer.check(place.shard)?;
        state.snapshot_path(&place.name, place.shard, &place.snapshot)
    });
    let sent = match path.await {
        Ok(path) => send_file(path, &name, &headers).await,
        Err(error) => Err(error),
    };
    sent.unwrap_or_else(|error| answer::<()>(started, Err(error)))
}

async fn send_file(path: PathBuf, name: &str, headers: &HeaderMap) -> Result<Response> {
    let mut file = tokio::fs::File::open(path).await?;
    let size = file.metadata().await?.len();
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (from, to) = range.and_then(|range| read_range(range, size)).unwrap_or((0, size));
    file.seek(SeekFrom::Start(from)).await?;
    let chunks = stream::try_unfold(file.take(to - from), async |mut file| {
        let mut chunk = Vec::with_capacity(256 * 1024);
        let read = file.read_buf(&mut chunk).await?;
        std::io::Result::Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    let disposition = format!("attachment; filename=\"{name}\"");
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, (to - from).into());
    if let Ok(disposition) = disposition.parse() {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    if to - from < size {
        let range = format!("bytes {from}-{}/{size}", to - 1);
        headers.insert(header::CONTENT_RANGE, range.parse().map_err(|_| Error::service(range))?);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// The part of a file that a `Range` header asks for; none if it asks for several or nothing.
fn read_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to: u64 = if to.is_empty() { size } else { to.parse::<u64>().ok()?.checked_add(1)? };
    (from < to && to <= size).then_some((from, to))
}

pub(super) async fn upload_snapshot(
    Ext(state): Ext<Server>,
    Extension(peer): Extension<Peer>,
    Path(place): Path<Place>,
    params: Params,
    form: Multipart,
) -> Response {
    let started = Instant::now();
    let temp = state.unique_temp();
    let file_name = match receive(form, &temp).await {
        Ok(file_name) => file_name,
        Err(error) => return answer::<()>(started, Err(error)),
    };
    let checksum = params.get("checksum").cloned();
    let recovered = blocking(move || {
        peer.check_recovers(place.shard)?;
        if let Some(expected) = checksum {
            let actual = sha256(&temp)?;
            if !actual.eq_ignore_ascii_case(&expected) {
                let text = format!("expected {actual}, actual {expected}");
                return Err(Error::checksum(text));
            }
        }
        match place.shard {
            None => {
                let snapshot = state.keep_upload(&place.name, &file_name, &temp)?;
                state.recover(&place.name, &snapshot)?;
            }
            Some(id) => {
                let recovered = state.recover_shard(&place.name, id, &temp);
                std::fs::remove_file(&temp)?;
                recovered?;
            }
        }
        Ok(true)
    });
    timed_or_accepted(&params, recovered).await
}

/// Writes the field `snapshot` of a form to a file and gives the name that came with it.
async fn receive(mut form: Multipart, path: &PathBuf) -> Result<String> {
    let broken = |e: axum::extract::multipart::MultipartError| Error::format(e.body_text());
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        if field.name() != Some("snapshot") {
            continue;
        }
        let name = field.file_name().unwrap_or_default().to_owned();
        let mut file = tokio::fs::File::create(path).await?;
        while let Some(chunk) = field.chunk().await.map_err(broken)? {
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        return Ok(name);
    }
    Err(Error::format("Field 'snapshot' is required"))
}

#[derive(Deserialize)]
pub(super) struct Recover {
    location: String,
    checksum: Option<String>,
    api_key: Option<String>,
}

pub(super) async fn recover_snapshot(
    Ext(state): Ext<Server>,
    Extension(peer): Extension<Peer>,
    Path(place): Path<Place>,
    params: Params,
    Body_(body): Body_<Recover>,
) -> Response {
    timed_or_accepted(&params, async move {
        let temp = state.unique_temp();
        let path = match body.location.strip_prefix("file://") {
            Some(path) => state.snapshot_of_url(path)?,
            None => {
                fetch::get(&body.location, body.api_key.as_deref(), &temp).await?;
                temp.clone()
            }
        };
        blocking(move || {
            let checked = peer.check_recovers(place.shard);
            let checked = checked.and_then(|()| check_sum(&path, body.checksum.as_deref()));
            let recovered = checked.and_then(|()| match place.shard {
                None => state.recover(&place.name, &path),
                Some(id) => state.recover_shard(&place.name, id, &path),
            });
            let _ = std::fs::remove_file(temp);
            recovered.map(|()| true)
        })
        .await
    })
    .await
}

fn check_sum(path: &std::path::Path, expected: Option<&str>) -> Result<()> {
    let Some(expected) = expected else { return Ok(()) };
    let actual = sha256(path)?;
    if actual.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Error::bad_input(format!("Snapshot checksum mismatch: expected {expected}, got {actual}")))
}
