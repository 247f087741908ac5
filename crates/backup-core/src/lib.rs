//! The model and the engine of backup-kit.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod adapter;
pub mod archive;
mod backup;
mod cancel;
mod catalog;
mod clock;
mod compat;
mod conflict;
mod diff;
mod duplicates;
mod error;
mod event;
mod hooks;
mod journal;
pub mod manifest;
mod memory;
mod migrate;
mod part;
mod pipe;
mod quiesce;
pub mod record;
mod redact;
mod references;
mod restore;
pub mod select;
mod sink;
mod source;
mod stores;
mod worker;

pub use adapter::{Adapter, Capabilities, CollectionDescription, Description};
pub use backup::{BackupOptions, BackupReport, LivePolicy, Outcome};
pub use cancel::Cancel;
pub use catalog::{Catalog, CatalogEntry, CatalogLock, Listing};
pub use clock::{ArchiveId, Clock, FixedClock, SystemClock, Timestamp};
pub use compat::{
    Compatibility, VectorChanges, VectorDifferences, VersionPolicy, VersionVerdict, Versions,
};
pub use conflict::{
    Conflict, ConflictCounts, Copied, Resolution, Resolved, Resolver, SkipReason, Skipped,
};
pub use diff::{
    CollectionDiff, Compared, DiffKeys, DiffOptions, DiffReport, DiffSide, NativeDiff, StoreDiff,
};
pub use duplicates::{
    Duplicate, DuplicateGroup, DuplicateKind, DuplicateOptions, DuplicateReport, Finder,
    SemanticOptions,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Observer};
pub use hooks::RestoreHooks;
pub use journal::RestoreStep;
pub use memory::{MemorySnapshot, MemoryStore, Step};
pub use migrate::{Change, Migration, MigrationInfo, MigrationPath, Migrations, Transform};
pub use part::{
    Blob, BlobContent, ByteStream, CollectionEnd, Content, EntryFacts, EntryKind, EntryPath,
    FileEntry, Metadata, Notice, NoticeKind, Part, Schema, byte_stream,
};
pub use quiesce::{Pause, Quiesce};
pub use references::Reference;
pub use restore::{
    Embedder, Embedding, MergeExample, MergedCollection, PlannedArchive, PlannedStore, Preview,
    RestoreEstimate, RestoreOptions, RestorePlan, RestoreReport, RestoredReference, RestoredStore,
    RestoredVector,
};
pub use select::{Condition, Filter, NameMap, Op, Rewrite, Selection, Unmapped};
pub use sink::{Prepared, Reattached, Sink, SinkSession, StagePlan, StageToken, Switch, WriteMode};
pub use source::{Partition, PinRequest, Pinned, Source, SourceSession, Summary};
pub use stores::Stores;
pub use worker::Worker;

pub use async_trait::async_trait;
