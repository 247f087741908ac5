//! Values of SQLite in records, all five storage classes exactly, and back.

use backup_core::{
    Error, ErrorKind, Result,
    record::{
        Key,
        canonical::Writer,
        tagged::{self, Scalar},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};

// The tag of text that is not UTF-8: its bytes.
const TEXT: &str = "Text";
// The tag of a key that holds NULL: the row's id.
const ROWID: &str = "Rowid";

/// Writes a value.
pub(crate) fn write(json: &mut Writer<'_>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => json.null(),
        ValueRef::Integer(i) => tagged::integer(json, i),
        ValueRef::Real(f) => json.float(f),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json.string(text),
            Err(_) => tagged::text(json, TEXT, &STANDARD.encode(bytes)),
        },
        ValueRef::Blob(bytes) => tagged::bytes(json, bytes),
    }
}

/// A value as a key.
pub(crate) fn key(value: ValueRef<'_>) -> Result<Key> {
    let mut text = Vec::new();
    write(&mut Writer::new(&mut text), value);
    match std::str::from_utf8(&text) {
        Ok(text) => Key::from_json(text),
        Err(_) => Err(Error::adapter("a key is not UTF-8")),
    }
}

/// The key of a row whose primary key holds NULL, which SQLite allows any number of times.
pub(crate) fn rowid_key(rowid: i64) -> Result<Key> {
    let mut text = Vec::new();
    tagged::text(&mut Writer::new(&mut text), ROWID, &rowid.to_string());
    Key::from_json(&String::from_utf8_lossy(&text))
}

/// The row id in such a key.
pub(crate) fn rowid_of(key: &serde_json::Value) -> Option<Bound> {
    let tagged = key.get(tagged::TYPE).and_then(serde_json::Value::as_str) == Some(ROWID);
    let rowid = key.get("_value").and_then(|v| v.as_str()).filter(|_| tagged)?.parse().ok()?;
    Some(Bound::Plain(Value::Integer(rowid)))
}

/// A value to be bound to a statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bound {
    Plain(Value),
    /// Text that need not be UTF-8.
    Text(Vec<u8>),
}

impl ToSql for Bound {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Plain(value) => value.into(),
            Self::Text(bytes) => ValueRef::Text(bytes),
        }))
    }
}

/// Reads a value.
pub(crate) fn read(value: serde_json::Value) -> Result<Bound> {
    // Text is the most common by far, and need not be copied.
    let value = match value {
        serde_json::Value::String(text) => return Ok(Bound::Plain(Value::Text(text))),
        other => other,
    };
    if value.get(tagged::TYPE).and_then(serde_json::Value::as_str) == Some(TEXT) {
        let bytes =
            value.get("_value").and_then(|v| v.as_str()).and_then(|v| STANDARD.decode(v).ok());
        return bytes.map(Bound::Text).ok_or_else(foreign);
    }
    Ok(Bound::Plain(match tagged::scalar(&value) {
        Some(Scalar::Null) => Value::Null,
        Some(Scalar::Integer(i)) => Value::Integer(i64::try_from(i).map_err(|_| foreign())?),
        // SQLite makes NULL of it without a word.
        Some(Scalar::Float(f)) if !f.is_nan() => Value::Real(f),
        Some(Scalar::Text(text)) => Value::Text(text),
        Some(Scalar::Bytes(bytes)) => Value::Blob(bytes),
        _ => return Err(foreign()),
    }))
}

fn foreign() -> Error {
    Error::new(ErrorKind::Incompatible, "a record holds a value that SQLite cannot keep")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_storage_class_comes_back() {
        let long = i64::MIN.to_string();
        for (value, text) in [
            (ValueRef::Null, "null".to_owned()),
            (ValueRef::Integer(7), "7".into()),
            (ValueRef::Integer(i64::MIN), format!(r#"{{"$type":"Integer","_value":"{long}"}}"#)),
            (ValueRef::Real(1.0), "1.0".into()),
            (ValueRef::Real(-0.0), "-0.0".into()),
            (ValueRef::Real(f64::INFINITY), r#"{"$type":"Float","_value":"Infinity"}"#.into()),
            (ValueRef::Text(b"a\0\"b"), r#""a\u0000\"b""#.into()),
            (ValueRef::Text(b"\xff"), r#"{"$type":"Text","_value":"/w=="}"#.into()),
            (ValueRef::Blob(b""), r#"{"$type":"Base64","_value":""}"#.into()),
        ] {
            let mut json = Vec::new();
            write(&mut Writer::new(&mut json), value);
            assert_eq!(String::from_utf8(json.clone()).unwrap(), text);
            let bound = read(serde_json::from_slice(&json).unwrap()).unwrap();
            let ToSqlOutput::Borrowed(back) = bound.to_sql().unwrap() else { panic!() };
            assert_eq!(back, value);
        }
    }

    #[test]
    fn what_sqlite_cannot_keep_is_refused() {
        for text in ["true", "[1]", r#"{"a":1}"#, r#"{"$type":"Float","_value":"NaN"}"#] {
            assert!(read(serde_json::from_str(text).unwrap()).is_err(), "{text}");
        }
    }
}
