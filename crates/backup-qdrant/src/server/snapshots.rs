//! Snapshots that lie on a server: those of a collection, or of one of its shards.

use backup_core::{ByteStream, Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::rest::Rest;

/// A snapshot on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) name: String,
    pub(super) checksum: Option<String>,
    /// When it was taken, as the server says it.
    pub(super) time: Value,
}

/// Where snapshots are taken, kept and recovered.
#[derive(Clone)]
pub(super) struct Snapshots {
    rest: Rest,
    collection: String,
    shard: Option<String>,
}

impl Snapshots {
    /// Those of a collection, which is whole on the server.
    pub(super) fn of(rest: &Rest, collection: &str) -> Self {
        Self { rest: rest.clone(), collection: collection.to_owned(), shard: None }
    }

    /// Those of a shard, on a server that has it.
    pub(super) fn of_shard(rest: &Rest, collection: &str, number: u64) -> Self {
        Self { shard: Some(number.to_string()), ..Self::of(rest, collection) }
    }

    /// The address of the server.
    pub(super) fn address(&self) -> String {
        self.rest.address()
    }

    fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let mut path = vec!["collections", &self.collection];
        if let Some(shard) = &self.shard {
            path.extend(["shards", shard]);
        }
        path.push("snapshots");
        path.extend(rest);
        path
    }

    pub(super) async fn names(&self) -> Result<Vec<String>> {
        let list = self.rest.get(&self.path(&[])).find().await?;
        let list = list.as_ref().and_then(Value::as_array).into_iter().flatten();
        Ok(list.filter_map(|entry| Some(entry["name"].as_str()?.to_owned())).collect())
    }

    pub(super) async fn create(&self) -> Result<Snapshot> {
        let call = self.rest.post(&self.path(&[]), json!({})).query("wait", "true");
        let answer = call.long().once().await?;
        let name = answer["name"].as_str().ok_or_else(|| {
            Error::new(ErrorKind::Mismatch, "Qdrant does not say how a snapshot is called")
                .on(&self.collection)
        })?;
        let checksum = answer["checksum"].as_str().map(str::to_owned);
        let time = answer["creation_time"].clone();
        Ok(Snapshot { name: name.to_owned(), checksum, time })
    }

    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        self.rest.delete(&self.path(&[name])).long().find().await.map(drop)
    }

    /// Streams a snapshot from the server; also its length.
    pub(super) async fn download(&self, name: &str) -> Result<(ByteStream, Option<u64>)> {
        self.rest.download(&self.path(&[name])).await
    }

    /// Recovers the collection, or the shard, from a snapshot, at one moment where it is there. The
    /// server may keep what is sent, under a name that begins with `label`.
    pub(super) async fn recover(
        &self,
        label: &str,
        body: ByteStream,
        len: Option<u64>,
        checksum: Option<&str>,
    ) -> Result<()> {
        let name = format!("{label}.snapshot");
        self.rest.upload(&self.path(&["upload"]), name, body, len, checksum).await?;
        self.sweep(label).await
    }

    /// Removes what recovering left.
    pub(super) async fn sweep(&self, label: &str) -> Result<()> {
        for snapshot in self.names().await? {
            if snapshot.starts_with(label) {
                self.delete(&snapshot).await?;
            }
        }
        Ok(())
    }

    /// Recovers from a snapshot of another collection or shard.
    pub(super) async fn take_over(
        &self,
        from: &Self,
        snapshot: &Snapshot,
        label: &str,
    ) -> Result<()> {
        let (body, len) = from.download(&snapshot.name).await?;
        self.recover(label, body, len, snapshot.checksum.as_deref()).await
    }
}
