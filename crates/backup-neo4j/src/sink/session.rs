//! A restore under way. All that another process has to know stands in the database.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use backup_core::{
    Cancel, Content, Error, ErrorKind, Part, Result, Schema, SinkSession, async_trait,
    record::{Key, RecordBatch},
};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::{
    client::Client,
    marks::World,
    names::Kind,
    options::{Neo4jOptions, Neo4jStore},
    schema::{Document, Objects},
    sink::{
        journal::{Entry, Journal, Note, State},
        merge::{self, Merging},
        readback, rules,
        stage::{self, Rows},
        stager::Stager,
        sweep,
        token::{Token, Way},
    },
};

/// While one batch is on its way, the next is made ready.
const READY: usize = 2;

#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) options: Arc<Neo4jOptions>,
    pub(super) way: Way,
    /// Where it adds to what is live.
    pub(super) merging: Option<Arc<AsyncMutex<Merging>>>,
    pub(super) journal: Journal,
    pub(super) cancel: Cancel,
    /// Collections that were announced in this process.
    announced: Arc<Mutex<Announced>>,
    /// One batch after the other.
    stager: Arc<AsyncMutex<Stager>>,
    /// Batches that may be rows, which take ten times the memory of their text.
    ready: Arc<Semaphore>,
}

#[derive(Default)]
struct Announced {
    /// Whether this process began, and so knows all that came.
    begun: bool,
    documents: BTreeMap<String, Document>,
    numbered: bool,
}

impl Session {
    pub(super) fn new(store: &Neo4jStore, token: Token, merge: bool, cancel: Cancel) -> Self {
        let stager = if merge { Stager::for_merge() } else { Stager::default() };
        Self {
            client: store.client.clone(),
            options: Arc::clone(&store.options),
            way: token.way,
            merging: merge.then(Arc::default),
            journal: Journal::new(&store.client, &token.id),
            cancel,
            announced: Arc::default(),
            stager: Arc::new(AsyncMutex::new(stager)),
            ready: Arc::new(Semaphore::new(READY)),
        }
    }

    async fn on_runtime<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.client.run(work(self.clone())).await
    }

    /// The same restore, for the way back: a restore that was cancelled is taken back.
    fn uncancelled(&self) -> Self {
        Self { cancel: Cancel::new(), ..self.clone() }
    }

    pub(super) async fn state(&self) -> Result<Option<State>> {
        self.on_runtime(|this| async move { this.journal.state().await }).await
    }

    pub(super) async fn entry(&self, verb: &str) -> Result<Entry> {
        let entry = self.journal.read().await?;
        entry.ok_or_else(|| Error::out_of_order(verb, "nothing is staged"))
    }

    /// Leaves the mark, and removes what an earlier beginning staged.
    pub(super) async fn begin(&self) -> Result<()> {
        self.on_runtime(|this| async move {
            match this.journal.state().await? {
                None => this.journal.claim(this.merging.is_some()).await?,
                Some(from @ (State::Staging | State::Sealed | State::Sweeping)) => {
                    this.sweep_staged(from).await?;
                    this.journal.advance(State::Sweeping, State::Staging, Note::Nothing).await?;
                }
                Some(_) => return Err(Error::out_of_order("begin", "it was committed already")),
            }
            this.announced().begun = true;
            stage::prepare(&this.client).await
        })
        .await
    }

    async fn sweep_staged(&self, from: State) -> Result<()> {
        self.journal.advance(from, State::Sweeping, Note::Nothing).await?;
        sweep::world(&self.client, &self.journal, State::Sweeping, World::Staged).await?;
        rules::sweep(&self.client).await
    }

    fn announced(&self) -> std::sync::MutexGuard<'_, Announced> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn announce(&self, schema: Schema) -> Result<()> {
        let name = schema.collection;
        let kind = Kind::parse(&name)?;
        let mut document = Document::from_json(&name, &schema.document)?;
        document.check(&name, &kind)?;
        self.on_runtime(|this| async move {
            if let Some(merging) = &this.merging {
                let mut merging = merging.lock().await;
                merging.announce(&this.client, &this.options, &name, &mut document).await?;
            }
            this.announced().documents.insert(name, document);
            Ok(())
        })
        .await
    }

    async fn records(&self, batch: RecordBatch) -> Result<()> {
        let kind = Kind::parse(batch.collection())?;
        if !self.announced().documents.contains_key(batch.collection()) {
            let what = "records came without the collection's description";
            return Err(Error::new(ErrorKind::Unfinished, what)
                .on(batch.collection())
                .advise("begin the restore again, or abort it"));
        }
        self.on_runtime(|this| async move {
            let _ready = this.ready.acquire().await;
            let rows = match &this.merging {
                None => Rows::of(&kind, &batch)?,
                Some(merging) => {
                    merging.lock().await.rows(&this.client, &this.options, &kind, &batch).await?
                }
            };
            if rows.numbered {
                this.announced().numbered = true;
            }
            let mut stager = this.stager.lock().await;
            let written = stager.write(&this.client, &this.journal, rows).await;
            written.map_err(|e| e.on(batch.collection()))
        })
        .await
    }

    /// Ends staging: what could be checked only once all was there.
    async fn seal(&self) -> Result<Entry> {
        let entry = self.entry("verify").await?;
        if entry.state != State::Staging {
            return Ok(entry);
        }
        let (documents, numbered) = {
            let announced = self.announced();
            if !announced.begun {
                let what = "what another process has staged may not be whole";
                return Err(Error::new(ErrorKind::Unfinished, what)
                    .on(&self.journal.id)
                    .advise("begin the restore again, or abort it"));
            }
            (announced.documents.clone(), announced.numbered)
        };
        let wanted = match &self.merging {
            None => {
                stage::complete(&self.client).await?;
                rules::wanted(&documents, &Objects::read(&self.client).await?)
            }
            Some(merging) => {
                let identity = merging.lock().await.identity(&self.client, &self.options).await?;
                merge::complete(&self.client, &identity).await?;
                merge::wanted(&documents, Objects::default())?
            }
        };
        rules::try_all(&self.client, &wanted, &self.cancel).await?;
        let note = Note::Staged { documents: &documents, numbered };
        self.journal.advance(State::Staging, State::Sealed, note).await?;
        self.entry("verify").await
    }

    async fn tally(&self, entry: &Entry) -> Result<Content> {
        let live = matches!(entry.state, State::Settling | State::Committed | State::Finishing);
        let documents = entry.documents()?;
        if self.merging.is_some() {
            let identity = self.identity(entry).await?;
            return merge::tally(&self.client, &identity, &documents, live, &self.cancel).await;
        }
        let world = if live { World::Live } else { World::Staged };
        readback::tally(&self.client, world, &documents, &self.cancel).await
    }

    async fn switch(&self) -> Result<()> {
        let entry = self.seal().await?;
        if matches!(entry.state, State::Committed | State::Finishing) {
            return Ok(());
        }
        if let Err(error) = self.forward(entry.state).await {
            // Half of it may be new: all of it becomes old again.
            let back = self.uncancelled().back(State::Sealed).await;
            back.map_err(|failed| self.repair(failed).because(error.report()))?;
            return Err(error);
        }
        Ok(())
    }

    fn repair(&self, error: Error) -> Error {
        let what = "what was live before the restore cannot be brought back now";
        Error::new(ErrorKind::RepairNeeded, what)
            .on(format!("{}, restore {}", self.client.place(), self.journal.id))
            .because(error)
            .advise("when the server is well again, call resume")
    }

    /// As [`undo`](SinkSession::undo), from any state.
    pub(super) async fn take_back(&self, goal: State) -> Result<()> {
        self.on_runtime(|this| async move {
            let this = this.uncancelled();
            this.back(goal).await.map_err(|e| this.repair(e))
        })
        .await
    }

    async fn end(&self) -> Result<()> {
        let Some(entry) = self.journal.read().await? else { return Ok(()) };
        match entry.state {
            State::Committed | State::Finishing => {
                let state = State::Finishing;
                self.journal.advance(State::Committed, state, Note::Nothing).await?;
                let world = if entry.merge { World::Staged } else { World::Old };
                sweep::world(&self.client, &self.journal, state, world).await?;
                if entry.numbered {
                    sweep::numbers(&self.client, &self.journal, state).await?;
                }
            }
            State::Undone => {
                sweep::world(&self.client, &self.journal, entry.state, World::Staged).await?;
            }
            _ => return Err(Error::out_of_order("finish", "it was not committed")),
        }
        sweep::rest(&self.client, &self.journal).await
    }

    async fn give_up(&self) -> Result<()> {
        let Some(entry) = self.journal.read().await? else { return Ok(()) };
        match entry.state {
            State::Committed | State::Finishing => {
                return Err(Error::out_of_order("abort", "it was committed"));
            }
            State::Undone => return self.end().await,
            State::Staging | State::Sealed | State::Sweeping => {
                self.sweep_staged(entry.state).await?;
            }
            _ => {
                self.back(State::Sealed).await.map_err(|e| self.repair(e))?;
                self.sweep_staged(State::Sealed).await?;
            }
        }
        sweep::rest(&self.client, &self.journal).await
    }
}

pub(super) fn gone() -> Error {
    Error::out_of_order("undo", "what was live before is being removed")
}

#[async_trait]
impl SinkSession for Session {
    async fn existing(&self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        self.cancel.check()?;
        let Some(merging) = self.merging.clone() else {
            let what = "a restore that replaces asks for nothing";
            return Err(Error::new(ErrorKind::Unsupported, what).on(collection));
        };
        let (collection, keys) = (collection.to_owned(), keys.to_vec());
        self.on_runtime(|this| async move {
            let mut merging = merging.lock().await;
            merging.existing(&this.client, &this.options, &collection, &keys).await
        })
        .await
    }

    async fn write(&self, part: Part) -> Result<()> {
        self.cancel.check()?;
        match part {
            Part::Schema(schema) => self.announce(schema).await,
            Part::Records(batch) => self.records(batch).await,
            Part::End(_) | Part::Notice(_) => Ok(()),
            other => Err(other.refused_by("a Neo4j server")),
        }
    }

    async fn verify(&self, _: &Content) -> Result<Content> {
        self.cancel.check()?;
        self.on_runtime(|this| async move {
            let entry = this.seal().await?;
            this.tally(&entry).await
        })
        .await
    }

    async fn commit(&self) -> Result<()> {
        self.cancel.check()?;
        self.on_runtime(|this| async move { this.switch().await }).await
    }

    async fn undo(&self) -> Result<()> {
        let state = self.state().await?;
        match state.ok_or_else(|| Error::out_of_order("undo", "nothing was committed"))? {
            State::Staging | State::Sealed | State::Sweeping => {
                Err(Error::out_of_order("undo", "it was not committed"))
            }
            State::Finishing => Err(gone()),
            _ => self.take_back(State::Undone).await,
        }
    }

    async fn finish(&self) -> Result<()> {
        self.on_runtime(|this| async move { this.uncancelled().end().await }).await
    }

    async fn abort(&self) -> Result<()> {
        self.on_runtime(|this| async move { this.uncancelled().give_up().await }).await
    }
}
