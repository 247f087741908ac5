//! Rows of the server as batches of records.

use std::collections::{BTreeMap, HashMap};

use backup_core::{
    Error, ErrorKind, Filter, Result,
    record::{BatchBuilder, Key, RecordBatch},
};

use crate::{
    client::{Client, Row, Rows, Statement},
    marks::{NUMBER, View, is_marked},
    names::{Kind, cypher},
    records::{node_key, reference, relationship_key, write_relationship},
    value::Value,
};

/// Bytes of batches that are not full, of all collections together, from which on the largest is
/// given away: a graph may have a thousand sets of labels.
const OPEN: usize = 2 * RecordBatch::TARGET_BYTES;

/// Bytes of relationships that begin at one node, from which on the server is asked to sort them.
const CROWD: usize = 32 << 20;

/// Batches under way, by collection.
pub(crate) struct Batches {
    open: Vec<Open>,
    by_kind: HashMap<Kind, usize>,
    bytes: usize,
}

struct Open {
    name: String,
    batch: BatchBuilder,
}

impl Batches {
    pub(crate) fn new() -> Self {
        Self { open: Vec::new(), by_kind: HashMap::new(), bytes: 0 }
    }

    /// The number of a collection; whether it is new.
    fn of(&mut self, kind: Kind) -> (usize, bool) {
        if let Some(at) = self.by_kind.get(&kind) {
            return (*at, false);
        }
        let name = kind.name();
        self.open.push(Open { batch: BatchBuilder::new(&*name), name });
        self.by_kind.insert(kind, self.open.len() - 1);
        (self.open.len() - 1, true)
    }

    /// Adds a record; the batch that is to be given away now, if one is.
    fn push(
        &mut self,
        at: usize,
        key: &Key,
        write: impl FnOnce(&mut backup_core::record::canonical::Writer<'_>) -> Result<()>,
    ) -> Result<Option<(usize, RecordBatch)>> {
        let open = &mut self.open[at];
        let before = open.batch.byte_size();
        open.batch.push(key, write)?;
        self.bytes += open.batch.byte_size() - before;
        if open.batch.is_full() {
            return self.take(at).map(Some);
        }
        if self.bytes < OPEN {
            return Ok(None);
        }
        let largest = (0..self.open.len()).max_by_key(|at| self.open[*at].batch.byte_size());
        largest.map(|at| self.take(at)).transpose()
    }

    fn take(&mut self, at: usize) -> Result<(usize, RecordBatch)> {
        let open = &mut self.open[at];
        let full = std::mem::replace(&mut open.batch, BatchBuilder::new(&*open.name));
        self.bytes -= full.byte_size();
        Ok((at, full.finish()?))
    }

    /// What is left of all.
    fn rest(&mut self) -> Result<Option<(usize, RecordBatch)>> {
        let at = (0..self.open.len()).find(|at| !self.open[*at].batch.is_empty());
        at.map(|at| self.take(at)).transpose()
    }
}

/// Numbers of nodes, a bit each.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Vec<u64>);

impl Numbers {
    pub(crate) fn insert(&mut self, number: i64) {
        let Ok(number) = usize::try_from(number) else { return };
        if self.0.len() <= number / 64 {
            self.0.resize(number / 64 + 1, 0);
        }
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub(crate) fn contains(&self, number: i64) -> bool {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// What a reader gives.
pub(crate) enum Read {
    /// A collection begins.
    Begin(Kind),
    Batch(RecordBatch),
}

/// Nodes, of all collections or of one.
pub(crate) struct Nodes {
    rows: Rows,
    view: View,
    batches: Batches,
    kinds: Vec<NodeKind>,
    /// None: of another world.
    by_labels: HashMap<Vec<String>, Option<usize>>,
    /// Numbers of the nodes of batches under way, where somebody has to know which were taken.
    numbers: Option<Vec<Vec<i64>>>,
    pending: Vec<Read>,
}

struct NodeKind {
    key: Vec<String>,
    /// Of the batches.
    at: usize,
}

impl Nodes {
    /// Begins to read nodes: all, or those of one collection.
    pub(crate) async fn begin(
        client: &Client,
        view: &View,
        only: Option<&[String]>,
        numbered: bool,
    ) -> Result<Self> {
        let chosen = match (only, view.world.base()) {
            (None, None) => "MATCH (n)".to_owned(),
            (None, Some(base)) => format!("MATCH (n:{})", cypher(base)),
            (Some(labels), _) => {
                let wanted: String =
                    labels.iter().map(|label| format!(":{}", cypher(label))).collect();
                format!("MATCH (n{wanted}) WHERE size(labels(n)) = {}", labels.len())
            }
        };
        let statement = Statement::new(format!("{chosen} RETURN id(n), labels(n), properties(n)"));
        Ok(Self {
            rows: client.rows(&statement).await?,
            view: view.clone(),
            batches: Batches::new(),
            kinds: Vec::new(),
            by_labels: HashMap::new(),
            numbers: numbered.then(Vec::new),
            pending: Vec::new(),
        })
    }

    /// The next thing, and the numbers of the nodes of a batch where they are asked for.
    pub(crate) async fn next(&mut self) -> Result<Option<(Read, Vec<i64>)>> {
        loop {
            if let Some(read) = self.pending.pop() {
                return Ok(Some((read, Vec::new())));
            }
            let Some(row) = self.rows.next().await? else {
                return Ok(self.batches.rest()?.map(|(at, batch)| self.give(at, batch)));
            };
            if let Some((at, batch)) = self.take(row)? {
                return Ok(Some(self.give(at, batch)));
            }
        }
    }

    fn give(&mut self, at: usize, batch: RecordBatch) -> (Read, Vec<i64>) {
        let numbers = self.numbers.as_mut().map(|numbers| std::mem::take(&mut numbers[at]));
        (Read::Batch(batch), numbers.unwrap_or_default())
    }

    fn take(&mut self, mut row: Row) -> Result<Option<(usize, RecordBatch)>> {
        let mut properties = row.values.pop().unwrap_or(Value::Null);
        let labels = row.values.pop().map(Value::into_texts).unwrap_or_default();
        let mut id = row.values.first().and_then(Value::as_integer).unwrap_or(-1);
        let number = match self.by_labels.get(&labels) {
            Some(number) => *number,
            None => self.kind(labels),
        };
        let Some(number) = number else { return Ok(None) };
        if self.view.numbered
            && let Some(archived) = properties.member(NUMBER).and_then(Value::as_integer)
        {
            id = archived;
        }
        unmark(&mut properties);
        let kind = &self.kinds[number];
        let key = node_key(&kind.key, id, |name| properties.member(name))?;
        let key = Key::from_json(&key)?;
        if let Some(numbers) = &mut self.numbers {
            numbers[kind.at].push(id);
        }
        self.batches.push(kind.at, &key, |json| properties.write(json))
    }

    fn kind(&mut self, labels: Vec<String>) -> Option<usize> {
        let Some((kind, key)) = self.view.kind(labels.clone()) else {
            self.by_labels.insert(labels, None);
            return None;
        };
        // The same labels may come in another order.
        let (at, new) = self.batches.of(kind.clone());
        if new {
            self.pending.push(Read::Begin(kind));
            if let Some(numbers) = &mut self.numbers {
                numbers.push(Vec::new());
            }
        }
        self.kinds.push(NodeKind { key, at });
        self.by_labels.insert(labels, Some(self.kinds.len() - 1));
        Some(self.kinds.len() - 1)
    }
}

/// Relationships, of all types or of some.
pub(crate) struct Relationships {
    client: Client,
    rows: Rows,
    statement: Order,
    batches: Batches,
    ends: Ends,
    /// None: of another world.
    types: HashMap<String, Option<usize>>,
    /// Of the node that is read, or with `sorted` of the pair of nodes.
    group: Vec<Arrow>,
    group_bytes: usize,
    /// The node at which the relationships of the group begin, and what they say of it.
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

/// A relationship without its beginning.
struct Arrow {
    kind: usize,
    to: i64,
    to_text: String,
    properties: String,
}

/// How the ends of relationships are told.
pub(crate) struct Ends {
    view: View,
    properties: Vec<String>,
    kinds: Vec<(String, Vec<String>)>,
    /// None: of another world.
    by_labels: HashMap<Vec<String>, Option<usize>>,
}

struct Order {
    types: String,
    ends: String,
}

impl Order {
    fn all(&self) -> Statement {
        let Self { types, ends } = self;
        // What begins at one node has to come in a row. A `WITH a` alone does not see to that: where
        // there are more relationships than nodes the server reads them as they were made.
        Statement::new(format!(
            "MATCH (n) WITH id(n) AS i MATCH (a) WHERE id(a) = i \
             MATCH (a)-[r{types}]->(b) RETURN {ends}"
        ))
    }

    fn of(&self, node: i64) -> Statement {
        let Self { types, ends } = self;
        Statement::new(format!(
            "MATCH (a)-[r{types}]->(b) WHERE id(a) = $id \
             WITH a, r, b ORDER BY type(r), id(b) RETURN {ends}"
        ))
        .with("id", node)
    }
}

impl Relationships {
    /// Begins to read relationships: of all types where none is named.
    pub(crate) async fn begin(
        client: &Client,
        view: &View,
        types: &[String],
        kept: Option<Numbers>,
    ) -> Result<Self> {
        let world = view.world;
        let names: Vec<_> = types.iter().map(|name| cypher(&world.name(name))).collect();
        let types = if names.is_empty() { String::new() } else { format!(":{}", names.join("|")) };
        let told = Ends::new(view);
        let ends = format!("{}, {}, type(r), properties(r)", told.columns("a"), told.columns("b"));
        let order = Order { types, ends };
        Ok(Self {
            rows: client.rows(&order.all()).await?,
            client: client.clone(),
            statement: order,
            batches: Batches::new(),
            ends: told,
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
        &self.batches.open[kind].name
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
            match self.rows.next().await? {
                Some(row) => self.take(row)?,
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

    fn take(&mut self, row: Row) -> Result<()> {
        let Ok([from, to, kind, properties]) = <[Value; 4]>::try_from(row.values) else {
            return Ok(());
        };
        let name = kind.as_text().unwrap_or_default();
        let kind = match self.types.get(name) {
            Some(kind) => *kind,
            None => self.kind(name),
        };
        let Some(kind) = kind else { return Ok(()) };
        let from_id = Ends::id(&from);
        let same = self.from.as_ref().is_some_and(|(id, _)| *id == from_id);
        if !same {
            self.close_group()?;
            if !self.sorted {
                if self.read.contains(from_id) {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        "the server does not read relationships node by node",
                    ));
                }
                self.read.insert(from_id);
            }
            self.from = Some((from_id, self.ends.tell(from)?));
        } else if !self.sorted && self.crowds.last() == Some(&from_id) {
            return Ok(());
        }
        let to_id = Ends::id(&to);
        if let Some(kept) = &self.kept
            && !(kept.contains(from_id) && kept.contains(to_id))
        {
            *self.cut.entry(kind).or_default() += 1;
            return Ok(());
        }
        let pair = |arrow: &Arrow| (arrow.kind, arrow.to);
        if self.sorted && self.group.last().is_some_and(|last| pair(last) != (kind, to_id)) {
            self.close_group()?;
        }
        let arrow = Arrow {
            kind,
            to: to_id,
            to_text: self.ends.tell(to)?,
            properties: properties.to_json()?,
        };
        self.group_bytes += arrow.to_text.len() + arrow.properties.len() + size_of::<Arrow>();
        self.group.push(arrow);
        if self.group_bytes > CROWD && !self.sorted {
            self.group.clear();
            self.group_bytes = 0;
            self.crowds.push(from_id);
        }
        Ok(())
    }

    fn kind(&mut self, name: &str) -> Option<usize> {
        let real = self.ends.view.world.real(name);
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

impl Ends {
    pub(crate) fn new(view: &View) -> Self {
        Self {
            view: view.clone(),
            properties: view.keys.properties(),
            kinds: Vec::new(),
            by_labels: HashMap::new(),
        }
    }

    /// What a statement returns of a node for [`tell`](Self::tell).
    pub(crate) fn columns(&self, node: &str) -> String {
        let mut columns = vec![format!("id({node})"), format!("labels({node})")];
        columns.extend(self.view.numbered.then(|| format!("{node}.{}", cypher(NUMBER))));
        columns.extend(self.properties.iter().map(|name| format!("{node}.{}", cypher(name))));
        format!("[{}]", columns.join(", "))
    }

    fn id(end: &Value) -> i64 {
        match end {
            Value::List(columns) => columns.first().and_then(Value::as_integer).unwrap_or(-1),
            _ => -1,
        }
    }

    /// The text that names a node: from its number, its labels and what may be part of its key.
    pub(crate) fn tell(&mut self, end: Value) -> Result<String> {
        let Value::List(mut columns) = end else { return Ok(String::new()) };
        let mut values = columns.split_off(columns.len().min(2));
        let labels = columns.pop().map(Value::into_texts).unwrap_or_default();
        let mut id = columns.first().and_then(Value::as_integer).unwrap_or(-1);
        if self.view.numbered && !values.is_empty() {
            id = values.remove(0).as_integer().unwrap_or(id);
        }
        let at = match self.by_labels.get(&labels) {
            Some(at) => *at,
            None => {
                let at = self.view.kind(labels.clone()).map(|(kind, key)| {
                    self.kinds.push((kind.name(), key));
                    self.kinds.len() - 1
                });
                self.by_labels.insert(labels, at);
                at
            }
        };
        let Some(at) = at else { return Err(unfinished()) };
        let (collection, key) = &self.kinds[at];
        let properties = &self.properties;
        let key = node_key(key, id, |name| {
            properties.iter().position(|known| known == name).and_then(|at| values.get(at))
        })?;
        Ok(reference(collection, &key))
    }
}

/// Leaves out what a restore has set.
pub(crate) fn unmark(properties: &mut Value) {
    if let Value::Map(members) = properties {
        members.retain(|(name, _)| !is_marked(name));
    }
}

/// Of a relationship of the application one end is not live: a switch is under way.
fn unfinished() -> Error {
    Error::new(ErrorKind::Unfinished, "a restore of this graph has not ended")
        .advise("resume the restore, then try again")
}

/// The records that a filter takes, and the numbers of their nodes.
pub(crate) fn filtered(
    filter: &Filter,
    batch: RecordBatch,
    numbers: Vec<i64>,
    kept: &mut Numbers,
) -> Result<RecordBatch> {
    let taken = filter.batch(&batch)?;
    if taken.len() == batch.len() {
        numbers.into_iter().for_each(|number| kept.insert(number));
        return Ok(taken);
    }
    // What is left stands in the same order.
    let mut left = taken.iter().peekable();
    for (record, number) in batch.iter().zip(numbers) {
        if left.next_if(|next| next.key_json() == record.key_json()).is_some() {
            kept.insert(number);
        }
    }
    drop(left);
    Ok(taken)
}
