//! Items out of events: what the reader of a live server gives, too.

use std::{collections::VecDeque, io::Read};

use backup_core::Result;
use bytes::Bytes;

use super::{Event, Key, Kind, Reader};
use crate::model::{Body, Element, Head, Item, ItemPart, STRING_RANGE, WHOLE_STRING};

/// Reads an RDB, one [`Item`] after another.
pub(crate) struct Items<R> {
    reader: Reader<R>,
    key: Option<(u32, Bytes, Option<i64>)>,
    /// A short string that is being gathered, or how far a long one came.
    text: Option<Text>,
    module: String,
    ready: VecDeque<ItemPart>,
}

enum Text {
    Whole(Vec<u8>),
    Ranges(u64),
}

impl<R: Read> Items<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            reader: Reader::new(input, STRING_RANGE),
            key: None,
            text: None,
            module: String::new(),
            ready: VecDeque::new(),
        }
    }

    /// The next item; `None` when all was read and the checksum compared.
    pub(crate) fn next(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(part) = self.ready.pop_front()
                && let Some((db, key, _)) = &self.key
            {
                return Ok(Some(Item { db: *db, key: key.clone(), part }));
            }
            let Some(event) = self.reader.next()? else { return Ok(None) };
            let part = self.take(event);
            self.ready.extend(part);
        }
    }

    /// Refuses what stands behind the end.
    pub(super) fn at_end(&mut self) -> Result<()> {
        self.reader.at_end()
    }

    fn take(&mut self, event: Event) -> Option<ItemPart> {
        match event {
            // Facts about the file and libraries of functions are no keys.
            Event::Aux | Event::Function => None,
            Event::Key(key) => self.begin(key),
            Event::Piece(bytes) => match self.text.as_mut()? {
                Text::Whole(whole) => {
                    if whole.is_empty() {
                        *whole = bytes;
                    } else {
                        whole.extend_from_slice(&bytes);
                    }
                    None
                }
                Text::Ranges(at) => {
                    let offset = *at;
                    *at += bytes.len() as u64;
                    Some(ItemPart::Element(Element::Range { offset, bytes: bytes.into() }))
                }
            },
            Event::Element(element) => Some(ItemPart::Element(element)),
            Event::Stream(stream) => Some(self.head(Body::Stream(stream))),
            Event::Dump(payload) => {
                let type_name = std::mem::take(&mut self.module);
                Some(self.head(Body::of_payload(type_name, payload.into())))
            }
            Event::End => match self.text.take()? {
                Text::Whole(whole) => Some(self.head(Body::String(whole.into()))),
                Text::Ranges(_) => None,
            },
        }
    }

    fn begin(&mut self, key: Key) -> Option<ItemPart> {
        self.key = Some((key.database, key.key.into(), key.expires_at));
        let body = match key.kind {
            Kind::String(len) if len <= WHOLE_STRING as u64 => {
                self.text = Some(Text::Whole(Vec::new()));
                return None;
            }
            Kind::String(_) => {
                self.text = Some(Text::Ranges(0));
                Body::LongString
            }
            Kind::List => Body::List,
            Kind::Set => Body::Set,
            Kind::SortedSet => Body::SortedSet,
            Kind::Hash => Body::Hash,
            Kind::Stream => return None,
            Kind::Module(name) => {
                self.module = name;
                return None;
            }
        };
        Some(self.head(body))
    }

    fn head(&self, body: Body) -> ItemPart {
        let expires_at = self.key.as_ref().and_then(|(_, _, at)| *at);
        ItemPart::Head(Head { expires_at, body })
    }
}
