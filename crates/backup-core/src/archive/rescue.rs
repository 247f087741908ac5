//! What is whole in a damaged archive, as parts that a sink takes.
//!
//! A batch is whole where its lines and all of its arrays are: a record without a vector that it
//! had is another record. Records whose schema is lost have no place to go. What no index page
//! describes has no store, and is not restored.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::Arc,
    thread,
};

use bytes::Bytes;
use futures::{SinkExt as _, Stream, StreamExt as _, channel::mpsc, executor::block_on};

use super::{
    assemble::Assembler,
    entry::{EntryHead, PartEntry, PartKind},
    salvage::{Salvage, SalvageReport, SalvagedPart, Visitor},
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    manifest::{CollectionManifest, Manifest, Preamble, StoreManifest},
    part::{
        Blob, BlobContent, EntryFacts, EntryKind, EntryPath, FileEntry, Part, Schema, byte_stream,
    },
    record::{MaskedHasher, RecordBatch, Sha256Digest, Tally, canonical},
};

/// Pieces of a body.
const PIECE: usize = 1 << 20;

/// What can be restored from a damaged archive.
#[derive(Debug, Clone)]
pub(crate) struct Inventory {
    /// The archive's, with what is lost taken away. Where the root is lost it is made up from
    /// what is found, and the stores have no kind.
    pub(crate) manifest: Manifest,
    pub(crate) report: SalvageReport,
}

impl Salvage {
    /// Reads everything, and counts what is whole.
    pub(crate) fn inventory(&self, cancel: &Cancel) -> Result<Inventory> {
        let mut count = Count { known: self.manifest(), ..Count::default() };
        let mut rescue = Rescue::new(&mut count);
        let mut report = self.walk(cancel, &mut rescue)?;
        rescue.end(self.manifest().is_some())?;
        for (what, reason) in rescue.left_out {
            report.lose(what, reason);
        }
        let stores = count.stores;
        let mut manifest = match (self.manifest(), count.preamble) {
            (Some(manifest), _) => manifest.clone(),
            (None, Some(preamble)) => Manifest::new(&preamble, self.codec()),
            (None, None) => {
                let what = "neither end of the archive says whose it is";
                return Err(Error::new(ErrorKind::Corrupt, what)
                    .advise("copy what is whole into a folder with salvage"));
            }
        };
        manifest.partial |= report.lost_count > 0;
        manifest.stores = stores;
        Ok(Inventory { manifest, report })
    }

    /// The parts that the [inventory](Self::inventory) counts, of these stores.
    pub(crate) fn stream(
        self: &Arc<Self>,
        stores: &[String],
        cancel: &Cancel,
    ) -> Result<impl Stream<Item = Result<(String, Part)>> + Send + use<>> {
        let (salvage, cancel) = (Arc::clone(self), cancel.clone());
        let stores: BTreeSet<String> = stores.iter().cloned().collect();
        let (sender, parts) = mpsc::channel(1);
        thread::Builder::new()
            .name("backup-salvage".into())
            .spawn(move || {
                let mut forward = Forward { stores, sender };
                let mut rescue = Rescue::new(&mut forward);
                let walked = salvage.walk(&cancel, &mut rescue);
                let ended = walked.and_then(|_| rescue.end(salvage.manifest().is_some()));
                if let Err(error) = ended {
                    // Nobody listens: the stream was dropped.
                    let _ = block_on(forward.sender.send(Err(error)));
                }
            })
            .map_err(|e| Error::io("could not start a thread", e))?;
        Ok(parts)
    }
}

/// What becomes of the whole parts.
trait Taker {
    fn preamble(&mut self, _: Preamble) {}
    fn schema(&mut self, store: &str, collection: &str, document: serde_json::Value) -> Result<()>;
    fn records(&mut self, store: &str, batch: RecordBatch) -> Result<()>;
    /// A file entry or a native blob; the content is already known to be right.
    fn body(&mut self, entry: &PartEntry, content: &mut dyn Read) -> Result<()>;
}

/// Puts batches together, and leaves out what is whole and of no use.
struct Rescue<'a> {
    taker: &'a mut dyn Taker,
    batch: Assembler,
    /// Path and identity of the batch under way.
    under_way: Option<(String, BatchId)>,
    /// An array of it is lost.
    spoilt: bool,
    schemas: BTreeSet<(String, String)>,
    left_out: Vec<(String, &'static str)>,
}

/// Store, collection, partition, number.
type BatchId = (String, String, String, u64);

impl<'a> Rescue<'a> {
    fn new(taker: &'a mut dyn Taker) -> Self {
        Self {
            taker,
            batch: Assembler::default(),
            under_way: None,
            spoilt: false,
            schemas: BTreeSet::new(),
            left_out: Vec::new(),
        }
    }

    /// Whether arrays of the last batch may have been lost is known from the root.
    fn end(&mut self, root: bool) -> Result<()> {
        if root { self.finish_batch() } else { self.drop_batch("its vectors may be lost") }
    }

    fn finish_batch(&mut self) -> Result<()> {
        let Some((path, _)) = self.under_way.take() else { return Ok(()) };
        let whole = self.batch.finish();
        if std::mem::take(&mut self.spoilt) {
            self.left_out.push((path, "vectors of these records are lost"));
            return Ok(());
        }
        match whole {
            Ok(Some((store, batch))) => self.taker.records(&store, batch),
            Ok(None) => Ok(()),
            Err(_) => {
                self.left_out.push((path, "its vectors do not fit its records"));
                Ok(())
            }
        }
    }

    fn drop_batch(&mut self, why: &'static str) -> Result<()> {
        let _ = self.batch.finish();
        self.spoilt = false;
        if let Some((path, _)) = self.under_way.take() {
            self.left_out.push((path, why));
        }
        Ok(())
    }

    fn part(&mut self, entry: &PartEntry, content: &mut dyn Read) -> Result<()> {
        if let PartKind::Vector { .. } = &entry.kind {
            if self.under_way.as_ref().map(|(_, id)| id) == batch_id(&entry.kind).as_ref() {
                self.batch.take(entry, whole(content)?)?;
            } else {
                self.left_out.push((entry.path.clone(), "the records of these vectors are lost"));
            }
            return Ok(());
        }
        self.finish_batch()?;
        match &entry.kind {
            PartKind::Preamble {} => {
                if let Ok(preamble) = Preamble::from_json(&whole(content)?) {
                    self.taker.preamble(preamble);
                }
            }
            PartKind::Schema { store, collection } => {
                let document = canonical::parse(&whole(content)?).map_err(|e| e.on(&entry.path))?;
                self.schemas.insert((store.clone(), collection.clone()));
                self.taker.schema(store, collection, document)?;
            }
            PartKind::Records { store, collection, .. } => {
                if !self.schemas.contains(&(store.clone(), collection.clone())) {
                    let why = "the description of its collection is lost";
                    self.left_out.push((entry.path.clone(), why));
                    return Ok(());
                }
                self.batch.take(entry, whole(content)?)?;
                self.under_way = batch_id(&entry.kind).map(|id| (entry.path.clone(), id));
            }
            PartKind::Entry { store, root, .. } => {
                if !self.schemas.contains(&(store.clone(), root.clone())) {
                    let why = "the description of its root is lost";
                    self.left_out.push((entry.path.clone(), why));
                    return Ok(());
                }
                self.taker.body(entry, content)?;
            }
            PartKind::Blob { .. } => self.taker.body(entry, content)?,
            _ => {}
        }
        Ok(())
    }
}

impl Visitor for Rescue<'_> {
    fn whole(&mut self, part: &SalvagedPart, content: &mut dyn Read) -> Result<()> {
        match &part.entry {
            Some(entry) => self.part(entry, content),
            None => {
                self.left_out.push((part.path.clone(), "nothing says which store it is of"));
                Ok(())
            }
        }
    }

    fn lost(&mut self, entry: &PartEntry) {
        let is_array = matches!(entry.kind, PartKind::Vector { .. });
        let id = batch_id(&entry.kind);
        self.spoilt |= is_array && self.under_way.as_ref().map(|(_, id)| id) == id.as_ref();
    }

    fn gap(&mut self) {
        let _ = self.drop_batch("its vectors may be lost");
    }
}

fn batch_id(kind: &PartKind) -> Option<BatchId> {
    match kind {
        PartKind::Records { store, collection, partition, number, .. }
        | PartKind::Vector { store, collection, partition, number, .. } => {
            Some((store.clone(), collection.clone(), partition.clone(), *number))
        }
        _ => None,
    }
}

fn whole(content: &mut dyn Read) -> Result<Bytes> {
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).map_err(|e| Error::io("the archive could not be read", e))?;
    Ok(bytes.into())
}

/// Counts.
#[derive(Default)]
struct Count<'a> {
    known: Option<&'a Manifest>,
    preamble: Option<Preamble>,
    stores: BTreeMap<String, StoreManifest>,
}

impl Count<'_> {
    fn store(&mut self, name: &str) -> &mut StoreManifest {
        let known = self.known.and_then(|manifest| manifest.stores.get(name));
        self.stores.entry(name.to_owned()).or_insert_with(|| {
            let mut store = known.cloned().unwrap_or_default();
            store.collections.clear();
            store.blobs.clear();
            (store.parts, store.bytes) = (0, 0);
            store
        })
    }

    fn collection(&mut self, store: &str, name: &str) -> &mut CollectionManifest {
        let known = self.known.and_then(|manifest| manifest.stores.get(store));
        let known = known.and_then(|store| store.collections.get(name));
        self.store(store).collections.entry(name.to_owned()).or_insert_with(|| {
            let mut collection = known.cloned().unwrap_or_default();
            collection.tally = Tally::new();
            collection.bytes = 0;
            collection
        })
    }

    fn weigh(&mut self, store: &str, bytes: u64) {
        let store = self.store(store);
        store.parts += 1;
        store.bytes += bytes;
    }
}

impl Taker for Count<'_> {
    fn preamble(&mut self, preamble: Preamble) {
        self.preamble = Some(preamble);
    }

    fn schema(&mut self, store: &str, collection: &str, _: serde_json::Value) -> Result<()> {
        self.collection(store, collection);
        self.weigh(store, 0);
        Ok(())
    }

    fn records(&mut self, store: &str, batch: RecordBatch) -> Result<()> {
        let bytes = batch.byte_size() as u64;
        let collection = self.collection(store, batch.collection());
        collection.tally.add_batch(&batch);
        collection.bytes += bytes;
        self.weigh(store, bytes);
        Ok(())
    }

    fn body(&mut self, entry: &PartEntry, content: &mut dyn Read) -> Result<()> {
        let store = entry.kind.store().unwrap_or_default().to_owned();
        let failed = |e| Error::io("the archive could not be read", e);
        match &entry.kind {
            PartKind::Entry { root, name, mode, modified, entry: head, .. } => {
                let path = EntryPath::new(name)?;
                let (len, sha256) = Sha256Digest::of_reader(content).map_err(failed)?;
                let facts = match head {
                    EntryHead::File => EntryFacts::File { len, sha256: &sha256 },
                    EntryHead::Directory => EntryFacts::Directory,
                    EntryHead::Symlink(target) => EntryFacts::Symlink { target },
                };
                let line = FileEntry::line(&path, *mode, *modified, facts);
                self.collection(&store, root).tally.add_line(&line);
            }
            PartKind::Blob { name, masked, .. } => {
                let ranges: Vec<_> = masked.iter().map(|(start, end)| *start..*end).collect();
                let mut hasher = MaskedHasher::new(&ranges);
                let mut piece = vec![0; PIECE];
                loop {
                    match content.read(&mut piece).map_err(failed)? {
                        0 => break,
                        read => hasher.update(&piece[..read]),
                    }
                }
                let blob = BlobContent {
                    len: entry.size,
                    digest: hasher.finish(),
                    masked: masked.clone(),
                };
                self.store(&store).blobs.insert(name.clone(), blob);
            }
            _ => {}
        }
        self.weigh(&store, entry.size);
        Ok(())
    }
}

/// Sends on.
struct Forward {
    stores: BTreeSet<String>,
    sender: mpsc::Sender<Result<(String, Part)>>,
}

impl Forward {
    fn send(&mut self, store: &str, part: Part) -> Result<()> {
        if !self.stores.contains(store) {
            return Ok(());
        }
        block_on(self.sender.send(Ok((store.to_owned(), part))))
            .map_err(|_| Error::new(ErrorKind::Cancelled, "the stream was dropped"))
    }
}

impl Taker for Forward {
    fn schema(&mut self, store: &str, collection: &str, document: serde_json::Value) -> Result<()> {
        let collection = collection.to_owned();
        self.send(store, Part::Schema(Schema { collection, document, info: Default::default() }))
    }

    fn records(&mut self, store: &str, batch: RecordBatch) -> Result<()> {
        self.send(store, Part::Records(batch))
    }

    fn body(&mut self, entry: &PartEntry, content: &mut dyn Read) -> Result<()> {
        let store = entry.kind.store().unwrap_or_default();
        if !self.stores.contains(store) {
            return Ok(());
        }
        let (mut pieces, body) = mpsc::channel(1);
        let body = body.boxed();
        let part = match entry.kind.clone() {
            PartKind::Blob { name, masked, metadata, .. } => {
                let masked = masked.iter().map(|(start, end)| *start..*end).collect();
                Part::Blob(Blob { name, len: Some(entry.size), masked, metadata, body })
            }
            PartKind::Entry { root, name, mode, modified, entry: head, .. } => {
                let path = EntryPath::new(&name)?;
                let kind = match head {
                    EntryHead::File if entry.size <= PIECE as u64 => {
                        EntryKind::File { len: entry.size, body: byte_stream(whole(content)?) }
                    }
                    EntryHead::File => EntryKind::File { len: entry.size, body },
                    EntryHead::Directory => EntryKind::Directory,
                    EntryHead::Symlink(target) => EntryKind::Symlink { target },
                };
                Part::Entry(FileEntry { root, path, mode, modified, kind })
            }
            _ => return Ok(()),
        };
        self.send(store, part)?;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = content.take(PIECE as u64).read_to_end(&mut piece);
            match read.map_err(|e| Error::io("the archive could not be read", e)) {
                Ok(0) => return Ok(()),
                // A body that was dropped is passed over.
                Ok(_) => _ = block_on(pieces.send(Ok(piece.into()))),
                Err(error) => {
                    let copy = Error::new(error.kind(), error.to_string());
                    let _ = block_on(pieces.send(Err(error)));
                    return Err(copy);
                }
            }
        }
    }
}
