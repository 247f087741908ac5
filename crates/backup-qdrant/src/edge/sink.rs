//! Restoring: staged in a shard beside the live one, verified, exchanged.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use backup_core::{
    Cancel, Content, Error, ErrorKind, Part, Prepared, Reattached, Result, Schema, Sink,
    SinkSession, StagePlan, StageToken, Switch, VectorChanges, Worker,
    record::{RecordBatch, Tally},
};
use qdrant_edge::{
    Payload, PointId, PointInsertOperations, PointOperations, PointStructPersisted, SparseVector,
    UpdateOperation, VectorPersisted, VectorStructPersisted,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    EdgeStore, config,
    engine::Engine,
    files,
    scroll::Scroll,
    stage::{Found, Stage},
    store::Shared,
};
use crate::{
    points::{Decoder, Id, Point, Vector},
    schema::{Document, VectorForm},
    vectors::{self, Vectors},
};

/// Points in one call of the engine.
const CHUNK: usize = 500;
/// A disk that fills up under the engine ends the process (it writes through mapped files), so
/// this much stays free.
const SPARE_BYTES: u64 = 128 << 20;

/// What a token of this adapter holds.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    shard: PathBuf,
    restore: String,
    /// Vectors of the archive that are left out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    left_out: BTreeSet<String>,
}

#[async_trait]
impl Sink for EdgeStore {
    fn staging_paths(&self, restore_id: &str) -> Vec<PathBuf> {
        let stage = Stage::new(&self.shared.path, restore_id);
        stage.map(|stage| stage.folder().to_owned()).into_iter().collect()
    }

    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        plan.check(self)?;
        let mut changes = plan.vectors.values();
        let token = Token {
            shard: self.shared.path.clone(),
            restore: plan.restore_id.clone(),
            left_out: changes.next().map(|changes| changes.left_out.clone()).unwrap_or_default(),
        };
        Stage::new(&token.shard, &token.restore)?;
        check_content(plan)?;
        self.check_vectors(plan, &token.left_out).await?;
        check_place(&self.shared, plan)?;
        let note = "handles of the shard that the application holds are waited for; the new \
                    shard has its payload indexes, vectors are indexed by `optimize`";
        let notes = vec![note.to_owned()];
        Ok(Prepared { token: plan.token(&token)?, switch: Switch::AtomicPointer, notes })
    }

    fn revise_vectors(&self, document: &mut Value, changes: &VectorChanges) -> Result<()> {
        vectors::revise(document, changes)
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        cancel.check()?;
        let session = self.session(token, cancel)?;
        session.call(|staging| staging.begin()).await?;
        Ok(Box::new(session))
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let session = self.session(token, &Cancel::new())?;
        let (found, session) = (session.call(|staging| staging.stage.find()).await?, session);
        Ok(match found {
            Found::Absent => Reattached::Absent,
            Found::Staged => Reattached::Staged(Box::new(session)),
            Found::Committed => Reattached::Committed(Box::new(session)),
            Found::Undone => Reattached::Undone(Box::new(session)),
            Found::Unknown => {
                let (folder, _) = self.stage(token)?;
                Reattached::Unknown {
                    reason: format!(
                        "{} is neither what was restored nor what was there before; what is \
                         left of the restore is in {}",
                        self.shared.path.display(),
                        folder.folder().display()
                    ),
                }
            }
        })
    }
}

fn check_content(plan: &StagePlan) -> Result<()> {
    let refused = |what: &str, subject: &str, advice: &str| {
        Err(Error::new(ErrorKind::Unsupported, what).on(subject).advise(advice))
    };
    if let Some(blob) = plan.content.blobs.keys().next() {
        let advice = "restore it into a server, or a backup of records into this store";
        return refused("a shard cannot take a native snapshot of a server", blob, advice);
    }
    let names: Vec<&str> = plan.content.collections.keys().map(String::as_str).collect();
    if names.len() > 1 {
        let advice = "restore one collection into each store";
        return refused(
            "a shard holds one collection, and these are more",
            &names.join(", "),
            advice,
        );
    }
    Ok(())
}

fn check_place(shared: &Shared, plan: &StagePlan) -> Result<()> {
    let path = &shared.path;
    if plan.avoid.contains(path) {
        let what = "the shard stands where the restore must not write";
        return Err(Error::new(ErrorKind::InvalidInput, what).on(path.display()));
    }
    let parent = path.parent().unwrap_or(path);
    #[cfg(unix)]
    if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_err() {
        let what = "the folder around the shard cannot be written";
        return Err(Error::new(ErrorKind::PermissionDenied, what).on(parent.display()));
    }
    // In the engine's log, and in its segments.
    room(parent, plan.bytes.saturating_mul(3))
}

fn room(folder: &std::path::Path, bytes: u64) -> Result<()> {
    let needed = bytes.saturating_add(SPARE_BYTES);
    match files::free(folder) {
        Some(free) if free < needed => {
            let what = format!("about {needed} bytes are needed beside the shard, {free} are free");
            Err(Error::new(ErrorKind::NoSpace, what).on(folder.display()))
        }
        _ => Ok(()),
    }
}

impl EdgeStore {
    /// Compares what the manifest says of vectors with those of the live shard.
    async fn check_vectors(&self, plan: &StagePlan, left_out: &BTreeSet<String>) -> Result<()> {
        let Some((name, restored)) = plan.info.iter().next() else { return Ok(()) };
        let worker = Worker::spawn("qdrant prepare", || Ok(()))?;
        let (shared, model) = (Arc::clone(&self.shared), self.model.clone());
        let live = worker.call(move |()| {
            let live = shared.read();
            let document = live.as_ref().map(|engine| shared.document(engine)).transpose()?;
            document.map(|document| document.info(model.as_deref())).transpose()
        });
        let Some(live) = live.await? else { return Ok(()) };
        let vectors = Vectors { others: self.other_vectors, adds: false, left_out };
        vectors.check(name, restored, &live)
    }

    fn stage(&self, token: &StageToken) -> Result<(Stage, BTreeSet<String>)> {
        let Token { shard, restore, left_out } = token.read(self)?;
        if shard != self.shared.path {
            let what = "a restore was begun for another shard";
            return Err(Error::new(ErrorKind::Incompatible, what).on(shard.display()));
        }
        Ok((Stage::new(&shard, &restore)?, left_out))
    }

    fn session(&self, token: &StageToken, cancel: &Cancel) -> Result<Session> {
        let (stage, left_out) = self.stage(token)?;
        let (model, others) = (self.model.clone(), self.other_vectors);
        let asked = Asked { left_out, model, others };
        let make = || Staging::new(Arc::clone(&self.shared), stage.clone(), asked);
        let staging = self.shared.staging(&stage, make);
        let worker = Worker::spawn("qdrant sink", || Ok(()))?;
        let name = self.collection.clone();
        Ok(Session { worker, staging, cancel: cancel.clone(), name })
    }
}

/// One restore.
pub(crate) struct Staging {
    shared: Arc<Shared>,
    stage: Stage,
    asked: Asked,
    /// The staged shard, while it is open.
    engine: Option<Engine>,
    /// What is being written.
    target: Option<Target>,
    /// Parts are taken.
    open: bool,
}

/// What the host said of vectors.
struct Asked {
    left_out: BTreeSet<String>,
    model: Option<String>,
    /// Others than the live shard's may come.
    others: bool,
}

struct Target {
    collection: String,
    document: Document,
    forms: Vec<VectorForm>,
}

impl Staging {
    fn new(shared: Arc<Shared>, stage: Stage, asked: Asked) -> Self {
        Self { shared, stage, asked, engine: None, target: None, open: false }
    }

    fn begin(&mut self) -> Result<()> {
        match self.stage.find()? {
            Found::Absent | Found::Staged => {}
            _ => return Err(order("begun again after it was committed", &self.stage)),
        }
        // What an interrupted try left is of no use: parts come from the first on.
        self.close();
        self.stage.remove()?;
        self.stage.make()?;
        self.open = true;
        Ok(())
    }

    // What a staged shard flushes is of no use.
    fn close(&mut self) {
        self.open = false;
        self.target = None;
        drop(self.engine.take());
    }

    /// After a part that failed nothing more is taken.
    fn write(&mut self, part: Part, cancel: &Cancel) -> Result<()> {
        if !self.open {
            return Err(self.interrupted());
        }
        let done = match part {
            Part::Schema(schema) => self.schema(&schema),
            Part::Records(batch) => self.records(&batch, cancel),
            Part::End(_) | Part::Notice(_) => Ok(()),
            _ => Err(Error::new(ErrorKind::Unsupported, "a shard cannot hold such a part")),
        };
        if done.is_err() {
            self.close();
        }
        done
    }

    fn interrupted(&self) -> Error {
        Error::new(ErrorKind::Unfinished, "what is staged is not whole")
            .on(self.stage.folder().display())
            .advise("begin the restore again, or abort it")
    }

    fn schema(&mut self, schema: &Schema) -> Result<()> {
        if let Some(target) = &self.target {
            let what = "a shard holds one collection, and a second came";
            let both = format!("{}, {}", target.collection, schema.collection);
            return Err(Error::new(ErrorKind::Unsupported, what).on(both));
        }
        let document = Document::read(schema)?;
        let make = || -> Result<Target> {
            let config = config::edge_config(&document)?;
            // Refused before any data moves.
            config::index_operations(&document)?;
            self.same_vectors(schema, &document)?;
            self.stage.write_note(document.clone())?;
            self.engine = Some(Engine::create(&self.stage.shard(), config)?);
            let forms = document.forms()?;
            Ok(Target { collection: schema.collection.clone(), document, forms })
        };
        self.target = Some(make().map_err(|error| error.on(&schema.collection))?);
        Ok(())
    }

    fn same_vectors(&self, schema: &Schema, document: &Document) -> Result<()> {
        let live = self.shared.read();
        let Some(engine) = &*live else { return Ok(()) };
        let live = self.shared.document(engine)?;
        let Asked { left_out, model, others } = &self.asked;
        let restored = (document, schema.info.model.as_deref());
        let live = (&live, model.as_deref());
        let vectors = Vectors { others: *others, adds: false, left_out };
        vectors.check_documents(&schema.collection, restored, live)
    }

    fn records(&mut self, batch: &RecordBatch, cancel: &Cancel) -> Result<()> {
        let (Some(target), Some(engine)) = (&self.target, &self.engine) else {
            return Err(Error::adapter("records came before their schema").on(batch.collection()));
        };
        if batch.collection() != target.collection {
            let what = "records came of a collection without a schema";
            return Err(Error::adapter(what).on(batch.collection()));
        }
        room(self.stage.folder(), 3 * batch.byte_size() as u64)?;
        let decoder = Decoder::new(batch, &target.forms)?;
        let mut points = decoder.points();
        loop {
            cancel.check()?;
            let chunk: Vec<_> =
                points.by_ref().take(CHUNK).map(|p| p.map(point)).collect::<Result<_>>()?;
            if chunk.is_empty() {
                return Ok(());
            }
            let upsert = PointOperations::UpsertPoints(PointInsertOperations::PointsList(chunk));
            let what = "points could not be written";
            engine
                .call(what, |shard| shard.update(UpdateOperation::PointOperation(upsert)))
                .map_err(|error| error.on(batch.collection()))?;
        }
    }

    /// Completes what was staged and brings it to the disk, once.
    fn seal(&mut self) -> Result<()> {
        if self.stage.is_whole() {
            return Ok(());
        }
        if !self.open {
            return Err(self.interrupted());
        }
        let sealed = self.complete();
        // What did not reach the disk would seem to the next time.
        self.open = false;
        if sealed.is_err() {
            self.close();
        }
        sealed
    }

    fn complete(&self) -> Result<()> {
        if let (Some(target), Some(engine)) = (&self.target, &self.engine) {
            for (field, operation) in config::index_operations(&target.document)? {
                let done = engine
                    .call("a payload index could not be made", |shard| shard.update(operation));
                done.map_err(|error| error.on(format!("{}, {field}", target.collection)))?;
            }
            engine.flush()?;
        }
        files::sync_tree(&self.stage.shard())?;
        self.stage.mark_whole()
    }

    fn verify(&mut self, expected: &Content, name: &str, cancel: &Cancel) -> Result<Content> {
        // A store has one collection, whatever it was called elsewhere.
        let name = expected.collections.keys().next().map_or(name, String::as_str);
        let mut content = Content::new();
        let tally = match self.stage.find()? {
            Found::Staged => {
                self.seal()?;
                self.reopen()?;
                match (&self.engine, super::note::Note::read(&self.stage.shard())?) {
                    (Some(engine), Some(note)) => {
                        let document = note.document.unwrap_or_default();
                        Some(tally(engine, name, &document, cancel)?)
                    }
                    _ => None,
                }
            }
            Found::Committed => match &*self.shared.read() {
                Some(engine) => Some(tally(engine, name, &self.shared.document(engine)?, cancel)?),
                None => None,
            },
            _ => return Err(order("verified when it was neither staged nor live", &self.stage)),
        };
        content.collections.extend(tally.map(|tally| (name.to_owned(), tally)));
        Ok(content)
    }

    fn reopen(&mut self) -> Result<()> {
        let shard = self.stage.shard();
        if self.engine.is_none() && super::store::holds_shard(&shard) {
            self.engine = Some(Engine::open(&shard, None)?);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        match self.stage.find()? {
            Found::Staged => {}
            Found::Committed => return Ok(()),
            _ => return Err(order("committed when it was not staged", &self.stage)),
        }
        self.seal()?;
        if let Some(engine) = self.engine.take() {
            engine.close()?;
        }
        files::sync_tree(&self.stage.shard())?;
        let mut live = self.shared.write();
        self.stage.mark_kept()?;
        let closed = live.take().map_or(Ok(()), Engine::close);
        let switched = closed.and_then(|()| self.stage.exchange());
        let opened = switched.and_then(|()| self.shared.reopen(&mut live));
        opened.or_else(|error| self.take_back(&mut live).and(Err(error)))
    }

    // A switch that failed.
    fn take_back(&self, live: &mut Option<Engine>) -> Result<()> {
        let back = match self.stage.find()? {
            Found::Committed => self.stage.exchange(),
            _ => Ok(()),
        };
        back.and_then(|()| self.shared.reopen(live)).map_err(|error| self.repair(error))
    }

    fn repair(&self, error: Error) -> Error {
        let advice = format!(
            "try again; the old shard and the new one are {} and {}",
            self.shared.path.display(),
            self.stage.shard().display()
        );
        Error::new(ErrorKind::RepairNeeded, "the old shard could not be put back")
            .on(self.shared.path.display())
            .advise(advice)
            .because(error)
    }

    fn undo(&mut self) -> Result<()> {
        match self.stage.find()? {
            Found::Committed => {}
            Found::Undone => return Ok(()),
            _ => return Err(order("undone when it was not committed", &self.stage)),
        }
        if self.stage.kept_something() && !self.stage.shard().exists() {
            return Err(self.repair(Error::new(ErrorKind::NotFound, "the old shard is gone")));
        }
        let mut live = self.shared.write();
        let mut back = || -> Result<()> {
            self.stage.mark_undoing()?;
            // What it cannot flush is not wanted any more.
            drop(live.take());
            self.stage.exchange()?;
            self.shared.reopen(&mut live)
        };
        back().map_err(|error| self.repair(error))
    }

    fn finish(&mut self) -> Result<()> {
        match self.stage.find()? {
            Found::Absent => Ok(()),
            Found::Committed | Found::Undone => self.remove(),
            _ => Err(order("finished before it was committed", &self.stage)),
        }
    }

    fn abort(&mut self) -> Result<()> {
        match self.stage.find()? {
            Found::Absent => Ok(()),
            Found::Staged => self.remove(),
            _ => Err(order("aborted after it was committed", &self.stage)),
        }
    }

    fn remove(&mut self) -> Result<()> {
        self.close();
        self.stage.remove()
    }
}

fn order(what: &str, stage: &Stage) -> Error {
    Error::adapter(format!("a restore was {what}")).on(stage.folder().display())
}

fn tally(engine: &Engine, name: &str, document: &Document, cancel: &Cancel) -> Result<Tally> {
    let mut scroll = Scroll::new(name, &document.forms()?);
    let mut tally = Tally::new();
    while let Some(batch) = scroll.next(engine, &[])? {
        cancel.check()?;
        tally.add_batch(&batch);
    }
    Ok(tally)
}

fn point(point: Point) -> PointStructPersisted {
    let vector = |vector| match vector {
        Vector::Dense(values) => VectorPersisted::Dense(values),
        Vector::Multi(rows) => VectorPersisted::MultiDense(rows),
        Vector::Sparse(indices, values) => {
            VectorPersisted::Sparse(SparseVector { indices, values })
        }
    };
    let vectors = point.vectors.into_iter().map(|(name, value)| (name, vector(value)));
    PointStructPersisted {
        id: match point.id {
            Id::Number(number) => PointId::NumId(number),
            Id::Uuid(uuid) => PointId::Uuid(uuid),
        },
        vector: VectorStructPersisted::Named(vectors.collect()),
        payload: Some(Payload(point.payload)),
    }
}

struct Session {
    worker: Worker<()>,
    /// Not on the thread, so that all is closed when this is gone.
    staging: Arc<Mutex<Staging>>,
    cancel: Cancel,
    /// What the host calls the collection.
    name: String,
}

impl Session {
    fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Staging) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        let staging = Arc::clone(&self.staging);
        self.worker.call(move |()| job(&mut staging.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[async_trait]
impl SinkSession for Session {
    async fn write(&self, part: Part) -> Result<()> {
        self.cancel.check()?;
        let cancel = self.cancel.clone();
        self.call(move |staging| staging.write(part, &cancel)).await
    }

    async fn verify(&self, expected: &Content) -> Result<Content> {
        self.cancel.check()?;
        let (expected, name) = (expected.clone(), self.name.clone());
        let cancel = self.cancel.clone();
        self.call(move |staging| staging.verify(&expected, &name, &cancel)).await
    }

    async fn commit(&self) -> Result<()> {
        self.call(Staging::commit).await
    }

    async fn undo(&self) -> Result<()> {
        self.call(Staging::undo).await
    }

    async fn finish(&self) -> Result<()> {
        self.call(Staging::finish).await
    }

    async fn abort(&self) -> Result<()> {
        self.call(Staging::abort).await
    }
}
