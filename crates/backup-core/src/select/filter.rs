//! A selection, ready to be asked about the records of one collection.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    condition::{Condition, Kind, Op, Test},
    value,
};
use crate::{
    error::{Error, ErrorKind, Result},
    manifest::FieldMapping,
    record::{Edit, RecordBatch, RecordRef},
};

/// What a [`Selection`](super::Selection) takes of one collection.
///
/// ```
/// use backup_core::{Selection, manifest::FieldMapping, record::{BatchBuilder, Key}};
///
/// let mut builder = BatchBuilder::new("notes");
/// builder.push_json(&Key::from(1), br#"{"meta":{"project":"alpha"}}"#)?;
/// builder.push_json(&Key::from(2), br#"{"meta":{"project":"beta"}}"#)?;
/// let mut fields = FieldMapping::default();
/// fields.project = Some("/meta/project".into());
///
/// let filter = Selection::new().project("alpha").filter("state", "notes", &fields)?;
/// let taken = filter.batch(&builder.finish()?)?;
/// assert_eq!(taken.len(), 1);
/// assert_eq!(taken.get(0).key(), Key::from(1));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Filter {
    place: String,
    takes: Takes,
}

#[derive(Debug, Clone)]
enum Takes {
    Everything,
    Nothing,
    Where(Vec<Compiled>),
}

#[derive(Debug, Clone)]
enum Compiled {
    All(Vec<Compiled>),
    Any(Vec<Compiled>),
    Not(Box<Compiled>),
    Test { pointer: String, kind: Kind, op: Op, value: Value },
}

impl Filter {
    pub(super) fn nothing(place: String) -> Self {
        Self { place, takes: Takes::Nothing }
    }

    pub(super) fn new<'c>(
        place: String,
        conditions: impl Iterator<Item = &'c Condition>,
        fields: &FieldMapping,
    ) -> Result<Self> {
        let compiled = conditions.map(|condition| Compiled::new(condition, fields));
        let compiled = compiled.collect::<Result<Vec<_>>>().map_err(|error| error.on(&place))?;
        let takes = if compiled.is_empty() { Takes::Everything } else { Takes::Where(compiled) };
        Ok(Self { place, takes })
    }

    /// Whether every record is taken, so that none has to be looked at.
    #[must_use]
    pub fn takes_everything(&self) -> bool {
        matches!(self.takes, Takes::Everything)
    }

    /// Whether no record is taken, the collection neither.
    #[must_use]
    pub fn takes_nothing(&self) -> bool {
        matches!(self.takes, Takes::Nothing)
    }

    /// The records of a batch that are taken, with their vectors.
    ///
    /// A batch that is taken whole is the same batch.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for elements of large records, which cannot be
    /// chosen one by one; [`InvalidInput`](ErrorKind::InvalidInput) for a value that is to be
    /// compared as a time and is none.
    pub fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        match &self.takes {
            Takes::Everything => Ok(batch.clone()),
            Takes::Nothing => batch.rows(&[]),
            Takes::Where(conditions) => batch.edit(|record| {
                let value = look_into(record).map_err(|error| error.on(&self.place))?;
                let mut holds = true;
                for condition in conditions {
                    holds = holds && condition.holds(&value).map_err(|e| self.name(e, record))?;
                }
                Ok(if holds { Edit::Keep } else { Edit::Drop })
            }),
        }
    }

    fn name(&self, error: Error, record: RecordRef<'_>) -> Error {
        error.on(format!("{}, record {}", self.place, record.key_json()))
    }
}

/// The value of a record.
pub(super) fn look_into(record: RecordRef<'_>) -> Result<Value> {
    if record.element_json().is_some() {
        let what = "a record that comes in elements cannot be looked into";
        return Err(Error::new(ErrorKind::Unsupported, what)
            .on(format!("record {}", record.key_json()))
            .advise("choose this collection by its name only"));
    }
    serde_json::from_str(record.value_json()).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "a record's value is not JSON")
            .on(format!("record {}", record.key_json()))
            .because(e)
    })
}

impl Compiled {
    fn new(condition: &Condition, fields: &FieldMapping) -> Result<Self> {
        let list = |items: &[Condition]| {
            items.iter().map(|item| Self::new(item, fields)).collect::<Result<Vec<_>>>()
        };
        Ok(match condition {
            Condition::All(items) => Self::All(list(items)?),
            Condition::Any(items) => Self::Any(list(items)?),
            Condition::Not(inner) => Self::Not(Box::new(Self::new(inner, fields)?)),
            Condition::Test(test) => Self::test(test, fields)?,
        })
    }

    fn test(test: &Test, fields: &FieldMapping) -> Result<Self> {
        let field = test.field();
        let Some(pointer) = field.pointer(fields) else {
            let what = "it is not known where the records have this field";
            return Err(Error::new(ErrorKind::InvalidInput, what).on(field.as_str()));
        };
        if !(pointer.is_empty() || pointer.starts_with('/')) {
            let what = "a field is mapped to something that is not a JSON pointer";
            return Err(Error::new(ErrorKind::InvalidInput, what)
                .on(format!("{} = {pointer:?}", field.as_str()))
                .advise("begin it with /"));
        }
        let (kind, op, value) = (field.kind(), test.op(), test.value().clone());
        Ok(Self::Test { pointer: pointer.to_owned(), kind, op, value })
    }

    fn holds(&self, record: &Value) -> Result<bool> {
        match self {
            Self::All(items) => {
                for item in items {
                    if !item.holds(record)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(items) => {
                for item in items {
                    if item.holds(record)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(inner) => Ok(!inner.holds(record)?),
            Self::Test { pointer, kind, op, value } => {
                let Some(found) = record.pointer(pointer) else { return Ok(false) };
                match kind {
                    _ if *op == Op::Exists => Ok(!found.is_null()),
                    Kind::Json => Ok(json(found, *op, value)),
                    Kind::Label => Ok(label(found, *op, value)),
                    Kind::Tags => Ok(tags(found, *op, value)),
                    Kind::Time => time(found, *op, value).map_err(|e| e.on(pointer)),
                }
            }
        }
    }
}

fn json(found: &Value, op: Op, wanted: &Value) -> bool {
    match op {
        Op::Equals => value::equal(found, wanted),
        Op::In => list(wanted).iter().any(|item| value::equal(found, item)),
        Op::Contains => match (found, wanted) {
            (Value::Array(items), _) => items.iter().any(|item| value::equal(item, wanted)),
            (Value::String(text), Value::String(part)) => text.contains(part),
            _ => false,
        },
        Op::StartsWith => match (found, wanted) {
            (Value::String(text), Value::String(part)) => text.starts_with(part),
            _ => false,
        },
        _ => value::order(found, wanted).is_some_and(|order| in_order(op, order)),
    }
}

fn label(found: &Value, op: Op, wanted: &Value) -> bool {
    match found {
        Value::Array(items) if op == Op::Contains => {
            items.iter().any(|item| !item.is_array() && label(item, Op::Equals, wanted))
        }
        Value::Array(items) => items.iter().any(|item| !item.is_array() && label(item, op, wanted)),
        one => value::label(one).is_some_and(|text| json(&text.into(), op, wanted)),
    }
}

fn tags(found: &Value, op: Op, wanted: &Value) -> bool {
    match found {
        Value::String(text) => label(&value::items(text).into(), op, wanted),
        Value::Array(_) => label(found, op, wanted),
        one => label(&Value::Array(vec![one.clone()]), op, wanted),
    }
}

fn time(found: &Value, op: Op, wanted: &Value) -> Result<bool> {
    if found.is_null() {
        return Ok(false);
    }
    let Some(time) = value::time(found) else {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a value is compared as a time and is none",
        )
        .advise("correct the record or the mapping, or choose by another field"));
    };
    let holds = |op, wanted: &Value| {
        let Some((first, last)) = wanted.as_str().and_then(value::span) else { return false };
        match op {
            Op::Less => time < first,
            Op::AtMost => time <= last,
            Op::Greater => time > last,
            Op::AtLeast => time >= first,
            _ => first <= time && time <= last,
        }
    };
    Ok(match op {
        Op::In => list(wanted).iter().any(|item| holds(Op::Equals, item)),
        op => holds(op, wanted),
    })
}

fn in_order(op: Op, order: Ordering) -> bool {
    match op {
        Op::Less => order.is_lt(),
        Op::AtMost => order.is_le(),
        Op::Greater => order.is_gt(),
        Op::AtLeast => order.is_ge(),
        _ => false,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
