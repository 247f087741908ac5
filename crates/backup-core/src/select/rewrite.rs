//! Records with other values in them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    condition::{Field, Kind},
    filter::look_into,
    text, value,
};
use crate::{
    error::{Error, ErrorKind, Result},
    manifest::FieldMapping,
    record::{Edit, RecordBatch, RecordRef},
};

/// Changes of values in records: another project, another host in every URL field.
///
/// Several changes of one field are alternatives: of a value, the first that fits is made, so two
/// names can be exchanged; what is [set](Self::set) is set where none fits. A collection that does
/// not map the field of a change is not changed by it; [`Rewriter::changes`] tells.
///
/// ```
/// use backup_core::{Rewrite, manifest::FieldMapping, record::{BatchBuilder, Key}};
///
/// let mut builder = BatchBuilder::new("notes");
/// builder.push_json(&Key::from(1), br#"{"project":"alpha"}"#)?;
/// let mut fields = FieldMapping::default();
/// fields.project = Some("/project".into());
///
/// let rewrite = Rewrite::new().rename_project("alpha", "beta");
/// let rewritten = rewrite.rewriter("state", "notes", &fields)?.batch(&builder.finish()?)?;
/// assert_eq!(rewritten.get(0).value_json(), r#"{"project":"beta"}"#);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rewrite {
    changes: Vec<Change>,
}

/// One change of a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    field: Field,
    // Only where it is this; `None`: always, also where there is nothing.
    #[serde(default, with = "some", skip_serializing_if = "Option::is_none")]
    from: Option<Value>,
    to: Value,
}

// A `null` that is there is a value.
mod some {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(
        value: &Option<Value>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Value>, D::Error> {
        Value::deserialize(from).map(Some)
    }
}

impl Rewrite {
    /// Nothing is changed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records of the project `old` become records of `new`. Where a record has a list of
    /// projects, the item is changed; where it has a number, `new` has to be one too.
    #[must_use]
    pub fn rename_project(mut self, old: impl Into<String>, new: impl Into<String>) -> Self {
        let (from, to) = (Some(old.into().into()), new.into().into());
        self.changes.push(Change { field: Field::project(), from, to });
        self
    }

    /// Adds [renamings](Self::rename_project) of projects written as `old=new`; a name with other
    /// characters than letters, digits, `_`, `-` and `.` stands in double quotes.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for text of another form.
    pub fn parse_projects<S: AsRef<str>>(
        self,
        renamings: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        renamings.into_iter().try_fold(self, |rewrite, renaming| {
            match text::renaming(renaming.as_ref())? {
                ((old, None), new) => Ok(rewrite.rename_project(old, new)),
                _ => Err(Error::new(ErrorKind::InvalidInput, "a project is named without a store")
                    .on(renaming.as_ref())
                    .advise("put a name that has a / in double quotes")),
            }
        })
    }

    /// Puts `to` where the field is `from`; see [`Field::new`] for how a field is named.
    ///
    /// # Errors
    /// As [`Field::new`].
    pub fn replace(
        mut self,
        field: &str,
        from: impl Into<Value>,
        to: impl Into<Value>,
    ) -> Result<Self> {
        let (from, to) = (Some(from.into()), to.into());
        self.changes.push(Change { field: Field::new(field)?, from, to });
        Ok(self)
    }

    /// Puts `to` into the field of every record; objects on the way to it that are not there are
    /// made.
    ///
    /// # Errors
    /// As [`Field::new`].
    pub fn set(mut self, field: &str, to: impl Into<Value>) -> Result<Self> {
        self.changes.push(Change { field: Field::new(field)?, from: None, to: to.into() });
        Ok(self)
    }

    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes, in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What is changed in one collection, ready to be done.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a field that is mapped to something that is no
    /// JSON pointer.
    pub fn rewriter(
        &self,
        store: &str,
        collection: &str,
        fields: &FieldMapping,
    ) -> Result<Rewriter> {
        let place = format!("{store}/{collection}");
        let mut steps: Vec<Step> = Vec::new();
        for Change { field, from, to } in &self.changes {
            let Some(pointer) = field.pointer(fields) else { continue };
            let at = match steps.iter().position(|step| step.field == *field) {
                Some(at) => at,
                None => {
                    let path = path(pointer).ok_or_else(|| {
                        let what = "a field is mapped to something that is not a JSON pointer";
                        Error::new(ErrorKind::InvalidInput, what)
                            .on(format!("{} = {pointer:?}", field.as_str()))
                            .on(&place)
                            .advise("begin it with /")
                    })?;
                    let (field, pointer) = (field.clone(), pointer.to_owned());
                    steps.push(Step { field, pointer, path, replace: Vec::new(), set: None });
                    steps.len() - 1
                }
            };
            match from {
                Some(from) => steps[at].replace.push((from.clone(), to.clone())),
                None => steps[at].set = Some(to.clone()),
            }
        }
        Ok(Rewriter { place, steps })
    }
}

impl Change {
    /// The field that is changed.
    #[must_use]
    pub fn field(&self) -> &Field {
        &self.field
    }
}

/// A [`Rewrite`] for the records of one collection.
#[derive(Debug, Clone)]
pub struct Rewriter {
    place: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    field: Field,
    pointer: String,
    path: Vec<String>,
    replace: Vec<(Value, Value)>,
    set: Option<Value>,
}

impl Rewriter {
    /// Whether it can change anything: the collection has one of the fields.
    #[must_use]
    pub fn changes(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The records of a batch as they become; vectors stay with them.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for elements of large records;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a text that would come where a number is, or a
    /// member that would come where there is no object.
    pub fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if self.steps.is_empty() {
            return Ok(batch.clone());
        }
        batch.edit(|record| {
            let mut value = look_into(record).map_err(|error| error.on(&self.place))?;
            let mut changed = false;
            for step in &self.steps {
                changed |= step.run(&mut value).map_err(|error| self.name(error, step, record))?;
            }
            Ok(if changed { Edit::Change { key: None, value: Some(value) } } else { Edit::Keep })
        })
    }

    fn name(&self, error: Error, step: &Step, record: RecordRef<'_>) -> Error {
        error.on(&step.pointer).on(format!("{}, record {}", self.place, record.key_json()))
    }
}

impl Step {
    fn run(&self, value: &mut Value) -> Result<bool> {
        let replaced = match (value.pointer_mut(&self.pointer), self.field.kind()) {
            (None, _) => false,
            (Some(place), Kind::Label | Kind::Tags) => relabel(place, &self.replace)?,
            (Some(place), _) => {
                let fits = self.replace.iter().find(|(from, _)| value::equal(place, from));
                fits.inspect(|(_, to)| place.clone_from(to)).is_some()
            }
        };
        match &self.set {
            Some(to) if !replaced && value.pointer(&self.pointer) != Some(to) => {
                make(value, &self.path)?.clone_from(to);
                Ok(true)
            }
            _ => Ok(replaced),
        }
    }
}

fn relabel(place: &mut Value, replace: &[(Value, Value)]) -> Result<bool> {
    if let Value::Array(items) = place {
        return items.iter_mut().try_fold(false, |any, item| Ok(relabel(item, replace)? || any));
    }
    let Some(found) = value::label(place) else { return Ok(false) };
    let fits = replace.iter().find(|(from, _)| value::label(from).as_ref() == Some(&found));
    let Some((_, to)) = fits else { return Ok(false) };
    if !place.is_string() && to.is_string() {
        // A number stays one, as the store's column may have to hold numbers.
        *place = match to.as_str().map(serde_json::from_str) {
            Some(Ok(Value::Number(number))) => number.into(),
            _ => {
                let what = "there is a number, and it would become a text";
                return Err(Error::new(ErrorKind::InvalidInput, what)
                    .advise("give a number as the new value"));
            }
        };
    } else {
        place.clone_from(to);
    }
    Ok(true)
}

// The names on the way, without the escapes of a pointer.
fn path(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let names = pointer.strip_prefix('/')?.split('/');
    Some(names.map(|name| name.replace("~1", "/").replace("~0", "~")).collect())
}

// The place that a path leads to; objects that are not there are made.
fn make<'v>(value: &'v mut Value, path: &[String]) -> Result<&'v mut Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Object(members) => {
            Ok(members.entry(name.as_str()).or_insert_with(|| Value::Object(Default::default())))
        }
        Value::Array(items) => {
            let place = name.parse::<usize>().ok().and_then(|at| items.get_mut(at));
            place.ok_or_else(|| nowhere("a list has no such item"))
        }
        _ => Err(nowhere("there is a value where an object would have to be")),
    })
}

fn nowhere(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, what.to_owned())
        .advise("set another field, or take these records out of the selection")
}
