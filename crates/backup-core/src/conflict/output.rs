//! Records whose vectors come from two batches.

use std::collections::HashMap;

use serde_json::Value;

use crate::{
    error::Result,
    record::{
        BatchBuilder, ColumnId, ElementType, RecordBatch, RecordRef, VectorColumn, VectorShape,
    },
};

/// Builds batches of merged records: vectors of unlike form make several.
#[derive(Debug, Default)]
pub(super) struct Output {
    open: Vec<Open>,
    full: Vec<RecordBatch>,
}

#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    columns: HashMap<String, (Form, ColumnId)>,
}

// Vectors of one form can stand in one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    element: ElementType,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dense(usize),
    Multi(usize),
    Sparse,
}

impl Form {
    fn of(column: &VectorColumn) -> Self {
        let kind = match column.shape() {
            VectorShape::Dense { dim } => Kind::Dense(*dim),
            VectorShape::Multi { dim, .. } => Kind::Multi(*dim),
            VectorShape::Sparse { .. } => Kind::Sparse,
        };
        Self { element: column.element(), kind }
    }
}

impl Output {
    /// Adds a record with the key of both, this value, the archive's vectors, and those of the
    /// live record that the archive has not.
    pub(super) fn push(
        &mut self,
        archived: RecordRef<'_>,
        live: RecordRef<'_>,
        value: &Value,
    ) -> Result<()> {
        let theirs = archived.vectors().map(|column| (column, archived.row()));
        let ours = live
            .vectors()
            .filter(|column| vector(archived, column.name()).is_none())
            .map(|column| (column, live.row()));
        let vectors: Vec<_> = theirs.chain(ours).collect();
        let place = self.place(archived.collection(), &vectors);
        let Open { builder, columns } = &mut self.open[place];
        builder.push(&archived.key(), |json| json.value(value))?;
        for (column, row) in vectors {
            let form = Form::of(column);
            let (_, id) = *columns
                .entry(column.name().to_owned())
                .or_insert_with(|| (form, declare(builder, column.name(), form)));
            builder.set_sparse(id, column.sparse_indices(row), column.row_bytes(row))?;
        }
        if builder.is_full() {
            self.full.push(self.open.swap_remove(place).builder.finish()?);
        }
        Ok(())
    }

    // A batch whose columns can take these vectors.
    fn place(&mut self, collection: &str, vectors: &[(&VectorColumn, usize)]) -> usize {
        let fits = |open: &Open| {
            vectors.iter().all(|(column, _)| {
                let there = open.columns.get(column.name());
                there.is_none_or(|(form, _)| *form == Form::of(column))
            })
        };
        self.open.iter().position(fits).unwrap_or_else(|| {
            let builder = BatchBuilder::new(collection);
            self.open.push(Open { builder, columns: HashMap::new() });
            self.open.len() - 1
        })
    }

    pub(super) fn finish(self) -> Result<Vec<RecordBatch>> {
        let open = self.open.into_iter().map(|open| open.builder.finish());
        self.full.into_iter().map(Ok).chain(open).collect()
    }
}

fn declare(builder: &mut BatchBuilder, name: &str, form: Form) -> ColumnId {
    match form.kind {
        Kind::Dense(dim) => builder.dense(name, form.element, dim),
        Kind::Multi(dim) => builder.multi(name, form.element, dim),
        Kind::Sparse => builder.sparse(name, form.element),
    }
}

fn vector<'a>(record: RecordRef<'a>, name: &str) -> Option<&'a VectorColumn> {
    record.vectors().find(|column| column.name() == name)
}

/// Whether both records have the same vectors.
pub(super) fn same_vectors(a: RecordRef<'_>, b: RecordRef<'_>) -> bool {
    a.vectors().count() == b.vectors().count() && has_vectors_of(b, a)
}

/// Whether `record` has every vector that `other` has.
pub(super) fn has_vectors_of(record: RecordRef<'_>, other: RecordRef<'_>) -> bool {
    other.vectors().all(|theirs| {
        vector(record, theirs.name()).is_some_and(|ours| {
            Form::of(ours) == Form::of(theirs)
                && ours.row_bytes(record.row()) == theirs.row_bytes(other.row())
                && ours.sparse_indices(record.row()) == theirs.sparse_indices(other.row())
        })
    })
}
