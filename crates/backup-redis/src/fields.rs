//! Deadlines of the fields of a hash.

use backup_core::Result;
use bytes::Bytes;
use redis::{Pipeline, Value};

use crate::{model::Element, reply};

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
