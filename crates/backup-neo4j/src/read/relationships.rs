//! Relationships, node by node, so that parallel ones can be numbered.

use std::collections::{BTreeMap, HashMap, VecDeque};

use backup_core::{Error, ErrorKind, Result, record::RecordBatch};

use super::{Ends, Known, Numbers, Read, batches::Batches};
use crate::{
    client::{Client, Row, Rows, Statement},
    marks::View,
    names::{Kind, cypher},
    records::{reference, relationship_key, write_relationship},
    value::Value,
};

/// Bytes of relationships that begin at one node, from which on the server is asked to sort them.
const CROWD: usize = 32 << 20;

/// Relationships whose ends are asked for together, where they are not known.
const WINDOW: usize = 1000;

/// Relationships, of all types or of some.
pub(crate) struct Relationships {
    client: Client,
    rows: Rows,
    statement: Order,
    batches: Batches,
    ends: Ends,
    known: Known,
    /// Rows that were read while an end was asked for, and what was told of their ends.
    window: VecDeque<Link>,
    told: HashMap<i64, String>,
    /// None: of another world.
    types: HashMap<String, Option<usize>>,
    /// Of the node that is read, or with `sorted` of the pair of nodes.
    group: Vec<Arrow>,
    group_bytes: usize,
    /// The node at which the relationships of the group begin, and what names it.
    from: Option<(i64, String)>,
    /// Nodes with too many relationships to keep them: asked for again, sorted.
    crowds: Vec<i64>,
    sorted: bool,
    /// Nodes whose relationships were read: none may come again.
    read: Numbers,
    /// Which nodes are there, where not all are.
    kept: Option<Numbers>,
    /// How many of each type have an end that is not there.
    pub(crate) cut: BTreeMap<usize, u64>,
    pending: Vec<Read>,
    ready: Vec<RecordBatch>,
    ended: bool,
}

/// A relationship as the server tells it.
struct Link {
    from: i64,
    to: i64,
    kind: Value,
    properties: Value,
}

/// A relationship without its beginning.
struct Arrow {
    kind: usize,
    to: i64,
    to_text: String,
    properties: String,
}

struct Order {
    types: String,
}

impl Order {
    const TOLD: &'static str = "RETURN id(a), id(b), type(r), properties(r)";

    fn all(&self) -> Statement {
        // What begins at one node has to come in a row. A `WITH a` alone does not see to that: where
        // there are more relationships than nodes the server reads them as they were made.
        Statement::new(format!(
            "MATCH (n) WITH id(n) AS i MATCH (a) WHERE id(a) = i MATCH (a)-[r{}]->(b) {}",
            self.types,
            Self::TOLD
        ))
    }

    fn of(&self, node: i64) -> Statement {
        Statement::new(format!(
            "MATCH (a)-[r{}]->(b) WHERE id(a) = $id WITH a, r, b ORDER BY type(r), id(b) {}",
            self.types,
            Self::TOLD
        ))
        .with("id", node)
    }
}

impl Link {
    fn of(row: Row) -> Option<Self> {
        let [from, to, kind, properties] = <[Value; 4]>::try_from(row.values).ok()?;
        Some(Self { from: from.as_integer()?, to: to.as_integer()?, kind, properties })
    }
}

impl Relationships {
    /// Begins to read relationships: of all types where none is named. Those of which an end is not
    /// `kept` are left out and counted.
    pub(crate) async fn begin(
        client: &Client,
        view: &View,
        types: &[String],
        known: Known,
        kept: Option<Numbers>,
    ) -> Result<Self> {
        let world = view.world;
        let names: Vec<_> = types.iter().map(|name| cypher(&world.name(name))).collect();
        let types = if names.is_empty() { String::new() } else { format!(":{}", names.join("|")) };
        let order = Order { types };
        Ok(Self {
            rows: client.rows(&order.all()).await?,
            client: client.clone(),
            statement: order,
            batches: Batches::new(),
            ends: Ends::new(view),
            known,
            window: VecDeque::new(),
            told: HashMap::new(),
            types: HashMap::new(),
            group: Vec::new(),
            group_bytes: 0,
            from: None,
            crowds: Vec::new(),
            sorted: false,
            read: Numbers::default(),
            kept,
            cut: BTreeMap::new(),
            pending: Vec::new(),
            ready: Vec::new(),
            ended: false,
        })
    }

    pub(crate) fn name_of(&self, kind: usize) -> &str {
        self.batches.name(kind)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Read>> {
        loop {
            if let Some(read) = self.pending.pop() {
                return Ok(Some(read));
            }
            if let Some(batch) = self.ready.pop() {
                return Ok(Some(Read::Batch(batch)));
            }
            if self.ended {
                return Ok(self.batches.rest()?.map(|(_, batch)| Read::Batch(batch)));
            }
            match self.link().await? {
                Some(link) => self.take(link)?,
                None => {
                    self.close_group()?;
                    self.from = None;
                    match self.crowds.pop() {
                        Some(node) => {
                            self.sorted = true;
                            self.rows = self.client.rows(&self.statement.of(node)).await?;
                        }
                        None => self.ended = true,
                    }
                }
            }
        }
    }

    /// The next relationship, whose ends are known unless they are gone.
    async fn link(&mut self) -> Result<Option<Link>> {
        if let Some(link) = self.window.pop_front() {
            return Ok(Some(link));
        }
        let Some(link) = self.read_link().await? else { return Ok(None) };
        if !self.lacks(link.from) && !self.lacks(link.to) {
            return Ok(Some(link));
        }
        self.window.push_back(link);
        while self.window.len() < WINDOW
            && let Some(link) = self.read_link().await?
        {
            self.window.push_back(link);
        }
        let ends = self.window.iter().flat_map(|link| [link.from, link.to]);
        let mut asked: Vec<_> = ends.filter(|node| self.lacks(*node)).collect();
        asked.sort_unstable();
        asked.dedup();
        self.told.clear();
        let ask = format!(
            "UNWIND $nodes AS i MATCH (n) WHERE id(n) = i RETURN {}",
            self.ends.columns("n")
        );
        let asked = asked.into_iter().map(Value::from).collect();
        let ask = Statement::new(ask).with("nodes", Value::List(asked));
        for row in self.client.ask(&ask).await? {
            if let Some(end) = row.values.into_iter().next() {
                self.told.insert(Ends::id(&end), self.ends.tell(end)?);
            }
        }
        Ok(self.window.pop_front())
    }

    async fn read_link(&mut self) -> Result<Option<Link>> {
        let Some(row) = self.rows.next().await? else { return Ok(None) };
        Link::of(row).map(Some).ok_or_else(|| Error::adapter("a relationship has no ends"))
    }

    /// Whether a node has to be asked for.
    fn lacks(&self, node: i64) -> bool {
        self.is_kept(node) && self.known.get(node).is_none() && !self.told.contains_key(&node)
    }

    fn is_kept(&self, node: i64) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.contains(node))
    }

    /// What names a node in a relationship; none where it is gone.
    fn name(&self, node: i64) -> Option<String> {
        match self.known.get(node) {
            Some((collection, key)) => Some(reference(collection, key)),
            None => self.told.get(&node).cloned(),
        }
    }

    fn take(&mut self, link: Link) -> Result<()> {
        let name = link.kind.as_text().unwrap_or_default();
        let kind = match self.types.get(name) {
            Some(kind) => *kind,
            None => self.kind(name),
        };
        let Some(kind) = kind else { return Ok(()) };
        if !self.is_kept(link.from) || !self.is_kept(link.to) {
            return self.leave_out(kind);
        }
        let same = self.from.as_ref().is_some_and(|(node, _)| *node == link.from);
        if !same {
            self.close_group()?;
            self.from = None;
            let Some(name) = self.name(link.from) else { return self.leave_out(kind) };
            if !self.sorted {
                if self.read.contains(link.from) {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        "the server does not read relationships node by node",
                    ));
                }
                self.read.insert(link.from);
            }
            self.from = Some((link.from, name));
        } else if !self.sorted && self.crowds.last() == Some(&link.from) {
            return Ok(());
        }
        let pair = |arrow: &Arrow| (arrow.kind, arrow.to);
        if self.sorted && self.group.last().is_some_and(|last| pair(last) != (kind, link.to)) {
            self.close_group()?;
        }
        let Some(to_text) = self.name(link.to) else { return self.leave_out(kind) };
        let arrow = Arrow { kind, to: link.to, to_text, properties: link.properties.to_json()? };
        self.group_bytes += arrow.to_text.len() + arrow.properties.len() + size_of::<Arrow>();
        self.group.push(arrow);
        if self.group_bytes > CROWD && !self.sorted {
            self.group.clear();
            self.group_bytes = 0;
            self.crowds.push(link.from);
        }
        Ok(())
    }

    fn leave_out(&mut self, kind: usize) -> Result<()> {
        *self.cut.entry(kind).or_default() += 1;
        Ok(())
    }

    fn kind(&mut self, name: &str) -> Option<usize> {
        let real = self.ends.world().real(name);
        let at = real.map(|real| {
            let kind = Kind::Relationships(real.to_owned());
            let (at, _) = self.batches.of(kind.clone());
            self.pending.push(Read::Begin(kind));
            at
        });
        self.types.insert(name.to_owned(), at);
        at
    }

    /// Numbers the relationships of the group and makes records of them.
    fn close_group(&mut self) -> Result<()> {
        let Some((_, from)) = &self.from else { return Ok(()) };
        if self.group.len() > 1 {
            self.group.sort_unstable_by(|a, b| {
                (a.kind, a.to, &a.properties).cmp(&(b.kind, b.to, &b.properties))
            });
        }
        let mut last = None;
        let mut number = 0;
        for arrow in self.group.drain(..) {
            number = if last == Some((arrow.kind, arrow.to)) { number + 1 } else { 0 };
            last = Some((arrow.kind, arrow.to));
            let key = relationship_key(from, &arrow.to_text, number)?;
            let full = self.batches.push(arrow.kind, &key, |json| {
                write_relationship(json, from, &arrow.properties, &arrow.to_text)
            })?;
            self.ready.extend(full.map(|(_, batch)| batch));
        }
        self.group_bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use neo4j_testserver::shared;
    use serde_json::json;

    use super::*;
    use crate::{options::Neo4jStore, read::Nodes, records::Keys, testing::runtime};

    async fn lines(mut all: Relationships) -> (Vec<String>, u64) {
        let mut lines = Vec::new();
        while let Some(read) = all.next().await.unwrap() {
            if let Read::Batch(batch) = read {
                lines.extend(batch.iter().map(|record| record.line().to_owned()));
            }
        }
        lines.sort_unstable();
        (lines, all.cut.values().sum())
    }

    // A window and a half.
    #[test]
    fn ends_that_are_not_known_are_asked_for_and_others_are_left_out() {
        let Some(server) = shared() else { return };
        runtime().block_on(async {
            let made = "UNWIND range(1, 1500) AS i CREATE (:A {i: i})-[:R {i: i}]->(:B:C {i: i})";
            server.cypher(made, json!({})).unwrap();
            let client = Client::new(&Neo4jStore::options(&server.bolt_url())).unwrap();
            let view = View::live(Keys::default());
            let mut nodes =
                Nodes::begin(&client, &view, None, true, Known::default()).await.unwrap();
            let mut read = Vec::new();
            while let Some((_, numbers)) = nodes.next().await.unwrap() {
                read.extend(numbers);
            }
            assert_eq!(read.len(), 3000);
            let kept = |nodes: &[i64]| {
                let mut kept = Numbers::default();
                nodes.iter().for_each(|node| kept.insert(*node));
                Some(kept)
            };
            let begin = |known, kept| Relationships::begin(&client, &view, &[], known, kept);
            let known = lines(begin(nodes.known(), kept(&read)).await.unwrap()).await;
            assert_eq!((known.0.len(), known.1), (1500, 0));
            for kept in [None, kept(&read)] {
                assert_eq!(lines(begin(Known::default(), kept).await.unwrap()).await, known);
            }
            read.sort_unstable();
            let (half, cut) =
                lines(begin(Known::default(), kept(&read[..1000])).await.unwrap()).await;
            assert!(cut > 0 && half.len() as u64 + cut == 1500, "{} {cut}", half.len());
            assert!(half.iter().all(|line| known.0.contains(line)));
        });
    }
}
