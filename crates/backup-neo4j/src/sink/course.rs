//! From one state of the journal to the next: the switch, and its way back.

use backup_core::{Error, Result};

use crate::{
    marks::World,
    names::Kind,
    schema::Objects,
    sink::{
        journal::{Entry, Note, State},
        merge::{self, Identity, Step, Work},
        rules,
        session::{Session, gone},
        switch::{self, Change},
        token::Way,
    },
};

/// What is done between states.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// What was live gives way; a merge looks at it only.
    Clear,
    /// What was staged becomes live.
    Show,
    /// The way back: it does not any more.
    Hide,
    /// What was live is so again.
    Return,
}

impl Phase {
    fn worlds(self) -> (World, World) {
        match self {
            Self::Clear => (World::Live, World::Old),
            Self::Show => (World::Staged, World::Live),
            Self::Hide => (World::Live, World::Staged),
            Self::Return => (World::Old, World::Live),
        }
    }

    /// The same of a merge, whose way back has one.
    fn step(self) -> Option<Step> {
        match self {
            Self::Clear => Some(Step::Match),
            Self::Show => Some(Step::Apply),
            Self::Hide => Some(Step::Revert),
            Self::Return => None,
        }
    }
}

impl Session {
    pub(super) async fn forward(&self, mut state: State) -> Result<()> {
        let (client, journal, cancel) = (&self.client, &self.journal, &self.cancel);
        loop {
            let next = match state {
                State::Sealed => {
                    cancel.check()?;
                    let live = Objects::read(client).await?;
                    journal.advance(state, State::Clearing, Note::Before(&live)).await?;
                    state = State::Clearing;
                    continue;
                }
                State::Clearing | State::Switching => {
                    if state == State::Clearing && self.merging.is_none() {
                        rules::only(client, &self.wanted().await?).await?;
                    }
                    let (phases, next) = match (state, self.way) {
                        (State::Clearing, Way::Once) => {
                            (&[Phase::Clear, Phase::Show][..], State::Settling)
                        }
                        (State::Clearing, Way::Batches) => (&[Phase::Clear][..], State::Switching),
                        _ => (&[Phase::Show][..], State::Settling),
                    };
                    self.change((state, next), phases).await?;
                    state = next;
                    continue;
                }
                State::Settling => {
                    rules::make(client, &self.wanted().await?, cancel).await?;
                    State::Committed
                }
                State::Committed => return Ok(()),
                other => return Err(Error::out_of_order("commit", other.as_str())),
            };
            journal.advance(state, next, Note::Nothing).await?;
            state = next;
        }
    }

    /// Constraints and indexes of the archive.
    async fn wanted(&self) -> Result<Objects> {
        let entry = self.entry("commit").await?;
        let (documents, before) = (entry.documents()?, entry.before()?);
        match self.merging {
            None => Ok(rules::wanted(&documents, &before)),
            Some(_) => merge::wanted(&documents, before),
        }
    }

    /// What was live before is live again afterwards, and the restore in the state `goal`.
    pub(super) async fn back(&self, goal: State) -> Result<()> {
        let (client, cancel) = (&self.client, &self.cancel);
        let mut entry = self.entry("undo").await?;
        loop {
            let state = entry.state;
            let next = match state {
                State::Staging | State::Sealed | State::Undone | State::Sweeping => return Ok(()),
                State::Finishing => return Err(gone()),
                // Nothing that was staged is live yet.
                State::Clearing => State::Returning,
                State::Switching | State::Settling | State::Committed => State::Hiding,
                State::Hiding | State::Returning => {
                    rules::only(client, &entry.before()?).await?;
                    let (phases, next) = match (state, self.way) {
                        (State::Hiding, Way::Once) => {
                            (&[Phase::Hide, Phase::Return][..], State::Mending)
                        }
                        (State::Hiding, Way::Batches) => (&[Phase::Hide][..], State::Returning),
                        _ => (&[Phase::Return][..], State::Mending),
                    };
                    self.change((state, next), phases).await?;
                    entry.state = next;
                    continue;
                }
                State::Mending => {
                    rules::make(client, &entry.before()?, cancel).await?;
                    goal
                }
            };
            self.journal.advance(state, next, Note::Nothing).await?;
            entry.state = next;
        }
    }

    /// By what the nodes of a merge are found.
    pub(super) async fn identity(&self, entry: &Entry) -> Result<Identity> {
        let live = match entry.before() {
            Ok(before) => before,
            Err(_) => Objects::read(&self.client).await?,
        };
        Ok(Identity::noted(merge::wanted(&entry.documents()?, live)?, &self.options))
    }

    /// Does phases of the switch or of its way back, and goes to the next state; in one transaction
    /// or in batches.
    async fn change(&self, (from, to): (State, State), phases: &[Phase]) -> Result<()> {
        let (client, journal) = (&self.client, &self.journal);
        let identity;
        let change = match self.merging {
            None => {
                let mut moves = Vec::new();
                for (from, to) in phases.iter().map(|phase| phase.worlds()) {
                    moves.extend(switch::moves(client, from, to).await?);
                }
                Change::Moves(moves)
            }
            Some(_) => {
                let entry = self.entry("commit").await?;
                identity = self.identity(&entry).await?;
                let kinds = entry.documents()?;
                let kinds =
                    kinds.keys().map(|name| Kind::parse(name)).collect::<Result<Vec<_>>>()?;
                let steps: Vec<_> = phases.iter().filter_map(|phase| phase.step()).collect();
                Change::Merge(Work::of(client, &identity, &kinds, &steps).await?)
            }
        };
        if self.way == Way::Once {
            return switch::at_once(client, journal, (from, to), &change).await;
        }
        change.in_batches(client, journal, from, &self.cancel).await?;
        journal.advance(from, to, Note::Nothing).await
    }
}
