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
//!
//! A record's key is the point's id, a number or a UUID as text. Where the application chooses the
//! shards, by shard keys, the same id may lie under two of them: there it is a list of both,
//! `["tenant-a",7]` or `[12,"0b6e…"]`. A restore makes the shard keys, each with as many shards as it had;
//! on which servers of a cluster they lie, and in how many copies, is left to the cluster. The servers'
//! own snapshots are taken shard by shard there, on the servers that are
//! [named](QdrantOptions::peers).

#![cfg_attr(docsrs, feature(doc_cfg))]
// Without a feature there is nothing that uses anything.
#![cfg_attr(not(any(feature = "qdrant", feature = "qdrant-edge")), allow(dead_code))]

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
mod shard_key;
mod vectors;

#[cfg(feature = "qdrant")]
pub use server::{QdrantOptions, QdrantStore};

/// What the manifest calls a store of Qdrant, on a server or embedded.
pub(crate) const KIND: &str = "qdrant";
