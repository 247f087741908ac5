//! Restoring: staging, checking, switching, for both forms.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use backup_core::{
    Blob, Cancel, Content, Error, ErrorKind, Part, Prepared, Reattached, Result, Sink, SinkSession,
    StagePlan, StageToken, Worker,
    record::{Key, RecordBatch},
};
use futures::StreamExt;

use crate::{
    BLOB, SqliteStore,
    config::Config,
    prepare,
    stage::{PreImage, Stage},
    staging::Staging,
    switch,
};

#[async_trait]
impl Sink for SqliteStore {
    fn staging_paths(&self, restore_id: &str) -> Vec<PathBuf> {
        let stage = Stage::plan(&self.config, restore_id);
        stage.map(|(stage, _)| stage.folder().to_owned()).into_iter().collect()
    }

    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        plan.check(self)?;
        let (config, plan) = (Arc::clone(&self.config), plan.clone());
        let worker = Worker::spawn("sqlite prepare", || Ok(()))?;
        worker.call(move |()| prepare::prepare(&config, &plan)).await
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        cancel.check()?;
        let stage = Stage::of(&self.config, &token.read(self)?, token.mode)?;
        if stage.kept()?.is_some() {
            return Err(Error::adapter("a restore was begun again after it was committed"));
        }
        // What an interrupted try left is of no use: parts come from the first on.
        stage.remove()?;
        stage.make()?;
        session(&self.config, stage, cancel.clone())
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let stage = Stage::of(&self.config, &token.read(self)?, token.mode)?;
        let config = Arc::clone(&self.config);
        let looked = stage.clone();
        let worker = Worker::spawn("sqlite reattach", || Ok(()))?;
        let found = worker.call(move |()| find(&config, &looked)).await?;
        let session = || session(&self.config, stage.clone(), Cancel::new());
        Ok(match found {
            Found::Absent => Reattached::Absent,
            Found::Staged => Reattached::Staged(session()?),
            Found::Committed => Reattached::Committed(session()?),
            Found::Undone => Reattached::Undone(session()?),
            Found::Unknown => Reattached::Unknown {
                reason: format!(
                    "{} is neither what was restored nor what was there before; both are in {}",
                    self.config.path.display(),
                    stage.folder().display()
                ),
            },
        })
    }
}

enum Found {
    Absent,
    Staged,
    Committed,
    Undone,
    Unknown,
}

// Content tells; marks only where old and new are equal.
fn find(config: &Config, stage: &Stage) -> Result<Found> {
    if !stage.exists() {
        // Perhaps half removed.
        stage.remove()?;
        return Ok(Found::Absent);
    }
    let (Some(kept), Some(next)) = (stage.kept()?, stage.next_fingerprint()?) else {
        return Ok(Found::Staged);
    };
    let live = switch::live_fingerprint(config, stage)?;
    let new = live.as_ref().is_some_and(|live| live.same(&next));
    let old = match (&kept, &live) {
        (PreImage::Absent | PreImage::Unreadable, live) => live.is_none(),
        (PreImage::Database(old), Some(live)) => live.same(old),
        (PreImage::Database(_), None) => false,
    };
    Ok(match (new, old) {
        (true, false) => Found::Committed,
        (false, false) => Found::Unknown,
        _ if stage.is_undoing() => Found::Undone,
        (true, true) if stage.is_committed() => Found::Committed,
        _ => Found::Staged,
    })
}

struct Session {
    worker: Worker<Staging>,
    cancel: Cancel,
}

fn session(config: &Arc<Config>, stage: Stage, cancel: Cancel) -> Result<Box<dyn SinkSession>> {
    let staging = Staging::new(Arc::clone(config), stage, cancel.clone());
    let worker = Worker::spawn("sqlite sink", move || Ok(staging))?;
    Ok(Box::new(Session { worker, cancel }))
}

impl Session {
    async fn blob(&self, mut blob: Blob) -> Result<()> {
        if blob.name != BLOB {
            return Err(
                Error::new(ErrorKind::Unsupported, "this is no image of a database").on(blob.name)
            );
        }
        self.worker.call(|staging| staging.begin_blob()).await?;
        let mut arrived = 0_u64;
        while let Some(piece) = blob.body.next().await {
            let piece = piece?;
            self.cancel.check()?;
            arrived += piece.len() as u64;
            self.worker.call(move |staging| staging.blob_piece(&piece)).await?;
        }
        if blob.len.is_some_and(|len| len != arrived) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the image of a database has another length than it should",
            )
            .on(blob.name));
        }
        self.worker.call(move |staging| staging.end_blob(&blob.masked)).await
    }
}

#[async_trait]
impl SinkSession for Session {
    async fn existing(&self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        self.cancel.check()?;
        let (collection, keys) = (collection.to_owned(), keys.to_vec());
        self.worker.call(move |staging| staging.existing(&collection, &keys)).await
    }

    async fn write(&self, part: Part) -> Result<()> {
        self.cancel.check()?;
        match part {
            Part::Blob(blob) => self.blob(blob).await,
            Part::Schema(schema) => self.worker.call(move |s| s.schema(&schema)).await,
            Part::Records(batch) => self.worker.call(move |s| s.records(batch)).await,
            Part::End(_) | Part::Notice(_) => Ok(()),
            _ => Err(Error::new(ErrorKind::Unsupported, "a database cannot hold such a part")),
        }
    }

    async fn verify(&self, expected: &Content) -> Result<Content> {
        let expected = expected.clone();
        self.worker.call(move |staging| staging.verify(&expected)).await
    }

    async fn commit(&self) -> Result<()> {
        self.worker.call(Staging::commit).await
    }

    async fn undo(&self) -> Result<()> {
        self.worker.call(|staging| switch::undo(staging.config(), staging.stage())).await
    }

    async fn finish(&self) -> Result<()> {
        self.worker.call(Staging::remove).await
    }

    async fn abort(&self) -> Result<()> {
        self.worker.call(Staging::abort).await
    }
}
