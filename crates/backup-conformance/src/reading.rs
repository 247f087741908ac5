//! What a session gave, and whether it kept to the contract.

use std::collections::{BTreeMap, HashSet};

use backup_core::{
    Blob, BlobContent, ByteStream, CollectionEnd, Content, EntryFacts, EntryKind, EntryPath,
    FileEntry, Metadata, Part, Result, Schema, SourceSession, byte_stream,
    record::{MaskedHasher, RecordBatch, Sha256Digest, Tally, canonical},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::dataset::{Item, Node};

/// Everything that one session gave, with the figures that the kit took itself.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) parts: Vec<Kept>,
    pub(crate) content: Content,
    /// Breaches of the source's contract.
    pub(crate) faults: Vec<String>,
}

/// A part that can be written again.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    Schema(Box<Schema>),
    Records(RecordBatch),
    Blob { name: String, masked: Vec<std::ops::Range<u64>>, metadata: Metadata, bytes: Bytes },
    Entry { root: String, item: Item },
    End(CollectionEnd),
}

impl Kept {
    pub(crate) fn to_part(&self) -> Part {
        match self {
            Self::Schema(schema) => Part::Schema((**schema).clone()),
            Self::Records(batch) => Part::Records(batch.clone()),
            Self::End(end) => Part::End(end.clone()),
            Self::Blob { name, masked, metadata, bytes } => Part::Blob(Blob {
                name: name.clone(),
                len: Some(bytes.len() as u64),
                masked: masked.clone(),
                metadata: metadata.clone(),
                body: in_pieces(bytes),
            }),
            Self::Entry { root, item } => Part::Entry(FileEntry {
                root: root.clone(),
                path: item.path.clone(),
                mode: item.mode,
                modified: item.modified,
                kind: match &item.node {
                    Node::File(bytes) => {
                        EntryKind::File { len: bytes.len() as u64, body: in_pieces(bytes) }
                    }
                    Node::Directory => EntryKind::Directory,
                    Node::Symlink(target) => EntryKind::Symlink { target: target.clone() },
                },
            }),
        }
    }

    /// A text that is the same for equal parts.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::Schema(schema) => format!("{schema:?}"),
            Self::End(end) => format!("{end:?}"),
            Self::Records(batch) => {
                let lines = Sha256Digest::of(batch.text());
                format!("{} records of {}: {lines}", batch.len(), batch.collection())
            }
            Self::Blob { name, bytes, .. } => format!("blob {name} of {} bytes", bytes.len()),
            Self::Entry { root, item } => format!("{root}: {item:?}"),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Records(batch) => batch.byte_size() as u64,
            Self::Blob { bytes, .. }
            | Self::Entry { item: Item { node: Node::File(bytes), .. }, .. } => bytes.len() as u64,
            _ => 0,
        }
    }
}

/// Bytes in pieces of odd length, as they may come out of an archive.
fn in_pieces(bytes: &Bytes) -> ByteStream {
    const PIECE: usize = 65_537;
    if bytes.len() <= PIECE {
        return byte_stream(bytes.clone());
    }
    let bytes = bytes.clone();
    let starts = (0..bytes.len()).step_by(PIECE);
    let pieces = starts.map(move |at| Ok(bytes.slice(at..bytes.len().min(at + PIECE))));
    futures::stream::iter(pieces.collect::<Vec<_>>()).boxed()
}

impl Reading {
    /// Reads a session to its end, without closing it.
    pub(crate) async fn of(session: &dyn SourceSession) -> Result<Self> {
        let mut reader = Reader::default();
        let partitions = session.partitions().await?;
        if session.partitions().await? != partitions {
            reader.fault("partitions() gave another answer when it was asked again");
        }
        for partition in &partitions {
            reader.open.clear();
            if !reader.partitions.insert(partition.name.clone()) {
                reader.fault(format!("two partitions are named {:?}", partition.name));
            }
            while let Some(part) = session.next(partition).await? {
                reader.take(part).await?;
            }
            let unended: Vec<_> = reader
                .open
                .iter()
                .filter(|(_, (_, ended))| !ended)
                .map(|(n, _)| n.clone())
                .collect();
            for name in unended {
                reader.fault(format!("{name:?} had parts in {:?} and no End", partition.name));
            }
        }
        Ok(reader.reading)
    }

    /// What would be read had all been written.
    pub(crate) fn summaries(&self) -> Vec<String> {
        self.parts.iter().map(Kept::summary).collect()
    }
}

#[derive(Default)]
struct Reader {
    reading: Reading,
    partitions: HashSet<String>,
    schemas: HashSet<String>,
    records: HashSet<(String, String, Option<String>)>,
    last_paths: BTreeMap<String, EntryPath>,
    // Of the partition that is read: records so far, and whether the end was told.
    open: BTreeMap<String, (u64, bool)>,
}

impl Reader {
    fn fault(&mut self, what: impl Into<String>) {
        self.reading.faults.push(what.into());
    }

    fn tally(&mut self, collection: &str) -> &mut Tally {
        self.reading.content.collections.entry(collection.to_owned()).or_default()
    }

    fn count(&mut self, collection: &str, count: usize) {
        let (seen, ended) = self.open.entry(collection.to_owned()).or_default();
        *seen += count as u64;
        if *ended {
            self.fault(format!("{collection:?} went on after its End"));
        }
    }

    async fn take(&mut self, part: Part) -> Result<()> {
        let kept = match part {
            Part::Schema(schema) => {
                self.count(&schema.collection, 0);
                self.tally(&schema.collection);
                if !self.schemas.insert(schema.collection.clone()) {
                    self.fault(format!("{:?} had two schemas", schema.collection));
                }
                Kept::Schema(Box::new(schema))
            }
            Part::Records(batch) => {
                self.records(&batch);
                Kept::Records(batch)
            }
            Part::Blob(blob) => {
                let bytes = read(blob.body).await?;
                if blob.len.is_some_and(|len| len != bytes.len() as u64) {
                    self.fault(format!("blob {:?} is not as long as it said", blob.name));
                }
                let mut hasher = MaskedHasher::new(&blob.masked);
                hasher.update(&bytes);
                let content = BlobContent {
                    len: bytes.len() as u64,
                    digest: hasher.finish(),
                    masked: blob.masked.iter().map(|range| (range.start, range.end)).collect(),
                };
                if self.reading.content.blobs.insert(blob.name.clone(), content).is_some() {
                    self.fault(format!("two blobs are named {:?}", blob.name));
                }
                Kept::Blob { name: blob.name, masked: blob.masked, metadata: blob.metadata, bytes }
            }
            Part::Entry(entry) => self.entry(entry).await?,
            Part::End(end) => {
                self.tally(&end.collection);
                let (seen, ended) = self.open.entry(end.collection.clone()).or_default();
                let (seen, twice) = (*seen, std::mem::replace(ended, true));
                if twice {
                    self.fault(format!("{:?} ended twice in one partition", end.collection));
                }
                if let Some(told) = end.count.filter(|told| *told != seen) {
                    self.fault(format!("{:?} gave {seen} and told {told}", end.collection));
                }
                Kept::End(end)
            }
            Part::Notice(notice) => {
                if notice.kind.makes_partial() {
                    self.fault(format!("a store at rest gave {notice:?}"));
                }
                return Ok(());
            }
            other => {
                self.fault(format!("the kit does not know {other:?}"));
                return Ok(());
            }
        };
        self.reading.parts.push(kept);
        Ok(())
    }

    fn records(&mut self, batch: &RecordBatch) {
        let name = batch.collection().to_owned();
        self.count(&name, batch.len());
        self.tally(&name).add_batch(batch);
        if !self.schemas.contains(&name) {
            self.fault(format!("records of {name:?} came before its schema"));
        }
        if batch.is_empty() {
            self.fault(format!("a batch of {name:?} is empty"));
        }
        // The one record that filled it may be long.
        let longest = batch.iter().map(|record| record.line().len()).max().unwrap_or(0);
        if batch.byte_size() > 2 * RecordBatch::TARGET_BYTES + longest {
            let bytes = batch.byte_size();
            self.fault(format!("a batch of {name:?} has {bytes} bytes: records are not batched"));
        }
        for record in batch.iter() {
            let line = record.line();
            match canonical::canonicalize(line.as_bytes()) {
                Ok(again) if again == line => {}
                _ => self.fault(format!("a line of {name:?} is not canonical: {}", cut(line))),
            }
            let id = (
                name.clone(),
                record.key_json().to_owned(),
                record.element_json().map(str::to_owned),
            );
            if !self.records.insert(id) {
                self.fault(format!("{name:?} gave a record twice: {}", cut(line)));
            }
        }
    }

    async fn entry(&mut self, entry: FileEntry) -> Result<Kept> {
        let FileEntry { root, path, mode, modified, kind } = entry;
        self.count(&root, 1);
        if self.last_paths.get(&root).is_some_and(|last| *last >= path) {
            self.fault(format!("entries of {root:?} do not ascend at {path}"));
        }
        self.last_paths.insert(root.clone(), path.clone());
        if mode > 0o777 {
            self.fault(format!("the mode of {path} has more than permission bits"));
        }
        let line;
        let node = match kind {
            EntryKind::File { len, body } => {
                let bytes = read(body).await?;
                if len != bytes.len() as u64 {
                    self.fault(format!("{path} is not as long as it said"));
                }
                let sha256 = &Sha256Digest::of(&bytes);
                line = FileEntry::line(&path, mode, modified, EntryFacts::File { len, sha256 });
                Node::File(bytes)
            }
            EntryKind::Directory => {
                line = FileEntry::line(&path, mode, modified, EntryFacts::Directory);
                Node::Directory
            }
            EntryKind::Symlink { target } => {
                let facts = EntryFacts::Symlink { target: &target };
                line = FileEntry::line(&path, mode, modified, facts);
                Node::Symlink(target)
            }
        };
        self.tally(&root).add_line(&line);
        Ok(Kept::Entry { root, item: Item { path, mode, modified, node } })
    }
}

/// An entry with its content.
pub(crate) async fn kept(entry: FileEntry) -> Result<Kept> {
    Reader::default().entry(entry).await
}

async fn read(mut body: ByteStream) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes.freeze())
}

/// The beginning of a text, for a message.
pub(crate) fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(120).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
