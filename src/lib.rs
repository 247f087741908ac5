#![doc = include_str!("../README.md")]
//!
//! # What is in this crate
//!
//! Everything of [`backup_core`], and the adapters behind features: `files` (the default),
//! `sqlite`, `sqlite-bundled`, `qdrant`, `qdrant-edge`, `redis`, `neo4j`; `zstd` adds a codec,
//! `libdeflate` speed. A host begins with [`Stores`] and [`Catalog`]; who writes an adapter begins with
//! [`Source`] and [`Sink`].
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use backup_core::*;

#[cfg(feature = "files")]
pub use backup_files as files;
#[cfg(feature = "neo4j")]
pub use backup_neo4j as neo4j;
#[cfg(any(feature = "qdrant", feature = "qdrant-edge"))]
pub use backup_qdrant as qdrant;
#[cfg(feature = "redis")]
pub use backup_redis as redis;
#[cfg(feature = "sqlite")]
pub use backup_sqlite as sqlite;
