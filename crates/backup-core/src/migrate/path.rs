//! A way through the migrations, and what is done on it.

use std::{fmt, sync::Arc};

use serde::Serialize;

use super::{
    MigrationInfo,
    change::{Action, Change},
    registry::Step,
};
use crate::{
    error::{Error, Result},
    manifest::FieldMapping,
    part::Schema,
    record::{Edit, RecordBatch, RecordRef, canonical},
};

/// Migrations one after the other, each forward or each back.
///
/// Cloning is cheap. Schemas and batches may go through in any order and on any thread, a
/// collection's schema first.
#[derive(Clone)]
pub struct MigrationPath {
    steps: Arc<[Arc<Step>]>,
    reverse: bool,
}

impl MigrationPath {
    pub(super) fn new(mut steps: Vec<Arc<Step>>, reverse: bool) -> Self {
        steps.shrink_to_fit();
        Self { steps: steps.into(), reverse }
    }

    /// The migrations, as they are gone.
    #[must_use]
    pub fn steps(&self) -> Vec<MigrationInfo> {
        self.steps.iter().map(|step| step.info(self.reverse)).collect()
    }

    /// Whether it leads to an earlier version.
    #[must_use]
    pub fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// Whether anything of a store may change.
    #[must_use]
    pub fn touches(&self, store: &str) -> bool {
        self.changes().any(|(_, change)| change.store == store)
    }

    /// The name that a collection has afterwards, as far as it is known without its schema;
    /// `None` where it is left out.
    #[must_use]
    pub fn collection(&self, store: &str, name: &str) -> Option<String> {
        let mut name = name.to_owned();
        for (_, change) in self.changes().filter(|(_, change)| change.store == store) {
            match &change.action {
                _ if !change.concerns(store, &name) => {}
                Action::RenameCollection { to } => name.clone_from(to),
                Action::DropCollection => return None,
                _ => {}
            }
        }
        Some(name)
    }

    /// Where a collection's well-known fields are afterwards.
    #[must_use]
    pub fn fields(&self, store: &str, collection: &str, mut fields: FieldMapping) -> FieldMapping {
        let mut name = collection.to_owned();
        for (_, change) in self.changes() {
            if change.concerns(store, &name) {
                change.apply_fields(&mut fields);
                if let Action::RenameCollection { to } = &change.action {
                    name.clone_from(to);
                }
            }
        }
        fields
    }

    /// Changes the schema of a collection; `None` leaves the collection out, with its records.
    ///
    /// # Errors
    /// A schema that a migration does not expect.
    pub fn schema(&self, store: &str, mut schema: Schema) -> Result<Option<Schema>> {
        for (step, change) in self.changes() {
            if change.concerns(store, &schema.collection) {
                let collection = schema.collection.clone();
                let changed = change.apply_schema(schema);
                match changed.map_err(|e| self.failed(e, step, &collection))? {
                    Some(changed) => schema = changed,
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(schema))
    }

    /// Changes a batch of records.
    ///
    /// # Errors
    /// A record that a migration cannot change, named.
    pub fn batch(&self, store: &str, mut batch: RecordBatch) -> Result<RecordBatch> {
        // Changes of values wait for one another, so that each record is parsed once.
        let mut waiting = Vec::new();
        for (step, change) in self.changes() {
            if !change.concerns(store, batch.collection()) {
                continue;
            }
            match &change.action {
                _ if change.is_of_values() => waiting.push((step, change)),
                Action::RenameCollection { to } => batch = batch.in_collection(to),
                Action::DropCollection => return batch.rows(&[]),
                Action::Transform { code, .. } => {
                    batch = self.edit(batch, &waiting)?;
                    waiting.clear();
                    let name = batch.collection().to_owned();
                    batch = code.batch(batch).map_err(|e| self.failed(e, step, &name))?;
                }
                _ => {}
            }
        }
        self.edit(batch, &waiting)
    }

    fn edit(&self, batch: RecordBatch, changes: &[(&Step, &Change)]) -> Result<RecordBatch> {
        if changes.is_empty() {
            return Ok(batch);
        }
        let collection = batch.collection().to_owned();
        batch.edit(|record: RecordRef<'_>| {
            // Elements of a large record have values of another kind.
            if record.element_json().is_some() {
                return Ok(Edit::Keep);
            }
            let mut value = canonical::parse(record.value_json().as_bytes())?;
            let mut changed = false;
            for (step, change) in changes {
                changed |= change.apply_value(&mut value).map_err(|e| {
                    let place = format!("{collection}, record {}", record.key_json());
                    self.failed(e, step, &place)
                })?;
            }
            let value = Some(value);
            Ok(if changed { Edit::Change { key: None, value } } else { Edit::Keep })
        })
    }

    fn changes(&self) -> impl Iterator<Item = (&Step, &Change)> {
        let changes = |step| Step::changes(step, self.reverse).iter().map(move |c| (step, c));
        self.steps.iter().map(AsRef::as_ref).flat_map(changes)
    }

    fn failed(&self, error: Error, step: &Step, place: &str) -> Error {
        let info = step.info(self.reverse);
        error.on(format!("{place}, in the migration from {} to {}", info.from, info.to))
    }
}

impl Serialize for MigrationPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.steps())
    }
}

impl fmt::Display for MigrationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps().iter().enumerate() {
            if i == 0 {
                f.write_str(&step.from)?;
            }
            write!(f, " → {}", step.to)?;
        }
        Ok(())
    }
}

impl fmt::Debug for MigrationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MigrationPath({self})")
    }
}
