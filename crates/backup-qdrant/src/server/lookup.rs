//! Points by their ids.

use backup_core::{ErrorKind, Result, record::RecordBatch};
use qdrant_client::qdrant::PointId;

use super::{
    client::Client,
    grpc::{self, Of},
    place::Place,
    rest::retry,
    scroll::{FIRST_PAGE, PAGE_BYTES, exactly, in_order},
};
use crate::{
    points::{Encoder, Id},
    schema::VectorForm,
};

/// Ids of one page.
const PAGE_IDS: u32 = 1000;

/// The ids of the points of a place, page by page.
pub(super) struct Ids {
    client: Client,
    place: Place,
    /// `None`: there is no other page.
    next: Option<Option<PointId>>,
    last: Option<Id>,
}

impl Ids {
    pub(super) fn of(client: &Client, place: &Place) -> Self {
        let (client, place) = (client.clone(), place.clone());
        Self { client, place, next: Some(None), last: None }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<Id>>> {
        let Some(offset) = self.next.take() else { return Ok(None) };
        let (grpc, place) = (&self.client.grpc, &self.place);
        let page = retry(|| grpc::scroll(grpc, place, offset.clone(), PAGE_IDS, None, Of::Ids));
        let page = page.await?;
        self.next = page.next.map(Some);
        let mut ids = Vec::with_capacity(page.points.len());
        for point in page.points {
            let id = grpc::read_id(point.id)?;
            in_order(&mut self.last, id, &self.place)?;
            ids.push(id);
        }
        Ok(Some(ids))
    }
}

/// Reads those points of a place that are asked for, in pages of so many bytes.
pub(super) struct Lookup {
    client: Client,
    place: Place,
    encoder: Encoder,
    /// Bytes of a point, from those that came.
    size: usize,
    most: usize,
}

impl Lookup {
    /// `name` is what the batches are called.
    pub(super) fn new(client: &Client, place: Place, name: &str, forms: &[VectorForm]) -> Self {
        Self {
            client: client.clone(),
            place,
            encoder: Encoder::new(name, forms),
            size: PAGE_BYTES / FIRST_PAGE,
            most: PAGE_IDS as usize,
        }
    }

    /// The points of these ids that are there, in any order.
    pub(super) async fn read(&mut self, mut ids: &[Id]) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while !ids.is_empty() {
            let wanted = (PAGE_BYTES / self.size).clamp(1, self.most).min(ids.len());
            let (page, rest) = ids.split_at(wanted);
            let (grpc, place) = (&self.client.grpc, &self.place);
            let points = match retry(|| grpc::retrieve(grpc, place, page, Of::Whole)).await {
                Ok(points) => points,
                // Longer than a message may be: the points are larger than those before.
                Err(error) if error.kind() == ErrorKind::LimitExceeded && wanted > 1 => {
                    self.most = wanted / 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (before, count) = (self.encoder.byte_size(), points.len());
            for read in exactly(&self.client, place, points).await? {
                grpc::encode(&mut self.encoder, read)?;
            }
            let bytes = self.encoder.byte_size() - before;
            self.size = bytes.checked_div(count).unwrap_or(self.size).max(1);
            if self.encoder.is_full() {
                batches.push(self.encoder.finish()?);
            }
            ids = rest;
        }
        if !self.encoder.is_empty() {
            batches.push(self.encoder.finish()?);
        }
        Ok(batches)
    }
}
