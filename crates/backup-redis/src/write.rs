//! Records into commands.

use std::{collections::HashMap, ops::Range};

use backup_core::{Error, ErrorKind, Result, record::RecordBatch};
use bytes::Bytes;
use redis::Pipeline;

use crate::{
    model::{self, Body, Element, Head, ItemPart},
    naming::Naming,
    place::{Place, helper},
    slots,
};

/// Deadlines that are nearer than this are set when the restore ends, so that no key expires
/// between being staged and being compared.
pub(crate) const NEAR_MS: i64 = 24 * 60 * 60 * 1000;

/// Records of one piece of a batch, and bytes after which it ends.
const PIECE_RECORDS: usize = 4096;
const PIECE_BYTES: usize = 512 << 10;

/// Makes commands of records, in the order in which batches come.
pub(crate) struct Write {
    pub(crate) id: String,
    pub(crate) place: Place,
    /// Whether notes are kept slot by slot.
    pub(crate) by_slot: bool,
    pub(crate) naming: Naming,
    pub(crate) shift: i64,
    /// Whether fields of hashes may expire where it is written.
    pub(crate) field_deadlines: bool,
    /// By database and key, the next index of lists that may go on.
    lists: HashMap<(u32, Bytes), u64>,
}

/// Commands for one key go to one server: by database and slot.
pub(crate) type Lanes<'a> = &'a mut dyn FnMut(u32, &[u8]) -> Result<usize>;

impl Write {
    pub(crate) fn new(id: String, place: Place, by_slot: bool, naming: Naming, shift: i64) -> Self {
        let (field_deadlines, lists) = (false, HashMap::new());
        Self { id, place, by_slot, naming, shift, field_deadlines, lists }
    }

    fn note(&self, kind: char, key: &[u8]) -> String {
        helper(&self.id, kind, self.by_slot.then(|| slots::slot(key)))
    }

    /// The commands that write the first rows of what is left of a batch, for each server: not
    /// all, so that commands do not take much more memory than what they are made of.
    pub(crate) fn some(
        &mut self,
        batch: &RecordBatch,
        rest: &mut Range<usize>,
        now_ms: i64,
        lane: Lanes<'_>,
        pipes: &mut [Pipeline],
    ) -> Result<()> {
        let mut run = Run::default();
        let mut last_list: Option<(u32, Bytes, u64)> = None;
        let mut latest: Option<(&str, u32, Bytes, usize)> = None;
        let mut bytes = 0;
        for row in rest.by_ref().take(PIECE_RECORDS) {
            let record = batch.get(row);
            // Elements of one key follow each other.
            let (db, key, number) = match &latest {
                Some((json, db, key, number)) if *json == record.key_json() => {
                    (*db, key.clone(), *number)
                }
                _ => {
                    let (db, key) = self.naming.key(batch.collection(), &record.key())?;
                    let number = lane(db, &key)?;
                    let key = Bytes::from(key);
                    latest = Some((record.key_json(), db, key.clone(), number));
                    (db, key, number)
                }
            };
            let part = match record.element_json() {
                None => ItemPart::Head(model::read_head(record.value_json())?),
                Some(element) => {
                    ItemPart::Element(model::read_element(element, record.value_json())?)
                }
            };
            let fault =
                |error: Error| error.on(format!("{}, {}", batch.collection(), record.key()));
            if !run.goes_on(number, &key, &part) {
                // Pipes of several servers do not wait for one another.
                run.end(pipes);
                run = Run {
                    lane: number,
                    name: self.place.name(&key),
                    key: key.clone(),
                    items: None,
                };
            }
            let pipe = &mut pipes[number];
            match part {
                ItemPart::Head(head) => self.head(pipe, &run.name, &key, head, now_ms),
                ItemPart::Element(Element::At { index, value }) => {
                    let next = match &last_list {
                        Some((known_db, known, next)) if *known_db == db && *known == key => *next,
                        _ => self.lists.get(&(db, key.clone())).copied().unwrap_or(0),
                    };
                    if next != index {
                        let what = "the elements of a list do not come in their order";
                        return Err(fault(Error::new(ErrorKind::Incompatible, what)));
                    }
                    last_list = Some((db, key.clone(), index + 1));
                    run.add("RPUSH", [value]);
                }
                ItemPart::Element(Element::Member(member)) => run.add("SADD", [member]),
                ItemPart::Element(Element::Scored { member, score }) => {
                    run.add("ZADD", [format!("{score:e}").into(), member]);
                }
                ItemPart::Element(Element::Field { name, value, expires_at: None }) => {
                    run.add("HSET", [name, value]);
                }
                ItemPart::Element(element) => {
                    self.element(pipe, &run.name, &key, element, now_ms).map_err(fault)?;
                }
            }
            bytes += record.line().len();
            if bytes >= PIECE_BYTES {
                break;
            }
        }
        run.end(pipes);
        // Only the last list goes on in what comes next of its collection and partition.
        if let Some((db, key, next)) = last_list {
            self.lists.insert((db, key), next);
        }
        Ok(())
    }

    fn head(&self, pipe: &mut Pipeline, name: &[u8], key: &[u8], head: Head, now_ms: i64) {
        let at = head.expires_at;
        let far = at.map(|at| at.saturating_add(self.shift)).filter(|at| *at - now_ms > NEAR_MS);
        match head.body {
            Body::String(value) => {
                let set = pipe.cmd("SET").arg(name).arg(&value[..]);
                if let Some(at) = far {
                    set.arg("PXAT").arg(at);
                    return;
                }
            }
            Body::Dump { payload, .. } => {
                pipe.cmd("RESTORE").arg(name).arg(0).arg(&payload[..]).arg("REPLACE");
            }
            Body::Json(text) => {
                pipe.cmd("JSON.SET").arg(name).arg("$").arg(&text[..]);
            }
            Body::Stream(stream) => {
                let ids = format!(
                    "{} {} {}",
                    stream.last_id, stream.max_deleted_id, stream.entries_added
                );
                pipe.cmd("HSET").arg(self.note('s', key)).arg(key).arg(ids);
            }
            _ => {}
        }
        if let Some(at) = at {
            pipe.cmd("HSET").arg(self.note('d', key)).arg(key).arg(at);
        }
    }

    fn element(
        &self,
        pipe: &mut Pipeline,
        name: &[u8],
        key: &[u8],
        element: Element,
        now_ms: i64,
    ) -> Result<()> {
        match element {
            Element::Range { offset, bytes } => {
                pipe.cmd("SETRANGE").arg(name).arg(offset).arg(&bytes[..]);
            }
            Element::Field { name: field, value, expires_at } => {
                pipe.cmd("HSET").arg(name).arg(&field[..]).arg(&value[..]);
                let Some(at) = expires_at else { return Ok(()) };
                if !self.field_deadlines {
                    let what = "fields of hashes do not expire on this server";
                    return Err(Error::new(ErrorKind::Unsupported, what)
                        .advise("restore to Redis 7.4 or newer"));
                }
                let later = at.saturating_add(self.shift);
                if later - now_ms > NEAR_MS {
                    let expire = pipe.cmd("HPEXPIREAT").arg(name).arg(later);
                    expire.arg("FIELDS").arg(1).arg(&field[..]);
                } else {
                    let note = Place::aside(&self.id, 'h').name(key);
                    pipe.cmd("HSET").arg(&note[..]).arg(&field[..]).arg(at);
                }
            }
            Element::Entry { id, fields } => {
                let add = pipe.cmd("XADD").arg(name).arg(id.to_string());
                if fields.is_empty() {
                    // Has to be there to become pending; removed when all is staged.
                    add.arg("-").arg("-");
                    let mark = [format!("{id} ").as_bytes(), key].concat();
                    pipe.cmd("SADD").arg(self.note('t', key)).arg(mark);
                } else {
                    for (field, value) in fields {
                        add.arg(&field[..]).arg(&value[..]);
                    }
                }
            }
            Element::Group { group, last_id, entries_read } => {
                let create = pipe.cmd("XGROUP").arg("CREATE").arg(name).arg(&group[..]);
                create.arg(last_id.to_string()).arg("MKSTREAM");
                if let Some(read) = entries_read {
                    create.arg("ENTRIESREAD").arg(read);
                }
            }
            Element::Consumer { group, consumer } => {
                let create = pipe.cmd("XGROUP").arg("CREATECONSUMER").arg(name);
                create.arg(&group[..]).arg(&consumer[..]);
            }
            Element::Pending { group, id, consumer, delivered_at, deliveries } => {
                let claim = pipe.cmd("XCLAIM").arg(name).arg(&group[..]).arg(&consumer[..]);
                claim.arg(0).arg(id.to_string()).arg("TIME").arg(delivered_at);
                claim.arg("RETRYCOUNT").arg(deliveries).arg("FORCE").arg("JUSTID");
            }
            Element::At { .. } | Element::Member(_) | Element::Scored { .. } => {
                return Err(Error::adapter("an element was not written with its like"));
            }
        }
        Ok(())
    }
}

/// Elements of one key that go into one command.
#[derive(Default)]
struct Run {
    lane: usize,
    name: Bytes,
    key: Bytes,
    items: Option<(&'static str, Vec<Bytes>)>,
}

/// Arguments of one command.
const MOST_ARGUMENTS: usize = 1024;

impl Run {
    fn goes_on(&self, lane: usize, key: &Bytes, part: &ItemPart) -> bool {
        let command = match part {
            ItemPart::Element(Element::At { .. }) => "RPUSH",
            ItemPart::Element(Element::Member(_)) => "SADD",
            ItemPart::Element(Element::Scored { .. }) => "ZADD",
            ItemPart::Element(Element::Field { expires_at: None, .. }) => "HSET",
            _ => return false,
        };
        self.lane == lane
            && self.key == *key
            && self
                .items
                .as_ref()
                .is_some_and(|(known, items)| *known == command && items.len() < MOST_ARGUMENTS)
    }

    fn add<const N: usize>(&mut self, command: &'static str, items: [Bytes; N]) {
        self.items.get_or_insert_with(|| (command, Vec::new())).1.extend(items);
    }

    fn end(&mut self, pipes: &mut [Pipeline]) {
        if let Some((command, items)) = self.items.take() {
            let command = pipes[self.lane].cmd(command).arg(&self.name[..]);
            for item in &items {
                command.arg(&item[..]);
            }
        }
    }
}
