//! What can be had from a damaged archive.
//!
//! With trailer and root, the root says where every index page is. Without them the file is
//! searched for pages: each is alone in its segment, so it can be read from anywhere, and it
//! says which bytes before it are described by it. A page is believed if it belongs to the
//! same archive and its segments end exactly where it begins; pages of an archive that lies
//! inside this one name offsets in that other file.
//!
//! Parts whose segments match the hashes in their page are whole. Where a segment is damaged
//! it is decompressed as far as it goes, and where a page is lost the tar is read without it;
//! parts that come out of these are believed only if `checksums.sha256` confirms them.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{
    codec::{Codec, SegmentFormat},
    entry::{PartEntry, PartKind},
    extract::Target,
    index::{self, MAX_PAGE, Page, Segment},
    read_at::{ReadAt, read_exact},
    reader::{Archive, unpack},
    tar_block::{self, BLOCK},
};
use crate::{
    cancel::Cancel,
    clock::{ArchiveId, Timestamp},
    error::{Error, ErrorKind, Result},
    manifest::{Manifest, PageRef},
    record::Sha256Digest,
};

/// Most losses that a report names.
const NAMED: usize = 10_000;
/// Why the second part of one path is left out.
const TWICE: &str = "a part of this path was found before";
/// Most bytes of a list of checksums that are taken into memory.
const MOST_CHECKSUMS: u64 = 1 << 30;
/// The file is searched in pieces of this length, with room for what lies across borders.
const PIECE: u64 = 8 << 20;

/// A damaged archive, opened for what is whole in it.
pub struct Salvage {
    path: Option<PathBuf>,
    source: Box<dyn ReadAt>,
    codec: Codec,
    format: Box<dyn SegmentFormat>,
    size: u64,
    root: Option<Manifest>,
    spans: Vec<Span>,
    // Every path with its hash, where that is needed.
    confirmed: OnceLock<HashMap<String, Sha256Digest>>,
}

// A stretch of the file between two known borders.
enum Span {
    /// Described by a good page.
    Page { page: Page, created: Timestamp },
    /// Described by nothing: from here to there in the file.
    Gap { start: u64, end: u64 },
}

/// A part that is whole.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SalvagedPart {
    /// Its path in the tar.
    pub path: String,
    /// Length of its content.
    pub size: u64,
    /// What the index says of it, where the index is there.
    pub entry: Option<PartEntry>,
    /// Why it is believed to be whole.
    pub proof: Proof,
}

/// Why a salvaged part is believed to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// It is what its index page says: its header, and its content, which stands in segments
    /// that match their hashes.
    Index,
    /// Its index page or one of its segments is damaged; it matches the hash in
    /// `checksums.sha256`.
    Checksums,
}

/// Something that is lost.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Lost {
    /// The part's path, or what else it was.
    pub what: String,
    /// Why it cannot be had.
    pub reason: String,
}

/// What a salvage found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The archive's identity, where something of it was found.
    pub id: Option<ArchiveId>,
    /// Whether trailer and root were there: the manifest is then whole.
    pub manifest: bool,
    /// Number of whole parts.
    pub whole: u64,
    /// Bytes of the whole parts.
    pub whole_bytes: u64,
    /// What is lost: the first ten thousand.
    pub lost: Vec<Lost>,
    /// How much is lost, in all.
    pub lost_count: u64,
}

/// Who is shown what a salvage finds, in the order of the file.
pub(super) trait Visitor {
    fn whole(&mut self, part: &SalvagedPart, content: &mut dyn Read) -> Result<()>;
    /// A part that the index lists.
    fn lost(&mut self, _: &PartEntry) {}
    /// Nobody knows which parts were here.
    fn gap(&mut self) {}
}

struct Each<'a>(&'a mut dyn FnMut(&SalvagedPart, &mut dyn Read) -> Result<()>);

impl Visitor for Each<'_> {
    fn whole(&mut self, part: &SalvagedPart, content: &mut dyn Read) -> Result<()> {
        (self.0)(part, content)
    }
}

impl SalvageReport {
    pub(super) fn lose(&mut self, what: impl Into<String>, reason: impl Into<String>) {
        self.lost_count += 1;
        if self.lost.len() < NAMED {
            self.lost.push(Lost { what: what.into(), reason: reason.into() });
        }
    }
}

impl Salvage {
    /// Opens an archive file for salvage.
    ///
    /// # Errors
    /// A file that cannot be read, or in which nothing of an archive is found.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        std::fs::File::open(path)
            .map_err(|e| Error::io("the archive could not be opened", e))
            .and_then(Self::from_source)
            .map(|salvage| Self { path: Some(path.to_owned()), ..salvage })
            .map_err(|e| e.on(path.display()))
    }

    /// Opens anything that can be read at an offset.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_source(source: impl ReadAt + 'static) -> Result<Self> {
        let source: std::sync::Arc<dyn ReadAt> = std::sync::Arc::new(source);
        let size = source.size().map_err(|e| Error::io("the archive's length is not known", e))?;
        let opened = Archive::from_source(source.clone()).ok();
        let codec =
            opened.as_ref().map_or_else(|| guess(&*source, size), |a| Ok(a.manifest().codec))?;
        let format = codec.format(None)?;
        let mut salvage = Self {
            path: None,
            source: Box::new(source),
            codec,
            format,
            size,
            root: None,
            spans: Vec::new(),
            confirmed: OnceLock::new(),
        };
        match opened {
            Some(archive) => {
                salvage.follow_root(&archive);
                salvage.root = Some(archive.manifest().clone());
            }
            None => salvage.search()?,
        }
        if salvage.spans.iter().all(|span| matches!(span, Span::Gap { .. })) {
            let nothing = Error::new(ErrorKind::Corrupt, "no index page of an archive was found");
            // Without any page a small archive may still have its checksums.
            if salvage.confirmed().is_empty() {
                return Err(nothing.advise("take another backup"));
            }
        }
        Ok(salvage)
    }

    fn follow_root(&mut self, archive: &Archive) {
        let manifest = archive.manifest();
        for (number, place) in manifest.index.pages.iter().enumerate() {
            let previous = number.checked_sub(1).map(|n| &manifest.index.pages[n]);
            self.spans.push(match archive.page(number) {
                Ok(page) => Span::Page { page, created: manifest.created },
                Err(_) => {
                    Span::Gap { start: Page::start(previous, &*self.format).0, end: place.offset }
                }
            });
        }
    }

    // Looks for pages everywhere, and keeps those that fit together.
    fn search(&mut self) -> Result<()> {
        let mut found: Vec<(PageRef, ArchiveId, Page, Timestamp)> = Vec::new();
        let mut base = 0;
        while base < self.size {
            let len = (PIECE + 4).min(self.size - base);
            let piece = read_exact(&*self.source, base, len)?;
            for at in self.format.starts(&piece, base) {
                if at as u64 <= PIECE
                    && let Some(hit) = self.page_at(base + at as u64)
                    && found.last().is_none_or(|last| last.0 != hit.0)
                {
                    found.push(hit);
                }
            }
            base += PIECE;
        }
        let id = found.first().map(|(_, id, ..)| *id);
        let mut border = self.format.head().len() as u64;
        for (place, archive, page, created) in found {
            let start = Page::start(page.previous.as_ref(), &*self.format).0;
            if Some(archive) != id || start < border {
                continue;
            }
            if start > border {
                self.spans.push(Span::Gap { start: border, end: start });
            }
            border = place.offset + place.size;
            self.spans.push(Span::Page { page, created });
        }
        if border < self.size {
            self.spans.push(Span::Gap { start: border, end: self.size });
        }
        Ok(())
    }

    fn page_at(&self, offset: u64) -> Option<(PageRef, ArchiveId, Page, Timestamp)> {
        let read = |len: u64| read_exact(&*self.source, offset, len.min(self.size - offset)).ok();
        let head = self.format.decompress_some(&read(2048)?, BLOCK as usize);
        if head.len() != BLOCK as usize || !head.starts_with(b"index/") {
            return None;
        }
        let header = tar::Header::from_byte_slice(&head);
        let number: u64 = std::str::from_utf8(&header.as_old().name)
            .ok()?
            .get(6..)?
            .split('.')
            .next()?
            .parse()
            .ok()?;
        let size = header.entry_size().ok().filter(|size| *size <= MAX_PAGE)?;
        let created = Timestamp::from_micros((header.mtime().ok()? as i64).checked_mul(1_000_000)?);
        let tar_size = BLOCK + size + tar_block::padding(size);
        let packed = read(self.format.bound(tar_size) + 16)?;
        let packed = &packed[..self.format.measure(&packed, tar_size as usize)?];
        let raw = self.format.decompressed(packed, tar_size as usize).ok()?;
        let text = index::unwrap_own(&raw, &index::page_path(number), created, &[]).ok()?;
        // Before its place in the tar is known, its own identity has to be taken from it.
        let first: serde_json::Value =
            serde_json::from_slice(text.split(|b| *b == b'\n').next()?).ok()?;
        let id: ArchiveId = first.get("archive")?.as_str()?.parse().ok()?;
        let previous: Option<PageRef> =
            serde_json::from_value(first.get("previous")?.clone()).ok()?;
        let start = Page::start(previous.as_ref(), &*self.format);
        let page = Page::parse(text, id, start, created, &*self.format).ok()?;
        let end = page.segments.last().map_or(start, |s| (s.end(), s.tar_end()));
        if end.0 != offset || page.number != number {
            return None;
        }
        let place = PageRef {
            offset,
            size: packed.len() as u64,
            tar_offset: end.1,
            tar_size,
            sha256: Sha256Digest::of(packed),
        };
        Some((place, id, page, created))
    }

    /// Where it is, if it was opened as a file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// The manifest, where trailer and root are whole.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.root.as_ref()
    }

    /// Hands every whole part to `visit`, in the order of the file, with its content, which
    /// was checked before; says what is lost.
    ///
    /// # Errors
    /// What `visit` returns; a file that cannot be read.
    pub fn parts(
        &self,
        cancel: &Cancel,
        visit: &mut dyn FnMut(&SalvagedPart, &mut dyn Read) -> Result<()>,
    ) -> Result<SalvageReport> {
        self.walk(cancel, &mut Each(visit))
    }

    pub(super) fn walk(&self, cancel: &Cancel, visit: &mut dyn Visitor) -> Result<SalvageReport> {
        let mut report = SalvageReport {
            id: self.root.as_ref().map(|m| m.id),
            manifest: self.root.is_some(),
            ..SalvageReport::default()
        };
        if self.root.is_none() {
            report.lose("manifest.json", "the root or the trailer is damaged or missing");
        }
        let mut seen = HashSet::new();
        for span in &self.spans {
            match span {
                Span::Page { page, created } => {
                    self.page_parts(page, *created, cancel, &mut seen, &mut report, visit)?;
                }
                Span::Gap { start, end } => {
                    report.lose(
                        format!("index of bytes {start} to {end}"),
                        "the index page is damaged or missing",
                    );
                    visit.gap();
                    self.gap_parts((*start, *end), cancel, &mut seen, &mut report, visit)?;
                }
            }
        }
        Ok(report)
    }

    /// Writes every whole part below `folder`, as [`Archive::extract`] does.
    ///
    /// # Errors
    /// A folder that is not empty or cannot be written.
    pub fn extract(&self, folder: impl AsRef<Path>, cancel: &Cancel) -> Result<SalvageReport> {
        let target = Target::create(folder.as_ref())?;
        let report = self.parts(cancel, &mut |part, content| {
            let mut fill = |out: &mut dyn io::Write| {
                io::copy(content, out)
                    .map(drop)
                    .map_err(|e| Error::io("a file could not be written", e))
            };
            match &part.entry {
                Some(entry) => target.part(entry, &mut fill).map(drop),
                None => target.file(&part.path, &mut fill).map(drop),
            }
        })?;
        if let Some(manifest) = &self.root {
            target.file("manifest.json", &mut |out| {
                out.write_all(&manifest.to_json()?)
                    .map_err(|e| Error::io("a file could not be written", e))
            })?;
        }
        Ok(report)
    }

    fn page_parts(
        &self,
        page: &Page,
        created: Timestamp,
        cancel: &Cancel,
        seen: &mut HashSet<String>,
        report: &mut SalvageReport,
        visit: &mut dyn Visitor,
    ) -> Result<()> {
        let mut tar = TarReader::new(self, &page.segments);
        for part in &page.parts {
            cancel.check()?;
            match tar.check(part, created) {
                Ok(_) if !seen.insert(part.path.clone()) => report.lose(&part.path, TWICE),
                Ok(proof) => {
                    report.whole += 1;
                    report.whole_bytes += part.size;
                    let salvaged = SalvagedPart {
                        path: part.path.clone(),
                        size: part.size,
                        entry: Some(part.clone()),
                        proof,
                    };
                    visit.whole(&salvaged, &mut tar.content(part, created))?;
                }
                Err(error) => {
                    report.lose(&part.path, error.to_string());
                    visit.lost(part);
                }
            }
        }
        Ok(())
    }

    // Every path with its hash, of the list of checksums, wherever it is readable. It needs
    // no proof of its own: damage to it confirms nothing.
    fn confirmed(&self) -> &HashMap<String, Sha256Digest> {
        self.confirmed.get_or_init(|| self.read_checksums())
    }

    fn read_checksums(&self) -> HashMap<String, Sha256Digest> {
        let mut list = Vec::new();
        // Cut short, it still confirms what it holds.
        let mut take = |content: &mut dyn Read| {
            list.clear();
            let _ = content.take(MOST_CHECKSUMS).read_to_end(&mut list);
        };
        for span in self.spans.iter().rev() {
            match span {
                Span::Page { page, created } => {
                    let list = page.parts.iter().find(|p| p.kind == PartKind::Checksums {});
                    if let Some(part) = list {
                        let mut tar = TarReader::new(self, &page.segments);
                        take(&mut tar.content(part, *created));
                        break;
                    }
                }
                Span::Gap { start, end } => {
                    let _ = self.gap(*start, *end, &Cancel::new(), &mut |path, _, content| {
                        if path == "checksums.sha256" {
                            take(content);
                        }
                        Ok(())
                    });
                }
            }
        }
        let lines = list.split(|b| *b == b'\n').filter_map(|line| {
            let (hash, path) = std::str::from_utf8(line).ok()?.split_once("  ")?;
            Some((path.to_owned(), hash.parse().ok()?))
        });
        lines.collect()
    }

    fn gap_parts(
        &self,
        (start, end): (u64, u64),
        cancel: &Cancel,
        seen: &mut HashSet<String>,
        report: &mut SalvageReport,
        visit: &mut dyn Visitor,
    ) -> Result<()> {
        // The first pass hashes; the second hands out what was confirmed, by its number: another
        // file of the same path may come before it.
        let mut whole = Vec::new();
        let mut number = 0_u64..;
        self.gap(start, end, cancel, &mut |path, size, content| {
            let number = number.next();
            let (read, sha256) = match Sha256Digest::of_reader(content) {
                Ok((read, sha256)) => (Some(read), sha256),
                Err(_) => (None, Sha256Digest::of(b"")),
            };
            if path.starts_with("index/") || matches!(path, "manifest.json" | "checksums.sha256") {
                return Ok(());
            }
            match self.confirmed().get(path) {
                _ if read != Some(size) => report.lose(path, "the data is damaged"),
                Some(expected) if *expected == sha256 => {
                    if seen.insert(path.to_owned()) {
                        whole.push(number);
                    } else {
                        report.lose(path, TWICE);
                    }
                }
                Some(_) => report.lose(path, "the content does not match its checksum"),
                None => report.lose(path, "nothing confirms that it belongs to this archive"),
            }
            Ok(())
        })?;
        let mut whole = whole.into_iter().peekable();
        let mut number = 0_u64..;
        self.gap(start, end, cancel, &mut |path, size, content| {
            let number = number.next();
            if whole.next_if_eq(&number).is_none() {
                return Ok(());
            }
            report.whole += 1;
            report.whole_bytes += size;
            let path = path.to_owned();
            let part = SalvagedPart { path, size, entry: None, proof: Proof::Checksums };
            visit.whole(&part, content)
        })
    }

    // Reads a stretch of tar without its index, up to the first damage.
    fn gap(
        &self,
        start: u64,
        end: u64,
        cancel: &Cancel,
        each: &mut dyn FnMut(&str, u64, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let packed = FileRange { source: &*self.source, at: start, end };
        let mut tar = tar::Archive::new(self.format.run(Box::new(packed)));
        let Ok(entries) = tar.entries() else { return Ok(()) };
        for entry in entries {
            cancel.check()?;
            let Ok(mut entry) = entry else { return Ok(()) };
            let path = entry.path_bytes().into_owned();
            let size = entry.size();
            match String::from_utf8(path) {
                Ok(path) if entry.header().entry_type().is_file() => each(&path, size, &mut entry)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Salvage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Salvage").field("spans", &self.spans.len()).finish_non_exhaustive()
    }
}

// By its first bytes; a file that begins with damage is taken for the default.
fn guess(source: &dyn ReadAt, size: u64) -> Result<Codec> {
    let head = read_exact(source, 0, size.min(512))?;
    Ok(if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Codec::Zstd
    } else if head.get(257..262) == Some(b"ustar") {
        Codec::None
    } else {
        Codec::Gzip
    })
}

/// Bytes of the file from one offset to another.
struct FileRange<'a> {
    source: &'a dyn ReadAt,
    at: u64,
    end: u64,
}

impl Read for FileRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min((self.end - self.at) as usize);
        let read = self.source.read_at(&mut buffer[..len], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A segment, as far as it can be decompressed.
struct Loaded {
    place: Segment,
    raw: Vec<u8>,
    whole: bool,
}

/// The tar between two pages, as far as its segments can be decompressed.
struct TarReader<'a> {
    salvage: &'a Salvage,
    segments: &'a [Segment],
    at: u64,
    current: Option<Loaded>,
    // Whether something came from a damaged segment.
    damaged: bool,
}

impl<'a> TarReader<'a> {
    fn new(salvage: &'a Salvage, segments: &'a [Segment]) -> Self {
        Self { salvage, segments, at: 0, current: None, damaged: false }
    }

    // The content of a part, as far as it can be had.
    fn content(&mut self, part: &PartEntry, created: Timestamp) -> impl Read {
        self.at = part.offset + tar_block::part_header(part, created).len() as u64;
        self.take(part.size)
    }

    // Header and content of a part are what the index or the checksums say.
    fn check(&mut self, part: &PartEntry, created: Timestamp) -> Result<Proof> {
        let damaged = |e| Error::io("the data is damaged", e);
        if part.path != part.kind.path() {
            return Err(Error::new(ErrorKind::Hostile, "the path is not the one it must have"));
        }
        let expected = tar_block::part_header(part, created);
        self.at = part.offset;
        self.damaged = false;
        let mut header = vec![0; expected.len()];
        self.read_exact(&mut header).map_err(damaged)?;
        if header != expected {
            return Err(Error::new(ErrorKind::Hostile, "the tar and the index disagree"));
        }
        let (size, sha256) =
            Sha256Digest::of_reader(self.by_ref().take(part.size)).map_err(damaged)?;
        let confirmed = || self.salvage.confirmed().get(&part.path) == Some(&sha256);
        match self.damaged && part.size > 0 {
            _ if size != part.size => {}
            false => return Ok(Proof::Index),
            true if confirmed() => return Ok(Proof::Checksums),
            true => {}
        }
        Err(Error::new(ErrorKind::Corrupt, "the data is damaged"))
    }

    fn load(&self, place: Segment) -> io::Result<Loaded> {
        let packed = read_exact(&*self.salvage.source, place.offset, place.size)?;
        let format = &*self.salvage.format;
        Ok(match unpack(&place, &packed, format) {
            Ok(raw) => Loaded { place, raw, whole: true },
            Err(_) => {
                let raw = format.decompress_some(&packed, place.tar_size as usize);
                Loaded { place, raw, whole: false }
            }
        })
    }
}

impl Read for TarReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let here = |segment: &Segment| (segment.tar_offset..segment.tar_end()).contains(&self.at);
        if !self.current.as_ref().is_some_and(|loaded| here(&loaded.place)) {
            let next = self.segments.partition_point(|segment| segment.tar_end() <= self.at);
            let Some(segment) = self.segments.get(next).filter(|s| here(s)) else { return Ok(0) };
            self.current = Some(self.load(*segment)?);
        }
        let Some(Loaded { place, raw, whole }) = &self.current else { return Ok(0) };
        self.damaged |= !whole;
        let rest = raw.get((self.at - place.tar_offset) as usize..).unwrap_or(&[]);
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::archive::{
        WriterOptions,
        tests::{codecs, noise, sample},
    };

    fn salvage(bytes: Vec<u8>) -> Result<(BTreeSet<String>, SalvageReport)> {
        let mut paths = BTreeSet::new();
        let report = Salvage::from_source(bytes)?.parts(&Cancel::new(), &mut |part, content| {
            assert_eq!(Sha256Digest::of_reader(content).unwrap().0, part.size);
            assert!(paths.insert(part.path.clone()));
            Ok(())
        })?;
        Ok((paths, report))
    }

    fn all(bytes: &[u8]) -> Vec<PartEntry> {
        Archive::from_source(bytes.to_vec()).unwrap().entries().map(|p| p.unwrap()).collect()
    }

    #[test]
    fn a_whole_archive_is_salvaged_whole() {
        for codec in codecs() {
            let bytes = sample(codec, 3 << 20);
            let (paths, report) = salvage(bytes.clone()).unwrap();
            assert_eq!(paths.len(), all(&bytes).len());
            assert_eq!((report.lost_count, report.manifest), (0, true));
        }
    }

    #[test]
    fn without_trailer_and_root_the_pages_are_found() {
        for codec in codecs() {
            let bytes = sample(codec, 3 << 20);
            let root = Archive::from_source(bytes.clone()).unwrap().inner.trailer.root_offset;
            let (paths, report) = salvage(bytes[..root as usize].to_vec()).unwrap();
            assert_eq!(paths.len(), all(&bytes).len(), "{codec:?}");
            assert!(!report.manifest && report.lost_count == 1);
        }
    }

    #[test]
    fn an_archive_inside_the_archive_is_not_taken_for_it() {
        let inner = sample(Codec::Gzip, 2 << 20);
        for cut in [0, 1] {
            let preamble = crate::manifest::Preamble::new(
                ArchiveId::random(),
                Timestamp::now(),
                crate::manifest::Application::default(),
            );
            let options = WriterOptions::default();
            let mut writer =
                crate::archive::ArchiveWriter::new(Vec::new(), &preamble, &options).unwrap();
            writer
                .begin_blob("s", "inner.tar.gz", inner.len() as u64, &[], &Default::default())
                .unwrap();
            writer.data(&inner).unwrap();
            writer.end().unwrap();
            let outer = writer.finish(Manifest::new(&preamble, options.codec)).unwrap().out;
            let root = Archive::from_source(outer.clone()).unwrap().inner.trailer.root_offset;
            let page =
                Archive::from_source(outer.clone()).unwrap().manifest().index.pages[0].offset;
            // Without the root, then without the page as well.
            let end = if cut == 0 { root } else { page };
            match salvage(outer[..end as usize].to_vec()) {
                Ok((paths, _)) => assert!(paths.iter().all(|path| {
                    ["backup.json", "stores/s/_native/inner.tar.gz", "checksums.sha256"]
                        .contains(&&path[..])
                })),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
        }
    }

    #[test]
    fn what_is_no_archive_is_said_to_be_none() {
        for bytes in [vec![], vec![0; 100_000], noise(200_000, 3), b"PK\x03\x04".to_vec()] {
            assert!(salvage(bytes).is_err());
        }
    }
}
