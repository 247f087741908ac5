//! What every adapter says of itself.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{error::Result, part::Metadata};

/// What [`Source`](crate::Source) and [`Sink`](crate::Sink) have in common.
#[async_trait]
pub trait Adapter: Send + Sync {
    /// The kind of store, in lower case: `sqlite`, `files`. Stands in the manifest; a store
    /// is restored only by an adapter of the same kind.
    fn kind(&self) -> &'static str;

    /// What the adapter can do. What it cannot is refused before data is touched, and left
    /// out by the conformance kit.
    fn capabilities(&self) -> Capabilities;

    /// Files and folders that belong to this store and must be opened by nobody else.
    fn owned_paths(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Folders whose content this store backs up, though others may own files in them.
    fn roots(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Asks the store for what a plan shows. For display only: the backup reads it again.
    ///
    /// # Errors
    /// A store that cannot be reached.
    async fn describe(&self) -> Result<Description>;
}

/// What an adapter can do; start from [`Capabilities::default`], which can nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Carries [`Part::Records`](crate::Part::Records).
    pub records: bool,
    /// Carries dense vectors beside records.
    pub dense_vectors: bool,
    /// Carries multi-vectors.
    pub multi_vectors: bool,
    /// Carries sparse vectors.
    pub sparse_vectors: bool,
    /// Carries element records.
    pub elements: bool,
    /// Carries [`Part::Blob`](crate::Part::Blob).
    pub blobs: bool,
    /// Carries [`Part::Entry`](crate::Part::Entry).
    pub entries: bool,
    /// Can pin one moment.
    pub pins: bool,
    /// Can restore in [`WriteMode::Merge`](crate::WriteMode::Merge).
    pub merge: bool,
    /// Can take back a commit.
    pub undo: bool,
    /// Keeps several collections.
    pub collections: bool,
}

/// What a store says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Description {
    /// The engine's name: `SQLite`.
    pub engine: String,
    /// The engine's version.
    pub version: Option<String>,
    /// The collections.
    pub collections: Vec<CollectionDescription>,
    /// Facts worth keeping; no secrets.
    pub metadata: Metadata,
}

/// What a store says of one collection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectionDescription {
    /// Its name.
    pub name: String,
    /// How many records, where that is known without reading all.
    pub records: Option<u64>,
    /// How many bytes, roughly.
    pub bytes: Option<u64>,
}

impl Description {
    /// Only the engine's name.
    #[must_use]
    pub fn new(engine: impl Into<String>) -> Self {
        Self { engine: engine.into(), ..Self::default() }
    }
}

impl CollectionDescription {
    /// Only the name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}
