//! What a merge asks of the server: `s` is staged, `n` or `r` live.

use crate::{
    marks::{DONE, KEY, LIVE, MADE, MISSING, NUMBER, SEEN, SWAPPED, World},
    names::cypher,
    sink::stage,
};

/// The numbers of staged nodes, or of those that relationships name and that are live only, with
/// which something was done, or was not.
pub(super) fn list_nodes(labels: &[String], ends: bool, done: bool) -> String {
    let missing = if ends { format!(":{}", cypher(MISSING)) } else { String::new() };
    format!(
        "MATCH (s:{}{missing}{}) WHERE size(labels(s)) = {} AND {} RETURN id(s)",
        cypher(base()),
        stage::labels(World::Staged, labels),
        labels.len() + 1 + usize::from(ends),
        is_done(done)
    )
}

/// The same of relationships.
pub(super) fn list_relationships(name: &str, done: bool) -> String {
    format!("MATCH ()-[s:{}]->() WHERE {} RETURN id(s)", staged(name), is_done(done))
}

fn is_done(done: bool) -> String {
    format!("s.{} IS {}NULL", cypher(DONE), if done { "NOT " } else { "" })
}

fn base() -> &'static str {
    World::Staged.base().unwrap_or_default()
}

fn staged(name: &str) -> String {
    cypher(&World::Staged.name(name))
}

/// The staged node of a number.
pub(super) fn staged_node() -> String {
    "UNWIND $ids AS i MATCH (s) WHERE id(s) = i".to_owned()
}

/// The staged relationship of a number.
pub(super) fn staged_relationship() -> String {
    "UNWIND $ids AS i MATCH (x)-[s]->(y) WHERE id(s) = i".to_owned()
}

/// Goes on with the live node of a staged one. The number stands in a `WITH`: elsewhere the server
/// looks at all nodes of the label for each number.
pub(super) fn live_node(labels: &[String]) -> String {
    let node: String = labels.iter().map(|label| format!(" AND n:{}", cypher(label))).collect();
    format!("WITH s, s.{} AS live MATCH (n) WHERE id(n) = live{node}", cypher(LIVE))
}

/// The same of a relationship, which has to be of its type and between the live ones of its ends.
pub(super) fn live_relationship(name: &str) -> String {
    let (live, name) = (cypher(LIVE), cypher(name));
    format!(
        "WITH s, s.{live} AS live, x.{live} AS from, y.{live} AS to \
         MATCH (a)-[r:{name}]->(b) WHERE id(r) = live AND id(a) = from AND id(b) = to"
    )
}

/// The properties of a staged node or relationship without the marks; `marks` are set instead.
fn projection(of: &str, marks: &[(&str, &str)]) -> String {
    let all = [KEY, NUMBER, SEEN, LIVE, DONE].map(|mark| {
        let value = marks.iter().find(|(name, _)| *name == mark).map_or("null", |(_, value)| value);
        format!("{}: {value}", cypher(mark))
    });
    format!("{of} {{.*, {}}}", all.join(", "))
}

/// Exchanges the properties of `s` and `live`.
fn exchange(live: &str, done: &str) -> String {
    let own = |mark: &str| format!("s.{}", cypher(mark));
    let (key, number, seen) = (own(KEY), own(NUMBER), own(SEEN));
    let mut marks = vec![(KEY, key.as_str()), (NUMBER, &number), (SEEN, &seen), (DONE, done)];
    let number = own(LIVE);
    if done != "null" {
        marks.push((LIVE, &number));
    }
    format!(
        "WITH s, {live}, {} AS new, {} AS old SET {live} = new SET s = old",
        projection("s", &[]),
        projection(live, &marks)
    )
}

pub(super) fn swap_nodes(labels: &[String], back: bool) -> String {
    let (which, done) = swapping(back);
    format!("{} AND {which} {} {}", staged_node(), live_node(labels), exchange("n", &done))
}

/// Which staged ones are exchanged, and what they are marked with.
fn swapping(back: bool) -> (String, String) {
    let (done, live) = (cypher(DONE), cypher(LIVE));
    match back {
        false => (format!("s.{done} IS NULL AND s.{live} IS NOT NULL"), format!("'{SWAPPED}'")),
        true => (format!("s.{done} = '{SWAPPED}'"), "null".to_owned()),
    }
}

pub(super) fn make_nodes(labels: &[String]) -> String {
    let (done, live) = (cypher(DONE), cypher(LIVE));
    format!(
        "{} AND s.{done} IS NULL AND s.{live} IS NULL \
         CREATE (n{}) SET n = {} SET s.{live} = id(n), s.{done} = '{MADE}'",
        staged_node(),
        stage::labels(World::Live, labels),
        projection("s", &[])
    )
}

pub(super) fn unmake_nodes(labels: &[String], key: &[String]) -> String {
    let (done, live) = (cypher(DONE), cypher(LIVE));
    // A number may be given again.
    let same: String = key
        .iter()
        .map(|name| cypher(name))
        .map(|name| format!(" AND n.{name} = s.{name}"))
        .collect();
    format!(
        "{} AND s.{done} = '{MADE}' {}{same} DETACH DELETE n REMOVE s.{live}, s.{done}",
        staged_node(),
        live_node(labels),
    )
}

pub(super) fn swap_relationships(name: &str, back: bool) -> String {
    let (which, done) = swapping(back);
    format!(
        "{} AND {which} {} {}",
        staged_relationship(),
        live_relationship(name),
        exchange("r", &done)
    )
}

pub(super) fn make_relationships(name: &str) -> String {
    let (done, live) = (cypher(DONE), cypher(LIVE));
    format!(
        "{} AND s.{done} IS NULL AND s.{live} IS NULL \
         WITH s, x.{live} AS from, y.{live} AS to MATCH (a), (b) WHERE id(a) = from AND id(b) = to \
         CREATE (a)-[r:{}]->(b) SET r = {} SET s.{live} = id(r), s.{done} = '{MADE}'",
        staged_relationship(),
        cypher(name),
        projection("s", &[])
    )
}

pub(super) fn unmake_relationships(name: &str) -> String {
    let (done, live) = (cypher(DONE), cypher(LIVE));
    format!(
        "{} AND s.{done} = '{MADE}' {} DELETE r REMOVE s.{live}, s.{done}",
        staged_relationship(),
        live_relationship(name),
    )
}
