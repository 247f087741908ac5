//! What an archive says of itself: `backup.json` at its start, `manifest.json` at its end.
//!
//! The types here are the wire form of format 1, one file a format version; unknown members
//! survive reading and writing in `extra`. The JSON Schema stands in
//! `docs/manifest-v1.schema.json`.

mod v1;

pub use v1::{
    Application, CollectionInfo, CollectionManifest, Consistency, FieldMapping, IndexFacts,
    Manifest, PageRef, Preamble, Producer, StoreConsistency, StoreManifest, SystemInfo, TimeWindow,
    VectorInfo,
};
