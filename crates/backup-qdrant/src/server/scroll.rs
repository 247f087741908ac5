//! Reads a collection page by page: the next page is fetched while this one is encoded.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use backup_core::{
    Error, ErrorKind, Result,
    record::{Key, RecordBatch, Tally},
};
use qdrant_client::qdrant::Filter;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{
    answer,
    client::Client,
    grpc::{self, Of, Page},
    place::Place,
    rest::retry,
};
use crate::{
    points::{Encoder, Id},
    schema::Document,
};

/// Bytes of a page: small enough to be fetched while another one is encoded, large enough that
/// the way to the server does not count.
pub(super) const PAGE_BYTES: usize = 1 << 20;
pub(super) const FIRST_PAGE: usize = 64;
const MAX_PAGE: usize = 10_000;
/// Points whose payload is asked for again over REST in one request.
const EXACT_POINTS: usize = 100;

/// A point of a page.
pub(super) struct Read {
    pub(super) id: Id,
    pub(super) key: Key,
    pub(super) point: answer::Point,
    /// Its payload, where gRPC did not carry it exactly.
    pub(super) exact: Option<Map<String, Value>>,
}

/// Reads a collection into batches.
pub(super) struct Scroll {
    pages: mpsc::Receiver<Result<Vec<Read>>>,
    encoder: Encoder,
    /// Bytes of a record, from those that came.
    size: Arc<AtomicUsize>,
    records: u64,
    // Ends with the reader.
    _task: Box<dyn Send + Sync>,
}

impl Scroll {
    /// Reads all points of a collection that is as `document` says, as records of `name`. Starts
    /// at once.
    pub(super) fn start(
        client: &Client,
        collection: &str,
        name: &str,
        document: &Document,
    ) -> Result<Self> {
        Self::filtered(client, collection, name, document, None)
    }

    /// Reads the points that pass a filter, or all where the server does not take it: a strict
    /// mode may forbid to filter by a field without an index.
    pub(super) fn filtered(
        client: &Client,
        collection: &str,
        name: &str,
        document: &Document,
        filter: Option<Filter>,
    ) -> Result<Self> {
        let encoder = Encoder::new(name, &document.forms()?);
        // One page waits, one is being fetched.
        let (sender, pages) = mpsc::channel(1);
        let size = Arc::new(AtomicUsize::new(PAGE_BYTES / FIRST_PAGE));
        let fetch = Fetch { client: client.clone(), size: Arc::clone(&size), filter };
        let task = client.beside(fetch.run(Place::all(collection, document), sender));
        Ok(Self { pages, encoder, size, records: 0, _task: task })
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(page) = self.pages.recv().await {
            let page = page?;
            let (before, count) = (self.encoder.byte_size(), page.len());
            for read in page {
                grpc::encode(&mut self.encoder, read)?;
            }
            self.records += count as u64;
            let bytes = self.encoder.byte_size() - before;
            self.size.store((bytes / count.max(1)).max(1), Ordering::Relaxed);
            if self.encoder.is_full() {
                return self.encoder.finish().map(Some);
            }
        }
        if self.encoder.is_empty() { Ok(None) } else { self.encoder.finish().map(Some) }
    }

    /// How many points came so far.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Count and digests of all that comes.
    pub(super) async fn tally(mut self) -> Result<Tally> {
        let mut tally = Tally::new();
        while let Some(batch) = self.next().await? {
            tally.add_batch(&batch);
        }
        Ok(tally)
    }
}

struct Fetch {
    client: Client,
    size: Arc<AtomicUsize>,
    filter: Option<Filter>,
}

type Pages = mpsc::Sender<Result<Vec<Read>>>;

impl Fetch {
    async fn run(mut self, places: Vec<Place>, pages: Pages) {
        for place in places {
            if let Err(error) = self.place(&place, &pages).await {
                return drop(pages.send(Err(error)).await);
            }
        }
    }

    async fn place(&mut self, place: &Place, pages: &Pages) -> Result<()> {
        let (mut last, mut offset) = (None, None);
        let mut most = MAX_PAGE;
        loop {
            let wanted = (PAGE_BYTES / self.size.load(Ordering::Relaxed)).clamp(1, most);
            let limit = u32::try_from(wanted).unwrap_or(u32::MAX);
            let scrolled = retry(|| {
                let (grpc, filter) = (&self.client.grpc, self.filter.clone());
                grpc::scroll(grpc, place, offset.clone(), limit, filter, Of::Whole)
            });
            let page = match scrolled.await {
                Ok(page) => page,
                // A page longer than a message may be: the points are larger than those before.
                Err(error) if error.kind() == ErrorKind::LimitExceeded && wanted > 1 => {
                    most = wanted / 2;
                    continue;
                }
                // Nothing came yet: without it the same points come and more.
                Err(_) if self.filter.is_some() && last.is_none() => {
                    self.filter = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let next = page.next.clone();
            let page = self.checked(place, &mut last, page).await?;
            // Where nobody reads on there is nobody to tell.
            if pages.send(Ok(page)).await.is_err() || next.is_none() {
                return Ok(());
            }
            offset = next;
        }
    }

    /// Pages come in the order of the ids, each point once.
    async fn checked(&self, place: &Place, last: &mut Option<Id>, page: Page) -> Result<Vec<Read>> {
        if page.points.is_empty() && page.next.is_some() {
            let what = "Qdrant sent an empty page that is not the last";
            return Err(Error::new(ErrorKind::Mismatch, what).on(place));
        }
        let reads = exactly(&self.client, place, page.points).await?;
        for read in &reads {
            in_order(last, read.id, place)?;
        }
        Ok(reads)
    }
}

/// Refuses a point that does not come after the last one.
pub(super) fn in_order(last: &mut Option<Id>, id: Id, place: &Place) -> Result<()> {
    if last.replace(id).is_none_or(|last| last < id) {
        return Ok(());
    }
    let what = "Qdrant sent a point twice, or out of order";
    Err(Error::new(ErrorKind::Mismatch, what)
        .on(format!("{place}, point {}", id.key()))
        .advise("wait until shards are moved or resharded, then try again"))
}

/// Points of a place that came over gRPC, with those payloads that it did not carry exactly.
pub(super) async fn exactly(
    client: &Client,
    place: &Place,
    points: Vec<answer::Point>,
) -> Result<Vec<Read>> {
    let (mut reads, mut rounded) = (Vec::with_capacity(points.len()), Vec::new());
    for mut point in points {
        let id = grpc::read_id(point.id.take())?;
        if grpc::perhaps_rounded(&point.payload) {
            rounded.push(id);
        }
        reads.push(Read { id, key: place.key(id), point, exact: None });
    }
    let mut exact = HashMap::new();
    for ids in rounded.chunks(EXACT_POINTS) {
        exact.extend(payloads(client, place, ids).await?);
    }
    if !exact.is_empty() {
        reads.iter_mut().for_each(|read| read.exact = exact.remove(&read.id));
    }
    Ok(reads)
}

/// Payloads as JSON, which keeps integers of 2^63 and more.
async fn payloads(
    client: &Client,
    place: &Place,
    ids: &[Id],
) -> Result<Vec<(Id, Map<String, Value>)>> {
    let wanted: Vec<Value> = ids.iter().map(|id| id.to_json()).collect();
    let mut body = json!({"ids": wanted, "with_payload": true, "with_vector": false});
    if let Some(shard) = &place.shard {
        body["shard_key"] = json!(shard);
    }
    let path = ["collections", &place.collection, "points"];
    let answer = client.rest.post(&path, body).send().await?;
    let points = answer.as_array().into_iter().flatten().map(|point| {
        let id = Id::from_json(&point["id"])?;
        let payload = point["payload"].as_object().cloned().unwrap_or_default();
        Ok((id, payload))
    });
    points.collect()
}
