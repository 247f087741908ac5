//! A server's own snapshot, kept whole as it came: one file for a server that is stopped.

mod folder;
mod stage;
mod stream;

pub use folder::RedisFolder;

pub(crate) use stream::{DUMP, dump};
