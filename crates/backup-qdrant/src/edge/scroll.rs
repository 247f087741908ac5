//! Reading the points of a shard.

use std::{collections::HashSet, vec};

use backup_core::{Result, record::RecordBatch};
use qdrant_edge::{
    PointId, Record, ScrollRequest, VectorInternal, VectorStructInternal, WithPayloadInterface,
    WithVector,
};

use super::engine::Engine;
use crate::{
    points::{Encoder, Floats, Id, VectorRef, write_key, write_payload},
    schema::VectorForm,
    shard_key::ShardKey,
};

/// Points of the first page; later ones follow the size of what was read.
const FIRST_PAGE: usize = 100;
/// Longer pages are not faster, and would take memory where points grow along the way.
pub(crate) const LONGEST_PAGE: usize = 1000;

/// Reads the points of a shard in the order of their ids, batch by batch.
pub(crate) struct Scroll {
    encoder: Encoder,
    ready: vec::IntoIter<Record>,
    next: Option<PointId>,
    page: usize,
    begun: bool,
    /// Under which points lie.
    shard: Option<ShardKey>,
    /// How many points were given.
    pub(crate) count: u64,
}

impl Scroll {
    pub(crate) fn new(collection: &str, forms: &[VectorForm]) -> Self {
        Self {
            encoder: Encoder::new(collection, forms),
            ready: Vec::new().into_iter(),
            next: None,
            page: FIRST_PAGE,
            begun: false,
            shard: None,
            count: 0,
        }
    }

    /// The next batch; `None` at the end. Points that one of `others` holds are left out.
    pub(crate) fn next(
        &mut self,
        engine: &Engine,
        others: &[Engine],
    ) -> Result<Option<RecordBatch>> {
        loop {
            while let Some(record) = self.ready.next() {
                encode(&mut self.encoder, self.shard.as_ref(), record)?;
                self.count += 1;
                if self.encoder.is_full() {
                    return self.finish().map(Some);
                }
            }
            if self.begun && self.next.is_none() {
                return if self.encoder.is_empty() { Ok(None) } else { self.finish().map(Some) };
            }
            self.fetch(engine, others)?;
        }
    }

    /// Goes on with another shard, of this shard key.
    pub(crate) fn again(&mut self, shard: Option<ShardKey>) {
        (self.next, self.begun, self.shard) = (None, false, shard);
    }

    fn fetch(&mut self, engine: &Engine, others: &[Engine]) -> Result<()> {
        let request = ScrollRequest {
            offset: self.next,
            limit: Some(self.page),
            filter: None,
            with_payload: Some(WithPayloadInterface::Bool(true)),
            with_vector: WithVector::Bool(true),
            order_by: None,
        };
        let (records, next) = page(engine, request, others)?;
        self.begun = true;
        self.next = next;
        self.ready = records.into_iter();
        // A short first page: what comes may be very different.
        let fits = page_of_bytes(self.ready.as_slice());
        self.page = (self.page * 2).min(LONGEST_PAGE).min(fits);
        Ok(())
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        self.encoder.finish()
    }
}

/// So many points as fill a batch, as far as these tell.
pub(crate) fn page_of_bytes(records: &[Record]) -> usize {
    let bytes: usize = records.iter().take(20).map(weight).sum();
    let mean = bytes / records.len().clamp(1, 20);
    (RecordBatch::TARGET_BYTES / mean.max(1)).max(1)
}

fn page(
    engine: &Engine,
    request: ScrollRequest,
    others: &[Engine],
) -> Result<(Vec<Record>, Option<PointId>)> {
    let (mut records, next) =
        engine.call("the points of a shard could not be read", |shard| shard.scroll(request))?;
    for other in others {
        let held = held(other, &records)?;
        records.retain(|record| !held.contains(&record.id));
    }
    Ok((records, next))
}

/// How many points a shard holds, one by one, without those that one of `others` holds.
pub(crate) fn count(engine: &Engine, others: &[Engine]) -> Result<u64> {
    let (mut count, mut offset) = (0, None);
    loop {
        let request = ScrollRequest {
            offset,
            limit: Some(LONGEST_PAGE),
            with_payload: Some(WithPayloadInterface::Bool(false)),
            ..ScrollRequest::default()
        };
        let (records, next) = page(engine, request, others)?;
        count += records.len() as u64;
        if next.is_none() {
            return Ok(count);
        }
        offset = next;
    }
}

/// Which of the records a shard holds, too.
fn held(engine: &Engine, records: &[Record]) -> Result<HashSet<PointId>> {
    let ids: Vec<PointId> = records.iter().map(|record| record.id).collect();
    let found = engine.call("the points of a shard could not be read", |shard| {
        let no_payload = Some(WithPayloadInterface::Bool(false));
        shard.retrieve(&ids, no_payload, Some(WithVector::Bool(false)))
    })?;
    Ok(found.into_iter().map(|record| record.id).collect())
}

// Roughly the bytes that a point takes in memory.
fn weight(record: &Record) -> usize {
    fn json(value: &serde_json::Value) -> usize {
        use serde_json::Value;
        16 + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(json).sum(),
            Value::Object(members) => members.iter().map(|(name, v)| name.len() + json(v)).sum(),
            _ => 0,
        }
    }
    let vector = |vector: &VectorInternal| match vector {
        VectorInternal::Dense(values) => 4 * values.len(),
        VectorInternal::Sparse(sparse) => 8 * sparse.values.len(),
        VectorInternal::MultiDense(rows) => 4 * rows.flattened_vectors.len(),
    };
    let vectors = match &record.vector {
        None => 0,
        Some(VectorStructInternal::Single(values)) => 4 * values.len(),
        Some(VectorStructInternal::MultiDense(rows)) => 4 * rows.flattened_vectors.len(),
        Some(VectorStructInternal::Named(named)) => named.values().map(vector).sum(),
    };
    let payload = record.payload.iter().flat_map(|payload| payload.0.iter());
    16 + vectors + payload.map(|(name, value)| name.len() + json(value)).sum::<usize>()
}

pub(crate) fn to_id(id: PointId) -> Id {
    match id {
        PointId::NumId(number) => Id::Number(number),
        PointId::Uuid(uuid) => Id::Uuid(uuid),
    }
}

pub(crate) fn encode(
    encoder: &mut Encoder,
    shard: Option<&ShardKey>,
    record: Record,
) -> Result<()> {
    let key = write_key(shard, to_id(record.id));
    let payload = record.payload.map(|payload| payload.0).unwrap_or_default();
    encoder.point(&key, |json| write_payload(json, payload))?;
    match &record.vector {
        None => Ok(()),
        Some(VectorStructInternal::Single(values)) => {
            encoder.vector("", VectorRef::Dense(Floats::Values(values)))
        }
        Some(VectorStructInternal::MultiDense(rows)) => {
            encoder.vector("", VectorRef::Multi(&[Floats::Values(&rows.flattened_vectors)]))
        }
        Some(VectorStructInternal::Named(named)) => {
            named.iter().try_for_each(|(name, vector)| match vector {
                VectorInternal::Dense(values) => {
                    encoder.vector(name, VectorRef::Dense(Floats::Values(values)))
                }
                VectorInternal::Sparse(sparse) => encoder.vector(
                    name,
                    VectorRef::Sparse(&sparse.indices, Floats::Values(&sparse.values)),
                ),
                VectorInternal::MultiDense(rows) => {
                    let rows = Floats::Values(&rows.flattened_vectors);
                    encoder.vector(name, VectorRef::Multi(&[rows]))
                }
            })
        }
    }
}
