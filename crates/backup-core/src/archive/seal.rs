//! Decompressing whole segments with libdeflate, which is faster than zlib-rs and says less: not
//! how much of its input it took.
//!
//! So that nothing is taken that zlib-rs would refuse for where it ends, a text that nobody can
//! guess is added to every segment, compressed with a code of its own. It comes out behind the
//! segment's bytes only if the decoder stands, where the segment ends, at the beginning of a block
//! and was told of no last one. A segment that ends too early, or in the middle of a block,
//! would have to say the text itself; and whoever made it wrote it before the text was drawn.

use std::hash::{BuildHasher as _, RandomState};

use flate2::{Compress, Compression, FlushCompress};
use libdeflater::Decompressor;

use super::buffers::{Buffer, ROOM};
use crate::error::{Error, Result};

/// Different bytes in the text: which ones, is one of more than 2^130 choices.
const ALPHABET: usize = 32;
/// Bytes of text. Short enough for one block, long enough that a code of its own pays.
const TEXT: usize = 512;

/// What is added to segments.
pub(super) struct Seal {
    text: Vec<u8>,
    // One last block of deflate.
    packed: Vec<u8>,
}

impl Seal {
    /// A text drawn anew.
    pub(super) fn draw() -> Result<Self> {
        // Keyed from the system's randomness, as hash maps are, and as hard to foresee.
        let keys = RandomState::new();
        let mut alphabet: Vec<u8> = (0..=255).collect();
        alphabet.sort_by_cached_key(|byte| keys.hash_one(("byte", byte)));
        let text: Vec<u8> = (0..TEXT)
            .map(|at| {
                let drawn = keys.hash_one(("place", at)) as usize;
                // Some more often than others, so that the lengths of codes differ, too.
                alphabet[(drawn % ALPHABET).min((drawn >> 32) % ALPHABET)]
            })
            .collect();
        let mut packed = Vec::with_capacity(ROOM);
        Compress::new(Compression::best(), false)
            .compress_vec(&text, &mut packed, FlushCompress::Finish)
            .map_err(|e| Error::adapter("the compressor failed").because(e))?;
        Ok(Self { text, packed })
    }

    /// Decompresses a segment. `false`: it is not right, or looks so; what is in `raw` is void, and
    /// zlib-rs has to say what is wrong.
    pub(super) fn decompress(&self, packed: &mut Buffer, raw: &mut Buffer) -> bool {
        let (packed_len, raw_len) = (packed.len(), raw.len());
        let sealed = packed_len + self.packed.len();
        let packed = packed.with_room();
        packed[packed_len..sealed].copy_from_slice(&self.packed);
        let whole = raw_len + self.text.len();
        let raw = &mut raw.with_room()[..whole];
        let len = Decompressor::new().deflate_decompress(&packed[..sealed], raw);
        len == Ok(whole) && raw[raw_len..] == self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A last block, its code in its header: three bits, the lowest first.
    #[test]
    fn a_text_has_a_code_of_its_own_and_comes_once() {
        let seals: Vec<_> = (0..500).map(|_| Seal::draw().unwrap()).collect();
        for seal in &seals {
            assert_eq!(seal.packed[0] & 7, 0b101);
            assert!(seal.text.len() <= ROOM && seal.packed.len() <= ROOM);
        }
        let texts: std::collections::BTreeSet<_> = seals.iter().map(|seal| &seal.text).collect();
        let codes: std::collections::BTreeSet<_> =
            seals.iter().map(|seal| &seal.packed[..40]).collect();
        assert_eq!((texts.len(), codes.len()), (seals.len(), seals.len()));
    }
}
