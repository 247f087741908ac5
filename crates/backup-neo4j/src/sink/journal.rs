//! The node that tells how far a restore came.
//!
//! Every statement of a restore that writes locks it first, and then looks at it: so whoever
//! changes what it says waits for a statement that is under way, and one that comes late writes
//! nothing.

use std::collections::BTreeMap;

use backup_core::{Error, ErrorKind, Result};

use crate::{
    client::{Client, Row, Statement},
    marks::{LOCK, RESTORE},
    names::cypher,
    schema::{Document, Objects},
    value::Value,
};

/// How far a restore came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Staging,
    /// All is staged, and nothing speaks against the switch.
    Sealed,
    /// What was live is being hidden. In one transaction: nothing has happened yet.
    Clearing,
    /// What was live is hidden, and what was staged is being shown.
    Switching,
    /// What was staged is live; constraints and indexes are being made.
    Settling,
    Committed,
    /// What was live before is being removed: there is no way back.
    Finishing,
    /// The way back: what was staged is being hidden again.
    Hiding,
    /// What was live before is being shown again.
    Returning,
    /// What was live before is live; its constraints and indexes are being made again.
    Mending,
    Undone,
    /// What was staged is being removed.
    Sweeping,
}

impl State {
    const ALL: [(Self, &str); 12] = [
        (Self::Staging, "staging"),
        (Self::Sealed, "sealed"),
        (Self::Clearing, "clearing"),
        (Self::Switching, "switching"),
        (Self::Settling, "settling"),
        (Self::Committed, "committed"),
        (Self::Finishing, "finishing"),
        (Self::Hiding, "hiding"),
        (Self::Returning, "returning"),
        (Self::Mending, "mending"),
        (Self::Undone, "undone"),
        (Self::Sweeping, "sweeping"),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    fn read(text: &str) -> Result<Self> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(state, _)| *state).ok_or_else(|| odd().on(text))
    }
}

fn odd() -> Error {
    let what = "the mark of a restore in the database holds what no restore writes";
    Error::new(ErrorKind::RepairNeeded, what)
}

/// The journal of one restore.
#[derive(Clone)]
pub(crate) struct Journal {
    client: Client,
    pub(crate) id: String,
}

/// What stands in it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) state: State,
    /// The archive's schemas by collection, once all is staged.
    documents: Option<String>,
    /// Constraints and indexes as they were before the switch.
    before: Option<String>,
    /// Whether some nodes have a number of the archive.
    pub(crate) numbered: bool,
    /// Whether it adds to what is live.
    pub(crate) merge: bool,
}

/// More that is noted with a state.
pub(crate) enum Note<'a> {
    Nothing,
    Staged { documents: &'a BTreeMap<String, Document>, numbered: bool },
    Before(&'a Objects),
}

impl Entry {
    fn of(row: &Row) -> Result<Self> {
        let text = |column| Ok::<_, Error>(row.get(column)?.as_text().map(str::to_owned));
        Ok(Self {
            id: row.text("id")?.to_owned(),
            state: State::read(row.text("state")?)?,
            documents: text("documents")?,
            before: text("before")?,
            numbered: row.get("numbered")? == &Value::Bool(true),
            merge: row.get("merge")? == &Value::Bool(true),
        })
    }

    pub(crate) fn documents(&self) -> Result<BTreeMap<String, Document>> {
        let text = self.documents.as_deref().ok_or_else(odd)?;
        serde_json::from_str(text).map_err(|e| odd().because(e))
    }

    pub(crate) fn before(&self) -> Result<Objects> {
        let text = self.before.as_deref().ok_or_else(odd)?;
        serde_json::from_str(text).map_err(|e| odd().because(e))
    }
}

/// Every restore that has left its mark in the database.
pub(crate) async fn marks(client: &Client) -> Result<Vec<Entry>> {
    let all = format!(
        "MATCH (m:{}) RETURN m.id AS id, m.state AS state, m.documents AS documents, \
         m.before AS before, m.numbered AS numbered, m.merge AS merge ORDER BY id",
        cypher(RESTORE)
    );
    client.ask(&Statement::new(all)).await?.iter().map(Entry::of).collect()
}

impl Journal {
    pub(crate) fn new(client: &Client, id: &str) -> Self {
        Self { client: client.clone(), id: id.to_owned() }
    }

    /// What stands in it; none where there is nothing of this restore.
    pub(crate) async fn read(&self) -> Result<Option<Entry>> {
        Ok(marks(&self.client).await?.into_iter().find(|entry| entry.id == self.id))
    }

    pub(crate) async fn state(&self) -> Result<Option<State>> {
        Ok(self.read().await?.map(|entry| entry.state))
    }

    /// Leaves the mark.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy): another restore has left one.
    pub(crate) async fn claim(&self, merge: bool) -> Result<()> {
        let made = format!(
            "MERGE (m:{} {{id: $restore}}) \
             ON CREATE SET m.state = $state, m.turn = 0, m.merge = $merge, m.{} = 0",
            cypher(RESTORE),
            // Removing a property locks only where the server knows its name.
            cypher(LOCK)
        );
        let made = Statement::new(made)
            .with("restore", self.id.as_str())
            .with("merge", merge)
            .with("state", State::Staging.as_str());
        self.client.ask(&made).await?;
        // Of two that come at once both may give way, but never both stay.
        let marks = marks(&self.client).await?;
        match marks.into_iter().find(|entry| entry.id != self.id) {
            None => Ok(()),
            Some(other) => {
                self.remove().await?;
                Err(busy(&other.id))
            }
        }
    }

    /// Takes the mark away: the end of the restore.
    pub(crate) async fn remove(&self) -> Result<()> {
        let gone = format!("MATCH (m:{} {{id: $restore}}) DELETE m", cypher(RESTORE));
        let gone = Statement::new(gone).with("restore", self.id.as_str());
        self.client.ask(&gone).await.map(drop)
    }

    /// A statement that does nothing unless the restore is in this state; `m` is taken in it.
    pub(crate) fn guarded(&self, state: State, then: &str) -> Statement {
        let text = format!(
            "MATCH (m:{} {{id: $restore}}) SET m.turn = m.turn + 1 WITH m WHERE m.state = $state {then}",
            cypher(RESTORE)
        );
        Statement::new(text).with("restore", self.id.as_str()).with("state", state.as_str())
    }

    /// What goes from one state to the next.
    pub(crate) fn step(&self, from: State, to: State, note: &Note<'_>) -> Result<Statement> {
        let mut set = "SET m.state = $to".to_owned();
        let mut noted = Vec::new();
        match note {
            Note::Nothing => {}
            Note::Staged { documents, numbered } => {
                set.push_str(", m.documents = $documents, m.numbered = $numbered");
                noted.push(("documents", Value::from(json(documents)?)));
                noted.push(("numbered", Value::Bool(*numbered)));
            }
            Note::Before(objects) => {
                set.push_str(", m.before = $before");
                noted.push(("before", Value::from(json(objects)?)));
            }
        }
        let text = format!(
            "MATCH (m:{} {{id: $restore}}) SET m.turn = m.turn + 1 \
             WITH m WHERE m.state IN [$from, $to] {set} RETURN 1 AS done",
            cypher(RESTORE)
        );
        let statement = Statement::new(text)
            .with("restore", self.id.as_str())
            .with("from", from.as_str())
            .with("to", to.as_str());
        Ok(noted
            .into_iter()
            .fold(statement, |statement, (name, value)| statement.with(name, value)))
    }

    /// Goes from one state to the next.
    ///
    /// # Errors
    /// Another process goes on with the restore, or has ended it.
    pub(crate) async fn advance(&self, from: State, to: State, note: Note<'_>) -> Result<()> {
        let statement = self.step(from, to, &note)?;
        match self.client.ask(&statement).await?.is_empty() {
            false => Ok(()),
            true => Err(overtaken()),
        }
    }
}

fn json(of: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(of).map_err(|e| Error::adapter("a schema is no JSON").because(e))
}

/// Another restore is under way.
pub(crate) fn busy(id: &str) -> Error {
    Error::new(ErrorKind::Busy, "another restore of this database has not ended")
        .on(id)
        .advise("resume that one; if its journal is lost, call `Neo4jStore::remove_leftovers`")
}

/// Somebody else has changed the restore's state.
pub(crate) fn overtaken() -> Error {
    Error::new(ErrorKind::Busy, "another process goes on with this restore, or has ended it")
        .advise("let it end, then look again")
}
