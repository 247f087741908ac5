//! One consistent backup of an application's stores in one verifiable archive.

pub use backup_core::*;

#[cfg(feature = "files")]
pub use backup_files as files;
#[cfg(feature = "sqlite")]
pub use backup_sqlite as sqlite;
