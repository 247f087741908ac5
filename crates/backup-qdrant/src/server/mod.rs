//! Qdrant servers: points over gRPC, everything else over REST.

mod answer;
mod client;
mod connect;
mod filter;
mod grpc;
mod keys;
mod lookup;
mod merge;
mod options;
#[cfg(feature = "qdrant-edge")]
mod pinned;
mod place;
mod rest;
mod scroll;
mod send;
mod shards;
mod sink;
mod snapshots;
mod source;
mod stage;
mod switch;
mod taken;
mod token;

pub use options::QdrantOptions;

use std::{fmt, sync::Arc};

use backup_core::{Adapter, Capabilities, CollectionDescription, Description, Result, async_trait};

use client::Client;
use options::Way;

/// The collections of a Qdrant server, or some of them.
///
/// Needs a Tokio runtime, in which it is made and which has to go on running while it is used.
///
/// ```no_run
/// use backup_core::{Catalog, Stores};
/// use backup_qdrant::QdrantStore;
///
/// # async fn example() -> backup_core::Result<()> {
/// let vectors = QdrantStore::options("http://localhost:6334")
///     .api_key_env("QDRANT_API_KEY")?
///     .collections(["docs-*"])
///     .connect()
///     .await?;
/// let memory = Stores::new("docs-memory", "1.0.0").with("vectors", vectors);
/// memory.backup(&Catalog::open("backups")?).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct QdrantStore {
    pub(crate) client: Client,
    pub(crate) options: Arc<QdrantOptions>,
}

impl QdrantStore {
    /// All collections of the server at a gRPC address; its REST interface is expected one port
    /// below (6334 and 6333).
    ///
    /// # Errors
    /// No Tokio runtime; a server that does not answer.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::options(url).connect().await
    }

    /// More to say about the server at a gRPC address.
    #[must_use]
    pub fn options(url: &str) -> QdrantOptions {
        QdrantOptions::new(url)
    }

    /// Names of what restores that never ended left on the server: staged collections, and
    /// safety copies of what they replaced.
    ///
    /// Such a restore is best [resumed](backup_core::Stores::resume). Where its journal is lost,
    /// look at what the collections hold, and then
    /// [remove them](Self::remove_leftovers).
    ///
    /// # Errors
    /// A server that does not answer.
    pub async fn leftovers(&self) -> Result<Vec<String>> {
        let client = self.client.clone();
        self.client.run(async move { stage::leftovers(&client).await }).await
    }

    /// Removes what [`leftovers`](Self::leftovers) names. Not while a restore runs.
    ///
    /// # Errors
    /// A server that does not answer, or refuses.
    pub async fn remove_leftovers(&self) -> Result<Vec<String>> {
        let client = self.client.clone();
        let removed = async move {
            let left = stage::leftovers(&client).await?;
            for name in &left {
                client.drop_collection(name).await?;
            }
            Ok(left)
        };
        self.client.run(removed).await
    }
}

#[async_trait]
impl Adapter for QdrantStore {
    fn kind(&self) -> &'static str {
        crate::KIND
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.dense_vectors = true;
        can.multi_vectors = true;
        can.sparse_vectors = true;
        can.collections = true;
        can.undo = true;
        can.merge = true;
        // Restored in either form, whatever a backup of this store takes.
        can.blobs = true;
        can.records = true;
        can.pins = self.options.way != Way::Scroll;
        can
    }

    async fn describe(&self) -> Result<Description> {
        let (client, options) = (self.client.clone(), Arc::clone(&self.options));
        let described = async move {
            let mut description = Description::new("Qdrant");
            description.version = Some(client.version().await?);
            description.metadata.insert("url".to_owned(), client.rest.address().into());
            for name in client.collections().await? {
                if options.wants(&name) {
                    let info = client.info(&name).await?;
                    let mut collection = CollectionDescription::new(name);
                    collection.records = info["points_count"].as_u64();
                    description.collections.push(collection);
                }
            }
            Ok(description)
        };
        self.client.run(described).await
    }
}

impl fmt::Debug for QdrantStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QdrantStore({})", self.client.rest.address())
    }
}
