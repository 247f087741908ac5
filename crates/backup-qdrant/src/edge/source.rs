//! Backing up: a copy of the shard is scrolled.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{
    Cancel, CollectionEnd, Error, ErrorKind, Part, Partition, PinRequest, Pinned, Result, Schema,
    Source, SourceSession, Summary, Worker,
};

use super::{EdgeStore, copy::Copy, scroll::Scroll, store::Shared};

#[async_trait]
impl Source for EdgeStore {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        request.cancel.check()?;
        if !request.collections.is_empty() && !request.collections.contains(&self.collection) {
            let what = "the store has no such collection";
            return Err(Error::new(ErrorKind::NotFound, what).on(request.collections.join(", ")));
        }
        let (shared, collection) = (Arc::clone(&self.shared), self.collection.clone());
        let (cancel, model) = (request.cancel.clone(), self.model.clone());
        let worker = Worker::spawn("qdrant source", || Ok(()))?;
        let pinned =
            worker.call(move |()| pin(&shared, collection, model.as_deref(), &cancel)).await?;
        let reading = pinned.map(|reading| Arc::new(Mutex::new(reading)));
        let session = Session { worker, reading, cancel: request.cancel.clone() };
        Ok(Pinned::Pinned { session: Box::new(session), mark: None })
    }
}

fn pin(
    shared: &Shared,
    collection: String,
    model: Option<&str>,
    cancel: &Cancel,
) -> Result<Option<Reading>> {
    // Nobody else writes, or holds a lock that the flush needs.
    let live = shared.write();
    let Some(engine) = &*live else { return Ok(None) };
    engine.flush()?;
    let document = shared.document(engine)?;
    let config =
        engine.call("a shard could not be described", |shard| Ok(shard.config().clone()))?;
    let copy = Copy::take(&shared.path, config, cancel)?;
    drop(live);
    let schema = document.part(&collection, model)?;
    let scroll = Scroll::new(&collection, &document.forms()?);
    Ok(Some(Reading { copy, schema: Some(schema), scroll, collection, ended: false }))
}

struct Reading {
    copy: Copy,
    /// Until it was given.
    schema: Option<Schema>,
    scroll: Scroll,
    collection: String,
    ended: bool,
}

impl Reading {
    fn next(&mut self) -> Result<Option<Part>> {
        if let Some(schema) = self.schema.take() {
            return Ok(Some(Part::Schema(schema)));
        }
        if let Some(batch) = self.scroll.next(self.copy.engine()?, &[])? {
            return Ok(Some(Part::Records(batch)));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Ok(None);
        }
        let mut end =
            CollectionEnd { collection: self.collection.clone(), ..CollectionEnd::default() };
        end.count = Some(self.scroll.count);
        Ok(Some(Part::End(end)))
    }
}

struct Session {
    worker: Worker<()>,
    /// `None`: the store is empty. Not on the thread, so that it is gone when this is.
    reading: Option<Arc<Mutex<Reading>>>,
    cancel: Cancel,
}

impl Session {
    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Reading) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let Some(reading) = self.reading.clone() else { return Ok(None) };
        let job = move |(): &mut ()| {
            job(&mut reading.lock().unwrap_or_else(PoisonError::into_inner)).map(Some)
        };
        self.worker.call(job).await
    }
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(vec![Partition::new("shard")])
    }

    async fn next(&self, _: &Partition) -> Result<Option<Part>> {
        self.cancel.check()?;
        Ok(self.call(Reading::next).await?.flatten())
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        self.call(|reading| reading.copy.remove()).await?;
        Ok(Summary::new())
    }
}
