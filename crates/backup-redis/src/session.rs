//! The verbs of a restore: switch, switch back, end, give up.

use backup_core::{
    Content, Error, ErrorKind, Part, Result, SinkSession, async_trait,
    record::{Key, RecordBatch},
};

use crate::{
    extra::Extra,
    stage::{KINDS, Session},
    token::{State, Way},
};

impl Session {
    pub(crate) fn tell_hook(&self) {
        if let Some(hook) = &self.options.after_switch {
            hook();
        }
    }

    async fn switch(&self) -> Result<()> {
        let state = self.seal().await?;
        if state == State::Committed {
            return Ok(());
        }
        if matches!(state, State::Undoing | State::Undone) {
            return Err(Error::out_of_order("commit", "it was undone"));
        }
        let switched = match self.put_extras().await {
            Err(error) => Err(error),
            Ok(()) => match &self.token.way {
                Way::Swap(pairs) => self.swap(pairs, State::Committed).await,
                Way::Rename(_) => self.rename_in(state).await,
            },
        };
        if let Err(error) = switched {
            // Where it is not known that keys are old, whoever goes on takes all of it back.
            if let Ok(Some(State::Staged | State::Sealed)) = self.state().await {
                self.uncancelled().extras_back(false).await.map_err(|e| self.repair(e))?;
            }
            return Err(error);
        }
        self.tell_hook();
        Ok(())
    }

    fn repair(&self, error: Error) -> Error {
        let what = "what was replaced cannot be put back";
        Error::new(ErrorKind::RepairNeeded, what)
            .on(format!("on the server, under {}", self.token.marker()))
            .because(error)
            .advise("when the server is well again, call resume")
    }

    async fn switch_back(&self) -> Result<()> {
        let state = self.state().await?;
        match state.ok_or_else(|| Error::out_of_order("undo", "nothing was committed"))? {
            State::Undone => return Ok(()),
            State::Staged | State::Sealed => {
                return Err(Error::out_of_order("undo", "it was not committed"));
            }
            _ => {}
        }
        let back = match &self.token.way {
            Way::Swap(pairs) => match self.extras_back(true).await {
                Ok(()) => self.swap(pairs, State::Undone).await,
                failed => failed,
            },
            Way::Rename(_) => self.rename_back().await,
        };
        back.map_err(|error| self.repair(error))?;
        self.tell_hook();
        Ok(())
    }

    async fn end(&self) -> Result<()> {
        let state = match self.state().await? {
            None => return Ok(()),
            Some(state @ (State::Committed | State::Undone)) => state,
            Some(_) => return Err(Error::out_of_order("finish", "it was not committed")),
        };
        if state == State::Committed {
            for target in self.targets().await? {
                self.set_deadlines(&target.live, &self.live_place(), true).await?;
                self.set_field_deadlines(&target.live).await?;
            }
        }
        self.remove().await
    }

    pub(crate) async fn give_up(&self) -> Result<()> {
        match self.state().await? {
            None => return Ok(()),
            Some(State::Committed | State::Undone) => {
                return Err(Error::out_of_order("abort", "it was committed"));
            }
            Some(State::Staged | State::Sealed) => {
                self.extras_back(false).await.map_err(|e| self.repair(e))?;
            }
            Some(_) => self.switch_back().await?,
        }
        self.remove().await
    }

    async fn remove(&self) -> Result<()> {
        match &self.token.way {
            Way::Swap(pairs) => self.release(pairs).await,
            Way::Rename(_) => {
                self.sweep(&KINDS).await?;
                let node = self.marker_node().await?;
                node.one(redis::cmd("DEL").arg(self.token.marker())).await.map(drop)
            }
        }
    }
}

#[async_trait]
impl SinkSession for Session {
    async fn existing(&self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        self.cancel.check()?;
        let (collection, keys) = (collection.to_owned(), keys.to_vec());
        self.on_runtime(|this| async move {
            match Extra::of(&collection) {
                None => this.look_up(&collection, &keys).await,
                Some(extra) => this.look_up_extra(extra, &keys).await,
            }
        })
        .await
    }

    async fn write(&self, part: Part) -> Result<()> {
        self.cancel.check()?;
        match part {
            Part::Schema(schema) => self.announce(&schema),
            Part::Records(batch) => match Extra::of(batch.collection()) {
                None => self.records(batch).await,
                Some(extra) => {
                    self.on_runtime(|this| async move { this.stage_extra(extra, &batch).await })
                        .await
                }
            },
            Part::End(_) | Part::Notice(_) => Ok(()),
            other => Err(other.refused_by("a Redis server")),
        }
    }

    async fn verify(&self, _: &Content) -> Result<Content> {
        self.cancel.check()?;
        self.on_runtime(|this| async move {
            let state = this.seal().await?;
            this.tally(state).await
        })
        .await
    }

    async fn commit(&self) -> Result<()> {
        self.cancel.check()?;
        self.on_runtime(|this| async move { this.switch().await }).await
    }

    async fn undo(&self) -> Result<()> {
        self.on_runtime(|this| async move { this.uncancelled().switch_back().await }).await
    }

    async fn finish(&self) -> Result<()> {
        self.on_runtime(|this| async move { this.uncancelled().end().await }).await
    }

    async fn abort(&self) -> Result<()> {
        self.on_runtime(|this| async move { this.uncancelled().give_up().await }).await
    }
}
