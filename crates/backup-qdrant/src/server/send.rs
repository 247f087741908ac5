//! Points on their way to a server: several requests at a time, each of one shard key.

use std::{collections::BTreeMap, sync::Arc, task::Poll};

use backup_core::{Result, record::RecordBatch};
use futures::{StreamExt, TryStreamExt, ready, stream};
use qdrant_client::qdrant::PointStruct;
use serde_json::{Map, Value, json};

use super::{grpc, place::Place, rest::retry, stage::Session};
use crate::{
    points::{Decoder, Id, Point},
    schema::Document,
    shard_key::ShardKey,
};

/// Points and bytes of one request, and requests at a time: see `docs/BENCHMARKS.md`.
const CHUNK_POINTS: usize = 256;
const CHUNK_BYTES: usize = 1 << 20;
pub(super) const IN_FLIGHT: usize = 4;

impl Session {
    /// Writes points into a collection that is as `document` says.
    pub(super) async fn send(
        &self,
        collection: &str,
        document: &Document,
        batch: &RecordBatch,
    ) -> Result<()> {
        let each = (batch.byte_size() / batch.len().max(1)).max(1);
        let most = (CHUNK_BYTES / each).clamp(1, CHUNK_POINTS);
        let decoder = Decoder::new(batch, &document.forms()?)?.keyed(document.is_keyed());
        let mut points = decoder.points();
        let turns = stream::repeat_with(|| Arc::clone(&self.turns).acquire_owned());
        let mut turns = std::pin::pin!(turns.then(|turn| turn));
        // Points are made of the batch when their turn has come, or those of every batch that
        // waits would be in memory twice.
        let chunks = stream::poll_fn(|cx| {
            let turn = ready!(turns.poll_next_unpin(cx));
            let chunk: Result<Vec<_>> =
                points.by_ref().take(most).map(|point| point.map(Sendable::new)).collect();
            Poll::Ready(match chunk {
                Ok(chunk) if chunk.is_empty() => None,
                other => Some((turn, other)),
            })
        });
        chunks
            .map(|(turn, chunk)| async {
                let _until_sent = turn;
                self.cancel.check()?;
                self.upsert(collection, chunk?).await
            })
            .buffer_unordered(IN_FLIGHT)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    async fn upsert(&self, collection: &str, points: Vec<Sendable>) -> Result<()> {
        let mut by_key: BTreeMap<Option<ShardKey>, Vec<PointStruct>> = BTreeMap::new();
        let mut exact = Vec::new();
        for Sendable { shard, id, point, payload } in points {
            exact.extend(payload.map(|payload| {
                let mut overwrite = json!({"payload": payload, "points": [id.to_json()]});
                if let Some(shard) = &shard {
                    overwrite["shard_key"] = json!(shard);
                }
                json!({"overwrite_payload": overwrite})
            }));
            by_key.entry(shard).or_default().push(point);
        }
        for (shard, points) in by_key {
            let place = Place { collection: collection.to_owned(), shard };
            retry(|| grpc::upsert(&self.client.grpc, &place, points.clone())).await?;
        }
        if exact.is_empty() {
            return Ok(());
        }
        let path = ["collections", collection, "points", "batch"];
        let body = json!({ "operations": exact });
        self.client.rest.post(&path, body).query("wait", "true").send().await.map(drop)
    }
}

/// A point as it is sent; its payload, where gRPC cannot carry it.
struct Sendable {
    shard: Option<ShardKey>,
    id: Id,
    point: PointStruct,
    payload: Option<Map<String, Value>>,
}

impl Sendable {
    fn new(point: Point) -> Self {
        let (shard, id) = (point.shard.clone(), point.id);
        let (point, payload) = grpc::decode(point);
        Self { shard, id, point, payload }
    }
}
