//! The writing half of an adapter with a fault.

use std::sync::Mutex;

use backup_core::{
    Adapter, Blob, ByteStream, Cancel, Content, EntryKind, EntryPath, Error, ErrorKind, FileEntry,
    MemorySnapshot, Part, Prepared, Reattached, Result, Schema, Sink, SinkSession, StagePlan,
    StageToken, WriteMode, async_trait, byte_stream,
    record::{Key, RecordBatch},
};
use futures::StreamExt;
use serde_json::json;

use super::{Fault as F, Store};

struct Session {
    store: Store,
    inner: Box<dyn SinkSession>,
    // It was found again by `reattach`.
    later: bool,
    written: Mutex<usize>,
    last_key: Mutex<Option<Key>>,
    // The store when it was asked for what exists.
    seen: Mutex<Option<MemorySnapshot>>,
}

#[async_trait]
impl Sink for Store {
    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        let mut plan = plan.clone();
        match self.fault {
            F::PrepareMakesFolder => self.leave("folder"),
            F::TakesAnyKind => plan.kind = self.kind().to_owned(),
            F::SharesStaging => plan.restore_id = "the only one".to_owned(),
            F::AddsInsteadOfReplacing => plan.mode = WriteMode::Merge,
            F::ReplacesInsteadOfMerging => plan.mode = WriteMode::Replace,
            _ => {}
        }
        self.place.store.prepare(&plan).await
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        let cancel =
            if self.has(F::WritesOnWhenCancelled) { Cancel::new() } else { cancel.clone() };
        let inner = self.place.store.begin(&self.token(token), &cancel).await?;
        Ok(self.session(inner, false))
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let token = self.token(token);
        let found = self.place.store.reattach(&token).await?;
        Ok(match found {
            Reattached::Staged(inner) if self.has(F::StartsAgain) => {
                inner.abort().await?;
                let inner = self.place.store.begin(&token, &Cancel::new()).await?;
                Reattached::Staged(self.session(inner, true))
            }
            _ if self.has(F::ForgetsRestores) => Reattached::Absent,
            Reattached::Staged(inner) => Reattached::Staged(self.session(inner, true)),
            Reattached::Committed(inner) => Reattached::Committed(self.session(inner, true)),
            Reattached::Undone(inner) => Reattached::Undone(self.session(inner, true)),
            other => other,
        })
    }
}

impl Store {
    fn session(&self, inner: Box<dyn SinkSession>, later: bool) -> Box<dyn SinkSession> {
        Box::new(Session {
            store: self.clone(),
            inner,
            later,
            written: Mutex::default(),
            last_key: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    fn token(&self, token: &StageToken) -> StageToken {
        let mut token = token.clone();
        match self.fault {
            F::TakesAnyKind => token.kind = self.kind().to_owned(),
            F::TakesAnyToken if token.data["restore"].as_str().is_none() => {
                token.data = json!({"restore": "default"});
            }
            _ => {}
        }
        token
    }
}

fn once_only(count: &mut usize) -> Result<()> {
    *count += 1;
    if *count == 1 { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, "it is gone already")) }
}

#[async_trait]
impl SinkSession for Session {
    async fn existing(&self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        let live = &self.store.place.store;
        match self.store.fault {
            F::FindsNothingExisting => return self.inner.existing(collection, &[]).await,
            F::WantsCollections if !live.content().collections.contains_key(collection) => {
                return Err(Error::new(ErrorKind::NotFound, "there is no such collection"));
            }
            F::ForgetsAnswers => {
                let token = live.prepare(&StagePlan::new("x", "x", "broken")).await?.token;
                let other = live.begin(&token, &Cancel::new()).await?;
                let answer = other.existing(collection, keys).await;
                return other.abort().await.and(answer);
            }
            F::SeesAnyChange => *self.seen.lock().unwrap() = Some(live.snapshot()),
            _ => {}
        }
        self.inner.existing(collection, keys).await
    }

    async fn existing_entry(&self, root: &str, path: &EntryPath) -> Result<Option<FileEntry>> {
        match self.store.fault {
            F::FindsNothingExisting => Ok(None),
            F::ForgetsAnswers => {
                let live = &self.store.place.store;
                let token = live.prepare(&StagePlan::new("x", "x", "broken")).await?.token;
                let other = live.begin(&token, &Cancel::new()).await?;
                let answer = other.existing_entry(root, path).await;
                other.abort().await.and(answer)
            }
            F::SeesAnyChange => {
                let live = &self.store.place.store;
                *self.seen.lock().unwrap() = Some(live.snapshot());
                self.inner.existing_entry(root, path).await
            }
            _ => self.inner.existing_entry(root, path).await,
        }
    }

    async fn write(&self, mut part: Part) -> Result<()> {
        *self.written.lock().unwrap() += 1;
        match (self.store.fault, &mut part) {
            (F::FoldsCase, Part::Schema(schema)) => {
                schema.collection = schema.collection.to_lowercase();
            }
            (F::FoldsCase, Part::Records(batch)) => {
                let name = batch.collection().to_lowercase();
                *batch = RecordBatch::from_lines(name, batch.text().clone())?;
            }
            (F::LosesSchemas, Part::Schema(schema)) => schema.document = json!({}),
            (F::TrustsSchemas, Part::Schema(schema)) => {
                assert!(schema.document.is_object(), "a schema is always an object");
            }
            (F::TakesRecordsWithoutSchema, Part::Records(batch))
                if *self.written.lock().unwrap() == 1 =>
            {
                let collection = batch.collection().to_owned();
                let schema = Schema { collection, document: json!({}), info: Default::default() };
                self.inner.write(Part::Schema(schema)).await?;
            }
            (F::NeedsOrder, Part::Records(batch)) => {
                let mut last = self.last_key.lock().unwrap();
                let key = batch.get(0).key();
                if last.as_ref().is_some_and(|last| *last >= key) {
                    return Ok(());
                }
                *last = Some(key);
            }
            (F::TakesBrokenBodies | F::TakesAnyLength, part) => {
                let swallow = self.store.has(F::TakesBrokenBodies);
                if let Part::Blob(Blob { len: Some(len), body, .. })
                | Part::Entry(FileEntry { kind: EntryKind::File { len, body }, .. }) = part
                {
                    let mut bytes = read(body, swallow).await?;
                    if swallow {
                        bytes.resize(usize::try_from(*len).unwrap(), 0);
                    }
                    (*len, *body) = (bytes.len() as u64, byte_stream(bytes));
                }
            }
            (F::LeaksDroppedWrites, _) => {
                self.store.leave("being written");
                let written = self.inner.write(part).await;
                self.store.own(|own| own.leftovers.pop());
                return written;
            }
            _ => {}
        }
        match self.inner.write(part).await {
            Err(error) if self.store.has(F::FollowsLinks) && error.kind() == ErrorKind::Hostile => {
                Ok(())
            }
            written => written,
        }
    }

    async fn verify(&self, expected: &Content) -> Result<Content> {
        match self.store.fault {
            F::CopiesExpected => return Ok(expected.clone()),
            F::StartsAgain if self.later => return Ok(expected.clone()),
            F::CommitsOnVerify => self.inner.commit().await?,
            F::TalliesTheWhole if self.store.own(|own| own.commits) > 0 => {
                return Ok(self.store.place.store.content());
            }
            _ => {}
        }
        self.inner.verify(expected).await
    }

    async fn commit(&self) -> Result<()> {
        let nothing = *self.written.lock().unwrap() == 0;
        match self.store.fault {
            F::KeepsOldWhenEmpty if nothing => return Ok(()),
            F::CannotCommitLater if self.later => {
                return Err(Error::new(ErrorKind::NotFound, "it is gone already"));
            }
            _ => {}
        }
        let seen = self.seen.lock().unwrap().take();
        if seen.is_some_and(|seen| seen != self.store.place.store.snapshot()) {
            return Err(Error::new(ErrorKind::Changed, "something was changed"));
        }
        self.store.own(|own| own.commits += 1);
        self.inner.commit().await
    }

    async fn undo(&self) -> Result<()> {
        let (commits, undos) = self.store.own(|own| {
            own.undos += 1;
            (own.commits, own.undos)
        });
        match self.store.fault {
            F::UndoDoesNothing => return Ok(()),
            F::SecondCommitForgetsOld if commits > 1 => return Ok(()),
            F::SecondUndoEmpties if undos > 1 => self.store.place.store.clear(),
            _ => {}
        }
        self.inner.undo().await
    }

    async fn finish(&self) -> Result<()> {
        match self.store.fault {
            F::FinishLeavesOld => self.store.leave("pre-image"),
            F::SecondFinishFails => self.store.own(|own| once_only(&mut own.finishes))?,
            F::KeepsOldWhenEmpty if self.inner.finish().await.is_err() => {
                return self.inner.abort().await;
            }
            _ => {}
        }
        self.inner.finish().await
    }

    async fn abort(&self) -> Result<()> {
        match self.store.fault {
            F::AbortLeavesStaging => return Ok(()),
            F::CannotAbortLater if self.later => return Ok(()),
            F::SecondAbortFails => self.store.own(|own| once_only(&mut own.aborts))?,
            _ => {}
        }
        self.inner.abort().await
    }
}

async fn read(body: &mut ByteStream, swallow: bool) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(_) if swallow => break,
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
