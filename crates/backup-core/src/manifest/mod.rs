//! What an archive says of itself: `backup.json` at its start, `manifest.json` at its end.
//!
//! The types here are the wire form of format 1, one file a format version. Unknown members of
//! the manifest, its stores and its collections survive reading and writing in `extra`; those of
//! the small objects within are ignored. The JSON Schema stands in
//! `docs/manifest-v1.schema.json`, with an example of every member beside it.

mod v1;

#[cfg(test)]
mod tests;

pub use v1::{
    Application, CollectionInfo, CollectionManifest, Consistency, FieldMapping, IndexFacts,
    Manifest, PageRef, Preamble, Producer, ReferenceCount, ReferenceEnd, StoreConsistency,
    StoreManifest, StoreNotice, SystemInfo, TimeWindow, VectorInfo,
};
