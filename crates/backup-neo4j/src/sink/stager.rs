//! Staged rows on their way to the server, one batch after the other.

use backup_core::{ErrorKind, Result};

use crate::{
    client::{Client, Row},
    marks::{KEY, MISSING, World},
    names::cypher,
    sink::{
        journal::{Journal, State, overtaken},
        placed::Placed,
        stage::{Batch, Rows, Target, labels},
    },
    value::Value,
};

/// The parameter that holds a batch.
const ROWS: &str = "rows";

/// Writes rows.
#[derive(Default)]
pub(crate) struct Stager {
    /// Relationships name nodes that have not come yet: every node that comes has its key in the
    /// database, to be found by it.
    ahead: bool,
    /// Nodes that need not.
    placed: Placed,
}

/// How a statement makes nodes.
#[derive(Clone, Copy)]
enum Nodes {
    /// Known by their numbers only.
    Placed,
    /// With their keys.
    Keyed,
    /// With their keys, under which they may be there.
    Ahead,
}

impl Stager {
    /// For records of a merge: ends may be live only, and stand for those.
    pub(crate) fn for_merge() -> Self {
        Self { ahead: true, placed: Placed::default() }
    }

    pub(crate) async fn write(
        &mut self,
        client: &Client,
        journal: &Journal,
        rows: Rows,
    ) -> Result<()> {
        let mut batches = rows.into_batches();
        batches.reverse();
        while let Some(batch) = batches.pop() {
            let batch = match self.find_ends(batch) {
                Ok(batch) => batch,
                Err(parts) => {
                    batches.extend(parts);
                    continue;
                }
            };
            let target = batch.target.clone();
            match self.batch(client, journal, batch).await {
                Ok(None) => {}
                // Ends that have not come yet are made, and filled when they come.
                Ok(Some(rows)) if !self.ahead => {
                    self.ahead = true;
                    batches.push(Batch { target, rows });
                }
                Ok(Some(_)) => return Err(overtaken()),
                // What the server has no memory for at once it may have for halves of it.
                Err((error, mut rows)) => {
                    if error.kind() != ErrorKind::LimitExceeded || rows.len() < 2 {
                        return Err(error);
                    }
                    let rest = rows.split_off(rows.len() / 2);
                    batches.extend([rest, rows].map(|rows| Batch { target: target.clone(), rows }));
                }
            }
        }
        Ok(())
    }

    /// Puts numbers for keys where they are known; where some are and others are not, the batch
    /// falls apart.
    fn find_ends(&self, batch: Batch) -> Result<Batch, Vec<Batch>> {
        let Target::Relationships { name, numbered: [false, false] } = &batch.target else {
            return Ok(batch);
        };
        let mut parts: Vec<([bool; 2], Vec<Value>)> = Vec::new();
        for row in batch.rows {
            let Value::List(mut row) = row else { continue };
            let numbered = [0, 1].map(|end| {
                let number = row[end].as_text().and_then(|key| self.placed.get(key));
                number.map(|number| row[end] = number.into()).is_some()
            });
            match parts.iter_mut().find(|(known, _)| *known == numbered) {
                Some((_, rows)) => rows.push(Value::List(row)),
                None => parts.push((numbered, vec![Value::List(row)])),
            }
        }
        let mut parts: Vec<_> = parts
            .into_iter()
            .map(|(numbered, rows)| Batch {
                target: Target::Relationships { name: name.clone(), numbered },
                rows,
            })
            .collect();
        // By keys on both sides: that is the batch itself, which cannot be taken apart again.
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Err(parts),
        }
    }

    /// Writes all rows, or none and gives them back. Repeated only where the server has certainly
    /// taken nothing.
    async fn batch(
        &mut self,
        client: &Client,
        journal: &Journal,
        batch: Batch,
    ) -> Result<Option<Vec<Value>>, (backup_core::Error, Vec<Value>)> {
        let wanted = batch.rows.len();
        let nodes = match self.ahead {
            true => Nodes::Ahead,
            false if self.placed.has_room_for(wanted) => Nodes::Placed,
            false => Nodes::Keyed,
        };
        let places = matches!((&batch.target, nodes), (Target::Nodes(_), Nodes::Placed));
        let text = statement(&batch.target, nodes);
        let statement = journal.guarded(State::Staging, &text).with(ROWS, Value::List(batch.rows));
        let written = client
            .again_if_refused(|| async {
                let mut transaction = client.begin().await?;
                let written = transaction.ask(&statement).await;
                let written = written.and_then(|answer| {
                    let done = match (places, answer.first()) {
                        (true, _) => answer.len() as i64,
                        (false, Some(row)) => row.integer("done")?,
                        (false, None) => 0,
                    };
                    Ok((done, answer))
                });
                match written {
                    Ok((done, answer)) if done == wanted as i64 => {
                        transaction.commit().await.map(|_| Some(answer))
                    }
                    Ok(_) => transaction.rollback().await.map(|()| None),
                    Err(error) => {
                        let _ = transaction.rollback().await;
                        Err(error)
                    }
                }
            })
            .await;
        let rows = match statement.into_parameter(ROWS) {
            Some(Value::List(rows)) => rows,
            _ => Vec::new(),
        };
        match written {
            Ok(Some(answer)) if places => match self.place(&rows, &answer) {
                Ok(()) => Ok(None),
                Err(error) => Err((error, rows)),
            },
            Ok(Some(_)) => Ok(None),
            Ok(None) => Ok(Some(rows)),
            Err(error) => Err((error, rows)),
        }
    }

    fn place(&mut self, rows: &[Value], answer: &[Row]) -> Result<()> {
        for placed in answer {
            let row = usize::try_from(placed.integer("at")?).ok().and_then(|at| rows.get(at));
            if let Some(Value::List(row)) = row
                && let Some(key) = row.first().and_then(Value::as_text)
            {
                self.placed.insert(key, placed.integer("number")?)?;
            }
        }
        Ok(())
    }
}

fn statement(target: &Target, nodes: Nodes) -> String {
    let world = World::Staged;
    let base = cypher(world.base().unwrap_or_default());
    let (key, missing) = (cypher(KEY), cypher(MISSING));
    let end = |node: &str, at: u8, numbered: bool, more: &str| match nodes {
        _ if numbered => format!("MATCH ({node}:{base}) WHERE id({node}) = row[{at}]"),
        Nodes::Ahead => format!(
            "MERGE ({node}:{base} {{{key}: row[{at}]}}) ON CREATE SET {node}:{missing}{more}"
        ),
        _ => format!("MATCH ({node}:{base} {{{key}: row[{at}]}})"),
    };
    let between = |name: &str, from: &str, to: &str| {
        let name = cypher(&world.name(name));
        format!(
            "UNWIND $rows AS row {from} WITH row, a {to} CREATE (a)-[r:{name}]->(b) SET r = row[2] \
             RETURN count(*) AS done"
        )
    };
    match target {
        Target::Nodes(of) => {
            let labels = labels(world, of);
            match nodes {
                Nodes::Placed => format!(
                    "UNWIND range(0, size($rows) - 1) AS at CREATE (n:{base}{labels}) \
                     SET n = $rows[at][1] RETURN at, id(n) AS number"
                ),
                Nodes::Keyed => format!(
                    "UNWIND $rows AS row CREATE (n:{base}{labels} {{{key}: row[0]}}) \
                     SET n += row[1] RETURN count(*) AS done"
                ),
                Nodes::Ahead => format!(
                    "UNWIND $rows AS row MERGE (n:{base} {{{key}: row[0]}}) \
                     SET n:{base}{labels}, n += row[1] REMOVE n:{missing} RETURN count(*) AS done"
                ),
            }
        }
        Target::Relationships { name, numbered: [from, to] } => {
            between(name, &end("a", 0, *from, ""), &end("b", 1, *to, ""))
        }
        Target::Between(name, from, to) => {
            let from = format!("{}, a += row[3]", labels(world, from));
            let to = format!("{}, b += row[4]", labels(world, to));
            between(name, &end("a", 0, false, &from), &end("b", 1, false, &to))
        }
    }
}

#[cfg(test)]
mod tests {
    use neo4j_testserver::shared;
    use serde_json::json;

    use super::*;
    use crate::{options::Neo4jStore, sink::stage, testing::runtime};

    fn nodes(of: &[i64]) -> Rows {
        let mut rows = Rows::default();
        for id in of {
            let row =
                vec![format!("key {id}").into(), Value::Map(vec![("id".into(), (*id).into())])];
            rows.push(&Target::Nodes(vec!["N".to_owned()]), row, 10);
        }
        rows
    }

    fn links(of: &[(i64, i64)]) -> Rows {
        let mut rows = Rows::default();
        for (from, to) in of {
            let [from, to] = [from, to].map(|id| format!("key {id}").into());
            rows.push(&Target::relationships("R"), vec![from, to, Value::Map(Vec::new())], 10);
        }
        rows
    }

    // By number, by key, and before they come.
    #[test]
    fn relationships_find_their_ends_however_those_are_known() {
        let Some(server) = shared() else { return };
        runtime().block_on(async {
            let client = Client::new(&Neo4jStore::options(&server.bolt_url())).unwrap();
            let journal = Journal::new(&client, "one");
            journal.claim(false).await.unwrap();
            stage::prepare(&client).await.unwrap();
            let mut stager = Stager { ahead: false, placed: Placed::of_at_most(2) };
            let wanted = [(1, 2), (1, 3), (3, 1), (3, 3), (2, 4), (4, 1), (5, 5)];
            for rows in [
                nodes(&[1, 2]),
                nodes(&[3]),
                links(&wanted[..4]),
                links(&wanted[4..]),
                nodes(&[4, 5]),
            ] {
                stager.write(&client, &journal, rows).await.unwrap();
            }
            assert!(stager.ahead);
            stage::complete(&client).await.unwrap();
            let found = "MATCH (a)-[r]->(b) RETURN a.id, b.id ORDER BY a.id, b.id";
            let found: Vec<_> = server
                .cypher(found, json!({}))
                .unwrap()
                .iter()
                .map(|row| [&row[0]["_value"], &row[1]["_value"]].map(ToString::to_string))
                .collect();
            let mut wanted = wanted.map(|(a, b)| [a, b].map(|id| format!("\"{id}\"")));
            wanted.sort();
            assert_eq!(found, wanted);
            let keyed = "MATCH (n) WHERE n.`backup-kit:key` IS NOT NULL RETURN count(n)";
            assert_eq!(server.cypher(keyed, json!({})).unwrap()[0][0]["_value"], "3");
        });
    }
}
