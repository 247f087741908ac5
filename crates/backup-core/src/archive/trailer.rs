//! The last bytes of an archive: where the root is.
//!
//! A record of fixed length, wrapped as the codec needs it: in the extra field of an empty
//! gzip member, in a skippable frame of zstd, in a block after the end of a plain tar.

use super::codec::Codec;
use crate::{
    clock::{ArchiveId, Timestamp},
    error::{Error, ErrorKind, Result},
    record::Sha256Digest,
};

/// How the record begins.
pub(super) const MAGIC: [u8; 8] = *b"BKITEND1";
/// Length of the record.
pub(super) const RECORD: usize = 160;
/// The format's major version.
const FORMAT: u32 = 1;
/// Features that this build knows; an archive that requires another one is refused.
const FEATURES: u64 = 0;

/// What the trailer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) codec: Codec,
    pub(super) id: ArchiveId,
    /// When the backup began: tar headers of the archive's own files bear it.
    pub(super) created: Timestamp,
    pub(super) root_offset: u64,
    pub(super) root_size: u64,
    pub(super) root_tar_size: u64,
    pub(super) root_sha256: Sha256Digest,
    /// Length of the whole tar.
    pub(super) tar_size: u64,
    /// CRC-32 of the whole tar where the codec has one, else 0.
    pub(super) crc32: u32,
    /// Length of the whole file, this trailer included.
    pub(super) file_size: u64,
}

// What stands around the record.
const GZIP_BEFORE: [u8; 16] =
    [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, RECORD as u8 + 4, 0, b'B', b'K', RECORD as u8, 0];
const GZIP_AFTER: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ZSTD_BEFORE: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, RECORD as u8, 0, 0, 0];
const PLAIN_AFTER: [u8; 512 - RECORD] = [0; 512 - RECORD];

fn wrapping(codec: Codec) -> (&'static [u8], &'static [u8]) {
    match codec {
        Codec::Gzip => (&GZIP_BEFORE, &GZIP_AFTER),
        Codec::Zstd => (&ZSTD_BEFORE, &[]),
        Codec::None => (&[], &PLAIN_AFTER),
    }
}

impl Trailer {
    /// Length of the trailer of a codec.
    pub(super) fn len(codec: Codec) -> u64 {
        let (before, after) = wrapping(codec);
        (before.len() + RECORD + after.len()) as u64
    }

    /// The trailer's bytes.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut record = Vec::with_capacity(RECORD);
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(&FORMAT.to_le_bytes());
        record.extend_from_slice(&self.codec.number().to_le_bytes());
        record.extend_from_slice(&FEATURES.to_le_bytes());
        record.extend_from_slice(self.id.as_bytes());
        record.extend_from_slice(&self.created.as_micros().to_le_bytes());
        for number in [self.root_offset, self.root_size, self.root_tar_size] {
            record.extend_from_slice(&number.to_le_bytes());
        }
        record.extend_from_slice(self.root_sha256.as_bytes());
        record.extend_from_slice(&self.tar_size.to_le_bytes());
        record.extend_from_slice(&u64::from(self.crc32).to_le_bytes());
        record.extend_from_slice(&self.file_size.to_le_bytes());
        let hash = Sha256Digest::of(&record);
        record.extend_from_slice(hash.as_bytes());
        debug_assert_eq!(record.len(), RECORD);
        let (before, after) = wrapping(self.codec);
        [before, &record, after].concat()
    }

    /// Reads the trailer at the end of `tail`, the last bytes of a file of `file_size`.
    ///
    /// `None`: there is none, the file is cut or no archive of ours.
    pub(super) fn read(tail: &[u8], file_size: u64) -> Result<Option<Self>> {
        for codec in [Codec::Gzip, Codec::Zstd, Codec::None] {
            let (before, after) = wrapping(codec);
            let found = tail
                .strip_suffix(after)
                .and_then(|rest| rest.split_last_chunk::<RECORD>())
                .filter(|(rest, record)| rest.ends_with(before) && record.starts_with(&MAGIC));
            if let Some((_, record)) = found {
                return Self::parse(record, codec, file_size).map(Some);
            }
        }
        Ok(None)
    }

    fn parse(record: &[u8; RECORD], codec: Codec, file_size: u64) -> Result<Self> {
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, what).on("trailer");
        let u64_at =
            |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"));
        let u32_at =
            |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
        let hash_at =
            |at: usize| Sha256Digest::from_bytes(record[at..at + 32].try_into().expect("32 bytes"));
        if Sha256Digest::of(&record[..RECORD - 32]) != hash_at(RECORD - 32) {
            return Err(corrupt("the trailer does not match its own hash"));
        }
        if u32_at(8) != FORMAT {
            let what = format!("the archive has format {}, this build reads format 1", u32_at(8));
            return Err(Error::new(ErrorKind::UnknownVersion, what));
        }
        let unknown = u64_at(16) & !FEATURES;
        if unknown != 0 {
            let what =
                format!("the archive requires features that this build lacks ({unknown:#x})");
            return Err(Error::new(ErrorKind::UnknownVersion, what));
        }
        let trailer = Self {
            codec,
            id: ArchiveId::from_bytes(record[24..40].try_into().expect("16 bytes")),
            created: Timestamp::from_micros(u64_at(40) as i64),
            root_offset: u64_at(48),
            root_size: u64_at(56),
            root_tar_size: u64_at(64),
            root_sha256: hash_at(72),
            tar_size: u64_at(104),
            crc32: u32::try_from(u64_at(112))
                .map_err(|_| corrupt("a CRC-32 has more than 32 bits"))?,
            file_size: u64_at(120),
        };
        if u32_at(12) != codec.number() {
            return Err(corrupt("the trailer names another codec than the file has"));
        }
        if trailer.file_size != file_size {
            return Err(corrupt("the file does not have the length that its trailer states"));
        }
        Ok(trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer(codec: Codec) -> Trailer {
        Trailer {
            codec,
            id: ArchiveId::from_bytes([7; 16]),
            created: Timestamp::from_micros(-5),
            root_offset: 10,
            root_size: 20,
            root_tar_size: 30,
            root_sha256: Sha256Digest::of(b"root"),
            tar_size: 40,
            crc32: 50,
            file_size: 1000,
        }
    }

    #[test]
    fn a_trailer_reads_back_and_no_bit_of_it_can_change() {
        for codec in [Codec::Gzip, Codec::Zstd, Codec::None] {
            let bytes = trailer(codec).write();
            assert_eq!(bytes.len() as u64, Trailer::len(codec));
            let tail = [b"before", &bytes[..]].concat();
            assert_eq!(Trailer::read(&tail, 1000).unwrap(), Some(trailer(codec)));
            assert!(Trailer::read(&tail, 1001).is_err());
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(!matches!(Trailer::read(&damaged, 1000), Ok(Some(_))), "bit {bit}");
            }
        }
    }

    // An empty member, which any gzip reader takes for nothing.
    #[test]
    fn stock_readers_skip_it() {
        use std::io::Read as _;
        let bytes = trailer(Codec::Gzip).write();
        let mut out = Vec::new();
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut out).unwrap();
        assert!(out.is_empty());
    }
}
