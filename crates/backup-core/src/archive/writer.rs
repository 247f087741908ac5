//! Writing an archive, front to back.

use std::{
    collections::BTreeMap,
    io::{Read as _, Seek as _, Write},
    ops::Range,
};

use super::{
    codec::Codec,
    entry::{EntryHead, PartEntry, PartKind},
    hashes::{ContentHasher, ContentHashes},
    index::{self, Page},
    npy,
    order::Order,
    segments::SegmentWriter,
    tar_block,
    trailer::Trailer,
};
use crate::{
    clock::{ArchiveId, Timestamp},
    error::{Error, ErrorKind, Result},
    manifest::{IndexFacts, Manifest, PageRef, Preamble},
    part::{EntryPath, Metadata, NoticeKind, Schema},
    record::{RecordBatch, Sha256Digest, canonical},
};

/// A part of at least this size begins a segment of its own.
const OWN_SEGMENT: u64 = 1 << 20;
/// Checksum lines beyond this go to a temporary file.
const SPOOL: usize = 1 << 20;

/// How an archive is written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WriterOptions {
    /// How segments are compressed; gzip by default.
    pub codec: Codec,
    /// Level of the codec; its default is a good one.
    pub level: Option<u32>,
    /// Budget for segments under way, 64 MiB by default; at least one is always under way.
    pub memory_bytes: usize,
    /// Compressing threads; all cores by default, bounded by the memory.
    pub threads: Option<usize>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { codec: Codec::Gzip, level: None, memory_bytes: 64 << 20, threads: None }
    }
}

/// Writes an archive front to back to anything that can be written, and never patches.
///
/// Parts come one after the other, in the order that `docs/FORMAT.md` gives: schema before
/// records, entries of a root ascending. Dropping the writer leaves an archive without a
/// trailer, which no reader takes for a whole one.
///
/// ```
/// use backup_core::{
///     ArchiveId, Timestamp,
///     archive::{Archive, ArchiveWriter, WriterOptions},
///     manifest::{Application, Manifest, Preamble},
/// };
///
/// let app = Application { name: "docs".into(), version: "1.0.0".into() };
/// let preamble = Preamble::new(ArchiveId::random(), Timestamp::now(), app);
/// let options = WriterOptions::default();
/// let mut writer = ArchiveWriter::new(Vec::new(), &preamble, &options)?;
/// writer.config("app", &serde_json::json!({"model": "all-MiniLM-L6-v2"}))?;
/// let finished = writer.finish(Manifest::new(&preamble, options.codec))?;
///
/// let archive = Archive::from_source(finished.out)?;
/// assert_eq!(archive.manifest().application.name, "docs");
/// # Ok::<(), backup_core::Error>(())
/// ```
pub struct ArchiveWriter<W> {
    segments: SegmentWriter<W>,
    codec: Codec,
    id: ArchiveId,
    created: Timestamp,
    order: Order,
    batches: std::collections::HashMap<(String, String, String), u64>,
    // Lines of the page to come.
    part_lines: Vec<u8>,
    part_count: u64,
    // Bytes of the tar since the last page.
    page_span: u64,
    page_count: u64,
    facts: IndexFacts,
    checksums: tempfile::SpooledTempFile,
    checksums_size: u64,
    body: Option<Body>,
    config: Vec<String>,
    stores: BTreeMap<String, StoreSize>,
}

// What was written of a store.
#[derive(Default)]
struct StoreSize {
    parts: u64,
    bytes: u64,
    collections: BTreeMap<String, u64>,
}

// The part whose content is being written.
struct Body {
    part: PartEntry,
    hasher: ContentHasher,
    taken: u64,
    cut: u64,
}

/// What became of a part's content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BodyEnd {
    /// Bytes that were given and written.
    pub taken: u64,
    /// Zeros that were written because too few were given.
    pub padded: u64,
    /// Bytes that were given beyond the length and left out.
    pub cut: u64,
    /// Hash of what was written.
    pub sha256: Sha256Digest,
    /// Hash with the masked ranges as zeros: the blob's content digest.
    pub masked_sha256: Sha256Digest,
}

/// A finished archive.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finished<W> {
    /// What was written to.
    pub out: W,
    /// Length of the file.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
    /// The manifest as written.
    pub manifest: Manifest,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive and writes `backup.json`.
    ///
    /// # Errors
    /// A codec that this build lacks; an output that fails.
    pub fn new(out: W, preamble: &Preamble, options: &WriterOptions) -> Result<Self> {
        let mut writer = Self::empty(out, preamble, options)?;
        writer.part(PartKind::Preamble {}, &preamble.to_json()?)?;
        Ok(writer)
    }

    fn empty(out: W, preamble: &Preamble, options: &WriterOptions) -> Result<Self> {
        let format = options.codec.format(options.level)?;
        let segments =
            SegmentWriter::new(out, format.into(), options.memory_bytes, options.threads)?;
        Ok(Self {
            segments,
            codec: options.codec,
            id: preamble.id,
            created: preamble.created,
            order: Order::default(),
            batches: std::collections::HashMap::new(),
            part_lines: Vec::new(),
            part_count: 0,
            page_span: 0,
            page_count: 0,
            facts: IndexFacts::default(),
            checksums: tempfile::SpooledTempFile::new(SPOOL),
            checksums_size: 0,
            body: None,
            config: Vec::new(),
            stores: BTreeMap::new(),
        })
    }

    /// Writes a collection's schema document.
    ///
    /// # Errors
    /// A second schema of one collection; an output that fails.
    pub fn schema(&mut self, store: &str, schema: &Schema) -> Result<()> {
        let kind = PartKind::Schema { store: store.into(), collection: schema.collection.clone() };
        self.part(kind, &json(&schema.document)?)
    }

    /// Writes a batch: its lines, and an array or more for each vector column.
    ///
    /// # Errors
    /// A batch before its schema; an output that fails.
    pub fn records(&mut self, store: &str, partition: &str, batch: &RecordBatch) -> Result<()> {
        let collection = batch.collection();
        let key = (store.to_owned(), collection.to_owned(), partition.to_owned());
        let next = self.batches.entry(key).or_default();
        let number = *next;
        *next += 1;
        let kind = PartKind::Records {
            store: store.into(),
            collection: collection.into(),
            partition: partition.into(),
            number,
            records: batch.len() as u64,
        };
        self.part(kind, batch.text())?;
        for column in batch.columns() {
            for array in npy::arrays(column) {
                let kind = PartKind::Vector {
                    store: store.into(),
                    collection: collection.into(),
                    partition: partition.into(),
                    number,
                    vector: column.name().into(),
                    role: array.role,
                    element: column.element(),
                    shape: array.shape,
                };
                self.part(kind, &array.file)?;
            }
        }
        Ok(())
    }

    /// Writes `config/<name>.json`. Secrets are the caller's to remove.
    ///
    /// # Errors
    /// A second one of a name; an output that fails.
    pub fn config(&mut self, name: &str, value: &serde_json::Value) -> Result<()> {
        self.part(PartKind::Config { name: name.into() }, &json(value)?)?;
        self.config.push(name.into());
        Ok(())
    }

    /// Begins a native blob of `len` bytes; [`data`](Self::data) and [`end`](Self::end) follow.
    ///
    /// # Errors
    /// A second blob of a name; an output that fails.
    pub fn begin_blob(
        &mut self,
        store: &str,
        name: &str,
        len: u64,
        masked: &[Range<u64>],
        metadata: &Metadata,
    ) -> Result<()> {
        let kind = PartKind::Blob {
            store: store.into(),
            name: name.into(),
            masked: masked.iter().map(|range| (range.start, range.end)).collect(),
            metadata: metadata.clone(),
        };
        self.begin(kind, len)
    }

    /// Begins an entry of a tree; `len` is 0 for folders and links.
    /// [`data`](Self::data), for a file, and [`end`](Self::end) follow.
    ///
    /// # Errors
    /// An entry out of order; an output that fails.
    #[expect(clippy::too_many_arguments, reason = "the facts of one entry")]
    pub fn begin_entry(
        &mut self,
        store: &str,
        root: &str,
        path: &EntryPath,
        mode: u32,
        modified: (i64, u32),
        entry: EntryHead,
        len: u64,
    ) -> Result<()> {
        let kind = PartKind::Entry {
            store: store.into(),
            root: root.into(),
            name: path.as_bytes().into(),
            mode: mode & 0o777,
            modified,
            entry,
            fault: None,
        };
        self.begin(kind, len)
    }

    fn part(&mut self, kind: PartKind, content: &[u8]) -> Result<()> {
        self.begin(kind, content.len() as u64)?;
        self.data(content)?;
        self.end().map(drop)
    }

    fn begin(&mut self, kind: PartKind, size: u64) -> Result<()> {
        if let Some(body) = &self.body {
            return Err(
                Error::adapter("a part began before the last one ended").on(&body.part.path)
            );
        }
        if size >= OWN_SEGMENT {
            self.segments.cut()?;
        }
        let path = kind.path();
        // Where it stands follows from the parts before it: no page says it.
        let part = PartEntry { path, offset: 0, size, kind };
        self.order.check(&part)?;
        self.segments.write(&tar_block::part_header(&part, self.created))?;
        let hasher = ContentHasher::new(part.kind.masked());
        self.body = Some(Body { part, hasher, taken: 0, cut: 0 });
        Ok(())
    }

    /// Writes content of the part that was begun; what goes beyond its length is left out.
    ///
    /// # Errors
    /// No part was begun; an output that fails.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let body = self.body.as_mut().ok_or_else(|| Error::adapter("content without a part"))?;
        let room = (body.part.size - body.taken).min(bytes.len() as u64) as usize;
        let (now, beyond) = bytes.split_at(room);
        body.hasher.update(now);
        body.taken += now.len() as u64;
        body.cut += beyond.len() as u64;
        self.segments.write(now)
    }

    /// Ends the part that was begun; fills it with zeros to its length.
    ///
    /// # Errors
    /// No part was begun; an output that fails.
    pub fn end(&mut self) -> Result<BodyEnd> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut body = self.body.take().ok_or_else(|| Error::adapter("an end without a part"))?;
        let padded = body.part.size - body.taken;
        let mut left = padded;
        while left > 0 {
            let now = &ZEROS[..left.min(ZEROS.len() as u64) as usize];
            body.hasher.update(now);
            self.segments.write(now)?;
            left -= now.len() as u64;
        }
        self.segments.write(&ZEROS[..tar_block::padding(body.part.size) as usize])?;
        let ContentHashes { plain: sha256, masked: masked_sha256 } = body.hasher.finish();
        if let PartKind::Entry { fault, .. } = &mut body.part.kind {
            *fault = match (padded, body.cut) {
                (0, 0) => None,
                (0, _) => Some(NoticeKind::Grew),
                _ => Some(NoticeKind::Shrank),
            };
        }
        self.list(&body.part, sha256)?;
        Ok(BodyEnd { taken: body.taken, padded, cut: body.cut, sha256, masked_sha256 })
    }

    // A finished part goes into the index and the list of checksums.
    fn list(&mut self, part: &PartEntry, sha256: Sha256Digest) -> Result<()> {
        index::line(&mut self.part_lines, part)?;
        self.part_count += 1;
        self.page_span += tar_block::part_len(part, self.created);
        self.facts.parts += 1;
        self.facts.bytes += part.size;
        if let Some(store) = part.kind.store() {
            let store = slot(&mut self.stores, store);
            store.parts += 1;
            store.bytes += part.size;
            if let Some(collection) = part.kind.collection() {
                *slot(&mut store.collections, collection) += part.size;
            }
        }
        let hashed = match &part.kind {
            PartKind::Entry { entry, .. } => *entry == EntryHead::File,
            kind => *kind != PartKind::Checksums {},
        };
        if hashed {
            // A line feed or backslash in a name never comes here: both are escaped.
            let line = format!("{sha256}  {}\n", part.path);
            self.checksums
                .write_all(line.as_bytes())
                .map_err(|e| Error::io("the list of checksums could not be spooled", e))?;
            self.checksums_size += line.len() as u64;
        }
        if self.page_span >= index::PAGE_SPAN || self.part_lines.len() >= index::PAGE_TEXT {
            self.page()?;
        }
        Ok(())
    }

    fn page(&mut self) -> Result<()> {
        let (id, created, number) = (self.id, self.created, self.page_count);
        let parts = std::mem::take(&mut self.part_count);
        let lines = std::mem::take(&mut self.part_lines);
        self.page_count += 1;
        self.page_span = 0;
        self.segments.own(Box::new(move |segments, previous| {
            let previous = previous.map(|page| PageRef::from(*page));
            let text = Page::write(id, number, previous, segments, parts, &lines)?;
            if text.len() as u64 > index::MAX_PAGE {
                let what = "one part is too large for the index";
                return Err(Error::new(ErrorKind::LimitExceeded, what));
            }
            Ok(own(&index::page_path(number), &text, created, &[]))
        }))
    }

    /// Writes checksums, the last index page, the root and the trailer.
    ///
    /// Identity, time, codec, names of configurations, the index, and parts and bytes of
    /// stores and collections are filled in.
    ///
    /// # Errors
    /// A part that was not ended; an output that fails.
    pub fn finish(mut self, manifest: Manifest) -> Result<Finished<W>> {
        if let Some(body) = &self.body {
            return Err(Error::adapter("the archive was ended within a part").on(&body.part.path));
        }
        self.write_checksums()?;
        self.seal(manifest)
    }

    // The last index page, the root and the trailer.
    fn seal(mut self, mut manifest: Manifest) -> Result<Finished<W>> {
        if self.part_count > 0 {
            self.page()?;
        }
        self.facts.pages = self.segments.drain()?.into_iter().map(PageRef::from).collect();
        self.facts.tar_size = self.segments.position();
        manifest.id = self.id;
        manifest.created = self.created;
        manifest.codec = self.codec;
        manifest.config = std::mem::take(&mut self.config);
        for (name, store) in &mut manifest.stores {
            let size = self.stores.remove(name).unwrap_or_default();
            (store.parts, store.bytes) = (size.parts, size.bytes);
            for (name, collection) in &mut store.collections {
                collection.bytes = size.collections.get(name).copied().unwrap_or_default();
            }
        }
        manifest.index = std::mem::take(&mut self.facts);
        let text = manifest.to_json()?;
        if text.len() as u64 > super::reader::MAX_ROOT {
            return Err(Error::new(ErrorKind::LimitExceeded, "the manifest is too large"));
        }
        let root = own("manifest.json", &text, self.created, &tar_block::END);
        self.segments.own(Box::new(|_, _| Ok(root)))?;
        let Some(root) = self.segments.drain()?.pop() else {
            return Err(Error::adapter("the root was not written"));
        };
        let (crc32, tar_size) = (self.segments.crc32(), self.segments.position());
        let mut tail = self.segments.format().tail(crc32, tar_size);
        let trailer = Trailer {
            codec: self.codec,
            id: self.id,
            created: self.created,
            root_offset: root.offset,
            root_size: root.size,
            root_tar_size: root.tar_size,
            root_sha256: root.sha256,
            tar_size,
            crc32: if self.codec == Codec::Gzip { crc32 } else { 0 },
            file_size: self.segments.offset() + tail.len() as u64 + Trailer::len(self.codec),
        };
        tail.extend_from_slice(&trailer.write());
        let (out, size, sha256) = self.segments.finish(&tail)?;
        Ok(Finished { out, size, sha256, manifest })
    }

    fn write_checksums(&mut self) -> Result<()> {
        let spool = |e| Error::io("the list of checksums could not be spooled", e);
        let mut lines = std::mem::replace(&mut self.checksums, tempfile::SpooledTempFile::new(0));
        lines.rewind().map_err(spool)?;
        // On its own, so that damage to it costs nothing else.
        self.segments.cut()?;
        self.begin(PartKind::Checksums {}, self.checksums_size)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match lines.read(&mut buffer).map_err(spool)? {
                0 => break,
                n => self.data(&buffer[..n])?,
            }
        }
        self.end().map(drop)
    }
}

#[cfg(test)]
impl<W: Write> ArchiveWriter<W> {
    /// Ends a segment or a page before its time, so that a small archive has several.
    pub(super) fn end_early(&mut self, end: super::plain::End) -> Result<()> {
        use super::plain::End;
        match end {
            End::Nothing => Ok(()),
            End::Segment => self.segments.cut(),
            End::Page => self.page(),
        }
    }

    /// An archive of any tar and any index, with hashes that are all right: what a forger
    /// can make.
    pub(super) fn forge(
        out: W,
        preamble: &Preamble,
        options: &WriterOptions,
        tar: &[u8],
        parts: &[PartEntry],
        manifest: Manifest,
        format: Option<std::sync::Arc<dyn super::codec::SegmentFormat>>,
    ) -> Result<Finished<W>> {
        let mut writer = Self::empty(out, preamble, options)?;
        if let Some(format) = format {
            writer.segments.tamper(format);
        }
        // The list of checksums, which comes last, begins a segment.
        let last = parts.last().map_or(0, |part| part.offset as usize).min(tar.len());
        writer.segments.write(&tar[..last])?;
        writer.segments.cut()?;
        writer.segments.write(&tar[last..])?;
        for part in parts {
            index::line(&mut writer.part_lines, part)?;
            writer.part_count += 1;
            writer.facts.parts += 1;
            writer.facts.bytes = writer.facts.bytes.wrapping_add(part.size);
            if let Some(store) = part.kind.store() {
                let store = slot(&mut writer.stores, store);
                store.parts += 1;
                store.bytes = store.bytes.wrapping_add(part.size);
            }
            if let PartKind::Config { name } = &part.kind {
                writer.config.push(name.clone());
            }
        }
        writer.seal(manifest)
    }
}

impl<W> std::fmt::Debug for ArchiveWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ArchiveWriter({})", self.id)
    }
}

// A file of the archive's own, as it stands in the tar.
fn own(path: &str, text: &[u8], created: Timestamp, end: &[u8]) -> Vec<u8> {
    let size = text.len() as u64;
    let mut raw = tar_block::plain_header(path, size, created);
    raw.extend_from_slice(text);
    raw.resize(raw.len() + tar_block::padding(size) as usize, 0);
    raw.extend_from_slice(end);
    raw
}

fn slot<'a, T: Default>(map: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    // Looked up twice, so that a name is copied once and not for every part.
    if !map.contains_key(name) {
        map.insert(name.to_owned(), T::default());
    }
    map.get_mut(name).expect("inserted above")
}

fn json(value: &serde_json::Value) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    canonical::Writer::new(&mut out).value(value)?;
    out.push(b'\n');
    Ok(out)
}
