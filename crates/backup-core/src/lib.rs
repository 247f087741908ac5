//! The model and the engine of backup-kit.

mod adapter;
pub mod archive;
mod cancel;
mod clock;
mod error;
pub mod manifest;
mod memory;
mod part;
pub mod record;
mod sink;
mod source;
mod worker;

pub use adapter::{Adapter, Capabilities, CollectionDescription, Description};
pub use cancel::Cancel;
pub use clock::{ArchiveId, Clock, FixedClock, SystemClock, Timestamp};
pub use error::{Error, ErrorKind, Result};
pub use memory::{MemorySnapshot, MemoryStore, Step};
pub use part::{
    Blob, BlobContent, ByteStream, CollectionEnd, Content, EntryFacts, EntryKind, EntryPath,
    FileEntry, Metadata, Notice, NoticeKind, Part, Schema, byte_stream,
};
pub use sink::{Prepared, Reattached, Sink, SinkSession, StagePlan, StageToken, Switch, WriteMode};
pub use source::{Partition, PinRequest, Pinned, Source, SourceSession, Summary};
pub use worker::Worker;

pub use async_trait::async_trait;
