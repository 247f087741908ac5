//! Both interfaces of a server, and the requests that have a name.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use backup_core::{Error, ErrorKind, Result};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::{runtime::Handle, task::AbortHandle};

use super::{
    connect::{Access, Points},
    grpc,
    keys::no_keys,
    rest::{Rest, retry},
    snapshots::Snapshots,
};
use crate::{schema::Document, shard_key::KeyedShards};

#[derive(Clone)]
pub(crate) struct Client {
    pub(super) grpc: Points,
    pub(super) rest: Rest,
    /// Other servers of the cluster.
    peers: Arc<[Rest]>,
    runtime: Handle,
}

/// A task that is not wanted any more when nobody waits for it.
struct Tied(AbortHandle);

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    pub(super) fn new(grpc: Url, rest: Url, peers: Vec<Url>, access: &Access) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "a store at a Qdrant server needs a Tokio runtime")
                .because(e)
                .advise("open it within the application's runtime")
        })?;
        let (grpc, rest) = (access.points(&grpc)?, Rest::new(rest, access)?);
        let peers = peers.into_iter().map(|peer| Rest::new(peer, access)).collect::<Result<_>>()?;
        Ok(Self { grpc, rest, peers, runtime })
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

    /// The server, and the others of the cluster that are known.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Rest> {
        [&self.rest].into_iter().chain(self.peers.iter())
    }

    /// Whether the server is one of a cluster, which may be of one only: others have no shard
    /// keys.
    pub(super) async fn is_cluster(&self) -> Result<bool> {
        Ok(self.cluster().await?["status"].as_str() != Some("disabled"))
    }

    /// Whether a collection that is made may come to lie on another server.
    pub(super) async fn has_peers(&self) -> Result<bool> {
        match self.cluster().await {
            Ok(cluster) => Ok(cluster["peers"].as_object().is_some_and(|peers| peers.len() > 1)),
            // It may, for all that may be known with this key.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn cluster(&self) -> Result<Value> {
        self.rest.get(&["cluster"]).send().await
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
        let snapshots = self.snapshots(name);
        for snapshot in snapshots.names().await? {
            snapshots.delete(&snapshot).await?;
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

    /// The snapshots of a collection that is whole on the server.
    pub(super) fn snapshots(&self, collection: &str) -> Snapshots {
        Snapshots::of(&self.rest, collection)
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
