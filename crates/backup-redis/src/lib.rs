//! Redis for backup-kit: every type, every expiry, of a server or a cluster.
//!
//! ```no_run
//! use backup_core::{Catalog, Stores};
//! use backup_redis::RedisStore;
//!
//! # async fn example() -> backup_core::Result<()> {
//! let state = RedisStore::connect("redis://localhost:6379/0").await?;
//! let memory = Stores::new("docs-memory", "1.0.0").with("state", state);
//! memory.backup(&Catalog::open("backups")?).await?;
//! # Ok(()) }
//! ```
//!
//! Strings, hashes, lists, sets, sorted sets and streams with their groups become records that any
//! server takes; what has no such form, as the keys of modules, is carried as its `DUMP`. A restore
//! of a whole database is staged in an empty one, verified, and swapped in; one of some keys, or
//! into a cluster, is staged beside the live keys and renamed key by key. Live keys come back as
//! they were when it is undone.
//!
//! A backup may also be the server's own snapshot ([`native`](RedisOptions::native)), which
//! [`RedisFolder`] restores to a server that is stopped. [`RdbFile`] reads such a file (`dump.rdb`) as the
//! same records, without a server.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod back;
mod client;
mod deadlines;
mod error;
mod extra;
mod fields;
mod large;
mod leftover;
mod live;
mod model;
mod naming;
mod native;
mod options;
mod page;
mod pause;
mod place;
mod rdb;
mod reader;
mod records;
mod rename;
mod replica;
mod reply;
mod session;
mod sink;
mod slots;
mod snapshot;
mod source;
mod stage;
mod store;
mod streams;
mod swap;
mod token;
mod write;

pub use leftover::Leftover;
pub use native::RedisFolder;
pub use options::{Consistency, Expiry, RedisOptions};
pub use rdb::RdbFile;
pub use store::RedisStore;

/// What the manifest calls a store of Redis.
pub(crate) const KIND: &str = "redis";
