//! Reads the keys of one logical database of one server, page by page.
//!
//! One round trip gives the values and deadlines of a page of keys, the types of the next one and
//! the names of the one after that. While the server works on it, the values of the page before are
//! taken apart. A value that is larger than a page is then read by itself, from the beginning, and
//! watched meanwhile, so that a change in between is known.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use backup_core::{Cancel, Result};
use bytes::Bytes;
use futures::future::join;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::mpsc;

use crate::{
    client::Node,
    fields::Fields,
    large::Large,
    model::{Body, Head, Item, ItemPart},
    options::RedisOptions,
    page::{self, PageSize, Pending, Read, Told, Whole},
    place::Place,
    reply,
};

/// Names of a page, where only they are asked for.
const PAGE_NAMES: usize = 2048;
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
    /// Names and keys of a page whose types are not known yet.
    named: Vec<(Bytes, Bytes)>,
    /// Keys that are to be read.
    typed: VecDeque<Pending>,
    /// What the server told of a page.
    told: Option<Told>,
    size: PageSize,
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
            named: Vec::new(),
            typed: VecDeque::new(),
            told: None,
            size: PageSize::FIRST,
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

    /// Reads in a task of its own, a page ahead of whoever takes them.
    pub(crate) fn ahead(
        mut self,
        wants: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> mpsc::Receiver<Result<VecDeque<Found>>> {
        let (send, pages) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let page = match self.next(&wants).await {
                    Ok(None) => return,
                    Ok(Some(first)) => {
                        self.ready.push_front(first);
                        Ok(std::mem::take(&mut self.ready))
                    }
                    Err(error) => Err(error),
                };
                let over = page.is_err();
                // Nobody waits for it where a session was dropped.
                if send.send(page).await.is_err() || over {
                    return;
                }
            }
        });
        pages
    }

    fn scan_command(&self, cursor: u64) -> Cmd {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor);
        if let Some(pattern) = self.place.pattern() {
            scan.arg("MATCH").arg(pattern);
        }
        scan.arg("COUNT").arg(if self.names_only { PAGE_NAMES } else { self.size.keys() });
        scan
    }

    // One round trip: values of a page, types of the next one, names of the one after that.
    // `false` at the end.
    async fn page(&mut self, wants: &(dyn Fn(&[u8]) -> bool + Sync)) -> Result<bool> {
        let size = self.size;
        let keys: Vec<_> = self.typed.drain(..self.typed.len().min(size.keys())).collect();
        let mut commands = Pipeline::new();
        for pending in &keys {
            // Side by side with the value, so that the one belongs to the other.
            commands.cmd("PEXPIRETIME").arg(&pending.name[..]);
            page::ask(&mut commands, &pending.type_name, &pending.name, size.string());
        }
        // Others are not needed before these are asked for.
        let more = self.typed.is_empty();
        let named = if more { self.named(wants) } else { Vec::new() };
        for (name, key) in &named {
            commands.cmd("TYPE").arg(&name[..]);
            if let Some(aside) = self.place.deadlines(key) {
                commands.cmd("HGET").arg(aside).arg(&key[..]);
            }
        }
        let scans = match self.keys {
            Keys::Scan(Some(cursor)) if more => {
                commands.add_command(self.scan_command(cursor));
                true
            }
            _ => false,
        };
        let told = self.told.take();
        if commands.is_empty() && told.is_none() {
            return Ok(false);
        }
        let before = async { told.map(Told::read).transpose() };
        let (replies, before) = join(self.node.all(&commands), before).await;
        if let Some(read) = before? {
            self.take(read).await?;
        }
        let mut replies = replies?.into_iter();
        if !keys.is_empty() {
            let replies = replies.by_ref().take(2 * keys.len()).collect();
            self.told = Some(Told { keys, replies, size });
        }
        self.types(named, &mut replies)?;
        if scans {
            let reply = replies.next().ok_or_else(|| reply::odd("SCAN"))?;
            let (cursor, names) = reply::page(reply::checked("keys cannot be read", reply)?)?;
            self.keys = Keys::Scan((cursor != 0).then_some(cursor));
            let names = names.into_iter().map(reply::bytes).collect::<Result<_>>()?;
            self.named = self.ours(names, wants);
        }
        if self.names_only {
            self.ready.extend(self.named.drain(..).map(|(_, key)| Found::Key(key)));
        }
        Ok(true)
    }

    // The names of which the types are to be known.
    fn named(&mut self, wants: &(dyn Fn(&[u8]) -> bool + Sync)) -> Vec<(Bytes, Bytes)> {
        match &mut self.keys {
            Keys::Scan(_) => std::mem::take(&mut self.named),
            Keys::List(list) => {
                let names = list.drain(..list.len().min(self.size.keys())).collect();
                self.ours(names, wants)
            }
        }
    }

    // Those that are read, and did not come before.
    fn ours(
        &mut self,
        names: Vec<Bytes>,
        wants: &(dyn Fn(&[u8]) -> bool + Sync),
    ) -> Vec<(Bytes, Bytes)> {
        let mut ours = Vec::with_capacity(names.len());
        for name in names {
            let Some(key) = self.place.key_of(&name) else { continue };
            let belongs = self.options.as_ref().is_none_or(|options| options.wants_key(&key));
            if belongs && wants(&key) && self.seen.insert(&name) {
                ours.push((name, key));
            }
        }
        ours
    }

    // Types of the page of which the names are known.
    fn types(
        &mut self,
        named: Vec<(Bytes, Bytes)>,
        replies: &mut impl Iterator<Item = Value>,
    ) -> Result<()> {
        let mut next = || {
            let reply = replies.next().ok_or_else(|| reply::odd("TYPE"))?;
            reply::checked("a key cannot be read", reply)
        };
        for (name, key) in named {
            let type_name = reply::text(next()?)?;
            let aside = match self.place.deadlines(&key) {
                Some(_) => Some(next()?).filter(|aside| *aside != Value::Nil),
                None => None,
            };
            let aside = aside.as_ref().map(reply::integer).transpose()?;
            let wanted = self.options.as_ref().is_none_or(|o| o.wants_type(&type_name));
            // One that is gone by now is not there.
            if type_name != "none" && wanted {
                self.typed.push_back(Pending { key, name, type_name, aside, attempt: 0 });
            }
        }
        Ok(())
    }

    // Gives what a page had, and keeps what has to be read by itself.
    async fn take(&mut self, read: Read) -> Result<()> {
        let Read { mut whole, large, strings, keys, bytes } = read;
        self.size = self.size.after(keys, bytes);
        self.large.extend(large);
        self.deadlines_of_fields(&mut whole).await?;
        for (pending, at, body, elements) in whole {
            // Nothing is left where it is gone.
            if elements.is_empty()
                && matches!(body, Body::Hash | Body::List | Body::Set | Body::SortedSet)
            {
                continue;
            }
            self.count += 1;
            let head = Head { expires_at: self.deadline(&pending, at), body };
            self.give(&pending.key, ItemPart::Head(head));
            for element in elements {
                self.give(&pending.key, ItemPart::Element(element));
            }
        }
        self.large.extend(strings);
        Ok(())
    }

    // One that is kept aside, or what the server told.
    fn deadline(&self, pending: &Pending, at: i64) -> Option<i64> {
        pending.aside.or_else(|| (at >= 0).then(|| at - self.shift))
    }

    // Fields that are gone by now are not there.
    async fn deadlines_of_fields(&self, whole: &mut [Whole]) -> Result<()> {
        let mut hashes: Vec<_> = whole
            .iter_mut()
            .filter(|(_, _, body, elements)| matches!(body, Body::Hash) && !elements.is_empty())
            .collect();
        if hashes.is_empty() || !self.node.has_field_deadlines() {
            return Ok(());
        }
        let mut ask = Pipeline::with_capacity(hashes.len());
        for (pending, _, _, elements) in &hashes {
            self.fields(&pending.key).ask(&mut ask, &pending.name, elements);
        }
        let mut replies = self.node.all(&ask).await?.into_iter();
        for (pending, _, _, elements) in &mut hashes {
            self.fields(&pending.key).set(elements, &mut replies)?;
        }
        Ok(())
    }

    fn fields(&self, key: &[u8]) -> Fields {
        Fields { aside: self.place.field_deadlines(key), shift: self.shift }
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
        let expires_at = self.deadline(&pending, at);
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
            expires_at,
            self.fields(&pending.key),
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
