//! Parts as values: to write an archive of them, and to compare what comes back.

use std::collections::BTreeMap;

use futures::{StreamExt as _, executor::block_on};
use serde_json::Value;

use super::*;
use crate::{
    ArchiveId, Blob, BlobContent, Cancel, EntryFacts, EntryKind, EntryPath, FileEntry, Metadata,
    Part, Schema, Timestamp,
    manifest::{Application, CollectionInfo, Manifest, Preamble, StoreManifest},
    part::ByteStream,
    record::{BatchBuilder, ElementType, Key, MaskedHasher, RecordBatch, Sha256Digest},
};

/// A part as a value, its body with it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plain {
    Schema { collection: String, document: Value },
    Records { partition: String, batch: Lines },
    Blob { name: String, masked: Vec<(u64, u64)>, metadata: Metadata, content: Vec<u8> },
    Entry(Entry),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) root: String,
    pub(super) path: EntryPath,
    pub(super) mode: u32,
    pub(super) modified: (i64, u32),
    pub(super) head: EntryHead,
    pub(super) content: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Lines(pub(super) RecordBatch);

impl PartialEq for Lines {
    fn eq(&self, other: &Self) -> bool {
        let Self(a) = self;
        let Self(b) = other;
        (a.collection(), a.text(), a.columns()) == (b.collection(), b.text(), b.columns())
    }
}

/// When every one of these archives began.
pub(super) const CREATED: Timestamp = Timestamp::from_micros(1_735_689_600_000_000);

pub(super) type Stores = BTreeMap<String, Vec<Plain>>;

/// Writes a part, and counts it as the manifest does.
pub(super) fn write(
    writer: &mut ArchiveWriter<Vec<u8>>,
    store: &str,
    part: &Plain,
    facts: &mut StoreManifest,
) {
    let collections = &mut facts.collections;
    match part.clone() {
        Plain::Schema { collection, document } => {
            collections.entry(collection.clone()).or_default();
            let schema = Schema { collection, document, info: CollectionInfo::default() };
            writer.schema(store, &schema).unwrap();
        }
        Plain::Records { partition, batch: Lines(batch) } => {
            let collection = collections.entry(batch.collection().into()).or_default();
            collection.tally.add_batch(&batch);
            writer.records(store, &partition, &batch).unwrap();
        }
        Plain::Blob { name, masked, metadata, content } => {
            let ranges: Vec<_> = masked.iter().map(|(start, end)| *start..*end).collect();
            let mut digest = MaskedHasher::new(&ranges);
            digest.update(&content);
            let (len, digest) = (content.len() as u64, digest.finish());
            facts.blobs.insert(name.clone(), BlobContent { len, digest, masked });
            writer.begin_blob(store, &name, len, &ranges, &metadata).unwrap();
            writer.data(&content).unwrap();
            writer.end().unwrap();
        }
        Plain::Entry(Entry { root, path, mode, modified, head, content }) => {
            let (len, sha256) = (content.len() as u64, Sha256Digest::of(&content));
            let kind = match &head {
                EntryHead::File => EntryFacts::File { len, sha256: &sha256 },
                EntryHead::Directory => EntryFacts::Directory,
                EntryHead::Symlink(target) => EntryFacts::Symlink { target },
            };
            let line = FileEntry::line(&path, mode, modified, kind);
            collections.entry(root.clone()).or_default().tally.add_line(&line);
            writer.begin_entry(store, &root, &path, mode, modified, head, len).unwrap();
            writer.data(&content).unwrap();
            writer.end().unwrap();
        }
    }
}

/// What ends after a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Nothing,
    Segment,
    Page,
}

/// An archive of these parts, whose manifest is right.
pub(super) fn archive(stores: &Stores, config: &Metadata, codec: Codec) -> Vec<u8> {
    archive_in_pieces(stores, config, codec, |_| End::Nothing)
}

/// One with more in it, which `more` writes and says in the manifest.
pub(super) fn archive_with(
    stores: &Stores,
    config: &Metadata,
    codec: Codec,
    more: impl FnOnce(&mut ArchiveWriter<Vec<u8>>, &mut Manifest),
) -> Vec<u8> {
    build(stores, config, codec, |_| End::Nothing, more)
}

/// One in which segments and pages end after the parts that `end` names by number.
pub(super) fn archive_in_pieces(
    stores: &Stores,
    config: &Metadata,
    codec: Codec,
    end: impl Fn(usize) -> End,
) -> Vec<u8> {
    build(stores, config, codec, end, |_, _| {})
}

fn build(
    stores: &Stores,
    config: &Metadata,
    codec: Codec,
    end: impl Fn(usize) -> End,
    more: impl FnOnce(&mut ArchiveWriter<Vec<u8>>, &mut Manifest),
) -> Vec<u8> {
    let app = Application { name: "any".into(), version: "1.0.0".into() };
    let preamble = Preamble::new(ArchiveId::from_bytes([9; 16]), CREATED, app);
    let options = WriterOptions { codec, threads: Some(1), ..WriterOptions::default() };
    let mut writer = ArchiveWriter::new(Vec::new(), &preamble, &options).unwrap();
    let mut manifest = Manifest::new(&preamble, codec);
    let mut number = 0;
    for (store, parts) in stores {
        let facts = manifest.stores.entry(store.clone()).or_default();
        for part in parts {
            write(&mut writer, store, part, facts);
            writer.end_early(end(number)).unwrap();
            number += 1;
        }
    }
    for (name, value) in config {
        writer.config(name, value).unwrap();
    }
    (manifest.finished, manifest.producer) = (CREATED, preamble.producer.clone());
    more(&mut writer, &mut manifest);
    writer.finish(manifest).unwrap().out
}

/// Some of every kind.
pub(super) fn every_kind() -> (Stores, Metadata) {
    let mut batch = BatchBuilder::new("notes");
    let dense = batch.dense("text", ElementType::F32, 2);
    let multi = batch.multi("pages", ElementType::F16, 2);
    let sparse = batch.sparse("words", ElementType::U8);
    for key in 0..3 {
        batch.push_json(&Key::from(key), br#"{"title":"note"}"#).unwrap();
        if key != 1 {
            batch.set_f32(dense, &[1.0, 0.5]).unwrap();
            batch.set(multi, &[1; 8]).unwrap();
            batch.set_sparse(sparse, &[3, 9], b"ab").unwrap();
        }
    }
    let large = Key::composite([Key::bytes(b"\xff"), Key::from(u64::MAX), Key::float(-0.0)]);
    batch.push_element(&large, &Key::from("field"), |json| json.value(&1e22.into())).unwrap();
    let vectors = vec![
        Plain::Schema { collection: "notes".into(), document: serde_json::json!({"dim": 2}) },
        Plain::Records { partition: "p0".into(), batch: Lines(batch.finish().unwrap()) },
    ];
    let image = Plain::Blob {
        name: "main.db".into(),
        masked: vec![(18, 20), (24, 28)],
        metadata: Metadata::new(),
        content: super::tests::noise(300, 1),
    };
    let entry = |path: &[u8], head, content: &[u8]| {
        let path = EntryPath::new(path).unwrap();
        let (root, content) = ("root".into(), content.to_vec());
        let (mode, modified) = (0o640, (1_700_000_000, 5));
        Plain::Entry(Entry { root, path, mode, modified, head, content })
    };
    let files = vec![
        entry(b"a", EntryHead::Directory, b""),
        entry(b"a/\xff\n", EntryHead::File, b"odd"),
        entry(&[b'd'; 120], EntryHead::File, b"long"),
        entry(b"empty", EntryHead::File, b""),
        entry(b"link", EntryHead::Symlink(b"../x".to_vec()), b""),
    ];
    let stores = [("sql", vec![image]), ("up", files), ("v", vectors)];
    let stores = stores.into_iter().map(|(name, parts)| (name.to_owned(), parts)).collect();
    (stores, [("app".to_owned(), serde_json::json!({"model": "m"}))].into())
}

async fn whole(mut body: ByteStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = body.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

async fn plain(part: Part) -> Plain {
    match part {
        Part::Schema(Schema { collection, document, .. }) => Plain::Schema { collection, document },
        // The partition is the archive's business, not the sink's.
        Part::Records(batch) => Plain::Records { partition: String::new(), batch: Lines(batch) },
        Part::Blob(Blob { name, masked, metadata, body, .. }) => {
            let masked = masked.iter().map(|range| (range.start, range.end)).collect();
            Plain::Blob { name, masked, metadata, content: whole(body).await }
        }
        Part::Entry(FileEntry { root, path, mode, modified, kind }) => {
            let (head, content) = match kind {
                EntryKind::File { body, .. } => (EntryHead::File, whole(body).await),
                EntryKind::Directory => (EntryHead::Directory, Vec::new()),
                EntryKind::Symlink { target } => (EntryHead::Symlink(target), Vec::new()),
            };
            Plain::Entry(Entry { root, path, mode, modified, head, content })
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn streamed(archive: &Archive) -> Stores {
    let names: Vec<_> = archive.manifest().stores.keys().cloned().collect();
    let mut stores: Stores = names.iter().map(|name| (name.clone(), Vec::new())).collect();
    let mut parts = archive.stream(&names, &Cancel::new()).unwrap();
    block_on(async {
        while let Some(part) = parts.next().await {
            let (store, part) = part.unwrap();
            stores.get_mut(&store).unwrap().push(plain(part).await);
        }
    });
    stores
}
