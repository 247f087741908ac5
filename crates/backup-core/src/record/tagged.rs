//! Values that JSON lacks, in one tagged form: `{"$type":"Base64","_value":"AAE="}`.
//!
//! The form follows the typed JSON of the Neo4j Query API. What an application stored as
//! an object with a member `$type` is wrapped as `{"$type":"Map","_value":{…}}`, so that a
//! tag is always a tag.

use crate::record::canonical::Writer;

/// The largest integer, up or down, that every JSON reader keeps: 2^53 − 1.
pub const MAX_SAFE_INTEGER: i128 = (1 << 53) - 1;

/// The member that marks a tagged value.
pub const TYPE: &str = "$type";

pub(crate) fn non_finite(value: f64) -> &'static str {
    if value.is_nan() {
        r#"{"$type":"Float","_value":"NaN"}"#
    } else if value > 0.0 {
        r#"{"$type":"Float","_value":"Infinity"}"#
    } else {
        r#"{"$type":"Float","_value":"-Infinity"}"#
    }
}

/// Writes a tagged value whose content is text.
pub fn text(json: &mut Writer<'_>, type_name: &str, value: &str) {
    let mut out = Vec::with_capacity(value.len() + 32);
    let mut inner = Writer::new(&mut out);
    // Two names in order, one level: cannot fail.
    let written: crate::Result<()> = (|| {
        inner.begin_object()?;
        inner.name(TYPE)?;
        inner.string(type_name);
        inner.name("_value")?;
        inner.string(value);
        inner.end_object();
        Ok(())
    })();
    debug_assert!(written.is_ok());
    json.canonical_text(&String::from_utf8(out).expect("built from strings"));
}

/// Writes an integer: digits up to [`MAX_SAFE_INTEGER`], tagged as `Integer` beyond.
///
/// ```
/// use backup_core::record::{canonical::Writer, tagged};
///
/// let mut out = Vec::new();
/// tagged::integer(&mut Writer::new(&mut out), i64::MAX);
/// assert_eq!(out, br#"{"$type":"Integer","_value":"9223372036854775807"}"#);
/// ```
pub fn integer(json: &mut Writer<'_>, value: impl Into<i128>) {
    let value: i128 = value.into();
    if value.abs() <= MAX_SAFE_INTEGER {
        json.integer(value);
    } else {
        text(json, "Integer", &value.to_string());
    }
}

/// Writes bytes, tagged as `Base64` (standard alphabet, padded).
pub fn bytes(json: &mut Writer<'_>, value: &[u8]) {
    text(json, "Base64", &base64(value));
}

/// A value that stood in JSON text, read back.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer, tagged or not.
    Integer(i128),
    /// A float, tagged (NaN, infinities) or not.
    Float(f64),
    /// A string.
    Text(String),
    /// Bytes, tagged as `Base64`.
    Bytes(Vec<u8>),
}

/// Reads a scalar, tagged or not; `None` for arrays, objects and tags of other types.
#[must_use]
pub fn scalar(value: &serde_json::Value) -> Option<Scalar> {
    use serde_json::Value;
    Some(match value {
        Value::Null => Scalar::Null,
        Value::Bool(b) => Scalar::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Scalar::Integer(i.into()),
            (_, Some(u)) => Scalar::Integer(u.into()),
            _ => Scalar::Float(n.as_f64()?),
        },
        Value::String(s) => Scalar::Text(s.clone()),
        Value::Array(_) => return None,
        Value::Object(members) => {
            if members.len() != 2 {
                return None;
            }
            let text = members.get("_value")?.as_str()?;
            match members.get(TYPE)?.as_str()? {
                "Integer" => Scalar::Integer(text.parse().ok()?),
                "Float" => Scalar::Float(match text {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => return None,
                }),
                "Base64" => Scalar::Bytes(unbase64(text)?),
                _ => return None,
            }
        }
    })
}

/// What an application stored as JSON, as it stands in a record: objects with a member
/// `$type` are wrapped and integers beyond [`MAX_SAFE_INTEGER`] tagged, at every level.
#[must_use]
pub fn escape(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(escape).collect()),
        Value::Object(members) => {
            let tagged = members.contains_key(TYPE);
            let inner: Value =
                Value::Object(members.into_iter().map(|(k, v)| (k, escape(v))).collect());
            if tagged { serde_json::json!({"$type": "Map", "_value": inner}) } else { inner }
        }
        Value::Number(n) => match n.as_i64().map(i128::from).or(n.as_u64().map(i128::from)) {
            Some(i) if i.abs() > MAX_SAFE_INTEGER => {
                serde_json::json!({"$type": "Integer", "_value": i.to_string()})
            }
            _ => Value::Number(n),
        },
        other => other,
    }
}

/// Writes what [`escape`] makes of a value, and tells whether that is something else than the
/// value itself.
///
/// # Errors
/// Nesting deeper than [`MAX_DEPTH`](super::canonical::MAX_DEPTH).
pub fn escaped(json: &mut Writer<'_>, value: &serde_json::Value) -> crate::Result<bool> {
    use serde_json::Value;
    let mut differs = false;
    match value {
        Value::Array(items) => {
            json.begin_array()?;
            for item in items {
                differs |= escaped(json, item)?;
            }
            json.end_array();
        }
        Value::Object(members) => {
            differs = members.contains_key(TYPE);
            let members = members.iter().map(|(name, member)| (name.as_str(), member)).collect();
            object(json, members, |json, member| {
                differs |= escaped(json, member)?;
                Ok(())
            })?;
        }
        Value::Number(n) => match n.as_i64().map(i128::from).or(n.as_u64().map(i128::from)) {
            Some(i) => {
                differs = i.abs() > MAX_SAFE_INTEGER;
                integer(json, i);
            }
            None => json.value(value)?,
        },
        other => json.value(other)?,
    }
    Ok(differs)
}

/// Writes an object of an application's own: its members in the order of their names, and wrapped
/// where one of them is named `$type`, so that nobody takes it for a tag.
///
/// ```
/// use backup_core::record::{canonical::Writer, tagged};
///
/// let mut text = Vec::new();
/// let members = vec![("a", 1), ("$type", 2)];
/// tagged::object(&mut Writer::new(&mut text), members, |json, value| {
///     json.integer(value);
///     Ok(())
/// })?;
/// assert_eq!(text, br#"{"$type":"Map","_value":{"$type":2,"a":1}}"#);
/// # Ok::<(), backup_core::Error>(())
/// ```
///
/// # Errors
/// Those of `write`; a name that stands twice; nesting deeper than
/// [`MAX_DEPTH`](super::canonical::MAX_DEPTH).
pub fn object<T>(
    json: &mut Writer<'_>,
    mut members: Vec<(&str, T)>,
    mut write: impl FnMut(&mut Writer<'_>, T) -> crate::Result<()>,
) -> crate::Result<()> {
    members.sort_unstable_by(|a, b| a.0.cmp(b.0));
    let wrapped = members.iter().any(|(name, _)| *name == TYPE);
    if wrapped {
        json.begin_object()?;
        json.name(TYPE)?;
        json.string("Map");
        json.name("_value")?;
    }
    json.begin_object()?;
    for (name, value) in members {
        json.name(name)?;
        write(json, value)?;
    }
    json.end_object();
    if wrapped {
        json.end_object();
    }
    Ok(())
}

/// Undoes [`escape`].
#[must_use]
pub fn unescape(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(unescape).collect()),
        Value::Object(mut members) => {
            if let Some(integer) = large(&members) {
                return Value::Number(integer);
            }
            let wrapped = members.len() == 2
                && members.get(TYPE).and_then(Value::as_str) == Some("Map")
                && members.get("_value").is_some_and(Value::is_object);
            if wrapped && let Some(Value::Object(inner)) = members.remove("_value") {
                members = inner;
            }
            Value::Object(members.into_iter().map(|(k, v)| (k, unescape(v))).collect())
        }
        other => other,
    }
}

/// An integer of 64 bits that [`escape`] tagged.
fn large(members: &serde_json::Map<String, serde_json::Value>) -> Option<serde_json::Number> {
    if members.len() != 2 || members.get(TYPE)?.as_str()? != "Integer" {
        return None;
    }
    let text = members.get("_value")?.as_str()?;
    let number =
        text.parse::<i64>().map(Into::into).or_else(|_| text.parse::<u64>().map(Into::into));
    number.ok()
}

use base64::{Engine as _, engine::general_purpose::STANDARD};

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_read_back() {
        for (written, expected) in [
            ("null", Scalar::Null),
            ("true", Scalar::Bool(true)),
            ("-5", Scalar::Integer(-5)),
            (
                r#"{"$type":"Integer","_value":"18446744073709551615"}"#,
                Scalar::Integer(u64::MAX.into()),
            ),
            ("1.0", Scalar::Float(1.0)),
            (r#"{"$type":"Float","_value":"-Infinity"}"#, Scalar::Float(f64::NEG_INFINITY)),
            (r#""x""#, Scalar::Text("x".into())),
            (r#"{"$type":"Base64","_value":"AAE="}"#, Scalar::Bytes(vec![0, 1])),
        ] {
            assert_eq!(scalar(&serde_json::from_str(written).unwrap()), Some(expected));
        }
        assert_eq!(scalar(&serde_json::json!({"$type":"Base64","_value":"*"})), None);
        assert_eq!(scalar(&serde_json::json!([1])), None);
    }

    #[test]
    fn an_object_that_looks_like_a_tag_stays_an_object() {
        for value in [
            serde_json::json!({"a": [{"$type": "Base64", "_value": "x"}], "$type": 1}),
            serde_json::json!({"$type": "Integer", "_value": "9007199254740993"}),
            serde_json::json!({"$type": "Map", "_value": {"$type": "Integer", "_value": "1"}}),
        ] {
            assert_eq!(written_as_escaped(&value), (canonical_text(&escape(value.clone())), true));
            let escaped = escape(value.clone());
            assert_eq!(escaped["$type"], "Map");
            assert_eq!(unescape(escaped), value);
        }
    }

    #[test]
    fn integers_that_others_would_round_are_tagged_and_come_back() {
        let value = serde_json::json!([u64::MAX, i64::MIN, 1_u64 << 53, (1_u64 << 53) - 1, 1e300]);
        assert_eq!(written_as_escaped(&value), (canonical_text(&escape(value.clone())), true));
        let plain = serde_json::json!({"b": [1, {"c": null}], "a": 1.5, "$typ": "Map", "z": true});
        assert_eq!(written_as_escaped(&plain), (canonical_text(&plain), false));
        let escaped = escape(value.clone());
        let tags: Vec<_> = escaped.as_array().unwrap().iter().map(|v| v.is_object()).collect();
        assert_eq!(tags, [true, true, true, false, false]);
        assert_eq!(scalar(&escaped[0]), Some(Scalar::Integer(u64::MAX.into())));
        assert_eq!(unescape(escaped), value);
    }

    fn canonical_text(value: &serde_json::Value) -> String {
        let mut text = Vec::new();
        Writer::new(&mut text).value(value).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn written_as_escaped(value: &serde_json::Value) -> (String, bool) {
        let mut text = Vec::new();
        let differs = escaped(&mut Writer::new(&mut text), value).unwrap();
        (String::from_utf8(text).unwrap(), differs)
    }
}
