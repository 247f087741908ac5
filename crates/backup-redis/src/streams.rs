//! Streams: entries, and their groups with what is pending.

use std::collections::{BTreeSet, VecDeque};

use backup_core::Result;
use bytes::Bytes;
use redis::Value;

use crate::{
    client::Node,
    model::{Element, StreamHead, StreamId},
    page::PAGE_ELEMENTS,
    reply,
};

/// Most entries, and most of each consumer that are pending, of a stream that one reply tells.
pub(crate) const WHOLE_STREAM: usize = 64;

/// Reads the entries of a stream page by page; its groups come from one reply.
#[derive(Default)]
pub(crate) struct Stream {
    /// From where the next page is read; `None` at the end.
    from: Option<String>,
    /// Pending entries that are not among those that were read yet.
    pending: BTreeSet<StreamId>,
    groups: VecDeque<Element>,
    /// A consumer has more that is pending than was told.
    cut: bool,
}

impl Stream {
    /// `None` where it is gone.
    pub(crate) async fn begin(node: &Node, name: &[u8]) -> Result<Option<(StreamHead, Self)>> {
        let mut ask = redis::Pipeline::with_capacity(2);
        ask.cmd("XINFO").arg("GROUPS").arg(name);
        let replies = node.all(&ask).await?;
        let Some(groups) = replies.into_iter().next() else { return Err(reply::odd("XINFO")) };
        if is_gone(&groups) {
            return Ok(None);
        }
        let mut most = 1;
        for group in reply::list(reply::checked("a stream cannot be read", groups)?)? {
            let mut group = reply::pairs(group)?;
            let pending = reply::take(&mut group, "pending").unwrap_or(Value::Int(0));
            most = most.max(reply::integer(&pending)?);
        }
        // Only here are the moments of delivery told as such. It gives as many entries.
        let mut ask = redis::Pipeline::with_capacity(1);
        ask.cmd("XINFO").arg("STREAM").arg(name).arg("FULL").arg("COUNT").arg(most);
        let Some(full) = node.all(&ask).await?.into_iter().next() else {
            return Err(reply::odd("XINFO"));
        };
        if is_gone(&full) {
            return Ok(None);
        }
        let full = reply::pairs(reply::checked("a stream cannot be read", full)?)?;
        let (head, mut stream) = Self::of(full)?;
        stream.from = Some("-".to_owned());
        Ok(Some((head, stream)))
    }

    /// A stream of which everything may be in one reply to `XINFO STREAM FULL`, asked for so many
    /// entries; `None` where it has more, or is gone.
    pub(crate) fn whole(full: Value) -> Result<Option<(StreamHead, Vec<Element>)>> {
        if is_gone(&full) {
            return Ok(None);
        }
        let mut full = reply::pairs(reply::checked("a stream cannot be read", full)?)?;
        let mut take =
            |name: &str| reply::take(&mut full, name).ok_or_else(|| reply::odd("XINFO STREAM"));
        let length = reply::integer(&take("length")?)?;
        let entries = reply::list(take("entries")?)?;
        let (head, mut stream) = Self::of(full)?;
        if stream.cut || usize::try_from(length).ok() != Some(entries.len()) {
            return Ok(None);
        }
        let mut elements = Vec::with_capacity(entries.len() + stream.groups.len());
        stream.entries(entries, &mut elements)?;
        stream.deleted_before(None, &mut elements);
        elements.extend(stream.groups);
        Ok(Some((head, elements)))
    }

    fn of(mut full: Vec<(Value, Value)>) -> Result<(StreamHead, Self)> {
        let mut take =
            |name: &str| reply::take(&mut full, name).ok_or_else(|| reply::odd("XINFO STREAM"));
        let head = StreamHead {
            last_id: reply::stream_id(take("last-generated-id")?)?,
            max_deleted_id: reply::stream_id(take("max-deleted-entry-id")?)?,
            entries_added: reply::integer(&take("entries-added")?)?.unsigned_abs(),
        };
        let mut stream = Self::default();
        for group in reply::list(take("groups")?)? {
            stream.group(reply::pairs(group)?)?;
        }
        Ok((head, stream))
    }

    fn group(&mut self, mut group: Vec<(Value, Value)>) -> Result<()> {
        let mut take =
            |name: &str| reply::take(&mut group, name).ok_or_else(|| reply::odd("a group"));
        let name = reply::bytes(take("name")?)?;
        let entries_read = match take("entries-read")? {
            Value::Nil => None,
            read => u64::try_from(reply::integer(&read)?).ok(),
        };
        let last_id = reply::stream_id(take("last-delivered-id")?)?;
        self.groups.push_back(Element::Group { group: name.clone(), last_id, entries_read });
        let mut pendings = Vec::new();
        for consumer in reply::list(take("consumers")?)? {
            let mut consumer = reply::pairs(consumer)?;
            let mut take = |name: &str| {
                reply::take(&mut consumer, name).ok_or_else(|| reply::odd("a consumer"))
            };
            let consumer = reply::bytes(take("name")?)?;
            let element = Element::Consumer { group: name.clone(), consumer: consumer.clone() };
            self.groups.push_back(element);
            let count = reply::integer(&take("pel-count")?)?;
            let list = reply::list(take("pending").or_else(|_| take("pel"))?)?;
            self.cut |= usize::try_from(count).ok() != Some(list.len());
            for entry in list {
                pendings.push(pending(&name, &consumer, entry)?);
            }
        }
        for element in pendings {
            if let Element::Pending { id, .. } = &element {
                self.pending.insert(*id);
            }
            self.groups.push_back(element);
        }
        Ok(())
    }

    pub(crate) async fn next(&mut self, node: &Node, name: &[u8]) -> Result<Option<Vec<Element>>> {
        let Some(from) = self.from.take() else {
            let page: Vec<_> = self.groups.drain(..self.groups.len().min(PAGE_ELEMENTS)).collect();
            return Ok((!page.is_empty()).then_some(page));
        };
        let mut range = redis::cmd("XRANGE");
        range.arg(name).arg(from).arg("+").arg("COUNT").arg(PAGE_ELEMENTS);
        let page = reply::list(node.one(&range).await?)?;
        let full = page.len() == PAGE_ELEMENTS;
        let mut elements = Vec::with_capacity(page.len());
        let last = self.entries(page, &mut elements)?;
        self.from = last.filter(|_| full).map(|id| format!("({id}"));
        if self.from.is_none() {
            self.deleted_before(None, &mut elements);
        }
        Ok(Some(elements))
    }

    // The id of the last one.
    fn entries(
        &mut self,
        page: Vec<Value>,
        elements: &mut Vec<Element>,
    ) -> Result<Option<StreamId>> {
        let mut last = None;
        for entry in page {
            let mut entry = reply::list(entry)?.into_iter();
            let (Some(id), Some(fields)) = (entry.next(), entry.next()) else {
                return Err(reply::odd("an entry"));
            };
            let id = reply::stream_id(id)?;
            self.deleted_before(Some(id), elements);
            self.pending.remove(&id);
            let fields = reply::pairs(fields)?.into_iter();
            let fields = fields.map(|(a, b)| Ok((reply::bytes(a)?, reply::bytes(b)?)));
            elements.push(Element::Entry { id, fields: fields.collect::<Result<_>>()? });
            last = Some(id);
        }
        Ok(last)
    }

    // Pending entries that are not there stand in their places, without fields.
    fn deleted_before(&mut self, id: Option<StreamId>, elements: &mut Vec<Element>) {
        while let Some(first) = self.pending.first().copied()
            && id.is_none_or(|id| first < id)
        {
            self.pending.remove(&first);
            elements.push(Element::Entry { id: first, fields: Vec::new() });
        }
    }
}

fn is_gone(value: &Value) -> bool {
    matches!(value, Value::ServerError(error)
        if error.code() == "ERR" && error.details().is_some_and(|d| d.contains("no such key")))
}

fn pending(group: &Bytes, consumer: &Bytes, entry: Value) -> Result<Element> {
    let mut parts = reply::list(entry)?.into_iter();
    let (Some(id), Some(at), Some(deliveries)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(reply::odd("a pending entry"));
    };
    Ok(Element::Pending {
        group: group.clone(),
        id: reply::stream_id(id)?,
        consumer: consumer.clone(),
        delivered_at: reply::integer(&at)?,
        deliveries: reply::integer(&deliveries)?.unsigned_abs(),
    })
}
