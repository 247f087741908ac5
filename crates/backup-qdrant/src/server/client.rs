//! Both interfaces of one server, and the requests that have a name.

use std::{collections::BTreeMap, future::Future};

use backup_core::{ByteStream, Error, ErrorKind, Result};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::{runtime::Handle, task::AbortHandle};

use super::{
    connect::{Access, Points},
    grpc,
    keys::no_keys,
    rest::{Rest, retry},
};
use crate::{
    schema::Document,
    shard_key::{KeyedShards, ShardKey},
};

#[derive(Clone)]
pub(crate) struct Client {
    pub(super) grpc: Points,
    pub(super) rest: Rest,
    runtime: Handle,
}

/// A snapshot on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) checksum: Option<String>,
    /// When it was taken, as the server says it.
    pub(super) time: Value,
}

/// A task that is not wanted any more when nobody waits for it.
struct Tied(AbortHandle);

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    pub(super) fn new(grpc: Url, rest: Url, access: &Access) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "a store at a Qdrant server needs a Tokio runtime")
                .because(e)
                .advise("open it within the application's runtime")
        })?;
        let (grpc, rest) = (access.points(&grpc)?, Rest::new(rest, access)?);
        Ok(Self { grpc, rest, runtime })
    }

    /// Runs in the store's runtime, whichever executor waits for it; ends when nobody does.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let task = self.runtime.spawn(work);
        let _tied = Tied(task.abort_handle());
        task.await.map_err(|e| {
            let what = if e.is_panic() { "a task panicked" } else { "the Tokio runtime has ended" };
            Error::adapter(what).because(e)
        })?
    }

    /// Runs beside the caller, until the handle is dropped.
    pub(super) fn beside(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Box<dyn Send + Sync> {
        Box::new(Tied(self.runtime.spawn(work).abort_handle()))
    }

    pub(super) async fn version(&self) -> Result<String> {
        let root = self.rest.get(&[]).send().await?;
        let version = root["version"].as_str().ok_or_else(|| {
            Error::new(ErrorKind::Mismatch, "the server does not say which version it is")
                .advise("check that the address is that of Qdrant's REST interface")
        })?;
        Ok(version.to_owned())
    }

    /// The collections, in the order of their names; aliases are none.
    pub(super) async fn collections(&self) -> Result<Vec<String>> {
        let answer = self.rest.get(&["collections"]).send().await?;
        let list = answer["collections"].as_array().into_iter().flatten();
        let mut names: Vec<_> =
            list.filter_map(|entry| Some(entry["name"].as_str()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    /// Which collection each alias points at.
    pub(super) async fn aliases(&self) -> Result<BTreeMap<String, String>> {
        let answer = self.rest.get(&["aliases"]).send().await?;
        let list = answer["aliases"].as_array().into_iter().flatten();
        let pair = |entry: &Value| {
            let alias = entry["alias_name"].as_str()?.to_owned();
            Some((alias, entry["collection_name"].as_str()?.to_owned()))
        };
        Ok(list.filter_map(pair).collect())
    }

    pub(super) async fn info(&self, collection: &str) -> Result<Value> {
        self.rest.get(&["collections", collection]).send().await
    }

    /// A collection's settings, indexes and shard keys, without its aliases.
    pub(super) async fn settings(&self, collection: &str) -> Result<Document> {
        self.described(collection, &self.info(collection).await?, Vec::new()).await
    }

    /// As [`settings`](Self::settings); `None` where there is no such collection.
    pub(super) async fn find_settings(&self, collection: &str) -> Result<Option<Document>> {
        match self.rest.get(&["collections", collection]).find().await? {
            None => Ok(None),
            Some(info) => self.described(collection, &info, Vec::new()).await.map(Some),
        }
    }

    async fn described(
        &self,
        collection: &str,
        info: &Value,
        aliases: Vec<String>,
    ) -> Result<Document> {
        let mut document = Document::from_rest(info, aliases);
        if document.is_keyed() {
            for key in self.shards(collection).await?.into_values().flatten() {
                let known = document.shard_keys.iter_mut().find(|shards| shards.key == key);
                match known {
                    Some(shards) => shards.shards_number += 1,
                    None => document.shard_keys.push(KeyedShards { key, shards_number: 1 }),
                }
            }
        }
        Ok(document)
    }

    /// The shards of a collection by number, wherever they lie, each with its shard key.
    pub(super) async fn shards(&self, collection: &str) -> Result<BTreeMap<u64, Option<ShardKey>>> {
        let cluster = self.rest.get(&["collections", collection, "cluster"]).send().await?;
        let shards = ["local_shards", "remote_shards"];
        let shards = shards.iter().filter_map(|some| cluster[some].as_array()).flatten();
        let shard = |shard: &Value| {
            let number = shard["shard_id"].as_u64()?;
            Some((number, serde_json::from_value(shard["shard_key"].clone()).ok()?))
        };
        shards.map(shard).collect::<Option<_>>().ok_or_else(|| {
            let what = "Qdrant does not say which shards a collection has";
            Error::new(ErrorKind::Mismatch, what).on(collection)
        })
    }

    /// Whether the server is one of a cluster, which may be of one only: others have no shard
    /// keys.
    pub(super) async fn is_cluster(&self) -> Result<bool> {
        let cluster = self.rest.get(&["cluster"]).send().await?;
        Ok(cluster["status"].as_str() != Some("disabled"))
    }

    /// How many points a collection has, exactly.
    pub(super) async fn count(&self, collection: &str) -> Result<u64> {
        retry(|| grpc::count(&self.grpc, collection)).await
    }

    /// What recreates a collection.
    pub(super) async fn document(
        &self,
        collection: &str,
        aliases: &BTreeMap<String, String>,
    ) -> Result<Document> {
        let info = self.info(collection).await?;
        let own = aliases.iter().filter(|(_, to)| *to == collection);
        let own = own.map(|(alias, _)| alias.clone()).collect();
        self.described(collection, &info, own).await
    }

    /// Whether all of a collection is on the server that was asked.
    pub(super) async fn is_whole_here(&self, collection: &str) -> Result<bool> {
        let cluster = self.rest.get(&["collections", collection, "cluster"]).send().await?;
        Ok(cluster["remote_shards"].as_array().is_none_or(Vec::is_empty))
    }

    /// Makes a collection, and its shard keys. Where in a cluster they lie, and in how many
    /// copies, is the cluster's affair.
    pub(super) async fn create_collection(
        &self,
        name: &str,
        request: Value,
        keys: &[KeyedShards],
    ) -> Result<()> {
        self.rest.put(&["collections", name], request).long().once().await?;
        for shards in keys {
            let body = json!({"shard_key": shards.key, "shards_number": shards.shards_number});
            let made = self.rest.put(&["collections", name, "shards"], body).long().once().await;
            made.map_err(|error| match error.kind() {
                ErrorKind::Incompatible | ErrorKind::NotFound => {
                    no_keys().on(format!("shard key {}", shards.key)).because(error)
                }
                _ => error,
            })?;
        }
        // Read back: an older server passes over what it does not know.
        if keys.is_empty() || self.settings(name).await?.shard_keys == keys {
            return Ok(());
        }
        Err(no_keys())
    }

    /// Removes a collection that is a restore's own, its snapshots first: they would stay on
    /// the server's disk, out of reach.
    pub(super) async fn drop_collection(&self, name: &str) -> Result<()> {
        for snapshot in self.snapshots(name).await? {
            self.delete_snapshot(name, &snapshot).await?;
        }
        self.rest.delete(&["collections", name]).long().find().await.map(drop)
    }

    /// Changes aliases, one after the other in one request; readers see none of the steps between.
    /// After a failure the first of them may have been done.
    pub(super) async fn change_aliases(&self, actions: Vec<Value>) -> Result<()> {
        if actions.is_empty() {
            return Ok(());
        }
        let body = json!({ "actions": actions });
        self.rest.post(&["collections", "aliases"], body).once().await.map(drop)
    }

    pub(super) async fn snapshots(&self, collection: &str) -> Result<Vec<String>> {
        let list = self.rest.get(&["collections", collection, "snapshots"]).find().await?;
        let list = list.as_ref().and_then(Value::as_array).into_iter().flatten();
        Ok(list.filter_map(|entry| Some(entry["name"].as_str()?.to_owned())).collect())
    }

    pub(super) async fn create_snapshot(&self, collection: &str) -> Result<Snapshot> {
        let path = ["collections", collection, "snapshots"];
        let answer = self.rest.post(&path, json!({})).query("wait", "true").long().once().await?;
        let name = answer["name"].as_str().ok_or_else(|| {
            Error::new(ErrorKind::Mismatch, "Qdrant does not say how a snapshot is called")
                .on(collection)
        })?;
        let checksum = answer["checksum"].as_str().map(str::to_owned);
        let time = answer["creation_time"].clone();
        Ok(Snapshot { name: name.to_owned(), checksum, time })
    }

    pub(super) async fn delete_snapshot(&self, collection: &str, name: &str) -> Result<()> {
        let path = ["collections", collection, "snapshots", name];
        self.rest.delete(&path).long().find().await.map(drop)
    }

    /// Recovers a collection from a snapshot, at one moment where it is there. The server may
    /// keep what is sent, under a name that begins with `label`.
    pub(super) async fn recover(
        &self,
        collection: &str,
        label: &str,
        body: ByteStream,
        len: Option<u64>,
        checksum: Option<&str>,
    ) -> Result<()> {
        let name = format!("{label}.snapshot");
        self.rest.upload(collection, name, body, len, checksum).await?;
        self.sweep(collection, label).await
    }

    /// Removes the snapshots of a collection that recovering it left.
    pub(super) async fn sweep(&self, collection: &str, label: &str) -> Result<()> {
        for snapshot in self.snapshots(collection).await? {
            if snapshot.starts_with(label) {
                self.delete_snapshot(collection, &snapshot).await?;
            }
        }
        Ok(())
    }

    /// Streams a snapshot from the server; also its length.
    pub(super) async fn download(
        &self,
        collection: &str,
        snapshot: &Snapshot,
    ) -> Result<(ByteStream, Option<u64>)> {
        self.rest.download(&["collections", collection, "snapshots", &snapshot.name]).await
    }

    /// Recovers a collection from a snapshot of another one.
    pub(super) async fn transfer(
        &self,
        from: &str,
        snapshot: &Snapshot,
        to: &str,
        label: &str,
    ) -> Result<()> {
        let (body, len) = self.download(from, snapshot).await?;
        self.recover(to, label, body, len, snapshot.checksum.as_deref()).await
    }
}

/// An action of [`Client::change_aliases`].
pub(super) fn point(alias: &str, collection: &str) -> Value {
    json!({"create_alias": {"alias_name": alias, "collection_name": collection}})
}

/// An action of [`Client::change_aliases`].
pub(super) fn unpoint(alias: &str) -> Value {
    json!({"delete_alias": {"alias_name": alias}})
}
