//! What one side has, part by part.

use std::{
    collections::{BTreeMap, HashMap},
    hash::RandomState,
    mem,
    path::Path,
};

use futures::{FutureExt as _, StreamExt as _};
use sha2::{Digest as _, Sha256};

use super::spill::{Remembered, Spill};
use crate::{
    cancel::Cancel,
    error::Result,
    part::{BlobContent, ByteStream, Content, EntryFacts, EntryKind, FileEntry, Part},
    record::{MaskedHasher, RecordBatch, Sha256Digest, canonical},
    worker::{Worker, guarded},
};

/// A collection of a store.
pub(super) type Place = (String, String);

/// What one side has. Lives on the worker's thread.
pub(super) struct Gathered {
    /// Digests of everything that came, by store.
    pub(super) content: BTreeMap<String, Content>,
    /// Digests of the schema documents.
    pub(super) schemas: BTreeMap<Place, Sha256Digest>,
    /// The collections in the order in which they came: a record has the number of its own.
    pub(super) places: Vec<Place>,
    pub(super) spill: Spill,
    numbers: HashMap<Place, u32>,
}

impl Gathered {
    pub(super) fn new(dir: &Path, hasher: RandomState) -> Self {
        Self {
            content: BTreeMap::new(),
            schemas: BTreeMap::new(),
            places: Vec::new(),
            spill: Spill::new(dir, hasher),
            numbers: HashMap::new(),
        }
    }

    fn number(&mut self, store: &str, collection: &str) -> u32 {
        let place = (store.to_owned(), collection.to_owned());
        *self.numbers.entry(place).or_insert_with_key(|place| {
            self.places.push(place.clone());
            self.places.len() as u32 - 1
        })
    }

    fn schema(
        &mut self,
        store: &str,
        collection: &str,
        document: &serde_json::Value,
    ) -> Result<()> {
        let mut text = Vec::new();
        canonical::Writer::new(&mut text).value(document)?;
        let content = self.content.entry(store.to_owned()).or_default();
        content.collections.entry(collection.to_owned()).or_default();
        self.schemas.insert((store.into(), collection.into()), Sha256Digest::of(&text));
        Ok(())
    }

    fn records(&mut self, store: &str, batch: &RecordBatch) -> Result<()> {
        let number = self.number(store, batch.collection());
        let content = self.content.entry(store.to_owned()).or_default();
        let tally = content.collections.entry(batch.collection().to_owned()).or_default();
        let spill = &mut self.spill;
        let mut done = Ok(());
        tally.add_batch_with(batch, |record, line, vectors| {
            // A key is one JSON text, so two are never one.
            let key = match record.element_json() {
                Some(element) => format!("{} {element}", record.key_json()),
                None => record.key_json().to_owned(),
            };
            let key = key.as_bytes();
            let one = Remembered { collection: number, key, line, vectors };
            if done.is_ok() {
                done = spill.add(one);
            }
        });
        done
    }

    fn entry(&mut self, store: &str, root: &str, path: &[u8], line: &[u8]) -> Result<()> {
        let number = self.number(store, root);
        let content = self.content.entry(store.to_owned()).or_default();
        let line = content.collections.entry(root.to_owned()).or_default().line(line);
        self.spill.add(Remembered { collection: number, key: path, line, vectors: [0; 32] })
    }
}

/// Both sides, on a thread of their own: hashing is work.
pub(super) type Sides = Worker<[Gathered; 2]>;

/// Takes the parts of one side.
pub(super) struct Gathering<'a> {
    pub(super) sides: &'a Sides,
    /// Which of them.
    pub(super) side: usize,
    pub(super) cancel: &'a Cancel,
    pub(super) warnings: &'a mut Vec<String>,
}

impl Gathering<'_> {
    pub(super) async fn part(&mut self, store: &str, part: Part) -> Result<()> {
        let name = store.to_owned();
        match part {
            Part::Schema(schema) => {
                self.add(move |all| all.schema(&name, &schema.collection, &schema.document)).await
            }
            Part::Records(batch) => self.add(move |all| all.records(&name, &batch)).await,
            Part::Entry(entry) => self.entry(name, entry).await,
            Part::Blob(mut blob) => {
                let mut hasher = MaskedHasher::new(&blob.masked);
                let len = self.body(store, &mut blob.body, |piece| hasher.update(piece)).await?;
                let digest = hasher.finish();
                let content = BlobContent { len, digest, masked: Vec::new() };
                self.add(move |all| {
                    all.content.entry(name).or_default().blobs.insert(blob.name, content);
                    Ok(())
                })
                .await
            }
            Part::Notice(notice) => {
                if notice.kind.makes_partial() {
                    let what = format!("{store}: {}: {}", notice.subject, notice.detail);
                    self.warn(what);
                }
                Ok(())
            }
            Part::End(_) => Ok(()),
        }
    }

    async fn entry(&mut self, store: String, entry: FileEntry) -> Result<()> {
        let FileEntry { root, path, mode, modified, kind } = entry;
        let line = |facts: EntryFacts<'_>| FileEntry::line(&path, mode, modified, facts);
        let line = match kind {
            EntryKind::File { len, mut body } => {
                let mut hasher = Sha256::new();
                let given = self.body(&store, &mut body, |piece| hasher.update(piece)).await?;
                if given != len {
                    self.warn(format!("{store}: {path}: changed while it was read"));
                }
                line(EntryFacts::File { len: given, sha256: &Sha256Digest::finish(hasher) })
            }
            EntryKind::Directory => line(EntryFacts::Directory),
            EntryKind::Symlink { target } => line(EntryFacts::Symlink { target: &target }),
        };
        self.add(move |all| all.entry(&store, &root, path.as_bytes(), &line)).await
    }

    // Reads a body to its end; its length.
    async fn body(
        &self,
        store: &str,
        body: &mut ByteStream,
        mut take: impl FnMut(&[u8]),
    ) -> Result<u64> {
        let mut body = mem::replace(body, futures::stream::empty().boxed());
        let mut len = 0;
        while let Some(piece) = guarded(store, body.next().map(Option::transpose)).await? {
            self.cancel.check()?;
            take(&piece);
            len += piece.len() as u64;
        }
        Ok(len)
    }

    async fn add(
        &self,
        change: impl FnOnce(&mut Gathered) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let side = self.side;
        self.sides.call(move |sides| change(&mut sides[side])).await
    }

    // The first ones: a disk that fails has many.
    fn warn(&mut self, what: String) {
        const MOST: usize = 100;
        if self.warnings.len() < MOST {
            self.warnings.push(what);
        }
    }
}

/// A thread with nothing on either side yet.
pub(super) fn sides(dir: &Path) -> Result<Sides> {
    let dir = dir.to_owned();
    Worker::spawn("backup-kit diff", move || {
        let hasher = RandomState::new();
        let of = || Gathered::new(&dir, hasher.clone());
        Ok([of(), of()])
    })
}
