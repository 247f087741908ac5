//! Qdrant for backup-kit: the collections of a server, or embedded shards, with every vector,
//! payload, index and alias.
//!
//! | feature | what |
//! |---|---|
//! | `qdrant` | [`QdrantStore`]: a server, over gRPC and REST |

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "qdrant")]
mod compare;
mod exact;
mod points;
mod schema;
#[cfg(feature = "qdrant")]
mod server;

#[cfg(feature = "qdrant")]
pub use server::{QdrantOptions, QdrantStore};

/// What the manifest calls a store of Qdrant, on a server or embedded.
pub(crate) const KIND: &str = "qdrant";
