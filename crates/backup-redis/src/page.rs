//! Keys that one reply tells whole, and pages of those that it does not.
//!
//! A page has many keys where they are small, because a round trip costs the same for all of
//! them, and few where they are large, so that its replies are bounded.

use backup_core::Result;
use bytes::Bytes;
use redis::{Pipeline, Value};

use crate::{
    model::{Body, Element, Kind},
    reply,
    streams::{Stream, WHOLE_STREAM},
};

/// Elements of one reply.
pub(crate) const PAGE_ELEMENTS: usize = 512;
/// Fewest and most keys of a page.
const PAGE_KEYS: std::ops::RangeInclusive<usize> = 16..=2048;
/// Bytes of values that a page is to have.
const PAGE_BYTES: usize = 2 << 20;
/// Bytes of strings that a page has at most.
const PAGE_STRINGS: usize = 32 << 20;

/// How many keys a page has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSize {
    keys: usize,
}

impl PageSize {
    /// Where nothing is known of the keys.
    pub(crate) const FIRST: Self = Self { keys: 256 };

    pub(crate) fn keys(self) -> usize {
        self.keys
    }

    /// Bytes of a string up to which it is read along with its page.
    pub(crate) fn string(self) -> usize {
        (PAGE_STRINGS / self.keys).min(256 << 10)
    }

    /// The size of pages after one whose `keys` had so many bytes.
    pub(crate) fn after(self, keys: usize, bytes: usize) -> Self {
        let fit = keys.saturating_mul(PAGE_BYTES) / bytes.max(1);
        // One page with small values does not tell that all are.
        let fit = fit.min(2 * self.keys).clamp(*PAGE_KEYS.start(), *PAGE_KEYS.end());
        // The last page has few keys, whatever their size.
        if keys < self.keys && fit > self.keys { self } else { Self { keys: fit } }
    }
}

/// A key that is read with its page, or by itself.
pub(crate) struct Pending {
    pub(crate) key: Bytes,
    pub(crate) name: Bytes,
    pub(crate) type_name: String,
    /// Its deadline, where that is kept aside.
    pub(crate) aside: Option<i64>,
    pub(crate) attempt: usize,
}

/// The replies of a page: of each key its deadline and its value.
pub(crate) struct Told {
    pub(crate) keys: Vec<Pending>,
    pub(crate) replies: Vec<Value>,
    /// With which it was asked for.
    pub(crate) size: PageSize,
}

/// A page, its values taken apart.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) whole: Vec<Whole>,
    /// Too large for their page, or made anew with another type.
    pub(crate) large: Vec<Pending>,
    /// Strings that are too large, empty or gone.
    pub(crate) strings: Vec<Pending>,
    pub(crate) keys: usize,
    pub(crate) bytes: usize,
}

/// A key that came whole with its page, and what the server says of its deadline.
pub(crate) type Whole = (Pending, i64, Body, Vec<Element>);

impl Told {
    pub(crate) fn read(self) -> Result<Read> {
        let string = self.size.string();
        let mut read = Read { keys: self.keys.len(), ..Read::default() };
        read.whole.reserve(self.keys.len());
        let mut replies = self.replies.into_iter();
        for pending in self.keys {
            let (Some(at), Some(value)) = (replies.next(), replies.next()) else {
                return Err(reply::odd("PEXPIRETIME"));
            };
            // It was made anew with another type.
            if reply::code(&value) == Some("WRONGTYPE") {
                read.large.push(pending);
                continue;
            }
            let at = reply::integer(&reply::checked("a key cannot be read", at)?)?;
            match whole(&pending.type_name, value, string)? {
                Some((body, elements)) => {
                    read.bytes += weight(&body, &elements);
                    read.whole.push((pending, at, body, elements));
                }
                None if pending.type_name == "string" => {
                    read.bytes += string;
                    read.strings.push(pending);
                }
                None => read.large.push(pending),
            }
        }
        Ok(read)
    }
}

/// Asks for a key, or for as much of it as a page has: of a string so many bytes.
pub(crate) fn ask(commands: &mut Pipeline, type_name: &str, name: &[u8], string: usize) {
    let kind = Kind::of(type_name);
    let command = match kind {
        Some(Kind::String) => "GETRANGE",
        Some(Kind::List) => "LRANGE",
        Some(Kind::Hash) => "HSCAN",
        Some(Kind::Set) => "SSCAN",
        Some(Kind::SortedSet) => "ZSCAN",
        Some(Kind::Stream) => "XINFO",
        // What is unknown may be of any size.
        None => "EXISTS",
    };
    let ask = commands.cmd(command);
    match kind {
        Some(Kind::Stream) => {
            ask.arg("STREAM").arg(name).arg("FULL").arg("COUNT").arg(WHOLE_STREAM);
        }
        Some(Kind::String) => drop(ask.arg(name).arg(0).arg(string - 1)),
        Some(Kind::List) => drop(ask.arg(name).arg(0).arg(PAGE_ELEMENTS)),
        Some(_) => drop(ask.arg(name).arg(0).arg("COUNT").arg(PAGE_ELEMENTS)),
        None => drop(ask.arg(name)),
    }
}

/// What is all in one reply to what [`ask`] asked; `None` where it is not.
pub(crate) fn whole(
    type_name: &str,
    value: Value,
    string: usize,
) -> Result<Option<(Body, Vec<Element>)>> {
    let kind = Kind::of(type_name);
    if kind == Some(Kind::Stream) {
        let whole = Stream::whole(value)?;
        return Ok(whole.map(|(head, elements)| (Body::Stream(head), elements)));
    }
    let value = reply::checked("a key cannot be read", value)?;
    Ok(match kind {
        Some(Kind::String) => {
            let bytes = reply::bytes(value)?;
            let whole = !bytes.is_empty() && bytes.len() < string;
            whole.then_some((Body::String(bytes), Vec::new()))
        }
        Some(Kind::List) => {
            let items = reply::list(value)?;
            if items.len() > PAGE_ELEMENTS {
                return Ok(None);
            }
            let at = |(index, item)| Ok(Element::At { index, value: reply::bytes(item)? });
            Some((Body::List, (0..).zip(items).map(at).collect::<Result<_>>()?))
        }
        Some(kind @ (Kind::Hash | Kind::Set | Kind::SortedSet)) => {
            let (cursor, page) = reply::page(value)?;
            if cursor != 0 {
                return Ok(None);
            }
            let body = match kind {
                Kind::Hash => Body::Hash,
                Kind::Set => Body::Set,
                _ => Body::SortedSet,
            };
            Some((body, of_page(kind, page)?))
        }
        Some(Kind::Stream) | None => None,
    })
}

/// About how many bytes a key takes.
pub(crate) fn weight(body: &Body, elements: &[Element]) -> usize {
    let head = match body {
        Body::String(bytes) | Body::Json(bytes) => bytes.len(),
        Body::Dump { payload, .. } => payload.len(),
        _ => 0,
    };
    let elements = elements.iter().map(|element| match element {
        Element::Field { name, value, .. } => name.len() + value.len(),
        Element::At { value: bytes, .. }
        | Element::Member(bytes)
        | Element::Scored { member: bytes, .. }
        | Element::Range { bytes, .. } => bytes.len(),
        Element::Entry { fields, .. } => {
            fields.iter().map(|(name, value)| name.len() + value.len()).sum()
        }
        Element::Group { .. } | Element::Consumer { .. } | Element::Pending { .. } => 0,
    });
    elements.map(|bytes| bytes + 16).sum::<usize>() + head
}

/// The elements of one reply to a command that scans.
pub(crate) fn of_page(kind: Kind, page: Vec<Value>) -> Result<Vec<Element>> {
    let mut elements = Vec::with_capacity(page.len());
    let mut page = page.into_iter();
    while let Some(name) = page.next() {
        let name = reply::bytes(name)?;
        let mut value = || page.next().ok_or_else(|| reply::odd("a page of elements"));
        elements.push(match kind {
            Kind::Set => Element::Member(name),
            Kind::SortedSet => Element::Scored { member: name, score: reply::float(value()?)? },
            _ => Element::Field { name, value: reply::bytes(value()?)?, expires_at: None },
        });
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_size_of_keys_and_their_strings_are_bounded() {
        let mut size = PageSize::FIRST;
        for _ in 0..8 {
            size = size.after(size.keys(), size.keys() * 100);
        }
        assert_eq!(size.keys(), 2048);
        // The last page of many does not tell more than others; one with large keys does.
        assert_eq!(size.after(3, 30).keys(), 2048);
        assert_eq!(size.after(3, 3 << 20).keys(), 16);
        let small = size.after(2048, 2048 * size.string());
        assert_eq!(small.keys(), 128);
        assert_eq!(small.after(128, 128 * 100).keys(), 256);
        for size in [PageSize::FIRST, size, small, size.after(1, usize::MAX)] {
            assert!(size.keys() * size.string() <= PAGE_STRINGS);
            assert!(size.string() >= PAGE_STRINGS / 2048);
        }
    }
}
