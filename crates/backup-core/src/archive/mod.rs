//! The archive, format 1: a tar in seekable gzip, with an index and proof inside.
//!
//! [`ArchiveWriter`] writes one front to back and never patches; [`Archive`] opens one at
//! any offset. `docs/FORMAT.md` says what stands where.
//!
//! The code here is plain `Read`, `Write` and read-at-offset; work is spread over threads
//! that each writer or reader owns. [`Archive::stream`] is the asynchronous edge.
//!
//! # Security
//! An archive is hostile input. A reader never parses a tar header: it computes, from the
//! index, the bytes that the writer would have written, and refuses anything else. Every
//! length passes a limit before anything is allocated, and every byte of the file stands
//! under a hash. Hashes give integrity, not authenticity.

mod assemble;
mod buffers;
mod codec;
#[cfg(test)]
mod damage;
mod entry;

mod extract;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod forgery;
mod hashes;
mod index;
#[cfg(test)]
mod limits;
mod names;
mod npy;
mod order;
mod output;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod properties;
mod read_at;
mod reader;
mod rescue;

mod salvage;
mod scan;
#[cfg(feature = "libdeflate")]
mod seal;
mod segments;
mod stream;
mod tar_block;
#[cfg(test)]
mod tests;
mod trailer;
mod verify;
mod writer;

pub use codec::Codec;
pub use entry::{EntryHead, PartEntry, PartKind, VectorRole};

pub use extract::ExtractReport;
pub use output::OutputFile;
pub(crate) use output::sync_parent;
pub use read_at::ReadAt;
pub use reader::{Archive, Entries, Limits};

pub use salvage::{Lost, Proof, Salvage, SalvageReport, SalvagedPart};
pub use stream::PartStream;
pub use verify::{VerifyMode, VerifyReport};
pub use writer::{ArchiveWriter, BodyEnd, Finished, WriterOptions};
