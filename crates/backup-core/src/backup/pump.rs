//! Parts from several partitions into the archive, in an order that can be repeated.

use std::{
    collections::{HashSet, VecDeque},
    future::poll_fn,
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, MaybeDone, maybe_done},
    stream,
};

use super::{
    spool::spool,
    writer::{Job, Writer},
};
use crate::{
    cancel::Cancel,
    clock::{Clock, Timestamp},
    error::{Error, Result},
    event::{Event, Watch},
    part::{ByteStream, EntryKind, Part},
    quiesce::Lease,
    source::{Partition, SourceSession},
    worker::guarded,
};

/// One partition of one store.
pub(super) struct Lane<'a> {
    pub(super) store: usize,
    pub(super) name: &'a str,
    pub(super) session: &'a dyn SourceSession,
    pub(super) partition: &'a Partition,
    next: Option<Next<'a>>,
    // Records that wait for their schema, which comes through another partition.
    waiting: Option<Part>,
}

type Next<'a> = MaybeDone<BoxFuture<'a, Result<Option<Part>>>>;

impl<'a> Lane<'a> {
    pub(super) fn new(
        store: usize,
        name: &'a str,
        session: &'a dyn SourceSession,
        partition: &'a Partition,
    ) -> Self {
        Self { store, name, session, partition, next: None, waiting: None }
    }

    fn start(&mut self) {
        let next = guarded(self.name, self.session.next(self.partition));
        self.next = Some(maybe_done(next.boxed()));
    }

    // Polls the part to come; `true` once it is there, or nothing is asked for.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.next.as_mut().is_none_or(|next| Pin::new(next).poll(cx).is_ready())
    }

    fn take(&mut self) -> Option<Result<Option<Part>>> {
        self.next.take().and_then(|mut next| Pin::new(&mut next).take_output())
    }
}

/// What the way from the stores to the writer needs.
pub(super) struct Pump<'a> {
    pub(super) writer: &'a mut Writer,
    pub(super) lease: Option<&'a mut Lease>,
    pub(super) cancel: &'a Cancel,
    pub(super) spool_dir: &'a Path,
    pub(super) clock: &'a dyn Clock,
    pub(super) watch: &'a Watch,
    pub(super) width: usize,
    /// When each store was read to its end.
    pub(super) ends: &'a mut [Timestamp],
}

impl<'a> Pump<'_> {
    /// Reads every lane to its end.
    ///
    /// Up to `width` lanes are open, in their order, and give one part each in turn; the
    /// next part of each is fetched meanwhile. Which part comes next depends on the lanes
    /// alone and never on which store is faster.
    pub(super) async fn run(&mut self, mut lanes: VecDeque<Lane<'a>>) -> Result<()> {
        let mut open: VecDeque<Lane<'a>> = VecDeque::new();
        let mut schemas = HashSet::new();
        let mut in_vain = 0;
        loop {
            while open.len() < self.width
                && let Some(mut lane) = lanes.pop_front()
            {
                lane.start();
                open.push_back(lane);
            }
            let Some(mut lane) = open.pop_front() else { return Ok(()) };
            self.pulse().await?;
            let part = match lane.waiting.take() {
                Some(part) => Some(part),
                None => next_part(&mut lane, &mut open).await?,
            };
            let Some(part) = part else {
                in_vain = 0;
                let last = !open.iter().chain(&lanes).any(|other| other.store == lane.store);
                self.lane_end(lane, last).await?;
                continue;
            };
            let early = needs_schema(&part)
                .is_some_and(|collection| !schemas.contains(&(lane.store, collection.to_owned())));
            if early {
                in_vain += 1;
                if in_vain > open.len() {
                    let what = "a source gave records before their schema";
                    return Err(Error::adapter(what).on(lane.name));
                }
                lane.waiting = Some(part);
                open.push_back(lane);
                continue;
            }
            in_vain = 0;
            if let Part::Schema(schema) = &part {
                schemas.insert((lane.store, schema.collection.clone()));
            }
            let bodiless = !has_body(&part);
            if bodiless {
                lane.start();
            }
            let (store, name) = (lane.store, lane.name);
            let partition = lane.partition.name.clone();
            let work = self.part(store, name, partition, part);
            alongside(work, open.iter_mut().chain([&mut lane])).await?;
            // A body is read to its end before the partition is asked for more.
            if !bodiless {
                lane.start();
            }
            open.push_back(lane);
        }
    }

    async fn pulse(&mut self) -> Result<()> {
        if let Some(lease) = &mut self.lease {
            lease.keep().await;
        }
        self.cancel.check()
    }

    async fn lane_end(&mut self, lane: Lane<'a>, last: bool) -> Result<()> {
        if last {
            self.ends[lane.store] = self.clock.now();
            self.watch.tell(Event::StoreRead { store: lane.name.to_owned() });
        }
        let (store, partition) = (lane.store, lane.partition.name.clone());
        self.writer.send(Job::PartitionEnd { store, partition }).await
    }

    // Errors of the adapter name its store; those of the writer name their own.
    async fn part(
        &mut self,
        store: usize,
        name: &str,
        partition: String,
        mut part: Part,
    ) -> Result<()> {
        if let Part::Blob(blob) = &mut part
            && blob.len.is_none()
        {
            guarded(name, spool(blob, self.spool_dir, self.cancel)).await?;
        }
        let body = match &mut part {
            Part::Blob(blob) => blob.len.map(|len| (len, take(&mut blob.body))),
            Part::Entry(entry) => match &mut entry.kind {
                EntryKind::File { len, body } => Some((*len, take(body))),
                _ => None,
            },
            _ => None,
        };
        self.writer.send(Job::Part { store, partition, part: Box::new(part) }).await?;
        let Some((len, mut body)) = body else { return Ok(()) };
        let mut given = 0;
        while let Some(piece) = guarded(name, body.next().map(Option::transpose)).await? {
            self.pulse().await?;
            given += piece.len() as u64;
            self.writer.send(Job::Data(piece)).await?;
            // It grew: one byte too many is enough to know.
            if given > len {
                break;
            }
        }
        drop(body);
        self.writer.send(Job::BodyEnd).await
    }
}

fn take(body: &mut ByteStream) -> ByteStream {
    std::mem::replace(body, stream::empty().boxed())
}

fn has_body(part: &Part) -> bool {
    match part {
        Part::Blob(_) => true,
        Part::Entry(entry) => matches!(entry.kind, EntryKind::File { .. }),
        _ => false,
    }
}

fn needs_schema(part: &Part) -> Option<&str> {
    match part {
        Part::Records(batch) => Some(batch.collection()),
        Part::Entry(entry) => Some(&entry.root),
        Part::End(end) => Some(&end.collection),
        _ => None,
    }
}

// The lane's next part, while the others fetch theirs.
async fn next_part<'a>(
    lane: &mut Lane<'a>,
    others: &mut VecDeque<Lane<'a>>,
) -> Result<Option<Part>> {
    if lane.next.is_none() {
        lane.start();
    }
    poll_fn(|cx| {
        for other in others.iter_mut() {
            other.poll(cx);
        }
        if lane.poll(cx) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    lane.take().unwrap_or(Ok(None))
}

// Does `work` while lanes fetch their next parts.
async fn alongside<'l, 'a: 'l, T>(
    work: impl Future<Output = T>,
    lanes: impl Iterator<Item = &'l mut Lane<'a>>,
) -> T {
    let mut work = pin!(work);
    let mut lanes: Vec<_> = lanes.collect();
    poll_fn(|cx| {
        for lane in &mut lanes {
            lane.poll(cx);
        }
        work.as_mut().poll(cx)
    })
    .await
}
