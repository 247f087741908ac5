//! Restoring into a [`MemoryStore`].

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::{
    MemoryStore, State, Step,
    data::{Collection, Data, Entry, Id, Node, Record, StoredBlob},
};
use crate::{
    cancel::Cancel,
    compat::VectorChanges,
    error::{Error, ErrorKind, Result},
    part::{ByteStream, Content, EntryKind, EntryPath, FileEntry, Part},
    record::{Key, RecordBatch},
    sink::{Prepared, Reattached, Sink, SinkSession, StagePlan, StageToken, Switch, WriteMode},
};

/// What one restore has made in the store.
pub(super) struct Stage {
    mode: WriteMode,
    phase: Phase,
    staged: Data,
    // What `existing` answered, by collection.
    seen: BTreeMap<String, BTreeMap<Key, Vec<(Id, Record)>>>,
    // The same of entries.
    seen_entries: BTreeMap<String, BTreeMap<EntryPath, Option<Entry>>>,
}

enum Phase {
    Staged,
    Committed { pre_image: Data },
    Undone,
}

/// What a token of this adapter holds.
#[derive(Serialize, Deserialize)]
struct Token {
    // The name of the stage.
    restore: String,
}

struct Session {
    store: MemoryStore,
    // The name of the stage.
    restore: String,
    cancel: Cancel,
}

#[async_trait]
impl Sink for MemoryStore {
    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        self.step(Step::Prepare)?;
        plan.check(self)?;
        Ok(Prepared {
            token: plan.token(&Token { restore: plan.restore_id.clone() })?,
            switch: Switch::AtomicPointer,
            notes: Vec::new(),
        })
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        cancel.check()?;
        let Token { restore } = token.read(self)?;
        self.step(Step::Begin)?;
        let mut state = self.lock();
        let stage = state.stages.entry(restore.clone()).or_insert_with(|| Stage {
            mode: token.mode,
            phase: Phase::Staged,
            staged: Data::default(),
            seen: BTreeMap::new(),
            seen_entries: BTreeMap::new(),
        });
        if !matches!(stage.phase, Phase::Staged) {
            return Err(Error::out_of_order("begin", "it was committed already").on(restore));
        }
        Ok(self.session(restore, cancel.clone()))
    }

    /// A document may describe vectors, as a member `vectors` by name.
    fn revise_vectors(
        &self,
        document: &mut serde_json::Value,
        changes: &VectorChanges,
    ) -> Result<()> {
        let vectors = document.get_mut("vectors").and_then(serde_json::Value::as_object_mut);
        let Some(vectors) = vectors else { return Ok(()) };
        vectors.retain(|name, _| !changes.left_out.contains(name));
        for (name, vector) in &changes.made {
            let described = serde_json::to_value(vector);
            vectors.insert(name.clone(), described.map_err(|e| Error::adapter("odd").because(e))?);
        }
        Ok(())
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let Token { restore } = token.read(self)?;
        self.step(Step::Reattach)?;
        let state = self.lock();
        let Some(stage) = state.stages.get(&restore) else { return Ok(Reattached::Absent) };
        if let Some(reason) = &state.lost_track {
            return Ok(Reattached::Unknown { reason: reason.clone() });
        }
        let session = self.session(restore, Cancel::new());
        Ok(match stage.phase {
            Phase::Staged => Reattached::Staged(session),
            Phase::Committed { .. } => Reattached::Committed(session),
            Phase::Undone => Reattached::Undone(session),
        })
    }
}

impl MemoryStore {
    fn session(&self, restore: String, cancel: Cancel) -> Box<dyn SinkSession> {
        Box::new(Session { store: self.clone(), restore, cancel })
    }
}

#[async_trait]
impl SinkSession for Session {
    async fn existing(&self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        self.store.step(Step::Existing)?;
        let mut state = self.store.lock();
        let State { live, stages, .. } = &mut *state;
        let asked: BTreeSet<_> = keys.iter().collect();
        let mut found = live.collections.get(collection).map(|c| c.of_keys(&asked));
        let found = found.take().unwrap_or_default();
        let batches =
            Collection::batches(collection, found.iter().map(|(i, r)| (i, r)), usize::MAX);
        if let Some(stage) = stages.get_mut(&self.restore) {
            let seen = stage.seen.entry(collection.to_owned()).or_default();
            seen.extend(asked.into_iter().map(|key| (key.clone(), Vec::new())));
            for (id, record) in found {
                seen.entry(id.0.clone()).or_default().push((id, record));
            }
        }
        batches
    }

    async fn existing_entry(&self, root: &str, path: &EntryPath) -> Result<Option<FileEntry>> {
        self.store.step(Step::Existing)?;
        let mut state = self.store.lock();
        let State { live, stages, .. } = &mut *state;
        let entry = live.collections.get(root).and_then(|c| c.entries.get(path));
        if let Some(stage) = stages.get_mut(&self.restore) {
            let seen = stage.seen_entries.entry(root.to_owned()).or_default();
            seen.insert(path.clone(), entry.cloned());
        }
        Ok(entry.map(|entry| entry.to_part(root, path)))
    }

    async fn write(&self, part: Part) -> Result<()> {
        self.cancel.check()?;
        self.store.step(Step::Write)?;
        match part {
            Part::Schema(schema) => self.staged(|staged| {
                let collection = staged.collection(&schema.collection);
                collection.document = schema.document;
                collection.info = schema.info;
                Ok(())
            }),
            Part::Records(batch) => {
                self.staged(|staged| match staged.collections.get_mut(batch.collection()) {
                    Some(collection) => collection.insert_batch(&batch),
                    None => Err(Error::out_of_order("write", "records came before their schema")
                        .on(batch.collection())),
                })
            }
            Part::Blob(blob) => {
                let bytes = read(blob.body, blob.len).await.map_err(|e| e.on(&blob.name))?;
                let stored = StoredBlob { bytes, masked: blob.masked, metadata: blob.metadata };
                self.staged(|staged| {
                    staged.blobs.insert(blob.name, stored);
                    Ok(())
                })
            }
            Part::Entry(entry) => {
                let node = match entry.kind {
                    EntryKind::Directory => Node::Directory,
                    EntryKind::Symlink { target } => Node::Symlink(target),
                    EntryKind::File { len, body } => {
                        Node::File(read(body, Some(len)).await.map_err(|e| e.on(&entry.path))?)
                    }
                };
                let stored = Entry { mode: entry.mode, modified: entry.modified, node };
                self.staged(|staged| {
                    let entries = &mut staged.collection(&entry.root).entries;
                    if let Some(above) = entry
                        .path
                        .ancestors()
                        .find(|above| entries.get(above).is_some_and(|e| e.node != Node::Directory))
                    {
                        let what = "an entry stands below what is not a folder";
                        return Err(Error::new(ErrorKind::Hostile, what).on(above));
                    }
                    entries.insert(entry.path, stored);
                    Ok(())
                })
            }
            Part::End(_) | Part::Notice(_) => Ok(()),
        }
    }

    async fn verify(&self, expected: &Content) -> Result<Content> {
        self.cancel.check()?;
        self.store.step(Step::Verify)?;
        let state = self.store.lock();
        match state.stages.get(&self.restore) {
            Some(Stage { phase: Phase::Staged, staged, .. }) => staged.content(expected),
            Some(Stage { mode: WriteMode::Merge, staged, .. }) => {
                state.live.part_in(staged).content(expected)
            }
            Some(_) => state.live.content(expected),
            None => Err(Error::out_of_order("verify", "nothing is staged").on(&self.restore)),
        }
    }

    async fn commit(&self) -> Result<()> {
        self.store.step(Step::Commit)?;
        self.change(|live, stage| match (&stage.phase, stage.mode) {
            (Phase::Committed { .. }, _) => Ok(()),
            (Phase::Undone, _) => Err(Error::out_of_order("commit", "it was undone")),
            (Phase::Staged, mode) => {
                let pre_image = live.clone();
                match mode {
                    WriteMode::Replace => *live = std::mem::take(&mut stage.staged),
                    WriteMode::Merge => {
                        stage.unchanged(live)?;
                        live.merge(stage.staged.clone());
                    }
                }
                stage.phase = Phase::Committed { pre_image };
                Ok(())
            }
        })?;
        self.store.step(Step::CommitDone)
    }

    async fn undo(&self) -> Result<()> {
        self.store.step(Step::Undo)?;
        self.change(|live, stage| match &mut stage.phase {
            Phase::Undone => Ok(()),
            Phase::Staged => Err(Error::out_of_order("undo", "it was not committed")),
            Phase::Committed { pre_image } => {
                *live = std::mem::take(pre_image);
                stage.phase = Phase::Undone;
                Ok(())
            }
        })?;
        self.store.step(Step::UndoDone)
    }

    async fn finish(&self) -> Result<()> {
        self.store.step(Step::Finish)?;
        self.remove(|phase| match phase {
            Phase::Staged => Err(Error::out_of_order("finish", "it was not committed")),
            Phase::Committed { .. } | Phase::Undone => Ok(()),
        })
    }

    async fn abort(&self) -> Result<()> {
        self.store.step(Step::Abort)?;
        self.remove(|phase| match phase {
            Phase::Staged => Ok(()),
            Phase::Committed { .. } | Phase::Undone => {
                Err(Error::out_of_order("abort", "it was committed"))
            }
        })
    }
}

impl Stage {
    /// Refuses where a record that is to be written is not what `existing` answered.
    fn unchanged(&self, live: &Data) -> Result<()> {
        for (name, staged) in &self.staged.collections {
            let Some(seen) = self.seen.get(name) else { continue };
            let keys: BTreeSet<_> = staged.records.keys().map(|(key, _)| key).collect();
            for key in keys {
                let now = live.collections.get(name).map(|c| c.of_keys(&BTreeSet::from([key])));
                if seen.get(key).is_some_and(|seen| *seen != now.unwrap_or_default()) {
                    let what = "a record was changed after it was compared with the archive's";
                    return Err(Error::new(ErrorKind::Changed, what).on(format!("{name}, {key}")));
                }
            }
        }
        for (root, staged) in &self.staged.collections {
            let Some(seen) = self.seen_entries.get(root) else { continue };
            let now = |path| live.collections.get(root).and_then(|c| c.entries.get(path));
            let mut asked = staged.entries.keys().filter_map(|path| Some((path, seen.get(path)?)));
            if let Some((path, _)) = asked.find(|(path, seen)| seen.as_ref() != now(*path)) {
                let what = "an entry was changed after it was compared with the archive's";
                return Err(Error::new(ErrorKind::Changed, what).on(path).on(root));
            }
        }
        Ok(())
    }
}

impl Session {
    fn staged(&self, write: impl FnOnce(&mut Data) -> Result<()>) -> Result<()> {
        match self.store.lock().stages.get_mut(&self.restore) {
            Some(Stage { phase: Phase::Staged, staged, .. }) => write(staged),
            _ => Err(Error::out_of_order("write", "nothing is staged").on(&self.restore)),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Data, &mut Stage) -> Result<()>) -> Result<()> {
        let mut state = self.store.lock();
        let State { live, stages, version, .. } = &mut *state;
        let stage = stages
            .get_mut(&self.restore)
            .ok_or_else(|| Error::out_of_order("commit or undo", "nothing is staged"));
        *version += 1;
        stage.and_then(|stage| change(live, stage)).map_err(|e| e.on(&self.restore))
    }

    /// Drops the stage if there is one and its phase allows it.
    fn remove(&self, allowed: impl FnOnce(&Phase) -> Result<()>) -> Result<()> {
        let mut state = self.store.lock();
        if let Some(stage) = state.stages.get(&self.restore) {
            allowed(&stage.phase).map_err(|e| e.on(&self.restore))?;
            state.stages.remove(&self.restore);
        }
        Ok(())
    }
}

async fn read(mut body: ByteStream, len: Option<u64>) -> Result<bytes::Bytes> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    if len.is_some_and(|len| len != bytes.len() as u64) {
        let what = format!("a body has {} bytes and not as many as were told", bytes.len());
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    Ok(bytes.into())
}
