//! Live nodes and relationships, found by the keys of records.

use std::collections::{BTreeSet, HashMap};

use backup_core::{Error, ErrorKind, Result};

use crate::{
    client::{Client, Row, Statement, Transaction},
    marks::{LOCK, World},
    names::{Kind, cypher},
    records::{key_values, node_key},
    sink::{merge::identity::Identity, stage},
    value::Value,
};

/// Keys that are looked for by one statement.
const KEYS: usize = 10_000;

/// In a transaction, or each statement in one of its own.
pub(crate) enum Within<'a> {
    Alone(&'a Client),
    Transaction(&'a mut Transaction),
}

impl Within<'_> {
    async fn each(
        &mut self,
        statement: &Statement,
        mut take: impl FnMut(Row) -> Result<()> + Send,
    ) -> Result<()> {
        match self {
            Self::Alone(client) => client.ask(statement).await?.into_iter().try_for_each(take),
            Self::Transaction(transaction) => transaction.each(statement, &mut take).await,
        }
    }
}

/// Live nodes with these labels and no others, by the texts of their keys: their numbers, and
/// what `keep` makes of their properties. `locked`: nobody else changes them until the transaction
/// has ended.
///
/// # Errors
/// Two of the same key.
pub(crate) async fn nodes<T: Send>(
    within: &mut Within<'_>,
    identity: &Identity,
    labels: &[String],
    texts: &BTreeSet<&str>,
    locked: bool,
    keep: impl Fn(Value) -> Result<T> + Send + Sync,
) -> Result<HashMap<String, (i64, T)>> {
    let key = identity.key(labels);
    let values: Vec<_> = texts.iter().filter_map(|text| key_values(&key, text)).collect();
    let mut found = HashMap::new();
    if key.is_empty() || values.is_empty() {
        return Ok(found);
    }
    let text = statement(&key, labels, identity.is_indexed(labels, &key), locked);
    for chunk in values.chunks(KEYS) {
        let values = chunk.iter().map(|values| match &values[..] {
            [one] => one.clone(),
            several => Value::List(several.to_vec()),
        });
        let asked = Statement::new(&*text).with("values", Value::List(values.collect()));
        let mut twice = None;
        within
            .each(&asked, |row| {
                let Ok([id, properties]) = <[Value; 2]>::try_from(row.values) else {
                    return Ok(());
                };
                let id = id.as_integer().unwrap_or(-1);
                // To the server `1` and `1.0` are equal.
                let text = node_key(&key, id, |name| properties.member(name))?;
                if !texts.contains(text.as_str()) {
                    return Ok(());
                }
                let kept = keep(properties)?;
                if let Some((other, _)) = found.insert(text.clone(), (id, kept))
                    && other != id
                {
                    twice = Some(text);
                }
                Ok(())
            })
            .await?;
        if let Some(text) = twice {
            let what = "two live nodes have the same key, so nothing can be merged into either";
            let place = format!("{}, {text}", Kind::nodes(labels.to_vec()).name());
            return Err(Error::new(ErrorKind::Incompatible, what)
                .on(place)
                .advise("name the nodes by other properties with `Neo4jOptions::key`"));
        }
    }
    Ok(found)
}

/// Nodes by the values of their key. Without an index all nodes of the label are looked at, once
/// for all values.
fn statement(key: &[String], labels: &[String], indexed: bool, locked: bool) -> String {
    let on: Vec<_> = key.iter().map(|name| format!("n.{}", cypher(name))).collect();
    let node = stage::labels(World::Live, labels);
    let lock = if locked { format!("REMOVE n.{} ", cypher(LOCK)) } else { String::new() };
    let chosen = match &on[..] {
        [one] => format!("MATCH (n{node}) WHERE {one} IN $values"),
        several if indexed => {
            let equal = several.iter().enumerate().map(|(at, on)| format!("{on} = value[{at}]"));
            let equal = equal.collect::<Vec<_>>().join(" AND ");
            format!("UNWIND $values AS value MATCH (n{node}) WHERE {equal}")
        }
        several => format!("MATCH (n{node}) WHERE [{}] IN $values", several.join(", ")),
    };
    format!("{chosen} AND size(labels(n)) = {} {lock}RETURN id(n), properties(n)", labels.len())
}

/// A live relationship.
pub(crate) struct Arrow {
    /// In canonical form.
    pub(crate) properties: String,
    pub(crate) id: i64,
}

/// Live relationships of a type between pairs of nodes, in the order of their numbers.
pub(crate) async fn relationships(
    within: &mut Within<'_>,
    name: &str,
    pairs: &BTreeSet<(i64, i64)>,
) -> Result<HashMap<(i64, i64), Vec<Arrow>>> {
    // `DISTINCT` has the server find both nodes first: of one with many relationships it does not
    // look at all of them then.
    let text = format!(
        "UNWIND $pairs AS pair MATCH (a), (b) WHERE id(a) = pair[0] AND id(b) = pair[1] \
         WITH DISTINCT a, b MATCH (a)-[r:{}]->(b) RETURN id(a), id(b), id(r), properties(r)",
        cypher(name)
    );
    let mut found: HashMap<_, Vec<Arrow>> = HashMap::new();
    let all: Vec<_> = pairs.iter().collect();
    for chunk in all.chunks(KEYS) {
        let pairs = chunk.iter().map(|(a, b)| Value::List(vec![(*a).into(), (*b).into()]));
        let asked = Statement::new(&*text).with("pairs", Value::List(pairs.collect()));
        within
            .each(&asked, |row| {
                let Ok([from, to, id, properties]) = <[Value; 4]>::try_from(row.values) else {
                    return Ok(());
                };
                let number = |value: Value| value.as_integer().unwrap_or(-1);
                let arrow = Arrow { properties: properties.to_json()?, id: number(id) };
                found.entry((number(from), number(to))).or_default().push(arrow);
                Ok(())
            })
            .await?;
    }
    for arrows in found.values_mut() {
        arrows.sort_unstable_by(|a, b| (&a.properties, a.id).cmp(&(&b.properties, b.id)));
    }
    Ok(found)
}
