//! Values as they stand in records.

use backup_core::{
    Error, ErrorKind, Result,
    record::{
        canonical::Writer,
        tagged::{self, Scalar},
    },
};
use serde_json::Value as Json;

use super::Value;

/// What can be written as a record has it.
pub(crate) trait WriteJson {
    fn is_null(&self) -> bool;

    /// Writes it in canonical form.
    ///
    /// # Errors
    /// Nesting that is too deep.
    fn write(&self, json: &mut Writer<'_>) -> Result<()>;
}

impl<T: WriteJson> WriteJson for &T {
    fn is_null(&self) -> bool {
        (*self).is_null()
    }

    fn write(&self, json: &mut Writer<'_>) -> Result<()> {
        (*self).write(json)
    }
}

impl WriteJson for Value {
    fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    fn write(&self, json: &mut Writer<'_>) -> Result<()> {
        match self {
            Self::Null => json.null(),
            Self::Bool(value) => json.bool(*value),
            Self::Integer(value) => tagged::integer(json, *value),
            Self::Float(value) => json.float(*value),
            Self::Text(value) => json.string(value),
            Self::Bytes(value) => tagged::bytes(json, value),
            Self::List(items) => {
                json.begin_array()?;
                for item in items {
                    item.write(json)?;
                }
                json.end_array();
            }
            Self::Map(members) => {
                let members = members.iter().map(|(name, value)| (name.as_str(), value)).collect();
                tagged::object(json, members, |json, value| value.write(json))?;
            }
            other => {
                if let Some((name, text)) = other.tagged() {
                    tagged::text(json, name, &text);
                }
            }
        }
        Ok(())
    }
}

impl Value {
    /// Its text in canonical form.
    pub(crate) fn to_json(&self) -> Result<String> {
        let mut out = Vec::new();
        self.write(&mut Writer::new(&mut out))?;
        text(out)
    }

    /// What [`write`](WriteJson::write) wrote.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): a tag that this version does not know, a number
    /// that no property can have.
    pub(crate) fn from_json(json: &Json) -> Result<Self> {
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(_) => Self::from_scalar(json)?,
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(items) => {
                Self::List(items.iter().map(Self::from_json).collect::<Result<_>>()?)
            }
            Json::Object(members) => match members.get(tagged::TYPE) {
                None => Self::members(members)?,
                Some(_) => Self::tag(json, members)?,
            },
        })
    }

    fn members(members: &serde_json::Map<String, Json>) -> Result<Self> {
        let pair = |(name, value): (&String, &Json)| Ok((name.clone(), Self::from_json(value)?));
        let mut members = members.iter().map(pair).collect::<Result<Vec<_>>>()?;
        members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Self::Map(members))
    }

    fn tag(json: &Json, members: &serde_json::Map<String, Json>) -> Result<Self> {
        let name = members.get(tagged::TYPE).and_then(Json::as_str).unwrap_or_default();
        match (name, members.get("_value"), members.len()) {
            ("Map", Some(Json::Object(inner)), 2) => Self::members(inner),
            (_, Some(Json::String(text)), 2) => match Self::from_tagged(name, text) {
                Some(value) => Ok(value),
                None => Self::from_scalar(json),
            },
            _ => Err(unknown(json)),
        }
    }

    fn from_scalar(json: &Json) -> Result<Self> {
        Ok(match tagged::scalar(json) {
            Some(Scalar::Integer(value)) => {
                Self::Integer(i64::try_from(value).map_err(|_| unknown(json))?)
            }
            Some(Scalar::Float(value)) => Self::Float(value),
            Some(Scalar::Bytes(value)) => Self::Bytes(value.into()),
            _ => return Err(unknown(json)),
        })
    }
}

/// What a [`Writer`] wrote.
pub(crate) fn text(written: Vec<u8>) -> Result<String> {
    String::from_utf8(written).map_err(|e| Error::adapter("text is not UTF-8").because(e))
}

fn unknown(json: &Json) -> Error {
    let mut text = json.to_string();
    if let Some((end, _)) = text.char_indices().nth(80) {
        text.truncate(end);
        text.push('…');
    }
    Error::new(ErrorKind::Unsupported, "a value is none that a property can have").on(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_from_records() {
        for text in [
            r#"{"a":1,"b":[1.0,-0.0],"c":null,"d":"x","e":true}"#,
            r#"{"$type":"Integer","_value":"9223372036854775807"}"#,
            r#"{"$type":"Float","_value":"NaN"}"#,
            r#"{"$type":"Base64","_value":"AAE="}"#,
            r#"{"$type":"Date","_value":"2015-03-26"}"#,
            r#"{"$type":"Map","_value":{"$type":"Date","_value":"x"}}"#,
            r#"[{"$type":"Point","_value":"SRID=4326;POINT(1.0 2.5)"}]"#,
        ] {
            let value = Value::from_json(&serde_json::from_str(text).unwrap()).unwrap();
            assert_eq!(value.to_json().unwrap(), text);
        }
    }

    #[test]
    fn what_no_property_can_have_is_refused() {
        for text in [
            r#"{"$type":"Date","_value":"yesterday"}"#,
            r#"{"$type":"Vector","_value":"x"}"#,
            r#"{"$type":"Map","_value":1}"#,
            r#"{"$type":1}"#,
            r#"{"$type":"Integer","_value":"9223372036854775808"}"#,
            "18446744073709551615",
        ] {
            let error = Value::from_json(&serde_json::from_str(text).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
        }
    }
}
