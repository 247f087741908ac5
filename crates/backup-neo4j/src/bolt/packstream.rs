//! PackStream: how Bolt writes values.

use backup_core::{
    Error, ErrorKind, Result,
    record::{canonical::Writer, tagged},
};
use bytes::{BufMut, Bytes, BytesMut};

use crate::value::{Moment, Value, WriteJson};

/// Deepest nesting that is read; the server's own values have three levels.
const MAX_DEPTH: usize = 32;

/// What is wrong with bytes of the server.
pub(super) type Fault = &'static str;

/// What the bytes of one value begin with. A list's items, a map's names and values, and a
/// structure's fields follow.
enum Token<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Bytes(&'a [u8]),
    Text(&'a str),
    List(usize),
    Map(usize),
    Structure(u8, u8),
}

/// Values where the server's bytes lie, read from the front.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

/// One value as the server sent it: not read, and not more of it than its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The columns of a row, which has so many.
    pub(crate) fn row(bytes: &'a [u8], columns: usize) -> Result<Self> {
        let mut row = Self(bytes);
        row.list_of(columns)?;
        Ok(row)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many items of a list follow.
    pub(crate) fn list(&mut self) -> Result<usize> {
        match self.token().map_err(unreadable)? {
            Token::List(len) => Ok(len),
            _ => Err(unreadable("a value is no list")),
        }
    }

    /// A list of so many items, which follow.
    pub(crate) fn list_of(&mut self, len: usize) -> Result<()> {
        if self.list()? == len { Ok(()) } else { Err(unreadable("a list has another length")) }
    }

    pub(crate) fn integer(&mut self) -> Result<i64> {
        match self.token().map_err(unreadable)? {
            Token::Integer(value) => Ok(value),
            _ => Err(unreadable("a value is no integer")),
        }
    }

    pub(crate) fn bool(&mut self) -> Result<bool> {
        match self.token().map_err(unreadable)? {
            Token::Bool(value) => Ok(value),
            _ => Err(unreadable("a value is neither true nor false")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        match self.token().map_err(unreadable)? {
            Token::Text(text) => Ok(text),
            _ => Err(unreadable("a value is no text")),
        }
    }

    /// The members of a map, as they come.
    pub(crate) fn map(&mut self) -> Result<Vec<(&'a str, Raw<'a>)>> {
        match self.token().map_err(unreadable)? {
            Token::Map(len) => self.members(len).map_err(unreadable),
            _ => Err(unreadable("a value is no map")),
        }
    }

    /// A value, passed over.
    pub(crate) fn raw(&mut self) -> Result<Raw<'a>> {
        self.pass().map_err(unreadable)
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(unreadable("an answer goes on after its end")) }
    }

    fn pass(&mut self) -> Result<Raw<'a>, Fault> {
        let all = self.0;
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            let more = match self.token()? {
                Token::List(len) => len,
                Token::Map(len) => 2 * len,
                Token::Structure(_, fields) => fields.into(),
                _ => 0,
            };
            left += more;
        }
        Ok(Raw(&all[..all.len() - self.0.len()]))
    }

    fn members(&mut self, len: usize) -> Result<Vec<(&'a str, Raw<'a>)>, Fault> {
        // Each has at least two bytes, so a length that lies allocates nothing.
        let mut members = Vec::with_capacity(len.min(self.0.len()));
        for _ in 0..len {
            let Token::Text(name) = self.token()? else { return Err("a name is no text") };
            members.push((name, self.pass()?));
        }
        Ok(members)
    }

    fn token(&mut self) -> Result<Token<'a>, Fault> {
        Ok(match self.byte()? {
            marker @ (0x00..=0x7f | 0xf0..=0xff) => Token::Integer(i64::from(marker as i8)),
            0xc8 => Token::Integer(i8::from_be_bytes(self.array()?).into()),
            0xc9 => Token::Integer(i16::from_be_bytes(self.array()?).into()),
            0xca => Token::Integer(i32::from_be_bytes(self.array()?).into()),
            0xcb => Token::Integer(i64::from_be_bytes(self.array()?)),
            0xc0 => Token::Null,
            0xc1 => Token::Float(f64::from_be_bytes(self.array()?)),
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            marker @ (0xcc..=0xce) => {
                let len = self.length(marker - 0xcc)?;
                Token::Bytes(self.take(len)?)
            }
            marker @ (0x80..=0x8f | 0xd0..=0xd2) => {
                let len = self.sized(marker, 0x80, 0xd0)?;
                let text = std::str::from_utf8(self.take(len)?);
                Token::Text(text.map_err(|_| "text is not UTF-8")?)
            }
            marker @ (0x90..=0x9f | 0xd4..=0xd6) => Token::List(self.sized(marker, 0x90, 0xd4)?),
            marker @ (0xa0..=0xaf | 0xd8..=0xda) => Token::Map(self.sized(marker, 0xa0, 0xd8)?),
            marker @ 0xb0..=0xbf => Token::Structure(self.byte()?, marker & 0x0f),
            _ => return Err("a value begins with an unknown byte"),
        })
    }

    /// The tag of a message, whose fields follow.
    pub(super) fn message(&mut self) -> Result<u8> {
        match self.token().map_err(unreadable)? {
            Token::Structure(tag, _) => Ok(tag),
            _ => Err(unreadable("a message is no structure")),
        }
    }

    /// A value, read whole.
    pub(super) fn value(&mut self) -> Result<Value> {
        self.value_in(0).map_err(unreadable)
    }

    fn value_in(&mut self, depth: usize) -> Result<Value, Fault> {
        if depth > MAX_DEPTH {
            return Err("a value is nested too deep");
        }
        Ok(match self.token()? {
            Token::Null => Value::Null,
            Token::Bool(value) => Value::Bool(value),
            Token::Integer(value) => Value::Integer(value),
            Token::Float(value) => Value::Float(value),
            Token::Bytes(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes)),
            Token::Text(text) => Value::Text(text.to_owned()),
            Token::List(len) => {
                // Each item has at least a byte.
                let mut items = Vec::with_capacity(len.min(self.0.len()));
                for _ in 0..len {
                    items.push(self.value_in(depth + 1)?);
                }
                Value::List(items)
            }
            Token::Map(len) => {
                let mut members = Vec::with_capacity(len.min(self.0.len()));
                for _ in 0..len {
                    let Token::Text(name) = self.token()? else { return Err("a name is no text") };
                    members.push((name.to_owned(), self.value_in(depth + 1)?));
                }
                members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                Value::Map(members)
            }
            Token::Structure(tag, fields) => self.structure(tag, fields, depth)?,
        })
    }

    fn structure(&mut self, tag: u8, fields: u8, depth: usize) -> Result<Value, Fault> {
        let mut integer = || match self.token()? {
            Token::Integer(value) => Ok(value),
            _ => Err("a field of a date or a time is no integer"),
        };
        let nanos = |value: i64| u32::try_from(value).map_err(|_| "nanoseconds out of range");
        let offset = |value: i64| i32::try_from(value).map_err(|_| "an offset out of range");
        Ok(match (tag, fields) {
            (b'D', 1) => Value::Date(integer()?),
            (b'T', 2) => Value::Time(integer()?, offset(integer()?)?),
            (b't', 1) => Value::LocalTime(integer()?),
            (b'd', 2) => {
                Value::LocalDateTime(Moment { seconds: integer()?, nanos: nanos(integer()?)? })
            }
            (b'I', 3) => {
                let (seconds, nanos, east) = (integer()?, nanos(integer()?)?, offset(integer()?)?);
                Value::OffsetDateTime(Moment { seconds, nanos }, east)
            }
            (b'i', 3) => {
                let moment = Moment { seconds: integer()?, nanos: nanos(integer()?)? };
                match self.token()? {
                    Token::Text(zone) => Value::ZonedDateTime(moment, zone.to_owned()),
                    _ => return Err("a zone is no text"),
                }
            }
            (b'E', 4) => Value::Duration([integer()?, integer()?, integer()?, integer()?]),
            (b'X', 3) => {
                let srid = integer()?;
                Value::Point(srid, [self.float()?, self.float()?])
            }
            (b'Y', 4) => {
                let srid = integer()?;
                Value::Point3D(srid, [self.float()?, self.float()?, self.float()?])
            }
            (b'V', 2) => match (self.value_in(depth + 1)?, self.value_in(depth + 1)?) {
                (Value::Bytes(kind), Value::Bytes(data)) if kind.len() == 1 => {
                    Value::Vector(kind[0], data)
                }
                _ => return Err("a vector is not of the form that is known"),
            },
            _ => return Err("a value is of a type that is not known"),
        })
    }

    fn float(&mut self) -> Result<f64, Fault> {
        match self.token()? {
            Token::Float(value) => Ok(value),
            _ => Err("a coordinate is no float"),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("a message ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("a message ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.array().map(|[byte]| byte)
    }

    /// A length of 1, 2 or 4 bytes.
    fn length(&mut self, class: u8) -> Result<usize, Fault> {
        Ok(match class {
            0 => self.byte()?.into(),
            1 => u16::from_be_bytes(self.array()?).into(),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn sized(&mut self, marker: u8, tiny: u8, long: u8) -> Result<usize, Fault> {
        if marker & 0xf0 == tiny { Ok((marker & 0x0f).into()) } else { self.length(marker - long) }
    }
}

impl<'a> Raw<'a> {
    /// Its bytes: equal where the server sent the same.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The value.
    pub(crate) fn value(self) -> Result<Value> {
        Reader(self.0).value()
    }
}

impl WriteJson for Raw<'_> {
    fn is_null(&self) -> bool {
        self.0 == [0xc0]
    }

    fn write(&self, json: &mut Writer<'_>) -> Result<()> {
        write_json(&mut Reader(self.0), json)
    }
}

/// Brings a value into the form of records, which is that of [`Value::write`], without making it.
fn write_json(from: &mut Reader<'_>, json: &mut Writer<'_>) -> Result<()> {
    match from.token().map_err(unreadable)? {
        Token::Null => json.null(),
        Token::Bool(value) => json.bool(value),
        Token::Integer(value) => tagged::integer(json, value),
        Token::Float(value) => json.float(value),
        Token::Bytes(bytes) => tagged::bytes(json, bytes),
        Token::Text(text) => json.string(text),
        Token::List(len) => {
            json.begin_array()?;
            for _ in 0..len {
                write_json(from, json)?;
            }
            json.end_array();
        }
        Token::Map(len) => {
            let members = from.members(len).map_err(unreadable)?;
            tagged::object(json, members, |json, value| value.write(json))?;
        }
        Token::Structure(tag, fields) => {
            let value = from.structure(tag, fields, 0).map_err(unreadable)?;
            value.write(json)?;
        }
    }
    Ok(())
}

/// What the server sent is not of the form that is known.
pub(super) fn unreadable(fault: Fault) -> Error {
    let what = "an answer of the server cannot be read";
    Error::new(ErrorKind::Unsupported, what).because(fault.to_owned())
}

/// Writes a structure's head.
pub(super) fn head(to: &mut BytesMut, tag: u8, fields: u8) {
    to.put_slice(&[0xb0 | fields, tag]);
}

/// Writes the head of a map of so many members.
pub(super) fn map_head(to: &mut BytesMut, members: usize) {
    write_length(to, members, Some(0xa0), 0xd8);
}

/// Writes a value.
pub(super) fn write(to: &mut BytesMut, value: &Value) {
    match value {
        Value::Null => to.put_u8(0xc0),
        Value::Bool(value) => to.put_u8(if *value { 0xc3 } else { 0xc2 }),
        Value::Integer(value) => write_integer(to, *value),
        Value::Float(value) => write_float(to, *value),
        Value::Text(text) => write_text(to, text),
        Value::Bytes(bytes) => write_bytes(to, bytes),
        Value::List(items) => {
            write_length(to, items.len(), Some(0x90), 0xd4);
            for item in items {
                write(to, item);
            }
        }
        Value::Map(members) => {
            map_head(to, members.len());
            for (name, value) in members {
                write_text(to, name);
                write(to, value);
            }
        }
        Value::Date(days) => integers(to, b'D', &[*days]),
        Value::Time(nanos, east) => integers(to, b'T', &[*nanos, (*east).into()]),
        Value::LocalTime(nanos) => integers(to, b't', &[*nanos]),
        Value::LocalDateTime(moment) => {
            integers(to, b'd', &[moment.seconds, moment.nanos.into()]);
        }
        Value::OffsetDateTime(moment, east) => {
            integers(to, b'I', &[moment.seconds, moment.nanos.into(), (*east).into()]);
        }
        Value::ZonedDateTime(moment, zone) => {
            head(to, b'i', 3);
            write_integer(to, moment.seconds);
            write_integer(to, moment.nanos.into());
            write_text(to, zone);
        }
        Value::Duration(parts) => integers(to, b'E', parts),
        Value::Point(srid, coordinates) => point(to, b'X', *srid, coordinates),
        Value::Point3D(srid, coordinates) => point(to, b'Y', *srid, coordinates),
        Value::Vector(kind, data) => {
            head(to, b'V', 2);
            write_bytes(to, &[*kind]);
            write_bytes(to, data);
        }
    }
}

fn integers(to: &mut BytesMut, tag: u8, fields: &[i64]) {
    head(to, tag, fields.len() as u8);
    for field in fields {
        write_integer(to, *field);
    }
}

fn point(to: &mut BytesMut, tag: u8, srid: i64, coordinates: &[f64]) {
    head(to, tag, 1 + coordinates.len() as u8);
    write_integer(to, srid);
    for coordinate in coordinates {
        write_float(to, *coordinate);
    }
}

fn write_integer(to: &mut BytesMut, value: i64) {
    if let Ok(value) = i8::try_from(value) {
        if value < -16 {
            to.put_u8(0xc8);
        }
        to.put_i8(value);
    } else if let Ok(value) = i16::try_from(value) {
        to.put_u8(0xc9);
        to.put_i16(value);
    } else if let Ok(value) = i32::try_from(value) {
        to.put_u8(0xca);
        to.put_i32(value);
    } else {
        to.put_u8(0xcb);
        to.put_i64(value);
    }
}

fn write_float(to: &mut BytesMut, value: f64) {
    to.put_u8(0xc1);
    to.put_f64(value);
}

pub(super) fn write_text(to: &mut BytesMut, text: &str) {
    write_length(to, text.len(), Some(0x80), 0xd0);
    to.put_slice(text.as_bytes());
}

fn write_bytes(to: &mut BytesMut, bytes: &[u8]) {
    write_length(to, bytes.len(), None, 0xcc);
    to.put_slice(bytes);
}

// What is longer than 4 GiB is refused before it comes here: a line of a record is shorter.
fn write_length(to: &mut BytesMut, len: usize, tiny: Option<u8>, long: u8) {
    match (tiny, len) {
        (Some(tiny), 0..=15) => to.put_u8(tiny | len as u8),
        (_, 0..=0xff) => to.put_slice(&[long, len as u8]),
        (_, 0x100..=0xffff) => {
            to.put_u8(long + 1);
            to.put_u16(len as u16);
        }
        _ => {
            to.put_u8(long + 2);
            to.put_u32(len as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(value: &Value) -> Value {
        let mut out = BytesMut::new();
        write(&mut out, value);
        let mut reader = Reader::new(&out);
        let read = reader.value().unwrap();
        assert_eq!(reader.len(), 0);
        // What is not read says the same.
        let mut reader = Reader::new(&out);
        let raw = reader.raw().unwrap();
        assert_eq!((raw.bytes(), reader.len()), (&out[..], 0));
        assert_eq!(json(&raw), json(&value));
        assert_eq!(raw.is_null(), *value == Value::Null);
        read
    }

    fn json(value: &impl WriteJson) -> String {
        let mut out = Vec::new();
        value.write(&mut Writer::new(&mut out)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_have_their_shortest_form() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (-16, &[0xf0]),
            (-17, &[0xc8, 0xef]),
            (128, &[0xc9, 0x00, 0x80]),
            (-32_769, &[0xca, 0xff, 0xff, 0x7f, 0xff]),
            (i64::MIN, &[0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let mut out = BytesMut::new();
            write(&mut out, &Value::Integer(value));
            assert_eq!(&out[..], bytes);
            assert_eq!(back(&Value::Integer(value)), Value::Integer(value));
        }
    }

    #[test]
    fn values_of_every_type_and_length_come_back() {
        let moment = Moment { seconds: -62_135_596_800, nanos: 999_999_999 };
        let mut values = vec![
            Value::Null,
            Value::Bool(true),
            Value::Float(-0.0),
            Value::Date(-365_243_219_162),
            Value::Time(86_399_999_999_999, -64_800),
            Value::LocalTime(0),
            Value::LocalDateTime(moment),
            Value::OffsetDateTime(moment, 18_001),
            Value::ZonedDateTime(moment, "Europe/London".to_owned()),
            Value::Duration([-14, 3, i64::MAX, 999_999_999]),
            Value::Point(7203, [1.5, f64::NEG_INFINITY]),
            Value::Point3D(4979, [1.0, -0.0, 3.0]),
            Value::Vector(0xc6, vec![0, 0, 128, 63].into()),
        ];
        for len in [0, 1, 15, 16, 255, 256, 65_535, 65_536] {
            values.push(Value::Text("x".repeat(len)));
            values.push(Value::Bytes(vec![7; len].into()));
            values.push(Value::List(vec![Value::Null; len]));
            let names = (0..len).map(|n| (format!("{n:06}"), Value::Integer(n as i64)));
            values.push(Value::Map(names.collect()));
        }
        for value in values {
            assert_eq!(back(&value), value);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>) {
            let read = Reader::new(&bytes).value();
            let raw = Reader::new(&bytes).raw();
            if let (Ok(read), Ok(raw)) = (&read, &raw) {
                assert_eq!(format!("{:?}", raw.value().unwrap()), format!("{read:?}"));
            }
            // Passing over asks for less than reading.
            assert!(read.is_err() || raw.is_ok());
            let mut out = Vec::new();
            let _ = raw.map(|raw| raw.write(&mut Writer::new(&mut out)));
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = [vec![0x91; 1_000_000], vec![0xc0]].concat();
        assert!(Reader::new(&deep).value().is_err());
        let raw = Reader::new(&deep).raw().unwrap();
        assert!(raw.write(&mut Writer::new(&mut Vec::new())).is_err());
        assert!(Reader::new(&[0xd6, 0xff, 0xff, 0xff, 0xff]).value().is_err());
        assert!(Reader::new(&[0xda, 0xff, 0xff, 0xff, 0xff]).raw().is_err());
    }

    #[test]
    fn rows_have_as_many_columns_as_were_asked_for() {
        let row = [0x92, 0x01, 0x02];
        for columns in [0, 1, 3] {
            assert!(Reader::row(&row, columns).is_err(), "{columns}");
        }
        let mut reader = Reader::row(&row, 2).unwrap();
        assert_eq!(reader.integer().unwrap(), 1);
        assert!(reader.end().is_err());
        assert_eq!(reader.integer().unwrap(), 2);
        reader.end().unwrap();
        // Null is no list, neither of columns nor of relationships.
        assert!(Reader::row(&[0xc0], 0).is_err());
        assert!(Reader::new(&[0xc0]).list().is_err());
    }
}
