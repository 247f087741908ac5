//! An adapter for a store in memory: for documentation, and for tests of hosts and engines.

mod data;
mod fail;
mod sink;
mod source;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::fail::Step;
use self::{
    data::{Data, Entry, Node, Record, StoredBlob},
    fail::{Failure, Hook},
    sink::Stage,
};
use crate::{
    adapter::{Adapter, Capabilities, CollectionDescription, Description},
    error::{Error, ErrorKind, Result},
    manifest::CollectionInfo,
    part::{Content, EntryPath},
    record::{BatchBuilder, ElementType, Key, RecordBatch},
};

/// A store in memory that can do everything an adapter may declare.
///
/// A value is a handle: clones share one store, which lives as long as any of them. What a
/// restore stages is part of the store, so a test can play a crash by dropping every
/// session, and go on with [`reattach`](crate::Sink::reattach). [`fail_at`](Self::fail_at)
/// and [`hook`](Self::hook) make any step fail.
///
/// ```
/// use backup_core::MemoryStore;
/// use serde_json::json;
///
/// let store = MemoryStore::new();
/// store.insert("notes", 1, json!({"title": "hello"}))?;
/// store.insert_with_vector("notes", 2, json!({}), "text", &[0.5, -1.0])?;
///
/// assert_eq!(store.get("notes", 1), Some(json!({"title": "hello"})));
/// assert_eq!(store.content().collections["notes"].records, 2);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Mutex<State>>);

struct State {
    kind: &'static str,
    engine_version: Option<String>,
    batch_records: usize,
    shards: usize,
    pinnable: bool,
    reachable: bool,
    failures: Vec<Failure>,
    hook: Option<Hook>,
    live: Data,
    // Counts the changes of `live`.
    version: u64,
    // By restore id.
    stages: BTreeMap<String, Stage>,
    lost_track: Option<String>,
}

/// Everything that a [`MemoryStore`] held at one moment, to be compared with another.
#[derive(Clone, PartialEq)]
pub struct MemorySnapshot(Data);

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            kind: "memory",
            engine_version: None,
            batch_records: 1000,
            shards: 1,
            pinnable: true,
            reachable: true,
            failures: Vec::new(),
            hook: None,
            live: Data::default(),
            version: 0,
            stages: BTreeMap::new(),
            lost_track: None,
        })))
    }

    /// Another [kind](Adapter::kind) than `memory`, to test several.
    #[must_use]
    pub fn with_kind(self, kind: &'static str) -> Self {
        self.lock().kind = kind;
        self
    }

    /// Says that its engine has this version; by default it has none.
    #[must_use]
    pub fn with_engine_version(self, version: impl Into<String>) -> Self {
        self.lock().engine_version = Some(version.into());
        self
    }

    /// At most this many records in a batch; 1000 by default.
    #[must_use]
    pub fn with_batch_records(self, records: usize) -> Self {
        self.lock().batch_records = records.max(1);
        self
    }

    /// Sessions deal the records of every collection out to this many partitions; 1 by
    /// default.
    #[must_use]
    pub fn with_partitions(self, partitions: usize) -> Self {
        self.lock().shards = partitions.max(1);
        self
    }

    /// Makes the `nth` call of `step` from now on fail, counted from 1, once.
    pub fn fail_at(&self, step: Step, nth: usize, kind: ErrorKind) {
        let countdown = Some(nth.max(1));
        self.lock().failures.push(Failure { step, countdown, kind });
    }

    /// Makes `step` fail from now on.
    pub fn fail_always(&self, step: Step, kind: ErrorKind) {
        self.lock().failures.push(Failure { step, countdown: None, kind });
    }

    /// Forgets every failure that was asked for, the [`hook`](Self::hook) too.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.failures.clear();
        state.hook = None;
        state.reachable = true;
        state.lost_track = None;
    }

    /// Calls `hook` before every step: to count, to cancel, to change the store in between,
    /// to panic. What it returns, the step returns.
    pub fn hook(&self, hook: impl Fn(Step) -> Result<()> + Send + Sync + 'static) {
        self.lock().hook = Some(Arc::new(hook));
    }

    /// Whether sessions read one moment, as they do by default, or the store as it changes.
    pub fn pinnable(&self, pinnable: bool) {
        self.lock().pinnable = pinnable;
    }

    /// Makes every step fail as if the store were down, until [`heal`](Self::heal).
    pub fn unreachable(&self) {
        self.lock().reachable = false;
    }

    /// Lets `reattach` answer [`Unknown`](crate::Reattached::Unknown) for every restore that
    /// is under way, until [`heal`](Self::heal).
    pub fn lose_track(&self, reason: impl Into<String>) {
        self.lock().lost_track = Some(reason.into());
    }

    /// Makes a collection, or gives one that is there another schema.
    pub fn create(
        &self,
        collection: impl Into<String>,
        document: serde_json::Value,
        info: CollectionInfo,
    ) {
        self.change(|live| {
            let collection = live.collection(&collection.into());
            collection.document = document;
            collection.info = info;
        });
    }

    /// Puts a record; its collection is made if it is not there.
    ///
    /// # Errors
    /// A value that is nested too deeply.
    pub fn insert(
        &self,
        collection: &str,
        key: impl Into<Key>,
        value: serde_json::Value,
    ) -> Result<()> {
        let mut builder = BatchBuilder::new(collection);
        builder.push(&key.into(), |json| json.value(&value))?;
        self.insert_batch(&builder.finish()?)
    }

    /// Puts a record with one dense `f32` vector.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_with_vector(
        &self,
        collection: &str,
        key: impl Into<Key>,
        value: serde_json::Value,
        name: &str,
        vector: &[f32],
    ) -> Result<()> {
        let mut builder = BatchBuilder::new(collection);
        let column = builder.dense(name, ElementType::F32, vector.len());
        builder.push(&key.into(), |json| json.value(&value))?;
        builder.set_f32(column, vector)?;
        self.insert_batch(&builder.finish()?)
    }

    /// Puts every record of a batch, with whatever vectors it has.
    ///
    /// # Errors
    /// None for a batch that a [`BatchBuilder`] built.
    pub fn insert_batch(&self, batch: &RecordBatch) -> Result<()> {
        self.change(|live| live.collection(batch.collection()).insert_batch(batch))
    }

    /// The value of a record.
    #[must_use]
    pub fn get(&self, collection: &str, key: impl Into<Key>) -> Option<serde_json::Value> {
        let state = self.lock();
        let record: &Record =
            state.live.collections.get(collection)?.records.get(&(key.into(), None))?;
        serde_json::from_str(&record.value).ok()
    }

    /// Removes a record, and says whether there was one.
    pub fn remove(&self, collection: &str, key: impl Into<Key>) -> bool {
        self.change(|live| {
            let records = live.collections.get_mut(collection).map(|c| &mut c.records);
            records.is_some_and(|records| records.remove(&(key.into(), None)).is_some())
        })
    }

    /// Removes a collection, and says whether there was one.
    pub fn remove_collection(&self, collection: &str) -> bool {
        self.change(|live| live.collections.remove(collection).is_some())
    }

    /// Puts a native blob.
    pub fn put_blob(&self, name: impl Into<String>, bytes: impl Into<Bytes>) {
        let blob =
            StoredBlob { bytes: bytes.into(), masked: Vec::new(), metadata: BTreeMap::new() };
        self.change(|live| live.blobs.insert(name.into(), blob));
    }

    /// The bytes of a native blob.
    #[must_use]
    pub fn blob(&self, name: &str) -> Option<Bytes> {
        self.lock().live.blobs.get(name).map(|blob| blob.bytes.clone())
    }

    /// Puts a file with mode `0o644` and modification time 0.
    pub fn put_file(&self, root: &str, path: EntryPath, bytes: impl Into<Bytes>) {
        self.put_entry(root, path, 0o644, Node::File(bytes.into()));
    }

    /// Puts a folder.
    pub fn put_directory(&self, root: &str, path: EntryPath) {
        self.put_entry(root, path, 0o755, Node::Directory);
    }

    /// Puts a symbolic link.
    pub fn put_symlink(&self, root: &str, path: EntryPath, target: impl Into<Vec<u8>>) {
        self.put_entry(root, path, 0o777, Node::Symlink(target.into()));
    }

    fn put_entry(&self, root: &str, path: EntryPath, mode: u32, node: Node) {
        let entry = Entry { mode, modified: (0, 0), node };
        self.change(|live| live.collection(root).entries.insert(path, entry));
    }

    /// The bytes of a file.
    #[must_use]
    pub fn file(&self, root: &str, path: &EntryPath) -> Option<Bytes> {
        match &self.lock().live.collections.get(root)?.entries.get(path)?.node {
            Node::File(bytes) => Some(bytes.clone()),
            Node::Directory | Node::Symlink(_) => None,
        }
    }

    /// Empties the store; what is staged stays.
    pub fn clear(&self) {
        self.change(|live| *live = Data::default());
    }

    /// Count and digests of everything live, computed anew.
    ///
    /// # Panics
    /// Never: what is stored was checked when it was put.
    #[must_use]
    pub fn content(&self) -> Content {
        self.lock().live.content(&Content::new()).expect("what is stored was checked")
    }

    /// Everything live, schema documents included, to compare with another moment.
    #[must_use]
    pub fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(self.lock().live.clone())
    }

    /// The restores whose staging area or pre-image is there. Empty once every restore is
    /// finished or aborted.
    #[must_use]
    pub fn traces(&self) -> Vec<String> {
        self.lock().stages.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a hook happens outside the lock; no change is made in two steps.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Data) -> T) -> T {
        let mut state = self.lock();
        state.version += 1;
        change(&mut state.live)
    }

    /// Begins a step: fails if it is to fail.
    fn step(&self, step: Step) -> Result<()> {
        let hook = {
            let mut state = self.lock();
            if !state.reachable {
                return Err(
                    Error::new(ErrorKind::Unreachable, "the store does not answer").on(state.kind)
                );
            }
            fail::due(&mut state.failures, step)?;
            state.hook.clone()
        };
        hook.map_or(Ok(()), |hook| hook(step))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryStore")
            .field("kind", &state.kind)
            .field("collections", &state.live.collections.keys())
            .field("blobs", &state.live.blobs.keys())
            .field("stages", &state.stages.keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MemorySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The whole would fill the screen; the digests tell whether two differ.
        self.0.content(&Content::new()).fmt(f)
    }
}

#[async_trait]
impl Adapter for MemoryStore {
    fn kind(&self) -> &'static str {
        self.lock().kind
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            records: true,
            dense_vectors: true,
            multi_vectors: true,
            sparse_vectors: true,
            elements: true,
            blobs: true,
            entries: true,
            pins: self.lock().pinnable,
            merge: true,
            undo: true,
            collections: true,
        }
    }

    async fn describe(&self) -> Result<Description> {
        self.step(Step::Describe)?;
        let state = self.lock();
        let mut description = Description::new("memory");
        description.version.clone_from(&state.engine_version);
        for (name, collection) in &state.live.collections {
            let mut one = CollectionDescription::new(name);
            one.records = Some((collection.records.len() + collection.entries.len()) as u64);
            description.collections.push(one);
        }
        Ok(description)
    }
}

#[cfg(test)]
mod tests;
