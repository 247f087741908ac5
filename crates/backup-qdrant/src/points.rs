//! Points of Qdrant as records, and records as points.
//!
//! A record's key is the point's id (a number, or a UUID as text), its value the payload, and
//! each of its vectors a row of the column of that name. Where an application chooses the shards,
//! the key is a list of shard key and id, because two shard keys may have a point of one id.

use std::borrow::Cow;

use backup_core::{
    Error, ErrorKind, Result,
    record::{
        BatchBuilder, ColumnId, ElementType, Key, RecordBatch, RecordRef, VectorColumn,
        canonical::Writer,
        tagged::{self, Scalar},
    },
};
use half::f16;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    exact,
    schema::{Layout, VectorForm},
    shard_key::ShardKey,
};

/// The id of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Id {
    Number(u64),
    Uuid(Uuid),
}

/// A vector as the engine hands it out: always `f32`, of whatever type it is stored as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum VectorRef<'a> {
    Dense(Floats<'a>),
    /// Rows one after the other.
    Multi(&'a [Floats<'a>]),
    Sparse(&'a [u32], Floats<'a>),
}

/// Values of a vector.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Floats<'a> {
    Values(&'a [f32]),
    /// Four each, the least significant first.
    #[cfg(feature = "qdrant")]
    Bytes(&'a [u8]),
}

impl<'a> Floats<'a> {
    fn values(self) -> Result<Cow<'a, [f32]>> {
        match self {
            Self::Values(values) => Ok(values.into()),
            #[cfg(feature = "qdrant")]
            Self::Bytes(bytes) if bytes.len() % 4 != 0 => {
                Err(Error::new(ErrorKind::Mismatch, "a vector ends within a value"))
            }
            #[cfg(feature = "qdrant")]
            Self::Bytes(bytes) => Ok(get(ElementType::F32, bytes).into()),
        }
    }
}

/// A vector as the engine takes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Vector {
    Dense(Vec<f32>),
    Multi(Vec<Vec<f32>>),
    Sparse(Vec<u32>, Vec<f32>),
}

/// A record read as a point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    /// Where the application chooses the shards.
    pub(crate) shard: Option<ShardKey>,
    pub(crate) id: Id,
    pub(crate) payload: Map<String, Value>,
    /// By name; the unnamed vector is `""`.
    pub(crate) vectors: Vec<(String, Vector)>,
}

impl Id {
    pub(crate) fn key(self) -> Key {
        match self {
            Self::Number(number) => Key::from(number),
            Self::Uuid(uuid) => Key::from(uuid.as_hyphenated().to_string().as_str()),
        }
    }

    fn from_scalar(scalar: &Scalar) -> Option<Self> {
        match scalar {
            Scalar::Integer(number) => u64::try_from(*number).ok().map(Self::Number),
            Scalar::Text(text) => Uuid::parse_str(text).ok().map(Self::Uuid),
            _ => None,
        }
    }

    #[cfg(feature = "qdrant")]
    pub(crate) fn from_json(value: &Value) -> Result<Self> {
        let id = match value {
            Value::Number(number) => number.as_u64().map(Self::Number),
            Value::String(text) => Uuid::parse_str(text).ok().map(Self::Uuid),
            _ => None,
        };
        id.ok_or_else(|| Error::new(ErrorKind::Mismatch, "a point has no usable id").on(value))
    }

    /// As it stands in JSON.
    #[cfg(feature = "qdrant")]
    pub(crate) fn to_json(self) -> Value {
        match self {
            Self::Number(number) => number.into(),
            Self::Uuid(uuid) => uuid.as_hyphenated().to_string().into(),
        }
    }
}

/// The key of a record: of the id, and of the shard key where there is one.
pub(crate) fn write_key(shard: Option<&ShardKey>, id: Id) -> Key {
    match shard {
        None => id.key(),
        Some(shard) => Key::composite([shard.key(), id.key()]),
    }
}

/// Reads [`write_key`], of a collection with shard keys or of one without.
pub(crate) fn read_key(key: &Key, keyed: bool) -> Result<(Option<ShardKey>, Id)> {
    let (read, what) = match (key.scalars().as_deref(), keyed) {
        (Some([id]), false) => (
            Id::from_scalar(id).map(|id| (None, id)),
            "a point's id is neither a number from 0 to 2^64-1 nor a UUID",
        ),
        (Some([shard, id]), true) => (
            ShardKey::from_scalar(shard).zip(Id::from_scalar(id)).map(|(s, id)| (Some(s), id)),
            "a record's key is no list of a shard key and a point's id",
        ),
        (_, true) => (None, "a record's key has no shard key, and its collection has"),
        (_, false) => (None, "a record's key is no point's id"),
    };
    read.ok_or_else(|| Error::new(ErrorKind::Incompatible, what).on(key))
}

/// Makes batches of points.
pub(crate) struct Encoder {
    collection: String,
    forms: Vec<VectorForm>,
    builder: BatchBuilder,
    columns: Vec<ColumnId>,
    bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(collection: &str, forms: &[VectorForm]) -> Self {
        let (builder, columns) = start(collection, forms);
        Self {
            collection: collection.to_owned(),
            forms: forms.to_vec(),
            builder,
            columns,
            bytes: Vec::new(),
        }
    }

    /// Adds a point whose payload, a JSON object in canonical form, `payload` writes. Its
    /// vectors follow with [`vector`](Self::vector).
    pub(crate) fn point(
        &mut self,
        key: &Key,
        payload: impl FnOnce(&mut Writer<'_>) -> Result<()>,
    ) -> Result<()> {
        self.builder.push(key, payload)
    }

    /// Adds a vector to the latest point.
    pub(crate) fn vector(&mut self, name: &str, vector: VectorRef<'_>) -> Result<()> {
        let Ok(at) = self.forms.binary_search_by(|form| form.name.as_str().cmp(name)) else {
            let what = format!("a point has a vector {name:?} that its collection does not");
            return Err(Error::new(ErrorKind::Mismatch, what)
                .on(&self.collection)
                .advise("the collection was changed meanwhile: run the backup again"));
        };
        let (form, column) = (&self.forms[at], self.columns[at]);
        self.bytes.clear();
        match (vector, form.layout) {
            (VectorRef::Dense(values), Layout::Dense { .. }) => {
                put(form.element, values, &mut self.bytes)?;
            }
            (VectorRef::Multi(rows), Layout::Multi { .. }) => {
                rows.iter().try_for_each(|row| put(form.element, *row, &mut self.bytes))?;
            }
            // A server that sends a multi-vector of one row as a plain one.
            (VectorRef::Dense(values), Layout::Multi { .. }) => {
                put(form.element, values, &mut self.bytes)?;
            }
            (VectorRef::Sparse(places, values), Layout::Sparse) => {
                if !places.is_sorted() {
                    let values = values.values()?;
                    let mut pairs: Vec<_> = places.iter().zip(values.iter()).collect();
                    pairs.sort_by_key(|(place, _)| **place);
                    let (places, values): (Vec<u32>, Vec<f32>) = pairs.into_iter().unzip();
                    put(form.element, Floats::Values(&values), &mut self.bytes)?;
                    return self.builder.set_sparse(column, &places, &self.bytes);
                }
                put(form.element, values, &mut self.bytes)?;
                return self.builder.set_sparse(column, places, &self.bytes);
            }
            _ => {
                let what = format!("a vector {name:?} is not of its collection's kind");
                return Err(Error::new(ErrorKind::Mismatch, what).on(&self.collection));
            }
        }
        self.builder.set(column, &self.bytes)
    }

    /// Bytes that came since the last batch.
    #[cfg(feature = "qdrant")]
    pub(crate) fn byte_size(&self) -> usize {
        self.builder.byte_size()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.builder.is_full()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// What came so far; the next batch begins.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch> {
        let (builder, columns) = start(&self.collection, &self.forms);
        self.columns = columns;
        std::mem::replace(&mut self.builder, builder).finish()
    }
}

fn start(collection: &str, forms: &[VectorForm]) -> (BatchBuilder, Vec<ColumnId>) {
    let mut builder = BatchBuilder::new(collection);
    let columns = forms.iter().map(|form| match form.layout {
        Layout::Dense { dim } => builder.dense(&form.name, form.element, dim),
        Layout::Multi { dim } => builder.multi(&form.name, form.element, dim),
        Layout::Sparse => builder.sparse(&form.name, form.element),
    });
    let columns = columns.collect();
    (builder, columns)
}

// The engine's `f32` hold exactly what it stores, whatever the type.
fn put(element: ElementType, values: Floats<'_>, out: &mut Vec<u8>) -> Result<()> {
    #[cfg(feature = "qdrant")]
    if let (Floats::Bytes(bytes), ElementType::F32) = (values, element)
        && bytes.len() % 4 == 0
    {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    let values = values.values()?;
    match element {
        ElementType::F16 => {
            out.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()));
        }
        ElementType::U8 => out.extend(values.iter().map(|v| *v as u8)),
        _ => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
    }
    Ok(())
}

fn get(element: ElementType, bytes: &[u8]) -> Vec<f32> {
    match element {
        ElementType::F16 => {
            bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        ElementType::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}

/// Writes a payload that the engine hands out as JSON.
pub(crate) fn write_payload(json: &mut Writer<'_>, payload: Map<String, Value>) -> Result<()> {
    tagged::escaped(json, &Value::Object(payload)).map(drop)
}

/// Reads records as points of a collection with vectors of these forms.
pub(crate) struct Decoder<'a> {
    batch: &'a RecordBatch,
    /// Each with whether the engine would round it again.
    columns: Vec<(&'a VectorColumn, bool)>,
    keyed: bool,
}

impl<'a> Decoder<'a> {
    /// Refuses columns that the collection does not have, or has in another form.
    pub(crate) fn new(batch: &'a RecordBatch, forms: &[VectorForm]) -> Result<Self> {
        let columns = batch.columns().iter().map(|column| {
            let form = forms.iter().find(|form| form.name == column.name());
            let what = match form {
                Some(form) if fits(form, column) => {
                    let cosine = form.distance.as_deref() == Some("cosine");
                    return Ok((column, cosine && column.element() == ElementType::F16));
                }
                Some(_) => "the vectors have another form than the collection's",
                None => "the collection has no such vector",
            };
            let subject = format!("{}, vector {:?}", batch.collection(), column.name());
            Err(Error::new(ErrorKind::Incompatible, what).on(subject))
        });
        Ok(Self { batch, columns: columns.collect::<Result<_>>()?, keyed: false })
    }

    /// Whether the collection has shard keys, and the keys of records name them.
    #[cfg(feature = "qdrant")]
    pub(crate) fn keyed(self, keyed: bool) -> Self {
        Self { keyed, ..self }
    }

    pub(crate) fn points(&self) -> impl Iterator<Item = Result<Point>> {
        self.batch.iter().map(|record| self.point(record))
    }

    fn point(&self, record: RecordRef<'_>) -> Result<Point> {
        let wrong = |what| {
            let subject = format!("{}, record {}", self.batch.collection(), record.key_json());
            Error::new(ErrorKind::Incompatible, what).on(subject)
        };
        if record.element_json().is_some() {
            return Err(wrong("a point cannot have elements"));
        }
        let value: Value = serde_json::from_str(record.value_json())
            .map_err(|e| wrong("a payload cannot be read").because(e))?;
        let Value::Object(payload) = tagged::unescape(value) else {
            return Err(wrong("a payload is not an object"));
        };
        let row = record.row();
        let columns = self.columns.iter().filter(|(column, _)| column.is_present(row));
        let vectors = columns
            .map(|(column, rounded)| (column.name().to_owned(), vector(column, row, *rounded)));
        let (shard, id) = read_key(&record.key(), self.keyed)?;
        Ok(Point { shard, id, payload, vectors: vectors.collect() })
    }
}

fn fits(form: &VectorForm, column: &VectorColumn) -> bool {
    use backup_core::record::VectorShape;
    let shape = match (form.layout, column.shape()) {
        (Layout::Dense { dim }, VectorShape::Dense { dim: is })
        | (Layout::Multi { dim }, VectorShape::Multi { dim: is, .. }) => dim == *is,
        (Layout::Sparse, VectorShape::Sparse { .. }) => true,
        _ => false,
    };
    shape && form.element == column.element()
}

fn vector(column: &VectorColumn, row: usize, rounded: bool) -> Vector {
    use backup_core::record::VectorShape;
    let mut values = get(column.element(), column.row_bytes(row));
    match column.shape() {
        VectorShape::Sparse { .. } => Vector::Sparse(column.sparse_indices(row).to_vec(), values),
        VectorShape::Multi { dim, .. } => {
            let rows = values.chunks_exact_mut((*dim).max(1)).map(|row| {
                if rounded {
                    exact::unit_that_rounds_to(row);
                }
                row.to_vec()
            });
            Vector::Multi(rows.collect())
        }
        _ => {
            if rounded {
                exact::unit_that_rounds_to(&mut values);
            }
            Vector::Dense(values)
        }
    }
}
