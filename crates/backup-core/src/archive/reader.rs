//! Opening an archive: two reads, whatever its size.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    codec::SegmentFormat,
    entry::{PartEntry, PartKind},
    index::{self, MAX_PAGE, Page, Segment},
    order::Order,
    read_at::{ReadAt, read_exact},
    scan::Scan,
    tar_block::{self, END},
    trailer::Trailer,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    manifest::{Manifest, PageRef, Preamble},
};

/// Largest root.
pub(super) const MAX_ROOT: u64 = 64 << 20;
/// Header and padding around the archive's own files.
const AROUND: u64 = 4096;
/// The first read: enough for trailer and root of most archives.
const TAIL: u64 = 64 << 10;

/// What a reader accepts, beyond the limits that the format has.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Most bytes of all parts together, uncompressed; 16 TiB by default.
    pub total_bytes: u64,
    /// Most parts; 100 million by default.
    pub parts: u64,
    /// Largest part that is read into memory as a whole; 1.5 GiB by default.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total_bytes: 16 << 40, parts: 100_000_000, memory_bytes: 3 << 29 }
    }
}

/// An archive that was opened: trailer and root are checked, nothing else is read yet.
///
/// Cheap to clone. Whatever is read later is checked against the hashes that the root and
/// the index pages hold, before it is handed out.
#[derive(Clone)]
pub struct Archive {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) source: Box<dyn ReadAt>,
    pub(super) format: Arc<dyn SegmentFormat>,
    pub(super) trailer: Trailer,
    pub(super) manifest: Manifest,
    pub(super) limits: Limits,
    path: Option<PathBuf>,
}

impl Archive {
    /// Opens an archive file.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) for a file that is cut, damaged or no archive;
    /// [`UnknownVersion`](ErrorKind::UnknownVersion) for one from a newer format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let open = || {
            let file =
                File::open(path).map_err(|e| Error::io("the archive could not be opened", e))?;
            Self::build(Box::new(file), Limits::default(), Some(path.to_owned()))
        };
        open().map_err(|e| e.on(path.display()))
    }

    /// Opens an archive in anything that can be read at an offset.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_source(source: impl ReadAt + 'static) -> Result<Self> {
        Self::with_limits(source, Limits::default())
    }

    /// Opens an archive with limits of the caller's.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`LimitExceeded`](ErrorKind::LimitExceeded).
    pub fn with_limits(source: impl ReadAt + 'static, limits: Limits) -> Result<Self> {
        Self::build(Box::new(source), limits, None)
    }

    fn build(source: Box<dyn ReadAt>, limits: Limits, path: Option<PathBuf>) -> Result<Self> {
        let size = source.size().map_err(|e| Error::io("the archive's length is not known", e))?;
        let tail_at = size.saturating_sub(TAIL);
        let tail = read_exact(&*source, tail_at, size - tail_at)?;
        let trailer = Trailer::read(&tail, size)?.ok_or_else(no_trailer)?;
        let format: Arc<dyn SegmentFormat> = trailer.codec.format(None)?.into();
        let root = trailer.root(&*format)?;
        let packed = match root.offset.checked_sub(tail_at) {
            Some(at) => tail[at as usize..(at + root.size) as usize].to_vec(),
            None => read_exact(&*source, root.offset, root.size)?,
        };
        let end = &tail[tail.len() - (size - root.end()) as usize..];
        if end[..end.len() - Trailer::len(trailer.codec) as usize]
            != format.tail(trailer.crc32, trailer.tar_size)
        {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the end of the compressed data is damaged",
            ));
        }
        let raw = unpack(&root, &packed, &*format)?;
        let text = index::unwrap_own(&raw, "manifest.json", trailer.created, &END)?;
        let manifest = Manifest::from_json(text)?;
        check_manifest(&manifest, &trailer, &root, &*format)?;
        let exceeded = if manifest.index.parts > limits.parts {
            Some("the archive has more parts than the limit allows")
        } else if trailer.tar_size > limits.total_bytes {
            Some("the archive is larger, uncompressed, than the limit allows")
        } else {
            None
        };
        if let Some(what) = exceeded {
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        Ok(Self { inner: Arc::new(Inner { source, format, trailer, manifest, limits, path }) })
    }

    /// What the archive says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// The file it was opened from, if it was one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.inner.trailer.file_size
    }

    /// All parts, in order, read page by page from the index.
    #[must_use]
    pub fn entries(&self) -> Entries {
        Entries { pages: Some(Pages::new(self.clone())), parts: Vec::new().into_iter() }
    }

    /// The content of one part, checked.
    ///
    /// # Errors
    /// Damage; a part larger than [`Limits::memory_bytes`].
    pub fn read(&self, part: &PartEntry) -> Result<Bytes> {
        let mut scan = Scan::of_part(self, part)?;
        scan.next_part()?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the archive has no such part").on(&part.path)
        })?;
        scan.whole()
    }

    /// What was known when the backup began.
    ///
    /// # Errors
    /// Damage.
    pub fn preamble(&self) -> Result<Preamble> {
        let first = self.entries().next().transpose()?;
        let first = first.filter(|part| part.kind == PartKind::Preamble {}).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the archive does not begin with backup.json")
        })?;
        Preamble::from_json(&self.read(&first)?)
    }

    /// The configuration that was stored under `name`.
    ///
    /// # Errors
    /// Damage; [`NotFound`](ErrorKind::NotFound).
    pub fn config(&self, name: &str) -> Result<serde_json::Value> {
        for part in self.entries() {
            let part = part?;
            if matches!(&part.kind, PartKind::Config { name: n } if n == name) {
                return crate::record::canonical::parse(&self.read(&part)?);
            }
        }
        Err(Error::new(ErrorKind::NotFound, "the archive holds no such configuration").on(name))
    }

    /// Page number `number`, checked against the root and its neighbours.
    pub(super) fn page(&self, number: usize) -> Result<Page> {
        let Inner { source, format, trailer, manifest, .. } = &*self.inner;
        let pages = &manifest.index.pages;
        let previous = number.checked_sub(1).map(|n| &pages[n]);
        let read = || {
            let page =
                load_page(&**source, &pages[number], number as u64, trailer, &**format, previous)?;
            let agrees = page.previous.as_ref() == previous
                && page
                    .segments
                    .last()
                    .map_or(Page::start(previous, &**format), |s| (s.end(), s.tar_end()))
                    == (pages[number].offset, pages[number].tar_offset);
            if agrees {
                return Ok(page);
            }
            Err(Error::new(ErrorKind::Corrupt, "an index page does not fit between its neighbours"))
        };
        read().map_err(|e| e.on(index::page_path(number as u64)))
    }

    pub(super) fn scan(
        &self,
        wanted: impl Fn(&PartEntry) -> bool + Send + 'static,
        cancel: &Cancel,
    ) -> Result<Scan> {
        Scan::new(self, Box::new(wanted), cancel)
    }
}

/// Reads a page where a reference says that it is.
pub(super) fn load_page(
    source: &dyn ReadAt,
    place: &PageRef,
    number: u64,
    trailer: &Trailer,
    format: &dyn SegmentFormat,
    previous: Option<&PageRef>,
) -> Result<Page> {
    let segment = Segment::from(place);
    let packed = read_exact(source, segment.offset, segment.size)?;
    let raw = unpack(&segment, &packed, format)?;
    let text = index::unwrap_own(&raw, &index::page_path(number), trailer.created, &[])?;
    let start = Page::start(previous, format);
    let page = Page::parse(text, trailer.id, start, trailer.created, format)?;
    if page.number != number {
        return Err(Error::new(ErrorKind::Corrupt, "an index page has a wrong number"));
    }
    Ok(page)
}

/// Checks a segment's hash and decompresses it.
pub(super) fn unpack(
    segment: &Segment,
    packed: &[u8],
    format: &dyn SegmentFormat,
) -> Result<Vec<u8>> {
    segment.check_hash(packed)?;
    format.decompressed(packed, segment.tar_size as usize).map_err(|e| segment.place(e))
}

impl Trailer {
    /// The root's segment, its place checked against the file's length.
    fn root(&self, format: &dyn SegmentFormat) -> Result<Segment> {
        let root = Segment {
            offset: self.root_offset,
            size: self.root_size,
            tar_offset: self.tar_size.wrapping_sub(self.root_tar_size),
            tar_size: self.root_tar_size,
            sha256: self.root_sha256,
        };
        root.check(MAX_ROOT + AROUND, format)?;
        let tail = format.tail(0, 0).len() as u64 + Self::len(self.codec);
        if self.root_tar_size > self.tar_size || root.end() + tail != self.file_size {
            return Err(Error::new(ErrorKind::Corrupt, "the trailer does not fit the file"));
        }
        Ok(root)
    }
}

fn no_trailer() -> Error {
    Error::new(ErrorKind::Corrupt, "the file has no trailer: it is cut, or not an archive")
        .advise("take another backup; `salvage` recovers what is whole in a cut archive")
}

fn check_manifest(
    manifest: &Manifest,
    trailer: &Trailer,
    root: &Segment,
    format: &dyn SegmentFormat,
) -> Result<()> {
    let corrupt = |what: &str| Err(Error::new(ErrorKind::Corrupt, what).on("manifest.json"));
    if manifest.id != trailer.id
        || manifest.created != trailer.created
        || manifest.codec != trailer.codec
        || manifest.index.tar_size != root.tar_offset
    {
        return corrupt("the root and the trailer disagree");
    }
    let mut at = Page::start(None, format);
    for page in &manifest.index.pages {
        let segment = Segment::from(page);
        segment.check(MAX_PAGE + AROUND, format)?;
        if segment.offset < at.0 || segment.tar_offset < at.1 {
            return corrupt("index pages overlap");
        }
        at = (segment.end(), segment.tar_end());
    }
    if at != (root.offset, root.tar_offset) {
        return corrupt("the last index page does not end where the root begins");
    }
    Ok(())
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive")
            .field("id", &self.inner.manifest.id)
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

/// Goes along the pages and checks that parts are in order, fill the tar, and are all there.
pub(super) struct Pages {
    archive: Archive,
    next: usize,
    order: Order,
    position: u64,
    parts: u64,
    bytes: u64,
}

impl Pages {
    pub(super) fn new(archive: Archive) -> Self {
        Self { archive, next: 0, order: Order::default(), position: 0, parts: 0, bytes: 0 }
    }

    /// The next page; `None` after the last one, once everything was found to agree.
    pub(super) fn next(&mut self) -> Result<Option<Page>> {
        let manifest = &self.archive.inner.manifest;
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, what);
        let Some(place) = manifest.index.pages.get(self.next) else {
            if !self.order.is_complete()
                || self.parts != manifest.index.parts
                || self.bytes != manifest.index.bytes
            {
                return Err(corrupt("the index does not hold all the parts that the root counts"));
            }
            return Ok(None);
        };
        let page = self.archive.page(self.next)?;
        for part in &page.parts {
            self.order.check(part)?;
            self.parts += 1;
            self.bytes += part.size;
        }
        if let Some(last) = page.parts.last() {
            self.position = last.offset + tar_block::part_len(last, manifest.created);
        }
        if self.position != place.tar_offset {
            return Err(corrupt("parts do not fill the space before their index page")
                .on(index::page_path(self.next as u64)));
        }
        self.position = place.tar_offset + place.tar_size;
        self.next += 1;
        Ok(Some(page))
    }
}

/// All parts of an archive; see [`Archive::entries`].
///
/// Ends after the first error.
pub struct Entries {
    pages: Option<Pages>,
    parts: std::vec::IntoIter<PartEntry>,
}

impl Iterator for Entries {
    type Item = Result<PartEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(part) = self.parts.next() {
                return Some(Ok(part));
            }
            match self.pages.as_mut()?.next() {
                Ok(Some(page)) => self.parts = page.parts.into_iter(),
                Ok(None) => self.pages = None,
                Err(error) => {
                    self.pages = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entries")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        archive::{
            Codec,
            plain::{End, archive_in_pieces, every_kind},
            tests::sample,
        },
        record::Sha256Digest,
    };

    fn place(offset: u64, size: u64, tar_offset: u64, tar_size: u64) -> PageRef {
        PageRef { offset, size, tar_offset, tar_size, sha256: Sha256Digest::of(b"") }
    }

    // Two pages and the root, end to end: what they say of each other, and what the trailer says.
    fn end_to_end() -> (Manifest, Trailer) {
        let archive = Archive::from_source(sample(Codec::Gzip, 100)).unwrap();
        let mut manifest = archive.manifest().clone();
        manifest.index.pages = vec![place(10, 5, 0, 512), place(15, 5, 512, 512)];
        manifest.index.tar_size = 1024;
        let tail = 8 + 2 + Trailer::len(Codec::Gzip);
        let trailer = Trailer {
            codec: manifest.codec,
            id: manifest.id,
            created: manifest.created,
            root_offset: 20,
            root_size: 30,
            root_tar_size: 2048,
            root_sha256: Sha256Digest::of(b""),
            tar_size: 1024 + 2048,
            crc32: 0,
            file_size: 20 + 30 + tail,
        };
        (manifest, trailer)
    }

    fn check(manifest: &Manifest, trailer: &Trailer) -> Result<()> {
        let format = Codec::Gzip.format(None)?;
        check_manifest(manifest, trailer, &trailer.root(&*format)?, &*format)
    }

    #[test]
    fn the_root_agrees_with_the_trailer_and_its_pages_with_each_other() {
        let (manifest, trailer) = end_to_end();
        check(&manifest, &trailer).unwrap();
        let changes: [fn(&mut Manifest); 8] = [
            |m| m.id = crate::ArchiveId::from_bytes([1; 16]),
            |m| m.created = crate::Timestamp::from_micros(1),
            |m| m.codec = Codec::None,
            |m| m.index.tar_size += 512,
            // The second begins within the first, in the file or in the tar.
            |m| m.index.pages[1] = place(14, 6, 512, 512),
            |m| m.index.pages[1] = place(15, 5, 511, 513),
            // The last ends before the root, in the file or in the tar.
            |m| m.index.pages[1] = place(15, 4, 512, 512),
            |m| m.index.pages[1] = place(15, 5, 512, 511),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = manifest.clone();
            change(&mut changed);
            let error = check(&changed, &trailer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "change {number}");
        }
        let with_page_of = |tar_size: u64| {
            let (mut manifest, mut trailer) = end_to_end();
            manifest.index.pages[1].tar_size = tar_size;
            manifest.index.tar_size = 512 + tar_size;
            trailer.tar_size = manifest.index.tar_size + trailer.root_tar_size;
            check(&manifest, &trailer)
        };
        with_page_of(MAX_PAGE + AROUND).unwrap();
        assert!(with_page_of(MAX_PAGE + AROUND + 1).is_err());
    }

    #[test]
    fn the_root_has_a_limit_and_its_place_fits_the_file() {
        let format = Codec::Gzip.format(None).unwrap();
        let (_, trailer) = end_to_end();
        let root = |change: fn(&mut Trailer)| {
            let mut trailer = trailer.clone();
            change(&mut trailer);
            trailer.root(&*format)
        };
        assert_eq!(root(|_| ()).unwrap().tar_offset, 1024);
        // Nothing before it, and as large as may be.
        root(|t| t.tar_size = t.root_tar_size).unwrap();
        let largest = |t: &mut Trailer| {
            t.root_tar_size = MAX_ROOT + AROUND;
            t.tar_size = t.root_tar_size;
        };
        root(largest).unwrap();
        let changes: [fn(&mut Trailer); 4] = [
            |t| t.tar_size = t.root_tar_size - 1,
            |t| t.file_size += 1,
            |t| t.file_size -= 1,
            |t| {
                t.root_tar_size = MAX_ROOT + AROUND + 1;
                t.tar_size = t.root_tar_size;
            },
        ];
        for change in changes {
            assert_eq!(root(change).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    // An archive in memory, and what its root is made to say.
    fn opened(bytes: Vec<u8>, change: impl FnOnce(&mut Manifest)) -> Archive {
        let mut archive = Archive::from_source(bytes).unwrap();
        change(&mut Arc::get_mut(&mut archive.inner).unwrap().manifest);
        archive
    }

    #[test]
    fn a_page_that_names_another_one_before_it_is_refused() {
        let (stores, config) = every_kind();
        let mut bytes = archive_in_pieces(&stores, &config, Codec::None, |_| End::Page);
        let archive = Archive::from_source(bytes.clone()).unwrap();
        assert!(archive.entries().all(|part| part.is_ok()));
        // Where the first page is, in the second: another place, under a hash that is right.
        let page = Segment::from(&archive.manifest().index.pages[1]);
        let page = &mut bytes[page.offset as usize..page.end() as usize];
        let name = b"\"tar_offset\":";
        let at = page.windows(name.len()).position(|window| window == name).unwrap();
        page[at + name.len()] = b'9';
        let sha256 = Sha256Digest::of(page);
        let archive = opened(bytes, |manifest| manifest.index.pages[1].sha256 = sha256);
        archive.page(0).unwrap();
        let error = archive.page(1).unwrap_err().to_string();
        assert!(error.contains("neighbours"), "{error}");
    }

    // Writers make none without parts. It leads on where nothing lies before it, and hides nothing.
    #[test]
    fn a_page_without_parts_has_nothing_before_it() {
        let (stores, config) = every_kind();
        let bytes = archive_in_pieces(&stores, &config, Codec::None, |_| End::Page);
        let archive = Archive::from_source(bytes.clone()).unwrap();
        let (first, second) = (archive.manifest().index.pages[0].clone(), archive.page(1).unwrap());
        let read = |offset: u64, tar_offset: u64, segments: &[Segment]| {
            let (id, created) = (archive.manifest().id, archive.manifest().created);
            let text = Page::write(id, 1, Some(first.clone()), segments, 0, b"").unwrap();
            let mut raw = tar_block::plain_header(&index::page_path(1), text.len() as u64, created);
            raw.extend_from_slice(&text);
            raw.resize(raw.len().next_multiple_of(512), 0);
            let (size, sha256) = (raw.len() as u64, Sha256Digest::of(&raw));
            let mut bytes = bytes.clone();
            bytes[offset as usize..][..raw.len()].copy_from_slice(&raw);
            let place = PageRef { offset, size, tar_offset, tar_size: size, sha256 };
            let mut pages = Pages::new(opened(bytes, |m| m.index.pages[1] = place));
            pages.next().unwrap();
            pages.next().map(|page| page.unwrap().parts.len())
        };
        let end = Segment::from(&first);
        assert_eq!(read(end.end(), end.tar_end(), &[]).unwrap(), 0);
        let last = second.segments.last().unwrap();
        let error = read(last.end(), last.tar_end(), &second.segments).unwrap_err().to_string();
        assert!(error.contains("do not fill"), "{error}");
    }

    #[test]
    fn the_root_counts_the_parts_and_their_bytes() {
        let changes: [fn(&mut Manifest); 4] = [
            |manifest| manifest.index.parts += 1,
            |manifest| manifest.index.parts -= 1,
            |manifest| manifest.index.bytes += 1,
            |manifest| manifest.index.bytes -= 1,
        ];
        for change in changes {
            let archive = opened(sample(Codec::Gzip, 100), change);
            let error = archive.entries().last().unwrap().unwrap_err().to_string();
            assert!(error.contains("that the root counts"), "{error}");
        }
    }
}
