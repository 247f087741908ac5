//! Reading a server's collections: as they are, or as snapshots of one moment.

use std::{collections::BTreeMap, sync::Arc};

use backup_core::{
    Cancel, CollectionEnd, Error, ErrorKind, Notice, NoticeKind, Part, Partition, PinRequest,
    Result, Source, SourceSession, Summary, async_trait,
};
use futures::lock::Mutex;
use qdrant_client::qdrant::Filter;
use serde_json::{Value, json};

#[cfg(feature = "qdrant-edge")]
use super::pinned::Pinned;
use super::{
    QdrantStore,
    client::Client,
    filter,
    options::{QdrantOptions, Way},
    scroll::Scroll,
    shards::are_numbered_in_order,
    taken::Taken,
};
use crate::schema::Document;

#[async_trait]
impl Source for QdrantStore {
    async fn pin(&self, request: &PinRequest) -> Result<backup_core::Pinned> {
        request.cancel.check()?;
        let (client, options) = (self.client.clone(), Arc::clone(&self.options));
        let asked = request.clone();
        let readings = self.client.run(async move { readings(&client, &options, &asked).await });
        let readings = readings.await?;
        let pinned = !readings.is_empty() && readings.iter().all(|r| !r.taken.is_empty());
        let taken = readings.iter().flat_map(|reading| reading.taken.iter());
        let mark = taken.map(|taken| taken.snapshot.name.clone()).collect::<Vec<_>>().join(", ");
        let session = Box::new(Session {
            client: self.client.clone(),
            options: Arc::clone(&self.options),
            readings: readings.into(),
            cancel: request.cancel.clone(),
        });
        Ok(if pinned {
            backup_core::Pinned::Pinned { session, mark: Some(mark) }
        } else {
            backup_core::Pinned::Live { session, estimate: None }
        })
    }
}

/// What is to be read; snapshots are taken now, all or none.
async fn readings(
    client: &Client,
    options: &QdrantOptions,
    request: &PinRequest,
) -> Result<Vec<Reading>> {
    let asked = &request.collections;
    let all = client.collections().await?;
    if let Some(name) = asked.iter().find(|name| !all.contains(name)) {
        return Err(Error::new(ErrorKind::NotFound, "there is no such collection").on(name));
    }
    let chosen = all
        .into_iter()
        .filter(|name| options.wants(name) && (asked.is_empty() || asked.contains(name)));
    let aliases = client.aliases().await?;
    let mut readings = Vec::new();
    for (number, name) in chosen.enumerate() {
        let read = reading(client, options, number, name, &aliases, request).await;
        match read {
            Ok(reading) => readings.push(reading),
            Err(error) => {
                remove_all(&all_taken(&readings)).await?;
                return Err(error);
            }
        }
    }
    Ok(readings)
}

async fn reading(
    client: &Client,
    options: &QdrantOptions,
    number: usize,
    name: String,
    aliases: &BTreeMap<String, String>,
    request: &PinRequest,
) -> Result<Reading> {
    request.cancel.check()?;
    let document = client.document(&name, aliases).await?;
    let mut remark = None;
    let mut taken = Vec::new();
    if options.way != Way::Scroll {
        match take(client, &name, &document).await? {
            Ok(snapshots) => taken = snapshots,
            Err(why) => remark = Some(format!("read point by point, because {why}")),
        }
    }
    if taken.len() > 1 {
        remark = Some(format!(
            "its {} shards lie on several servers: each is of a moment of its own",
            taken.len()
        ));
    }
    let before = if taken.is_empty() { client.count(&name).await? } else { 0 };
    let conditions = request.conditions.iter();
    let mine = conditions.filter(|(of, _)| of.as_ref().is_none_or(|of| *of == name));
    let fields = request.fields.get(&name).cloned().unwrap_or_default();
    let conditions = mine.map(|(_, condition)| condition);
    Ok(Reading {
        filter: filter::superset(conditions, &fields, &document.payload_indexes),
        partition: Partition::new(format!("c{number:04}")),
        name,
        document,
        before,
        taken: taken.into(),
        state: Mutex::new(State::Begin(remark)),
    })
}

/// Takes a snapshot of a collection, or of each of its shards; where that cannot be done, why.
async fn take(
    client: &Client,
    name: &str,
    document: &Document,
) -> Result<Result<Vec<Taken>, String>> {
    let whole = client.is_whole_here(name).await?;
    if (document.is_keyed() || !whole)
        && !are_numbered_in_order(&client.shards(name).await?, document)
    {
        let why = "shards or shard keys were removed from it or divided, so that no other \
                   collection has shards of the same numbers";
        return Ok(Err(why.to_owned()));
    }
    let shards = if whole {
        vec![None]
    } else {
        match client.placed(name).await? {
            Ok(shards) => shards.into_iter().map(Some).collect(),
            Err(why) => return Ok(Err(why)),
        }
    };
    let before = client.count(name).await?;
    let mut taken = Vec::new();
    let mut failed = None;
    for shard in shards {
        match Taken::new(client, name, shard).await {
            Ok(snapshot) => taken.push(snapshot),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let after = match failed {
        None => client.count(name).await,
        Some(error) => Err(error),
    };
    match after {
        // How many there were at the moment between is known where nothing came or went.
        Ok(after) => {
            let points = Some(before).filter(|_| before == after);
            taken.iter_mut().for_each(|taken| taken.points = points);
            Ok(Ok(taken))
        }
        Err(error) => {
            remove_all(&taken).await?;
            match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::Unsupported => {
                    Ok(Err("the server does not allow snapshots".to_owned()))
                }
                _ => Err(error.on(name)),
            }
        }
    }
}

fn all_taken(readings: &[Reading]) -> Vec<Taken> {
    readings.iter().flat_map(|reading| reading.taken.iter().cloned()).collect()
}

async fn remove_all(taken: &[Taken]) -> Result<()> {
    let mut outcome = Ok(());
    for taken in taken {
        outcome = outcome.and(taken.remove().await.map_err(|error| {
            let subject = format!("snapshot {} of {}", taken.snapshot.name, taken.collection);
            error.on(subject)
        }));
    }
    outcome
}

struct Session {
    client: Client,
    options: Arc<QdrantOptions>,
    readings: Arc<[Reading]>,
    cancel: Cancel,
}

/// One collection.
struct Reading {
    partition: Partition,
    name: String,
    document: Document,
    /// What need not be read, as far as the server can tell.
    filter: Option<Filter>,
    /// How many points it had when the session began, where it is read as it is.
    before: u64,
    /// Snapshots of it, or of its shards; none: it is read as it is.
    taken: Arc<[Taken]>,
    state: Mutex<State>,
}

enum State {
    /// With what is to be said first.
    Begin(Option<String>),
    Records(Box<Scroll>),
    /// Native files, from the one of this number on.
    Files(usize),
    #[cfg(feature = "qdrant-edge")]
    Pinned(Box<Pinned>),
    Done {
        scrolled: bool,
    },
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(self.readings.iter().map(|reading| reading.partition.clone()).collect())
    }

    async fn next(&self, partition: &Partition) -> Result<Option<Part>> {
        self.cancel.check()?;
        let reading = self.readings.iter().find(|reading| reading.partition == *partition);
        let reading = reading.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such partition").on(&partition.name)
        })?;
        let mut state = reading.state.lock().await;
        match &mut *state {
            State::Begin(remark) => {
                if let Some(detail) = remark.take() {
                    return Ok(Some(Part::Notice(reading.remark(detail))));
                }
                if !reading.taken.is_empty() {
                    let (next, part) = self.begin_taken(reading).await?;
                    *state = next;
                    return Ok(Some(part));
                }
                let (name, document) = (&reading.name, &reading.document);
                let filter = reading.filter.clone();
                let scroll = Scroll::filtered(&self.client, name, name, document, filter)?;
                *state = State::Records(Box::new(scroll));
                reading.schema(&self.options).map(Some)
            }
            State::Records(scroll) => {
                let next = scroll.next().await.map_err(|error| reading.explain(error))?;
                if let Some(batch) = next {
                    return Ok(Some(Part::Records(batch)));
                }
                let end = reading.end(scroll.records());
                *state = State::Done { scrolled: true };
                Ok(Some(end))
            }
            State::Files(number) => {
                let Some(taken) = reading.taken.get(*number) else {
                    *state = State::Done { scrolled: false };
                    return Ok(None);
                };
                *number += 1;
                self.file(reading, taken).await.map(Some)
            }
            #[cfg(feature = "qdrant-edge")]
            State::Pinned(pinned) => {
                let next = pinned.next().await.map_err(|error| error.on(&reading.name))?;
                if let Some(batch) = next {
                    return Ok(Some(Part::Records(batch)));
                }
                let end = reading.end(pinned.records());
                pinned.close().await?;
                *state = State::Done { scrolled: false };
                Ok(Some(end))
            }
            State::Done { .. } => Ok(None),
        }
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        let mut scrolled = Vec::new();
        for reading in self.readings.iter() {
            match &mut *reading.state.lock().await {
                State::Done { scrolled: true } => {
                    scrolled.push((reading.name.clone(), reading.before));
                }
                #[cfg(feature = "qdrant-edge")]
                State::Pinned(pinned) => pinned.close().await?,
                _ => {}
            }
        }
        let (client, readings) = (self.client.clone(), Arc::clone(&self.readings));
        let closed = async move {
            remove_all(&all_taken(&readings)).await?;
            let mut differ = serde_json::Map::new();
            for (name, before) in scrolled {
                // A collection that is gone by now was read all the same.
                let after = client.count(&name).await.ok();
                if after != Some(before) {
                    differ.insert(name, json!([before, after]));
                }
            }
            Ok(differ)
        };
        let differ = self.client.run(closed).await?;
        let mut summary = Summary::new();
        // Equal counts prove nothing: a point may have been overwritten.
        summary.changed = (!differ.is_empty()).then_some(true);
        if !differ.is_empty() {
            summary.metadata.insert("counts_changed".to_owned(), Value::Object(differ));
        }
        Ok(summary)
    }
}

impl Session {
    /// The first part of a collection of which there are snapshots.
    async fn begin_taken(&self, reading: &Reading) -> Result<(State, Part)> {
        #[cfg(feature = "qdrant-edge")]
        if let Way::Pinned(scratch) = &self.options.way {
            let (forms, scratch) = (reading.document.forms()?, scratch.clone());
            let taken = Arc::clone(&reading.taken);
            let opened = async move { Pinned::open(&taken, forms, &scratch).await };
            let pinned = Box::new(self.client.run(opened).await?);
            return Ok((State::Pinned(pinned), reading.schema(&self.options)?));
        }
        Ok((State::Files(1), self.file(reading, &reading.taken[0]).await?))
    }

    async fn file(&self, reading: &Reading, taken: &Taken) -> Result<Part> {
        let (client, taken, document) =
            (self.client.clone(), taken.clone(), reading.document.clone());
        let model = self.options.model_of(&reading.name).map(str::to_owned);
        let blob = async move { taken.part(&client, &document, model.as_deref()).await };
        self.client.run(blob).await.map(Part::Blob)
    }
}

impl Reading {
    fn schema(&self, options: &QdrantOptions) -> Result<Part> {
        self.document.part(&self.name, options.model_of(&self.name)).map(Part::Schema)
    }

    fn end(&self, records: u64) -> Part {
        let mut end = CollectionEnd::default();
        end.collection.clone_from(&self.name);
        end.count = Some(records);
        Part::End(end)
    }

    fn remark(&self, detail: String) -> Notice {
        let (collection, subject) = (self.name.clone(), "snapshot".to_owned());
        Notice { kind: NoticeKind::Remark, collection, subject, detail }
    }

    fn explain(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::NotFound {
            let what = "the collection, or a shard key of it, was removed while it was read";
            return Error::new(ErrorKind::NotFound, what).on(&self.name).because(error);
        }
        error
    }
}
