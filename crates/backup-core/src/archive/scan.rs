//! One pass over parts: segments are read, checked against their hashes and decompressed
//! ahead, on all cores and in bounded memory; headers and padding are checked as they pass.

use std::{collections::VecDeque, sync::mpsc};

use bytes::Bytes;

use super::{
    buffers::Buffers,
    entry::PartEntry,
    hashes::ContentHasher,
    index::Segment,
    read_at::fill,
    reader::{Archive, Inner, Pages},
    segments::{SEGMENT, thread_pool},
    tar_block,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
};

/// Budget for segments under way, each with its packed and its raw bytes.
const MEMORY: u64 = 48 << 20;

/// The crate's state of a running CRC-32, which can be combined.
pub(super) type Crc = crc32fast::Hasher;

type Loaded = Result<(Bytes, Crc)>;

/// A pass over the wanted parts, in the order of the archive.
pub(super) struct Scan {
    archive: Archive,
    // `None`: all pages are read.
    pages: Option<Pages>,
    wanted: Box<dyn Fn(&PartEntry) -> bool + Send>,
    cancel: Cancel,
    // `None`: one part only, not worth threads.
    threads: Option<Threads>,
    parts: VecDeque<PartEntry>,
    // Segments that hold something wanted: still to be asked for, and asked for.
    ahead: VecDeque<Segment>,
    pending: VecDeque<(Segment, mpsc::Receiver<Loaded>)>,
    buffers: Buffers,
    // The segment being read: where it begins in the tar, and its bytes.
    current: (u64, Bytes),
    open: Option<Open>,
    /// CRC-32 of every segment that passed, by its offset in the tar.
    pub(super) crcs: Vec<(u64, Crc)>,
}

struct Threads {
    segments: rayon::ThreadPool,
    // A thread apart, so that a hash need not wait for the segments that were asked for before it.
    hashes: rayon::ThreadPool,
}

// The part being read.
struct Open {
    part: PartEntry,
    position: u64,
    end: u64,
}

impl Scan {
    pub(super) fn new(
        archive: &Archive,
        wanted: Box<dyn Fn(&PartEntry) -> bool + Send>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let segments = thread_pool(cores.min((MEMORY / (2 * SEGMENT)) as usize))?;
        let threads = Threads { segments, hashes: thread_pool(1)? };
        let pages = Some(Pages::new(archive.clone()));
        Ok(Self::build(archive, pages, wanted, cancel, Some(threads)))
    }

    /// A pass over one part, of which only its own page and segments are read.
    pub(super) fn of_part(archive: &Archive, part: &PartEntry) -> Result<Self> {
        let pages = &archive.inner.manifest.index.pages;
        let number = pages.partition_point(|page| page.tar_offset <= part.offset);
        let mut scan = Self::build(archive, None, Box::new(|_| true), &Cancel::new(), None);
        if number < pages.len() {
            let page = archive.page(number)?;
            if page.parts.contains(part) {
                scan.take(vec![part.clone()], page.segments);
            }
        }
        Ok(scan)
    }

    fn build(
        archive: &Archive,
        pages: Option<Pages>,
        wanted: Box<dyn Fn(&PartEntry) -> bool + Send>,
        cancel: &Cancel,
        threads: Option<Threads>,
    ) -> Self {
        Self {
            archive: archive.clone(),
            pages,
            wanted,
            cancel: cancel.clone(),
            threads,
            parts: VecDeque::new(),
            ahead: VecDeque::new(),
            pending: VecDeque::new(),
            buffers: Buffers::default(),
            current: (0, Bytes::new()),
            open: None,
            crcs: Vec::new(),
        }
    }

    // Queues parts of one page, and the segments that hold them.
    fn take(&mut self, parts: Vec<PartEntry>, segments: Vec<Segment>) {
        let created = self.archive.inner.manifest.created;
        let ranges: Vec<_> = parts
            .iter()
            .map(|part| (part.offset, part.offset + tar_block::part_len(part, created)))
            .collect();
        let mut range = 0;
        for segment in segments {
            while range < ranges.len() && ranges[range].1 <= segment.tar_offset {
                range += 1;
            }
            if ranges.get(range).is_some_and(|(start, _)| *start < segment.tar_end()) {
                self.ahead.push_back(segment);
            }
        }
        self.parts.extend(parts);
    }

    /// The next wanted part; what is left of the one before is checked and passed over.
    pub(super) fn next_part(&mut self) -> Result<Option<PartEntry>> {
        while self.open.is_some() {
            self.chunk()?;
        }
        while self.parts.is_empty() {
            if !self.next_page()? {
                return Ok(None);
            }
        }
        let Some(part) = self.parts.pop_front() else { return Ok(None) };
        let expected = tar_block::part_header(&part, self.archive.inner.manifest.created);
        let header = self.exact(part.offset, expected.len()).map_err(|e| e.on(&part.path))?;
        if header != expected {
            return Err(Error::new(ErrorKind::Hostile, "the tar and the index disagree on a part")
                .on(&part.path));
        }
        let position = part.offset + expected.len() as u64;
        let end = position + part.size;
        self.open = Some(Open { part: part.clone(), position, end });
        Ok(Some(part))
    }

    fn next_page(&mut self) -> Result<bool> {
        let Some(pages) = &mut self.pages else { return Ok(false) };
        let Some(page) = pages.next()? else {
            self.pages = None;
            return Ok(false);
        };
        let wanted = page.parts.into_iter().filter(|part| (self.wanted)(part)).collect();
        self.take(wanted, page.segments);
        Ok(true)
    }

    /// The next piece of the part's content, whose hash was found to be right; `None` after
    /// the last.
    pub(super) fn chunk(&mut self) -> Result<Option<Bytes>> {
        let Some(mut open) = self.open.take() else { return Ok(None) };
        let path = |e: Error| e.on(&open.part.path);
        if open.position < open.end {
            let chunk = self.some(open.position, open.end - open.position).map_err(path)?;
            open.position += chunk.len() as u64;
            self.open = Some(open);
            return Ok(Some(chunk));
        }
        let padding = tar_block::padding(open.part.size) as usize;
        if self.exact(open.end, padding).map_err(path)?.iter().any(|b| *b != 0) {
            return Err(path(Error::new(ErrorKind::Hostile, "there is something after a part")));
        }
        Ok(None)
    }

    /// Hashes a piece that came out, with the help of the threads.
    pub(super) fn hash(&self, hasher: &mut ContentHasher, chunk: &[u8]) {
        match &self.threads {
            Some(threads) => hasher.update_with(&threads.hashes, chunk),
            None => hasher.update(chunk),
        }
    }

    /// The whole content of the part, checked.
    pub(super) fn whole(&mut self) -> Result<Bytes> {
        let Some(open) = &self.open else { return Ok(Bytes::new()) };
        let size = open.end - open.position;
        if size > self.archive.inner.limits.memory_bytes {
            return Err(Error::new(ErrorKind::LimitExceeded, "the part is too large for memory")
                .on(&open.part.path)
                .advise("extract it to a file"));
        }
        let mut all = Vec::with_capacity(size as usize);
        while let Some(chunk) = self.chunk()? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }

    fn exact(&mut self, position: u64, len: usize) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            let chunk = self.some(position + out.len() as u64, (len - out.len()) as u64)?;
            out.extend_from_slice(&chunk);
        }
        Ok(out)
    }

    // At most `limit` bytes of the tar, from the segment that holds `position`.
    fn some(&mut self, position: u64, limit: u64) -> Result<Bytes> {
        loop {
            let (start, bytes) = &self.current;
            if let Some(at) = position.checked_sub(*start).filter(|at| *at < bytes.len() as u64) {
                let end = (at + limit).min(bytes.len() as u64);
                return Ok(bytes.slice(at as usize..end as usize));
            }
            self.cancel.check()?;
            self.fill()?;
            let Some((segment, raw)) = self.pending.pop_front() else {
                return Err(Error::new(ErrorKind::Corrupt, "a part lies outside of all segments"));
            };
            let (raw, crc) =
                raw.recv().map_err(|_| Error::adapter("a decompressing thread died"))??;
            self.crcs.push((segment.tar_offset, crc));
            self.current = (segment.tar_offset, raw);
        }
    }

    // One more than there are threads, so that none waits: more would only take memory.
    fn most_pending(&self) -> usize {
        let threads = self.threads.as_ref().map_or(0, |t| t.segments.current_num_threads());
        (threads + 1).min((MEMORY / (2 * SEGMENT)) as usize)
    }

    // Asks for segments up to the budget; reads on in the index so that there is no pause
    // at the border of a page.
    fn fill(&mut self) -> Result<()> {
        while self.pending.len() < self.most_pending() {
            let Some(segment) = self.ahead.pop_front() else {
                if self.threads.is_some() && self.pages.is_some() && self.next_page()? {
                    continue;
                }
                return Ok(());
            };
            let (done, raw) = mpsc::sync_channel(1);
            let (inner, buffers) = (self.archive.inner.clone(), self.buffers.clone());
            let work = move || {
                let _ = done.send(load(&inner, &segment, &buffers));
            };
            match &self.threads {
                Some(threads) => threads.segments.spawn(work),
                None => work(),
            }
            self.pending.push_back((segment, raw));
            if self.threads.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Reads, checks and decompresses one segment.
pub(super) fn load(inner: &Inner, segment: &Segment, buffers: &Buffers) -> Loaded {
    let mut packed = buffers.take(segment.size as usize);
    fill(&*inner.source, segment.offset, &mut packed)?;
    let mut raw = buffers.take(segment.tar_size as usize);
    segment.check_hash(&packed)?;
    inner.format.decompress_buffer(&mut packed, &mut raw).map_err(|e| segment.place(e))?;
    let mut crc = Crc::new();
    crc.update(&raw);
    Ok((Bytes::from_owner(raw), crc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Codec, tests::sample};

    #[test]
    fn a_long_archive_takes_no_more_buffers_than_the_budget_allows() {
        let archive = Archive::from_source(sample(Codec::None, 48 << 20)).unwrap();
        let mut scan = archive.scan(|_| true, &Cancel::new()).unwrap();
        while scan.next_part().unwrap().is_some() {}
        assert!(scan.crcs.len() as u64 > 2 * MEMORY / SEGMENT);
        scan.current.1.clear();
        // Each segment under way with its packed and its raw bytes, and the one being read.
        let kept = scan.buffers.count() as u64;
        assert!((2..=MEMORY / SEGMENT + 1).contains(&kept), "{kept}");
    }
}
