//! One change of a migration.

use std::{fmt, sync::Arc};

use serde_json::{Value, json};

use super::pointer::Pointer;
use crate::{
    error::{Error, ErrorKind, Result},
    manifest::FieldMapping,
    part::Schema,
    record::RecordBatch,
};

/// What a migration does to one collection of one store.
///
/// Fields are named by JSON pointers (RFC 6901) into a record's value; they lead through objects
/// only. Elements of large records stay as they are, and so do keys and vectors: a
/// [`Transform`] reaches everything.
///
/// A change that has an inverse makes a way back: [`rename`](Self::rename),
/// [`set_default`](Self::set_default), [`rename_collection`](Self::rename_collection) and
/// [`set_schema`](Self::set_schema) have one of their own; to any other
/// [`undone_by`](Self::undone_by) gives one.
#[derive(Clone)]
pub struct Change {
    pub(super) store: String,
    // `None`: all collections of the store.
    pub(super) collection: Option<String>,
    pub(super) action: Action,
    back: Option<Box<Change>>,
}

type EditValue = Arc<dyn Fn(&mut Value) -> Result<()> + Send + Sync>;
type EditSchema = Arc<dyn Fn(&mut Schema) -> Result<()> + Send + Sync>;

#[derive(Clone)]
pub(super) enum Action {
    Rename { from: Pointer, to: Pointer },
    Default { at: Pointer, value: Value },
    Remove { at: Pointer },
    RenameCollection { to: String },
    DropCollection,
    SetSchema { at: Pointer, from: Value, to: Value },
    Schema { name: String, edit: EditSchema },
    Values { name: String, edit: EditValue },
    Transform { name: String, code: Arc<dyn Transform> },
}

/// A change in the host's own code, of everything in a store.
///
/// It is called from several threads, for batches in any order. The pipeline computes what the
/// restored store has to hold from what this returns.
pub trait Transform: Send + Sync {
    /// Changes a collection's schema; `None` leaves the collection out.
    ///
    /// # Errors
    /// A schema that it cannot change: the restore ends, with the live stores untouched.
    fn schema(&self, schema: Schema) -> Result<Option<Schema>> {
        Ok(Some(schema))
    }

    /// Changes a batch of records of one collection, which has its new name if the schema got
    /// one.
    ///
    /// # Errors
    /// Records that it cannot change: the restore ends, with the live stores untouched.
    fn batch(&self, batch: RecordBatch) -> Result<RecordBatch> {
        Ok(batch)
    }
}

impl Change {
    fn new(store: &str, collection: Option<&str>, action: Action) -> Self {
        let collection = collection.map(str::to_owned);
        Self { store: store.to_owned(), collection, action, back: None }
    }

    /// Moves a field to another place. A record without it stays as it is, one that has a field
    /// there already is an error. Objects are made on the way where they are missing, and go
    /// when they become empty. The collection's field mapping follows.
    #[must_use]
    pub fn rename(store: &str, collection: &str, from: &str, to: &str) -> Self {
        let action = Action::Rename { from: Pointer::new(from), to: Pointer::new(to) };
        Self::new(store, Some(collection), action)
    }

    /// Adds a field to every record that does not have it. The way back removes the field,
    /// whatever it holds.
    #[must_use]
    pub fn set_default(store: &str, collection: &str, at: &str, value: Value) -> Self {
        Self::new(store, Some(collection), Action::Default { at: Pointer::new(at), value })
    }

    /// Removes a field, and objects on the way to it that become empty.
    #[must_use]
    pub fn remove(store: &str, collection: &str, at: &str) -> Self {
        Self::new(store, Some(collection), Action::Remove { at: Pointer::new(at) })
    }

    /// Gives a collection another name. What the schema document says of it stays: see
    /// [`set_schema`](Self::set_schema).
    #[must_use]
    pub fn rename_collection(store: &str, collection: &str, to: &str) -> Self {
        Self::new(store, Some(collection), Action::RenameCollection { to: to.to_owned() })
    }

    /// Leaves a collection out.
    #[must_use]
    pub fn drop_collection(store: &str, collection: &str) -> Self {
        Self::new(store, Some(collection), Action::DropCollection)
    }

    /// Replaces one member of the schema document, for example the statement that makes a
    /// table. Where the document has anything but `from` there, the restore ends.
    #[must_use]
    pub fn set_schema(store: &str, collection: &str, at: &str, from: Value, to: Value) -> Self {
        Self::new(store, Some(collection), Action::SetSchema { at: Pointer::new(at), from, to })
    }

    /// Changes the schema in the host's own code. `name` stands for the code in the migration's
    /// checksum: another name, another code.
    #[must_use]
    pub fn schema(
        store: &str,
        collection: &str,
        name: &str,
        edit: impl Fn(&mut Schema) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let action = Action::Schema { name: name.to_owned(), edit: Arc::new(edit) };
        Self::new(store, Some(collection), action)
    }

    /// Changes each record's value in the host's own code; `name` as in
    /// [`schema`](Self::schema).
    #[must_use]
    pub fn values(
        store: &str,
        collection: &str,
        name: &str,
        edit: impl Fn(&mut Value) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let action = Action::Values { name: name.to_owned(), edit: Arc::new(edit) };
        Self::new(store, Some(collection), action)
    }

    /// Changes anything in a store in the host's own code; `name` as in
    /// [`schema`](Self::schema).
    #[must_use]
    pub fn transform(store: &str, name: &str, code: impl Transform + 'static) -> Self {
        Self::new(store, None, Action::Transform { name: name.to_owned(), code: Arc::new(code) })
    }

    /// Says what undoes this change.
    #[must_use]
    pub fn undone_by(mut self, back: Change) -> Self {
        self.back = Some(Box::new(back));
        self
    }

    /// What undoes it, if anything does.
    pub(super) fn inverse(&self) -> Option<Self> {
        if let Some(back) = &self.back {
            return Some(Self::clone(back));
        }
        let mut inverse = self.clone();
        inverse.action = match &self.action {
            Action::Rename { from, to } => Action::Rename { from: to.clone(), to: from.clone() },
            Action::Default { at, .. } => Action::Remove { at: at.clone() },
            Action::RenameCollection { to } => {
                let before = inverse.collection.replace(to.clone())?;
                Action::RenameCollection { to: before }
            }
            Action::SetSchema { at, from, to } => {
                Action::SetSchema { at: at.clone(), from: to.clone(), to: from.clone() }
            }
            _ => return None,
        };
        Some(inverse)
    }

    /// What is lost on a way on which this change stands in for the one that it undoes.
    pub(super) fn loss(&self) -> Option<String> {
        match &self.action {
            Action::Remove { .. } | Action::DropCollection => Some(self.to_string()),
            _ => None,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: &str| {
            Err(Error::new(ErrorKind::InvalidInput, what.to_owned()).on(self.to_string()))
        };
        if self.store.is_empty() || self.collection.as_deref() == Some("") {
            return wrong("a change names no store or no collection");
        }
        let pointers: &[&Pointer] = match &self.action {
            Action::Rename { from, to } if from == to => {
                return wrong("a field is renamed to itself");
            }
            Action::Rename { from, to } => &[from, to],
            Action::Default { at, .. } | Action::Remove { at } | Action::SetSchema { at, .. } => {
                &[at]
            }
            Action::RenameCollection { to } if to.is_empty() => {
                return wrong("a collection gets an empty name");
            }
            Action::RenameCollection { to } if self.collection.as_ref() == Some(to) => {
                return wrong("a collection is renamed to itself");
            }
            Action::Schema { name, .. }
            | Action::Values { name, .. }
            | Action::Transform { name, .. }
                if name.is_empty() =>
            {
                return wrong("the code of a change has no name");
            }
            _ => &[],
        };
        pointers.iter().try_for_each(|pointer| pointer.check())?;
        self.back.as_ref().map_or(Ok(()), |back| back.check())
    }

    pub(super) fn concerns(&self, store: &str, collection: &str) -> bool {
        let meant = self.collection.as_deref();
        self.store == store && meant.is_none_or(|meant| meant == collection)
    }

    /// Changes a schema; `None` leaves the collection out.
    pub(super) fn apply_schema(&self, mut schema: Schema) -> Result<Option<Schema>> {
        match &self.action {
            Action::RenameCollection { to } => schema.collection.clone_from(to),
            Action::DropCollection => return Ok(None),
            Action::SetSchema { at, from, to } => {
                let found = at.get(&schema.document);
                if found != Some(from) {
                    let what = "the schema is not the one that the migration expects";
                    return Err(Error::new(ErrorKind::Incompatible, what).on(at.as_str()));
                }
                at.put(&mut schema.document, to.clone())?;
            }
            Action::Schema { edit, .. } => edit(&mut schema)?,
            Action::Transform { code, .. } => return code.schema(schema),
            _ => self.apply_fields(&mut schema.info.fields),
        }
        Ok(Some(schema))
    }

    /// Says where the well-known fields are afterwards.
    pub(super) fn apply_fields(&self, fields: &mut FieldMapping) {
        let named = [
            &mut fields.project,
            &mut fields.category,
            &mut fields.tags,
            &mut fields.created_at,
            &mut fields.updated_at,
            &mut fields.title,
            &mut fields.content,
            &mut fields.model,
        ];
        for field in named {
            *field = field.take().and_then(|place| self.moved(place));
        }
        fields.other = std::mem::take(&mut fields.other)
            .into_iter()
            .filter_map(|(name, place)| Some((name, self.moved(place)?)))
            .collect();
    }

    fn moved(&self, place: String) -> Option<String> {
        match &self.action {
            Action::Rename { from, to } => match from.below(&place) {
                Some(rest) => Some(format!("{}{rest}", to.as_str())),
                None => Some(place),
            },
            Action::Remove { at } if at.below(&place).is_some() => None,
            _ => Some(place),
        }
    }

    /// Whether it changes values of records, one by one.
    pub(super) fn is_of_values(&self) -> bool {
        use Action::{Default, Remove, Rename, Values};
        matches!(self.action, Rename { .. } | Default { .. } | Remove { .. } | Values { .. })
    }

    /// Changes a record's value; whether it did.
    pub(super) fn apply_value(&self, value: &mut Value) -> Result<bool> {
        match &self.action {
            Action::Rename { from, to } => {
                let Some(field) = from.take(value) else { return Ok(false) };
                if to.get(value).is_some() {
                    let what = "the record has a field of the new name already";
                    return Err(Error::new(ErrorKind::Incompatible, what).on(to.as_str()));
                }
                to.put(value, field)?;
            }
            Action::Default { at, value: default } => {
                if at.get(value).is_some() {
                    return Ok(false);
                }
                at.put(value, default.clone())?;
            }
            Action::Remove { at } => return Ok(at.take(value).is_some()),
            Action::Values { edit, .. } => edit(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What the checksum of a migration is taken over.
    pub(super) fn canonical(&self) -> Value {
        let action = match &self.action {
            Action::Rename { from, to } => {
                json!({"rename": {"from": from.as_str(), "to": to.as_str()}})
            }
            Action::Default { at, value } => {
                json!({"default": {"at": at.as_str(), "value": value}})
            }
            Action::Remove { at } => json!({"remove": {"at": at.as_str()}}),
            Action::RenameCollection { to } => json!({"rename-collection": {"to": to}}),
            Action::DropCollection => json!({"drop-collection": {}}),
            Action::SetSchema { at, from, to } => {
                json!({"set-schema": {"at": at.as_str(), "from": from, "to": to}})
            }
            Action::Schema { name, .. } => json!({"schema": {"code": name}}),
            Action::Values { name, .. } => json!({"values": {"code": name}}),
            Action::Transform { name, .. } => json!({"transform": {"code": name}}),
        };
        json!({
            "store": self.store,
            "collection": self.collection,
            "action": action,
            "undone-by": self.back.as_ref().map(|back| back.canonical()),
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)?;
        if let Some(collection) = &self.collection {
            write!(f, "/{collection}")?;
        }
        match &self.action {
            Action::Rename { from, to } => write!(f, ": {} becomes {}", from.as_str(), to.as_str()),
            Action::Default { at, value } => {
                write!(f, ": {} is {value} where there is none", at.as_str())
            }
            Action::Remove { at } => write!(f, ": {} goes", at.as_str()),
            Action::RenameCollection { to } => write!(f, " becomes {}/{to}", self.store),
            Action::DropCollection => write!(f, " goes"),
            Action::SetSchema { at, .. } => write!(f, ": {} of the schema changes", at.as_str()),
            Action::Schema { name, .. } => write!(f, ": the schema changes by {name}"),
            Action::Values { name, .. } => write!(f, ": values change by {name}"),
            Action::Transform { name, .. } => write!(f, ": changes by {name}"),
        }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Change({self})")
    }
}
