//! Keys that one reply tells whole, and pages of those that it does not.

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
/// Bytes of a string up to which it is read along with its page.
const PAGE_STRING: usize = 64 << 10;

/// Asks for a key, or for as much of it as a page has.
pub(crate) fn ask(commands: &mut Pipeline, type_name: &str, name: &[u8]) {
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
        Some(Kind::String) => drop(ask.arg(name).arg(0).arg(PAGE_STRING - 1)),
        Some(Kind::List) => drop(ask.arg(name).arg(0).arg(PAGE_ELEMENTS)),
        Some(_) => drop(ask.arg(name).arg(0).arg("COUNT").arg(PAGE_ELEMENTS)),
        None => drop(ask.arg(name)),
    }
}

/// What is all in one reply; `None` where it is not.
pub(crate) fn whole(type_name: &str, value: Value) -> Result<Option<(Body, Vec<Element>)>> {
    let kind = Kind::of(type_name);
    if kind == Some(Kind::Stream) {
        let whole = Stream::whole(value)?;
        return Ok(whole.map(|(head, elements)| (Body::Stream(head), elements)));
    }
    let value = reply::checked("a key cannot be read", value)?;
    Ok(match kind {
        Some(Kind::String) => {
            let bytes = reply::bytes(value)?;
            let whole = !bytes.is_empty() && bytes.len() < PAGE_STRING;
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

/// How deadlines of fields are read.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    /// The hash in which some are kept aside.
    pub(crate) aside: Option<Bytes>,
    /// Milliseconds by which those of the server are later than those of the records.
    pub(crate) shift: i64,
}

impl Fields {
    /// Asks when fields of a hash expire: for as many replies as [`set`](Self::set) takes.
    pub(crate) fn ask(&self, commands: &mut Pipeline, name: &[u8], elements: &[Element]) {
        let names = elements.iter().filter_map(|element| match element {
            Element::Field { name, .. } => Some(&name[..]),
            _ => None,
        });
        let ask = commands.cmd("HPEXPIRETIME").arg(name).arg("FIELDS").arg(elements.len());
        for name in names.clone() {
            ask.arg(name);
        }
        if let Some(aside) = &self.aside {
            let ask = commands.cmd("HMGET").arg(&aside[..]);
            for name in names {
                ask.arg(name);
            }
        }
    }

    /// Sets the deadlines of fields; those that are gone by now are removed.
    pub(crate) fn set(
        &self,
        elements: &mut Vec<Element>,
        replies: &mut impl Iterator<Item = Value>,
    ) -> Result<()> {
        let mut next = || replies.next().ok_or_else(|| reply::odd("HPEXPIRETIME"));
        let told = next()?;
        let aside = if self.aside.is_some() { next()? } else { Value::Nil };
        // Made anew as something else.
        if reply::code(&told) == Some("WRONGTYPE") {
            elements.clear();
            return Ok(());
        }
        let what = "deadlines of fields cannot be read";
        let mut told = reply::list(reply::checked(what, told)?)?.into_iter();
        let mut aside = reply::list(reply::checked(what, aside)?)?.into_iter();
        let mut kept = Vec::with_capacity(elements.len());
        for mut element in elements.drain(..) {
            // There is nothing of a key that is gone.
            let at = told.next().map_or(Ok(-2), |at| reply::integer(&at))?;
            let aside = aside.next().filter(|at| *at != Value::Nil);
            if let Element::Field { expires_at, .. } = &mut element {
                *expires_at = match aside {
                    Some(at) => Some(reply::integer(&at)?),
                    None => (at >= 0).then(|| at - self.shift),
                };
            }
            if at != -2 {
                kept.push(element);
            }
        }
        *elements = kept;
        Ok(())
    }
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
