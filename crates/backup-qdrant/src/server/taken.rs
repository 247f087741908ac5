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

use super::client::{Client, Snapshot};
use crate::schema::Document;

/// What a native file is called: the collection's name, and this.
pub(super) const ENDING: &str = ".snapshot";

/// A snapshot of a collection that lies on the server.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) collection: String,
    pub(super) snapshot: Snapshot,
    pub(super) points: Option<u64>,
}

impl Taken {
    pub(super) async fn body(&self, client: &Client) -> Result<(ByteStream, Option<u64>)> {
        let (body, len) = client.download(&self.collection, &self.snapshot).await?;
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
        let (body, len) = self.body(client).await?;
        let facts = [
            ("collection", json!(self.collection)),
            ("document", serde_json::to_value(document).unwrap_or_default()),
            ("model", json!(model)),
            ("points", json!(self.points)),
            ("server", json!(client.rest.address())),
            ("server_version", json!(client.version().await?)),
            ("snapshot", json!(self.snapshot.name)),
            ("checksum", json!(self.snapshot.checksum)),
            ("taken", self.snapshot.time.clone()),
        ];
        let metadata = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact));
        Ok(Blob {
            name: format!("{}{ENDING}", self.collection),
            len,
            masked: Vec::new(),
            metadata: metadata.collect(),
            body,
        })
    }

    pub(super) async fn remove(&self, client: &Client) -> Result<()> {
        client.delete_snapshot(&self.collection, &self.snapshot.name).await
    }
}

/// What a restore has to know of a native file.
pub(super) struct Native {
    pub(super) collection: String,
    pub(super) document: Document,
    /// The host's word for it.
    pub(super) model: Option<String>,
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
        Ok(Self {
            collection: collection_of(blob_name)?.to_owned(),
            document: serde_json::from_value(document).map_err(|e| odd().because(e))?,
            model: metadata.get("model").and_then(Value::as_str).map(str::to_owned),
            points: metadata.get("points").and_then(Value::as_u64),
            checksum: checksum.map(str::to_owned),
        })
    }
}

/// The collection of a native file.
pub(super) fn collection_of(blob_name: &str) -> Result<&str> {
    blob_name.strip_suffix(ENDING).ok_or_else(|| {
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

/// The end of an alias that remembers length and hash of a native file.
pub(super) fn remembered(content: &BlobContent) -> String {
    format!("{}.{}", content.len, content.digest)
}

/// Reads [`remembered`].
pub(super) fn recall(text: &str) -> Option<BlobContent> {
    let (len, digest) = text.split_once('.')?;
    Some(BlobContent { len: len.parse().ok()?, digest: digest.parse().ok()?, masked: Vec::new() })
}
