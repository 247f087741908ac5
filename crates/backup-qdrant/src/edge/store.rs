//! A shard that the host works with and that is backed up and restored.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use async_trait::async_trait;
use backup_core::{
    Adapter, Capabilities, CollectionDescription, Description, Error, ErrorKind, Result, Worker,
};
use qdrant_edge::{EdgeConfig, EdgeShard};

use super::{
    config, copy, engine::Engine, files::fail, note::Note, scroll, stage::Stage, staging::Staging,
};
use crate::{KIND, schema::Document};

/// The version of the engine that is linked: the crate is pinned to it.
const ENGINE_VERSION: &str = "0.7.0";

/// A folder with one shard of the embedded engine.
///
/// Only one handle of the engine may have a shard open, so the store owns it and the host works
/// through [`shard`](Self::shard). Clones share it: give one to backup-kit and keep one.
///
/// ```
/// use backup_qdrant::edge::{EdgeStore, qdrant_edge::*};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("memory");
/// let memory = EdgeStore::open(&path)?; // may be empty
/// let vectors = EdgeVectorParams::builder(4, Distance::Cosine).build();
/// memory.create(EdgeConfig::builder().vector("text", vectors).build())?;
///
/// let vectors = Vectors::new_named([("text", vec![0.1, 0.2, 0.3, 0.4])]);
/// let point = PointStruct::new(7, vectors, serde_json::json!({"title": "hello"}));
/// let points = PointInsertOperations::PointsList(vec![point.into()]);
/// let upsert = PointOperations::UpsertPoints(points);
/// memory.shard()?.update(UpdateOperation::PointOperation(upsert)).unwrap();
/// assert_eq!(memory.shard()?.info().points_count, 1);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone)]
pub struct EdgeStore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) collection: String,
    pub(crate) model: Option<String>,
    pub(crate) other_vectors: bool,
}

/// What all clones have in common.
pub(crate) struct Shared {
    /// Absolute.
    pub(crate) path: PathBuf,
    live: RwLock<Option<Engine>>,
    // Restores that are under way in this process.
    stages: Mutex<BTreeMap<PathBuf, Weak<Mutex<Staging>>>>,
}

impl EdgeStore {
    /// Opens the shard of a folder. Where there is none yet the store is empty, until a shard
    /// is [created](Self::create) or restored.
    ///
    /// What a crash within a restore left half-done is put right first; the restore itself is
    /// then [resumed](backup_core::Stores::resume).
    ///
    /// # Errors
    /// A shard that cannot be opened, or that another handle or process
    /// [has open](ErrorKind::Locked); a folder whose parent does not exist.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = absolute(path.as_ref())?;
        for stage in Stage::left_behind(&path) {
            stage.settle()?;
        }
        let live = holds_shard(&path).then(|| Engine::open(&path, None)).transpose()?;
        let name = path.file_name().unwrap_or_default();
        let collection = name.to_string_lossy().into_owned();
        let shared = Shared { path, live: RwLock::new(live), stages: Mutex::default() };
        let shared = Arc::new(shared);
        Ok(Self { shared, collection, model: None, other_vectors: false })
    }

    /// Under which name the points stand in an archive; the folder's, if nothing is said.
    ///
    /// An archive's collection is restored whatever it is called there.
    #[must_use]
    pub fn collection(mut self, name: impl Into<String>) -> Self {
        self.collection = name.into();
        self
    }

    /// The model that makes the vectors: it goes into the manifest, and a restore compares it with
    /// the archive's. Without it the model is the one that a collection's metadata named, where the
    /// shard was restored from a server's.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Lets a restore replace a shard whose vectors have another dimension, distance, type or model
    /// than those of the archive. By default that is refused, because an application that embeds
    /// with another model finds nothing in such vectors.
    #[must_use]
    pub fn accept_other_vectors(mut self) -> Self {
        self.other_vectors = true;
        self
    }

    /// Makes a shard, unless there is one; whether it was made.
    ///
    /// # Errors
    /// A configuration that the engine refuses; a folder that cannot be written.
    pub fn create(&self, config: EdgeConfig) -> Result<bool> {
        config
            .vectors
            .keys()
            .chain(config.sparse_vectors.keys())
            .try_for_each(|name| config::check_name(name))?;
        let mut live = self.shared.write();
        if live.is_some() {
            return Ok(false);
        }
        let path = &self.shared.path;
        match fs::create_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(fail("could not make a folder", path)(e));
            }
            _ => {}
        }
        *live = Some(Engine::create(path, config)?);
        Ok(true)
    }

    /// The shard, to work with. Many threads may at once.
    ///
    /// Waits while a backup copies the shard and while a restore switches to another, and those
    /// wait for it: so hold it for one piece of work, not for long, and not while the same
    /// thread backs up or restores.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): the store is empty.
    pub fn shard(&self) -> Result<Shard<'_>> {
        let live = self.shared.read();
        let Some(engine) = &*live else {
            return Err(Error::new(ErrorKind::NotFound, "there is no shard")
                .on(self.shared.path.display())
                .advise("create one, or restore one"));
        };
        Ok(Shard { shard: engine.shard()?, _live: live })
    }
}

impl Shared {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Option<Engine>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Option<Engine>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens what is live now; nothing if that is no shard.
    pub(crate) fn reopen(&self, live: &mut Option<Engine>) -> Result<()> {
        if live.is_none() && holds_shard(&self.path) {
            *live = Some(Engine::open(&self.path, None)?);
        }
        Ok(())
    }

    /// What recreates the shard as it is.
    pub(crate) fn document(&self, engine: &Engine) -> Result<Document> {
        let note = Note::read(&self.path)?;
        let kept = note.and_then(|note| note.document);
        engine.call("a shard could not be described", |shard| {
            Ok(config::document(kept.as_ref(), &shard.config(), &shard.info().payload_schema))
        })
    }

    /// The one restore of a stage in this process: a second session waits for what the first
    /// has begun.
    pub(crate) fn staging(
        self: &Arc<Self>,
        stage: &Stage,
        make: impl FnOnce() -> Staging,
    ) -> Arc<Mutex<Staging>> {
        let mut stages: MutexGuard<'_, _> =
            self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.retain(|_, staging| staging.strong_count() > 0);
        if let Some(known) = stages.get(stage.folder()).and_then(Weak::upgrade) {
            return known;
        }
        let staging = Arc::new(Mutex::new(make()));
        stages.insert(stage.folder().to_owned(), Arc::downgrade(&staging));
        staging
    }
}

/// A shard that the host works with: all of the engine's own interface.
pub struct Shard<'a> {
    // Dropped before the lock, so that nobody finds it still in use.
    shard: Arc<EdgeShard>,
    _live: RwLockReadGuard<'a, Option<Engine>>,
}

impl Deref for Shard<'_> {
    type Target = EdgeShard;

    fn deref(&self) -> &EdgeShard {
        &self.shard
    }
}

#[async_trait]
impl Adapter for EdgeStore {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.records = true;
        can.dense_vectors = true;
        can.multi_vectors = true;
        can.sparse_vectors = true;
        can.pins = true;
        can.merge = true;
        can.undo = true;
        can
    }

    fn owned_paths(&self) -> Vec<PathBuf> {
        let path = &self.shared.path;
        let mut paths = vec![path.clone(), copy::folder(path)];
        paths.extend(Stage::left_behind(path).iter().map(|stage| stage.folder().to_owned()));
        paths
    }

    async fn describe(&self) -> Result<Description> {
        let mut description = Description::new("Qdrant Edge");
        description.version = Some(ENGINE_VERSION.to_owned());
        let shared = Arc::clone(&self.shared);
        let worker = Worker::spawn("qdrant describe", || Ok(()))?;
        let count = move |(): &mut ()| {
            shared.read().as_ref().map(|engine| scroll::count(engine, &[])).transpose()
        };
        if let Some(count) = worker.call(count).await? {
            let mut collection = CollectionDescription::new(&self.collection);
            collection.records = Some(count);
            description.collections.push(collection);
        }
        Ok(description)
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let failed = || fail("the folder of a shard cannot be found", path);
    let absolute = std::path::absolute(path).map_err(failed())?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize().map_err(failed())?.join(name)),
        _ => Err(Error::new(ErrorKind::InvalidInput, "a shard needs a folder of its own")
            .on(path.display())),
    }
}

/// Whether the engine has something to open in a folder.
pub(crate) fn holds_shard(path: &Path) -> bool {
    path.join("edge_config.json").exists()
        || fs::read_dir(path.join("segments")).is_ok_and(|mut entries| entries.next().is_some())
}

impl fmt::Debug for EdgeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EdgeStore({})", self.shared.path.display())
    }
}

impl fmt::Debug for Shard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shard({})", self.shard.path().display())
    }
}
