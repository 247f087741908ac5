//! Loading.

use std::{fs::File, io::Write, path::PathBuf, sync::Arc};

use backup_core::{
    Blob, Cancel, Content, Error, ErrorKind, Part, Prepared, Reattached, Result, Sink, SinkSession,
    StagePlan, StageToken, Switch, Worker, async_trait,
};
use futures::StreamExt;

use super::{
    Neo4jDump, Place, in_thread,
    stage::{Stage, State},
};

#[async_trait]
impl Sink for Neo4jDump {
    fn staging_paths(&self, restore_id: &str) -> Vec<PathBuf> {
        Stage::of(&self.0, restore_id).map(|stage| stage.0).into_iter().collect()
    }

    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        plan.check(self)?;
        let blobs: Vec<_> = plan.content.blobs.keys().collect();
        if blobs != [Place::BLOB] || !plan.content.collections.is_empty() {
            let what = "this is no dump of a database";
            return Err(Error::new(ErrorKind::Unsupported, what).on(&plan.store));
        }
        Stage::of(&self.0, &plan.restore_id)?;
        let version = in_thread(&self.0, |place| place.admin.version()).await?;
        let notes = vec![format!(
            "Neo4j {version} loads the dump, so its server has to be stopped at the switch; a server of \
             an older version than the dump's does not read it"
        )];
        Ok(Prepared { token: plan.token(&plan.restore_id)?, switch: Switch::Stepwise, notes })
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        cancel.check()?;
        let stage = Stage::of(&self.0, &token.read::<String>(self)?)?;
        if matches!(stage.state()?, Some(state) if state != State::Staged) {
            return Err(Error::adapter("a restore was begun again after it was committed"));
        }
        stage.remove()?;
        stage.make()?;
        session(&self.0, stage, cancel.clone())
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let stage = Stage::of(&self.0, &token.read::<String>(self)?)?;
        let looked = stage.clone();
        let found = in_thread(&self.0, move |place| looked.recover(place)).await?;
        let Some(found) = found else {
            stage.remove()?;
            return Ok(Reattached::Absent);
        };
        let session = session(&self.0, stage, Cancel::new())?;
        Ok(match found {
            State::Committed => Reattached::Committed(session),
            State::Undone => Reattached::Undone(session),
            _ => Reattached::Staged(session),
        })
    }
}

struct Session {
    worker: Worker<Work>,
    cancel: Cancel,
}

/// What the thread of a session owns.
struct Work {
    place: Arc<Place>,
    stage: Stage,
    cancel: Cancel,
    file: Option<File>,
    /// Whether what is staged was loaded and checked.
    tried: bool,
}

fn session(place: &Arc<Place>, stage: Stage, cancel: Cancel) -> Result<Box<dyn SinkSession>> {
    let work =
        Work { place: Arc::clone(place), stage, cancel: cancel.clone(), file: None, tried: false };
    let worker = Worker::spawn("neo4j load", move || Ok(work))?;
    Ok(Box::new(Session { worker, cancel }))
}

impl Work {
    fn io(&self, error: std::io::Error) -> Error {
        Error::io("a dump cannot be kept", error).on(self.stage.dump().display())
    }

    fn verify(&mut self) -> Result<Content> {
        let mut content = Content::new();
        match self.stage.state()? {
            Some(State::Committed) => self.place.admin.check(&self.place.database, None)?,
            _ if self.tried => {}
            _ => {
                self.stage.try_out(&self.place, &self.cancel)?;
                self.tried = true;
            }
        }
        content.blobs.insert(Place::BLOB.to_owned(), self.stage.content(&self.cancel)?);
        Ok(content)
    }
}

impl Session {
    async fn dump(&self, mut blob: Blob) -> Result<()> {
        if blob.name != Place::BLOB {
            let what = "this is no dump of a database";
            return Err(Error::new(ErrorKind::Unsupported, what).on(blob.name));
        }
        self.worker
            .call(|work| {
                work.tried = false;
                work.file = Some(File::create(work.stage.dump()).map_err(|e| work.io(e))?);
                Ok(())
            })
            .await?;
        let mut arrived = 0;
        while let Some(piece) = blob.body.next().await {
            let piece = piece?;
            self.cancel.check()?;
            arrived += piece.len() as u64;
            self.worker
                .call(move |work| {
                    let written = work.file.as_mut().map_or(Ok(()), |file| file.write_all(&piece));
                    written.map_err(|e| work.io(e))
                })
                .await?;
        }
        if blob.len.is_some_and(|len| len != arrived) {
            let what = "a dump has another length than it should";
            return Err(Error::new(ErrorKind::Corrupt, what).on(blob.name));
        }
        self.worker
            .call(|work| {
                let synced = work.file.take().map_or(Ok(()), |file| file.sync_all());
                synced.map_err(|e| work.io(e))
            })
            .await
    }
}

#[async_trait]
impl SinkSession for Session {
    async fn write(&self, part: Part) -> Result<()> {
        self.cancel.check()?;
        match part {
            Part::Blob(blob) => self.dump(blob).await,
            Part::End(_) | Part::Notice(_) => Ok(()),
            _ => Err(Error::new(ErrorKind::Unsupported, "a dump has no such part")),
        }
    }

    async fn verify(&self, _: &Content) -> Result<Content> {
        self.worker.call(Work::verify).await
    }

    async fn commit(&self) -> Result<()> {
        self.worker.call(|work| work.stage.commit(&work.place)).await
    }

    async fn undo(&self) -> Result<()> {
        self.worker.call(|work| work.stage.undo(&work.place)).await
    }

    async fn finish(&self) -> Result<()> {
        self.worker.call(|work| work.stage.finish()).await
    }

    async fn abort(&self) -> Result<()> {
        self.worker.call(|work| work.stage.abort()).await
    }
}
