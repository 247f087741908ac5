//! Writing segments: compressed on all cores, written in order, bounded in bytes.

use std::{
    collections::VecDeque,
    io::Write,
    sync::{Arc, mpsc},
};

use sha2::{Digest as _, Sha256};

use super::{codec::SegmentFormat, index::Segment};
use crate::{
    error::{Error, Result},
    record::Sha256Digest,
};

/// Largest segment, uncompressed; only the archive's own files have larger ones.
pub(super) const SEGMENT: u64 = 4 << 20;

struct Packed {
    bytes: Vec<u8>,
    sha256: Sha256Digest,
    crc: crc32fast::Hasher,
}

/// Cuts the tar into segments and writes them.
pub(super) struct SegmentWriter<W> {
    out: W,
    file_hash: Sha256,
    offset: u64,
    format: Arc<dyn SegmentFormat>,
    pool: rayon::ThreadPool,
    // Segments that are being compressed, in order, with their length in the tar.
    pending: VecDeque<(u64, mpsc::Receiver<Result<Packed>>)>,
    max_pending: usize,
    buffer: Vec<u8>,
    tar_flushed: u64,
    tar_written: u64,
    written: Vec<Segment>,
    crc: crc32fast::Hasher,
}

impl<W: Write> SegmentWriter<W> {
    pub(super) fn new(
        out: W,
        format: Arc<dyn SegmentFormat>,
        memory_bytes: usize,
        threads: Option<usize>,
    ) -> Result<Self> {
        // A segment under way takes its own length and at most about as much compressed.
        let max_pending = (memory_bytes / (2 * SEGMENT as usize)).saturating_sub(1).max(1);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.unwrap_or(cores).clamp(1, max_pending);
        let mut writer = Self {
            out,
            file_hash: Sha256::new(),
            offset: 0,
            format,
            pool: thread_pool(threads)?,
            pending: VecDeque::new(),
            max_pending,
            buffer: Vec::with_capacity(SEGMENT as usize),
            tar_flushed: 0,
            tar_written: 0,
            written: Vec::new(),
            crc: crc32fast::Hasher::new(),
        };
        writer.raw(writer.format.clone().head())?;
        Ok(writer)
    }

    /// Where the next byte stands in the tar.
    pub(super) fn position(&self) -> u64 {
        self.tar_flushed + self.buffer.len() as u64
    }

    /// Appends to the tar.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = SEGMENT as usize - self.buffer.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if self.buffer.len() == SEGMENT as usize {
                self.cut()?;
            }
        }
        Ok(())
    }

    /// Ends the segment here.
    pub(super) fn cut(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let raw = std::mem::replace(&mut self.buffer, Vec::with_capacity(SEGMENT as usize));
        self.submit(raw)
    }

    fn submit(&mut self, raw: Vec<u8>) -> Result<()> {
        let (done, packed) = mpsc::sync_channel(1);
        let format = self.format.clone();
        let len = raw.len() as u64;
        self.tar_flushed += len;
        self.pool.spawn(move || {
            let result = format.compress(&raw).map(|bytes| {
                let mut crc = crc32fast::Hasher::new();
                crc.update(&raw);
                Packed { sha256: Sha256Digest::of(&bytes), bytes, crc }
            });
            let _ = done.send(result);
        });
        self.pending.push_back((len, packed));
        while self.pending.len() >= self.max_pending {
            self.write_next()?;
        }
        Ok(())
    }

    fn write_next(&mut self) -> Result<()> {
        let Some((tar_size, packed)) = self.pending.pop_front() else { return Ok(()) };
        let packed = packed.recv().map_err(|_| Error::adapter("a compressing thread died"))??;
        let tar_offset = self.tar_written;
        self.tar_written += tar_size;
        self.written.push(Segment {
            offset: self.offset,
            size: packed.bytes.len() as u64,
            tar_offset,
            tar_size,
            sha256: packed.sha256,
        });
        self.crc.combine(&packed.crc);
        self.raw(&packed.bytes)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("the archive could not be written", e))?;
        self.file_hash.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Cuts, and waits until everything is written; the segments since the last call.
    pub(super) fn drain(&mut self) -> Result<Vec<Segment>> {
        self.cut()?;
        while !self.pending.is_empty() {
            self.write_next()?;
        }
        Ok(std::mem::take(&mut self.written))
    }

    /// Writes a file of the archive's own as one segment, whatever its length. The writer
    /// must be drained.
    pub(super) fn own(&mut self, raw: Vec<u8>) -> Result<Segment> {
        debug_assert!(self.pending.is_empty() && self.buffer.is_empty());
        self.submit(raw)?;
        let mut segments = self.drain()?;
        segments.pop().ok_or_else(|| Error::adapter("a segment was not written"))
    }

    /// CRC-32 of the tar so far; the writer must be drained.
    pub(super) fn crc32(&self) -> u32 {
        self.crc.clone().finalize()
    }

    pub(super) fn format(&self) -> &dyn SegmentFormat {
        &*self.format
    }

    /// Writes the bytes after the last segment and ends.
    pub(super) fn finish(mut self, tail: &[u8]) -> Result<(W, u64, Sha256Digest)> {
        debug_assert!(self.pending.is_empty() && self.buffer.is_empty());
        self.raw(tail)?;
        self.out.flush().map_err(|e| Error::io("the archive could not be written", e))?;
        Ok((self.out, self.offset, Sha256Digest::finish(self.file_hash)))
    }

    /// Where the next byte stands in the file; the writer must be drained.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

/// Threads that a reader or writer owns.
pub(super) fn thread_pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("backup-segment-{n}"))
        .build()
        .map_err(|e| Error::io("could not start threads", std::io::Error::other(e)))
}
