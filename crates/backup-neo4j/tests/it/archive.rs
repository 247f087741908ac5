//! What was read of a graph, or made up, to be restored.

use backup_core::{
    Cancel, CollectionEnd, Content, Part, PinRequest, Pinned, Result, Schema, Sink, SinkSession,
    Source, StagePlan, StageToken, WriteMode,
    manifest::CollectionInfo,
    record::{RecordBatch, canonical::canonicalize},
};
use backup_neo4j::Neo4jStore;
use serde_json::{Value, json};

/// Schemas and records.
#[derive(Clone, Default)]
pub(crate) struct Archive {
    pub(crate) schemas: Vec<Schema>,
    pub(crate) batches: Vec<RecordBatch>,
}

impl Archive {
    pub(crate) async fn of(store: &Neo4jStore) -> Result<Self> {
        let Pinned::Live { session, .. } = store.pin(&PinRequest::new()).await? else { panic!() };
        let mut archive = Self::default();
        for partition in session.partitions().await? {
            while let Some(part) = session.next(&partition).await? {
                match part {
                    Part::Schema(schema) => archive.schemas.push(schema),
                    Part::Records(batch) => archive.batches.push(batch),
                    _ => {}
                }
            }
        }
        session.close().await?;
        Ok(archive)
    }

    /// Another collection, with records of these keys and values.
    pub(crate) fn with(
        mut self,
        collection: &str,
        document: Value,
        records: &[(Value, Value)],
    ) -> Self {
        let schema =
            Schema { collection: collection.to_owned(), document, info: CollectionInfo::default() };
        self.schemas.push(schema);
        let lines = records.iter().map(|(key, value)| {
            // In canonical form, whatever order the members came in.
            let line = json!({"key": key, "value": value}).to_string();
            canonicalize(line.as_bytes()).expect("JSON") + "\n"
        });
        let lines: String = lines.collect();
        if !lines.is_empty() {
            self.batches.push(RecordBatch::from_lines(collection, lines.into()).expect("records"));
        }
        self
    }

    pub(crate) fn content(&self) -> Content {
        let mut content = Content::new();
        for schema in &self.schemas {
            content.collections.entry(schema.collection.clone()).or_default();
        }
        for batch in &self.batches {
            let name = batch.collection().to_owned();
            content.collections.entry(name).or_default().add_batch(batch);
        }
        content
    }

    pub(crate) fn plan(&self, id: &str, mode: WriteMode) -> StagePlan {
        let mut plan = StagePlan::new(id, "graph", "neo4j");
        plan.mode = mode;
        plan.content = self.content();
        plan.bytes = self.batches.iter().map(|batch| batch.byte_size() as u64).sum();
        plan
    }

    pub(crate) async fn begin(
        &self,
        store: &Neo4jStore,
        id: &str,
        mode: WriteMode,
    ) -> Result<(StageToken, Box<dyn SinkSession>)> {
        let token = store.prepare(&self.plan(id, mode)).await?.token;
        let session = store.begin(&token, &Cancel::new()).await?;
        Ok((token, session))
    }

    pub(crate) async fn write(&self, session: &dyn SinkSession) -> Result<()> {
        for schema in &self.schemas {
            session.write(Part::Schema(schema.clone())).await?;
        }
        for batch in &self.batches {
            session.write(Part::Records(batch.clone())).await?;
        }
        for schema in &self.schemas {
            let end = CollectionEnd { collection: schema.collection.clone(), ..Default::default() };
            session.write(Part::End(end)).await?;
        }
        Ok(())
    }

    /// Staged and proved to be.
    pub(crate) async fn stage(
        &self,
        store: &Neo4jStore,
        id: &str,
    ) -> Result<(StageToken, Box<dyn SinkSession>)> {
        self.stage_to(store, id, WriteMode::Replace).await
    }

    pub(crate) async fn stage_to(
        &self,
        store: &Neo4jStore,
        id: &str,
        mode: WriteMode,
    ) -> Result<(StageToken, Box<dyn SinkSession>)> {
        let (token, session) = self.begin(store, id, mode).await?;
        self.write(&*session).await?;
        assert_eq!(session.verify(&self.content()).await?, self.content());
        Ok((token, session))
    }
}
