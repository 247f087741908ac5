//! Vectors that point the same way.

use rayon::prelude::*;

use crate::{
    error::{Error, ErrorKind, Result},
    record::{ElementType, RecordRef, VectorShape},
};

/// Vectors that one thread compares before it takes the next ones.
const BLOCK: usize = 512;
const LANES: usize = 16;

#[derive(Debug)]
pub(super) struct Semantic {
    name: String,
    threshold: f64,
    // Of length one, each filled up with zeros to whole lanes.
    vectors: Vec<f32>,
    width: usize,
    records: Vec<u32>,
}

impl Semantic {
    pub(super) fn new(name: String, threshold: f64) -> Self {
        Self { name, threshold, vectors: Vec::new(), width: 0, records: Vec::new() }
    }

    /// A record's vector as it is compared; `None` where it has none, or one without a direction.
    pub(super) fn prepare(&self, record: RecordRef<'_>) -> Result<Option<Vec<f32>>> {
        let Some(column) = record.vectors().find(|column| column.name() == self.name) else {
            return Ok(None);
        };
        let refuse = |what: &str| {
            Err(Error::new(ErrorKind::Unsupported, what)
                .on(format!("vector {:?}", self.name))
                .advise("look for exact or fuzzy duplicates in this collection"))
        };
        let VectorShape::Dense { dim } = column.shape() else {
            return refuse("only dense vectors can be compared for duplicates");
        };
        let width = dim.next_multiple_of(LANES);
        if self.width != 0 && self.width != width {
            return refuse("vectors of one collection have several dimensions");
        }
        let mut vector = match column.element() {
            ElementType::F32 => column.row_f32(record.row()),
            ElementType::U8 => column.row_bytes(record.row()).iter().map(|b| (*b).into()).collect(),
            ElementType::F16 => return refuse("vectors of float16 cannot be compared yet"),
        };
        let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if !(length.is_finite() && length > 0.0) {
            return Ok(None);
        }
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        vector.resize(width, 0.0);
        Ok(Some(vector))
    }

    /// The nearest vector, if it is near enough: its record, and the cosine.
    pub(super) fn find(&self, vector: &[f32]) -> Option<(u32, f64)> {
        let nearest = |(block, vectors): (usize, &[f32])| {
            let cosines = vectors.chunks_exact(vector.len()).map(|other| dot(other, vector));
            let best = cosines.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            best.map(|(at, cosine)| (block * BLOCK + at, cosine))
        };
        let blocks = self.vectors.par_chunks(BLOCK * vector.len()).enumerate();
        // The first of equal ones, whichever thread ends first.
        let (at, cosine) = blocks
            .filter_map(nearest)
            .reduce_with(|a, b| if b.1 > a.1 || b.1 == a.1 && b.0 < a.0 { b } else { a })?;
        let cosine = f64::from(cosine).min(1.0);
        (cosine >= self.threshold).then(|| (self.records[at], cosine))
    }

    pub(super) fn add(&mut self, vector: &[f32], record: u32) {
        self.width = vector.len();
        self.vectors.extend_from_slice(vector);
        self.records.push(record);
    }
}

// Sums side by side, which the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}
