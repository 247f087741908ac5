//! Relationships, node by node, so that parallel ones can be numbered.

use std::collections::{BTreeMap, HashMap, VecDeque};

use backup_core::{
    Error, ErrorKind, Result,
    record::{RecordBatch, canonical::Writer},
};
use bytes::Bytes;

use super::{Ends, Known, Numbers, Read, batches::Batches};
use crate::{
    bolt::{Raw, Reader},
    client::{Client, Rows, Statement},
    marks::View,
    names::{Kind, cypher},
    records::{relationship_key, write_reference, write_relationship},
    value::{WriteJson, text},
};

/// Relationships that begin at one node, up to which the server sends them together: it collects
/// them in its heap.
const FEW: usize = 100;

/// Nodes with more, whose relationships are asked for together.
const DENSE: usize = 1000;

/// Bytes of relationships that begin at one node, from which on they are asked for by parts.
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
    /// Whether every end that is kept is known.
    known_all: bool,
    /// Rows that were read while an end was asked for, and what was told of their ends.
    window: VecDeque<Bytes>,
    told: HashMap<i64, String>,
    /// None: of another world.
    types: HashMap<String, Option<usize>>,
    group: Group,
    /// The node at which the relationships of the group begin, and what names it.
    from: Option<(i64, String)>,
    /// Nodes with more relationships than come together: asked for again, one by one.
    dense: Vec<i64>,
    /// Nodes with too many relationships to keep them: asked for again, part by part.
    crowds: Vec<Crowd>,
    part: Option<Part>,
    /// [`CROWD`], but for tests.
    crowd: usize,
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
struct Link<'a> {
    from: i64,
    to: i64,
    kind: &'a str,
    properties: Raw<'a>,
}

/// A node, and how many of its relationships were as much as is kept.
#[derive(Clone, Copy)]
struct Crowd {
    node: i64,
    fit: usize,
}

/// Those relationships of a node that end at nodes of one remainder.
#[derive(Clone, Copy)]
struct Part {
    node: i64,
    remainder: i64,
    of: i64,
}

/// Relationships of one node, or of a part of them.
#[derive(Default)]
struct Group {
    arrows: Vec<Arrow>,
    /// Of each what names its end, and its properties, behind each other.
    text: Vec<u8>,
}

/// A relationship without its beginning.
struct Arrow {
    kind: usize,
    to: i64,
    /// Where its text begins, where the properties do, and where it ends.
    text: [usize; 3],
}

struct Order {
    types: String,
}

impl Order {
    /// Of one node its number, whether it has more than a few, and a list of relationships.
    const TOLD: &'static str = "[id(b), type(r), properties(r)]";

    /// Node by node, those with a few: a row for each node is much less work for the server than
    /// one for each relationship. Its degree is known to it without a look at them.
    fn all(&self) -> Statement {
        Statement::new(format!(
            "MATCH (a) WITH a, COUNT {{ (a)-->() }} AS d WHERE d > 0 \
             RETURN id(a), d > {FEW}, [(a)-[r{}]->(b) WHERE d <= {FEW} | {}]",
            self.types,
            Self::TOLD
        ))
    }

    /// Of these nodes, a row for each relationship. A `WITH a` alone would not see to it that those
    /// of one node come in a row: the server may read them as they were made.
    fn of_dense(&self, nodes: Vec<i64>) -> Statement {
        Statement::new(format!(
            "UNWIND $nodes AS i MATCH (a) WHERE id(a) = i MATCH (a)-[r{}]->(b) \
             RETURN id(a), false, [{}]",
            self.types,
            Self::TOLD
        ))
        .with("nodes", nodes)
    }

    /// What is between two nodes is in one part. To sort instead would take the server's heap.
    fn of_part(&self, part: Part) -> Statement {
        Statement::new(format!(
            "MATCH (a)-[r{}]->(b) WHERE id(a) = $id AND id(b) % $of = $remainder \
             RETURN id(a), false, [{}]",
            self.types,
            Self::TOLD
        ))
        .with("id", part.node)
        .with("of", part.of)
        .with("remainder", part.remainder)
    }
}

/// The node of a row, how many relationships follow in it, and these. None: it has more.
fn row(bytes: &[u8]) -> Result<(i64, Option<usize>, Reader<'_>)> {
    let mut row = Reader::row(bytes, 3)?;
    let (node, more) = (row.integer()?, row.bool()?);
    let links = row.list()?;
    Ok((node, (!more).then_some(links), row))
}

impl<'a> Link<'a> {
    fn read(from: i64, row: &mut Reader<'a>) -> Result<Self> {
        row.list_of(3)?;
        Ok(Self { from, to: row.integer()?, kind: row.text()?, properties: row.raw()? })
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
            known_all: kept.is_some() && known.is_whole(),
            known,
            window: VecDeque::new(),
            told: HashMap::new(),
            types: HashMap::new(),
            group: Group::default(),
            from: None,
            dense: Vec::new(),
            crowds: Vec::new(),
            part: None,
            crowd: CROWD,
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
            match self.row().await? {
                Some(row) => self.take(&row)?,
                None => {
                    self.close_group()?;
                    self.from = None;
                    self.ask_again().await?;
                }
            }
        }
    }

    /// Asks for what was left for later.
    async fn ask_again(&mut self) -> Result<()> {
        let statement = if !self.dense.is_empty() {
            let some = self.dense.split_off(self.dense.len().saturating_sub(DENSE));
            self.statement.of_dense(some)
        } else {
            self.part = match (self.part, self.crowds.pop()) {
                (Some(part), waiting) if part.remainder + 1 < part.of => {
                    self.crowds.extend(waiting);
                    Some(Part { remainder: part.remainder + 1, ..part })
                }
                (_, Some(crowd)) => Some(self.first_part(crowd).await?),
                (_, None) => None,
            };
            let Some(part) = self.part else {
                self.ended = true;
                return Ok(());
            };
            self.statement.of_part(part)
        };
        self.rows = self.client.rows(&statement).await?;
        Ok(())
    }

    /// Parts of about half of what is kept.
    async fn first_part(&self, Crowd { node, fit }: Crowd) -> Result<Part> {
        let ask = "MATCH (a) WHERE id(a) = $id RETURN COUNT { (a)-->() }";
        let rows = self.client.ask(&Statement::new(ask).with("id", node)).await?;
        let count = rows.first().and_then(|row| row.values.first()?.as_integer()).unwrap_or(0);
        let of = count / (fit as i64 / 2).max(1) + 1;
        Ok(Part { node, remainder: 0, of })
    }

    /// The next row, whose ends are known unless they are gone.
    async fn row(&mut self) -> Result<Option<Bytes>> {
        if let Some(row) = self.window.pop_front() {
            return Ok(Some(row));
        }
        let Some(row) = self.rows.next_raw().await? else { return Ok(None) };
        let mut asked = Vec::new();
        self.lacking(&row, &mut asked)?;
        if asked.is_empty() {
            return Ok(Some(row));
        }
        // What was told is forgotten, so it has to be asked for again.
        self.told.clear();
        asked.clear();
        let mut links = self.lacking(&row, &mut asked)?;
        self.window.push_back(row);
        while links < WINDOW
            && let Some(row) = self.rows.next_raw().await?
        {
            links += self.lacking(&row, &mut asked)?;
            self.window.push_back(row);
        }
        asked.sort_unstable();
        asked.dedup();
        let ask = format!(
            "UNWIND $nodes AS i MATCH (n) WHERE id(n) = i RETURN {}",
            self.ends.columns("n")
        );
        for row in self.client.ask(&Statement::new(ask).with("nodes", asked)).await? {
            if let Some(end) = row.values.into_iter().next() {
                self.told.insert(Ends::id(&end), self.ends.tell(end)?);
            }
        }
        Ok(self.window.pop_front())
    }

    /// Adds the ends that have to be asked for; how many relationships there are, at least one.
    fn lacking(&self, bytes: &[u8], asked: &mut Vec<i64>) -> Result<usize> {
        let lacks = |node: i64| {
            self.is_kept(node) && self.known.get(node).is_none() && !self.told.contains_key(&node)
        };
        if self.known_all {
            return Ok(1);
        }
        let (from, links, mut row) = row(bytes)?;
        let links = links.unwrap_or(0);
        if links > 0 && lacks(from) {
            asked.push(from);
        }
        for _ in 0..links {
            let link = Link::read(from, &mut row)?;
            if lacks(link.to) {
                asked.push(link.to);
            }
        }
        Ok(links.max(1))
    }

    fn is_kept(&self, node: i64) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.contains(node))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let (from, links, mut row) = row(bytes)?;
        let Some(links) = links else {
            self.dense.push(from);
            return Ok(());
        };
        for _ in 0..links {
            let link = Link::read(from, &mut row)?;
            self.take_link(link)?;
        }
        row.end()
    }

    fn take_link(&mut self, link: Link<'_>) -> Result<()> {
        let kind = match self.types.get(link.kind) {
            Some(kind) => *kind,
            None => self.kind(link.kind),
        };
        let Some(kind) = kind else { return Ok(()) };
        if !self.is_kept(link.from) || !self.is_kept(link.to) {
            return self.leave_out(kind);
        }
        let same = self.from.as_ref().is_some_and(|(node, _)| *node == link.from);
        if !same {
            self.close_group()?;
            self.from = None;
            let mut name = Vec::new();
            if !self.write_name(link.from, &mut name) {
                return self.leave_out(kind);
            }
            if self.part.is_none() {
                if self.read.contains(link.from) {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        "the server does not read relationships node by node",
                    ));
                }
                self.read.insert(link.from);
            }
            self.from = Some((link.from, text(name)?));
        } else if self.part.is_none()
            && self.crowds.last().is_some_and(|crowd| crowd.node == link.from)
        {
            return Ok(());
        }
        let mut group = std::mem::take(&mut self.group);
        let begin = group.text.len();
        let named = self.write_name(link.to, &mut group.text);
        let middle = group.text.len();
        if named {
            link.properties.write(&mut Writer::new(&mut group.text))?;
            let text = [begin, middle, group.text.len()];
            group.arrows.push(Arrow { kind, to: link.to, text });
        }
        self.group = group;
        if !named {
            return self.leave_out(kind);
        }
        if self.part.is_none() && self.group.bytes() > self.crowd {
            let fit = std::mem::take(&mut self.group).arrows.len();
            self.crowds.push(Crowd { node: link.from, fit });
        }
        Ok(())
    }

    /// Writes what names a node in a relationship; false where it is gone.
    fn write_name(&self, node: i64, out: &mut Vec<u8>) -> bool {
        match self.known.get(node) {
            Some((collection, key)) => write_reference(out, collection, key),
            None => match self.told.get(&node) {
                Some(told) => out.extend_from_slice(told.as_bytes()),
                None => return false,
            },
        }
        true
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
        let Group { mut arrows, text: bytes } = std::mem::take(&mut self.group);
        let all = text(bytes)?;
        let properties = |arrow: &Arrow| &all[arrow.text[1]..arrow.text[2]];
        if arrows.len() > 1 {
            arrows.sort_unstable_by(|a, b| {
                (a.kind, a.to, properties(a)).cmp(&(b.kind, b.to, properties(b)))
            });
        }
        let mut last = None;
        let mut number = 0;
        for arrow in &arrows {
            number = if last == Some((arrow.kind, arrow.to)) { number + 1 } else { 0 };
            last = Some((arrow.kind, arrow.to));
            let to = &all[arrow.text[0]..arrow.text[1]];
            let key = relationship_key(from, to, number)?;
            let full = self.batches.push(arrow.kind, &key, |json| {
                write_relationship(json, from, properties(arrow), to)
            })?;
            self.ready.extend(full.map(|(_, batch)| batch));
        }
        // Their room is used again.
        let mut text = all.into_bytes();
        arrows.clear();
        text.clear();
        self.group = Group { arrows, text };
        Ok(())
    }
}

impl Group {
    fn bytes(&self) -> usize {
        self.text.len() + self.arrows.len() * size_of::<Arrow>()
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

    // As many as come together, one more, and many, with loops and parallel ones of two types.
    #[test]
    fn nodes_with_few_and_with_many_relationships_give_each_once() {
        let Some(server) = shared() else { return };
        runtime().block_on(async {
            let made = "UNWIND $counts AS c CREATE (a:A {c: c}) WITH a, c UNWIND range(1, c) AS i \
                        FOREACH (_ IN CASE WHEN i % 3 = 0 THEN [] ELSE [1] END | \
                            CREATE (a)-[:R {i: i}]->(:B {i: i})) \
                        FOREACH (_ IN CASE WHEN i % 3 = 0 THEN [1] ELSE [] END | \
                            CREATE (a)-[:S {i: i / 6}]->(a))";
            let counts = [1, FEW, FEW + 1, 2 * WINDOW + 1];
            server.cypher(made, json!({"counts": counts})).unwrap();
            let client = Client::new(&Neo4jStore::options(&server.bolt_url())).unwrap();
            let view = View::live(Keys::default());
            let begin = |known, types: Vec<String>| {
                let (client, view) = (&client, &view);
                async move { Relationships::begin(client, view, &types, known, None).await.unwrap() }
            };
            let known = || async {
                let known = Known::default();
                let mut nodes = Nodes::begin(&client, &view, None, true, known).await.unwrap();
                while nodes.next().await.unwrap().is_some() {}
                nodes.known()
            };
            let all = lines(begin(known().await, vec![]).await).await;
            let mut once = all.0.clone();
            once.dedup();
            assert_eq!((once.len(), all.1), (counts.iter().sum(), 0));
            assert!(lines(begin(Known::default(), vec![]).await).await == all);
            // Some have more than is kept: one of a few, and the one of many in a hundred parts.
            let mut little = begin(known().await, vec![]).await;
            little.crowd = 4096;
            assert!(lines(little).await == all);
            let loops: usize = counts.iter().map(|count| count / 3).sum();
            for (of, count) in [("R", all.0.len() - loops), ("S", loops)] {
                let some = lines(begin(known().await, vec![of.to_owned()]).await).await;
                assert_eq!(some.0.len(), count, "{of}");
                assert!(some.0.iter().all(|line| all.0.contains(line)), "{of}");
            }
            // Parallel ones are told apart by the text of their properties.
            let number = |line: &String| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                (line["key"][0] == line["key"][1]).then(|| line["key"][2].as_u64().unwrap())
            };
            let mut numbers: Vec<_> = all.0.iter().filter_map(number).collect();
            numbers.sort_unstable();
            let mut expected: Vec<_> = counts.iter().flat_map(|c| 0..*c as u64 / 3).collect();
            expected.sort_unstable();
            assert_eq!(numbers, expected);
        });
    }
}
