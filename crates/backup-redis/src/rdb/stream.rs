//! A stream: its entries in blocks, what it knows of itself, its groups.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, Read, Seek, Write},
};

use backup_core::{Error, Result};
use bytes::Bytes;
use tempfile::SpooledTempFile;

use super::{
    event::Event,
    input::Input,
    pack::{Fault, Pack},
};
use crate::model::{Element, StreamHead, StreamId};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// Bytes of a stream's blocks that are held in memory; more of them go to a temporary file.
const HELD: usize = 16 << 20;

/// A stream that is being read.
///
/// What its groups have pending may no longer be among its entries, and then has a place between
/// them. But the groups stand behind the entries: so these are laid aside until all is known.
pub(super) struct Stream {
    version: u8,
    head: Option<StreamHead>,
    blocks: SpooledTempFile,
    blocks_left: u64,
    block: Option<Block>,
    /// The entry that comes when all that is missing before it was given.
    entry: Option<Element>,
    /// Pending entries that were not seen yet.
    pending: BTreeSet<StreamId>,
    groups: VecDeque<Element>,
}

impl Stream {
    pub(super) fn begin<R: Read>(input: &mut Input<R>, version: u8) -> Result<Self> {
        let mut stream = Self {
            version,
            head: None,
            blocks: SpooledTempFile::new(HELD),
            blocks_left: input.len()?,
            block: None,
            entry: None,
            pending: BTreeSet::new(),
            groups: VecDeque::new(),
        };
        for _ in 0..stream.blocks_left {
            for text in [input.string()?, input.string()?] {
                let len = (text.len() as u64).to_le_bytes();
                let written = stream.blocks.write_all(&len);
                written.and_then(|()| stream.blocks.write_all(&text)).map_err(aside)?;
            }
        }
        stream.blocks.rewind().map_err(aside)?;
        stream.read_groups(input)?;
        Ok(stream)
    }

    /// The next event; `None` at the end.
    pub(super) fn next<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Event>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(Event::Stream(head)));
        }
        if self.entry.is_none() {
            self.entry = self.read_entry(input)?;
        }
        let next = match &self.entry {
            Some(Element::Entry { id, .. }) => Some(*id),
            _ => None,
        };
        if let Some(first) = self.pending.first().copied()
            && next.is_none_or(|id| first <= id)
        {
            self.pending.remove(&first);
            if next != Some(first) {
                let missing = Element::Entry { id: first, fields: Vec::new() };
                return Ok(Some(Event::Element(missing)));
            }
        }
        let element = self.entry.take().or_else(|| self.groups.pop_front());
        Ok(element.map(Event::Element))
    }

    fn read_entry<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Element>> {
        loop {
            if let Some(block) = &mut self.block {
                match block.next().map_err(|fault| input.corrupt(fault))? {
                    Some(entry) => return Ok(Some(entry)),
                    None => self.block = None,
                }
            }
            if self.blocks_left == 0 {
                return Ok(None);
            }
            self.blocks_left -= 1;
            let (key, bytes) = (self.laid_aside()?, self.laid_aside()?);
            self.block = Some(Block::open(&key, bytes).map_err(|fault| input.corrupt(fault))?);
        }
    }

    fn laid_aside(&mut self) -> Result<Vec<u8>> {
        let mut len = [0; 8];
        self.blocks.read_exact(&mut len).map_err(aside)?;
        let mut bytes = vec![0; u64::from_le_bytes(len) as usize];
        self.blocks.read_exact(&mut bytes).map_err(aside)?;
        Ok(bytes)
    }

    fn read_groups<R: Read>(&mut self, input: &mut Input<R>) -> Result<()> {
        let length = input.len()?;
        let last_id = id(input)?;
        let (max_deleted_id, entries_added) = if self.version >= 2 {
            id(input)?;
            (id(input)?, input.len()?)
        } else {
            // What a newer server assumes when it reads this.
            (StreamId::default(), length)
        };
        self.head = Some(StreamHead { last_id, max_deleted_id, entries_added });
        for _ in 0..input.len()? {
            self.read_group(input)?;
        }
        Ok(())
    }

    fn read_group<R: Read>(&mut self, input: &mut Input<R>) -> Result<()> {
        let group: Bytes = input.string()?.into();
        let last_id = id(input)?;
        // −1: not known.
        let entries_read = match self.version {
            1 => None,
            _ => Some(input.len()?).filter(|read| *read != u64::MAX),
        };
        self.groups.push_back(Element::Group { group: group.clone(), last_id, entries_read });
        // By id: when, and how often. Consumers refer to it.
        let mut pending = BTreeMap::new();
        for _ in 0..input.len()? {
            let id = raw_id(input)?;
            if pending.insert(id, (input.time()?, input.len()?)).is_some() {
                return Err(input.corrupt("an entry is twice among what is pending in a stream"));
            }
            self.pending.insert(id);
        }
        let mut owned = Vec::new();
        for _ in 0..input.len()? {
            let consumer: Bytes = input.string()?.into();
            // When it was last seen and last did something: no server takes that.
            input.time()?;
            if self.version >= 3 {
                input.time()?;
            }
            let element = Element::Consumer { group: group.clone(), consumer: consumer.clone() };
            self.groups.push_back(element);
            for _ in 0..input.len()? {
                let id = raw_id(input)?;
                let Some((delivered_at, deliveries)) = pending.remove(&id) else {
                    return Err(input.corrupt("a consumer has an entry that is not pending"));
                };
                let (group, consumer) = (group.clone(), consumer.clone());
                owned.push(Element::Pending { group, id, consumer, delivered_at, deliveries });
            }
        }
        if !pending.is_empty() {
            return Err(input.corrupt("a stream has a pending entry that no consumer has"));
        }
        self.groups.extend(owned);
        Ok(())
    }
}

fn aside(cause: io::Error) -> Error {
    Error::io("the entries of a stream could not be laid aside", cause)
        .advise("free some space in the folder for temporary files")
}

/// A block of entries, which share a first id and, mostly, the names of their fields.
struct Block {
    pack: Pack,
    first: StreamId,
    names: Vec<Bytes>,
    /// Entries and deleted ones that are left.
    left: u64,
}

fn id<R: Read>(input: &mut Input<R>) -> Result<StreamId> {
    Ok(StreamId { ms: input.len()?, seq: input.len()? })
}

fn raw_id<R: Read>(input: &mut Input<R>) -> Result<StreamId> {
    Ok(split(input.array()?))
}

fn split(bytes: [u8; 16]) -> StreamId {
    let both = u128::from_be_bytes(bytes);
    StreamId { ms: (both >> 64) as u64, seq: both as u64 }
}

impl Block {
    fn open(key: &[u8], bytes: Vec<u8>) -> Result<Self, Fault> {
        let first = split(key.try_into().map_err(|_| "a block of a stream has no id")?);
        let mut pack = Pack::listpack(bytes)?;
        let (valid, deleted) = (count(&mut pack)?, count(&mut pack)?);
        let mut names = Vec::new();
        for _ in 0..count(&mut pack)? {
            names.push(pack.wanted()?.into());
        }
        pack.number()?;
        let left = valid.checked_add(deleted).ok_or(ODD)?;
        Ok(Self { pack, first, names, left })
    }

    /// The next entry that was not deleted.
    fn next(&mut self) -> Result<Option<Element>, Fault> {
        while self.left > 0 {
            self.left -= 1;
            let flags = self.pack.number()?;
            // Differences, but kept as signed numbers: they wrap.
            let ms = self.first.ms.wrapping_add(self.pack.number()? as u64);
            let seq = self.first.seq.wrapping_add(self.pack.number()? as u64);
            let same = flags & SAME_FIELDS != 0;
            let fields = if same { self.names.len() as u64 } else { count(&mut self.pack)? };
            let mut pairs = Vec::new();
            for n in 0..fields {
                let name = match self.names.get(n as usize).filter(|_| same) {
                    Some(name) => name.clone(),
                    None => self.pack.wanted()?.into(),
                };
                pairs.push((name, self.pack.wanted()?.into()));
            }
            // How many parts the entry has: for reading backwards.
            self.pack.number()?;
            if flags & DELETED == 0 {
                return Ok(Some(Element::Entry { id: StreamId { ms, seq }, fields: pairs }));
            }
        }
        match self.pack.next()? {
            Some(_) => Err("a block of a stream has more entries than it says"),
            None => Ok(None),
        }
    }
}

const ODD: Fault = "a block of a stream has an impossible number of entries";

fn count(pack: &mut Pack) -> Result<u64, Fault> {
    u64::try_from(pack.number()?).map_err(|_| ODD)
}
