//! Native snapshots: taken on the server, streamed, and removed again.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use backup_core::{
    Blob, BlobContent, ByteStream, Error, ErrorKind, Metadata, Result, record::Sha256Digest,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    client::Client,
    shards::Shard,
    snapshots::{Snapshot, Snapshots},
};
use crate::schema::Document;

/// What the native file of a collection is called: its name, and this.
const ENDING: &str = ".snapshot";
/// What that of one of its shards is called: the collection's name, a point, the shard's number,
/// and this.
const SHARD_ENDING: &str = ".shard";

/// A snapshot that lies on a server.
#[derive(Clone)]
pub(super) struct Taken {
    pub(super) collection: String,
    /// `None`: of the whole collection.
    pub(super) shard: Option<Shard>,
    pub(super) snapshot: Snapshot,
    /// How many points the collection has.
    pub(super) points: Option<u64>,
    place: Snapshots,
}

impl Taken {
    /// Takes a snapshot of a collection, or of a shard.
    pub(super) async fn new(
        client: &Client,
        collection: &str,
        shard: Option<Shard>,
    ) -> Result<Self> {
        let place = match &shard {
            None => client.snapshots(collection),
            Some(shard) => shard.snapshots(collection),
        };
        let snapshot = place.create().await?;
        Ok(Self { collection: collection.to_owned(), shard, snapshot, points: None, place })
    }

    pub(super) async fn body(&self) -> Result<(ByteStream, Option<u64>)> {
        let (body, len) = self.place.download(&self.snapshot.name).await?;
        let Some(checksum) = self.snapshot.checksum.clone() else { return Ok((body, len)) };
        let collection = self.collection.clone();
        let checked = Hashed::new(body, move |_, digest| {
            if digest.to_string() == checksum {
                return Ok(());
            }
            let what = "a snapshot arrived with another checksum than the server named";
            Err(Error::new(ErrorKind::Corrupt, what)
                .on(&collection)
                .advise("run the backup again; check the server's disk and the network"))
        });
        Ok((checked.boxed(), len))
    }

    /// As a part of an archive.
    pub(super) async fn part(
        &self,
        client: &Client,
        document: &Document,
        model: Option<&str>,
    ) -> Result<Blob> {
        let (body, len) = self.body().await?;
        let mut facts = vec![
            ("collection", json!(self.collection)),
            ("document", serde_json::to_value(document).unwrap_or_default()),
            ("model", json!(model)),
            ("points", json!(self.points)),
            ("server", json!(self.place.address())),
            ("server_version", json!(client.version().await?)),
            ("snapshot", json!(self.snapshot.name)),
            ("checksum", json!(self.snapshot.checksum)),
            ("taken", self.snapshot.time.clone()),
        ];
        if let Some(shard) = &self.shard {
            facts.push(("peer", json!(shard.peer)));
            facts.push(("shard", json!(shard.number)));
            if let Some(key) = &shard.key {
                facts.push(("shard_key", json!(key)));
            }
        }
        let metadata = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact));
        Ok(Blob {
            name: file_name(&self.collection, self.shard.as_ref().map(|shard| shard.number)),
            len,
            masked: Vec::new(),
            metadata: metadata.collect(),
            body,
        })
    }

    pub(super) async fn remove(&self) -> Result<()> {
        self.place.delete(&self.snapshot.name).await
    }
}

/// What a restore has to know of a native file.
pub(super) struct Native {
    pub(super) collection: String,
    /// The number of its shard, where it is that of one.
    pub(super) shard: Option<u64>,
    pub(super) document: Document,
    /// The host's word for it.
    pub(super) model: Option<String>,
    /// How many points the collection has.
    pub(super) points: Option<u64>,
    pub(super) checksum: Option<String>,
}

impl Native {
    pub(super) fn read(blob_name: &str, metadata: &Metadata) -> Result<Self> {
        let odd = || {
            let what = "the description of a native snapshot cannot be read";
            Error::new(ErrorKind::Corrupt, what).on(blob_name)
        };
        let document = metadata.get("document").cloned().unwrap_or_default();
        let checksum = metadata.get("checksum").and_then(Value::as_str);
        let (collection, shard) = of_file(blob_name)?;
        Ok(Self {
            collection: collection.to_owned(),
            shard,
            document: serde_json::from_value(document).map_err(|e| odd().because(e))?,
            model: metadata.get("model").and_then(Value::as_str).map(str::to_owned),
            points: metadata.get("points").and_then(Value::as_u64),
            checksum: checksum.map(str::to_owned),
        })
    }
}

/// What the native file of a collection, or of one of its shards, is called.
pub(super) fn file_name(collection: &str, shard: Option<u64>) -> String {
    match shard {
        None => format!("{collection}{ENDING}"),
        Some(number) => format!("{collection}.{number}{SHARD_ENDING}"),
    }
}

/// The collection of a native file, and the number of its shard where it is that of one.
pub(super) fn of_file(blob_name: &str) -> Result<(&str, Option<u64>)> {
    let of_shard = || {
        let (collection, number) = blob_name.strip_suffix(SHARD_ENDING)?.rsplit_once('.')?;
        Some((collection, Some(number.parse().ok()?)))
    };
    let whole = blob_name.strip_suffix(ENDING).map(|collection| (collection, None));
    let of = whole.or_else(of_shard).filter(|(of, shard)| file_name(of, *shard) == blob_name);
    of.ok_or_else(|| {
        let what = "a native file of the archive is no snapshot of a collection";
        Error::new(ErrorKind::Incompatible, what).on(blob_name)
    })
}

/// A stream that is hashed while it flows; `end` is told length and hash, and may refuse them.
pub(super) struct Hashed<F> {
    body: ByteStream,
    hasher: Option<Sha256>,
    len: u64,
    end: F,
}

impl<F: FnMut(u64, Sha256Digest) -> Result<()>> Hashed<F> {
    pub(super) fn new(body: ByteStream, end: F) -> Self {
        Self { body, hasher: Some(Sha256::new()), len: 0, end }
    }
}

impl<F: FnMut(u64, Sha256Digest) -> Result<()> + Unpin> Stream for Hashed<F> {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match this.body.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(piece))) => {
                if let Some(hasher) = &mut this.hasher {
                    hasher.update(&piece);
                }
                this.len += piece.len() as u64;
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(None) => match this.hasher.take() {
                Some(hasher) => match (this.end)(this.len, Sha256Digest::finish(hasher)) {
                    Ok(()) => Poll::Ready(None),
                    Err(error) => Poll::Ready(Some(Err(error))),
                },
                None => Poll::Ready(None),
            },
            other => other,
        }
    }
}

/// The end of an alias that remembers number, length and hash of a native file.
pub(super) fn remembered(shard: Option<u64>, content: &BlobContent) -> String {
    format!("{}{}.{}", remembered_shard(shard), content.len, content.digest)
}

/// Reads what is [remembered] of the file of a shard, or of the collection.
pub(super) fn recall(text: &str, shard: Option<u64>) -> Option<BlobContent> {
    let (len, digest) = text.strip_prefix(&remembered_shard(shard))?.split_once('.')?;
    Some(BlobContent { len: len.parse().ok()?, digest: digest.parse().ok()?, masked: Vec::new() })
}

fn remembered_shard(shard: Option<u64>) -> String {
    shard.map(|number| format!("shard-{number}.")).unwrap_or_default()
}
