//! Reads the keys of one logical database of one server, page by page.
//!
//! A page of keys costs two round trips: their types and deadlines, and then their values,
//! along with the next page. A value that is larger than a page is then read by itself, from
//! the beginning, and watched meanwhile, so that a change in between is known.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use backup_core::{Cancel, Result};
use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use crate::{
    client::Node,
    large::Large,
    model::{Body, Element, Head, Item, ItemPart, Kind},
    options::RedisOptions,
    place::Place,
    reply,
};

/// Keys of a page, and elements of one reply.
const PAGE_KEYS: usize = 512;
pub(crate) const PAGE_ELEMENTS: usize = 512;
/// Bytes of a string up to which it is read along with its page.
const PAGE_STRING: usize = 64 << 10;
/// How often a key is read again that changes its type.
const ATTEMPTS: usize = 3;

/// What a reader gives.
pub(crate) enum Found {
    Item(Item),
    /// A key, where only names are asked for.
    Key(Bytes),
    /// A key was changed while it was read: what was given of it may be torn.
    Torn(Bytes),
}

/// Where keys come from.
enum Keys {
    /// The next cursor; `None` at the end.
    Scan(Option<u64>),
    List(VecDeque<Bytes>),
}

pub(crate) struct Reader {
    node: Node,
    db: u32,
    options: Option<Arc<RedisOptions>>,
    place: Place,
    cancel: Cancel,
    keys: Keys,
    /// Names of the next page, which came along with values.
    ahead: Option<Vec<Bytes>>,
    seen: Seen,
    ready: VecDeque<Found>,
    large: VecDeque<Pending>,
    open: Option<Large>,
    pub(crate) names_only: bool,
    /// Milliseconds by which deadlines of the server are later than those of the records.
    pub(crate) shift: i64,
    /// How many keys were read.
    pub(crate) count: u64,
}

/// A key that is read by itself.
struct Pending {
    key: Bytes,
    name: Bytes,
    type_name: String,
    expires_at: Option<i64>,
    attempt: usize,
}

/// Names that came already: a scan repeats some while the server resizes its table. Of each
/// eight bytes are kept, of a hash that nobody outside can foresee.
#[derive(Default)]
pub(crate) struct Seen {
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl Seen {
    /// Whether a name is new.
    pub(crate) fn insert(&mut self, name: &[u8]) -> bool {
        self.hashes.insert(self.hasher.hash_one(name))
    }
}

impl Reader {
    /// All keys that belong to the store.
    pub(crate) fn scan(node: Node, db: u32, options: Arc<RedisOptions>, cancel: Cancel) -> Self {
        Self::new(node, db, Some(options), Place::live(), Keys::Scan(Some(0)), cancel)
    }

    /// All keys that stand at a place.
    pub(crate) fn staged(node: Node, db: u32, place: Place, cancel: Cancel) -> Self {
        Self::new(node, db, None, place, Keys::Scan(Some(0)), cancel)
    }

    /// These keys, where they are there.
    pub(crate) fn of(node: Node, db: u32, keys: Vec<Bytes>, cancel: Cancel) -> Self {
        Self::new(node, db, None, Place::live(), Keys::List(keys.into()), cancel)
    }

    fn new(
        node: Node,
        db: u32,
        options: Option<Arc<RedisOptions>>,
        place: Place,
        keys: Keys,
        cancel: Cancel,
    ) -> Self {
        Self {
            node,
            db,
            options,
            place,
            cancel,
            keys,
            ahead: None,
            seen: Seen::default(),
            ready: VecDeque::new(),
            large: VecDeque::new(),
            open: None,
            names_only: false,
            shift: 0,
            count: 0,
        }
    }

    /// Deadlines that are kept aside are those of this place.
    pub(crate) fn with_deadlines(mut self, place: &Place) -> Self {
        self.place = self.place.with_deadlines_of(place);
        self
    }

    /// The next of what there is; `wants` says which keys are read.
    pub(crate) async fn next(
        &mut self,
        wants: &(dyn Fn(&[u8]) -> bool + Sync),
    ) -> Result<Option<Found>> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Ok(Some(found));
            }
            self.cancel.check()?;
            if let Some(open) = &mut self.open {
                let more = open.next(&self.node, &mut self.ready).await?;
                if !more {
                    self.open = None;
                }
            } else if let Some(pending) = self.large.pop_front() {
                self.begin(pending).await?;
            } else if !self.page(wants).await? {
                return Ok(None);
            }
        }
    }

    fn scan_command(&self, cursor: u64) -> Cmd {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor);
        if let Some(pattern) = self.place.pattern() {
            scan.arg("MATCH").arg(pattern);
        }
        scan.arg("COUNT").arg(PAGE_KEYS);
        scan
    }

    fn take_names(&mut self, reply: Value) -> Result<Vec<Bytes>> {
        let (cursor, names) = reply::page(reply)?;
        self.keys = Keys::Scan((cursor != 0).then_some(cursor));
        names.into_iter().map(reply::bytes).collect()
    }

    // One page; `false` where there is none.
    async fn page(&mut self, wants: &(dyn Fn(&[u8]) -> bool + Sync)) -> Result<bool> {
        let names = match self.ahead.take() {
            Some(names) => names,
            None => match &mut self.keys {
                Keys::Scan(None) => return Ok(false),
                Keys::Scan(Some(cursor)) => {
                    let cursor = *cursor;
                    let reply = self.node.one(&self.scan_command(cursor)).await?;
                    self.take_names(reply)?
                }
                Keys::List(list) => {
                    let names: Vec<Bytes> = list.drain(..list.len().min(PAGE_KEYS)).collect();
                    if names.is_empty() {
                        return Ok(false);
                    }
                    names
                }
            },
        };
        let mut page = Vec::with_capacity(names.len());
        for name in names {
            let Some(key) = self.place.key_of(&name) else { continue };
            let ours = self.options.as_ref().is_none_or(|options| options.wants_key(&key));
            if ours && wants(&key) && self.seen.insert(&name) {
                page.push((name, key));
            }
        }
        if self.names_only {
            self.ready.extend(page.into_iter().map(|(_, key)| Found::Key(key)));
            return Ok(true);
        }
        let mut types = Pipeline::with_capacity(page.len() * 3);
        for (name, key) in &page {
            types.cmd("TYPE").arg(&name[..]);
            types.cmd("PEXPIRETIME").arg(&name[..]);
            if let Some(aside) = self.place.deadlines(key) {
                types.cmd("HGET").arg(aside).arg(&key[..]);
            }
        }
        let mut replies = self.node.every("a key cannot be read", &types).await?.into_iter();
        let mut pendings = Vec::with_capacity(page.len());
        for (name, key) in page {
            let (type_name, at) = (replies.next(), replies.next());
            let aside = self.place.deadlines(&key).and_then(|_| replies.next());
            let (Some(type_name), Some(at)) = (type_name, at) else {
                return Err(reply::odd("TYPE"));
            };
            let type_name = reply::text(type_name)?;
            let at = reply::integer(&at)?;
            let aside = aside.filter(|aside| *aside != Value::Nil);
            let expires_at = match aside {
                Some(aside) => Some(reply::integer(&aside)?),
                None => (at >= 0).then(|| at - self.shift),
            };
            let wanted = self.options.as_ref().is_none_or(|o| o.wants_type(&type_name));
            // One that is gone by now is not there.
            if type_name != "none" && wanted {
                pendings.push(Pending { key, name, type_name, expires_at, attempt: 0 });
            }
        }
        self.values(pendings).await?;
        Ok(true)
    }

    // Values of a page, and the names of the next one.
    async fn values(&mut self, page: Vec<Pending>) -> Result<()> {
        let mut commands = Pipeline::with_capacity(page.len() + 1);
        for pending in &page {
            let name = &pending.name[..];
            match Kind::of(&pending.type_name) {
                Some(Kind::String) => {
                    commands.cmd("GETRANGE").arg(name).arg(0).arg(PAGE_STRING - 1);
                }
                Some(Kind::List) => {
                    commands.cmd("LRANGE").arg(name).arg(0).arg(PAGE_ELEMENTS);
                }
                Some(Kind::Hash) => scanned(&mut commands, "HSCAN", name),
                Some(Kind::Set) => scanned(&mut commands, "SSCAN", name),
                Some(Kind::SortedSet) => scanned(&mut commands, "ZSCAN", name),
                // Streams take several commands, and what is unknown may be of any size.
                Some(Kind::Stream) | None => {
                    commands.cmd("EXISTS").arg(name);
                }
            }
        }
        let ahead = match self.keys {
            Keys::Scan(Some(cursor)) => Some(cursor),
            _ => None,
        };
        if let Some(cursor) = ahead {
            commands.add_command(self.scan_command(cursor));
        }
        if commands.is_empty() {
            return Ok(());
        }
        let mut replies = self.node.all(&commands).await?;
        if ahead.is_some() {
            let names = replies.pop().ok_or_else(|| reply::odd("SCAN"))?;
            self.ahead = Some(self.take_names(reply::checked("keys cannot be read", names)?)?);
        }
        let mut perhaps_empty = Vec::new();
        for (pending, value) in page.into_iter().zip(replies) {
            // It was made anew with another type.
            if reply::code(&value) == Some("WRONGTYPE") {
                self.large.push_back(pending);
                continue;
            }
            let value = reply::checked("a key cannot be read", value)?;
            if !self.small(&pending, value)? {
                match pending.type_name.as_str() {
                    // Too large, empty or gone.
                    "string" => perhaps_empty.push(pending),
                    _ => self.large.push_back(pending),
                }
            }
        }
        self.large.extend(perhaps_empty);
        Ok(())
    }

    // Gives a key of which all came with the page; `false` where that is not so.
    fn small(&mut self, pending: &Pending, value: Value) -> Result<bool> {
        let mut elements = Vec::new();
        let body = match Kind::of(&pending.type_name) {
            Some(Kind::String) => {
                let bytes = reply::bytes(value)?;
                if bytes.is_empty() || bytes.len() >= PAGE_STRING {
                    return Ok(false);
                }
                Body::String(bytes)
            }
            Some(Kind::List) => {
                let items = reply::list(value)?;
                if items.len() > PAGE_ELEMENTS {
                    return Ok(false);
                }
                for (index, item) in (0..).zip(items) {
                    elements.push(Element::At { index, value: reply::bytes(item)? });
                }
                Body::List
            }
            Some(kind @ (Kind::Hash | Kind::Set | Kind::SortedSet)) => {
                // Deadlines of fields are a question of their own.
                if kind == Kind::Hash && self.node.has_field_deadlines() {
                    return Ok(false);
                }
                let (cursor, page) = reply::page(value)?;
                if cursor != 0 {
                    return Ok(false);
                }
                elements = of_page(kind, page)?;
                match kind {
                    Kind::Hash => Body::Hash,
                    Kind::Set => Body::Set,
                    _ => Body::SortedSet,
                }
            }
            Some(Kind::Stream) | None => return Ok(false),
        };
        // Nothing is left where it is gone.
        if elements.is_empty() && !matches!(body, Body::String(_)) {
            return Ok(true);
        }
        self.count += 1;
        let head = Head { expires_at: pending.expires_at, body };
        self.give(&pending.key, ItemPart::Head(head));
        for element in elements {
            self.give(&pending.key, ItemPart::Element(element));
        }
        Ok(true)
    }

    fn give(&mut self, key: &Bytes, part: ItemPart) {
        self.ready.push_back(Found::Item(Item { db: self.db, key: key.clone(), part }));
    }

    // A key by itself.
    async fn begin(&mut self, mut pending: Pending) -> Result<()> {
        let name = &pending.name[..];
        let mut ask = Pipeline::with_capacity(3);
        ask.cmd("WATCH").arg(name);
        ask.cmd("TYPE").arg(name);
        ask.cmd("PEXPIRETIME").arg(name);
        let mut replies = self.node.every("a key cannot be read", &ask).await?.into_iter().skip(1);
        let (Some(type_name), Some(at)) = (replies.next(), replies.next()) else {
            return Err(reply::odd("TYPE"));
        };
        pending.type_name = reply::text(type_name)?;
        let at = reply::integer(&at)?;
        if at >= 0 {
            pending.expires_at = Some(at - self.shift);
        } else if self.place.deadlines(&pending.key).is_none() {
            pending.expires_at = None;
        }
        if pending.type_name == "none" {
            return Ok(());
        }
        pending.attempt += 1;
        let large = Large::begin(
            &self.node,
            self.db,
            pending.key.clone(),
            pending.name.clone(),
            &pending.type_name,
            pending.expires_at,
        );
        match large.await {
            Ok(Some(large)) => {
                self.count += 1;
                self.open = Some(large);
            }
            Ok(None) => {}
            Err(error)
                if error.kind() == backup_core::ErrorKind::Changed
                    && pending.attempt < ATTEMPTS =>
            {
                self.large.push_back(pending);
            }
            Err(error) => return Err(error.on(String::from_utf8_lossy(&pending.key))),
        }
        Ok(())
    }
}

fn scanned(commands: &mut Pipeline, command: &str, name: &[u8]) {
    commands.cmd(command).arg(name).arg(0).arg("COUNT").arg(PAGE_ELEMENTS);
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
