//! Vectors as contiguous columns beside a batch's lines.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What a vector is made of; values are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ElementType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// Unsigned byte.
    U8,
}

impl ElementType {
    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }

    /// `f32`, `f16` or `u8`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U8 => "u8",
        }
    }
}

/// How a column's values are laid out. `n` is the number of records of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VectorShape {
    /// `n × dim` values; the row of a record without this vector is zeros.
    Dense {
        /// Elements of one vector.
        dim: usize,
    },
    /// Several vectors of `dim` a record: those of record `i` are rows
    /// `offsets[i]..offsets[i + 1]` of `total × dim` values.
    Multi {
        /// Elements of one vector.
        dim: usize,
        /// `n + 1` ascending row numbers, the first 0.
        offsets: Vec<u64>,
    },
    /// Compressed sparse rows: record `i` has values `offsets[i]..offsets[i + 1]`.
    Sparse {
        /// `n + 1` ascending positions, the first 0.
        offsets: Vec<u64>,
        /// The place of each value.
        indices: Vec<u32>,
    },
}

/// One named vector of every record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorColumn {
    name: String,
    element: ElementType,
    shape: VectorShape,
    data: Bytes,
    // `None`: every record has this vector.
    present: Option<Vec<bool>>,
    rows: usize,
}

impl VectorColumn {
    /// Puts a column together from its arrays; `rows` is the number of records.
    ///
    /// # Errors
    /// Arrays whose lengths do not agree, offsets that do not ascend from 0.
    pub fn from_arrays(
        name: impl Into<String>,
        element: ElementType,
        shape: VectorShape,
        data: Bytes,
        present: Option<Vec<bool>>,
        rows: usize,
    ) -> Result<Self> {
        let name = name.into();
        let bad =
            |what: &str| Err(Error::new(ErrorKind::Corrupt, what).on(format!("vector {name:?}")));
        let size = element.size() as u128;
        let expected = match &shape {
            VectorShape::Dense { dim } => rows as u128 * *dim as u128 * size,
            VectorShape::Multi { dim, offsets } => {
                let Some(total) = ascending(offsets, rows) else {
                    return bad("offsets of a multi-vector column do not ascend from 0");
                };
                u128::from(total) * *dim as u128 * size
            }
            VectorShape::Sparse { offsets, indices } => {
                let Some(total) = ascending(offsets, rows) else {
                    return bad("offsets of a sparse column do not ascend from 0");
                };
                if indices.len() as u64 != total {
                    return bad("a sparse column has as many indices as values");
                }
                u128::from(total) * size
            }
        };
        if data.len() as u128 != expected {
            return bad("the values of a vector column do not fill its shape");
        }
        if present.as_ref().is_some_and(|mask| mask.len() != rows) {
            return bad("the presence mask of a vector column has a wrong length");
        }
        let present = present.filter(|mask| !mask.iter().all(|p| *p));
        Ok(Self { name, element, shape, data, present, rows })
    }

    /// The vector's name; the unnamed vector of a store that allows one is `""`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The element type.
    #[must_use]
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The layout.
    #[must_use]
    pub fn shape(&self) -> &VectorShape {
        &self.shape
    }

    /// All values, little-endian, contiguous.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The mask of the records that have this vector; `None` where all have it.
    #[must_use]
    pub fn presence(&self) -> Option<&[bool]> {
        self.present.as_deref()
    }

    /// Number of records, whether they have this vector or not.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether record `row` has this vector.
    #[must_use]
    pub fn is_present(&self, row: usize) -> bool {
        self.present.as_ref().is_none_or(|mask| mask[row])
    }

    /// The values of record `row`, little-endian.
    #[must_use]
    pub fn row_bytes(&self, row: usize) -> &[u8] {
        let unit = self.element.size();
        let (from, to) = match &self.shape {
            VectorShape::Dense { dim } => (row * dim, (row + 1) * dim),
            VectorShape::Multi { dim, offsets } => {
                (offsets[row] as usize * dim, offsets[row + 1] as usize * dim)
            }
            VectorShape::Sparse { offsets, .. } => {
                (offsets[row] as usize, offsets[row + 1] as usize)
            }
        };
        &self.data[from * unit..to * unit]
    }

    /// The indices of record `row` of a sparse column; empty for the others.
    #[must_use]
    pub fn sparse_indices(&self, row: usize) -> &[u32] {
        match &self.shape {
            VectorShape::Sparse { offsets, indices } => {
                &indices[offsets[row] as usize..offsets[row + 1] as usize]
            }
            _ => &[],
        }
    }

    /// The values of record `row` of an `f32` column.
    #[must_use]
    pub fn row_f32(&self, row: usize) -> Vec<f32> {
        debug_assert_eq!(self.element, ElementType::F32);
        self.row_bytes(row)
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }

    pub(crate) fn byte_size(&self) -> usize {
        let side = match &self.shape {
            VectorShape::Dense { .. } => 0,
            VectorShape::Multi { offsets, .. } => offsets.len() * 8,
            VectorShape::Sparse { offsets, indices } => offsets.len() * 8 + indices.len() * 4,
        };
        self.data.len() + side
    }
}

fn ascending(offsets: &[u64], rows: usize) -> Option<u64> {
    let good = offsets.len() == rows + 1
        && offsets[0] == 0
        && offsets.windows(2).all(|pair| pair[0] <= pair[1]);
    good.then(|| offsets[rows])
}

/// Builds one column row by row.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    name: String,
    element: ElementType,
    kind: Kind,
    data: Vec<u8>,
    present: Vec<bool>,
}

#[derive(Debug)]
enum Kind {
    Dense { dim: usize },
    Multi { dim: usize, offsets: Vec<u64> },
    Sparse { offsets: Vec<u64>, indices: Vec<u32> },
}

impl ColumnBuilder {
    pub(super) fn dense(name: String, element: ElementType, dim: usize) -> Self {
        Self::new(name, element, Kind::Dense { dim })
    }

    pub(super) fn multi(name: String, element: ElementType, dim: usize) -> Self {
        Self::new(name, element, Kind::Multi { dim, offsets: vec![0] })
    }

    pub(super) fn sparse(name: String, element: ElementType) -> Self {
        Self::new(name, element, Kind::Sparse { offsets: vec![0], indices: Vec::new() })
    }

    fn new(name: String, element: ElementType, kind: Kind) -> Self {
        Self { name, element, kind, data: Vec::new(), present: Vec::new() }
    }

    pub(super) fn byte_size(&self) -> usize {
        self.data.len()
    }

    /// Marks rows without this vector, up to `rows`.
    pub(super) fn fill(&mut self, rows: usize) {
        while self.present.len() < rows {
            match &mut self.kind {
                Kind::Dense { dim } => {
                    self.data.resize(self.data.len() + *dim * self.element.size(), 0);
                }
                Kind::Multi { offsets, .. } | Kind::Sparse { offsets, .. } => {
                    offsets.push(offsets[offsets.len() - 1]);
                }
            }
            self.present.push(false);
        }
    }

    /// Sets the vector of record `row`, the latest one.
    pub(super) fn set(&mut self, row: usize, places: &[u32], values: &[u8]) -> Result<()> {
        self.fill(row);
        let Self { kind, data, present, element, name } = self;
        let wrong = |what: String| {
            Err(Error::new(ErrorKind::InvalidInput, what).on(format!("vector {name:?}")))
        };
        if present.len() != row {
            return wrong("a record has the same vector twice".into());
        }
        let count = values.len() / element.size();
        if !values.len().is_multiple_of(element.size()) {
            return wrong("a vector's bytes are not whole elements".into());
        }
        match kind {
            Kind::Dense { dim } => {
                if count != *dim {
                    return wrong(format!("a vector has {count} elements instead of {dim}"));
                }
            }
            Kind::Multi { dim, offsets } => {
                if *dim == 0 || !count.is_multiple_of(*dim) {
                    return wrong(format!(
                        "a multi-vector has {count} elements, not rows of {dim}"
                    ));
                }
                offsets.push(offsets[offsets.len() - 1] + (count / *dim) as u64);
            }
            Kind::Sparse { offsets, indices } => {
                if count != places.len() {
                    return wrong(format!(
                        "a sparse vector has {count} values at {} places",
                        places.len()
                    ));
                }
                offsets.push(offsets[offsets.len() - 1] + count as u64);
                indices.extend_from_slice(places);
            }
        }
        data.extend_from_slice(values);
        present.push(true);
        Ok(())
    }

    pub(super) fn finish(mut self, rows: usize) -> Result<VectorColumn> {
        self.fill(rows);
        let shape = match self.kind {
            Kind::Dense { dim } => VectorShape::Dense { dim },
            Kind::Multi { dim, offsets } => VectorShape::Multi { dim, offsets },
            Kind::Sparse { offsets, indices } => VectorShape::Sparse { offsets, indices },
        };
        VectorColumn::from_arrays(
            self.name,
            self.element,
            shape,
            self.data.into(),
            Some(self.present),
            rows,
        )
    }
}
