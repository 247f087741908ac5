//! Writes the tiny archive that `docs/FORMAT.md` walks through.
//!
//! Run with `cargo run -p backup-core --example tiny_archive -- tiny.tar.gz`.

use backup_core::{
    ArchiveId, Schema, Timestamp,
    archive::{ArchiveWriter, OutputFile, WriterOptions},
    manifest::{
        Application, CollectionInfo, CollectionManifest, Consistency, Manifest, Preamble,
        StoreConsistency, StoreManifest, TimeWindow,
    },
    record::{BatchBuilder, ElementType, Key, Tally},
};

fn main() -> backup_core::Result<()> {
    let path = std::env::args_os().nth(1).unwrap_or_else(|| "tiny.tar.gz".into());
    let app = Application { name: "tiny".into(), version: "1.0.0".into() };
    let created: Timestamp = "2026-01-02T03:04:05Z".parse()?;
    let id: ArchiveId = "01234567-89ab-7def-8123-456789abcdef".parse()?;
    let preamble = Preamble::new(id, created, app);
    let options = WriterOptions::default();

    let mut batch = BatchBuilder::new("notes");
    let text = batch.dense("text", ElementType::F32, 2);
    batch.push_json(&Key::from(1), br#"{"title":"one"}"#)?;
    batch.set_f32(text, &[1.0, 0.0])?;
    batch.push_json(&Key::from(2), br#"{"title":"two"}"#)?;
    let batch = batch.finish()?;
    let mut tally = Tally::new();
    tally.add_batch(&batch);

    let mut writer = ArchiveWriter::new(OutputFile::create(path, true)?, &preamble, &options)?;
    let schema = Schema {
        collection: "notes".into(),
        document: serde_json::json!({}),
        info: CollectionInfo::default(),
    };
    writer.schema("memory", &schema)?;
    writer.records("memory", "all", &batch)?;

    let mut manifest = Manifest::new(&preamble, options.codec);
    manifest.consistency = Consistency::Consistent;
    let mut store = StoreManifest::default();
    (store.parts, store.bytes) = (4, 345);
    store.window = TimeWindow { start: created, end: created };
    store.consistency = StoreConsistency::Pinned;
    store.kind = "memory".into();
    store.engine = "memory".into();
    let mut notes = CollectionManifest::default();
    notes.tally = tally;
    notes.bytes = 345;
    store.collections.insert("notes".into(), notes);
    manifest.stores.insert("memory".into(), store);
    let finished = writer.finish(manifest)?;
    finished.out.commit()
}
