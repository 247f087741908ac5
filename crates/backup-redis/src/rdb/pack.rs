//! The blocks in which servers keep short values: listpack, ziplist, intset, zipmap.
//!
//! A block is a string of the RDB, read whole. Nothing in it is trusted: each step checks that
//! it stays within the block.

use std::borrow::Cow;

/// One entry of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    Number(i64),
    Bytes(&'a [u8]),
}

/// A fault in a block, in one clause.
pub(super) type Fault = &'static str;

const CUT: Fault = "a packed block ends within an entry";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Listpack,
    Ziplist,
    /// So many bytes each.
    Intset(usize),
    Zipmap,
}

/// A block, and how far it is read.
#[derive(Debug)]
pub(super) struct Pack {
    bytes: Vec<u8>,
    at: usize,
    form: Form,
    /// Whether the next one is a value, which a zipmap writes in another way than a name.
    value: bool,
}

impl Pack {
    pub(super) fn listpack(bytes: Vec<u8>) -> Result<Self, Fault> {
        Self::sized(bytes, 6, Form::Listpack)
    }

    pub(super) fn ziplist(bytes: Vec<u8>) -> Result<Self, Fault> {
        Self::sized(bytes, 10, Form::Ziplist)
    }

    pub(super) fn intset(bytes: Vec<u8>) -> Result<Self, Fault> {
        let header: [u8; 8] = take(&bytes, 0)?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap_or([0; 4]));
        let (width, count) = (word(0) as usize, word(4) as usize);
        if !matches!(width, 2 | 4 | 8) || Some(bytes.len() - 8) != count.checked_mul(width) {
            return Err("a set of integers has another length than it says");
        }
        Ok(Self { bytes, at: 8, form: Form::Intset(width), value: false })
    }

    pub(super) fn zipmap(bytes: Vec<u8>) -> Result<Self, Fault> {
        if bytes.len() < 2 || bytes.last() != Some(&0xff) {
            return Err("a packed map has no end");
        }
        Ok(Self { bytes, at: 1, form: Form::Zipmap, value: false })
    }

    /// A block that begins with its length and ends with `0xff`.
    fn sized(bytes: Vec<u8>, header: usize, form: Form) -> Result<Self, Fault> {
        let len = u32::from_le_bytes(take(&bytes, 0)?) as usize;
        if len != bytes.len() || len <= header || bytes.last() != Some(&0xff) {
            return Err("a packed block has another length than it says");
        }
        Ok(Self { bytes, at: header, form, value: false })
    }

    /// The next entry; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'_>>, Fault> {
        let (entry, at) = match self.form {
            Form::Intset(width) => {
                if self.at == self.bytes.len() {
                    return Ok(None);
                }
                (Entry::Number(integer(&self.bytes, self.at, width)?), self.at + width)
            }
            _ if self.at + 1 >= self.bytes.len() => {
                return if self.at + 1 == self.bytes.len() { Ok(None) } else { Err(CUT) };
            }
            Form::Listpack => listpack(&self.bytes, self.at)?,
            Form::Ziplist => ziplist(&self.bytes, self.at)?,
            Form::Zipmap => {
                self.value = !self.value;
                zipmap(&self.bytes, self.at, !self.value)?
            }
        };
        // The last byte is the end mark and part of no entry.
        if at > self.bytes.len() - usize::from(!matches!(self.form, Form::Intset(_))) {
            return Err(CUT);
        }
        self.at = at;
        Ok(Some(entry))
    }

    /// The next entry as bytes.
    pub(super) fn text(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.next()?.map(|entry| entry.text().into_owned()))
    }

    /// The next entry, which has to be there.
    pub(super) fn wanted(&mut self) -> Result<Vec<u8>, Fault> {
        self.text()?.ok_or("a packed block ends too early")
    }

    /// The next entry, which has to be an integer.
    pub(super) fn number(&mut self) -> Result<i64, Fault> {
        match self.next()? {
            Some(Entry::Number(number)) => Ok(number),
            Some(Entry::Bytes(_)) => Err("a packed block holds text where a number should stand"),
            None => Err("a packed block ends too early"),
        }
    }
}

impl<'a> Entry<'a> {
    pub(super) fn text(self) -> Cow<'a, [u8]> {
        match self {
            Self::Number(number) => number.to_string().into_bytes().into(),
            Self::Bytes(bytes) => bytes.into(),
        }
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Fault> {
    let end = at.checked_add(N).ok_or(CUT)?;
    bytes.get(at..end).and_then(|bytes| bytes.try_into().ok()).ok_or(CUT)
}

fn slice(bytes: &[u8], at: usize, len: usize) -> Result<&[u8], Fault> {
    bytes.get(at..at.checked_add(len).ok_or(CUT)?).ok_or(CUT)
}

/// A signed integer of `width` bytes, the least first.
fn integer(bytes: &[u8], at: usize, width: usize) -> Result<i64, Fault> {
    let digits = slice(bytes, at, width)?;
    let mut full = [0; 8];
    full[8 - width..].copy_from_slice(digits);
    // Shifted down with its sign.
    Ok(i64::from_le_bytes(full) >> (64 - 8 * width))
}

/// The entry at `at`, and where the next one begins.
fn listpack(bytes: &[u8], at: usize) -> Result<(Entry<'_>, usize), Fault> {
    let first = *bytes.get(at).ok_or(CUT)?;
    let text = |header: usize, len: usize| {
        Ok::<_, Fault>((Entry::Bytes(slice(bytes, at + header, len)?), header + len))
    };
    let number =
        |width: usize| Ok::<_, Fault>((Entry::Number(integer(bytes, at + 1, width)?), 1 + width));
    let (entry, len) = match first {
        0..0x80 => (Entry::Number(first.into()), 1),
        0x80..0xc0 => text(1, (first & 0x3f).into())?,
        0xc0..0xe0 => {
            let [low] = take(bytes, at + 1)?;
            // 13 bits with a sign.
            let value = i16::from_be_bytes([first << 3, 0]) >> 3 | i16::from(low);
            (Entry::Number(value.into()), 2)
        }
        0xe0..0xf0 => {
            let [low] = take(bytes, at + 1)?;
            text(2, usize::from(first & 0x0f) << 8 | usize::from(low))?
        }
        0xf0 => text(5, u32::from_le_bytes(take(bytes, at + 1)?) as usize)?,
        0xf1 => number(2)?,
        0xf2 => number(3)?,
        0xf3 => number(4)?,
        0xf4 => number(8)?,
        _ => return Err("a packed block holds an entry of an unknown form"),
    };
    // Behind each stands its length once more, read from the back: 7 bits a byte.
    let back = match len {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        2_097_152..268_435_456 => 4,
        _ => 5,
    };
    Ok((entry, at + len + back))
}

fn ziplist(bytes: &[u8], at: usize) -> Result<(Entry<'_>, usize), Fault> {
    // The length of the entry before: one byte, or five.
    let at = at + if *bytes.get(at).ok_or(CUT)? < 254 { 1 } else { 5 };
    let first = *bytes.get(at).ok_or(CUT)?;
    let text = |header: usize, len: usize| {
        Ok((Entry::Bytes(slice(bytes, at + header, len)?), at + header + len))
    };
    let number = |width: usize| Ok((Entry::Number(integer(bytes, at + 1, width)?), at + 1 + width));
    match first {
        0..0x40 => text(1, first.into()),
        0x40..0x80 => {
            let [low] = take(bytes, at + 1)?;
            text(2, usize::from(first & 0x3f) << 8 | usize::from(low))
        }
        0x80 => text(5, u32::from_be_bytes(take(bytes, at + 1)?) as usize),
        0xc0 => number(2),
        0xd0 => number(4),
        0xe0 => number(8),
        0xf0 => number(3),
        0xfe => number(1),
        0xf1..=0xfd => Ok((Entry::Number(i64::from(first & 0x0f) - 1), at + 1)),
        _ => Err("a packed block holds an entry of an unknown form"),
    }
}

fn zipmap(bytes: &[u8], at: usize, value: bool) -> Result<(Entry<'_>, usize), Fault> {
    let (len, header) = match *bytes.get(at).ok_or(CUT)? {
        len @ 0..254 => (len.into(), 1),
        254 => (u32::from_le_bytes(take(bytes, at + 1)?) as usize, 5),
        255 => return Err("a packed map ends within a pair"),
    };
    // A value has room left behind it, so that it may grow.
    let free = if value { usize::from(take::<1>(bytes, at + header)?[0]) } else { 0 };
    let begin = at + header + usize::from(value);
    let entry = Entry::Bytes(slice(bytes, begin, len)?);
    Ok((entry, begin + len + free))
}
