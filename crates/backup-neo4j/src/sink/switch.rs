//! What was live is hidden, and what was staged is shown; and the way back.
//!
//! A node changes its labels and stays the node that it is. A relationship cannot change its type:
//! one of the new type takes its place. So that every relationship of the application is between
//! nodes of the application at every moment, relationships are hidden before nodes, and shown
//! after them.

use backup_core::{Cancel, ErrorKind, Result};

use crate::{
    client::{Client, Statement, Transaction},
    marks::{KEY, World},
    names::cypher,
    sink::{
        journal::{Journal, Note, State, overtaken},
        merge::Work,
    },
};

/// Nodes or relationships of one batch.
const ROUND: i64 = 10_000;

/// One kind of thing that moves from one world to another.
pub(crate) struct Move {
    /// What finds it: ends before what limits it.
    find: String,
    /// What moves it.
    change: String,
}

impl Move {
    /// For all at once.
    pub(super) fn whole(&self) -> Statement {
        Statement::new(format!("{} {}", self.find, self.change))
    }
}

/// What has to be moved. To be asked before a transaction begins.
pub(crate) async fn moves(client: &Client, from: World, to: World) -> Result<Vec<Move>> {
    let mut nodes: Vec<_> = names(client, "db.labels() YIELD label AS name", from)
        .await?
        .iter()
        .map(|label| node(label, from, to))
        .collect();
    nodes.push(bare(from, to));
    let types = "db.relationshipTypes() YIELD relationshipType AS name";
    let relationships = names(client, types, from).await?;
    let relationships = relationships.iter().map(|name| relationship(name, from, to));
    Ok(match to {
        World::Live => nodes.into_iter().chain(relationships).collect(),
        _ => relationships.chain(nodes).collect(),
    })
}

/// Labels or types of a world that are used.
pub(crate) async fn names(client: &Client, all: &str, world: World) -> Result<Vec<String>> {
    let rows = client.ask(&Statement::new(format!("CALL {all} RETURN name ORDER BY name"))).await?;
    let mut names = Vec::new();
    for row in &rows {
        names.extend(world.real(row.text("name")?).map(str::to_owned));
    }
    Ok(names)
}

fn node(label: &str, from: World, to: World) -> Move {
    let (old, new) = (cypher(&from.name(label)), cypher(&to.name(label)));
    Move { find: format!("MATCH (n:{old})"), change: relabel(from, to, Some((&old, &new))) }
}

/// Those that have no label in either world.
fn bare(from: World, to: World) -> Move {
    let find = match from.base() {
        None => "MATCH (n) WHERE size(labels(n)) = 0".to_owned(),
        Some(base) => format!("MATCH (n:{})", cypher(base)),
    };
    Move { find, change: relabel(from, to, None) }
}

fn relabel(from: World, to: World, label: Option<(&str, &str)>) -> String {
    let base = |world: World| world.base().map(cypher);
    let set: Vec<_> = base(to).into_iter().chain(label.map(|(_, new)| new.to_owned())).collect();
    let drop: Vec<_> = base(from).into_iter().chain(label.map(|(old, _)| old.to_owned())).collect();
    let mut change = String::new();
    if !set.is_empty() {
        change.push_str(&format!("SET n:{} ", set.join(":")));
    }
    if !drop.is_empty() {
        change.push_str(&format!("REMOVE n:{} ", drop.join(":")));
    }
    if from == World::Staged {
        change.push_str(&format!("REMOVE n.{} ", cypher(KEY)));
    }
    change
}

fn relationship(name: &str, from: World, to: World) -> Move {
    let (old, new) = (cypher(&from.name(name)), cypher(&to.name(name)));
    Move {
        find: format!("MATCH (a)-[n:{old}]->(b)"),
        change: format!("CREATE (a)-[r:{new}]->(b) SET r = properties(n) DELETE n"),
    }
}

/// Does something with all that is found, which then is found no more. Of `n`, and of `a` and `b`
/// where `n` is a relationship.
pub(crate) async fn rounds(
    client: &Client,
    journal: &Journal,
    state: State,
    find: &str,
    change: &str,
    cancel: &Cancel,
) -> Result<()> {
    let found = if find.contains("(a)-[") { "a, n, b" } else { "n" };
    let text = format!("{find} WITH m, {found} LIMIT $round {change} RETURN count(*) AS done");
    let statement = journal.guarded(state, &text);
    let mut round = ROUND;
    loop {
        cancel.check()?;
        let done = client.ask(&statement.clone().with("round", round)).await;
        match done {
            Err(error) if error.kind() == ErrorKind::LimitExceeded && round > 1 => round /= 2,
            Err(error) => return Err(error),
            Ok(rows) => {
                if rows.first().map_or(Ok(0), |row| row.integer("done"))? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// What is done between two states of a restore.
pub(crate) enum Change<'a> {
    /// One world takes the place of another.
    Moves(Vec<Move>),
    /// Records are merged, or taken back.
    Merge(Work<'a>),
}

impl Change<'_> {
    /// In batches, each a transaction of its own that may run again.
    pub(crate) async fn in_batches(
        &self,
        client: &Client,
        journal: &Journal,
        state: State,
        cancel: &Cancel,
    ) -> Result<()> {
        match self {
            Self::Moves(moves) => {
                for one in moves {
                    rounds(client, journal, state, &one.find, &one.change, cancel).await?;
                }
                Ok(())
            }
            Self::Merge(work) => work.in_batches(client, journal, state, cancel).await,
        }
    }

    async fn whole(&self, transaction: &mut Transaction) -> Result<()> {
        match self {
            Self::Moves(moves) => {
                for one in moves {
                    transaction.run(&one.whole()).await?;
                }
                Ok(())
            }
            Self::Merge(work) => work.whole(transaction).await,
        }
    }
}

/// Does all in one transaction, with the step of the journal that tells of it.
pub(crate) async fn at_once(
    client: &Client,
    journal: &Journal,
    (from, to): (State, State),
    change: &Change<'_>,
) -> Result<()> {
    let step = journal.step(from, to, &Note::Nothing)?;
    let moved = client
        .again_if_refused(|| async {
            let mut transaction = client.begin().await?;
            match do_all(&mut transaction, journal, from, change, &step).await {
                Ok(()) => transaction.commit().await.map(drop),
                Err(error) => {
                    let _ = transaction.rollback().await;
                    Err(error)
                }
            }
        })
        .await;
    match moved {
        // Only the journal knows what became of a transaction whose end was not heard of.
        Err(error) if error.kind() == ErrorKind::Unreachable => match journal.state().await {
            Ok(Some(state)) if state == to => Ok(()),
            _ => Err(error),
        },
        moved => moved,
    }
}

async fn do_all(
    transaction: &mut Transaction,
    journal: &Journal,
    from: State,
    change: &Change<'_>,
    step: &Statement,
) -> Result<()> {
    if transaction.ask(&journal.guarded(from, "RETURN 1 AS done")).await?.is_empty() {
        return Err(overtaken());
    }
    change.whole(transaction).await?;
    match transaction.ask(step).await?.is_empty() {
        false => Ok(()),
        true => Err(overtaken()),
    }
}
