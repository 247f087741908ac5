//! The reading half of an adapter.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;

use crate::{
    adapter::Adapter,
    cancel::Cancel,
    error::Result,
    manifest::FieldMapping,
    part::Part,
    select::{Condition, Unmapped},
};

/// Reads a store for a backup.
///
/// An adapter implements it; the backup engine calls it: [`pin`](Source::pin) once, under
/// the host's pause if there is one, then everything else through the session.
#[async_trait]
pub trait Source: Adapter {
    /// Fixes one moment of the store and returns a session that reads that moment.
    ///
    /// Fast, because the host's writers may be waiting: a read transaction, a snapshot
    /// request. A store that cannot fix a moment returns [`Pinned::Live`], and the engine's
    /// policy decides (hold the pause through the copy, accept a fuzzy view, or fail).
    ///
    /// # Errors
    /// A store that cannot be reached, or a request that it cannot serve.
    async fn pin(&self, request: &PinRequest) -> Result<Pinned>;
}

/// What a backup wants of a source.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PinRequest {
    /// Paths that must not be opened or read: every other store's own files, the catalog,
    /// the archive that is being written. Files are compared by identity, not only by name.
    pub avoid: Vec<PathBuf>,
    /// Collections to read; empty means all.
    pub collections: Vec<String>,
    /// What records have to fulfil, those of one collection or of all. A source may leave out
    /// records that do not, and count only those that it gives; it need not, since the engine looks
    /// at every record in any case.
    pub conditions: Vec<(Option<String>, Condition)>,
    /// What the host says of the fields of its collections: where the conditions look.
    pub fields: BTreeMap<String, FieldMapping>,
    /// What becomes of a collection in which a condition cannot look.
    pub unmapped: Unmapped,
    /// Asked between steps of long work.
    pub cancel: Cancel,
}

/// A session, and what it reads.
pub enum Pinned {
    /// Everything that the session reads is of one moment.
    Pinned {
        /// The session.
        session: Box<dyn SourceSession>,
        /// What the store calls that moment: a log position, a snapshot's name.
        mark: Option<String>,
    },
    /// The session reads the store as it changes.
    Live {
        /// The session.
        session: Box<dyn SourceSession>,
        /// How long the copy may take, if that can be told.
        estimate: Option<Duration>,
    },
}

/// Reads one moment of a store, or, where it cannot be pinned, the store as it is.
///
/// All methods may be called from several tasks; `next` of one partition only from one at a
/// time. Dropping a session without [`close`](SourceSession::close) must not leave the store
/// locked; server-side temporaries may then outlive it.
#[async_trait]
pub trait SourceSession: Send + Sync {
    /// What can be read in parallel: shards, tables, key slots. In a fixed order.
    ///
    /// # Errors
    /// A store that failed.
    async fn partitions(&self) -> Result<Vec<Partition>>;

    /// The next part of a partition; `None` at its end.
    ///
    /// For every collection: one [`Part::Schema`] before its records (in the first partition
    /// that holds it), then records, then [`Part::End`]. Bodies of blobs and files are read
    /// to their end or dropped before the next call.
    ///
    /// # Errors
    /// A store that failed; the backup is then given up.
    async fn next(&self, partition: &Partition) -> Result<Option<Part>>;

    /// Ends the session and removes whatever it made on the server; after an error or a
    /// cancellation too.
    ///
    /// # Errors
    /// Temporaries that could not be removed, named.
    async fn close(self: Box<Self>) -> Result<Summary>;
}

/// One independently readable slice of a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// Its name: unique within the session; part files are named after it.
    pub name: String,
}

impl Partition {
    /// A partition of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// What a session says at its end.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Whether the store was changed while a live session read it; `None`: not known.
    pub changed: Option<bool>,
    /// Facts for the manifest.
    pub metadata: crate::part::Metadata,
}

impl PinRequest {
    /// Everything, with nothing to avoid.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Summary {
    /// Nothing to say.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pinned { .. } => "Pinned",
            Self::Live { .. } => "Live",
        })
    }
}
