//! What was staged takes the place of what is live, record by record, and back.
//!
//! A live node or relationship stays the one that it is: it and the staged one exchange their
//! properties, so that what was staged holds what was live. One that is not there is made, and the
//! staged one remembers it.

use std::collections::{BTreeSet, HashMap};

use backup_core::{Cancel, Error, ErrorKind, Result};

use crate::{
    client::{Client, Statement, Transaction},
    marks::{DONE, LIVE, LOCK, MISSING, NUMBER, SEEN, World},
    names::{Kind, cypher},
    records::{node_key, reference},
    sink::{
        journal::{Journal, State, overtaken},
        merge::{
            compare::{as_seen, changed, digest, missing},
            find::{self, Within},
            identity::Identity,
            statements::{
                list_nodes, list_relationships, live_relationship, make_nodes, make_relationships,
                staged_node, staged_relationship, swap_nodes, swap_relationships, unmake_nodes,
                unmake_relationships,
            },
        },
    },
    value::Value,
};

/// Staged records of one transaction.
const PAGE: usize = 2000;

/// What is done with staged records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Live ones are found, and nothing live is changed.
    Match,
    /// What was staged becomes live.
    Apply,
    /// What was live becomes live again.
    Revert,
}

/// Staged records of one kind.
#[derive(Debug, Clone)]
enum Task {
    Nodes(Vec<String>),
    /// Nodes that relationships name and that are live only.
    Ends(Vec<String>),
    Relationships(String),
}

/// What a merge does between two states of its journal, with the numbers of all staged records that
/// it concerns.
pub(crate) struct Work<'a> {
    identity: &'a Identity,
    pages: Vec<(Step, Task, Vec<i64>)>,
}

impl<'a> Work<'a> {
    /// To be asked before a transaction begins.
    pub(crate) async fn of(
        client: &Client,
        identity: &'a Identity,
        kinds: &[Kind],
        steps: &[Step],
    ) -> Result<Self> {
        let mut work = Self { identity, pages: Vec::new() };
        for step in steps {
            let mut tasks = Vec::new();
            if *step == Step::Match {
                tasks.extend(ends(client).await?.into_iter().map(Task::Ends));
            }
            tasks.extend(kinds.iter().filter_map(|kind| match kind {
                Kind::Nodes(labels) => Some(Task::Nodes(labels.clone())),
                Kind::Relationships(name) => Some(Task::Relationships(name.clone())),
                Kind::Schema => None,
            }));
            // Nodes before what is between them.
            tasks.sort_by_key(|task| matches!(task, Task::Relationships(_)));
            if *step == Step::Revert {
                tasks.reverse();
            }
            for task in tasks {
                let mut rows = client.rows(&task.list(*step)).await?;
                let mut all = Vec::new();
                while let Some(row) = rows.next().await? {
                    all.extend(row.values.first().and_then(Value::as_integer));
                }
                work.pages.push((*step, task, all));
            }
        }
        Ok(work)
    }

    /// All in one transaction.
    pub(crate) async fn whole(&self, transaction: &mut Transaction) -> Result<()> {
        for (step, task, ids) in &self.pages {
            for page in ids.chunks(PAGE) {
                self.page(transaction, *step, task, page).await?;
            }
        }
        Ok(())
    }

    /// Page by page, each in a transaction of its own that may run again.
    pub(crate) async fn in_batches(
        &self,
        client: &Client,
        journal: &Journal,
        state: State,
        cancel: &Cancel,
    ) -> Result<()> {
        for (step, task, ids) in &self.pages {
            let mut pages: Vec<_> = ids.chunks(PAGE).collect();
            pages.reverse();
            while let Some(page) = pages.pop() {
                cancel.check()?;
                let done = client.again_if_passing(|| async {
                    let mut transaction = client.begin().await?;
                    let done = async {
                        let guard = journal.guarded(state, "RETURN 1 AS done");
                        if transaction.ask(&guard).await?.is_empty() {
                            return Err(overtaken());
                        }
                        self.page(&mut transaction, *step, task, page).await
                    };
                    match done.await {
                        Ok(()) => transaction.commit().await.map(drop),
                        Err(error) => {
                            let _ = transaction.rollback().await;
                            Err(error)
                        }
                    }
                });
                match done.await {
                    Err(error) if error.kind() == ErrorKind::LimitExceeded && page.len() > 1 => {
                        let (first, rest) = page.split_at(page.len() / 2);
                        pages.extend([rest, first]);
                    }
                    done => done?,
                }
            }
        }
        Ok(())
    }

    async fn page(
        &self,
        transaction: &mut Transaction,
        step: Step,
        task: &Task,
        ids: &[i64],
    ) -> Result<()> {
        match (step, task) {
            (Step::Match, Task::Ends(labels)) => {
                self.match_nodes(transaction, labels, ids, (true, false)).await.map(drop)
            }
            (Step::Match, Task::Nodes(labels)) => {
                self.match_nodes(transaction, labels, ids, (false, false)).await.map(drop)
            }
            (Step::Match, Task::Relationships(name)) => {
                match_relationships(transaction, name, ids).await
            }
            (Step::Apply, Task::Nodes(labels)) => {
                let staged = self.match_nodes(transaction, labels, ids, (false, true)).await?;
                let change = [swap_nodes(labels, false), make_nodes(labels)];
                let changed = run(transaction, &change, ids).await;
                counted(changed.map_err(|e| guarded(e, task))?, staged, task)
            }
            (Step::Apply, Task::Relationships(name)) => {
                let staged = check_relationships(transaction, name, ids).await?;
                let change = [swap_relationships(name, false), make_relationships(name)];
                let changed = run(transaction, &change, ids).await;
                counted(changed.map_err(|e| guarded(e, task))?, staged, task)
            }
            (Step::Revert, Task::Nodes(labels)) => {
                let key = self.identity.key(labels);
                let change = [swap_nodes(labels, true), unmake_nodes(labels, &key)];
                run(transaction, &change, ids).await.map(drop)
            }
            (Step::Revert, Task::Relationships(name)) => {
                let change = [swap_relationships(name, true), unmake_relationships(name)];
                run(transaction, &change, ids).await.map(drop)
            }
            (_, Task::Ends(_)) => Ok(()),
        }
    }

    /// Finds the live nodes of staged ones by their keys, and compares them with what was seen; how
    /// many staged ones there are. `ends` have to be live; `locked` ones stay as they are until the
    /// transaction has ended.
    async fn match_nodes(
        &self,
        transaction: &mut Transaction,
        labels: &[String],
        ids: &[i64],
        (ends, locked): (bool, bool),
    ) -> Result<usize> {
        let key = self.identity.key(labels);
        let on: Vec<_> = key.iter().map(|name| format!("s.{}", cypher(name))).collect();
        let asked = format!(
            "{} AND s.{} IS NULL RETURN i, [{}], s.{}",
            staged_node(),
            cypher(DONE),
            on.join(", "),
            cypher(SEEN)
        );
        let mut staged = HashMap::new();
        transaction
            .each(&with_ids(&asked, ids), |row| {
                let Ok([id, Value::List(values), seen]) = <[Value; 3]>::try_from(row.values) else {
                    return Ok(());
                };
                let at = |name: &str| values.get(key.iter().position(|known| known == name)?);
                let id = id.as_integer().unwrap_or(-1);
                staged.insert(node_key(&key, id, at)?, (id, seen));
                Ok(())
            })
            .await?;
        let texts: BTreeSet<_> = staged.keys().map(String::as_str).collect();
        let mut within = Within::Transaction(transaction);
        let digest = |properties: Value| Ok(digest(&properties.to_json()?));
        let live = find::nodes(&mut within, self.identity, labels, &texts, locked, digest).await?;
        let mut rows = Vec::with_capacity(staged.len());
        for (text, (id, seen)) in &staged {
            let found = live.get(text);
            let name = || reference(&Kind::nodes(labels.to_vec()).name(), text);
            if ends && found.is_none() {
                return Err(missing(&name()));
            }
            if !as_seen(seen, found.map(|(_, digest)| digest)) {
                return Err(changed(&name()));
            }
            rows.push(pair(*id, found.map(|(live, _)| *live)));
        }
        note_live(transaction, "MATCH (s)", rows).await?;
        Ok(staged.len())
    }
}

/// Sets of labels of nodes that relationships name and that are live only.
pub(crate) async fn ends(client: &Client) -> Result<Vec<Vec<String>>> {
    let all = format!("MATCH (s:{}) RETURN DISTINCT labels(s) AS labels", cypher(MISSING));
    let mut sets = BTreeSet::new();
    for row in client.ask(&Statement::new(all)).await? {
        if let Some(labels) = World::Staged.labels(row.texts("labels")?)
            && let Kind::Nodes(labels) = Kind::nodes(labels)
        {
            sets.insert(labels);
        }
    }
    Ok(sets.into_iter().collect())
}

/// Refuses relationships whose ends are neither staged nor live.
pub(crate) async fn complete(client: &Client, identity: &Identity) -> Result<()> {
    let kinds: &[Kind] = &[];
    let work = Work::of(client, identity, kinds, &[Step::Match]).await?;
    let mut transaction = client.begin().await?;
    let found = work.whole(&mut transaction).await;
    transaction.rollback().await?;
    found
}

fn with_ids(text: &str, ids: &[i64]) -> Statement {
    Statement::new(text).with("ids", ids.to_vec())
}

fn pair(staged: i64, live: Option<i64>) -> Value {
    Value::List(vec![staged.into(), live.map_or(Value::Null, Value::from)])
}

async fn note_live(transaction: &mut Transaction, pattern: &str, rows: Vec<Value>) -> Result<()> {
    let text = format!(
        "UNWIND $rows AS row {pattern} WHERE id(s) = row[0] SET s.{} = row[1]",
        cypher(LIVE)
    );
    transaction.run(&Statement::new(text).with("rows", Value::List(rows))).await.map(drop)
}

/// Runs statements for the same numbers; how many they were done for.
async fn run(transaction: &mut Transaction, statements: &[String], ids: &[i64]) -> Result<usize> {
    let mut all = 0;
    for text in statements {
        let text = format!("{text} RETURN count(*) AS done");
        let rows = transaction.ask(&with_ids(&text, ids)).await?;
        all += rows.first().map_or(Ok(0), |row| row.integer("done"))?;
    }
    Ok(usize::try_from(all).unwrap_or(0))
}

/// Gives the staged relationships of a type the numbers of the live ones.
async fn match_relationships(transaction: &mut Transaction, name: &str, ids: &[i64]) -> Result<()> {
    let asked = format!(
        "{} AND s.{done} IS NULL RETURN i, x.{live}, y.{live}, s.{number}, s.{seen}",
        staged_relationship(),
        done = cypher(DONE),
        live = cypher(LIVE),
        number = cypher(NUMBER),
        seen = cypher(SEEN),
    );
    let mut all = Vec::with_capacity(ids.len());
    transaction
        .each(&with_ids(&asked, ids), |row| {
            if let Ok([id, from, to, number, seen]) = <[Value; 5]>::try_from(row.values) {
                let integer = |value: &Value| value.as_integer();
                let pair = integer(&from).zip(integer(&to));
                let number = integer(&number).and_then(|number| usize::try_from(number).ok());
                all.push((integer(&id).unwrap_or(-1), pair, number.unwrap_or(usize::MAX), seen));
            }
            Ok(())
        })
        .await?;
    let pairs = all.iter().filter_map(|(_, pair, ..)| *pair).collect();
    let live = find::relationships(&mut Within::Transaction(transaction), name, &pairs).await?;
    let mut rows = Vec::with_capacity(all.len());
    for (id, pair_of, number, seen) in all {
        let arrow = pair_of.and_then(|pair| live.get(&pair)?.get(number));
        let found = arrow.map(|arrow| digest(&arrow.properties));
        if !as_seen(&seen, found.as_ref()) {
            return Err(changed(&Kind::Relationships(name.to_owned()).name()));
        }
        rows.push(pair(id, arrow.map(|arrow| arrow.id)));
    }
    note_live(transaction, "MATCH ()-[s]->()", rows).await
}

/// Locks the live relationships of staged ones and compares them with what was seen; how many
/// staged ones there are.
async fn check_relationships(
    transaction: &mut Transaction,
    name: &str,
    ids: &[i64],
) -> Result<usize> {
    let (done, live, seen) = (cypher(DONE), cypher(LIVE), cypher(SEEN));
    let asked = format!(
        "{staged} AND s.{done} IS NULL AND s.{live} IS NOT NULL \
         {found} REMOVE r.{lock} RETURN s.{seen}, properties(r)",
        staged = staged_relationship(),
        found = live_relationship(name),
        lock = cypher(LOCK),
    );
    transaction
        .each(&with_ids(&asked, ids), |row| match <[Value; 2]>::try_from(row.values) {
            Ok([seen, properties]) if !as_seen(&seen, Some(&digest(&properties.to_json()?))) => {
                Err(changed(&Kind::Relationships(name.to_owned()).name()))
            }
            _ => Ok(()),
        })
        .await?;
    let asked = format!("{} AND s.{done} IS NULL", staged_relationship());
    run(transaction, &[asked], ids).await
}

fn counted(changed_ones: usize, staged: usize, task: &Task) -> Result<()> {
    if changed_ones == staged { Ok(()) } else { Err(changed(&task.name())) }
}

impl Task {
    /// The numbers of what a step concerns.
    fn list(&self, step: Step) -> Statement {
        let done = step == Step::Revert;
        Statement::new(match self {
            Self::Nodes(labels) => list_nodes(labels, false, done),
            Self::Ends(labels) => list_nodes(labels, true, done),
            Self::Relationships(name) => list_relationships(name, done),
        })
    }

    fn name(&self) -> String {
        match self {
            Self::Nodes(labels) | Self::Ends(labels) => Kind::nodes(labels.clone()),
            Self::Relationships(name) => Kind::Relationships(name.clone()),
        }
        .name()
    }
}

/// A live constraint does not take what comes.
fn guarded(error: Error, task: &Task) -> Error {
    if error.kind() != ErrorKind::Incompatible {
        return error;
    }
    error.on(task.name()).advise(
        "a live record with other labels or another key has this value already: leave the archive's \
         record out, or change one of the two",
    )
}
