//! Digests: of one part's bytes, and of a collection's content.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    ops::Range,
    str::FromStr,
};

use serde::{Deserialize, Serialize, de::Error as _};
use sha2::{Digest as _, Sha256};

use super::{RecordBatch, RecordRef, VectorColumn, VectorShape};
use crate::error::{Error, ErrorKind};

macro_rules! hex_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From its 32 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                let bad = || Error::new(ErrorKind::Corrupt, "a digest is not 64 hexadecimal digits in lower case");
                let mut bytes = [0; 32];
                if text.len() != 64 || !text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(bad());
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let digit = |c: u8| if c < b'a' { c - b'0' } else { c - b'a' + 10 };
                    *byte = digit(pair[0]) << 4 | digit(pair[1]);
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

hex_type! {
    /// The SHA-256 of some bytes; prints and reads as 64 hexadecimal digits.
    Sha256Digest
}

hex_type! {
    /// The digest of a collection's content: the sum of its records' SHA-256, each read as a
    /// number with the most significant byte first, modulo 2^256.
    ///
    /// The order of records and the borders of batches do not matter, so it can be taken
    /// while reading, while writing, and again from the restored store. It guards against
    /// mistakes, not against a forger.
    ContentDigest
}

impl Sha256Digest {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Hashes everything that `reader` gives; also returns how much that was.
    ///
    /// # Errors
    /// A read that failed.
    pub fn of_reader(mut reader: impl io::Read) -> io::Result<(u64, Self)> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        let mut len = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok((len, Self::finish(hasher))),
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    len += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Ends a running hash.
    #[must_use]
    pub fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl ContentDigest {
    /// The digest of nothing.
    pub const ZERO: Self = Self([0; 32]);

    /// Adds one record's or another digest, modulo 2^256.
    pub fn add(&mut self, other: &[u8; 32]) {
        let mut carry = 0u16;
        for (a, b) in self.0.iter_mut().zip(other).rev() {
            let sum = u16::from(*a) + u16::from(*b) + carry;
            *a = sum as u8;
            carry = sum >> 8;
        }
    }
}

impl Default for ContentDigest {
    fn default() -> Self {
        Self::ZERO
    }
}

/// Count and digests of one collection, or of a part of it; tallies add up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tally {
    /// Number of records, element records included.
    pub records: u64,
    /// Digest over the records' lines.
    pub digest: ContentDigest,
    /// For each vector column its count and digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vectors: BTreeMap<String, VectorTally>,
}

/// Count and digest of one vector column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VectorTally {
    /// How many records have this vector.
    pub count: u64,
    /// Digest over key, name, element type, shape and values of each.
    pub digest: ContentDigest,
}

impl Tally {
    /// The tally of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every record of a batch.
    pub fn add_batch(&mut self, batch: &RecordBatch) {
        self.add_batch_with(batch, |_, _, _| ());
    }

    /// As [`add_batch`](Self::add_batch); `each` is told every record's own share: the digest
    /// of its line, and the sum over its vectors.
    pub(crate) fn add_batch_with(
        &mut self,
        batch: &RecordBatch,
        mut each: impl FnMut(RecordRef<'_>, [u8; 32], [u8; 32]),
    ) {
        let mut tallies = vec![VectorTally::default(); batch.columns().len()];
        for (row, record) in batch.iter().enumerate() {
            let line = self.line(record.line().as_bytes());
            let mut vectors = ContentDigest::ZERO;
            for (column, tally) in batch.columns().iter().zip(&mut tallies) {
                if column.is_present(row) {
                    let digest = vector_digest(record.key_json(), column, row);
                    tally.count += 1;
                    tally.digest.add(&digest);
                    vectors.add(&digest);
                }
            }
            each(record, line, vectors.0);
        }
        for (column, tally) in batch.columns().iter().zip(&tallies) {
            // A column that no record of the batch has is not content: whether it stands in
            // a batch depends on where the batch's borders are.
            if tally.count > 0 {
                self.add_vectors(column.name(), tally);
            }
        }
    }

    /// Adds one record by its line, without the line feed.
    pub fn add_line(&mut self, line: &[u8]) {
        self.line(line);
    }

    /// As [`add_line`](Self::add_line); returns the line's own digest.
    pub(crate) fn line(&mut self, line: &[u8]) -> [u8; 32] {
        self.records += 1;
        let mut hasher = Sha256::new();
        hasher.update((line.len() as u64).to_le_bytes());
        hasher.update(line);
        let digest = hasher.finalize().into();
        self.digest.add(&digest);
        digest
    }

    /// Adds another tally of the same collection.
    pub fn merge(&mut self, other: &Tally) {
        self.records += other.records;
        self.digest.add(other.digest.as_bytes());
        for (name, theirs) in &other.vectors {
            self.add_vectors(name, theirs);
        }
    }

    fn add_vectors(&mut self, name: &str, theirs: &VectorTally) {
        let ours = self.vectors.entry(name.to_owned()).or_default();
        ours.count += theirs.count;
        ours.digest.add(theirs.digest.as_bytes());
    }
}

fn vector_digest(key: &str, column: &VectorColumn, row: usize) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut framed = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    framed(key.as_bytes());
    framed(column.name().as_bytes());
    framed(column.element().as_str().as_bytes());
    match column.shape() {
        VectorShape::Dense { dim } => framed(format!("dense {dim}").as_bytes()),
        VectorShape::Multi { dim, .. } => framed(format!("multi {dim}").as_bytes()),
        VectorShape::Sparse { .. } => {
            framed(b"sparse");
            let indices: Vec<u8> =
                column.sparse_indices(row).iter().flat_map(|i| i.to_le_bytes()).collect();
            framed(&indices);
        }
    }
    framed(column.row_bytes(row));
    hasher.finalize().into()
}

/// A SHA-256 over a stream in which some byte ranges count as zero.
///
/// A store may change a few header bytes whenever a file is restored; the rest must be equal.
#[derive(Debug, Clone)]
pub struct MaskedHasher {
    hasher: Sha256,
    // Those that are not passed yet.
    masked: VecDeque<Range<u64>>,
    position: u64,
}

impl MaskedHasher {
    /// Starts a hash; `masked` must be in ascending order.
    #[must_use]
    pub fn new(masked: &[Range<u64>]) -> Self {
        Self { hasher: Sha256::new(), masked: masked.iter().cloned().collect(), position: 0 }
    }

    /// Takes the next bytes of the stream.
    pub fn update(&mut self, mut bytes: &[u8]) {
        const ZEROS: [u8; 4096] = [0; 4096];
        while !bytes.is_empty() {
            let at = self.position;
            while self.masked.front().is_some_and(|range| range.end <= at) {
                self.masked.pop_front();
            }
            let (len, zero) = match self.masked.front() {
                Some(range) if range.start <= at => (range.end - at, true),
                Some(range) => (range.start - at, false),
                None => (u64::MAX, false),
            };
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(len);
            if zero {
                now.chunks(ZEROS.len()).for_each(|now| self.hasher.update(&ZEROS[..now.len()]));
            } else {
                self.hasher.update(now);
            }
            self.position += len as u64;
            bytes = rest;
        }
    }

    /// Ends the hash.
    #[must_use]
    pub fn finish(self) -> Sha256Digest {
        Sha256Digest::finish(self.hasher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_carry_and_wrap() {
        let mut sum = ContentDigest([0xff; 32]);
        let mut one = [0; 32];
        one[31] = 2;
        sum.add(&one);
        one[31] = 1;
        assert_eq!(sum.as_bytes(), &one);
    }

    #[test]
    fn the_order_of_records_does_not_matter_and_their_borders_do() {
        let tally = |lines: &[&str]| {
            let mut tally = Tally::new();
            lines.iter().for_each(|line| tally.add_line(line.as_bytes()));
            tally
        };
        assert_eq!(tally(&["a", "bc"]), tally(&["bc", "a"]));
        assert_ne!(tally(&["ab", "c"]).digest, tally(&["a", "bc"]).digest);
        // Every record counts, an equal pair too: this is why the sum is not an XOR.
        assert_ne!(tally(&["a", "a"]).digest, ContentDigest::ZERO);
    }

    #[test]
    fn a_column_without_a_vector_is_not_content() {
        use crate::record::{BatchBuilder, ElementType, Key};
        let tally = |declared: bool| {
            let mut builder = BatchBuilder::new("c");
            if declared {
                builder.dense("v", ElementType::F32, 2);
            }
            builder.push_json(&Key::from(1), b"{}").unwrap();
            let mut tally = Tally::new();
            tally.add_batch(&builder.finish().unwrap());
            tally
        };
        assert_eq!(tally(true), tally(false));
    }

    #[test]
    fn masked_bytes_do_not_count_and_the_others_do() {
        let hash = |bytes: &[u8], step: usize| {
            let mut hasher = MaskedHasher::new(&[2..4, 7..8]);
            bytes.chunks(step).for_each(|chunk| hasher.update(chunk));
            hasher.finish()
        };
        let plain = hash(b"0123456789", 10);
        assert_eq!(plain, Sha256Digest::of(b"01\0\x00456\x0089"));
        for step in 1..10 {
            assert_eq!(hash(b"01xx456x89", step), plain);
        }
        assert_ne!(hash(b"0x23456789", 10), plain);
    }

    #[test]
    fn digests_read_back_and_only_in_one_form() {
        let digest = Sha256Digest::of(b"");
        assert_eq!(digest.to_string().parse::<Sha256Digest>().unwrap(), digest);
        for bad in ["", "00", &digest.to_string().to_uppercase(), &"é".repeat(32)] {
            assert!(bad.parse::<Sha256Digest>().is_err());
        }
    }
}
