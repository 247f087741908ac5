//! The shards of a collection, and which server of a cluster has them.

use std::collections::BTreeMap;

use backup_core::{Error, ErrorKind, Result};
use serde_json::Value;

use super::{client::Client, rest::Rest, snapshots::Snapshots};
use crate::{schema::Document, shard_key::ShardKey};

/// A shard, on a server that has an active copy of it.
#[derive(Clone)]
pub(super) struct Shard {
    pub(super) number: u64,
    pub(super) key: Option<ShardKey>,
    /// The id of the server in its cluster.
    pub(super) peer: u64,
    server: Rest,
}

impl Shard {
    pub(super) fn snapshots(&self, collection: &str) -> Snapshots {
        Snapshots::of_shard(&self.server, collection, self.number)
    }
}

impl Client {
    /// The shards of a collection by number, wherever they lie, each with its shard key.
    pub(super) async fn shards(&self, collection: &str) -> Result<BTreeMap<u64, Option<ShardKey>>> {
        let cluster = cluster(&self.rest, collection).await?;
        let shards = ["local_shards", "remote_shards"];
        let shards = shards.iter().filter_map(|some| cluster[some].as_array()).flatten();
        shards.map(numbered).collect::<Option<_>>().ok_or_else(|| odd(collection))
    }

    /// Whether all of a collection is on the server that was asked.
    pub(super) async fn is_whole_here(&self, collection: &str) -> Result<bool> {
        let cluster = cluster(&self.rest, collection).await?;
        Ok(cluster["remote_shards"].as_array().is_none_or(Vec::is_empty))
    }

    /// The shards of a collection on the servers that are known, in the order of their numbers;
    /// where that cannot be told or they are not all there, why.
    pub(super) async fn placed(&self, collection: &str) -> Result<Result<Vec<Shard>, String>> {
        let mut placed = BTreeMap::new();
        for server in self.servers() {
            let cluster = cluster(server, collection).await?;
            let moving = ["shard_transfers", "resharding_operations"];
            if moving.iter().any(|what| cluster[what].as_array().is_some_and(|a| !a.is_empty())) {
                return Ok(Err("its shards are being moved".to_owned()));
            }
            let peer = cluster["peer_id"].as_u64().ok_or_else(|| odd(collection))?;
            let local = cluster["local_shards"].as_array().into_iter().flatten();
            for shard in local.filter(|shard| shard["state"] == "Active") {
                let (number, key) = numbered(shard).ok_or_else(|| odd(collection))?;
                let server = server.clone();
                placed.entry(number).or_insert(Shard { number, key, peer, server });
            }
        }
        let all = self.shards(collection).await?;
        if all.keys().eq(placed.keys()) {
            return Ok(Ok(placed.into_values().collect()));
        }
        Ok(Err("it lies on several servers, of which not all are named".to_owned()))
    }
}

/// Whether a collection that is made anew has shards of the same numbers: a snapshot is recovered
/// shard by shard, and brings no shard keys.
pub(super) fn are_numbered_in_order(
    shards: &BTreeMap<u64, Option<ShardKey>>,
    document: &Document,
) -> bool {
    if !document.is_keyed() {
        return (0..).zip(shards).all(|(number, (is, key))| number == *is && key.is_none());
    }
    let in_order = document.shard_keys.iter();
    let in_order = in_order.flat_map(|of| (0..of.shards_number).map(|_| Some(&of.key)));
    (1..).zip(in_order).eq(shards.iter().map(|(number, key)| (*number, key.as_ref())))
}

async fn cluster(server: &Rest, collection: &str) -> Result<Value> {
    server.get(&["collections", collection, "cluster"]).send().await
}

fn numbered(shard: &Value) -> Option<(u64, Option<ShardKey>)> {
    let number = shard["shard_id"].as_u64()?;
    Some((number, serde_json::from_value(shard["shard_key"].clone()).ok()?))
}

fn odd(collection: &str) -> Error {
    let what = "Qdrant does not say which shards a collection has";
    Error::new(ErrorKind::Mismatch, what).on(collection)
}
