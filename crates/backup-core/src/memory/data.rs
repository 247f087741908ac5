//! What a [`MemoryStore`](super::MemoryStore) holds, live or staged.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use bytes::Bytes;
use serde_json::Value;

use crate::{
    error::Result,
    manifest::CollectionInfo,
    part::{
        Blob, BlobContent, CollectionEnd, Content, EntryFacts, EntryKind, EntryPath, FileEntry,
        Metadata, Part, Schema, byte_stream,
    },
    record::{
        BatchBuilder, Key, MaskedHasher, RecordBatch, Sha256Digest, Tally, VectorColumn,
        VectorShape,
    },
};

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Data {
    pub(super) collections: BTreeMap<String, Collection>,
    pub(super) blobs: BTreeMap<String, StoredBlob>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Collection {
    pub(super) document: Value,
    pub(super) info: CollectionInfo,
    pub(super) records: BTreeMap<Id, Record>,
    pub(super) entries: BTreeMap<EntryPath, Entry>,
}

/// Key, and element where the record is one.
pub(super) type Id = (Key, Option<Key>);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) value: Box<str>,
    // Columns of one row.
    pub(super) vectors: Vec<VectorColumn>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredBlob {
    pub(super) bytes: Bytes,
    pub(super) masked: Vec<Range<u64>>,
    pub(super) metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) mode: u32,
    pub(super) modified: (i64, u32),
    pub(super) node: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    File(Bytes),
    Directory,
    Symlink(Vec<u8>),
}

impl Data {
    pub(super) fn collection(&mut self, name: &str) -> &mut Collection {
        self.collections.entry(name.to_owned()).or_default()
    }

    /// Counts and digests, computed anew. `expected` says which ranges of a blob are masked.
    pub(super) fn content(&self, expected: &Content) -> Result<Content> {
        let mut content = Content::new();
        for (name, collection) in &self.collections {
            content.collections.insert(name.clone(), collection.tally(name)?);
        }
        for (name, blob) in &self.blobs {
            let masked = expected.blobs.get(name).map_or_else(
                || blob.masked.clone(),
                |known| known.masked.iter().map(|(from, to)| *from..*to).collect(),
            );
            let mut hasher = MaskedHasher::new(&masked);
            hasher.update(&blob.bytes);
            content.blobs.insert(
                name.clone(),
                BlobContent {
                    len: blob.bytes.len() as u64,
                    digest: hasher.finish(),
                    masked: masked.iter().map(|range| (range.start, range.end)).collect(),
                },
            );
        }
        Ok(content)
    }

    /// Those records, entries and blobs that `other` has, too, as they are here.
    pub(super) fn part_in(&self, other: &Data) -> Data {
        let collections = other.collections.iter().filter_map(|(name, theirs)| {
            let mut ours = self.collections.get(name)?.clone();
            ours.records.retain(|id, _| theirs.records.contains_key(id));
            ours.entries.retain(|path, _| theirs.entries.contains_key(path));
            Some((name.clone(), ours))
        });
        let mut blobs = self.blobs.clone();
        blobs.retain(|name, _| other.blobs.contains_key(name));
        Data { collections: collections.collect(), blobs }
    }

    /// Adds `other`, which wins where both hold a record.
    pub(super) fn merge(&mut self, other: Data) {
        for (name, theirs) in other.collections {
            let ours = self.collections.entry(name).or_default();
            ours.document = theirs.document;
            ours.info = theirs.info;
            ours.records.extend(theirs.records);
            ours.entries.extend(theirs.entries);
        }
        self.blobs.extend(other.blobs);
    }
}

impl Collection {
    /// The records of these keys, elements too.
    pub(super) fn of_keys(&self, keys: &BTreeSet<&Key>) -> Vec<(Id, Record)> {
        let found = self.records.iter().filter(|((key, _), _)| keys.contains(key));
        found.map(|(id, record)| (id.clone(), record.clone())).collect()
    }

    pub(super) fn insert_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        for record in batch.iter() {
            let vectors = batch
                .columns()
                .iter()
                .filter(|column| column.is_present(record.row()))
                .map(|column| single_row(column, record.row()))
                .collect::<Result<_>>()?;
            let id = (record.key(), record.element_json().map(Key::from_canonical));
            self.records.insert(id, Record { value: record.value_json().into(), vectors });
        }
        Ok(())
    }

    /// The records as batches of at most `rows`. Vectors of one name but of different
    /// types or dimensions do not share a column, so they end a batch early.
    pub(super) fn batches<'a>(
        name: &str,
        records: impl Iterator<Item = (&'a Id, &'a Record)>,
        rows: usize,
    ) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        let mut builder = BatchBuilder::new(name);
        let mut columns: BTreeMap<&str, (&VectorColumn, _)> = BTreeMap::new();
        for ((key, element), record) in records {
            let stranger = record.vectors.iter().any(|vector| {
                columns.get(vector.name()).is_some_and(|(known, _)| !same_form(known, vector))
            });
            if stranger || builder.len() >= rows || builder.is_full() {
                let full = std::mem::replace(&mut builder, BatchBuilder::new(name));
                batches.push(full.finish()?);
                columns.clear();
            }
            let write = |json: &mut crate::record::canonical::Writer<'_>| {
                json.canonical_text(&record.value);
                Ok(())
            };
            match element {
                None => builder.push(key, write)?,
                Some(element) => builder.push_element(key, element, write)?,
            }
            for vector in &record.vectors {
                let (_, column) = *columns.entry(vector.name()).or_insert_with(|| {
                    let (name, element) = (vector.name(), vector.element());
                    let column = match vector.shape() {
                        VectorShape::Dense { dim } => builder.dense(name, element, *dim),
                        VectorShape::Multi { dim, .. } => builder.multi(name, element, *dim),
                        VectorShape::Sparse { .. } => builder.sparse(name, element),
                    };
                    (vector, column)
                });
                builder.set_sparse(column, vector.sparse_indices(0), vector.row_bytes(0))?;
            }
        }
        if !builder.is_empty() {
            batches.push(builder.finish()?);
        }
        Ok(batches)
    }

    fn tally(&self, name: &str) -> Result<Tally> {
        let mut tally = Tally::new();
        for batch in Self::batches(name, self.records.iter(), usize::MAX)? {
            tally.add_batch(&batch);
        }
        for (path, entry) in &self.entries {
            tally.add_line(&entry.line(path));
        }
        Ok(tally)
    }

    /// What a session gives for this collection in partition `shard` of `shards`.
    pub(super) fn parts(
        &self,
        name: &str,
        rows: usize,
        (shard, shards): (usize, usize),
    ) -> Result<Vec<Part>> {
        let first = shard == 0;
        let mut parts = Vec::new();
        let mut count = 0;
        if first {
            parts.push(Part::Schema(Schema {
                collection: name.to_owned(),
                document: self.document.clone(),
                info: self.info.clone(),
            }));
        }
        let mine = self.records.iter().enumerate().filter(|(i, _)| i % shards == shard);
        for batch in Self::batches(name, mine.map(|(_, record)| record), rows)? {
            count += batch.len();
            parts.push(Part::Records(batch));
        }
        if first {
            count += self.entries.len();
            parts.extend(self.entries.iter().map(|(p, e)| Part::Entry(e.to_part(name, p))));
        }
        if first || count > 0 {
            let mut end = CollectionEnd { collection: name.to_owned(), ..Default::default() };
            end.count = Some(count as u64);
            parts.push(Part::End(end));
        }
        Ok(parts)
    }
}

impl Entry {
    fn line(&self, path: &EntryPath) -> Vec<u8> {
        let sha256;
        let facts = match &self.node {
            Node::File(bytes) => {
                sha256 = Sha256Digest::of(bytes);
                EntryFacts::File { len: bytes.len() as u64, sha256: &sha256 }
            }
            Node::Directory => EntryFacts::Directory,
            Node::Symlink(target) => EntryFacts::Symlink { target },
        };
        FileEntry::line(path, self.mode, self.modified, facts)
    }

    pub(super) fn to_part(&self, root: &str, path: &EntryPath) -> FileEntry {
        let kind = match &self.node {
            Node::File(bytes) => {
                EntryKind::File { len: bytes.len() as u64, body: byte_stream(bytes.clone()) }
            }
            Node::Directory => EntryKind::Directory,
            Node::Symlink(target) => EntryKind::Symlink { target: target.clone() },
        };
        FileEntry {
            root: root.to_owned(),
            path: path.clone(),
            mode: self.mode,
            modified: self.modified,
            kind,
        }
    }
}

impl StoredBlob {
    pub(super) fn to_part(&self, name: &str) -> Blob {
        Blob {
            name: name.to_owned(),
            len: Some(self.bytes.len() as u64),
            masked: self.masked.clone(),
            metadata: self.metadata.clone(),
            body: byte_stream(self.bytes.clone()),
        }
    }
}

fn single_row(column: &VectorColumn, row: usize) -> Result<VectorColumn> {
    let data = Bytes::copy_from_slice(column.row_bytes(row));
    let elements = (data.len() / column.element().size()) as u64;
    let shape = match column.shape() {
        VectorShape::Dense { dim } => VectorShape::Dense { dim: *dim },
        VectorShape::Multi { dim, .. } => VectorShape::Multi {
            dim: *dim,
            offsets: vec![0, elements.checked_div(*dim as u64).unwrap_or(0)],
        },
        VectorShape::Sparse { .. } => VectorShape::Sparse {
            offsets: vec![0, elements],
            indices: column.sparse_indices(row).to_vec(),
        },
    };
    VectorColumn::from_arrays(column.name(), column.element(), shape, data, None, 1)
}

fn same_form(a: &VectorColumn, b: &VectorColumn) -> bool {
    let shape = match (a.shape(), b.shape()) {
        (VectorShape::Dense { dim: a }, VectorShape::Dense { dim: b })
        | (VectorShape::Multi { dim: a, .. }, VectorShape::Multi { dim: b, .. }) => a == b,
        (VectorShape::Sparse { .. }, VectorShape::Sparse { .. }) => true,
        _ => false,
    };
    shape && a.element() == b.element()
}
