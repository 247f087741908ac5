//! Index pages: which parts and segments lie between the previous page and this one.

use serde::{Deserialize, Serialize};

use super::{
    codec::SegmentFormat,
    entry::PartEntry,
    tar_block::{self, BLOCK},
};
use crate::{
    clock::{ArchiveId, Timestamp},
    error::{Error, ErrorKind, Result},
    manifest::PageRef,
    record::{Sha256Digest, canonical},
};

/// The writer ends a page when this much of the tar has passed, or its text grows to
/// [`PAGE_TEXT`].
pub(super) const PAGE_SPAN: u64 = 64 << 20;
/// See [`PAGE_SPAN`].
pub(super) const PAGE_TEXT: usize = 3 << 20;
/// Largest page: only one that follows a part of terabytes comes near it.
pub(super) const MAX_PAGE: u64 = 64 << 20;

/// No line of a page is shorter.
const SHORTEST_LINE: u64 = 32;

/// One compressed run of the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Offset in the file.
    pub(super) offset: u64,
    /// Compressed length.
    pub(super) size: u64,
    /// Offset in the tar.
    pub(super) tar_offset: u64,
    /// Length in the tar.
    pub(super) tar_size: u64,
    /// Hash of the compressed bytes.
    pub(super) sha256: Sha256Digest,
}

impl Segment {
    pub(super) fn end(&self) -> u64 {
        self.offset + self.size
    }
    pub(super) fn tar_end(&self) -> u64 {
        self.tar_offset + self.tar_size
    }
}

impl From<&PageRef> for Segment {
    fn from(page: &PageRef) -> Self {
        let PageRef { offset, size, tar_offset, tar_size, sha256 } = *page;
        Self { offset, size, tar_offset, tar_size, sha256 }
    }
}

impl From<Segment> for PageRef {
    fn from(segment: Segment) -> Self {
        let Segment { offset, size, tar_offset, tar_size, sha256 } = segment;
        Self { offset, size, tar_offset, tar_size, sha256 }
    }
}

/// What a page says; the segments lie end to end from the previous page to this one.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) number: u64,
    pub(super) previous: Option<PageRef>,
    pub(super) segments: Vec<Segment>,
    pub(super) parts: Vec<PartEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadLine {
    archive: ArchiveId,
    number: u64,
    parts: u64,
    previous: Option<PageRef>,
    segments: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentLine {
    sha256: Sha256Digest,
    size: u64,
    tar_size: u64,
}

/// The path of page `number`.
pub(super) fn page_path(number: u64) -> String {
    format!("index/{number:06}.jsonl")
}

/// One line of canonical JSON.
pub(super) fn line(out: &mut Vec<u8>, value: &impl Serialize) -> Result<()> {
    let value = serde_json::to_value(value).map_err(|e| {
        Error::new(ErrorKind::InvalidInput, "JSON cannot hold a part's facts").because(e)
    })?;
    canonical::Writer::new(out).value(&value)?;
    out.push(b'\n');
    Ok(())
}

impl Page {
    /// The page's text; `parts` are lines already.
    pub(super) fn write(
        archive: ArchiveId,
        number: u64,
        previous: Option<PageRef>,
        segments: &[Segment],
        parts: u64,
        part_lines: &[u8],
    ) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(part_lines.len() + segments.len() * 112 + 512);
        line(
            &mut out,
            &HeadLine { archive, number, parts, previous, segments: segments.len() as u64 },
        )?;
        for segment in segments {
            let Segment { size, tar_size, sha256, .. } = *segment;
            line(&mut out, &SegmentLine { sha256, size, tar_size })?;
        }
        out.extend_from_slice(part_lines);
        Ok(out)
    }

    /// Reads a page's text. `start` is where the first segment begins in file and tar, and the
    /// first part in the tar: the end of the previous page, or of the file's head.
    pub(super) fn parse(
        text: &[u8],
        archive: ArchiveId,
        start: (u64, u64),
        created: Timestamp,
        format: &dyn SegmentFormat,
    ) -> Result<Self> {
        let corrupt = |what: &'static str| Error::new(ErrorKind::Corrupt, what);
        let bad = |e: serde_json::Error| corrupt("an index page cannot be read").because(e);
        let mut lines = text.split_inclusive(|b| *b == b'\n');
        let mut next = || lines.next().ok_or_else(|| corrupt("an index page ends too early"));
        let head: HeadLine = serde_json::from_slice(next()?).map_err(bad)?;
        if head.archive != archive {
            return Err(corrupt("an index page belongs to another archive"));
        }
        let most = text.len() as u64 / SHORTEST_LINE;
        if head.segments > most || head.parts > most {
            return Err(corrupt("an index page claims more lines than it has"));
        }
        let (mut offset, mut tar_offset) = start;
        let mut segments = Vec::with_capacity(head.segments as usize);
        for _ in 0..head.segments {
            let SegmentLine { sha256, size, tar_size } =
                serde_json::from_slice(next()?).map_err(bad)?;
            let segment = Segment { offset, size, tar_offset, tar_size, sha256 };
            segment.check(super::segments::SEGMENT, format)?;
            offset += size;
            tar_offset += tar_size;
            segments.push(segment);
        }
        let mut parts = Vec::with_capacity(head.parts as usize);
        let mut offset = start.1;
        for _ in 0..head.parts {
            let mut part: PartEntry = serde_json::from_slice(next()?).map_err(bad)?;
            if part.size > 1 << 60 || offset > 1 << 60 {
                return Err(corrupt("a part's place is out of all bounds").on(&part.path));
            }
            part.offset = offset;
            offset += tar_block::part_len(&part, created);
            parts.push(part);
        }
        if lines.next().is_some() {
            return Err(corrupt("an index page has lines left over"));
        }
        Ok(Self { number: head.number, previous: head.previous, segments, parts })
    }

    /// Where the page's segments begin in file and tar, known from the previous page alone.
    pub(super) fn start(previous: Option<&PageRef>, format: &dyn SegmentFormat) -> (u64, u64) {
        previous.map_or((format.head().len() as u64, 0), |page| {
            (page.offset + page.size, page.tar_offset + page.tar_size)
        })
    }
}

impl Segment {
    /// Lengths within their limits, so that nothing overflows and nothing large is allocated.
    pub(super) fn check(&self, max_tar_size: u64, format: &dyn SegmentFormat) -> Result<()> {
        let wild = self.tar_size > max_tar_size
            || self.size > format.bound(self.tar_size)
            || self.tar_size == 0
            || self.offset > 1 << 60
            || self.tar_offset > 1 << 60;
        if wild {
            return Err(Error::new(ErrorKind::Corrupt, "a segment's place is out of all bounds"));
        }
        Ok(())
    }

    /// Compares what was read with the segment's hash; comes before anything is decompressed.
    pub(super) fn check_hash(&self, packed: &[u8]) -> Result<()> {
        if Sha256Digest::of(packed) == self.sha256 {
            return Ok(());
        }
        Err(self.place(Error::new(ErrorKind::Corrupt, "the bytes do not match their hash")))
    }

    /// Says that an error is of this segment.
    pub(super) fn place(&self, error: Error) -> Error {
        error.on(format!("segment at offset {}", self.offset))
    }
}

/// Takes a file of the archive's own (a page, the root) out of its segment's bytes, which
/// must be exactly what the writer makes of it.
pub(super) fn unwrap_own<'a>(
    raw: &'a [u8],
    path: &str,
    created: Timestamp,
    end: &[u8],
) -> Result<&'a [u8]> {
    let corrupt = || {
        Error::new(ErrorKind::Corrupt, "a file of the archive's own is not what it should be")
            .on(path)
    };
    // The header is one block; the size in it is the only thing that is not known.
    let header = raw.get(..BLOCK as usize).ok_or_else(corrupt)?;
    let size = tar::Header::from_byte_slice(header).entry_size().map_err(|_| corrupt())?;
    let body_end = BLOCK.checked_add(size).ok_or_else(corrupt)?;
    let padded = body_end.checked_add(tar_block::padding(size)).ok_or_else(corrupt)?;
    let whole = raw.len() as u64 == padded + end.len() as u64
        && header == tar_block::plain_header(path, size, created)
        && raw[body_end as usize..padded as usize].iter().all(|b| *b == 0)
        && &raw[padded as usize..] == end;
    if !whole {
        return Err(corrupt());
    }
    Ok(&raw[BLOCK as usize..body_end as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Codec, PartKind};

    const ID: ArchiveId = ArchiveId::from_bytes([7; 16]);
    const CREATED: Timestamp = Timestamp::from_micros(0);
    const FAR: u64 = 1 << 60;

    fn parse(text: &[u8], start: (u64, u64)) -> Result<Page> {
        Page::parse(text, ID, start, CREATED, &*Codec::Gzip.format(None).unwrap())
    }

    #[test]
    fn each_length_and_place_of_a_segment_has_a_limit() {
        let format = Codec::Gzip.format(None).unwrap();
        let (size, sha256) = (format.bound(100), Sha256Digest::of(b""));
        let most = Segment { offset: FAR, size, tar_offset: FAR, tar_size: 100, sha256 };
        most.check(100, &*format).unwrap();
        for beyond in [
            Segment { offset: FAR + 1, ..most },
            Segment { size: size + 1, ..most },
            Segment { tar_offset: FAR + 1, ..most },
            Segment { tar_size: 101, ..most },
            Segment { tar_size: 0, size: 0, ..most },
        ] {
            let error = beyond.check(100, &*format).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{beyond:?}");
        }
    }

    #[test]
    fn a_page_cannot_claim_more_lines_than_its_length_allows() {
        let claim = |segments: u64, parts: u64| {
            let mut text = Vec::new();
            let head = HeadLine { archive: ID, number: 0, parts, previous: None, segments };
            line(&mut text, &head).unwrap();
            (text.len() as u64 / SHORTEST_LINE, parse(&text, (10, 0)).unwrap_err().to_string())
        };
        let (most, _) = claim(1, 1);
        for (segments, parts, wild) in
            [(most, 0, false), (most + 1, 0, true), (0, most, false), (0, most + 1, true)]
        {
            let (_, said) = claim(segments, parts);
            assert_eq!(said.contains("claims more lines"), wild, "{segments} {parts}: {said}");
        }
    }

    #[test]
    fn sizes_and_places_of_parts_have_a_limit() {
        let page = |sizes: &[u64], start: u64| {
            let mut lines = Vec::new();
            for size in sizes {
                let kind = PartKind::Preamble {};
                let part = PartEntry { path: kind.path(), offset: 0, size: *size, kind };
                line(&mut lines, &part).unwrap();
            }
            let text = Page::write(ID, 0, None, &[], sizes.len() as u64, &lines).unwrap();
            parse(&text, (10, start)).map(|page| page.parts.last().unwrap().offset)
        };
        assert_eq!(page(&[FAR], 0).unwrap(), 0);
        assert_eq!(page(&[0], FAR).unwrap(), FAR);
        for (sizes, start) in [(&[FAR + 1][..], 0), (&[0], FAR + 1), (&[FAR, 0], 0)] {
            let error = page(sizes, start).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{sizes:?} at {start}");
        }
    }

    #[test]
    fn a_page_begins_where_the_one_before_it_ends() {
        let format = Codec::Gzip.format(None).unwrap();
        assert_eq!(Page::start(None, &*format), (10, 0));
        let sha256 = Sha256Digest::of(b"");
        let page = PageRef { offset: 1000, size: 30, tar_offset: 5120, tar_size: 1024, sha256 };
        assert_eq!(Page::start(Some(&page), &*format), (1030, 6144));
    }

    #[test]
    fn an_own_file_is_what_the_writer_makes_of_it_and_nothing_else() {
        let end = [0; 1024];
        let mut good = tar_block::plain_header("a", 3, CREATED);
        good.extend_from_slice(b"abc");
        good.resize(2 * BLOCK as usize + end.len(), 0);
        let unwrap = |raw: &[u8]| unwrap_own(raw, "a", CREATED, &end).map(<[u8]>::to_vec);
        assert_eq!(unwrap(&good).unwrap(), b"abc");
        // A byte of the header (its mode), of the padding, and of what comes at the end.
        for at in [100, 700, 1100] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(unwrap(&bad).is_err(), "byte {at}");
        }
        for len in [good.len() + 1, good.len() - 1, BLOCK as usize + 3, BLOCK as usize, 0] {
            let mut bad = good.clone();
            bad.resize(len, 0);
            assert!(unwrap(&bad).is_err(), "{len} bytes");
        }
    }
}
