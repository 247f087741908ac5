//! Qdrant for backup-kit: the collections of a server, or embedded shards, with every vector,
//! payload, index and alias.
//!
//! | feature | what |
//! |---|---|
//! | `qdrant` | [`QdrantStore`]: a server, over gRPC and REST |
//! | `qdrant-edge` | [`edge::EdgeStore`]: a shard of the embedded engine |
//!
//! A restore replaces collections, or adds points to those that are there
//! ([merge mode](backup_core::WriteMode::Merge)): settings, indexes, aliases and all other points
//! stay. A server cannot be locked, so of points that are changed while it commits the last writer
//! wins. A shard is locked: there a point that was changed since the restore looked at it is refused.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod answers;
#[cfg(feature = "qdrant")]
mod compare;
#[cfg(feature = "qdrant-edge")]
pub mod edge;
mod exact;
mod points;
mod schema;
#[cfg(feature = "qdrant")]
mod server;
mod vectors;

#[cfg(feature = "qdrant")]
pub use server::{QdrantOptions, QdrantStore};

/// What the manifest calls a store of Qdrant, on a server or embedded.
pub(crate) const KIND: &str = "qdrant";
