//! PackStream: how Bolt writes values.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::value::{Moment, Value};

/// Deepest nesting that is read; the server's own values have three levels.
const MAX_DEPTH: usize = 32;

/// What is wrong with bytes of the server.
pub(super) type Fault = &'static str;

/// Reads one value from the front.
pub(super) fn read(from: &mut Bytes) -> Result<Value, Fault> {
    value(from, 0)
}

fn value(from: &mut Bytes, depth: usize) -> Result<Value, Fault> {
    if depth > MAX_DEPTH {
        return Err("a value is nested too deep");
    }
    Ok(match byte(from)? {
        marker @ (0x00..=0x7f | 0xf0..=0xff) => Value::Integer(i64::from(marker as i8)),
        0xc8 => Value::Integer(need(from, 1)?.get_i8().into()),
        0xc9 => Value::Integer(need(from, 2)?.get_i16().into()),
        0xca => Value::Integer(need(from, 4)?.get_i32().into()),
        0xcb => Value::Integer(need(from, 8)?.get_i64()),
        0xc0 => Value::Null,
        0xc1 => Value::Float(need(from, 8)?.get_f64()),
        0xc2 => Value::Bool(false),
        0xc3 => Value::Bool(true),
        marker @ (0xcc..=0xce) => {
            let len = length(from, marker - 0xcc)?;
            Value::Bytes(need(from, len)?.split_to(len))
        }
        marker @ (0x80..=0x8f | 0xd0..=0xd2) => {
            let len = sized(from, marker, 0x80, 0xd0)?;
            Value::Text(text(from, len)?)
        }
        marker @ (0x90..=0x9f | 0xd4..=0xd6) => {
            let len = sized(from, marker, 0x90, 0xd4)?;
            // Each item has at least a byte, so a length that lies allocates nothing.
            let mut items = Vec::with_capacity(len.min(from.len()));
            for _ in 0..len {
                items.push(value(from, depth + 1)?);
            }
            Value::List(items)
        }
        marker @ (0xa0..=0xaf | 0xd8..=0xda) => {
            let len = sized(from, marker, 0xa0, 0xd8)?;
            let mut members = Vec::with_capacity(len.min(from.len()));
            for _ in 0..len {
                let Value::Text(name) = value(from, depth + 1)? else {
                    return Err("a name is no text");
                };
                members.push((name, value(from, depth + 1)?));
            }
            members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            Value::Map(members)
        }
        marker @ 0xb0..=0xbf => structure(from, marker & 0x0f, depth)?,
        _ => return Err("a value begins with an unknown byte"),
    })
}

fn structure(from: &mut Bytes, fields: u8, depth: usize) -> Result<Value, Fault> {
    let tag = byte(from)?;
    let mut integer = || match value(from, depth + 1)? {
        Value::Integer(value) => Ok(value),
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
            match value(from, depth + 1)? {
                Value::Text(zone) => Value::ZonedDateTime(moment, zone),
                _ => return Err("a zone is no text"),
            }
        }
        (b'E', 4) => Value::Duration([integer()?, integer()?, integer()?, integer()?]),
        (b'X', 3) => {
            let srid = integer()?;
            Value::Point(srid, [float(from)?, float(from)?])
        }
        (b'Y', 4) => {
            let srid = integer()?;
            Value::Point3D(srid, [float(from)?, float(from)?, float(from)?])
        }
        (b'V', 2) => match (value(from, depth + 1)?, value(from, depth + 1)?) {
            (Value::Bytes(kind), Value::Bytes(data)) if kind.len() == 1 => {
                Value::Vector(kind[0], data)
            }
            _ => return Err("a vector is not of the form that is known"),
        },
        _ => return Err("a value is of a type that is not known"),
    })
}

fn float(from: &mut Bytes) -> Result<f64, Fault> {
    match value(from, MAX_DEPTH)? {
        Value::Float(value) => Ok(value),
        _ => Err("a coordinate is no float"),
    }
}

/// The message's tag and how many fields follow.
pub(super) fn message(from: &mut Bytes) -> Result<u8, Fault> {
    match byte(from)? {
        0xb0..=0xbf => byte(from),
        _ => Err("a message is no structure"),
    }
}

fn need(from: &mut Bytes, len: usize) -> Result<&mut Bytes, Fault> {
    if from.len() < len { Err("a message ends too early") } else { Ok(from) }
}

fn byte(from: &mut Bytes) -> Result<u8, Fault> {
    Ok(need(from, 1)?.get_u8())
}

fn text(from: &mut Bytes, len: usize) -> Result<String, Fault> {
    let text = need(from, len)?;
    let read = std::str::from_utf8(&text[..len]).map_err(|_| "text is not UTF-8")?.to_owned();
    text.advance(len);
    Ok(read)
}

/// A length of 1, 2 or 4 bytes.
fn length(from: &mut Bytes, class: u8) -> Result<usize, Fault> {
    Ok(match class {
        0 => need(from, 1)?.get_u8().into(),
        1 => need(from, 2)?.get_u16().into(),
        _ => need(from, 4)?.get_u32() as usize,
    })
}

fn sized(from: &mut Bytes, marker: u8, tiny: u8, long: u8) -> Result<usize, Fault> {
    if marker & 0xf0 == tiny { Ok((marker & 0x0f).into()) } else { length(from, marker - long) }
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
        let mut bytes = out.freeze();
        let read = read(&mut bytes).unwrap();
        assert!(bytes.is_empty());
        read
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
            let _ = read(&mut Bytes::from(bytes));
        }
    }

    #[test]
    fn nesting_has_an_end() {
        assert!(read(&mut Bytes::from(vec![0x91; 1_000_000])).is_err());
        assert!(read(&mut Bytes::from_static(&[0xd6, 0xff, 0xff, 0xff, 0xff])).is_err());
    }
}
