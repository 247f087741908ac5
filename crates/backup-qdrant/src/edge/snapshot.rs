//! Native snapshots of a server, read without one.

use std::path::Path;

use backup_core::{
    Error, ErrorKind, Result, Schema,
    record::{RecordBatch, Tally},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    config,
    engine::Engine,
    files::fail,
    scroll::{self, Scroll},
    unpack::{self, KeyShards},
};
use crate::{
    schema::{Document, VectorForm},
    shard_key::{KeyedShards, ShardKey},
};

/// A native snapshot that a server made, of a collection or of one shard, opened with the
/// embedded engine: to see that a backup is good where no server runs.
///
/// The snapshot is unpacked into a temporary folder, which goes when this is dropped. It is not
/// trusted: names that lead out of that folder, links and files of other kinds are refused.
/// What is in the files is the engine's affair; one that it panics on is an error.
///
/// ```no_run
/// use backup_qdrant::edge::Snapshot;
///
/// let snapshot = Snapshot::open("notes.snapshot", std::env::temp_dir())?;
/// println!("{} points in {} shards", snapshot.count()?, snapshot.shards());
/// // Equal to the manifest's, if the collection was backed up as records at the same moment.
/// println!("{}", snapshot.tally()?.digest);
/// # Ok::<(), backup_core::Error>(())
/// ```
pub struct Snapshot {
    // Closed before the folder is removed. Those of one shard key follow each other.
    shards: Vec<Engine>,
    keys: Vec<Option<ShardKey>>,
    document: Document,
    forms: Vec<VectorForm>,
    _folder: TempDir,
}

/// Of which shard a shard's own snapshot is.
#[derive(Debug, Clone)]
pub(crate) struct OfShard {
    pub(crate) number: u32,
    pub(crate) key: Option<ShardKey>,
}

/// Where a reader of a snapshot is.
pub(crate) struct Cursor {
    shard: usize,
    scroll: Scroll,
}

impl Snapshot {
    /// Unpacked files may have so many bytes together, holes included: 1 TiB. The engine makes
    /// files of 32 MiB that are mostly holes.
    pub const DEFAULT_LIMIT: u64 = 1 << 40;

    /// Unpacks a snapshot below the folder `scratch` and opens it.
    ///
    /// # Errors
    /// A file that is no snapshot, is [damaged](ErrorKind::Corrupt) or
    /// [hostile](ErrorKind::Hostile); one of a version that this engine cannot read.
    pub fn open(path: impl AsRef<Path>, scratch: impl AsRef<Path>) -> Result<Self> {
        Self::open_limited(path, scratch, Self::DEFAULT_LIMIT)
    }

    /// As [`open`](Self::open), with another limit than [`DEFAULT_LIMIT`](Self::DEFAULT_LIMIT).
    ///
    /// # Errors
    /// As [`open`](Self::open); [`LimitExceeded`](ErrorKind::LimitExceeded).
    pub fn open_limited(
        path: impl AsRef<Path>,
        scratch: impl AsRef<Path>,
        limit: u64,
    ) -> Result<Self> {
        Self::of_files(&[(None, path.as_ref())], scratch.as_ref(), limit)
    }

    /// The snapshot of a collection; or those of its shards, of which each says nothing of the others.
    pub(crate) fn of_files(
        files: &[(Option<OfShard>, &Path)],
        scratch: &Path,
        limit: u64,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(".backup-kit-snapshot-")
            .tempdir_in(scratch)
            .map_err(fail("could not make a folder", scratch))?;
        let (mut numbered, mut config, mut payload_index) = (Vec::new(), None, None);
        let mut keys = Vec::new();
        for (of, path) in files {
            let within = folder.path().join(numbered.len().to_string());
            let mut unpacked = unpack::unpack(path, &within, limit)?;
            let described = unpacked.config.clone().unwrap_or_default();
            if !(Document { config: described, ..Document::default() }).is_keyed() {
                unpacked.keys.clear();
            }
            for (number, shard) in unpacked.shards {
                let named = unpacked.keys.iter().find(|of| of.shard_ids.contains(&number));
                let key = named.map(|of| of.key.clone());
                let of = of.clone().unwrap_or(OfShard { number, key });
                numbered.push((of.key, of.number, open(&shard, path)?));
            }
            config = unpacked.config.or(config);
            payload_index = unpacked.payload_index.or(payload_index);
            keys.extend(unpacked.keys);
        }
        numbered.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let (shard_keys, shards): (Vec<_>, Vec<_>) =
            numbered.into_iter().map(|(key, _, shard)| (key, shard)).unzip();
        let mut document = document(&shards, config, payload_index)?;
        if document.is_keyed() {
            if shard_keys.iter().any(Option::is_none) {
                let what = "a snapshot of a collection with shard keys does not name them all";
                let of = files.first().map(|(_, path)| path.display().to_string());
                return Err(Error::new(ErrorKind::Corrupt, what).on(of.unwrap_or_default()));
            }
            document.shard_keys = described(keys);
        }
        let forms = document.forms()?;
        Ok(Self { shards, keys: shard_keys, document, forms, _folder: folder })
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// How many points there are; one that two shards hold counts once, but not where each has a
    /// shard key of its own.
    ///
    /// # Errors
    /// Points that cannot be read.
    pub fn count(&self) -> Result<u64> {
        let counts = self
            .shards
            .iter()
            .enumerate()
            .map(|(number, shard)| scroll::count(shard, self.earlier(number)));
        counts.sum()
    }

    /// The shards before this one that may hold points of it: while shards are moved or divided.
    fn earlier(&self, number: usize) -> &[Engine] {
        let first = self.keys.iter().position(|key| *key == self.keys[number]);
        &self.shards[first.unwrap_or(number)..number]
    }

    /// Count and digests of the points, as a backup of records has them.
    ///
    /// # Errors
    /// Points that cannot be read.
    pub fn tally(&self) -> Result<Tally> {
        let mut tally = Tally::new();
        for batch in self.batches("") {
            tally.add_batch(&batch?);
        }
        Ok(tally)
    }

    /// What recreates the collection, which is called `collection`. A shard's own snapshot says
    /// less than that of its collection.
    ///
    /// # Errors
    /// A description that cannot be read.
    pub fn schema(&self, collection: &str) -> Result<Schema> {
        self.document.part(collection, None)
    }

    /// The points as records of `collection`, batch by batch; each point once.
    pub fn batches(&self, collection: &str) -> impl Iterator<Item = Result<RecordBatch>> + '_ {
        let mut cursor = self.cursor(collection, &self.forms);
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let next = self.next_batch(&mut cursor).transpose();
            ended = !matches!(next, Some(Ok(_)));
            next
        })
    }

    /// The beginning, for records of `collection` with vectors of these forms.
    pub(crate) fn cursor(&self, collection: &str, forms: &[VectorForm]) -> Cursor {
        let mut scroll = Scroll::new(collection, forms);
        scroll.again(self.keys.first().cloned().flatten());
        Cursor { shard: 0, scroll }
    }

    /// The next batch; `None` at the end.
    pub(crate) fn next_batch(&self, cursor: &mut Cursor) -> Result<Option<RecordBatch>> {
        while let Some(shard) = self.shards.get(cursor.shard) {
            if let Some(batch) = cursor.scroll.next(shard, self.earlier(cursor.shard))? {
                return Ok(Some(batch));
            }
            cursor.shard += 1;
            cursor.scroll.again(self.keys.get(cursor.shard).cloned().flatten());
        }
        Ok(None)
    }
}

fn open(shard: &Path, snapshot: &Path) -> Result<Engine> {
    Engine::open(shard, None).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "the engine cannot open a snapshot")
            .on(snapshot.display())
            .advise("if it is of a newer server, restore it there")
            .because(error)
    })
}

/// Shard keys in the order of their shards.
fn described(mut keys: Vec<KeyShards>) -> Vec<KeyedShards> {
    keys.sort_by_key(|of| of.shard_ids.iter().min().copied());
    let described = keys.into_iter().map(|of| KeyedShards {
        shards_number: of.shard_ids.len().try_into().unwrap_or(u32::MAX),
        key: of.key,
    });
    described.collect()
}

fn document(
    shards: &[Engine],
    config: Option<Value>,
    payload_index: Option<Value>,
) -> Result<Document> {
    let mut document = Document::default();
    for shard in shards {
        let own = shard.call("a snapshot could not be described", |shard| {
            Ok(config::document(None, &shard.config(), &shard.info().payload_schema))
        })?;
        document.config = own.config;
        document.payload_indexes.extend(own.payload_indexes);
    }
    if let Some(mut config) = config {
        // Tells one collection from a later one of its name.
        config.as_object_mut().and_then(|config| config.remove("uuid"));
        document.config = config;
    }
    if let Some(schema) = payload_index {
        let indexes = schema.get("schema").cloned().unwrap_or_else(|| json!({}));
        document.payload_indexes = serde_json::from_value(indexes).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "the payload indexes in a snapshot cannot be read")
                .because(e)
        })?;
    }
    Ok(document)
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({} shards)", self.shards.len())
    }
}
