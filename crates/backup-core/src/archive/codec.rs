//! How segments are compressed, and what a file of each codec begins and ends with.

use std::io::Read;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};

use super::buffers::Buffer;
#[cfg(feature = "libdeflate")]
use super::seal::Seal;
use crate::error::{Error, ErrorKind, Result};

/// How segments are compressed. Archives of every codec are seekable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Codec {
    /// Opened by everything: `.tar.gz`.
    #[default]
    Gzip,
    /// Smaller and faster, `.tar.zst`; needs the feature `zstd`.
    Zstd,
    /// Not at all: `.tar`.
    None,
}

impl Codec {
    /// The usual ending of a file's name, with the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Gzip => ".tar.gz",
            Self::Zstd => ".tar.zst",
            Self::None => ".tar",
        }
    }

    /// Its number in the trailer.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Zstd => 2,
        }
    }

    /// The codec's form of segments.
    pub(super) fn format(self, level: Option<u32>) -> Result<Box<dyn SegmentFormat>> {
        match self {
            Self::Gzip => Ok(Box::new(Gzip::new(level.unwrap_or(Gzip::DEFAULT).min(9)))),
            #[cfg(feature = "zstd")]
            Self::Zstd => Ok(Box::new(Zstd { level: level.unwrap_or(3).min(19) })),
            #[cfg(not(feature = "zstd"))]
            Self::Zstd => Err(Error::new(ErrorKind::Unsupported, "this build cannot handle zstd")
                .advise("build with the feature `zstd`")),
            Self::None => Ok(Box::new(Plain)),
        }
    }
}

/// How one codec stores segments: the only thing that differs between codecs.
pub(super) trait SegmentFormat: Send + Sync {
    /// Bytes before the first segment.
    fn head(&self) -> &'static [u8];

    /// Compresses one segment so that it can be decompressed alone; its length. There must be
    /// room for [`bound`](Self::bound).
    fn compress(&self, raw: &[u8], packed: &mut [u8]) -> Result<usize>;

    /// Decompresses one segment, which must fill exactly `raw` and leave no input.
    fn decompress(&self, packed: &[u8], raw: &mut [u8]) -> Result<()>;

    /// As [`decompress`](Self::decompress), with the room that buffers have, where that is faster.
    fn decompress_buffer(&self, packed: &mut Buffer, raw: &mut Buffer) -> Result<()> {
        self.decompress(packed, raw)
    }

    /// Decompresses what can be of a damaged segment, at most `limit` bytes.
    fn decompress_some(&self, packed: &[u8], limit: usize) -> Vec<u8>;

    /// Decompresses a run of segments whose borders are not known.
    fn run<'a>(&self, packed: Box<dyn Read + 'a>) -> Box<dyn Read + 'a>;

    /// Where in `bytes`, which stand at `base` in the file, a segment may begin.
    fn starts(&self, bytes: &[u8], base: u64) -> Vec<usize>;

    /// Length of the segment of `raw_len` bytes that `packed` begins with.
    fn measure(&self, packed: &[u8], raw_len: usize) -> Option<usize>;

    /// Bytes after the last segment, given CRC-32 and length of all that was compressed.
    fn tail(&self, crc32: u32, len: u64) -> Vec<u8>;

    /// Most bytes that a segment of `raw_len` may take.
    fn bound(&self, raw_len: u64) -> u64 {
        raw_len + raw_len / 64 + 1024
    }
}

impl dyn SegmentFormat + '_ {
    /// A segment of `raw_len` bytes, decompressed into memory of its own.
    pub(super) fn decompressed(&self, packed: &[u8], raw_len: usize) -> Result<Vec<u8>> {
        let mut raw = vec![0; raw_len];
        self.decompress(packed, &mut raw)?;
        Ok(raw)
    }

    #[cfg(test)]
    fn compressed(&self, raw: &[u8]) -> Vec<u8> {
        let mut packed = vec![0; self.bound(raw.len() as u64) as usize];
        let len = self.compress(raw, &mut packed).unwrap();
        packed.truncate(len);
        packed
    }
}

fn damaged(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

struct Plain;

impl SegmentFormat for Plain {
    fn head(&self) -> &'static [u8] {
        b""
    }
    fn compress(&self, raw: &[u8], packed: &mut [u8]) -> Result<usize> {
        packed[..raw.len()].copy_from_slice(raw);
        Ok(raw.len())
    }
    fn decompress(&self, packed: &[u8], raw: &mut [u8]) -> Result<()> {
        if packed.len() != raw.len() {
            return Err(damaged("a stored segment has a wrong length"));
        }
        raw.copy_from_slice(packed);
        Ok(())
    }
    fn decompress_some(&self, packed: &[u8], limit: usize) -> Vec<u8> {
        packed[..packed.len().min(limit)].to_vec()
    }
    fn run<'a>(&self, packed: Box<dyn Read + 'a>) -> Box<dyn Read + 'a> {
        packed
    }
    fn starts(&self, bytes: &[u8], base: u64) -> Vec<usize> {
        let first = (base.next_multiple_of(512) - base) as usize;
        (first..bytes.len()).step_by(512).collect()
    }
    fn measure(&self, packed: &[u8], raw_len: usize) -> Option<usize> {
        (packed.len() >= raw_len).then_some(raw_len)
    }
    fn tail(&self, _: u32, _: u64) -> Vec<u8> {
        Vec::new()
    }
}

struct Gzip {
    level: u32,
    // Drawn when the first segment is decompressed.
    #[cfg(feature = "libdeflate")]
    seal: std::sync::OnceLock<Option<Seal>>,
}

impl Gzip {
    fn new(level: u32) -> Self {
        Self {
            level,
            #[cfg(feature = "libdeflate")]
            seal: std::sync::OnceLock::new(),
        }
    }

    /// See `docs/decisions/0002-archive-format.md`.
    const DEFAULT: u32 = 4;
    /// What a full flush ends with: an empty stored block.
    const MARK: [u8; 4] = [0, 0, 0xff, 0xff];
    /// An empty last block with fixed codes.
    const LAST: [u8; 2] = [3, 0];

    // Its length; `None` where there is no room.
    fn deflate(raw: &[u8], level: u32, packed: &mut [u8]) -> Result<Option<usize>> {
        let mut engine = Compress::new(Compression::new(level), false);
        engine
            .compress(raw, packed, FlushCompress::Full)
            .map_err(|e| Error::adapter("the compressor failed").because(e))?;
        let len = engine.total_out() as usize;
        // A flush is complete when it leaves room in the output.
        let whole = engine.total_in() == raw.len() as u64
            && len < packed.len()
            && packed[..len].ends_with(&Self::MARK);
        Ok(whole.then_some(len))
    }

    // What comes before the first damage, and how much input it took.
    fn inflate_prefix(packed: &[u8], limit: usize) -> (Vec<u8>, usize) {
        let mut engine = Decompress::new(false);
        let mut raw = Vec::new();
        loop {
            let (used, done) = (engine.total_in() as usize, raw.len());
            raw.resize((done + (256 << 10)).min(limit), 0);
            let status =
                engine.decompress(&packed[used..], &mut raw[done..], FlushDecompress::Sync);
            raw.truncate(engine.total_out() as usize);
            let stuck = engine.total_in() as usize == used && raw.len() == done;
            if stuck || raw.len() == limit || !matches!(status, Ok(Status::Ok)) {
                return (raw, engine.total_in() as usize);
            }
        }
    }

    // A sample, taken fast, tells whether the whole would shrink by a tenth; vectors do not.
    fn shrinks(raw: &[u8], packed: &mut [u8]) -> Result<bool> {
        const SLICE: usize = 16 << 10;
        let mut sample = Vec::new();
        let sample = if raw.len() < 8 * SLICE {
            raw
        } else {
            for quarter in 0..4 {
                let from = (raw.len() - SLICE) / 3 * quarter;
                sample.extend_from_slice(&raw[from..from + SLICE]);
            }
            &sample
        };
        let len = Self::deflate(sample, 1, packed)?;
        Ok(len.is_some_and(|len| len * 10 <= sample.len() * 9))
    }
}

impl SegmentFormat for Gzip {
    fn head(&self) -> &'static [u8] {
        // RFC 1952: deflate, no flags, no time, no extra flags, system unknown.
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]
    }

    fn compress(&self, raw: &[u8], packed: &mut [u8]) -> Result<usize> {
        if Self::shrinks(raw, packed)?
            && let Some(len) = Self::deflate(raw, self.level, packed)?
        {
            return Ok(len);
        }
        // Stored, it is never longer than the bound; level 1 can be, where the sample deceived.
        Self::deflate(raw, 0, packed)?
            .ok_or_else(|| Error::adapter("the compressor needs more room than its bound"))
    }

    fn decompress(&self, packed: &[u8], raw: &mut [u8]) -> Result<()> {
        if !packed.ends_with(&Self::MARK) {
            return Err(damaged("a segment does not end with a flush"));
        }
        let mut engine = Decompress::new(false);
        // The window begins empty: a distance out of the segment is an error of the engine.
        let mut status = engine.decompress(packed, raw, FlushDecompress::Sync);
        // With the output full, the empty block at the end is still to be read.
        if status.is_ok() && engine.total_in() < packed.len() as u64 {
            let rest = engine.total_in() as usize;
            status = engine.decompress(&packed[rest..], &mut [], FlushDecompress::Sync);
        }
        let filled = engine.total_out() == raw.len() as u64;
        match status {
            Ok(Status::StreamEnd) => {
                return Err(damaged("a segment ends the stream too early"));
            }
            Ok(_) | Err(_) if !filled || engine.total_in() != packed.len() as u64 => {
                return Err(damaged("a segment does not decompress to its length"));
            }
            Ok(_) => {}
            Err(error) => return Err(damaged("a segment cannot be decompressed").because(error)),
        }
        // The mark may be part of something longer, which would go on in the next segment. Only where
        // a block may begin is this the last one, and empty.
        let status = engine.decompress(&Self::LAST, &mut [0], FlushDecompress::Sync);
        let ended = matches!(status, Ok(Status::StreamEnd))
            && engine.total_in() == (packed.len() + Self::LAST.len()) as u64
            && engine.total_out() == raw.len() as u64;
        if ended { Ok(()) } else { Err(damaged("a segment ends within a block")) }
    }

    #[cfg(feature = "libdeflate")]
    fn decompress_buffer(&self, packed: &mut Buffer, raw: &mut Buffer) -> Result<()> {
        let seal = self.seal.get_or_init(|| {
            // What a build without the feature does, tested without building it.
            let left_out = cfg!(test) && std::env::var_os("BACKUP_KIT_ZLIB_ALONE").is_some();
            if left_out { None } else { Seal::draw().ok() }
        });
        if packed.ends_with(&Self::MARK)
            && seal.as_ref().is_some_and(|seal| seal.decompress(packed, raw))
        {
            return Ok(());
        }
        self.decompress(packed, raw)
    }

    fn decompress_some(&self, packed: &[u8], limit: usize) -> Vec<u8> {
        Self::inflate_prefix(packed, limit).0
    }

    fn run<'a>(&self, packed: Box<dyn Read + 'a>) -> Box<dyn Read + 'a> {
        Box::new(flate2::read::DeflateDecoder::new(packed))
    }

    fn starts(&self, bytes: &[u8], _: u64) -> Vec<usize> {
        let ends = bytes.windows(4).enumerate().filter(|(_, window)| **window == Self::MARK);
        ends.map(|(at, _)| at + 4).collect()
    }

    fn measure(&self, packed: &[u8], raw_len: usize) -> Option<usize> {
        let (raw, used) = Self::inflate_prefix(packed, raw_len);
        if raw.len() != raw_len {
            return None;
        }
        let mut again = vec![0; raw_len];
        // The engine may stop before the empty block that ends the segment, or after the header
        // of the block that follows: its tables take up to 562 bytes.
        (used.saturating_sub(1024)..(used + 64).min(packed.len() + 1)).find(|end| {
            packed[..*end].ends_with(&Self::MARK)
                && self.decompress(&packed[..*end], &mut again).is_ok()
        })
    }

    fn tail(&self, crc32: u32, len: u64) -> Vec<u8> {
        // CRC-32 and length modulo 2^32 come last.
        let mut tail = Self::LAST.to_vec();
        tail.extend_from_slice(&crc32.to_le_bytes());
        tail.extend_from_slice(&(len as u32).to_le_bytes());
        tail
    }
}

#[cfg(feature = "zstd")]
struct Zstd {
    level: u32,
}

#[cfg(feature = "zstd")]
impl SegmentFormat for Zstd {
    fn head(&self) -> &'static [u8] {
        b""
    }
    fn compress(&self, raw: &[u8], packed: &mut [u8]) -> Result<usize> {
        // A frame with its content size; the checksum is left to SHA-256.
        zstd::bulk::compress_to_buffer(raw, packed, self.level as i32)
            .map_err(|e| Error::adapter("the compressor failed").because(e))
    }
    fn decompress(&self, packed: &[u8], raw: &mut [u8]) -> Result<()> {
        let len = zstd::bulk::decompress_to_buffer(packed, raw)
            .map_err(|e| damaged("a segment cannot be decompressed").because(e))?;
        if len != raw.len() {
            return Err(damaged("a segment does not decompress to its length"));
        }
        Ok(())
    }
    fn decompress_some(&self, packed: &[u8], limit: usize) -> Vec<u8> {
        let mut raw = Vec::new();
        // What was decoded before an error stays.
        let _ = self.run(Box::new(packed)).take(limit as u64).read_to_end(&mut raw);
        raw
    }
    fn run<'a>(&self, packed: Box<dyn Read + 'a>) -> Box<dyn Read + 'a> {
        match zstd::stream::read::Decoder::new(packed) {
            Ok(decoder) => Box::new(decoder),
            Err(error) => Box::new(Broken(Some(error))),
        }
    }
    fn starts(&self, bytes: &[u8], _: u64) -> Vec<usize> {
        const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
        let begins = bytes.windows(4).enumerate().filter(|(_, window)| **window == FRAME);
        begins.map(|(at, _)| at).collect()
    }
    fn measure(&self, packed: &[u8], _: usize) -> Option<usize> {
        zstd::zstd_safe::find_frame_compressed_size(packed).ok()
    }
    fn tail(&self, _: u32, _: u64) -> Vec<u8> {
        Vec::new()
    }
}

/// A decoder that could not be made.
#[cfg(feature = "zstd")]
struct Broken(Option<std::io::Error>);

#[cfg(feature = "zstd")]
impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{buffers::Buffers, forgery::stored};

    fn formats() -> Vec<Box<dyn SegmentFormat>> {
        let mut codecs = vec![Codec::Gzip, Codec::None];
        if cfg!(feature = "zstd") {
            codecs.push(Codec::Zstd);
        }
        codecs.into_iter().map(|codec| codec.format(None).unwrap()).collect()
    }

    // In both ways, which have to agree.
    fn decompressed(format: &dyn SegmentFormat, packed: &[u8], raw_len: usize) -> Result<Vec<u8>> {
        let strict = format.decompressed(packed, raw_len);
        let buffers = Buffers::default();
        let (mut from, mut raw) = (buffers.take(packed.len()), buffers.take(raw_len));
        from.copy_from_slice(packed);
        let fast = format.decompress_buffer(&mut from, &mut raw);
        assert_eq!(
            fast.as_ref().map(|()| &raw[..]).map_err(ToString::to_string),
            strict.as_deref().map_err(ToString::to_string)
        );
        strict
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(len)
        .collect()
    }

    #[test]
    fn segments_come_back_whole_and_at_no_other_length() {
        for format in formats() {
            for raw in [vec![], vec![7], vec![0; 300_000], noise(1 << 20), b"abc".repeat(99_999)] {
                let packed = format.compressed(&raw);
                assert!(packed.len() as u64 <= format.bound(raw.len() as u64));
                assert_eq!(decompressed(&*format, &packed, raw.len()).unwrap(), raw);
                assert!(decompressed(&*format, &packed, raw.len() + 1).is_err());
                if !raw.is_empty() {
                    assert!(decompressed(&*format, &packed, raw.len() - 1).is_err());
                    assert!(decompressed(&*format, &packed[1..], raw.len()).is_err());
                }
            }
        }
    }

    // What a segment may not be, although some decoder would get its bytes out of it.
    #[test]
    fn a_gzip_segment_that_ends_elsewhere_is_refused() {
        let gzip = Codec::Gzip.format(None).unwrap();
        let refused = |packed: &[u8], len: usize| {
            assert!(decompressed(&*gzip, packed, len).is_err(), "{packed:x?}");
        };
        // A stored block of which `more` bytes are still to come.
        let open = |last, bytes: &[u8], more: u16| {
            let len = bytes.len() as u16 + more;
            let mut block = stored(last, bytes);
            block[1..3].copy_from_slice(&len.to_le_bytes());
            block[3..5].copy_from_slice(&(!len).to_le_bytes());
            block
        };
        let mark = Gzip::MARK;
        let flush = stored(false, b"");
        // Whole, for comparison.
        let whole = [stored(false, b"hello"), flush.clone()].concat();
        assert_eq!(decompressed(&*gzip, &whole, 5).unwrap(), b"hello");
        // The last block comes early; what follows is hidden from whoever stops there.
        refused(&[stored(true, b"hello"), flush.clone()].concat(), 5);
        refused(&[stored(true, b"hello"), stored(false, b"!!"), flush.clone()].concat(), 5);
        refused(&[stored(false, b"hello"), vec![3, 0], flush.clone()].concat(), 5);
        // The mark is within a stored block, of which more would have to come: some bytes of the
        // next segment, or as many as a reader might add to say that there is none.
        let marked = [&b"hello"[..], &mark].concat();
        for (last, more) in (0..800).flat_map(|more| [(false, more), (true, more)]) {
            if last || more > 0 {
                let packed = open(last, &marked, more);
                (5..12).chain([9 + usize::from(more)]).for_each(|len| refused(&packed, len));
            }
        }
        // A distance that leads out of the segment: a match of three, one byte back.
        refused(&[vec![0x02, 0x82, 0x00], flush].concat(), 3);
    }

    #[test]
    fn a_gzip_segment_ends_with_a_flush_and_takes_no_more() {
        let gzip = Codec::Gzip.format(None).unwrap();
        let packed = gzip.compressed(b"hello");
        assert!(decompressed(&*gzip, &[&packed[..], &[0, 0, 0, 0xff, 0xff]].concat(), 5).is_ok());
        assert!(decompressed(&*gzip, &[&packed[..], &[3, 0]].concat(), 5).is_err());
        assert!(decompressed(&*gzip, &packed[..packed.len() - 5], 5).is_err());
    }

    #[test]
    fn a_segment_tells_its_length_within_others() {
        for format in formats() {
            for raw in [noise(1000), b"abc".repeat(1000), vec![0; 70_000]] {
                let packed = format.compressed(&raw);
                let run = [&packed[..], &packed, &packed].concat();
                assert_eq!(format.measure(&run, raw.len()), Some(packed.len()));
                let mut all = Vec::new();
                format
                    .run(Box::new(&run[..]))
                    .take(3 * raw.len() as u64)
                    .read_to_end(&mut all)
                    .unwrap();
                assert_eq!(all, raw.repeat(3));
            }
        }
    }

    // The header of a block of all symbols, some 2⁸ times as frequent as others: an engine reads
    // it before it finds that it has no room left.
    #[test]
    fn a_segment_tells_its_length_before_a_block_with_long_tables() {
        let wild: Vec<_> = noise(200_000)
            .chunks_exact(2)
            .filter(|pair| u32::from(pair[1]) < 1 << (u32::from(pair[0]) * 7 % 9))
            .map(|pair| pair[0])
            .collect();
        for format in formats() {
            let packed = format.compressed(&b"abc".repeat(100));
            let run = [&packed[..], &format.compressed(&wild)].concat();
            assert_eq!(format.measure(&run, 300), Some(packed.len()));
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored() {
        let gzip = Codec::Gzip.format(None).unwrap();
        let packed = gzip.compressed(&noise(1 << 20));
        assert!(packed.len() > 1 << 20 && packed.len() < (1 << 20) + 1024);
    }

    // The fast level takes nine bits for such bytes, and the sample holds none of them.
    #[test]
    fn what_deceives_the_sample_still_keeps_to_the_bound() {
        let mut raw: Vec<_> = noise(1 << 20).iter().map(|byte| byte | 0x90).collect();
        for quarter in 0..4 {
            let from = (raw.len() - (16 << 10)) / 3 * quarter;
            raw[from..from + (16 << 10)].fill(0);
        }
        for level in 0..=9 {
            let gzip = Codec::Gzip.format(Some(level)).unwrap();
            let packed = gzip.compressed(&raw);
            assert!(packed.len() as u64 <= gzip.bound(raw.len() as u64), "level {level}");
            assert_eq!(decompressed(&*gzip, &packed, raw.len()).unwrap(), raw);
        }
    }

    #[test]
    fn a_damaged_segment_gives_what_comes_before_the_damage() {
        for format in formats() {
            let raw = noise(100_000);
            let packed = format.compressed(&raw);
            let some = format.decompress_some(&packed[..packed.len() / 2], 1 << 30);
            assert!(raw.starts_with(&some));
            assert_eq!(format.decompress_some(&packed, raw.len()), raw);
        }
    }
}
