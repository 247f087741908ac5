//! Replies of either protocol, RESP2 and RESP3, taken apart.

use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use redis::Value;

use crate::model::StreamId;

pub(crate) fn odd(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "the server gave a reply that the adapter does not know")
        .on(what)
}

/// The value, or the error that stands in its place.
pub(crate) fn checked(what: &str, value: Value) -> Result<Value> {
    match value {
        Value::ServerError(error) => Err(crate::error::server(what, &error)),
        value => Ok(value),
    }
}

/// The code of an error that stands in place of a reply.
pub(crate) fn code(value: &Value) -> Option<&str> {
    match value {
        Value::ServerError(error) => Some(error.code()),
        _ => None,
    }
}

pub(crate) fn bytes(value: Value) -> Result<Bytes> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => {
            Ok(text.into_bytes().into())
        }
        Value::Okay => Ok(Bytes::from_static(b"OK")),
        Value::Int(number) => Ok(number.to_string().into_bytes().into()),
        Value::Double(number) => Ok(number.to_string().into_bytes().into()),
        other => Err(odd(&kind(&other))),
    }
}

pub(crate) fn text(value: Value) -> Result<String> {
    let bytes = bytes(value)?;
    String::from_utf8(bytes.into()).map_err(|_| odd("text that is not UTF-8"))
}

pub(crate) fn integer(value: &Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(digits) => std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| odd("a number")),
        other => Err(odd(&kind(other))),
    }
}

pub(crate) fn float(value: Value) -> Result<f64> {
    if let Value::Double(number) = value {
        return Ok(number);
    }
    let text = text(value)?;
    text.parse().map_err(|_| odd("a score"))
}

pub(crate) fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Map(pairs) => Ok(pairs.into_iter().flat_map(|(a, b)| [a, b]).collect()),
        Value::Nil => Ok(Vec::new()),
        other => Err(odd(&kind(&other))),
    }
}

/// A map, or a list of names and values in turn.
pub(crate) fn pairs(value: Value) -> Result<Vec<(Value, Value)>> {
    if let Value::Map(pairs) = value {
        return Ok(pairs);
    }
    let mut items = list(value)?.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// The member of a name.
pub(crate) fn take(pairs: &mut Vec<(Value, Value)>, name: &str) -> Option<Value> {
    let named = |value: &Value| match value {
        Value::BulkString(bytes) => bytes == name.as_bytes(),
        Value::SimpleString(text) => text == name,
        _ => false,
    };
    let place = pairs.iter().position(|(known, _)| named(known))?;
    Some(pairs.swap_remove(place).1)
}

pub(crate) fn stream_id(value: Value) -> Result<StreamId> {
    StreamId::parse(&text(value)?).ok_or_else(|| odd("the id of a stream"))
}

/// Cursor and page of a command that scans.
pub(crate) fn page(value: Value) -> Result<(u64, Vec<Value>)> {
    let mut parts = list(value)?.into_iter();
    let (Some(cursor), Some(page)) = (parts.next(), parts.next()) else {
        return Err(odd("a page"));
    };
    let cursor = text(cursor)?.parse().map_err(|_| odd("a cursor"))?;
    Ok((cursor, list(page)?))
}

fn kind(value: &Value) -> String {
    let text = format!("{value:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}
