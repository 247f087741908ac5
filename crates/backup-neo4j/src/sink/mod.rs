//! Restoring: planning, finding a restore again.

mod course;
mod journal;
mod merge;
mod placed;
mod plan;
mod readback;
mod rules;
mod session;
mod stage;
mod stager;
mod sweep;
mod switch;
mod token;

use backup_core::{
    Cancel, Prepared, Reattached, Result, Sink, SinkSession, StagePlan, StageToken, WriteMode,
    async_trait,
};

use crate::options::Neo4jStore;
use journal::State;
use session::Session;
use token::Token;

#[async_trait]
impl Sink for Neo4jStore {
    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        plan.check(self)?;
        let (client, options, wanted) = (self.client.clone(), self.options.clone(), plan.clone());
        let looked = async move { plan::look(&client, &options, &wanted).await };
        let plan::Looked { token, switch, notes } = self.client.run(looked).await?;
        Ok(Prepared { token: plan.token(&token)?, switch, notes })
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        let session = self.session(token, cancel.clone())?;
        cancel.check()?;
        session.begin().await?;
        Ok(Box::new(session))
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let session = self.session(token, Cancel::new())?;
        Ok(match session.state().await? {
            None => Reattached::Absent,
            // A switch that broke off is gone on with by a commit, and taken back by an abort.
            Some(
                State::Staging
                | State::Sealed
                | State::Clearing
                | State::Switching
                | State::Settling
                | State::Sweeping,
            ) => Reattached::Staged(Box::new(session)),
            Some(
                State::Committed
                | State::Finishing
                | State::Hiding
                | State::Returning
                | State::Mending,
            ) => Reattached::Committed(Box::new(session)),
            Some(State::Undone) => Reattached::Undone(Box::new(session)),
        })
    }
}

impl Neo4jStore {
    fn session(&self, stage: &StageToken, cancel: Cancel) -> Result<Session> {
        let token: Token = stage.read(self)?;
        token.check()?;
        let merge = stage.mode == WriteMode::Merge;
        Ok(Session::new(self, token, merge, cancel))
    }

    /// Ends every restore of this database whose journal is lost: where it had not come to its end,
    /// live content is then as it was before. Their ids, none where nothing was left.
    ///
    /// Must not be called while a restore is under way.
    ///
    /// # Errors
    /// A server that cannot be reached; a restore that cannot be taken back.
    pub async fn remove_leftovers(&self) -> Result<Vec<String>> {
        let client = self.client.clone();
        let found = self.client.run(async move { journal::marks(&client).await }).await?;
        let mut ended = Vec::new();
        for entry in found {
            let token = Token { id: entry.id.clone(), way: token::Way::Batches };
            let session = Session::new(self, token, entry.merge, Cancel::new());
            match entry.state {
                State::Committed | State::Finishing | State::Undone => session.finish().await?,
                _ => {
                    session.take_back(State::Undone).await?;
                    session.abort().await?;
                }
            }
            ended.push(entry.id);
        }
        Ok(ended)
    }
}
