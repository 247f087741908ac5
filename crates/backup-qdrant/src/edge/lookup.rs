//! Points of a shard by their ids.

use backup_core::{Result, record::RecordBatch};
use qdrant_edge::{PointId, ScrollRequest, WithPayloadInterface, WithVector};

use super::{
    engine::Engine,
    scroll::{LONGEST_PAGE, encode, page_of_bytes, to_id},
};
use crate::{
    points::{Encoder, Id},
    schema::VectorForm,
};

/// Points of the first page; later ones follow the size of what was read.
const FIRST_PAGE: usize = 100;

/// The ids of a shard's points, page by page.
pub(crate) struct Ids {
    /// `None`: there is no other page.
    next: Option<Option<PointId>>,
}

impl Ids {
    pub(crate) const fn new() -> Self {
        Self { next: Some(None) }
    }

    pub(crate) fn next(&mut self, engine: &Engine) -> Result<Option<Vec<Id>>> {
        let Some(offset) = self.next.take() else { return Ok(None) };
        let request = ScrollRequest {
            offset,
            limit: Some(LONGEST_PAGE),
            with_payload: Some(WithPayloadInterface::Bool(false)),
            ..ScrollRequest::default()
        };
        let what = "the points of a shard could not be read";
        let (records, next) = engine.call(what, |shard| shard.scroll(request))?;
        self.next = next.map(Some);
        Ok(Some(records.into_iter().map(|record| to_id(record.id)).collect()))
    }
}

/// Those points of these ids that are there, in any order.
pub(crate) fn points(
    engine: &Engine,
    collection: &str,
    forms: &[VectorForm],
    mut ids: &[Id],
) -> Result<Vec<RecordBatch>> {
    let mut encoder = Encoder::new(collection, forms);
    let (mut batches, mut page) = (Vec::new(), FIRST_PAGE);
    while !ids.is_empty() {
        let (now, rest) = ids.split_at(page.min(ids.len()));
        ids = rest;
        let now: Vec<PointId> = now.iter().map(|id| to_point_id(*id)).collect();
        let what = "the points of a shard could not be read";
        let records = engine.call(what, |shard| {
            let payload = Some(WithPayloadInterface::Bool(true));
            shard.retrieve(&now, payload, Some(WithVector::Bool(true)))
        })?;
        page = (page * 2).min(LONGEST_PAGE).min(page_of_bytes(&records));
        for record in records {
            encode(&mut encoder, None, record)?;
        }
        if encoder.is_full() {
            batches.push(encoder.finish()?);
        }
    }
    if !encoder.is_empty() {
        batches.push(encoder.finish()?);
    }
    Ok(batches)
}

pub(crate) fn to_point_id(id: Id) -> PointId {
    match id {
        Id::Number(number) => PointId::NumId(number),
        Id::Uuid(uuid) => PointId::Uuid(uuid),
    }
}
