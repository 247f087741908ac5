//! Batches made of the records of other batches.

use serde_json::Value;

use super::{BatchBuilder, Key, RecordBatch, RecordRef, VectorColumn, VectorShape};
use crate::error::Result;

/// What becomes of one record in [`RecordBatch::edit`].
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// It stays as it is.
    Keep,
    /// It is left out, its vectors too.
    Drop,
    /// It gets another key or value; `None` keeps what it has. Its vectors stay.
    Change {
        /// The new key.
        key: Option<Key>,
        /// The new value.
        value: Option<Value>,
    },
}

impl RecordBatch {
    /// The records for which `decide` says so, as it says; vectors go with their records.
    ///
    /// Where everything is kept this costs nothing.
    ///
    /// ```
    /// use backup_core::record::{BatchBuilder, Edit, Key};
    /// use serde_json::json;
    ///
    /// let mut builder = BatchBuilder::new("notes");
    /// builder.push_json(&Key::from(1), br#"{"title":"a"}"#)?;
    /// builder.push_json(&Key::from(2), br#"{"title":"b"}"#)?;
    /// let edited = builder.finish()?.edit(|record| {
    ///     Ok(match record.key_json() {
    ///         "1" => Edit::Drop,
    ///         _ => Edit::Change { key: None, value: Some(json!({"name": "b"})) },
    ///     })
    /// })?;
    /// assert_eq!(&edited.text()[..], b"{\"key\":2,\"value\":{\"name\":\"b\"}}\n");
    /// # Ok::<(), backup_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// What `decide` returns; a value that canonical JSON cannot hold or a line cannot take.
    pub fn edit(&self, decide: impl FnMut(RecordRef<'_>) -> Result<Edit>) -> Result<Self> {
        let edits = self.iter().map(decide).collect::<Result<Vec<_>>>()?;
        if edits.iter().all(|edit| *edit == Edit::Keep) {
            return Ok(self.clone());
        }
        let mut builder = BatchBuilder::new(self.collection());
        let mut rows = Vec::with_capacity(self.len());
        for (record, edit) in self.iter().zip(edits) {
            let (key, value) = match edit {
                Edit::Drop => continue,
                Edit::Keep => (None, None),
                Edit::Change { key, value } => (key, value),
            };
            builder.push_again(record, key, value.as_ref())?;
            rows.push(record.row());
        }
        builder.finish()?.with_columns(self.columns_at(&rows)?)
    }

    /// The records of these numbers, in this order, with their vectors.
    ///
    /// # Panics
    /// Where a number is not less than [`len`](Self::len).
    ///
    /// # Errors
    /// None for a batch that was built or read.
    pub fn rows(&self, rows: &[usize]) -> Result<Self> {
        if rows.iter().copied().eq(0..self.len()) {
            return Ok(self.clone());
        }
        let mut builder = BatchBuilder::new(self.collection());
        for row in rows {
            builder.push_again(self.get(*row), None, None)?;
        }
        builder.finish()?.with_columns(self.columns_at(rows)?)
    }

    /// The same records under another collection's name.
    #[must_use]
    pub fn in_collection(mut self, name: impl Into<String>) -> Self {
        self.collection = name.into();
        self
    }

    /// The same records without the vectors of a name, if they have any.
    #[must_use]
    pub fn without_column(mut self, name: &str) -> Self {
        self.columns.retain(|column| column.name() != name);
        self
    }

    /// The same records with these vectors, in the place of those of the same name.
    ///
    /// # Errors
    /// A column with another number of rows.
    pub fn with_column(self, column: VectorColumn) -> Result<Self> {
        let mut batch = self.without_column(column.name()).with_columns(vec![column])?;
        batch.columns.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(batch)
    }

    fn columns_at(&self, rows: &[usize]) -> Result<Vec<VectorColumn>> {
        self.columns().iter().map(|column| column.at(rows)).collect()
    }
}

impl BatchBuilder {
    // A record of another batch, perhaps with another key or value, without its vectors.
    fn push_again(
        &mut self,
        record: RecordRef<'_>,
        key: Option<Key>,
        value: Option<&Value>,
    ) -> Result<()> {
        let key = key.unwrap_or_else(|| record.key());
        let element = record.element_json().map(Key::from_canonical);
        self.line(element.as_ref(), &key, |json| match value {
            Some(value) => json.value(value),
            None => {
                json.canonical_text(record.value_json());
                Ok(())
            }
        })
    }
}

impl VectorColumn {
    // The vectors of these records, in this order.
    fn at(&self, rows: &[usize]) -> Result<Self> {
        let mut data = Vec::new();
        let mut indices = Vec::new();
        let mut offsets = vec![0];
        let unit = self.element().size();
        for row in rows {
            data.extend_from_slice(self.row_bytes(*row));
            indices.extend_from_slice(self.sparse_indices(*row));
            let elements = data.len() / unit;
            offsets.push(match self.shape() {
                VectorShape::Multi { dim, .. } => elements / (*dim).max(1),
                _ => elements,
            } as u64);
        }
        let shape = match self.shape() {
            VectorShape::Dense { dim } => VectorShape::Dense { dim: *dim },
            VectorShape::Multi { dim, .. } => VectorShape::Multi { dim: *dim, offsets },
            VectorShape::Sparse { .. } => VectorShape::Sparse { offsets, indices },
        };
        let present = rows.iter().map(|row| self.is_present(*row)).collect();
        Self::from_arrays(
            self.name(),
            self.element(),
            shape,
            data.into(),
            Some(present),
            rows.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::ElementType;

    fn sample() -> RecordBatch {
        let mut builder = BatchBuilder::new("c");
        let dense = builder.dense("d", ElementType::U8, 2);
        let multi = builder.multi("m", ElementType::U8, 1);
        let sparse = builder.sparse("s", ElementType::U8);
        for row in 0..4_u8 {
            builder.push_json(&Key::from(i32::from(row)), b"{}").unwrap();
            if row != 1 {
                builder.set(dense, &[row, row]).unwrap();
                builder.set(multi, &vec![row; row.into()]).unwrap();
                builder.set_sparse(sparse, &[7, u32::from(row) + 9], &[1, row]).unwrap();
            }
        }
        builder.push_element(&Key::from(9), &Key::from("e"), |json| json.value(&json!(1))).unwrap();
        builder.finish().unwrap()
    }

    #[test]
    fn vectors_go_with_their_records() {
        let batch = sample();
        let picked = batch.rows(&[3, 1, 4]).unwrap();
        let lines: Vec<_> = picked.iter().map(|record| record.line().to_owned()).collect();
        assert_eq!(
            lines,
            [
                r#"{"key":3,"value":{}}"#,
                r#"{"key":1,"value":{}}"#,
                r#"{"element":"e","key":9,"value":1}"#
            ]
        );
        for column in picked.columns() {
            let was = batch.column(column.name()).unwrap();
            for (new, old) in [(0, 3), (1, 1), (2, 4)] {
                assert_eq!(column.is_present(new), was.is_present(old));
                assert_eq!(column.row_bytes(new), was.row_bytes(old));
                assert_eq!(column.sparse_indices(new), was.sparse_indices(old));
            }
        }
    }

    #[test]
    fn a_column_is_replaced_and_taken_out() {
        let batch = sample();
        let shape = || VectorShape::Dense { dim: 1 };
        let column = |name: &str, rows: u8| {
            let data = (0..rows).collect::<Vec<_>>().into();
            VectorColumn::from_arrays(name, ElementType::U8, shape(), data, None, rows.into())
        };
        let names = |batch: &RecordBatch| {
            batch.columns().iter().map(|c| c.name().to_owned()).collect::<Vec<_>>()
        };
        let replaced = batch.clone().with_column(column("d", 5).unwrap()).unwrap();
        assert_eq!(names(&replaced), ["d", "m", "s"]);
        assert_eq!(replaced.column("d").unwrap().row_bytes(1), [1]);
        let more = replaced.with_column(column("a", 5).unwrap()).unwrap();
        assert_eq!(names(&more), ["a", "d", "m", "s"]);
        assert_eq!(names(&more.without_column("d").without_column("x")), ["a", "m", "s"]);
        assert!(batch.with_column(column("d", 4).unwrap()).is_err());
    }

    #[test]
    fn records_are_kept_changed_and_dropped() {
        let batch = sample();
        let same = batch.edit(|_| Ok(Edit::Keep)).unwrap();
        assert_eq!(same.text().as_ptr(), batch.text().as_ptr());
        let edited = batch
            .edit(|record| {
                Ok(match record.row() {
                    0 => Edit::Keep,
                    2 => Edit::Change { key: Some("k".into()), value: None },
                    4 => Edit::Change { key: None, value: Some(json!({"b": 1.5, "a": null})) },
                    _ => Edit::Drop,
                })
            })
            .unwrap();
        assert_eq!(
            std::str::from_utf8(edited.text()).unwrap(),
            "{\"key\":0,\"value\":{}}\n{\"key\":\"k\",\"value\":{}}\n\
             {\"element\":\"e\",\"key\":9,\"value\":{\"a\":null,\"b\":1.5}}\n"
        );
        assert_eq!(edited.column("d").unwrap().row_bytes(1), [2, 2]);
        assert!(!edited.column("d").unwrap().is_present(2));
        let none = batch.edit(|_| Ok(Edit::Drop)).unwrap();
        assert!(none.is_empty() && none.columns().iter().all(|column| column.rows() == 0));
    }
}
