//! An archive of single records that somebody comes upon while doing something else.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{StreamExt as _, TryStreamExt as _, lock};

use super::{
    BackupOptions,
    ledger::Ledger,
    writer::{Closing, Job, Output, Writer},
};
use crate::{
    adapter::Description,
    archive::OutputFile,
    cancel::Cancel,
    catalog::{Catalog, CatalogLock},
    clock::{Clock, Timestamp},
    error::{ErrorKind, Result},
    event::Watch,
    manifest::{Manifest, Preamble, StoreConsistency, StoreManifest, TimeWindow},
    part::{CollectionEnd, EntryKind, FileEntry, Metadata, Part, Schema},
    record::{Edit, RecordBatch},
    select::Selection,
    source::{PinRequest, Pinned, SourceSession},
    stores::{Entry, Stores},
    worker::guarded,
};

/// The one partition of each store.
const PARTITION: &str = "touched";

/// What a store says of the collections of which single records are kept.
pub(crate) struct Known {
    entry: Arc<Entry>,
    description: Description,
    schemas: Vec<Schema>,
}

impl Known {
    /// Asks a store for the schemas of those of these collections that it has; `None` where it
    /// gives them otherwise than as records.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) async fn ask(
        entry: &Arc<Entry>,
        collections: &[String],
        avoid: Vec<PathBuf>,
        cancel: &Cancel,
    ) -> Result<Option<Self>> {
        let can = entry.source.capabilities();
        if !(can.records || can.entries) || !can.collections {
            return Ok(None);
        }
        let description = guarded(&entry.name, entry.source.describe()).await?;
        let mut schemas = Vec::new();
        for collection in collections {
            let mut request = PinRequest::new();
            request.avoid.clone_from(&avoid);
            request.collections = vec![collection.clone()];
            request.cancel = cancel.clone();
            let there = description.collections.iter().any(|known| known.name == *collection);
            match read(entry, &request).await {
                Ok(Found::Schema(schema)) => schemas.push(*schema),
                Ok(Found::Otherwise) => return Ok(None),
                Ok(Found::Nothing) if there => return Ok(None),
                Ok(Found::Nothing) => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
                // The merge will make it.
                Err(error) if error.kind() == ErrorKind::NotFound && !there => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Self { entry: Arc::clone(entry), description, schemas }))
    }
}

enum Found {
    Schema(Box<Schema>),
    /// It is not carried as records.
    Otherwise,
    Nothing,
}

// The schema of the one collection that is asked for.
async fn read(entry: &Entry, request: &PinRequest) -> Result<Found> {
    let name = &entry.name;
    let pinned = guarded(name, entry.source.pin(request)).await?;
    let (Pinned::Pinned { session, .. } | Pinned::Live { session, .. }) = pinned;
    let found = schema(name, &*session, &request.collections).await;
    let closed = guarded(name, session.close()).await;
    let found = found?;
    closed.map(|_| found)
}

// What stands before the first record.
async fn schema(name: &str, session: &dyn SourceSession, wanted: &[String]) -> Result<Found> {
    for partition in guarded(name, session.partitions()).await? {
        let mut found = Found::Nothing;
        loop {
            match guarded(name, session.next(&partition)).await? {
                Some(Part::Schema(schema)) if wanted.contains(&schema.collection) => {
                    found = Found::Schema(Box::new(schema));
                }
                Some(Part::Schema(_) | Part::Notice(_)) => {}
                Some(Part::Blob(_)) => return Ok(Found::Otherwise),
                Some(Part::Records(_) | Part::Entry(_) | Part::End(_)) | None => break,
            }
        }
        if matches!(found, Found::Schema(_)) {
            return Ok(found);
        }
    }
    Ok(Found::Nothing)
}

/// An archive into which records go one by one, of several stores, from several tasks.
pub(crate) struct SideArchive {
    writer: lock::Mutex<Writer>,
    known: Vec<Known>,
    // Large records that are in it: they are come upon again and again.
    large: Mutex<HashSet<(usize, String, String)>>,
    // Whether there is a record in it.
    holds: AtomicBool,
    preamble: Preamble,
    path: PathBuf,
    started: Timestamp,
    clock: Arc<dyn Clock>,
    // Longer than the writer: who takes it removes what is unfinished.
    _lock: CatalogLock,
}

impl SideArchive {
    /// Begins an archive in a catalog. Dropped before it is finished, there is none.
    ///
    /// # Errors
    /// A catalog that is locked, a disk that is full.
    pub(crate) async fn begin(
        stores: &Stores,
        mut known: Vec<Known>,
        dir: &Path,
        description: &str,
    ) -> Result<Self> {
        known.retain(|one| !one.schemas.is_empty());
        let catalog = Catalog::open(dir)?;
        let lock = catalog.lock()?;
        let clock = Arc::clone(&stores.clock);
        let started = clock.now();
        let mut preamble = Preamble::new(clock.new_id(), started, stores.application.clone());
        preamble.description = Some(description.to_owned());
        let options = BackupOptions::new().writer;
        let path = catalog.file(&stores.application.name, started, preamble.id, options.codec);
        let names: Vec<_> = known.iter().map(|one| one.entry.name.clone()).collect();
        let fields = stores.facts.fields.clone();
        let silent = Watch::default();
        let ledger = Ledger::new(&names, fields, Selection::new(), &[], silent.clone());
        let output = Output::File(OutputFile::create(&path, false)?);
        let mut writer = Writer::spawn(output, &preamble, &options, Vec::new(), ledger, silent)?;
        for (store, one) in known.iter().enumerate() {
            for schema in &one.schemas {
                writer.send(job(store, Part::Schema(schema.clone()))).await?;
            }
        }
        let (writer, large) = (lock::Mutex::new(writer), Mutex::default());
        let holds = AtomicBool::new(false);
        Ok(Self { writer, known, large, holds, preamble, path, started, clock, _lock: lock })
    }

    /// Keeps those of these records whose keys `touched` says are changed.
    ///
    /// # Errors
    /// An archive that cannot be written.
    pub(crate) async fn keep(
        &self,
        store: &str,
        records: Vec<RecordBatch>,
        touched: &HashSet<String>,
    ) -> Result<()> {
        let Some(place) = self.known.iter().position(|one| one.entry.name == store) else {
            return Ok(());
        };
        let again = self.again(place, &records, touched);
        for batch in records {
            let kept = batch.edit(|record| {
                let key = record.key_json();
                let keep = touched.contains(key) && !again.contains(key);
                Ok(if keep { Edit::Keep } else { Edit::Drop })
            })?;
            if !kept.is_empty() {
                self.holds.store(true, Ordering::Relaxed);
                self.writer.lock().await.send(job(place, Part::Records(kept))).await?;
            }
        }
        Ok(())
    }

    /// Keeps an entry, with its body.
    ///
    /// # Errors
    /// A body that cannot be read, an archive that cannot be written.
    pub(crate) async fn keep_entry(&self, store: &str, mut entry: FileEntry) -> Result<()> {
        let Some(place) = self.known.iter().position(|one| one.entry.name == store) else {
            return Ok(());
        };
        let body = match &mut entry.kind {
            EntryKind::File { body, .. } => {
                Some(std::mem::replace(body, futures::stream::empty().boxed()))
            }
            _ => None,
        };
        self.holds.store(true, Ordering::Relaxed);
        // Nothing may come between a file and its body.
        let mut writer = self.writer.lock().await;
        writer.send(job(place, Part::Entry(entry))).await?;
        let Some(mut body) = body else { return Ok(()) };
        while let Some(piece) = guarded(store, body.try_next()).await? {
            writer.send(Job::Data(piece)).await?;
        }
        writer.send(Job::BodyEnd).await
    }

    // Large records that are in the archive. Each of them is come upon whole as often as some of
    // its elements are.
    fn again(
        &self,
        place: usize,
        records: &[RecordBatch],
        touched: &HashSet<String>,
    ) -> HashSet<String> {
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        let elements = records.iter().flat_map(RecordBatch::iter);
        let keys: HashSet<_> = elements
            .filter(|record| record.element_json().is_some())
            .filter(|record| touched.contains(record.key_json()))
            .map(|record| (record.collection().to_owned(), record.key_json().to_owned()))
            .collect();
        let known = |(collection, key): (String, String)| {
            (!large.insert((place, collection, key.clone()))).then_some(key)
        };
        keys.into_iter().filter_map(known).collect()
    }

    /// Ends the archive: it is on the disk when this returns. `None` where nothing is in it, and
    /// so there is none.
    ///
    /// # Errors
    /// An archive that cannot be written.
    pub(crate) async fn finish(self, metadata: Metadata) -> Result<Option<PathBuf>> {
        let Self { writer, known, holds, preamble, path, started, clock, .. } = self;
        if !holds.into_inner() {
            return Ok(None);
        }
        let mut writer = writer.into_inner();
        let mut manifest = Manifest::new(&preamble, BackupOptions::new().writer.codec);
        let mut stores = Vec::new();
        let mut selection = Selection::new();
        for (store, Known { entry, description, schemas }) in known.into_iter().enumerate() {
            for schema in schemas {
                // One that says what it is not: a part, which is added and replaces nothing.
                selection = selection.collection(&entry.name, &schema.collection);
                let end =
                    CollectionEnd { collection: schema.collection, ..CollectionEnd::default() };
                writer.send(job(store, Part::End(end))).await?;
            }
            writer.send(Job::PartitionEnd { store, partition: PARTITION.into() }).await?;
            stores.push(StoreManifest {
                kind: entry.source.kind().to_owned(),
                engine: description.engine,
                engine_version: description.version,
                metadata: description.metadata,
                // Record by record, as they were come upon.
                consistency: StoreConsistency::Fuzzy,
                window: TimeWindow { start: started, end: clock.now() },
                ..StoreManifest::default()
            });
        }
        manifest.selection = selection.expressions();
        manifest.finished = clock.now();
        manifest.metadata = metadata;
        writer.finish(Closing { manifest, stores, notices: Vec::new() }).await?;
        Ok(Some(path))
    }
}

fn job(store: usize, part: Part) -> Job {
    Job::Part { store, partition: PARTITION.into(), part: Box::new(part) }
}
