//! The embedded engine.

mod config;
mod copy;
mod engine;
mod files;
mod lookup;
mod merge;
mod note;
mod scroll;
mod sink;
mod snapshot;
mod source;
mod stage;
mod staging;
mod store;
mod unpack;

/// The engine; the version is the one that this crate was built with.
pub use qdrant_edge;
pub use snapshot::Snapshot;
#[cfg(feature = "qdrant")]
pub(crate) use snapshot::{Cursor, OfShard};
pub use store::{EdgeStore, Shard};
