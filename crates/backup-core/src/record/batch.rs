//! A batch of records: lines of unparsed JSON, and vectors beside them.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ElementType, Key, VectorColumn,
    canonical::{self, Writer},
    vector::ColumnBuilder,
};
use crate::error::{Error, ErrorKind, Result};

/// A batch of records of one collection, the unit that moves.
///
/// Holds one line a record as unparsed canonical JSON, `{"key":…,"value":…}` (or
/// `{"element":…,"key":…,"value":…}` for one element of a large record), and any number of
/// [`VectorColumn`]s whose row `i` belongs to line `i`. Cloning is cheap.
///
/// A batch is bounded in bytes ([`RecordBatch::TARGET_BYTES`]), except that one record is
/// never split.
///
/// ```
/// use backup_core::record::{BatchBuilder, ElementType, Key};
///
/// let mut builder = BatchBuilder::new("notes");
/// let text = builder.dense("text", ElementType::F32, 2);
/// builder.push(&Key::from(1), |json| {
///     json.begin_object()?;
///     json.name("title")?;
///     json.string("hello");
///     json.end_object();
///     Ok(())
/// })?;
/// builder.set_f32(text, &[0.5, -1.0])?;
/// builder.push_json(&Key::from(2), br#"{"title": "no vector"}"#)?;
/// let batch = builder.finish()?;
///
/// assert_eq!(batch.len(), 2);
/// assert_eq!(batch.get(0).line(), r#"{"key":1,"value":{"title":"hello"}}"#);
/// assert!(!batch.columns()[0].is_present(1));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RecordBatch {
    pub(super) collection: String,
    text: Bytes,
    lines: Vec<Line>,
    pub(super) columns: Vec<VectorColumn>,
}

// Byte ranges within the batch's text.
#[derive(Debug, Clone)]
struct Line {
    whole: Range<usize>,
    element: Option<Range<usize>>,
    key: Range<usize>,
    value: Range<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLine<'a> {
    #[serde(borrow, default)]
    element: Option<&'a RawValue>,
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(borrow)]
    value: &'a RawValue,
}

impl RecordBatch {
    /// Size at which an adapter ends a batch: 4 MiB of text and vectors.
    pub const TARGET_BYTES: usize = 4 << 20;
    /// Longest line of one record.
    pub const MAX_LINE_BYTES: usize = 1 << 30;

    /// Reads a batch from its lines, each ended by a line feed, as they stand in an archive.
    ///
    /// # Errors
    /// A line that is not of the form that [`BatchBuilder`] writes.
    pub fn from_lines(collection: impl Into<String>, text: Bytes) -> Result<Self> {
        let collection = collection.into();
        let mut lines = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let line = text[start..].iter().position(|b| *b == b'\n').map(|n| start..start + n);
            let number = lines.len() + 1;
            let line = line
                .ok_or("the last line has no line feed")
                .and_then(|range| Line::parse(&text, range))
                .map_err(|what| {
                    Error::new(ErrorKind::Corrupt, what).on(format!("{collection}, line {number}"))
                })?;
            start = line.whole.end + 1;
            lines.push(line);
        }
        Ok(Self { collection, text, lines, columns: Vec::new() })
    }

    /// Adds vector columns.
    ///
    /// # Errors
    /// A column with another number of rows, or a name that is there already.
    pub fn with_columns(mut self, columns: Vec<VectorColumn>) -> Result<Self> {
        for column in columns {
            let wrong = if column.rows() != self.len() {
                "a vector column has another number of rows than its batch"
            } else if self.column(column.name()).is_some() {
                "a batch has the same vector column twice"
            } else {
                self.columns.push(column);
                continue;
            };
            return Err(Error::new(ErrorKind::Corrupt, wrong).on(&self.collection));
        }
        Ok(self)
    }

    /// The collection that the records belong to.
    #[must_use]
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// All lines, each ended by a line feed.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The vector columns, in the order of their names.
    #[must_use]
    pub fn columns(&self) -> &[VectorColumn] {
        &self.columns
    }

    /// The column of a name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&VectorColumn> {
        self.columns.iter().find(|column| column.name() == name)
    }

    /// Bytes of text and vectors.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.text.len() + self.columns.iter().map(VectorColumn::byte_size).sum::<usize>()
    }

    /// Record number `row`.
    ///
    /// # Panics
    /// Where `row` is not less than [`len`](Self::len).
    #[must_use]
    pub fn get(&self, row: usize) -> RecordRef<'_> {
        RecordRef { batch: self, line: &self.lines[row], row }
    }

    /// All records.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        self.lines.iter().enumerate().map(|(row, line)| RecordRef { batch: self, line, row })
    }
}

impl Line {
    // A line of the archive: the members that the builder writes, where it writes them.
    fn parse(text: &[u8], whole: Range<usize>) -> Result<Self, &'static str> {
        if whole.len() > RecordBatch::MAX_LINE_BYTES {
            return Err("a record is too long");
        }
        let line = std::str::from_utf8(&text[whole.clone()]).map_err(|_| "a line is not UTF-8")?;
        let wire: WireLine<'_> =
            serde_json::from_str(line).map_err(|_| "a line is not a record")?;
        let mut at = whole.start + 1;
        let mut place = |name: &str, value: &RawValue| {
            at += name.len() + 3;
            let range = at..at + value.get().len();
            at = range.end + 1;
            range
        };
        let element = wire.element.map(|element| place("element", element));
        let key = place("key", wire.key);
        let value = place("value", wire.value);
        let line = Line { whole, element, key, value };
        // Same length and same pieces in the same places: there is no white space and no
        // other order.
        let same = |range: &Range<usize>, raw: &RawValue| {
            text.get(range.clone()) == Some(raw.get().as_bytes())
        };
        let strict = line.value.end + 1 == line.whole.end
            && same(&line.key, wire.key)
            && same(&line.value, wire.value)
            && line.element.as_ref().zip(wire.element).is_none_or(|(range, raw)| same(range, raw));
        if strict { Ok(line) } else { Err("a line is not in canonical form") }
    }
}

/// One record of a batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    batch: &'a RecordBatch,
    line: &'a Line,
    row: usize,
}

impl<'a> RecordRef<'a> {
    fn slice(&self, range: &Range<usize>) -> &'a str {
        std::str::from_utf8(&self.batch.text[range.clone()]).expect("checked when it was built")
    }

    /// The whole line, without the line feed.
    #[must_use]
    pub fn line(&self) -> &'a str {
        self.slice(&self.line.whole)
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::from_canonical(self.key_json())
    }

    /// The key's canonical text.
    #[must_use]
    pub fn key_json(&self) -> &'a str {
        self.slice(&self.line.key)
    }

    /// The element's identity within its record, as canonical text, where this is one.
    #[must_use]
    pub fn element_json(&self) -> Option<&'a str> {
        self.line.element.as_ref().map(|range| self.slice(range))
    }

    /// The value's canonical text.
    #[must_use]
    pub fn value_json(&self) -> &'a str {
        self.slice(&self.line.value)
    }

    /// The collection that it belongs to.
    #[must_use]
    pub fn collection(&self) -> &'a str {
        &self.batch.collection
    }

    /// The columns in which it has a vector, at its [row](Self::row).
    pub fn vectors(&self) -> impl Iterator<Item = &'a VectorColumn> + use<'a> {
        let row = self.row;
        self.batch.columns.iter().filter(move |column| column.is_present(row))
    }

    /// Its number within the batch, and its row in every vector column.
    #[must_use]
    pub fn row(&self) -> usize {
        self.row
    }
}

/// Builds a [`RecordBatch`], record by record.
#[derive(Debug)]
pub struct BatchBuilder {
    collection: String,
    text: Vec<u8>,
    lines: Vec<Line>,
    columns: Vec<ColumnBuilder>,
}

/// A vector column of a [`BatchBuilder`].
#[derive(Debug, Clone, Copy)]
pub struct ColumnId(usize);

impl BatchBuilder {
    /// Starts a batch for `collection`.
    #[must_use]
    pub fn new(collection: impl Into<String>) -> Self {
        Self {
            collection: collection.into(),
            text: Vec::new(),
            lines: Vec::new(),
            columns: Vec::new(),
        }
    }

    fn add_column(&mut self, column: ColumnBuilder) -> ColumnId {
        self.columns.push(column);
        ColumnId(self.columns.len() - 1)
    }

    /// Declares a column of one vector of `dim` elements a record.
    pub fn dense(&mut self, name: impl Into<String>, element: ElementType, dim: usize) -> ColumnId {
        self.add_column(ColumnBuilder::dense(name.into(), element, dim))
    }

    /// Declares a column of any number of vectors of `dim` elements a record.
    pub fn multi(&mut self, name: impl Into<String>, element: ElementType, dim: usize) -> ColumnId {
        self.add_column(ColumnBuilder::multi(name.into(), element, dim))
    }

    /// Declares a column of one sparse vector a record.
    pub fn sparse(&mut self, name: impl Into<String>, element: ElementType) -> ColumnId {
        self.add_column(ColumnBuilder::sparse(name.into(), element))
    }

    /// Adds a record whose value `write` writes.
    ///
    /// # Errors
    /// What `write` returns; a line longer than [`RecordBatch::MAX_LINE_BYTES`]. The record
    /// is then left out.
    pub fn push(
        &mut self,
        key: &Key,
        write: impl FnOnce(&mut Writer<'_>) -> Result<()>,
    ) -> Result<()> {
        self.line(None, key, write)
    }

    /// Adds a record whose value is JSON text, which is brought into canonical form.
    ///
    /// # Errors
    /// Text that [`canonicalize`](canonical::canonicalize) refuses.
    pub fn push_json(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let value = canonical::parse(value)?;
        self.push(key, |json| json.value(&value))
    }

    /// Adds an element of a large record: a field, a member, an entry.
    ///
    /// # Errors
    /// As [`push`](Self::push); an element without an identity, `null`.
    pub fn push_element(
        &mut self,
        key: &Key,
        element: &Key,
        write: impl FnOnce(&mut Writer<'_>) -> Result<()>,
    ) -> Result<()> {
        // A line with `"element":null` is not read back.
        if element.as_json() == "null" {
            return Err(Error::adapter("an element has no identity").on(&self.collection));
        }
        self.line(Some(element), key, write)
    }

    pub(super) fn line(
        &mut self,
        element: Option<&Key>,
        key: &Key,
        write: impl FnOnce(&mut Writer<'_>) -> Result<()>,
    ) -> Result<()> {
        let start = self.text.len();
        let text = &mut self.text;
        let mut piece = |before: &str, json: &str| {
            text.extend_from_slice(before.as_bytes());
            let from = text.len();
            text.extend_from_slice(json.as_bytes());
            from..text.len()
        };
        let element = element.map(|element| piece(r#"{"element":"#, element.as_json()));
        let key = piece(if element.is_some() { r#","key":"# } else { r#"{"key":"# }, key.as_json());
        let before = piece(r#","value":"#, "").start;
        let written = write(&mut Writer::new(&mut self.text)).and_then(|()| {
            let len = self.text.len() - start;
            if len < RecordBatch::MAX_LINE_BYTES {
                return Ok(());
            }
            Err(Error::new(ErrorKind::LimitExceeded, "a record is longer than a line may be"))
        });
        if let Err(error) = written {
            let key = String::from_utf8_lossy(&self.text[key]).into_owned();
            self.text.truncate(start);
            return Err(error.on(format!("{}, record {key}", self.collection)));
        }
        let value = before..self.text.len();
        self.text.push(b'}');
        let whole = start..self.text.len();
        self.text.push(b'\n');
        self.lines.push(Line { whole, element, key, value });
        Ok(())
    }

    /// Sets the latest record's dense or multi-vector from little-endian bytes.
    ///
    /// # Errors
    /// A wrong number of elements; a vector that is set already.
    pub fn set(&mut self, column: ColumnId, values: &[u8]) -> Result<()> {
        self.set_sparse(column, &[], values)
    }

    /// Sets the latest record's vector from `f32` values.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_f32(&mut self, column: ColumnId, values: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.set(column, &bytes)
    }

    /// Sets the latest record's sparse vector: places, and little-endian values.
    ///
    /// # Errors
    /// As [`set`](Self::set); another number of places than values.
    pub fn set_sparse(&mut self, column: ColumnId, places: &[u32], values: &[u8]) -> Result<()> {
        let Some(row) = self.lines.len().checked_sub(1) else {
            return Err(Error::adapter("a vector was set before any record"));
        };
        self.columns[column.0].set(row, places, values)
    }

    /// Number of records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of text and vectors so far.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.text.len() + self.columns.iter().map(ColumnBuilder::byte_size).sum::<usize>()
    }

    /// Whether the batch has reached [`RecordBatch::TARGET_BYTES`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.byte_size() >= RecordBatch::TARGET_BYTES
    }

    /// Ends the batch.
    ///
    /// # Errors
    /// Two columns of one name.
    pub fn finish(self) -> Result<RecordBatch> {
        let rows = self.lines.len();
        let mut columns = self
            .columns
            .into_iter()
            .map(|column| column.finish(rows))
            .collect::<Result<Vec<_>>>()?;
        columns.sort_by(|a, b| a.name().cmp(b.name()));
        RecordBatch {
            collection: self.collection,
            text: self.text.into(),
            lines: self.lines,
            columns: Vec::new(),
        }
        .with_columns(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Tally;

    #[test]
    fn lines_read_back_with_their_pieces() {
        let mut builder = BatchBuilder::new("c");
        builder.push_json(&Key::from("k"), br#"{"b":[1, 2.0],"a":null}"#).unwrap();
        builder
            .push_element(&Key::from(1), &Key::from("field"), |json| {
                json.string("x");
                Ok(())
            })
            .unwrap();
        let built = builder.finish().unwrap();
        let read = RecordBatch::from_lines("c", built.text().clone()).unwrap();
        assert_eq!(read.get(0).key(), Key::from("k"));
        assert_eq!(read.get(0).value_json(), r#"{"a":null,"b":[1,2.0]}"#);
        assert_eq!(read.get(1).element_json(), Some(r#""field""#));
        assert_eq!(read.get(1).line(), r#"{"element":"field","key":1,"value":"x"}"#);
        let tally = |batch| {
            let mut tally = Tally::new();
            tally.add_batch(batch);
            tally
        };
        assert_eq!(tally(&built), tally(&read));
    }

    #[test]
    fn other_forms_of_a_line_are_refused() {
        for bad in [
            r#"{"value":1,"key":1}"#,
            r#"{"key":1, "value":1}"#,
            r#"{"key":1,"value":1} "#,
            r#"{"key":1,"value":1,"x":1}"#,
            r#"{"key":1,"key":1,"value":1}"#,
            r#"{"key":1}"#,
            r#"{"k\u0065y":1,"value":1}"#,
            r#"{"element":null,"key":1,"value":1}"#,
            "[]",
            "",
        ] {
            let text = format!("{bad}\n");
            assert!(RecordBatch::from_lines("c", text.into()).is_err(), "{bad}");
        }
        assert!(
            RecordBatch::from_lines("c", Bytes::from_static(br#"{"key":1,"value":1}"#)).is_err()
        );
        assert!(RecordBatch::from_lines("c", Bytes::new()).unwrap().is_empty());
    }

    #[test]
    fn a_record_that_fails_is_left_out() {
        let mut builder = BatchBuilder::new("c");
        let error = builder.push_json(&Key::from(1), b"{").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let failing = builder.push(&Key::from(2), |json| {
            json.begin_object()?;
            Err(Error::adapter("no"))
        });
        assert!(failing.is_err());
        assert!(builder.push_element(&Key::from(2), &Key::null(), |_| Ok(())).is_err());
        builder.push_json(&Key::from(3), b"0").unwrap();
        assert_eq!(&builder.finish().unwrap().text()[..], b"{\"key\":3,\"value\":0}\n");
    }

    #[test]
    fn columns_of_every_shape_keep_rows_and_gaps() {
        let mut builder = BatchBuilder::new("c");
        let dense = builder.dense("d", ElementType::U8, 2);
        let multi = builder.multi("m", ElementType::F32, 1);
        let sparse = builder.sparse("s", ElementType::F32);
        for row in 0..3 {
            builder.push_json(&Key::from(row), b"{}").unwrap();
            if row == 1 {
                builder.set(dense, &[1, 2]).unwrap();
                builder.set_f32(multi, &[1.0, 2.0]).unwrap();
                builder.set_sparse(sparse, &[], &[]).unwrap();
                assert!(builder.set(dense, &[1, 2]).is_err());
            }
            assert!(builder.set(dense, &[1]).is_err());
        }
        let batch = builder.finish().unwrap();
        let [d, m, s] = batch.columns() else { panic!() };
        assert_eq!(d.presence(), Some(&[false, true, false][..]));
        assert_eq!((d.row_bytes(0), d.row_bytes(1)), (&[0, 0][..], &[1, 2][..]));
        assert_eq!((m.row_f32(1), m.row_f32(2)), (vec![1.0, 2.0], vec![]));
        assert!(s.is_present(1) && !s.is_present(2));
    }
}
