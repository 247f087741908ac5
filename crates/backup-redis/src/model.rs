//! What a key becomes: items, which readers give and writers take, and their records.
//!
//! # Items
//!
//! Every reader, of a live server or of an RDB file, gives [`Item`]s: for each key one
//! [`Head`], and for what has elements any number of [`Element`]s beside it. No key is ever
//! whole in memory. Neither the order of keys nor that of elements matters, except that the
//! elements of a list and the entries of a stream come in their order.
//!
//! # Collections
//!
//! [`Naming`](crate::naming::Naming) says where a key belongs: by default one collection a
//! logical database, `keys`; with key prefixes `notes:1` is the record `1` of `notes`, and what
//! has no prefix stays in `keys`. A key that is a decimal integer of 64 bits becomes one, so
//! that it equals a row's id; other text stays text, and what is not UTF-8 is tagged `Base64`.
//!
//! # Records
//!
//! | key | record | elements |
//! |---|---|---|
//! | string | `{"type":"string","value":V}` | |
//! | string that is a JSON object or array | `{"json":J,"type":"string"}`, with `"value":V` where the text is not the canonical one | |
//! | string longer than [`WHOLE_STRING`] | `{"type":"string"}` | `["range",offset]`, [`STRING_RANGE`] bytes each: `V` |
//! | hash | `{"type":"hash"}` | by field: `{"value":V}`, with `"expires_at"` where the field has it |
//! | list | `{"type":"list"}` | by index: `V` |
//! | set | `{"type":"set"}` | by member: `null` |
//! | sorted set | `{"type":"zset"}` | by member: the score, a float |
//! | stream | `{"entries_added":N,"last_id":"ms-seq","max_deleted_id":"ms-seq","type":"stream"}` | by id: `[[field,V],…]` |
//! | … its groups | | `["group",G]`: `{"entries_read":N or null,"last_id":"ms-seq"}` |
//! | … their consumers | | `["consumer",G,C]`: `null` |
//! | … an entry that was deleted while it is pending | | by id: `[]` |
//! | … what is pending | | `["pending",G,"ms-seq"]`: `{"consumer":C,"delivered_at":ms,"deliveries":N}` |
//! | document of RedisJSON | `{"json":J,"type":"ReJSON-RL"}`, with `"value":V` as of a string | |
//! | anything else | `{"dump":"Base64 of DUMP","type":T}` | |
//!
//! `V` and all names are text where they are UTF-8, and else tagged `Base64`. A head has
//! `"expires_at"`, milliseconds since 1970, where the key expires. When a consumer was last seen
//! is not carried, because no server takes it. Members stand in the order of canonical JSON.

use backup_core::{
    Error, ErrorKind, Result,
    record::{
        BatchBuilder, Key,
        canonical::{self, Writer},
        tagged::{self, Scalar},
    },
};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::rdb;

/// Longest string that is one record.
pub(crate) const WHOLE_STRING: usize = 8 << 20;
/// Bytes of each range of a longer one.
pub(crate) const STRING_RANGE: usize = 1 << 20;
/// Longest string that is looked into for JSON; also the longest that may hold it whole.
const LONGEST_JSON: usize = WHOLE_STRING;
/// What servers call the type of RedisJSON.
pub(crate) const JSON: &str = "ReJSON-RL";

/// One step of reading or writing a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// The logical database.
    pub(crate) db: u32,
    pub(crate) key: Bytes,
    pub(crate) part: ItemPart,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ItemPart {
    Head(Head),
    Element(Element),
}

/// What there is once for each key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    /// Milliseconds since 1970.
    pub(crate) expires_at: Option<i64>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// A string of at most [`WHOLE_STRING`] bytes.
    String(Bytes),
    /// A longer one, which comes in [`Element::Range`]s.
    LongString,
    Hash,
    List,
    Set,
    SortedSet,
    Stream(StreamHead),
    /// A document of RedisJSON: the text.
    Json(Bytes),
    /// What has no other form: the payload of `DUMP`.
    Dump {
        type_name: String,
        payload: Bytes,
    },
}

/// What a stream has beside its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamHead {
    pub(crate) last_id: StreamId,
    pub(crate) max_deleted_id: StreamId,
    pub(crate) entries_added: u64,
}

/// `ms-seq`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId {
    pub(crate) ms: u64,
    pub(crate) seq: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Element {
    /// Of a long string; every one but the last has [`STRING_RANGE`] bytes.
    Range {
        offset: u64,
        bytes: Bytes,
    },
    /// Of a hash.
    Field {
        name: Bytes,
        value: Bytes,
        /// Milliseconds since 1970.
        expires_at: Option<i64>,
    },
    /// Of a list.
    At {
        index: u64,
        value: Bytes,
    },
    /// Of a set.
    Member(Bytes),
    /// Of a sorted set.
    Scored {
        member: Bytes,
        score: f64,
    },
    /// Of a stream. One that was deleted while a consumer still has to confirm it has no
    /// fields: it comes in its place among the others.
    Entry {
        id: StreamId,
        fields: Vec<(Bytes, Bytes)>,
    },
    Group {
        group: Bytes,
        last_id: StreamId,
        entries_read: Option<u64>,
    },
    Consumer {
        group: Bytes,
        consumer: Bytes,
    },
    Pending {
        group: Bytes,
        id: StreamId,
        consumer: Bytes,
        /// Milliseconds since 1970.
        delivered_at: i64,
        deliveries: u64,
    },
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl StreamId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        let id = Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? };
        (id.to_string() == text).then_some(id)
    }
}

impl Body {
    /// Of the payload of `DUMP`: a document where it is one.
    pub(crate) fn of_payload(type_name: String, payload: Bytes) -> Self {
        match rdb::json_text(&payload).filter(|text| document(text).is_some()) {
            Some(text) => Self::Json(text),
            None => Self::Dump { type_name, payload },
        }
    }

    pub(crate) fn type_name(&self) -> &str {
        match self {
            Self::String(_) | Self::LongString => "string",
            Self::Hash => "hash",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Stream(_) => "stream",
            Self::Json(_) => JSON,
            Self::Dump { type_name, .. } => type_name,
        }
    }
}

/// The record's key of what stands behind the prefix.
pub(crate) fn record_key(bytes: &[u8]) -> Key {
    match std::str::from_utf8(bytes) {
        Ok(text) => match plain_integer(text) {
            Some(number) => Key::from(number),
            None => Key::from(text),
        },
        Err(_) => Key::bytes(bytes),
    }
}

/// The bytes of which [`record_key`] made a key.
pub(crate) fn key_bytes(key: &Key) -> Result<Vec<u8>> {
    let bytes = match key.scalars().as_deref() {
        Some([Scalar::Integer(number)]) => Some(number.to_string().into_bytes()),
        Some([Scalar::Text(text)]) => Some(text.clone().into_bytes()),
        Some([Scalar::Bytes(bytes)]) => Some(bytes.clone()),
        _ => None,
    };
    // Another way to write it would be read back in this one.
    bytes.filter(|bytes| record_key(bytes) == *key).ok_or_else(|| {
        Error::new(ErrorKind::Incompatible, "this cannot be the key of a record in Redis")
            .on(key)
            .advise("keys are integers, text that is none, and bytes that are no text")
    })
}

/// A 64-bit integer that is written as such.
fn plain_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || digits.len() > 19 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Writes bytes as text where they are, and else tagged.
pub(crate) fn write_bytes(json: &mut Writer<'_>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => json.string(text),
        Err(_) => tagged::bytes(json, bytes),
    }
}

pub(crate) fn bytes_key(bytes: &[u8]) -> Key {
    std::str::from_utf8(bytes).map_or_else(|_| Key::bytes(bytes), Key::from)
}

/// Adds the record of an item to a batch.
///
/// `key` is the record's. `look_inside` says whether strings may be JSON.
pub(crate) fn push(
    batch: &mut BatchBuilder,
    key: &Key,
    part: &ItemPart,
    look_inside: bool,
) -> Result<()> {
    match part {
        ItemPart::Head(head) => batch.push(key, |json| write_head(json, head, look_inside)),
        ItemPart::Element(element) => {
            batch.push_element(key, &element.identity(), |json| element.write(json))
        }
    }
}

fn write_head(json: &mut Writer<'_>, head: &Head, look_inside: bool) -> Result<()> {
    json.begin_object()?;
    if let Body::Dump { payload, .. } = &head.body {
        json.name("dump")?;
        tagged::bytes(json, payload);
    }
    if let Body::Stream(stream) = &head.body {
        json.name("entries_added")?;
        tagged::integer(json, stream.entries_added);
    }
    if let Some(at) = head.expires_at {
        json.name("expires_at")?;
        tagged::integer(json, at);
    }
    let (mut text, held) = match &head.body {
        Body::String(bytes) if look_inside => (Some(bytes), inside(bytes)),
        Body::String(bytes) => (Some(bytes), None),
        Body::Json(bytes) => (Some(bytes), document(bytes)),
        _ => (None, None),
    };
    if let Some(document) = held {
        json.name("json")?;
        json.canonical_text(&document.json);
        text = text.filter(|_| !document.exact);
    }
    if let Body::Stream(stream) = &head.body {
        json.name("last_id")?;
        json.string(&stream.last_id.to_string());
        json.name("max_deleted_id")?;
        json.string(&stream.max_deleted_id.to_string());
    }
    json.name("type")?;
    json.string(head.body.type_name());
    if let Some(bytes) = text {
        json.name("value")?;
        write_bytes(json, bytes);
    }
    json.end_object();
    Ok(())
}

/// The JSON that a string holds.
struct Document {
    /// As it stands in a record, in canonical form.
    json: String,
    /// Whether the string is what would be made of it again.
    exact: bool,
}

/// Of a string that may be anything: an object or an array.
fn inside(bytes: &[u8]) -> Option<Document> {
    let bracketed = matches!(
        (bytes.first(), bytes.last()),
        (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']'))
    );
    if bracketed { document(bytes) } else { None }
}

/// JSON of any kind.
fn document(bytes: &[u8]) -> Option<Document> {
    if bytes.len() > LONGEST_JSON {
        return None;
    }
    let value = canonical::parse(bytes).ok()?;
    let mut json = Vec::with_capacity(bytes.len());
    let differs = tagged::escaped(&mut Writer::new(&mut json), &value).ok()?;
    let exact = if differs { canonical_text(&value)? == bytes } else { json == bytes };
    Some(Document { json: String::from_utf8(json).ok()?, exact })
}

fn canonical_text(value: &Value) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    Writer::new(&mut text).value(value).ok()?;
    Some(text)
}

impl Element {
    fn identity(&self) -> Key {
        let kind = |kind: &str, rest: &[Key]| {
            Key::composite([Key::from(kind)].into_iter().chain(rest.iter().cloned()))
        };
        match self {
            Self::Range { offset, .. } => kind("range", &[Key::from(*offset)]),
            Self::At { index, .. } => Key::from(*index),
            Self::Field { name, .. } => bytes_key(name),
            Self::Member(member) | Self::Scored { member, .. } => bytes_key(member),
            Self::Entry { id, .. } => Key::from(id.to_string().as_str()),
            Self::Group { group, .. } => kind("group", &[bytes_key(group)]),
            Self::Consumer { group, consumer } => {
                kind("consumer", &[bytes_key(group), bytes_key(consumer)])
            }
            Self::Pending { group, id, .. } => {
                kind("pending", &[bytes_key(group), Key::from(id.to_string().as_str())])
            }
        }
    }

    fn write(&self, json: &mut Writer<'_>) -> Result<()> {
        match self {
            Self::Range { bytes, .. } => write_bytes(json, bytes),
            Self::At { value, .. } => write_bytes(json, value),
            Self::Field { value, expires_at, .. } => {
                json.begin_object()?;
                if let Some(at) = expires_at {
                    json.name("expires_at")?;
                    tagged::integer(json, *at);
                }
                json.name("value")?;
                write_bytes(json, value);
                json.end_object();
            }
            Self::Member(_) | Self::Consumer { .. } => json.null(),
            Self::Scored { score, .. } => json.float(*score),
            Self::Entry { fields, .. } => {
                json.begin_array()?;
                for (name, value) in fields {
                    json.begin_array()?;
                    write_bytes(json, name);
                    write_bytes(json, value);
                    json.end_array();
                }
                json.end_array();
            }
            Self::Group { last_id, entries_read, .. } => {
                json.begin_object()?;
                json.name("entries_read")?;
                match entries_read {
                    Some(read) => tagged::integer(json, *read),
                    None => json.null(),
                }
                json.name("last_id")?;
                json.string(&last_id.to_string());
                json.end_object();
            }
            Self::Pending { consumer, delivered_at, deliveries, .. } => {
                json.begin_object()?;
                json.name("consumer")?;
                write_bytes(json, consumer);
                json.name("delivered_at")?;
                tagged::integer(json, *delivered_at);
                json.name("deliveries")?;
                tagged::integer(json, *deliveries);
                json.end_object();
            }
        }
        Ok(())
    }
}

/// Reads the value of a head record.
pub(crate) fn read_head(value: &str) -> Result<Head> {
    let mut members = object(serde_json::from_str(value).unwrap_or_default())?;
    let type_name = match members.remove("type") {
        Some(Value::String(name)) => name,
        _ => return Err(odd("the record of a key has no type")),
    };
    let expires_at = take_integer(&mut members, "expires_at")?;
    let body = if let Some(payload) = members.remove("dump") {
        Body::Dump { type_name, payload: bytes_of(&payload)? }
    } else {
        match type_name.as_str() {
            "string" => read_string(&mut members, inside)?,
            JSON => match read_string(&mut members, document)? {
                Body::String(text) if document(&text).is_some() => Body::Json(text),
                _ => return Err(odd("a document has no JSON")),
            },
            "hash" => Body::Hash,
            "list" => Body::List,
            "set" => Body::Set,
            "zset" => Body::SortedSet,
            "stream" => Body::Stream(StreamHead {
                last_id: take_id(&mut members, "last_id")?,
                max_deleted_id: take_id(&mut members, "max_deleted_id")?,
                entries_added: take_integer(&mut members, "entries_added")?
                    .ok_or_else(|| odd("a stream has no number of entries"))?,
            }),
            other => return Err(odd("a key has a type that has no form").on(other)),
        }
    };
    nothing_else(&members)?;
    Ok(Head { expires_at, body })
}

fn read_string(
    members: &mut Map<String, Value>,
    look: impl Fn(&[u8]) -> Option<Document>,
) -> Result<Body> {
    let (json, value) = (members.remove("json"), members.remove("value"));
    Ok(match (json, value) {
        (None, None) => Body::LongString,
        (None, Some(value)) => Body::String(bytes_of(&value)?),
        (Some(json), None) => {
            let text = canonical_text(&tagged::unescape(json));
            Body::String(text.ok_or_else(|| odd("JSON is nested too deeply"))?.into())
        }
        (Some(json), Some(value)) => {
            let bytes = bytes_of(&value)?;
            let held = look(&bytes).map(|document| document.json.into_bytes());
            if held.is_none() || held != canonical_text(&json) {
                let what = "a string has JSON beside it that it does not hold";
                return Err(Error::new(ErrorKind::Incompatible, what)
                    .advise("a step that changes `json` has to remove `value`"));
            }
            Body::String(bytes)
        }
    })
}

/// Reads an element of its identity and value, which tell what it is an element of.
pub(crate) fn read_element(identity: &str, value: &str) -> Result<Element> {
    let identity: Value = serde_json::from_str(identity).map_err(|_| odd("an element is odd"))?;
    let read: Value =
        serde_json::from_str(value).map_err(|_| odd("the value of an element is odd"))?;
    let parts = match identity {
        Value::Array(parts) => parts,
        identity => return read_plain(&identity, read),
    };
    Ok(match parts.as_slice() {
        [Value::String(kind), offset] if kind == "range" => {
            Element::Range { offset: number(offset)?, bytes: bytes_of(&read)? }
        }
        [Value::String(kind), group] if kind == "group" => {
            let mut members = object(read)?;
            let last_id = take_id(&mut members, "last_id")?;
            let entries_read = match members.remove("entries_read") {
                None | Some(Value::Null) => None,
                Some(read) => Some(number(&read)?),
            };
            nothing_else(&members)?;
            Element::Group { group: bytes_of(group)?, last_id, entries_read }
        }
        [Value::String(kind), group, consumer] if kind == "consumer" => {
            if !read.is_null() {
                return Err(odd("a consumer has a value, where none is held"));
            }
            Element::Consumer { group: bytes_of(group)?, consumer: bytes_of(consumer)? }
        }
        [Value::String(kind), group, Value::String(id)] if kind == "pending" => {
            let id = StreamId::parse(id).ok_or_else(|| odd("an entry's id is odd").on(id))?;
            let mut members = object(read)?;
            let consumer = bytes_of(&members.remove("consumer").unwrap_or_default())?;
            let missing = || odd("a pending entry lacks a number");
            let delivered_at = take_integer(&mut members, "delivered_at")?.ok_or_else(missing)?;
            let deliveries = take_integer(&mut members, "deliveries")?.ok_or_else(missing)?;
            nothing_else(&members)?;
            Element::Pending { group: bytes_of(group)?, id, consumer, delivered_at, deliveries }
        }
        _ => return Err(odd("a key has an element of another kind")),
    })
}

fn read_plain(identity: &Value, value: Value) -> Result<Element> {
    let scalar = tagged::scalar(&value);
    Ok(match (value, scalar) {
        (_, Some(Scalar::Null)) => Element::Member(bytes_of(identity)?),
        (_, Some(Scalar::Float(score))) if !score.is_nan() => {
            Element::Scored { member: bytes_of(identity)?, score }
        }
        (value, Some(Scalar::Text(_) | Scalar::Bytes(_))) => {
            Element::At { index: number(identity)?, value: bytes_of(&value)? }
        }
        (Value::Array(pairs), _) => {
            let id = identity.as_str().and_then(StreamId::parse);
            let id = id.ok_or_else(|| odd("an entry's id is odd").on(identity))?;
            let fields = pairs.iter().map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([name, value]) => Ok((bytes_of(name)?, bytes_of(value)?)),
                _ => Err(odd("a field of an entry is no pair")),
            });
            Element::Entry { id, fields: fields.collect::<Result<_>>()? }
        }
        (Value::Object(mut members), _) => {
            let expires_at = take_integer(&mut members, "expires_at")?;
            let value = members.remove("value").unwrap_or_default();
            nothing_else(&members)?;
            Element::Field { name: bytes_of(identity)?, value: bytes_of(&value)?, expires_at }
        }
        _ => return Err(odd("a key has an element of another kind")),
    })
}

/// The types whose keys are carried in a form of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    Hash,
    List,
    Set,
    SortedSet,
    Stream,
}

impl Kind {
    /// `None`: a type of a module, or of a newer server.
    pub(crate) fn of(type_name: &str) -> Option<Self> {
        Some(match type_name {
            "string" => Self::String,
            "hash" => Self::Hash,
            "list" => Self::List,
            "set" => Self::Set,
            "zset" => Self::SortedSet,
            "stream" => Self::Stream,
            _ => return None,
        })
    }
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::Incompatible, what)
}

pub(crate) fn object(value: Value) -> Result<Map<String, Value>> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(odd("the record of a key is not an object of the adapter's")),
    }
}

pub(crate) fn nothing_else(members: &Map<String, Value>) -> Result<()> {
    match members.keys().next() {
        None => Ok(()),
        Some(name) => Err(odd("a record has a member that Redis cannot hold").on(name)),
    }
}

pub(crate) fn bytes_of(value: &Value) -> Result<Bytes> {
    match tagged::scalar(value) {
        Some(Scalar::Text(text)) => Ok(text.into()),
        Some(Scalar::Bytes(bytes)) => Ok(bytes.into()),
        _ => Err(odd("Redis holds text and bytes, and this is neither")),
    }
}

fn number<T: TryFrom<i128>>(value: &Value) -> Result<T> {
    match tagged::scalar(value) {
        Some(Scalar::Integer(number)) => {
            T::try_from(number).map_err(|_| odd("a number is out of its range"))
        }
        _ => Err(odd("a number is none")),
    }
}

fn take_integer<T: TryFrom<i128>>(
    members: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<T>> {
    members.remove(name).map(|value| number(&value)).transpose()
}

fn take_id(members: &mut Map<String, Value>, name: &str) -> Result<StreamId> {
    let id = members.remove(name);
    let id = id.as_ref().and_then(Value::as_str).and_then(StreamId::parse);
    id.ok_or_else(|| odd("a stream's id is odd").on(name))
}
