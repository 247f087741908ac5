//! Reading the graph while it is used.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use backup_core::{
    Cancel, CollectionEnd, Condition, Error, ErrorKind, Filter, Notice, NoticeKind, Part,
    Partition, PinRequest, Pinned, Result, Schema, Selection, Source, SourceSession, Summary,
    async_trait, manifest::CollectionInfo,
};
use futures::lock::Mutex;
use tokio::sync::mpsc;

use crate::{
    client::Client,
    marks::View,
    names::Kind,
    options::{Neo4jOptions, Neo4jStore},
    read::{Known, Nodes, Numbers, Read, Relationships, filtered},
    records::Keys,
    schema::Objects,
};

/// Parts that are ready and that nobody has asked for yet.
const AHEAD: usize = 2;

/// The store in a selection of one.
const STORE: &str = "graph";

#[async_trait]
impl Source for Neo4jStore {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        request.cancel.check()?;
        let client = self.client.clone();
        let begun = async move {
            let before = client.last_transaction().await?;
            Ok((before, Objects::read(&client).await?))
        };
        let (before, objects) = self.client.run(begun).await?;
        let chosen = Chosen::of(request)?;
        let reading = Reading {
            client: self.client.clone(),
            view: View::live(Keys::new(&objects, &self.options)),
            options: Arc::clone(&self.options),
            objects,
            chosen,
        };
        let session = Session {
            client: self.client.clone(),
            before,
            parts: Mutex::new(None),
            reading: Mutex::new(Some(reading)),
            cancel: request.cancel.clone(),
        };
        Ok(Pinned::Live { session: Box::new(session), estimate: None })
    }
}

/// What of the graph is wanted.
struct Chosen {
    /// None: all.
    collections: Option<BTreeSet<Kind>>,
    selection: Selection,
    /// Whether some nodes may be left out, and relationships with them.
    partly: bool,
}

impl Chosen {
    fn of(request: &PinRequest) -> Result<Self> {
        let named = request.collections.iter().map(|name| Kind::parse(name));
        let named = named.collect::<Result<BTreeSet<_>>>()?;
        let mut selection = Selection::new().unmapped(request.unmapped);
        for (collection, condition) in &request.conditions {
            let condition: Condition = condition.clone();
            selection = selection.matching_in(STORE, collection.as_deref(), condition);
        }
        let collections = (!named.is_empty()).then_some(named);
        let partly = collections.is_some() || !request.conditions.is_empty();
        Ok(Self { collections, selection, partly })
    }

    fn takes(&self, kind: &Kind) -> bool {
        self.collections.as_ref().is_none_or(|named| named.contains(kind))
    }
}

struct Session {
    client: Client,
    before: String,
    /// What is read, once it is asked for.
    parts: Mutex<Option<Parts>>,
    reading: Mutex<Option<Reading>>,
    cancel: Cancel,
}

struct Parts {
    from: mpsc::Receiver<Result<Part>>,
    ended: bool,
    _reader: Box<dyn Send + Sync>,
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        // Relationships need to know which nodes were taken, so they come behind them.
        Ok(vec![Partition::new("graph")])
    }

    async fn next(&self, _: &Partition) -> Result<Option<Part>> {
        self.cancel.check()?;
        let mut parts = self.parts.lock().await;
        if parts.is_none()
            && let Some(reading) = self.reading.lock().await.take()
        {
            let (to, from) = mpsc::channel(AHEAD);
            let reader = self.client.beside(async move {
                if let Err(error) = reading.read(&to).await {
                    let _ = to.send(Err(error)).await;
                }
            });
            *parts = Some(Parts { from, ended: false, _reader: reader });
        }
        let Some(parts) = parts.as_mut().filter(|parts| !parts.ended) else { return Ok(None) };
        match parts.from.recv().await {
            Some(Ok(part)) => Ok(Some(part)),
            Some(Err(error)) => {
                parts.ended = true;
                Err(error)
            }
            None => {
                parts.ended = true;
                Ok(None)
            }
        }
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        let ended = self.parts.lock().await.take().is_some_and(|parts| parts.ended);
        let client = self.client.clone();
        let after = self.client.run(async move { client.last_transaction().await }).await;
        let mut summary = Summary::new();
        // Where nothing can be asked any more the reading has failed, or its end is in doubt.
        if let (true, Ok(after)) = (ended, &after) {
            summary.changed = Some(*after != self.before);
            let both = [("transaction_before", &self.before), ("transaction_after", after)];
            summary.metadata =
                both.map(|(name, text)| (name.to_owned(), text.as_str().into())).into();
        }
        Ok(summary)
    }
}

/// One pass over the graph.
struct Reading {
    client: Client,
    view: View,
    options: Arc<Neo4jOptions>,
    objects: Objects,
    chosen: Chosen,
}

/// How many records were given of a collection.
#[derive(Default)]
struct Given(BTreeMap<String, u64>);

/// Whoever wanted the parts does not any more.
struct Gone;

type To = mpsc::Sender<Result<Part>>;

impl Reading {
    async fn read(&self, to: &To) -> Result<()> {
        let mut given = Given::default();
        if self.objects.is_special() && self.chosen.takes(&Kind::Schema) {
            let begun = self.begin(&Kind::Schema, &mut given)?;
            if send(to, begun).await.is_err() {
                return Ok(());
            }
        }
        let mut read = (Known::default(), Numbers::default());
        if self.nodes(to, &mut given, &mut read).await?.is_err() {
            return Ok(());
        }
        let Ok(cut) = self.relationships(to, &mut given, read).await? else { return Ok(()) };
        let end = if self.chosen.partly {
            "is not in the selection"
        } else {
            "came while the graph was read"
        };
        for (name, cut) in &cut {
            let notice = Notice {
                kind: NoticeKind::LeftOut,
                collection: name.clone(),
                subject: "relationships".to_owned(),
                detail: format!("{cut} have an end that {end}"),
            };
            if send(to, Part::Notice(notice)).await.is_err() {
                return Ok(());
            }
        }
        for (name, count) in given.0 {
            let mut end = CollectionEnd { count: Some(count), ..CollectionEnd::default() };
            if let Some(cut) = cut.get(&name) {
                end.statistics.insert("relationships_cut".to_owned(), *cut);
            }
            end.collection = name;
            if send(to, Part::End(end)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn begin(&self, kind: &Kind, given: &mut Given) -> Result<Part> {
        let name = kind.name();
        let key = match kind {
            Kind::Nodes(labels) => self.view.keys.of(labels),
            _ => Vec::new(),
        };
        let mut info = CollectionInfo::default();
        info.fields = self.options.fields_in(&name);
        info.key = key.iter().map(|name| pointer(name)).collect();
        let document = self.objects.document(kind, key).to_json()?;
        given.0.entry(name.clone()).or_default();
        Ok(Part::Schema(Schema { collection: name, document, info }))
    }

    fn filter(&self, kind: &Kind) -> Result<Filter> {
        let name = kind.name();
        self.chosen.selection.filter(STORE, &name, &self.options.fields_in(&name))
    }

    async fn nodes(
        &self,
        to: &To,
        given: &mut Given,
        (known, kept): &mut (Known, Numbers),
    ) -> Result<Result<(), Gone>> {
        let sets: Vec<Option<&[String]>> = match &self.chosen.collections {
            None => vec![None],
            Some(named) => named
                .iter()
                .filter_map(|kind| match kind {
                    Kind::Nodes(labels) => Some(Some(labels.as_slice())),
                    _ => None,
                })
                .collect(),
        };
        let mut filters: BTreeMap<String, Filter> = BTreeMap::new();
        for only in sets {
            let known_so_far = std::mem::take(known);
            let mut nodes =
                Nodes::begin(&self.client, &self.view, only, true, known_so_far).await?;
            while let Some((read, numbers)) = nodes.next().await? {
                let part = match read {
                    Read::Begin(kind) => {
                        filters.insert(kind.name(), self.filter(&kind)?);
                        self.begin(&kind, given)?
                    }
                    Read::Batch(mut batch) => {
                        let filter = filters.get(batch.collection());
                        match filter.filter(|_| self.chosen.partly) {
                            Some(filter) => batch = filtered(filter, batch, numbers, kept)?,
                            None => numbers.into_iter().for_each(|node| kept.insert(node)),
                        }
                        given.count(&batch);
                        Part::Records(batch)
                    }
                };
                if send(to, part).await.is_err() {
                    return Ok(Err(Gone));
                }
            }
            *known = nodes.known();
        }
        self.absent(given, |kind| matches!(kind, Kind::Nodes(_)))?;
        Ok(Ok(()))
    }

    /// Relationships; of how many, by collection, an end is left out.
    async fn relationships(
        &self,
        to: &To,
        given: &mut Given,
        (known, kept): (Known, Numbers),
    ) -> Result<Result<BTreeMap<String, u64>, Gone>> {
        let mut types = Vec::new();
        for kind in self.chosen.collections.iter().flatten() {
            if let Kind::Relationships(name) = kind {
                types.push(name.clone());
            }
        }
        if self.chosen.collections.is_some() && types.is_empty() {
            return Ok(Ok(BTreeMap::new()));
        }
        let mut all =
            Relationships::begin(&self.client, &self.view, &types, known, Some(kept)).await?;
        while let Some(read) = all.next().await? {
            let part = match read {
                Read::Begin(kind) => self.begin(&kind, given)?,
                Read::Batch(batch) => {
                    given.count(&batch);
                    Part::Records(batch)
                }
            };
            if send(to, part).await.is_err() {
                return Ok(Err(Gone));
            }
        }
        self.absent(given, |kind| matches!(kind, Kind::Relationships(_)))?;
        let named = all.cut.iter().map(|(kind, cut)| (all.name_of(*kind).to_owned(), *cut));
        Ok(Ok(named.collect()))
    }

    /// A collection that was named and of which there is nothing.
    fn absent(&self, given: &Given, like: impl Fn(&Kind) -> bool) -> Result<()> {
        let named = self.chosen.collections.iter().flatten().filter(|kind| like(kind));
        match named.map(Kind::name).find(|name| !given.0.contains_key(name)) {
            Some(name) => {
                Err(Error::new(ErrorKind::NotFound, "there is no such collection").on(name))
            }
            None => Ok(()),
        }
    }
}

impl Given {
    fn count(&mut self, batch: &backup_core::record::RecordBatch) {
        *self.0.entry(batch.collection().to_owned()).or_default() += batch.len() as u64;
    }
}

async fn send(to: &To, part: Part) -> Result<(), Gone> {
    to.send(Ok(part)).await.map_err(|_| Gone)
}

/// A JSON pointer to a property.
fn pointer(property: &str) -> String {
    format!("/{}", property.replace('~', "~0").replace('/', "~1"))
}
