//! Adding records to a live graph.
//!
//! They are staged as those of a replace are. Nodes that relationships name and that are not among
//! them are staged as ends, which stand for live ones.

mod compare;
mod find;
mod identity;
mod readback;
mod statements;
mod switch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use backup_core::{
    Error, ErrorKind, Result,
    record::{BatchBuilder, Key, RecordBatch, RecordRef},
};

use crate::{
    client::Client,
    marks::{NUMBER, SEEN},
    names::Kind,
    options::Neo4jOptions,
    records::{End, key_values, reference, relationship_key, write_relationship},
    schema::Document,
    sink::stage::{self, Rows, Target, member, no_records, parsed, properties},
    value::Value,
};
use compare::digest;
use find::Within;

pub(crate) use identity::{Identity, wanted};
pub(crate) use readback::tally;
pub(crate) use switch::{Step, Work, complete};

/// What this process knows of a merge.
#[derive(Default)]
pub(crate) struct Merging {
    identity: Option<Arc<Identity>>,
    /// What was answered, by collection and key: digests of properties, none where a key was free.
    seen: HashMap<(String, String), Option<[u8; 32]>>,
}

impl Merging {
    /// By what nodes are found, read from the server where nobody has done so.
    pub(crate) async fn identity(
        &mut self,
        client: &Client,
        options: &Neo4jOptions,
    ) -> Result<Arc<Identity>> {
        if let Some(identity) = &self.identity {
            return Ok(Arc::clone(identity));
        }
        let identity = Arc::new(Identity::live(client, options).await?);
        self.identity = Some(Arc::clone(&identity));
        Ok(identity)
    }

    /// Takes a collection's document in; see [`Identity::take`].
    pub(crate) async fn announce(
        &mut self,
        client: &Client,
        options: &Neo4jOptions,
        collection: &str,
        document: &mut Document,
    ) -> Result<()> {
        let mut identity = Identity::clone(&*self.identity(client, options).await?);
        identity.take(collection, &Kind::parse(collection)?, document, options)?;
        self.identity = Some(Arc::new(identity));
        Ok(())
    }

    /// The live records of these keys, which are remembered.
    pub(crate) async fn existing(
        &mut self,
        client: &Client,
        options: &Neo4jOptions,
        collection: &str,
        keys: &[Key],
    ) -> Result<Vec<RecordBatch>> {
        let identity = self.identity(client, options).await?;
        let found = match Kind::parse(collection)? {
            Kind::Nodes(labels) => nodes(client, &identity, &labels, keys).await?,
            Kind::Relationships(name) => relationships(client, &identity, &name, keys).await?,
            Kind::Schema => Vec::new(),
        };
        for key in keys {
            self.seen.insert((collection.to_owned(), key.as_json().to_owned()), None);
        }
        let mut batches = Vec::new();
        let mut batch = BatchBuilder::new(collection);
        for Found { key, properties, ends } in found {
            let id = (collection.to_owned(), key.as_json().to_owned());
            self.seen.insert(id, Some(*digest(&properties).as_bytes()));
            match ends {
                None => batch.push_json(&key, properties.as_bytes())?,
                Some((from, to)) => {
                    batch.push(&key, |json| write_relationship(json, &from, &properties, &to))?
                }
            }
            if batch.is_full() {
                let full = std::mem::replace(&mut batch, BatchBuilder::new(collection));
                batches.push(full.finish()?);
            }
        }
        if !batch.is_empty() {
            batches.push(batch.finish()?);
        }
        Ok(batches)
    }

    /// Records as rows for the server, with what was seen of the live ones.
    ///
    /// # Errors
    /// Nodes that have no key.
    pub(crate) async fn rows(
        &mut self,
        client: &Client,
        options: &Neo4jOptions,
        kind: &Kind,
        batch: &RecordBatch,
    ) -> Result<Rows> {
        let identity = self.identity(client, options).await?;
        let mut rows = Rows::default();
        for record in batch.iter() {
            let row = match kind {
                Kind::Nodes(labels) => node(&identity, labels, &record),
                Kind::Relationships(name) => relationship(&identity, name, &record),
                Kind::Schema => Err(no_records()),
            };
            let (target, mut row, at) = row.map_err(|e| stage::of(&record, e))?;
            let id = (batch.collection().to_owned(), record.key_json().to_owned());
            if let (Some(seen), Some(Value::Map(members))) =
                (self.seen.remove(&id), row.get_mut(at))
            {
                let seen = seen.map_or_else(Vec::new, |digest| digest.to_vec());
                members.push((SEEN.to_owned(), Value::Bytes(seen.into())));
            }
            rows.push(&target, row, record.line().len());
        }
        Ok(rows)
    }
}

/// A live record, whose properties are canonical text; with its ends if it is a relationship.
struct Found {
    key: Key,
    properties: String,
    ends: Option<(String, String)>,
}

async fn nodes(
    client: &Client,
    identity: &Identity,
    labels: &[String],
    keys: &[Key],
) -> Result<Vec<Found>> {
    let texts: BTreeSet<_> = keys.iter().map(Key::as_json).collect();
    let text = |properties: Value| properties.to_json();
    let mut within = Within::Alone(client);
    let found = find::nodes(&mut within, identity, labels, &texts, false, text).await?;
    let found = found.into_iter().map(|(key, (_, properties))| {
        Ok(Found { key: Key::from_json(&key)?, properties, ends: None })
    });
    found.collect()
}

async fn relationships(
    client: &Client,
    identity: &Identity,
    name: &str,
    keys: &[Key],
) -> Result<Vec<Found>> {
    // A key of another form names none.
    let asked: Vec<_> = keys.iter().filter_map(between).collect();
    let mut texts: BTreeMap<&[String], BTreeSet<&str>> = BTreeMap::new();
    for end in asked.iter().flat_map(|(ends, _)| ends) {
        if let Kind::Nodes(labels) = &end.collection {
            texts.entry(labels).or_default().insert(&end.key);
        }
    }
    let mut within = Within::Alone(client);
    let mut numbers = HashMap::new();
    for (labels, texts) in texts {
        let none = |_| Ok(());
        let found = find::nodes(&mut within, identity, labels, &texts, false, none).await?;
        numbers.extend(found.into_iter().map(|(text, (id, ()))| ((labels, text), id)));
    }
    let number = |end: &End| match &end.collection {
        Kind::Nodes(labels) => numbers.get(&(labels.as_slice(), end.key.clone())).copied(),
        _ => None,
    };
    let pair = |ends: &[End; 2]| number(&ends[0]).zip(number(&ends[1]));
    let pairs = asked.iter().filter_map(|(ends, _)| pair(ends)).collect();
    let mut live = find::relationships(&mut within, name, &pairs).await?;
    let mut found = Vec::new();
    for (ends, at) in &asked {
        let arrow = pair(ends).and_then(|pair| live.get_mut(&pair)?.get_mut(*at));
        if let Some(arrow) = arrow {
            let [from, to] = [&ends[0], &ends[1]].map(|end| end.reference());
            let key = relationship_key(&from, &to, *at as u64)?;
            let properties = std::mem::take(&mut arrow.properties);
            found.push(Found { key, properties, ends: Some((from, to)) });
        }
    }
    Ok(found)
}

/// The ends and the number in a relationship's key.
fn between(key: &Key) -> Option<([End; 2], usize)> {
    let json: serde_json::Value = serde_json::from_str(key.as_json()).ok()?;
    let [from, to, number] = json.as_array()?.as_slice() else { return None };
    let number = match Value::from_json(number).ok()? {
        Value::Integer(number) => usize::try_from(number).ok()?,
        _ => return None,
    };
    Some(([End::from_json(from).ok()?, End::from_json(to).ok()?], number))
}

/// A row, and where in it the properties are.
type Row = (Target, Vec<Value>, usize);

fn node(identity: &Identity, labels: &[String], record: &RecordRef<'_>) -> Result<Row> {
    let end = End { collection: Kind::Nodes(labels.to_vec()), key: record.key_json().to_owned() };
    keyed(identity, labels, &end.key)?;
    let row = vec![end.key_text().into(), properties(&parsed(record.value_json())?)?];
    Ok((Target::Nodes(labels.to_vec()), row, 1))
}

fn relationship(identity: &Identity, name: &str, record: &RecordRef<'_>) -> Result<Row> {
    let value = parsed(record.value_json())?;
    let [from, to] = stage::ends(&value)?;
    let mut all = properties(member(&value, "properties"))?;
    let number = between(&record.key()).map(|(_, number)| number as i64);
    if let (Some(number), Value::Map(members)) = (number, &mut all) {
        members.push((NUMBER.to_owned(), number.into()));
    }
    let labels = |end: &End| match &end.collection {
        Kind::Nodes(labels) => Ok(labels.clone()),
        _ => Err(stage::odd("a relationship begins or ends at something that is no node")),
    };
    let (a, b) = (labels(&from)?, labels(&to)?);
    let row = vec![
        from.key_text().into(),
        to.key_text().into(),
        all,
        keyed(identity, &a, &from.key)?,
        keyed(identity, &b, &to.key)?,
    ];
    Ok((Target::Between(name.to_owned(), a, b), row, 2))
}

/// The properties that make up a node's key.
fn keyed(identity: &Identity, labels: &[String], key: &str) -> Result<Value> {
    let names = identity.key(labels);
    let Some(values) = key_values(&names, key) else {
        let what = "nothing tells whether a node is there already: it has no key";
        let place = reference(&Kind::nodes(labels.to_vec()).name(), key);
        return Err(Error::new(ErrorKind::Incompatible, what).on(place).advise(
            "name the properties of the key with `Neo4jOptions::key` and back up again, or leave the \
             collection out",
        ));
    };
    Ok(Value::Map(names.into_iter().zip(values).collect()))
}
