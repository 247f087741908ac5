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
    record::{RecordBatch, Tally},
};
use qdrant_client::qdrant::{Filter, RetrievedPoint};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{
    client::Client,
    grpc::{self, Of, Page},
    rest::retry,
};
use crate::{
    points::{Encoder, Id},
    schema::VectorForm,
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
    pub(super) point: RetrievedPoint,
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
    /// Reads all points. Starts at once.
    pub(super) fn start(
        client: &Client,
        collection: &str,
        name: &str,
        forms: &[VectorForm],
    ) -> Self {
        Self::filtered(client, collection, name, forms, None)
    }

    /// Reads the points that pass a filter, or all where the server does not take it: a strict
    /// mode may forbid to filter by a field without an index.
    pub(super) fn filtered(
        client: &Client,
        collection: &str,
        name: &str,
        forms: &[VectorForm],
        filter: Option<Filter>,
    ) -> Self {
        // One page waits, one is being fetched.
        let (sender, pages) = mpsc::channel(1);
        let size = Arc::new(AtomicUsize::new(PAGE_BYTES / FIRST_PAGE));
        let fetch = Fetch {
            client: client.clone(),
            collection: collection.to_owned(),
            size: Arc::clone(&size),
            filter,
            last: None,
        };
        let task = client.beside(fetch.run(sender));
        let encoder = Encoder::new(name, forms);
        Self { pages, encoder, size, records: 0, _task: task }
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
    collection: String,
    size: Arc<AtomicUsize>,
    filter: Option<Filter>,
    last: Option<Id>,
}

impl Fetch {
    async fn run(mut self, sender: mpsc::Sender<Result<Vec<Read>>>) {
        let mut offset = None;
        let mut most = MAX_PAGE;
        loop {
            let wanted = (PAGE_BYTES / self.size.load(Ordering::Relaxed)).clamp(1, most);
            let limit = u32::try_from(wanted).unwrap_or(u32::MAX);
            let scrolled = retry(|| {
                let (grpc, filter) = (&self.client.grpc, self.filter.clone());
                grpc::scroll(grpc, &self.collection, offset.clone(), limit, filter, Of::Whole)
            });
            let page = match scrolled.await {
                Ok(page) => page,
                // A page longer than a message may be: the points are larger than those before.
                Err(error) if error.kind() == ErrorKind::LimitExceeded && wanted > 1 => {
                    most = wanted / 2;
                    continue;
                }
                // Nothing came yet: without it the same points come and more.
                Err(_) if self.filter.is_some() && self.last.is_none() => {
                    self.filter = None;
                    continue;
                }
                Err(error) => return drop(sender.send(Err(error)).await),
            };
            let next = page.next.clone();
            let page = self.checked(page).await;
            let broken = page.is_err();
            if sender.send(page).await.is_err() || broken || next.is_none() {
                return;
            }
            offset = next;
        }
    }

    /// Pages come in the order of the ids, each point once.
    async fn checked(&mut self, page: Page) -> Result<Vec<Read>> {
        if page.points.is_empty() && page.next.is_some() {
            let what = "Qdrant sent an empty page that is not the last";
            return Err(Error::new(ErrorKind::Mismatch, what).on(&self.collection));
        }
        let reads = exactly(&self.client, &self.collection, page.points).await?;
        for read in &reads {
            in_order(&mut self.last, read.id, &self.collection)?;
        }
        Ok(reads)
    }
}

/// Refuses a point that does not come after the last one.
pub(super) fn in_order(last: &mut Option<Id>, id: Id, collection: &str) -> Result<()> {
    if last.replace(id).is_none_or(|last| last < id) {
        return Ok(());
    }
    let what = "Qdrant sent a point twice, or out of order";
    Err(Error::new(ErrorKind::Mismatch, what)
        .on(format!("{collection}, point {}", id.key()))
        .advise("wait until shards are moved or resharded, then try again"))
}

/// Points of a collection that came over gRPC, with those payloads that it did not carry exactly.
pub(super) async fn exactly(
    client: &Client,
    collection: &str,
    points: Vec<RetrievedPoint>,
) -> Result<Vec<Read>> {
    let (mut reads, mut rounded) = (Vec::with_capacity(points.len()), Vec::new());
    for mut point in points {
        let id = grpc::read_id(point.id.take())?;
        if grpc::perhaps_rounded(&point.payload) {
            rounded.push(id);
        }
        reads.push(Read { id, point, exact: None });
    }
    let mut exact = HashMap::new();
    for ids in rounded.chunks(EXACT_POINTS) {
        exact.extend(payloads(client, collection, ids).await?);
    }
    if !exact.is_empty() {
        reads.iter_mut().for_each(|read| read.exact = exact.remove(&read.id));
    }
    Ok(reads)
}

/// Payloads as JSON, which keeps integers of 2^63 and more.
async fn payloads(
    client: &Client,
    collection: &str,
    ids: &[Id],
) -> Result<Vec<(Id, Map<String, Value>)>> {
    let wanted: Vec<Value> = ids.iter().map(|id| id.to_json()).collect();
    let body = json!({"ids": wanted, "with_payload": true, "with_vector": false});
    let path = ["collections", collection, "points"];
    let answer = client.rest.post(&path, body).send().await?;
    let points = answer.as_array().into_iter().flatten().map(|point| {
        let id = Id::from_json(&point["id"])?;
        let payload = point["payload"].as_object().cloned().unwrap_or_default();
        Ok((id, payload))
    });
    points.collect()
}
