//! Bytes from a reader: buffered, hashed, counted, kept where a value is wanted raw.

use std::io::{self, Read};

use backup_core::{Error, ErrorKind, Result};
use crc::{CRC_64_REDIS, Crc, Digest, Table};

pub(crate) static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

const BUFFER: usize = 128 << 10;

pub(super) struct Input<R> {
    inner: R,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    /// Bytes that were in earlier fillings.
    before: u64,
    crc: Digest<'static, u64, Table<16>>,
    /// Up to where the buffer is in the checksum.
    hashed: usize,
    raw: Option<Vec<u8>>,
    /// Longest string that is held whole.
    limit: u64,
}

/// A length, or a special form of a string.
pub(super) enum Len {
    Plain(u64),
    Encoded(u8),
}

impl<R: Read> Input<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER].into(),
            at: 0,
            end: 0,
            before: 0,
            crc: CRC.digest(),
            hashed: 0,
            raw: None,
            limit,
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.before + self.at as u64
    }

    pub(super) fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corrupt, what)
            .on(format_args!("RDB, byte {}", self.position()))
            .advise("take another snapshot; if it is a file, `redis-check-rdb` tells more of it")
    }

    /// The checksum of everything read so far.
    pub(super) fn checksum(&mut self) -> u64 {
        self.hash();
        self.crc.clone().finalize()
    }

    fn hash(&mut self) {
        self.crc.update(&self.buffer[self.hashed..self.at]);
        self.hashed = self.at;
    }

    /// Makes sure that there is at least one byte to take.
    fn fill(&mut self) -> Result<()> {
        if self.is_over()? {
            return Err(self.corrupt("a snapshot ends before its end mark"));
        }
        Ok(())
    }

    /// Whether there is nothing more to take.
    pub(super) fn is_over(&mut self) -> Result<bool> {
        if self.at < self.end {
            return Ok(false);
        }
        self.hash();
        self.before += self.at as u64;
        (self.at, self.end, self.hashed) = (0, 0, 0);
        loop {
            match self.inner.read(&mut self.buffer) {
                Ok(n) => {
                    self.end = n;
                    return Ok(n == 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("a snapshot could not be read", e)),
            }
        }
    }

    /// Up to `most` bytes, at least one.
    pub(super) fn some(&mut self, most: u64) -> Result<&[u8]> {
        self.fill()?;
        let n = usize::try_from(most).unwrap_or(usize::MAX).min(self.end - self.at);
        let from = self.at;
        self.at += n;
        let bytes = &self.buffer[from..self.at];
        if let Some(raw) = &mut self.raw {
            if (raw.len() + n) as u64 > self.limit {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    "a value that can only be carried whole is too large",
                )
                .on(format_args!("RDB, byte {}", self.before + from as u64)));
            }
            raw.extend_from_slice(bytes);
        }
        Ok(bytes)
    }

    /// Appends `n` bytes to `out`, which grows as they arrive.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, n: u64) -> Result<()> {
        let mut left = n;
        // One growth for what is short; what is long has to arrive first.
        out.reserve(left.min(64 << 10) as usize);
        while left > 0 {
            let bytes = self.some(left)?;
            left -= bytes.len() as u64;
            out.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// `n` bytes, held whole: so not more than the limit.
    pub(super) fn bytes(&mut self, n: u64) -> Result<Vec<u8>> {
        self.check(n)?;
        let mut out = Vec::new();
        self.append(&mut out, n)?;
        Ok(out)
    }

    /// Refuses a length that is more than is ever held.
    pub(super) fn check(&self, n: u64) -> Result<()> {
        if n <= self.limit {
            return Ok(());
        }
        let what = format!("an element of {n} bytes is longer than the limit of {}", self.limit);
        Err(Error::new(ErrorKind::LimitExceeded, what)
            .on(format_args!("RDB, byte {}", self.position())))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        if self.raw.is_none() && self.end - self.at >= N {
            out.copy_from_slice(&self.buffer[self.at..self.at + N]);
            self.at += N;
            return Ok(out);
        }
        let mut done = 0;
        while done < N {
            let bytes = self.some((N - done) as u64)?;
            out[done..done + bytes.len()].copy_from_slice(bytes);
            done += bytes.len();
        }
        Ok(out)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Milliseconds since 1970.
    pub(super) fn time(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn encoded_len(&mut self) -> Result<Len> {
        let first = self.byte()?;
        Ok(Len::Plain(match first >> 6 {
            0 => first.into(),
            1 => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            2 => match first {
                0x80 => u32::from_be_bytes(self.array()?).into(),
                0x81 => u64::from_be_bytes(self.array()?),
                _ => return Err(self.corrupt("a length has an unknown form")),
            },
            _ => return Ok(Len::Encoded(first & 0x3f)),
        }))
    }

    pub(super) fn len(&mut self) -> Result<u64> {
        match self.encoded_len()? {
            Len::Plain(n) => Ok(n),
            Len::Encoded(_) => Err(self.corrupt("a string stands where a length should")),
        }
    }

    /// From here on everything that is read is kept.
    pub(super) fn keep(&mut self, first: u8) {
        self.raw = Some(vec![first]);
    }

    pub(super) fn kept(&mut self) -> Vec<u8> {
        self.raw.take().unwrap_or_default()
    }
}
