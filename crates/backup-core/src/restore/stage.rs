//! Parts from an archive into the staging areas of several stores.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, Either, select},
    stream::{BoxStream, FuturesUnordered},
};

use crate::{
    backup::side::SideArchive,
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    event::{Event, Watch},
    part::{Blob, BlobContent, Content, EntryFacts, EntryKind, EntryPath, FileEntry, Part},
    record::RecordBatch,
    references::Collector,
    sink::{Sink, SinkSession},
    worker::{Worker, guarded},
};

use super::{
    entries::{self, Blocked},
    merge::{self, MergedCollection},
    seen::Seen,
    vectors::RestoredVector,
    way::{Repeated, Way},
};

/// The parts of an archive, each with its store. A body is read to its end, or dropped,
/// before the next part is asked for.
pub(crate) type Parts = BoxStream<'static, Result<(String, Part)>>;

// Batches on their way into the stores: bounded in bytes, or one of any size.
const IN_FLIGHT_BYTES: usize = 32 << 20;
const IN_FLIGHT: usize = 8;
// Long parts tell how far they are each time that so much went through.
const PROGRESS_BYTES: u64 = 1 << 20;

type Write<'a> = BoxFuture<'a, (usize, usize, Result<()>)>;

/// The way of one store's parts.
#[derive(Clone, Copy)]
pub(crate) struct Lane<'a> {
    /// The store.
    pub(crate) name: &'a str,
    /// Its name in the archive.
    pub(crate) from: &'a str,
    pub(crate) sink: &'a dyn Sink,
    pub(crate) session: &'a dyn SinkSession,
    /// `None`: parts are written as they come.
    pub(crate) way: Option<&'a Arc<Way>>,
    /// Records are counted and nothing is written.
    pub(crate) only_looks: bool,
    /// What is told of everything that is written.
    pub(crate) references: &'a Arc<Mutex<Collector>>,
    /// Takes live records before others are written in their place.
    pub(crate) undo: Option<&'a SideArchive>,
}

impl Lane<'_> {
    fn told(&self, tell: impl FnOnce(&mut Collector)) {
        tell(&mut self.references.lock().unwrap_or_else(PoisonError::into_inner));
    }

    // The references of a batch that is written: work for a thread.
    fn pointing(&self, batch: RecordBatch) -> impl FnOnce() + Send + 'static {
        let (references, store) = (Arc::clone(self.references), self.name.to_owned());
        move || {
            let mut references = references.lock().unwrap_or_else(PoisonError::into_inner);
            references.batch(&store, &batch);
        }
    }
}

/// What a store was given, added up.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    /// What came out of the archive.
    pub(crate) came: Content,
    /// What was written; only where it may be something else.
    pub(crate) written: Content,
    pub(crate) repeated: Repeated,
    pub(crate) merged: BTreeMap<String, MergedCollection>,
    /// By collection and name, those that were left out or made again.
    pub(crate) vectors: BTreeMap<String, BTreeMap<String, RestoredVector>>,
}

impl Tallies {
    fn tell(&mut self, collection: String, vectors: BTreeMap<String, RestoredVector>) {
        let of = self.vectors.entry(collection).or_default();
        for (name, vector) in vectors {
            match of.get_mut(&name) {
                Some(known) => known.add(vector),
                None => _ = of.insert(name, vector),
            }
        }
    }
}

/// Writes every part into the session of its store and returns what went in, in the order of
/// the lanes.
///
/// Batches are written several at once; everything else alone and in its order, because the
/// [contract](SinkSession::write) says so. After an error, writes under way are waited for,
/// so that an abort meets a store at rest.
pub(crate) async fn stage(
    lanes: &[Lane<'_>],
    mut parts: Parts,
    total: u64,
    watch: &Watch,
    cancel: &Cancel,
) -> Result<Vec<Tallies>> {
    // Hashing, and looking into records, is work for a thread of its own.
    let places = lanes.len();
    let worker = Worker::spawn("backup-kit tally", move || {
        Ok(std::iter::repeat_with(Tallies::default).take(places).collect::<Vec<_>>())
    })?;
    let mut stage = Stage {
        lanes,
        worker: &worker,
        writes: FuturesUnordered::new(),
        per_store: vec![0; places],
        blocked: vec![None; places],
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
    lanes: &'a [Lane<'a>],
    worker: &'a Worker<Vec<Tallies>>,
    writes: FuturesUnordered<Write<'a>>,
    per_store: Vec<usize>,
    // By store: below these folders nothing can be written.
    blocked: Vec<Blocked>,
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
            let place = self.lanes.iter().position(|lane| lane.from == store);
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
        let Lane { name, session, way, only_looks, .. } = self.lanes[place];
        if let (Some(way), Some(collection)) = (way, collection_of(&part))
            && !way.takes(collection)
        {
            return Ok(());
        }
        if only_looks && matches!(part, Part::Blob(_)) {
            return Ok(());
        }
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
                if let Some(part) = self.prepared(place, other).await?
                    && !only_looks
                {
                    self.alongside(guarded(name, session.write(part))).await??;
                }
            }
        }
        self.done += bytes;
        let (done, total, store) = (self.done, Some(self.total), name.to_owned());
        self.watch.tell(Event::Part { store, collection, records, bytes, done, total });
        Ok(())
    }

    // A part without records or body, as it is to be written.
    async fn prepared(&mut self, place: usize, part: Part) -> Result<Option<Part>> {
        let Lane { name, sink, way, .. } = self.lanes[place];
        let Part::Schema(schema) = part else {
            return match way {
                Some(way) => way.other(part).map(Some),
                None => Ok(Some(part)),
            };
        };
        let came = schema.collection.clone();
        let schema = match way {
            Some(way) => way.schema(schema, sink).map_err(|e| e.on(name))?,
            None => Some(schema),
        };
        let written = schema.as_ref().filter(|_| way.is_some()).map(|s| s.collection.clone());
        let left_out = way.map(|way| way.left_out(&came)).unwrap_or_default();
        self.tally(place, move |tallies| {
            tallies.came.collections.entry(came).or_default();
            if let Some(written) = written {
                tallies.written.collections.entry(written.clone()).or_default();
                if !left_out.is_empty() {
                    tallies.tell(written, left_out);
                }
            }
        })
        .await?;
        Ok(schema.map(Part::Schema))
    }

    async fn records(&mut self, place: usize, batch: RecordBatch) -> Result<()> {
        let weight = batch.byte_size();
        while !self.writes.is_empty()
            && (self.writes.len() >= IN_FLIGHT || self.bytes + weight > IN_FLIGHT_BYTES)
        {
            self.one_done().await?;
        }
        let lane = self.lanes[place];
        let Lane { name, session, way, .. } = lane;
        let worker = self.worker;
        self.per_store[place] += 1;
        self.bytes += weight;
        let watch = self.watch.clone();
        let write = async move {
            let written = match way {
                None => {
                    let (copy, pointing) = (batch.clone(), lane.pointing(batch.clone()));
                    let tally = add(worker, place, move |tallies| {
                        add_batch(&mut tallies.came, &copy);
                        pointing();
                    });
                    let write = guarded(name, session.write(Part::Records(batch)));
                    both(write, tally).await
                }
                Some(way) => on_its_way(worker, place, lane, way, batch, &watch).await,
            };
            (place, weight, written)
        };
        self.writes.push(write.boxed());
        Ok(())
    }

    async fn entry(&mut self, place: usize, mut entry: FileEntry) -> Result<u64> {
        let lane = self.lanes[place];
        let Lane { name, session, way, only_looks, .. } = lane;
        let (came, path) = (entry.root.clone(), entry.path.clone());
        let (mode, modified) = (entry.mode, entry.modified);
        let written = way.and_then(|way| way.name(&came));
        if let Some(name) = &written {
            entry.root.clone_from(name);
        }
        let (mut len, mut seen, mut target) = (0, None, None);
        match &mut entry.kind {
            EntryKind::File { len: told, body } => {
                len = *told;
                seen = Some(Seen::through(body, &[], self.progress()));
            }
            EntryKind::Symlink { target: told } => target = Some(told.clone()),
            EntryKind::Directory => {}
        }
        let mut left = Some(entry);
        if let Some(way) = way
            && way.merges
            && let Some(entry) = left.take()
        {
            let (root, mut blocked) = (entry.root.clone(), self.blocked[place].take());
            let watch = self.watch;
            let resolved = entries::resolve(lane, way, &came, entry, &mut blocked, watch);
            let (entry, merged) = self.alongside(resolved).await??;
            self.blocked[place] = blocked;
            left = entry;
            let add = move |tallies: &mut Tallies| {
                tallies.merged.entry(root).or_default().add(merged);
            };
            self.tally(place, add).await?;
        }
        if only_looks {
            return Ok(len);
        }
        let left_as = left.as_ref().map(|entry| entry.path.clone());
        if let Some(entry) = left {
            self.alongside(guarded(name, session.write(Part::Entry(entry)))).await??;
        }
        let sha256 = seen.map(|seen| seen.finish(len)).transpose();
        let sha256 = sha256.map_err(|e| e.on(&path).on(name))?;
        let line = |path: &EntryPath| {
            let facts = match (&sha256, &target) {
                (Some(sha256), _) => EntryFacts::File { len, sha256 },
                (None, Some(target)) => EntryFacts::Symlink { target },
                (None, None) => EntryFacts::Directory,
            };
            FileEntry::line(path, mode, modified, facts)
        };
        let (line, written_line) = (line(&path), left_as.as_ref().map(&line));
        let root = written.clone().unwrap_or_else(|| came.clone());
        if let Some(path) = &left_as {
            lane.told(|references| references.entry(name, &root, path));
        }
        self.tally(place, move |tallies| {
            tallies.came.collections.entry(came).or_default().add_line(&line);
            if let (Some(root), Some(line)) = (written, written_line) {
                tallies.written.collections.entry(root).or_default().add_line(&line);
            }
        })
        .await?;
        Ok(len)
    }

    async fn blob(&mut self, place: usize, mut blob: Blob) -> Result<u64> {
        let Lane { name, session, way, .. } = self.lanes[place];
        let (file, masked) = (blob.name.clone(), blob.masked.clone());
        let len = blob.len.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "an archive's native file has no length").on(&file)
        })?;
        let seen = Seen::through(&mut blob.body, &masked, self.progress());
        self.alongside(guarded(name, session.write(Part::Blob(blob)))).await??;
        let digest = seen.finish(len).map_err(|e| e.on(&file).on(name))?;
        let masked = masked.iter().map(|range| (range.start, range.end)).collect();
        let content = BlobContent { len, digest, masked };
        let written = way.is_some();
        self.tally(place, move |tallies| {
            if written {
                tallies.written.blobs.insert(file.clone(), content.clone());
            }
            tallies.came.blobs.insert(file, content);
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
        place: usize,
        change: impl FnOnce(&mut Tallies) + Send + 'static,
    ) -> Result<()> {
        let worker = self.worker;
        self.alongside(add(worker, place, change)).await?
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
    worker: &Worker<Vec<Tallies>>,
    place: usize,
    change: impl FnOnce(&mut Tallies) + Send + 'static,
) -> Result<()> {
    worker
        .call(move |tallies| {
            change(&mut tallies[place]);
            Ok(())
        })
        .await
}

fn add_batch(content: &mut Content, batch: &RecordBatch) {
    content.collections.entry(batch.collection().to_owned()).or_default().add_batch(batch);
}

// A write that fails has failed at once; one that does not is waited for.
async fn both(
    write: impl Future<Output = Result<()>>,
    tally: impl Future<Output = Result<()>>,
) -> Result<()> {
    match select(pin!(write), pin!(tally)).await {
        Either::Left((written, tally)) => {
            written?;
            tally.await
        }
        Either::Right((tallied, write)) => write.await.and(tallied),
    }
}

// The collection of the archive that a part belongs to.
fn collection_of(part: &Part) -> Option<&str> {
    match part {
        Part::Schema(schema) => Some(&schema.collection),
        Part::Records(batch) => Some(batch.collection()),
        Part::Entry(entry) => Some(&entry.root),
        Part::End(end) => Some(&end.collection),
        Part::Blob(_) | Part::Notice(_) => None,
    }
}

// Brings a batch through everything that was asked for, and writes what is left of it.
async fn on_its_way(
    worker: &Worker<Vec<Tallies>>,
    place: usize,
    lane: Lane<'_>,
    way: &Arc<Way>,
    batch: RecordBatch,
    watch: &Watch,
) -> Result<()> {
    let Lane { name, session, only_looks, .. } = lane;
    let collection = batch.collection().to_owned();
    let inner = Arc::clone(way);
    let batch = worker.call(move |tallies| {
        let Tallies { came, repeated, .. } = &mut tallies[place];
        add_batch(came, &batch);
        inner.records(&batch, repeated)
    });
    let (mut batch, texts) = batch.await.map_err(|e| e.on(name))?;
    if !texts.is_empty() && !only_looks {
        let made;
        (batch, made) = guarded(name, way.embed(&collection, batch, texts)).await?;
        let live = batch.collection().to_owned();
        add(worker, place, move |tallies| tallies.tell(live, made)).await?;
    }
    let mut batches = vec![batch];
    if way.merges {
        let batch = batches.remove(0);
        let live = batch.collection().to_owned();
        let merged;
        (batches, merged) = merge::resolve(lane, way, &collection, batch, watch).await?;
        add(worker, place, move |tallies| tallies.merged.entry(live).or_default().add(merged))
            .await?;
    }
    if only_looks {
        return Ok(());
    }
    for batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
        let (copy, pointing) = (batch.clone(), lane.pointing(batch.clone()));
        let tally = add(worker, place, move |tallies| {
            add_batch(&mut tallies.written, &copy);
            pointing();
        });
        let write = guarded(name, session.write(Part::Records(batch)));
        both(write, tally).await?;
    }
    Ok(())
}
