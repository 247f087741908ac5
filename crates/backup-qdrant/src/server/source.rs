//! Reading a server's collections as they are.

use std::{collections::BTreeMap, sync::Arc};

use backup_core::{
    Cancel, CollectionEnd, Error, ErrorKind, Part, Partition, PinRequest, Pinned, Result, Source,
    SourceSession, Summary, async_trait,
};
use futures::lock::Mutex;

use super::{QdrantStore, client::Client, grpc, rest::retry, scroll::Scroll};
use crate::schema::Document;

#[async_trait]
impl Source for QdrantStore {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        request.cancel.check()?;
        let (client, options) = (self.client.clone(), Arc::clone(&self.options));
        let asked = request.collections.clone();
        let found = async move {
            let all = client.collections().await?;
            if let Some(name) = asked.iter().find(|name| !all.contains(name)) {
                return Err(Error::new(ErrorKind::NotFound, "there is no such collection").on(name));
            }
            let chosen =
                |name: &String| options.wants(name) && (asked.is_empty() || asked.contains(name));
            let aliases = client.aliases().await?;
            let mut collections = Vec::new();
            for name in all.into_iter().filter(chosen) {
                let document = client.document(&name, &aliases).await?;
                if document.custom_sharding() {
                    let what = "the application chooses the shards of this collection, \
                                which cannot be carried yet";
                    return Err(Error::new(ErrorKind::Unsupported, what).on(name));
                }
                let records = count(&client, &name).await?;
                collections.push((name, document, records));
            }
            Ok(collections)
        };
        let readings = self.client.run(found).await?.into_iter().enumerate();
        let readings = readings.map(|(number, (name, document, before))| Reading {
            partition: Partition::new(format!("c{number:04}")),
            name,
            document,
            before,
            state: Mutex::new(State::Schema),
        });
        let session = Box::new(Session {
            client: self.client.clone(),
            readings: readings.collect(),
            cancel: request.cancel.clone(),
        });
        Ok(Pinned::Live { session, estimate: None })
    }
}

async fn count(client: &Client, collection: &str) -> Result<u64> {
    retry(|| grpc::count(&client.grpc, collection)).await
}

struct Session {
    client: Client,
    readings: Vec<Reading>,
    cancel: Cancel,
}

/// One collection.
struct Reading {
    partition: Partition,
    name: String,
    document: Document,
    /// How many points it had when the session began.
    before: u64,
    state: Mutex<State>,
}

enum State {
    Schema,
    Records(Scroll),
    End(u64),
    Done,
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
        if let State::Schema = *state {
            let forms = reading.document.forms()?;
            *state =
                State::Records(Scroll::start(&self.client, &reading.name, &reading.name, &forms));
            return reading.document.part(&reading.name).map(Part::Schema).map(Some);
        }
        if let State::Records(scroll) = &mut *state {
            let next = scroll.next().await.map_err(|error| reading.explain(error))?;
            if let Some(batch) = next {
                return Ok(Some(Part::Records(batch)));
            }
            *state = State::End(scroll.records());
        }
        let State::End(records) = *state else { return Ok(None) };
        *state = State::Done;
        let mut end = CollectionEnd { collection: reading.name.clone(), ..Default::default() };
        end.count = Some(records);
        Ok(Some(Part::End(end)))
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        let mut read = Vec::new();
        for reading in &self.readings {
            if let State::Done = *reading.state.lock().await {
                read.push((reading.name.clone(), reading.before));
            }
        }
        let client = self.client.clone();
        let differ = async move {
            let mut differ = BTreeMap::new();
            for (name, before) in read {
                let after = count(&client, &name).await?;
                if after != before {
                    differ.insert(name, serde_json::json!([before, after]));
                }
            }
            Ok(differ)
        };
        let differ = self.client.run(differ).await.unwrap_or_default();
        let mut summary = Summary::new();
        // Equal counts prove nothing: a point may have been overwritten.
        summary.changed = (!differ.is_empty()).then_some(true);
        if !differ.is_empty() {
            let counts = differ.into_iter().collect();
            summary.metadata.insert("counts_changed".to_owned(), serde_json::Value::Object(counts));
        }
        Ok(summary)
    }
}

impl Reading {
    fn explain(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::NotFound {
            let what = "the collection was removed while it was read";
            return Error::new(ErrorKind::NotFound, what).on(&self.name).because(error);
        }
        error
    }
}
