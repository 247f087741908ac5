//! Parts from an archive into the staging areas of several stores.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};

use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    event::{Event, Watch},
    part::{Blob, BlobContent, ByteStream, Content, EntryFacts, EntryKind, FileEntry, Part},
    record::{MaskedHasher, RecordBatch, Sha256Digest},
    sink::SinkSession,
    worker::{Worker, guarded},
};

/// The parts of an archive, each with its store. A body is read to its end, or dropped,
/// before the next part is asked for.
pub(crate) type Parts = BoxStream<'static, Result<(String, Part)>>;

// Batches on their way into the stores: bounded in bytes, or one of any size.
const IN_FLIGHT_BYTES: usize = 32 << 20;
const IN_FLIGHT: usize = 8;
// Long parts tell how far they are each time that so much went through.
const PROGRESS_BYTES: u64 = 1 << 20;

type Tallies = BTreeMap<String, Content>;
type Write<'a> = BoxFuture<'a, (usize, usize, Result<()>)>;

/// Writes every part into the session of its store and returns what went in.
///
/// Batches are written several at once; everything else alone and in its order, because the
/// [contract](SinkSession::write) says so. After an error, writes under way are waited for,
/// so that an abort meets a store at rest.
pub(crate) async fn stage(
    sessions: &[(&str, &dyn SinkSession)],
    mut parts: Parts,
    total: u64,
    watch: &Watch,
    cancel: &Cancel,
) -> Result<Tallies> {
    // Hashing is work for a thread of its own.
    let worker = Worker::spawn("backup-kit tally", || Ok(Tallies::new()))?;
    let mut stage = Stage {
        sessions,
        worker: &worker,
        writes: FuturesUnordered::new(),
        per_store: vec![0; sessions.len()],
        bytes: 0,
        done: 0,
        total,
        watch,
    };
    let outcome = stage.run(&mut parts, cancel).await;
    while stage.writes.next().await.is_some() {}
    drop(stage);
    outcome?;
    worker.call(move |tallies| Ok(std::mem::take(tallies))).await
}

struct Stage<'a> {
    sessions: &'a [(&'a str, &'a dyn SinkSession)],
    worker: &'a Worker<Tallies>,
    writes: FuturesUnordered<Write<'a>>,
    per_store: Vec<usize>,
    bytes: usize,
    done: u64,
    total: u64,
    watch: &'a Watch,
}

impl<'a> Stage<'a> {
    async fn run(&mut self, parts: &mut Parts, cancel: &Cancel) -> Result<()> {
        while let Some(next) = self.alongside(parts.next()).await? {
            cancel.check()?;
            let (store, part) = next?;
            let place = self.sessions.iter().position(|(name, _)| *name == store);
            let place = place.ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    "the archive has a part of a store that it does not list",
                )
                .on(&store)
            })?;
            self.part(place, part).await?;
        }
        while !self.writes.is_empty() {
            self.one_done().await?;
        }
        cancel.check()
    }

    async fn part(&mut self, place: usize, part: Part) -> Result<()> {
        let (name, session) = self.sessions[place];
        let (collection, records, bytes);
        match part {
            Part::Records(batch) => {
                collection = batch.collection().to_owned();
                (records, bytes) = (batch.len() as u64, batch.byte_size() as u64);
                self.records(place, batch).await?;
            }
            Part::Entry(entry) => {
                (collection, records) = (entry.root.clone(), 1);
                bytes = self.entry(place, entry).await?;
            }
            Part::Blob(blob) => {
                (collection, records) = (blob.name.clone(), 0);
                bytes = self.blob(place, blob).await?;
            }
            other => {
                (records, bytes) = (0, 0);
                collection = match &other {
                    Part::Schema(schema) => schema.collection.clone(),
                    Part::End(end) => end.collection.clone(),
                    _ => String::new(),
                };
                // Alone: what this store was given before has to be in.
                while self.per_store[place] > 0 {
                    self.one_done().await?;
                }
                if let Part::Schema(schema) = &other {
                    let collection = schema.collection.clone();
                    self.tally(name, move |content| {
                        content.collections.entry(collection).or_default();
                    })
                    .await?;
                }
                self.alongside(guarded(name, session.write(other))).await??;
            }
        }
        self.done += bytes;
        let (done, total, store) = (self.done, Some(self.total), name.to_owned());
        self.watch.tell(Event::Part { store, collection, records, bytes, done, total });
        Ok(())
    }

    async fn records(&mut self, place: usize, batch: RecordBatch) -> Result<()> {
        let weight = batch.byte_size();
        while !self.writes.is_empty()
            && (self.writes.len() >= IN_FLIGHT || self.bytes + weight > IN_FLIGHT_BYTES)
        {
            self.one_done().await?;
        }
        let (name, session) = self.sessions[place];
        let worker = self.worker;
        let copy = batch.clone();
        self.per_store[place] += 1;
        self.bytes += weight;
        let write = async move {
            let tally = add(worker, name, move |content| {
                content
                    .collections
                    .entry(copy.collection().to_owned())
                    .or_default()
                    .add_batch(&copy);
            });
            let write = guarded(name, session.write(Part::Records(batch)));
            let (written, tallied) = futures::join!(write, tally);
            (place, weight, written.and(tallied))
        };
        self.writes.push(write.boxed());
        Ok(())
    }

    async fn entry(&mut self, place: usize, mut entry: FileEntry) -> Result<u64> {
        let (name, session) = self.sessions[place];
        let (root, path) = (entry.root.clone(), entry.path.clone());
        let (mode, modified) = (entry.mode, entry.modified);
        let mut len = 0;
        let line;
        match &mut entry.kind {
            EntryKind::File { len: told, body } => {
                len = *told;
                let seen = Seen::through(body, &[], self.progress());
                self.alongside(guarded(name, session.write(Part::Entry(entry)))).await??;
                let sha256 = seen.finish(len).map_err(|e| e.on(&path).on(name))?;
                let facts = EntryFacts::File { len, sha256: &sha256 };
                line = FileEntry::line(&path, mode, modified, facts);
            }
            other => {
                let facts = match other {
                    EntryKind::Symlink { target } => EntryFacts::Symlink { target },
                    _ => EntryFacts::Directory,
                };
                line = FileEntry::line(&path, mode, modified, facts);
                self.alongside(guarded(name, session.write(Part::Entry(entry)))).await??;
            }
        }
        self.tally(name, move |content| {
            content.collections.entry(root).or_default().add_line(&line);
        })
        .await?;
        Ok(len)
    }

    async fn blob(&mut self, place: usize, mut blob: Blob) -> Result<u64> {
        let (name, session) = self.sessions[place];
        let (file, masked) = (blob.name.clone(), blob.masked.clone());
        let len = blob.len.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "an archive's native file has no length").on(&file)
        })?;
        let seen = Seen::through(&mut blob.body, &masked, self.progress());
        self.alongside(guarded(name, session.write(Part::Blob(blob)))).await??;
        let digest = seen.finish(len).map_err(|e| e.on(&file).on(name))?;
        let masked = masked.iter().map(|range| (range.start, range.end)).collect();
        self.tally(name, move |content| {
            content.blobs.insert(file, BlobContent { len, digest, masked });
        })
        .await?;
        Ok(len)
    }

    // Tells of the bytes of one part, while it goes on.
    fn progress(&self) -> impl FnMut(u64) + Send + 'static {
        let (watch, before, total) = (self.watch.clone(), self.done, Some(self.total));
        let mut told = 0;
        move |bytes| {
            if bytes - told >= PROGRESS_BYTES {
                told = bytes;
                watch.tell(Event::Progress { done: before + bytes, total });
            }
        }
    }

    async fn tally(
        &mut self,
        store: &str,
        change: impl FnOnce(&mut Content) + Send + 'static,
    ) -> Result<()> {
        let worker = self.worker;
        self.alongside(add(worker, store, change)).await?
    }

    // Does `work` while the batches under way go on; gives it up when one of them fails.
    async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            while let Poll::Ready(Some(write)) = pin!(&mut self.writes).poll_next(cx) {
                if let Err(error) = self.count(write) {
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn one_done(&mut self) -> Result<()> {
        match self.writes.next().await {
            Some(write) => self.count(write),
            None => Ok(()),
        }
    }

    fn count(&mut self, (place, weight, written): (usize, usize, Result<()>)) -> Result<()> {
        self.per_store[place] -= 1;
        self.bytes -= weight;
        written
    }
}

async fn add(
    worker: &Worker<Tallies>,
    store: &str,
    change: impl FnOnce(&mut Content) + Send + 'static,
) -> Result<()> {
    let store = store.to_owned();
    worker
        .call(move |tallies| {
            change(tallies.entry(store).or_default());
            Ok(())
        })
        .await
}

/// What went through a body.
struct Seen(Arc<Mutex<(MaskedHasher, u64)>>);

impl Seen {
    fn through(
        body: &mut ByteStream,
        masked: &[std::ops::Range<u64>],
        mut progress: impl FnMut(u64) + Send + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new((MaskedHasher::new(masked), 0)));
        let inside = Arc::clone(&seen);
        let whole = std::mem::replace(body, futures::stream::empty().boxed());
        *body = whole
            .inspect(move |piece| {
                if let (Ok(bytes), Ok(mut seen)) = (piece, inside.lock()) {
                    seen.0.update(bytes);
                    seen.1 += bytes.len() as u64;
                    progress(seen.1);
                }
            })
            .boxed();
        Self(seen)
    }

    // The digest; an error where the sink was content with less than all of it.
    fn finish(self, len: u64) -> Result<Sha256Digest> {
        let seen = self.0.lock().map_err(|_| Error::adapter("hashing a body panicked"))?;
        if seen.1 != len {
            let what = format!("the sink took {} of {len} bytes and was content", seen.1);
            return Err(Error::adapter(what));
        }
        Ok(seen.0.clone().finish())
    }
}
