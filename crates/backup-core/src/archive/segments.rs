//! Writing segments: compressed on all cores, written in order, bounded in bytes.

use std::{
    collections::VecDeque,
    io::Write,
    sync::{Arc, mpsc},
};

use sha2::{Digest as _, Sha256};

use super::{
    buffers::{Buffer, Buffers},
    codec::SegmentFormat,
    index::Segment,
};
use crate::{
    error::{Error, Result},
    record::Sha256Digest,
};

/// Largest segment, uncompressed; only the archive's own files have larger ones.
pub(super) const SEGMENT: u64 = 4 << 20;

struct Packed {
    bytes: Buffer,
    sha256: Sha256Digest,
    crc: crc32fast::Hasher,
}

/// What is still to be written, in order.
enum Pending {
    /// A segment that is being compressed, and its length in the tar.
    Segment(u64, mpsc::Receiver<Result<Packed>>),
    /// A file of the archive's own, not made yet.
    Own(MakeOwn),
}

/// Makes a file of the archive's own, once all before it is written: from the segments since
/// the last one, and the last one.
pub(super) type MakeOwn = Box<dyn FnOnce(&[Segment], Option<&Segment>) -> Result<Vec<u8>> + Send>;

/// Cuts the tar into segments and writes them.
pub(super) struct SegmentWriter<W> {
    out: W,
    file_hash: Sha256,
    offset: u64,
    format: Arc<dyn SegmentFormat>,
    pool: rayon::ThreadPool,
    pending: VecDeque<Pending>,
    max_pending: usize,
    buffers: Buffers,
    // The segment that grows.
    buffer: Buffer,
    tar_written: u64,
    // Since the archive's last own file.
    written: Vec<Segment>,
    own: Vec<Segment>,
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
        let buffers = Buffers::default();
        let mut writer = Self {
            out,
            file_hash: Sha256::new(),
            offset: 0,
            format,
            pool: thread_pool(threads)?,
            pending: VecDeque::new(),
            max_pending,
            buffer: empty(&buffers),
            buffers,
            tar_written: 0,
            written: Vec::new(),
            own: Vec::new(),
            crc: crc32fast::Hasher::new(),
        };
        writer.raw(writer.format.clone().head())?;
        Ok(writer)
    }

    /// Appends to the tar.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = SEGMENT as usize - self.buffer.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.append(now);
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
        let raw = std::mem::replace(&mut self.buffer, empty(&self.buffers));
        self.submit(raw)
    }

    fn submit(&mut self, raw: Buffer) -> Result<()> {
        let (done, packed) = mpsc::sync_channel(1);
        let (format, buffers) = (self.format.clone(), self.buffers.clone());
        let len = raw.len() as u64;
        self.pool.spawn(move || {
            let packed = pack(&*format, &raw, &buffers);
            // Goes back before the next segment begins.
            drop(raw);
            let _ = done.send(packed);
        });
        self.enqueue(Pending::Segment(len, packed))
    }

    fn enqueue(&mut self, pending: Pending) -> Result<()> {
        self.pending.push_back(pending);
        while self.pending.len() >= self.max_pending {
            self.write_next()?;
        }
        Ok(())
    }

    fn write_next(&mut self) -> Result<()> {
        match self.pending.pop_front() {
            None => Ok(()),
            Some(Pending::Segment(tar_size, packed)) => {
                let packed =
                    packed.recv().map_err(|_| Error::adapter("a compressing thread died"))??;
                let segment = self.packed(tar_size, &packed)?;
                self.written.push(segment);
                Ok(())
            }
            // Made here, while the threads go on with what comes after it.
            Some(Pending::Own(make)) => {
                let raw = make(&std::mem::take(&mut self.written), self.own.last())?;
                let packed = pack(&*self.format, &raw, &self.buffers)?;
                let segment = self.packed(raw.len() as u64, &packed)?;
                self.own.push(segment);
                Ok(())
            }
        }
    }

    fn packed(&mut self, tar_size: u64, packed: &Packed) -> Result<Segment> {
        let segment = Segment {
            offset: self.offset,
            size: packed.bytes.len() as u64,
            tar_offset: self.tar_written,
            tar_size,
            sha256: packed.sha256,
        };
        self.tar_written += tar_size;
        self.crc.combine(&packed.crc);
        self.raw(&packed.bytes)?;
        Ok(segment)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("the archive could not be written", e))?;
        self.file_hash.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Cuts, and puts a file of the archive's own here as one segment, whatever its length.
    /// It is made when all before it is written; nothing waits for that.
    pub(super) fn own(&mut self, make: MakeOwn) -> Result<()> {
        self.cut()?;
        self.enqueue(Pending::Own(make))
    }

    /// Cuts, and waits until everything is written; the archive's own files since the last
    /// call.
    pub(super) fn drain(&mut self) -> Result<Vec<Segment>> {
        self.cut()?;
        while !self.pending.is_empty() {
            self.write_next()?;
        }
        Ok(std::mem::take(&mut self.own))
    }

    /// Length of the tar so far; the writer must be drained.
    pub(super) fn position(&self) -> u64 {
        debug_assert!(self.pending.is_empty() && self.buffer.is_empty());
        self.tar_written
    }

    /// CRC-32 of the tar so far; the writer must be drained.
    pub(super) fn crc32(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// From here on segments are compressed in another way.
    #[cfg(test)]
    pub(super) fn tamper(&mut self, format: Arc<dyn SegmentFormat>) {
        self.format = format;
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

fn empty(buffers: &Buffers) -> Buffer {
    let mut buffer = buffers.take(SEGMENT as usize);
    buffer.truncate(0);
    buffer
}

fn pack(format: &dyn SegmentFormat, raw: &[u8], buffers: &Buffers) -> Result<Packed> {
    let mut bytes = buffers.take(format.bound(raw.len() as u64) as usize);
    let len = format.compress(raw, &mut bytes)?;
    bytes.truncate(len);
    let mut crc = crc32fast::Hasher::new();
    crc.update(raw);
    Ok(Packed { sha256: Sha256Digest::of(&bytes), bytes, crc })
}

/// Threads that a reader or writer owns.
pub(super) fn thread_pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("backup-segment-{n}"))
        .build()
        .map_err(|e| Error::io("could not start threads", std::io::Error::other(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Codec;

    #[test]
    fn a_long_tar_takes_no_more_buffers_than_the_budget_allows() {
        let format: Arc<dyn SegmentFormat> = Codec::None.format(None).unwrap().into();
        let mut writer = SegmentWriter::new(std::io::sink(), format, 24 << 20, Some(8)).unwrap();
        assert_eq!((writer.max_pending, writer.pool.current_num_threads()), (2, 2));
        for _ in 0..24 {
            writer.write(&[7; SEGMENT as usize]).unwrap();
        }
        writer.drain().unwrap();
        // Two under way, what two threads make of them; the one that grows is out.
        let kept = writer.buffers.count();
        assert!((1..=4).contains(&kept), "{kept}");
    }
}
