//! Shards, and what goes from one to another without an archive.

use std::path::{Path, PathBuf};

use backup_core::{
    Cancel, Content, Part, PinRequest, Pinned, Result, Schema, Sink, SinkSession, Source,
    StagePlan, StageToken, WriteMode,
    record::{RecordBatch, Tally},
};
use backup_qdrant::edge::{EdgeStore, Snapshot, qdrant_edge::*};
use futures::executor::block_on;
use serde_json::{Value, json};

/// A folder of its own, with a shard or without.
pub(crate) struct Place {
    // Closed before the folder is removed.
    pub(crate) store: EdgeStore,
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    /// Empty.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = EdgeStore::open(dir.path().join("notes")).unwrap();
        Self { dir, store }
    }

    /// With points 1 to `count`.
    pub(crate) fn with(count: u64) -> Self {
        let place = Self::new();
        place.create();
        place.put((1..=count).map(|number| sample(number, "old")).collect());
        place
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("notes")
    }

    pub(crate) fn create(&self) {
        let text = EdgeVectorParams::builder(4, Distance::Cosine).build();
        let config = EdgeConfig::builder().vector("text", text).build();
        assert!(self.store.create(config).unwrap());
    }

    pub(crate) fn put(&self, points: Vec<PointStruct>) {
        put(&self.store, points);
    }

    /// As another process would find it.
    pub(crate) fn reopen(self) -> Self {
        let Self { dir, store } = self;
        drop(store);
        let store = EdgeStore::open(dir.path().join("notes")).unwrap();
        Self { dir, store }
    }
}

pub(crate) fn put(store: &EdgeStore, points: Vec<PointStruct>) {
    let points = points.into_iter().map(Into::into).collect();
    let upsert = PointOperations::UpsertPoints(PointInsertOperations::PointsList(points));
    store.shard().unwrap().update(UpdateOperation::PointOperation(upsert)).unwrap();
}

pub(crate) fn sample(number: u64, text: &str) -> PointStruct {
    let values = (0..4).map(|i| ((number * 7 + i * 13) % 17) as f32 - 8.5).collect::<Vec<_>>();
    PointStruct::new(
        number,
        Vectors::new_named([("text", values)]),
        json!({"text": text, "number": number}),
    )
}

/// Everything in a store, as text, by the engine's own means.
pub(crate) fn dump(store: &EdgeStore) -> Vec<String> {
    let Ok(shard) = store.shard() else { return Vec::new() };
    let config = serde_json::to_value(&*shard.config()).unwrap();
    let mut out = vec![format!("config {}", sorted(config))];
    let info = shard.info();
    let mut indexes: Vec<String> = info
        .payload_schema
        .iter()
        .map(|(field, index)| format!("index {field} {:?} {:?}", index.data_type, index.params))
        .collect();
    indexes.sort();
    out.extend(indexes);
    let mut offset = None;
    loop {
        let request = ScrollRequest {
            offset,
            limit: Some(100),
            with_vector: WithVector::Bool(true),
            ..ScrollRequest::default()
        };
        let (records, next) = shard.scroll(request).unwrap();
        for record in records {
            let vectors: std::collections::BTreeMap<String, String> = match record.vector {
                None => Default::default(),
                Some(VectorStructInternal::Single(v)) => [(String::new(), format!("{v:?}"))].into(),
                Some(VectorStructInternal::MultiDense(v)) => {
                    [(String::new(), format!("{v:?}"))].into()
                }
                Some(VectorStructInternal::Named(all)) => {
                    all.into_iter().map(|(name, v)| (name, format!("{v:?}"))).collect()
                }
            };
            let payload = sorted(Value::Object(record.payload.unwrap().0));
            out.push(format!("{} {payload} {vectors:?}", record.id));
        }
        match next {
            Some(next) => offset = Some(next),
            None => return out,
        }
    }
}

// Maps of the engine come in any order.
fn sorted(json: Value) -> Value {
    match json {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            members.into_iter().map(|(name, value)| (name, sorted(value))).collect()
        }
        plain => plain,
    }
}

/// What a source gave.
#[derive(Clone, Default)]
pub(crate) struct Taken {
    pub(crate) schema: Option<Schema>,
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) content: Content,
}

impl Taken {
    pub(crate) fn of_snapshot(snapshot: &Snapshot, collection: &str) -> Self {
        let mut taken = Self {
            schema: Some(snapshot.schema(collection).unwrap()),
            batches: snapshot.batches(collection).collect::<Result<_>>().unwrap(),
            content: Content::new(),
        };
        taken.retally(collection);
        taken
    }

    pub(crate) fn retally(&mut self, collection: &str) {
        let mut tally = Tally::new();
        self.batches.iter().for_each(|batch| tally.add_batch(batch));
        self.content.collections.insert(collection.to_owned(), tally);
    }

    pub(crate) fn tally(&self) -> &Tally {
        self.content.collections.values().next().expect("a collection")
    }

    pub(crate) fn document(&self) -> &Value {
        &self.schema.as_ref().expect("a schema").document
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> {
        let schema = self.schema.clone().map(Part::Schema);
        schema.into_iter().chain(self.batches.clone().into_iter().map(Part::Records))
    }
}

pub(crate) fn take(store: &EdgeStore) -> Taken {
    block_on(async {
        let Pinned::Pinned { session, .. } = store.pin(&PinRequest::new()).await? else {
            panic!("a shard is pinned")
        };
        let mut taken = Taken::default();
        for partition in session.partitions().await? {
            while let Some(part) = session.next(&partition).await? {
                match part {
                    Part::Schema(schema) => taken.schema = Some(schema),
                    Part::Records(batch) => taken.batches.push(batch),
                    Part::End(end) => {
                        taken.retally(&end.collection);
                        assert_eq!(end.count, Some(taken.tally().records));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        session.close().await?;
        Ok::<_, backup_core::Error>(taken)
    })
    .unwrap()
}

pub(crate) fn token(store: &EdgeStore, taken: &Taken) -> Result<StageToken> {
    token_in(store, taken, WriteMode::Replace)
}

fn token_in(store: &EdgeStore, taken: &Taken, mode: WriteMode) -> Result<StageToken> {
    let mut plan = StagePlan::new("r1", "vectors", "qdrant");
    plan.mode = mode;
    plan.content = taken.content.clone();
    plan.bytes = taken.batches.iter().map(|batch| batch.byte_size() as u64).sum();
    Ok(block_on(store.prepare(&plan))?.token)
}

/// Stages what was taken and checks what was staged.
pub(crate) fn stage(
    store: &EdgeStore,
    taken: &Taken,
) -> Result<(StageToken, Box<dyn SinkSession>)> {
    stage_in(store, taken, WriteMode::Replace)
}

/// As [`stage`], perhaps to be added: then the store is asked for each point first.
pub(crate) fn stage_in(
    store: &EdgeStore,
    taken: &Taken,
    mode: WriteMode,
) -> Result<(StageToken, Box<dyn SinkSession>)> {
    let token = token_in(store, taken, mode)?;
    block_on(async {
        let session = store.begin(&token, &Cancel::new()).await?;
        for part in taken.parts() {
            if let (WriteMode::Merge, Part::Records(batch)) = (mode, &part) {
                let keys: Vec<_> = batch.iter().map(|record| record.key()).collect();
                session.existing(batch.collection(), &keys).await?;
            }
            session.write(part).await?;
        }
        assert_eq!(session.verify(&taken.content).await?, taken.content);
        Ok((token, session))
    })
}

/// A whole restore.
pub(crate) fn restore(store: &EdgeStore, taken: &Taken) -> Result<()> {
    let (_, session) = stage(store, taken)?;
    block_on(async {
        session.commit().await?;
        assert_eq!(session.verify(&taken.content).await?, taken.content);
        session.finish().await
    })
}

/// Names in a folder, hidden ones too.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/qdrant").join(name)
}
