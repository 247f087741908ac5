//! The archive format: segments, writer, reader, index, salvage.

mod codec;

pub use codec::Codec;
