//! A key that is larger than a page, or takes several commands.

use std::collections::VecDeque;

use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use redis::Value;

use crate::{
    client::Node,
    fields::Fields,
    model::{Body, Element, Head, Item, ItemPart, Kind, STRING_RANGE, WHOLE_STRING},
    page::{PAGE_ELEMENTS, of_page},
    reader::{Found, Seen},
    reply,
    streams::Stream,
};

/// Reads one key, which is watched from before its first command.
pub(crate) struct Large {
    db: u32,
    key: Bytes,
    name: Bytes,
    head: Option<Head>,
    fields: Fields,
    state: State,
}

enum State {
    /// Everything is in the head.
    Done,
    Ranges {
        offset: usize,
        len: usize,
    },
    Scan {
        kind: Kind,
        cursor: u64,
        seen: Seen,
    },
    List {
        index: u64,
    },
    Stream(Box<Stream>),
}

impl Large {
    /// `None` where it is gone.
    pub(crate) async fn begin(
        node: &Node,
        db: u32,
        key: Bytes,
        name: Bytes,
        type_name: &str,
        expires_at: Option<i64>,
        fields: Fields,
    ) -> Result<Option<Self>> {
        let ask = |command: &str| {
            let mut ask = redis::cmd(command);
            ask.arg(&name[..]);
            ask
        };
        let scan = |kind| State::Scan { kind, cursor: 0, seen: Seen::default() };
        let (body, state) = match Kind::of(type_name) {
            Some(Kind::String) => {
                let len = reply::integer(&node.one(&ask("STRLEN")).await?)?;
                let len = usize::try_from(len).unwrap_or(0);
                if len > WHOLE_STRING {
                    (Body::LongString, State::Ranges { offset: 0, len })
                } else {
                    match node.one(&ask("GET")).await? {
                        Value::Nil => return Ok(None),
                        value => (Body::String(reply::bytes(value)?), State::Done),
                    }
                }
            }
            Some(Kind::Hash) => (Body::Hash, scan(Kind::Hash)),
            Some(Kind::Set) => (Body::Set, scan(Kind::Set)),
            Some(Kind::SortedSet) => (Body::SortedSet, scan(Kind::SortedSet)),
            Some(Kind::List) => (Body::List, State::List { index: 0 }),
            Some(Kind::Stream) => {
                let Some((head, stream)) = Stream::begin(node, &name).await? else {
                    return Ok(None);
                };
                (Body::Stream(head), State::Stream(Box::new(stream)))
            }
            None => match node.one(&ask("DUMP")).await? {
                Value::Nil => return Ok(None),
                payload => {
                    (Body::of_payload(type_name.to_owned(), reply::bytes(payload)?), State::Done)
                }
            },
        };
        Ok(Some(Self { db, key, name, head: Some(Head { expires_at, body }), fields, state }))
    }

    /// Gives the next page; `false` at the end.
    pub(crate) async fn next(&mut self, node: &Node, ready: &mut VecDeque<Found>) -> Result<bool> {
        if let Some(head) = self.head.take() {
            self.give(ready, ItemPart::Head(head));
        }
        let elements = match self.page(node).await {
            Ok(elements) => elements,
            // Removed or made anew with another type, half-way.
            Err(error) if error.kind() == ErrorKind::Changed => {
                ready.push_back(Found::Torn(self.key.clone()));
                node.one(&redis::cmd("UNWATCH")).await?;
                return Ok(false);
            }
            Err(error) => return Err(error.on(String::from_utf8_lossy(&self.key))),
        };
        let more = elements.is_some();
        for element in elements.into_iter().flatten() {
            self.give(ready, ItemPart::Element(element));
        }
        if !more && self.was_changed(node).await? {
            ready.push_back(Found::Torn(self.key.clone()));
        }
        Ok(more)
    }

    fn give(&self, ready: &mut VecDeque<Found>, part: ItemPart) {
        ready.push_back(Found::Item(Item { db: self.db, key: self.key.clone(), part }));
    }

    // Ends the watch: a transaction is refused where the key was touched.
    async fn was_changed(&self, node: &Node) -> Result<bool> {
        let mut check = redis::Pipeline::with_capacity(3);
        check.cmd("MULTI");
        check.cmd("EXISTS").arg(&self.name[..]);
        check.cmd("EXEC");
        let replies = node.every("a key cannot be read", &check).await?;
        Ok(replies.last() == Some(&Value::Nil))
    }

    async fn page(&mut self, node: &Node) -> Result<Option<Vec<Element>>> {
        let name = &self.name[..];
        Ok(match &mut self.state {
            State::Done => None,
            State::Ranges { offset, len } => {
                if *offset >= *len {
                    return Ok(None);
                }
                let to = *offset + STRING_RANGE - 1;
                let mut range = redis::cmd("GETRANGE");
                range.arg(name).arg(*offset).arg(to);
                let bytes = reply::bytes(node.one(&range).await?)?;
                if bytes.is_empty() {
                    return Err(Error::new(ErrorKind::Changed, "a string became shorter"));
                }
                let element = Element::Range { offset: *offset as u64, bytes };
                *offset = to + 1;
                Some(vec![element])
            }
            State::List { index } => {
                let mut range = redis::cmd("LRANGE");
                range.arg(name).arg(*index).arg(*index + PAGE_ELEMENTS as u64 - 1);
                let items = reply::list(node.one(&range).await?)?;
                if items.is_empty() {
                    return Ok(None);
                }
                let mut elements = Vec::with_capacity(items.len());
                for item in items {
                    elements.push(Element::At { index: *index, value: reply::bytes(item)? });
                    *index += 1;
                }
                Some(elements)
            }
            State::Scan { kind, cursor, seen } => {
                // The first cursor and the last are both 0.
                if *cursor == u64::MAX {
                    return Ok(None);
                }
                let command = match kind {
                    Kind::Set => "SSCAN",
                    Kind::SortedSet => "ZSCAN",
                    _ => "HSCAN",
                };
                let mut scan = redis::cmd(command);
                scan.arg(name).arg(*cursor).arg("COUNT").arg(PAGE_ELEMENTS);
                let (next, page) = reply::page(node.one(&scan).await?)?;
                let mut elements = of_page(*kind, page)?;
                elements.retain(|element| match element {
                    Element::Field { name, .. } | Element::Member(name) => seen.insert(name),
                    Element::Scored { member, .. } => seen.insert(member),
                    _ => true,
                });
                if *kind == Kind::Hash && node.has_field_deadlines() && !elements.is_empty() {
                    let mut ask = redis::Pipeline::new();
                    self.fields.ask(&mut ask, name, &elements);
                    let mut replies = node.all(&ask).await?.into_iter();
                    self.fields.set(&mut elements, &mut replies)?;
                }
                *cursor = if next == 0 { u64::MAX } else { next };
                Some(elements)
            }
            State::Stream(stream) => stream.next(node, name).await?,
        })
    }
}
