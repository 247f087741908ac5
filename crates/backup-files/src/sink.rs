//! Restoring: every root on a thread of its own, all roots or none.

use std::{path::PathBuf, sync::Arc};

use backup_core::{
    ByteStream, Cancel, Content, EntryKind, EntryPath, Error, ErrorKind, FileEntry, Part, Prepared,
    Reattached, Result, Sink, SinkSession, StagePlan, StageToken, Worker, async_trait,
    record::Tally,
};
use futures::{TryFutureExt, TryStreamExt, lock::Mutex};
use serde::{Deserialize, Serialize};

use crate::{
    FilesStore,
    live::Live,
    notes::Known,
    place::{self, How, NEW, Place, RootToken, Step},
    prepare,
    read::SMALL,
    stage::{Dress, Gate, Make, Stage},
    switch,
    tally::{Ignore, tally},
};

/// What the adapter's tokens hold.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) roots: Vec<RootToken>,
}

#[async_trait]
impl Sink for FilesStore {
    fn staging_paths(&self, restore_id: &str) -> Vec<PathBuf> {
        self.roots.iter().flat_map(|root| prepare::places(&root.path, restore_id)).collect()
    }

    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        let roots = prepare::check(self, plan)?;
        let (plan, stepwise) = (plan.clone(), self.stepwise);
        let worker = Worker::spawn("files prepare", || Ok(()))?;
        worker.call(move |()| prepare::prepare(&roots, &plan, stepwise)).await
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        let mut roots = Vec::new();
        for token in token.read::<Token>(self)?.roots {
            let root = RootSession::spawn(&token, None, cancel)?;
            let cancel = cancel.clone();
            root.worker
                .call(move |slot| {
                    *slot = Some(RootStage::begin(token, cancel)?);
                    Ok(())
                })
                .await?;
            roots.push(root);
        }
        Ok(Box::new(Session { roots }))
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let tokens = token.read::<Token>(self)?.roots;
        let worker = Worker::spawn("files reattach", || Ok(()))?;
        let (stages, found) = worker.call(move |()| reattach(tokens)).await?;
        let mut roots = Vec::new();
        for stage in stages {
            let token = stage.token.clone();
            roots.push(RootSession::spawn(&token, Some(stage), &Cancel::new())?);
        }
        let session = Box::new(Session { roots });
        Ok(match found {
            Found::Absent => Reattached::Absent,
            Found::Staged => Reattached::Staged(session),
            Found::Committed => Reattached::Committed(session),
            Found::Undone => Reattached::Undone(session),
            Found::Unknown(reason) => Reattached::Unknown { reason },
        })
    }
}

/// How far all roots together came.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Absent,
    Staged,
    Committed,
    Undone,
    Unknown(String),
}

/// Opens what is there of every root. A step that a crash interrupted within a root, or
/// between two, is finished or taken back first, so that the answer is true of all roots.
fn reattach(tokens: Vec<RootToken>) -> Result<(Vec<RootStage>, Found)> {
    let mut stages = Vec::new();
    for token in tokens {
        let mut place = Place::open(&token)?;
        if let Some(place) = &mut place {
            let step = place.state.step;
            if matches!(step, Step::Exchange | Step::ExchangeBack)
                || (step == Step::Committed && !place.state.stepwise)
            {
                match (place.which_is_live()?, step) {
                    (switch::Live::Neither, _) => {
                        let aside = token.outer().join(&token.staging).join("new");
                        let reason = format!(
                            "{} is neither the old folder nor the restored one; one of them is {}",
                            token.path,
                            aside.display()
                        );
                        return Ok((Vec::new(), Found::Unknown(reason)));
                    }
                    (switch::Live::New, Step::Exchange) => place.save(Step::Committed)?,
                    (switch::Live::Old, Step::Exchange | Step::Committed) => {
                        place.save(Step::Staging)?
                    }
                    _ => {}
                }
            }
            place.step_on()?;
        }
        let (stage, live) = (None, Live::default());
        stages.push(RootStage { token, place, stage, live, cancel: Cancel::new() });
    }
    let all: Vec<Step> =
        stages.iter().filter_map(|stage| Some(stage.place.as_ref()?.state.step)).collect();
    let has = |step| all.contains(&step);
    let staged = has(Step::Staging) || has(Step::Failed);
    let found = if staged && has(Step::Committed) {
        for place in stages.iter_mut().filter_map(|stage| stage.place.as_mut()) {
            place.roll_back()?;
        }
        Found::Staged
    } else if staged {
        Found::Staged
    } else if has(Step::Undone) {
        for place in stages.iter_mut().filter_map(|stage| stage.place.as_mut()) {
            place.undo()?;
        }
        Found::Undone
    } else if has(Step::Committed) {
        Found::Committed
    } else {
        Found::Absent
    };
    Ok((stages, found))
}

/// A restore of one root.
struct RootStage {
    token: RootToken,
    /// `None` once it is finished or aborted.
    place: Option<Place>,
    /// Takes entries until all have come.
    stage: Option<Stage>,
    live: Live,
    cancel: Cancel,
}

impl RootStage {
    fn begin(token: RootToken, cancel: Cancel) -> Result<Self> {
        let place = Place::create(&token)?;
        let stage = Stage::new(place.folder(NEW)?, place.create_implied()?, place.create_notes()?)?;
        let live = Live::default();
        Ok(Self { token, place: Some(place), stage: Some(stage), live, cancel })
    }

    fn place(&mut self) -> Result<&mut Place> {
        let gone = || Error::adapter("the restore is finished or aborted").on(&self.token.path);
        self.place.as_mut().ok_or_else(gone)
    }

    fn stage(&mut self) -> Result<&mut Stage> {
        self.cancel.check()?;
        let whole = self.place.as_ref().is_some_and(|place| place.state.whole);
        self.stage.as_mut().ok_or_else(|| {
            let error = if whole {
                Error::adapter("an entry came after the last")
            } else {
                Error::new(ErrorKind::Unfinished, "staging was interrupted")
                    .advise("begin the restore again, or abort it")
            };
            error.on(&self.token.path)
        })
    }

    /// Runs a step of staging; after one that failed, nothing more is taken.
    fn staging<T>(&mut self, job: impl FnOnce(&mut Stage) -> Result<T>) -> Result<T> {
        let done = self.stage().and_then(job);
        if done.is_err() {
            self.stage = None;
        }
        done
    }

    fn seal(&mut self) -> Result<()> {
        let Some(stage) = self.stage.take() else { return Ok(()) };
        stage.seal()?;
        let place = self.place()?;
        place.state.whole = true;
        place.save(Step::Staging)
    }

    fn schema(&mut self, document: &serde_json::Value) -> Result<()> {
        let place = self.place()?;
        let mode = document.get("mode").and_then(serde_json::Value::as_u64).unwrap_or(0o755);
        // One that its owner cannot use would be of no use.
        place.state.mode = u32::try_from(mode & 0o777).unwrap_or(0o755) | 0o700;
        place.save(Step::Staging)
    }

    fn verify(&mut self) -> Result<Tally> {
        self.seal()?;
        let cancel = self.cancel.clone();
        let place = self.place()?;
        if place.token.how == How::Merge {
            return place.verify_merge(&cancel);
        }
        let keep = place.token.keep();
        let implied = place.implied()?;
        let folders = &place.state.new_folders;
        if place.state.step != Step::Committed {
            let ignore = Ignore { name: None, keep: &[], folders, implied };
            return tally(place.folder(NEW)?, ignore, &cancel);
        }
        let Some((live, _)) = place.live()? else {
            return Err(Error::new(ErrorKind::NotFound, "the root is gone").on(&place.token.path));
        };
        let name = place.token.inside.then_some(place.token.staging.as_bytes());
        tally(live, Ignore { name, keep: &keep, folders, implied }, &cancel)
    }

    fn commit(&mut self) -> Result<()> {
        self.seal()?;
        self.place()?.commit()
    }

    fn undo(&mut self) -> Result<()> {
        self.place.as_mut().map_or(Ok(()), Place::undo)
    }

    fn finish(&mut self) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        if !matches!(place.state.step, Step::Committed | Step::Undone) {
            return Err(Error::adapter("a restore that was not switched cannot be finished")
                .on(&self.token.path));
        }
        self.remove()
    }

    fn abort(&mut self) -> Result<()> {
        self.stage = None;
        // Nothing to take back, and on a full disk no room to note it.
        let untouched = |place: &Place| matches!(place.state.step, Step::Staging | Step::Failed);
        if !self.place.as_ref().is_some_and(untouched) {
            self.undo()?;
        }
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        let Some(place) = self.place.take() else { return Ok(()) };
        place.remove().inspect_err(|_| {
            // To be tried again.
            self.place = Place::open(&self.token).ok().flatten();
        })?;
        place::unmake(&self.token);
        Ok(())
    }
}

/// So many small entries, or bytes of them, are made in one call of the thread.
const BATCH_ENTRIES: usize = 128;
const BATCH_BYTES: usize = 1 << 20;

struct RootSession {
    name: String,
    worker: Arc<Worker<Option<RootStage>>>,
    inbox: Mutex<Inbox>,
    cancel: Cancel,
}

/// Entries that came and are not made yet.
struct Inbox {
    gate: Gate,
    waiting: Vec<(EntryPath, Dress, Make, Known)>,
    bytes: usize,
    /// An entry has begun to come; one that broke off leaves this behind.
    begun: bool,
    /// What the live root was asked for since the last entry.
    asked: Vec<(EntryPath, Known)>,
}

impl Inbox {
    fn check(&self) -> Result<()> {
        if self.begun {
            return Err(Error::new(ErrorKind::Unfinished, "an entry was not taken whole")
                .advise("abort the restore, or begin it again"));
        }
        Ok(())
    }
}

impl RootSession {
    fn spawn(token: &RootToken, stage: Option<RootStage>, cancel: &Cancel) -> Result<Self> {
        let name = token.root.clone();
        let worker = Arc::new(Worker::spawn(format!("files {name}"), || Ok(stage))?);
        let inbox = Inbox {
            gate: Gate::new(token.keep(), token.how != How::Merge),
            waiting: Vec::new(),
            bytes: 0,
            begun: false,
            asked: Vec::new(),
        };
        Ok(Self { name, worker, inbox: Mutex::new(inbox), cancel: cancel.clone() })
    }

    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut RootStage) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        let done = self.worker.call(|slot| match slot {
            Some(stage) => job(stage),
            None => Err(Error::adapter("a root was not opened")),
        });
        done.map_err(|error| error.on(&self.name))
    }

    /// Makes what waits, then does the job.
    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut RootStage) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut inbox = self.inbox.lock().await;
        inbox.check()?;
        self.flush(&mut inbox).await?;
        self.ask(job).await
    }

    async fn flush(&self, inbox: &mut Inbox) -> Result<()> {
        let waiting = std::mem::take(&mut inbox.waiting);
        inbox.bytes = 0;
        if waiting.is_empty() {
            return Ok(());
        }
        let make = |stage: &mut Stage| {
            waiting
                .into_iter()
                .try_for_each(|(path, dress, what, before)| stage.make(path, dress, what, before))
        };
        self.ask(move |root| root.staging(make)).await
    }

    async fn entry(&self, entry: FileEntry) -> Result<()> {
        self.cancel.check()?;
        let FileEntry { path, mode, modified, kind, .. } = entry;
        let dress = Dress { mode, modified };
        let mut inbox = self.inbox.lock().await;
        inbox.check()?;
        inbox.gate.pass(&path, dress, &kind).map_err(|error| error.on(&self.name))?;
        inbox.begun = true;
        let asked = std::mem::take(&mut inbox.asked).into_iter();
        let before = asked.rev().find(|(asked, _)| *asked == path);
        let before = before.map(|(_, known)| known).unwrap_or_default();
        let what = match kind {
            EntryKind::Directory => Make::Folder,
            EntryKind::Symlink { target } => Make::Link(target),
            EntryKind::File { len, body } if len <= SMALL => {
                Make::File(small(&path, len, body).await?)
            }
            EntryKind::File { len, body } => {
                self.flush(&mut inbox).await?;
                self.large(path, dress, len, body, before).await?;
                inbox.begun = false;
                return Ok(());
            }
        };
        if let Make::File(bytes) = &what {
            inbox.bytes += bytes.len();
        }
        inbox.waiting.push((path, dress, what, before));
        if inbox.waiting.len() >= BATCH_ENTRIES || inbox.bytes >= BATCH_BYTES {
            self.flush(&mut inbox).await?;
        }
        inbox.begun = false;
        Ok(())
    }

    async fn existing(&self, path: &EntryPath) -> Result<Option<FileEntry>> {
        self.cancel.check()?;
        let mut inbox = self.inbox.lock().await;
        inbox.gate.free(path)?;
        let wanted = path.clone();
        let found = self.ask(move |root| {
            let place = root.place.as_ref();
            place.map_or(Ok(None), |place| root.live.find(place, &wanted))
        });
        let found = found.await?;
        let known = found.as_ref().map_or(Known::Nothing, |(facts, _)| Known::There(*facts));
        if inbox.asked.iter().any(|(asked, before)| asked == path && *before != known) {
            return Err(Error::new(ErrorKind::Changed, "a file changes while it is read").on(path));
        }
        inbox.asked.push((path.clone(), known));
        Ok(found.map(|(facts, what)| FileEntry {
            root: self.name.clone(),
            path: path.clone(),
            mode: what.mode(&facts),
            modified: facts.modified,
            kind: what.kind(&self.worker, facts.size),
        }))
    }

    async fn large(
        &self,
        path: EntryPath,
        dress: Dress,
        len: u64,
        mut body: ByteStream,
        before: Known,
    ) -> Result<()> {
        self.ask(move |root| root.staging(|stage| stage.open(path, dress, len, before))).await?;
        // One piece is fetched while the one before it is written.
        let mut before = None;
        while let Some(piece) = body.try_next().await? {
            let done = self.ask(move |root| root.staging(|stage| stage.append(&piece)));
            if let Some(before) = before.replace(done) {
                before.await?;
            }
        }
        if let Some(before) = before {
            before.await?;
        }
        self.ask(|root| root.staging(Stage::close)).await
    }
}

async fn small(path: &EntryPath, len: u64, mut body: ByteStream) -> Result<Vec<u8>> {
    let wrong = |how| Error::new(ErrorKind::Corrupt, format!("a file is too {how}")).on(path);
    let len = usize::try_from(len).unwrap_or(0);
    let mut bytes = Vec::with_capacity(len);
    while let Some(piece) = body.try_next().await? {
        if bytes.len() + piece.len() > len {
            return Err(wrong("long"));
        }
        bytes.extend_from_slice(&piece);
    }
    if bytes.len() == len { Ok(bytes) } else { Err(wrong("short")) }
}

struct Session {
    roots: Vec<RootSession>,
}

impl Session {
    fn root(&self, name: &str) -> Result<&RootSession> {
        self.roots.iter().find(|root| root.name == name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "this restore has no such root").on(name)
        })
    }

    /// Does it in every root, also after one failed; the first error counts.
    async fn each(&self, job: fn(&mut RootStage) -> Result<()>) -> Result<()> {
        let mut outcome = Ok(());
        for root in &self.roots {
            outcome = outcome.and(root.ask(job).await);
        }
        outcome
    }
}

#[async_trait]
impl SinkSession for Session {
    async fn existing_entry(&self, root: &str, path: &EntryPath) -> Result<Option<FileEntry>> {
        self.root(root)?.existing(path).await
    }

    async fn write(&self, part: Part) -> Result<()> {
        match part {
            Part::Schema(schema) => {
                let root = self.root(&schema.collection)?;
                root.call(move |root| root.schema(&schema.document)).await
            }
            Part::Entry(entry) => self.root(&entry.root)?.entry(entry).await,
            Part::End(end) => self.root(&end.collection)?.call(RootStage::seal).await,
            Part::Notice(_) => Ok(()),
            _ => Err(Error::adapter("a folder tree takes entries only")),
        }
    }

    async fn verify(&self, _: &Content) -> Result<Content> {
        let mut content = Content::new();
        for root in &self.roots {
            content.collections.insert(root.name.clone(), root.call(RootStage::verify).await?);
        }
        Ok(content)
    }

    async fn commit(&self) -> Result<()> {
        for (index, root) in self.roots.iter().enumerate() {
            let Err(error) = root.call(RootStage::commit).await else { continue };
            for earlier in &self.roots[..index] {
                earlier.call(|root| root.place()?.roll_back()).await?;
            }
            return Err(error);
        }
        Ok(())
    }

    async fn undo(&self) -> Result<()> {
        self.each(RootStage::undo).await
    }

    async fn finish(&self) -> Result<()> {
        self.each(RootStage::finish).await
    }

    async fn abort(&self) -> Result<()> {
        self.each(RootStage::abort).await
    }
}
