//! What crosses the system: records, batches, vectors, canonical text and digests.

mod batch;
pub mod canonical;
mod digest;
mod edit;
mod key;
#[cfg(test)]
pub(crate) mod properties;
pub mod tagged;
mod vector;

pub use batch::{BatchBuilder, ColumnId, RecordBatch, RecordRef};
pub use digest::{ContentDigest, MaskedHasher, Sha256Digest, Tally, VectorTally};
pub use edit::Edit;
pub use key::Key;
pub use vector::{ElementType, VectorColumn, VectorShape};
