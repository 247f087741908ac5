//! Restoring: staged in a shard beside the live one, verified, exchanged.
//!
//! In merge mode what is staged is added to a copy of the live one, and that is exchanged: see
//! [`merge`](super::merge).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use backup_core::{
    Cancel, Content, Error, ErrorKind, Part, Prepared, Reattached, Result, Sink, SinkSession,
    StagePlan, StageToken, Switch, VectorChanges, Worker, WriteMode,
    record::{Key, RecordBatch},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    EdgeStore, files,
    stage::{Found, Stage},
    staging::{Asked, Staging},
    store::Shared,
};
use crate::vectors::{self, Vectors};

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
        let (switch, note) = match plan.mode {
            WriteMode::Merge => (
                Switch::AtomicCopy,
                "points are added to a copy of the shard, which then takes its place; meanwhile \
                 handles of the shard that the application holds are waited for",
            ),
            _ => (
                Switch::AtomicPointer,
                "handles of the shard that the application holds are waited for; the new shard \
                 has its payload indexes, vectors are indexed by `optimize`",
            ),
        };
        Ok(Prepared { token: plan.token(&token)?, switch, notes: vec![note.to_owned()] })
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
    // In the engine's log, and in its segments; of a merge twice, and all that is live.
    let staged = plan.bytes.saturating_mul(3);
    match plan.mode {
        WriteMode::Merge => {
            room(parent, staged.saturating_mul(2).saturating_add(files::size(path)?))
        }
        _ => room(parent, staged),
    }
}

pub(crate) fn room(folder: &Path, bytes: u64) -> Result<()> {
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
        let adds = plan.mode == WriteMode::Merge;
        let vectors = Vectors { others: self.other_vectors, adds, left_out };
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
        let merge = token.mode == WriteMode::Merge;
        let asked = Asked { left_out, model, others, merge };
        let make = || Staging::new(Arc::clone(&self.shared), stage.clone(), asked);
        let staging = self.shared.staging(&stage, make);
        let worker = Worker::spawn("qdrant sink", || Ok(()))?;
        let name = self.collection.clone();
        Ok(Session { worker, staging, cancel: cancel.clone(), name })
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
    async fn existing(&self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        self.cancel.check()?;
        let (collection, keys) = (collection.to_owned(), keys.to_vec());
        self.call(move |staging| staging.existing(&collection, &keys)).await
    }

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
        let cancel = self.cancel.clone();
        self.call(move |staging| staging.commit(&cancel)).await
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
