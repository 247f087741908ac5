//! Reading a [`MemoryStore`].

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::{MemoryStore, Step, data::Data};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    part::{ByteStream, EntryKind, Part},
    source::{Partition, PinRequest, Pinned, Source, SourceSession, Summary},
};

struct Session {
    store: MemoryStore,
    // `None`: a live session.
    frozen: Option<Arc<Data>>,
    version: u64,
    cancel: Cancel,
    partitions: Vec<(Partition, Mutex<Cursor>)>,
}

/// Where one partition stands.
struct Cursor {
    shard: usize,
    todo: VecDeque<Work>,
    // Parts of the work under way.
    ready: VecDeque<Part>,
}

#[derive(Clone)]
enum Work {
    Collection(String),
    Blob(String),
}

#[async_trait]
impl Source for MemoryStore {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        request.cancel.check()?;
        self.step(Step::Pin)?;
        let state = self.lock();
        let live = &state.live;
        if let Some(name) =
            request.collections.iter().find(|name| !live.collections.contains_key(*name))
        {
            return Err(Error::new(ErrorKind::NotFound, "there is no such collection").on(name));
        }
        let wanted =
            |name: &&String| request.collections.is_empty() || request.collections.contains(name);
        let names: VecDeque<Work> =
            live.collections.keys().filter(wanted).cloned().map(Work::Collection).collect();
        let partitions = (0..state.shards)
            .map(|shard| {
                let mut todo = names.clone();
                // A blob is the whole store: it has no place in a selection.
                if shard == 0 && request.collections.is_empty() {
                    todo.extend(live.blobs.keys().cloned().map(Work::Blob));
                }
                let cursor = Cursor { shard, todo, ready: VecDeque::new() };
                (Partition::new(format!("p{shard:03}")), Mutex::new(cursor))
            })
            .collect();
        let session = Box::new(Session {
            store: self.clone(),
            frozen: state.pinnable.then(|| Arc::new(live.clone())),
            version: state.version,
            cancel: request.cancel.clone(),
            partitions,
        });
        Ok(if state.pinnable {
            Pinned::Pinned { session, mark: Some(format!("version {}", state.version)) }
        } else {
            Pinned::Live { session, estimate: None }
        })
    }
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        self.store.step(Step::Partitions)?;
        Ok(self.partitions.iter().map(|(partition, _)| partition.clone()).collect())
    }

    async fn next(&self, partition: &Partition) -> Result<Option<Part>> {
        self.cancel.check()?;
        self.store.step(Step::Next)?;
        let (_, cursor) =
            self.partitions.iter().find(|(known, _)| known == partition).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "there is no such partition").on(&partition.name)
            })?;
        let mut cursor = cursor.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(part) = cursor.ready.pop_front() {
                return Ok(Some(self.with_body(part)));
            }
            let Some(work) = cursor.todo.pop_front() else { return Ok(None) };
            cursor.ready = self.parts(&work, cursor.shard)?.into();
        }
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        self.store.step(Step::Close)?;
        let changed = self.store.lock().version != self.version;
        let mut summary = Summary::new();
        summary.changed = self.frozen.is_none().then_some(changed);
        Ok(summary)
    }
}

impl Session {
    /// A live session sees each collection as it is when its turn comes.
    fn parts(&self, work: &Work, shard: usize) -> Result<Vec<Part>> {
        let state = self.store.lock();
        let data = self.frozen.as_deref().unwrap_or(&state.live);
        match work {
            Work::Collection(name) => data.collections.get(name).map_or(Ok(Vec::new()), |found| {
                found.parts(name, state.batch_records, (shard, self.partitions.len()))
            }),
            Work::Blob(name) => {
                Ok(data.blobs.get(name).map(|b| Part::Blob(b.to_part(name))).into_iter().collect())
            }
        }
    }

    fn with_body(&self, mut part: Part) -> Part {
        match &mut part {
            Part::Blob(blob) => self.breakable(&mut blob.body),
            Part::Entry(entry) => {
                if let EntryKind::File { body, .. } = &mut entry.kind {
                    self.breakable(body);
                }
            }
            _ => {}
        }
        part
    }

    /// Lets a body end in an error after half of its bytes, where a test asks for that.
    fn breakable(&self, body: &mut ByteStream) {
        if let Err(error) = self.store.step(Step::Body) {
            let whole = std::mem::replace(body, futures::stream::empty().boxed());
            let half = whole.map(|piece| piece.map(|bytes: Bytes| bytes.slice(..bytes.len() / 2)));
            *body = half.chain(futures::stream::iter([Err(error)])).boxed();
        }
    }
}
