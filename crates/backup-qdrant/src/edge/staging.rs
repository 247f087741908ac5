//! One restore of a shard, from its beginning to its end.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use backup_core::{
    Cancel, Content, Error, ErrorKind, Part, Result, Schema,
    record::{RecordBatch, Tally},
};
use qdrant_edge::{
    Payload, PointInsertOperations, PointOperations, PointStructPersisted, SparseVector,
    UpdateOperation, VectorPersisted, VectorStructPersisted,
};

use super::{
    config,
    engine::Engine,
    files,
    lookup::to_point_id,
    note::Note,
    scroll::Scroll,
    sink::room,
    stage::{Found, Stage},
    store::{Shared, holds_shard},
};
use crate::{
    answers::Answers,
    points::{Decoder, Point, Vector},
    schema::{Document, VectorForm},
    vectors::Vectors,
};

/// Points in one call of the engine.
const CHUNK: usize = 500;

/// One restore.
pub(crate) struct Staging {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stage: Stage,
    pub(crate) asked: Asked,
    /// The shard with what is staged, while it is open.
    pub(crate) engine: Option<Engine>,
    /// What is being written.
    pub(crate) target: Option<Target>,
    /// What was told of live points.
    pub(crate) answers: Answers,
    /// Parts are taken.
    open: bool,
}

/// What the host and the plan said.
pub(crate) struct Asked {
    pub(crate) left_out: BTreeSet<String>,
    pub(crate) model: Option<String>,
    /// Other vectors than the live shard's may come.
    pub(crate) others: bool,
    /// Points are added.
    pub(crate) merge: bool,
}

pub(crate) struct Target {
    pub(crate) collection: String,
    document: Document,
    forms: Vec<VectorForm>,
}

impl Staging {
    pub(crate) fn new(shared: Arc<Shared>, stage: Stage, asked: Asked) -> Self {
        let answers = Answers::default();
        Self { shared, stage, asked, engine: None, target: None, answers, open: false }
    }

    /// Where points are staged.
    pub(crate) fn place(&self) -> PathBuf {
        if self.asked.merge { self.stage.records() } else { self.stage.shard() }
    }

    pub(crate) fn begin(&mut self) -> Result<()> {
        match self.stage.find()? {
            Found::Absent | Found::Staged => {}
            _ => return Err(order("begun again after it was committed", &self.stage)),
        }
        // What an interrupted try left is of no use: parts come from the first on.
        self.close();
        self.stage.remove()?;
        self.stage.make(&self.place())?;
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
    pub(crate) fn write(&mut self, part: Part, cancel: &Cancel) -> Result<()> {
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
        if document.is_keyed() {
            let what = "the collection has shard keys, and a shard has none";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .on(&schema.collection)
                .advise("restore it to a server that runs as a cluster"));
        }
        let make = || -> Result<Target> {
            let config = config::edge_config(&document)?;
            // Refused before any data moves.
            config::index_operations(&document)?;
            self.same_vectors(schema, &document)?;
            self.stage.write_note(&self.place(), Some(document.clone()))?;
            self.engine = Some(Engine::create(&self.place(), config)?);
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
        let Asked { left_out, model, others, merge } = &self.asked;
        let restored = (document, schema.info.model.as_deref());
        let live = (&live, model.as_deref());
        let vectors = Vectors { others: *others, adds: *merge, left_out };
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
        put(engine, batch, &target.forms, cancel)
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
        files::sync_tree(&self.place())?;
        self.stage.mark_whole()
    }

    pub(crate) fn verify(
        &mut self,
        expected: &Content,
        name: &str,
        cancel: &Cancel,
    ) -> Result<Content> {
        // A store has one collection, whatever it was called elsewhere.
        let name = expected.collections.keys().next().map_or(name, String::as_str);
        let mut content = Content::new();
        let tally = match self.stage.find()? {
            Found::Staged => {
                self.seal()?;
                self.reopen()?;
                match (&self.engine, Note::read(&self.place())?) {
                    (Some(engine), Some(note)) => {
                        let document = note.document.unwrap_or_default();
                        Some(tally(engine, name, &document, cancel)?)
                    }
                    _ => None,
                }
            }
            Found::Committed if self.asked.merge => self.tally_merged(name, cancel)?,
            Found::Committed => match &*self.shared.read() {
                Some(engine) => Some(tally(engine, name, &self.shared.document(engine)?, cancel)?),
                None => None,
            },
            _ => return Err(order("verified when it was neither staged nor live", &self.stage)),
        };
        content.collections.extend(tally.map(|tally| (name.to_owned(), tally)));
        Ok(content)
    }

    pub(crate) fn reopen(&mut self) -> Result<()> {
        let place = self.place();
        if self.engine.is_none() && holds_shard(&place) {
            self.engine = Some(Engine::open(&place, None)?);
        }
        Ok(())
    }

    pub(crate) fn commit(&mut self, cancel: &Cancel) -> Result<()> {
        match self.stage.find()? {
            Found::Staged => {}
            Found::Committed => return Ok(()),
            _ => return Err(order("committed when it was not staged", &self.stage)),
        }
        self.seal()?;
        if let Some(engine) = self.engine.take() {
            engine.close()?;
        }
        files::sync_tree(&self.place())?;
        let shared = Arc::clone(&self.shared);
        let mut live = shared.write();
        if self.asked.merge {
            self.build(live.as_ref(), cancel)?;
        }
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

    pub(crate) fn undo(&mut self) -> Result<()> {
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

    pub(crate) fn finish(&mut self) -> Result<()> {
        match self.stage.find()? {
            Found::Absent => Ok(()),
            Found::Committed | Found::Undone => self.remove(),
            _ => Err(order("finished before it was committed", &self.stage)),
        }
    }

    pub(crate) fn abort(&mut self) -> Result<()> {
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

/// Writes points into a shard with vectors of these forms.
pub(crate) fn put(
    engine: &Engine,
    batch: &RecordBatch,
    forms: &[VectorForm],
    cancel: &Cancel,
) -> Result<()> {
    let decoder = Decoder::new(batch, forms)?;
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
        id: to_point_id(point.id),
        vector: VectorStructPersisted::Named(vectors.collect()),
        payload: Some(Payload(point.payload)),
    }
}
