//! Restoring: every root on a thread of its own, all roots or none.

use std::path::PathBuf;

use backup_core::{
    Cancel, Content, EntryKind, EntryPath, Error, ErrorKind, FileEntry, Part, Prepared, Reattached,
    Result, Sink, SinkSession, StagePlan, StageToken, Worker, async_trait,
    record::{Key, RecordBatch, Tally},
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::{
    FilesStore,
    place::{self, NEW, Place, RootToken, Step},
    prepare,
    read::SMALL,
    stage::{Dress, Stage},
    switch::Live,
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
        for token in read_token(token)? {
            let cancel = cancel.clone();
            let root = RootSession::spawn(token.root.clone(), None)?;
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
        let tokens = read_token(token)?;
        let worker = Worker::spawn("files reattach", || Ok(()))?;
        let (stages, found) = worker.call(move |()| reattach(tokens)).await?;
        let mut roots = Vec::new();
        for stage in stages {
            roots.push(RootSession::spawn(stage.token.root.clone(), Some(stage))?);
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

fn read_token(token: &StageToken) -> Result<Vec<RootToken>> {
    let wrong = || Error::new(ErrorKind::InvalidInput, "the token is not one of this adapter");
    if token.kind != "files" {
        return Err(wrong().on(&token.kind));
    }
    let token: Token =
        serde_json::from_value(token.data.clone()).map_err(|e| wrong().because(e))?;
    Ok(token.roots)
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
                    (Live::Neither, _) => {
                        let aside = token.outer().join(&token.staging).join("new");
                        let reason = format!(
                            "{} is neither the old folder nor the restored one; one of them is {}",
                            token.path,
                            aside.display()
                        );
                        return Ok((Vec::new(), Found::Unknown(reason)));
                    }
                    (Live::New, Step::Exchange) => place.save(Step::Committed)?,
                    (Live::Old, Step::Exchange | Step::Committed) => place.save(Step::Staging)?,
                    _ => {}
                }
            }
            place.step_on()?;
        }
        stages.push(RootStage { token, place, stage: None, cancel: Cancel::new() });
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
    cancel: Cancel,
}

impl RootStage {
    fn begin(token: RootToken, cancel: Cancel) -> Result<Self> {
        let place = Place::create(&token)?;
        let stage = Stage::new(place.folder(NEW)?, place.create_implied()?, token.keep())?;
        Ok(Self { token, place: Some(place), stage: Some(stage), cancel })
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
        self.undo()?;
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

struct RootSession {
    name: String,
    worker: Worker<Option<RootStage>>,
}

impl RootSession {
    fn spawn(name: String, stage: Option<RootStage>) -> Result<Self> {
        let worker = Worker::spawn(format!("files {name}"), || Ok(stage))?;
        Ok(Self { name, worker })
    }

    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut RootStage) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = self.worker.call(|slot| match slot {
            Some(stage) => job(stage),
            None => Err(Error::adapter("a root was not opened")),
        });
        done.await.map_err(|error| error.on(&self.name))
    }

    async fn entry(&self, entry: FileEntry) -> Result<()> {
        let FileEntry { path, mode, modified, kind, .. } = entry;
        let dress = Dress { mode, modified };
        match kind {
            EntryKind::Directory => self.call(move |root| root.stage()?.folder(path, dress)).await,
            EntryKind::Symlink { target } => {
                self.call(move |root| root.stage()?.link(path, dress, &target)).await
            }
            EntryKind::File { len, body } => self.file(path, dress, len, body).await,
        }
    }

    async fn file(
        &self,
        path: EntryPath,
        dress: Dress,
        len: u64,
        mut body: backup_core::ByteStream,
    ) -> Result<()> {
        if len <= SMALL {
            let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
            while let Some(piece) = body.try_next().await? {
                if bytes.len() + piece.len() > usize::try_from(len).unwrap_or(0) {
                    return Err(Error::new(ErrorKind::Corrupt, "a file is too long").on(path));
                }
                bytes.extend_from_slice(&piece);
            }
            if bytes.len() as u64 != len {
                return Err(Error::new(ErrorKind::Corrupt, "a file is too short").on(path));
            }
            return self.call(move |root| root.stage()?.file(path, dress, &bytes)).await;
        }
        self.call(move |root| root.stage()?.open(path, dress, len)).await?;
        while let Some(piece) = body.try_next().await? {
            self.call(move |root| root.stage()?.append(&piece)).await?;
        }
        self.call(|root| root.stage()?.close()).await
    }
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
            outcome = outcome.and(root.call(job).await);
        }
        outcome
    }
}

#[async_trait]
impl SinkSession for Session {
    async fn existing(&self, collection: &str, _: &[Key]) -> Result<RecordBatch> {
        Err(Error::new(ErrorKind::Unsupported, "a folder tree holds no records").on(collection))
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
