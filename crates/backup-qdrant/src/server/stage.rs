//! A restore into shadow collections, up to the switch.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backup_core::{
    Blob, BlobContent, Cancel, Content, Error, ErrorKind, Part, Result, Schema, SinkSession,
    async_trait,
    record::{Key, RecordBatch},
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    QdrantStore,
    client::{Client, point},
    keys::fits,
    options::QdrantOptions,
    scroll::Scroll,
    send::IN_FLIGHT,
    snapshots::Snapshots,
    taken::{Hashed, Native, file_name, recall, remembered},
    token::{Note, PREFIX, Target, Token, Was},
};
use crate::{answers::Answers, compare::differences, schema::Document, vectors::Vectors};

/// Whether a name is one that restores make.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What other restores left.
pub(super) fn left(collections: &[String], anchor: &str) -> Vec<String> {
    let other = |name: &&String| is_ours(name) && !name.starts_with(anchor);
    collections.iter().filter(other).cloned().collect()
}

pub(super) async fn leftovers(client: &Client) -> Result<Vec<String>> {
    let mut names = client.collections().await?;
    names.retain(|name| is_ours(name));
    // The anchor is the shortest name of a restore, and goes last.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    Ok(names)
}

/// A restore under way. All that another process has to know stands on the server.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) options: Arc<QdrantOptions>,
    pub(super) token: Arc<Token>,
    pub(super) cancel: Cancel,
    /// Requests with points that may be under way.
    pub(super) turns: Arc<Semaphore>,
    /// What collections are to be; where points are added, what they are.
    staged: Arc<Mutex<HashMap<String, Arc<Document>>>>,
    /// How many points collections of native snapshots are to have.
    expected: Arc<Mutex<HashMap<String, u64>>>,
    /// Collections that were made for native snapshots.
    made: Arc<tokio::sync::Mutex<BTreeSet<String>>>,
    pub(super) answers: Arc<Mutex<Answers>>,
}

impl Session {
    pub(super) fn new(store: &QdrantStore, token: Token, cancel: Cancel) -> Self {
        Self {
            client: store.client.clone(),
            options: Arc::clone(&store.options),
            token: Arc::new(token),
            cancel,
            turns: Arc::new(Semaphore::new(IN_FLIGHT)),
            staged: Arc::default(),
            expected: Arc::default(),
            made: Arc::default(),
            answers: Arc::default(),
        }
    }

    /// The same restore, for the way back: a restore that was cancelled is taken back.
    fn uncancelled(self) -> Self {
        Self { cancel: Cancel::new(), ..self }
    }

    pub(super) async fn on_runtime<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let work = work(self.clone());
        self.client.run(work).await
    }

    /// The notes, the latest last; `None`: the restore has no anchor.
    pub(super) async fn notes(&self) -> Result<Option<BTreeSet<Note>>> {
        self.on_runtime(|this| async move { this.read_notes().await }).await
    }

    pub(super) async fn read_notes(&self) -> Result<Option<BTreeSet<Note>>> {
        if !self.client.collections().await?.contains(&self.token.anchor) {
            return Ok(None);
        }
        let aliases = self.client.aliases().await?;
        let there = |note: &Note| aliases.contains_key(&self.token.note(*note));
        Ok(Some(Note::ALL.into_iter().filter(there).collect()))
    }

    /// Makes the anchor, and removes what an earlier beginning staged.
    pub(super) async fn begin(&self) -> Result<()> {
        self.on_runtime(|this| async move {
            match this.read_notes().await? {
                None => {
                    // The smallest collection there is.
                    let request = json!({
                        "vectors": {"size": 1, "distance": "Dot"},
                        "wal_config": {"wal_capacity_mb": 1},
                    });
                    this.client.create_collection(&this.token.anchor, request, &[]).await?;
                }
                Some(notes) if notes.iter().all(|note| *note == Note::Sealed) => {
                    this.set_notes(&[], Vec::new()).await?;
                    this.drop_own(|name| name != this.token.anchor).await?;
                }
                Some(_) => return Err(Error::out_of_order("begin", "it was committed already")),
            }
            Ok(())
        })
        .await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Document>>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self, collection: &str) -> Result<&Target> {
        self.token.targets.iter().find(|target| target.name == collection).ok_or_else(|| {
            let what = "the archive has a collection that was not planned";
            Error::new(ErrorKind::Corrupt, what).on(collection)
        })
    }

    /// Checks what a collection is to be.
    async fn announce(
        &self,
        name: &str,
        document: Document,
        model: Option<&str>,
    ) -> Result<Arc<Document>> {
        let target = self.target(name)?;
        let live = match target.was {
            Was::Free => None,
            _ => Some(self.client.settings(target.place()).await?),
        };
        if let Some(live) = &live {
            let vectors = Vectors {
                others: self.options.other_vectors,
                adds: self.token.adds_to(target),
                left_out: &target.left_out,
            };
            let live_model = self.options.model_of(&target.name);
            vectors.check_documents(&target.name, (&document, model), (live, live_model))?;
        }
        match live.filter(|_| self.token.adds_to(target)) {
            None => Ok(Arc::new(document)),
            Some(live) => {
                let keys = document.shard_keys.iter().map(|shards| &shards.key);
                fits(name, document.is_keyed().then_some(keys), &live)?;
                Ok(Arc::new(live))
            }
        }
    }

    async fn schema(&self, schema: Schema) -> Result<()> {
        let (document, model) = (Document::read(&schema)?, schema.info.model.as_deref());
        let staged = self.announce(&schema.collection, document, model).await?;
        self.make_shadow(self.target(&schema.collection)?, &staged).await?;
        self.lock().insert(schema.collection, staged);
        Ok(())
    }

    async fn make_shadow(&self, target: &Target, document: &Document) -> Result<()> {
        let request = if self.token.adds_to(target) {
            document.scratch_request()
        } else {
            // Vectors are indexed once all have come.
            let mut request = document.create_request();
            request["optimizers_config"]["indexing_threshold"] = 0.into();
            request
        };
        let made = self.client.create_collection(&target.shadow, request, &document.shard_keys);
        made.await.map_err(|error| error.on(&target.name))
    }

    /// Recovers a native snapshot into its shadow.
    async fn native(&self, blob: Blob) -> Result<()> {
        if self.token.merge {
            let what = "a native snapshot cannot be merged into a collection";
            return Err(Error::new(ErrorKind::Unsupported, what).on(&blob.name));
        }
        let native = Native::read(&blob.name, &blob.metadata)?;
        let model = native.model.as_deref();
        let staged = self.announce(&native.collection, native.document, model).await?;
        let target = self.target(&native.collection)?;
        let place = self.place_of(target, native.shard, &staged).await?;
        let content = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&content);
        let expected = blob.len;
        let name = blob.name.clone();
        let body = Hashed::new(blob.body, move |len, digest| {
            if expected.is_some_and(|expected| expected != len) {
                let what = format!("a native snapshot has {len} bytes and not as many as told");
                return Err(Error::new(ErrorKind::Corrupt, what).on(&name));
            }
            let found = BlobContent { len, digest, masked: Vec::new() };
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            Ok(())
        });
        let checksum = native.checksum.as_deref();
        place.recover(&self.token.anchor, body.boxed(), blob.len, checksum).await?;
        let content = content.lock().unwrap_or_else(PoisonError::into_inner).take();
        let content = content.ok_or_else(|| {
            let what = "the server did not read a snapshot to its end";
            Error::new(ErrorKind::Mismatch, what).on(&blob.name)
        })?;
        self.wait_for_green(&target.shadow).await?;
        let remembered = remembered(native.shard, &content);
        let alias = format!("{}{remembered}", self.token.native());
        self.client.change_aliases(vec![point(&alias, &target.shadow)]).await?;
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.extend(native.points.map(|points| (target.name.clone(), points)));
        drop(expected);
        self.lock().insert(target.name.clone(), staged);
        Ok(())
    }

    /// Where a native snapshot is recovered.
    async fn place_of(
        &self,
        target: &Target,
        shard: Option<u64>,
        document: &Document,
    ) -> Result<Snapshots> {
        // Recovered into a free name a snapshot brings no shard keys, and so no points; that of a
        // shard makes no collection; and one that is made may lie elsewhere.
        let peers = self.client.has_peers().await?;
        if peers || shard.is_some() || document.is_keyed() {
            let mut made = self.made.lock().await;
            if made.insert(target.name.clone()) {
                self.make_shadow(target, document).await?;
            }
        }
        let Some(number) = shard else {
            if peers && !self.client.is_whole_here(&target.shadow).await? {
                let what = "the snapshot of a whole collection cannot be recovered on a cluster of \
                            several servers";
                return Err(Error::new(ErrorKind::Unsupported, what).on(&target.name).advise(
                    "restore it to a server that runs alone, and a backup of that to the cluster",
                ));
            }
            return Ok(self.client.snapshots(&target.shadow));
        };
        let refused = |why: String| {
            let what = "the snapshot of a shard cannot be recovered on the servers that are named";
            Error::new(ErrorKind::Unsupported, what).on(&target.name).because(why).advise(
                "name the other servers of the cluster with `peers`, or restore to a server that \
                 runs alone",
            )
        };
        let shards = self.client.placed(&target.shadow).await?.map_err(refused)?;
        let shard = shards.iter().find(|shard| shard.number == number);
        let shard = shard.ok_or_else(|| {
            let what = format!("the restored collection has no shard {number}");
            Error::new(ErrorKind::Incompatible, what).on(&target.name)
        })?;
        Ok(shard.snapshots(&target.shadow))
    }

    /// Length and hash of a native file that a collection was restored from.
    async fn native_content(&self, target: &Target, shard: Option<u64>) -> Result<BlobContent> {
        let aliases = self.client.aliases().await?;
        let prefix = self.token.native();
        let mut own = aliases.iter().filter(|(_, to)| **to == target.shadow);
        let content = own.find_map(|(alias, _)| recall(alias.strip_prefix(&prefix)?, shard));
        content.ok_or_else(|| interrupted("staging was interrupted", &target.name))
    }

    async fn records(&self, batch: RecordBatch) -> Result<()> {
        let target = self.target(batch.collection())?;
        let staged = self.lock().get(batch.collection()).cloned();
        let staged = staged.ok_or_else(|| {
            interrupted("records came without the collection's description", batch.collection())
        })?;
        self.send(&target.shadow, &staged, &batch).await.map_err(|error| error.on(&target.name))
    }

    /// Ends staging: indexes, settings, aliases; then compares with what the archive asks for.
    /// The notes afterwards.
    pub(super) async fn seal(&self) -> Result<BTreeSet<Note>> {
        match self.read_notes().await? {
            Some(notes) if notes.is_empty() => {}
            Some(notes) => return Ok(notes),
            None => return Err(Error::out_of_order("verify", "nothing is staged")),
        }
        let staged = self.lock().clone();
        if let Some(target) = self.token.targets.iter().find(|t| !staged.contains_key(&t.name)) {
            return Err(interrupted("staging was interrupted", &target.name));
        }
        let mut wishes = Vec::new();
        for target in self.token.targets.iter().filter(|target| !self.token.adds_to(target)) {
            let document = &staged[&target.name];
            self.finish_collection(&target.shadow, document)
                .await
                .map_err(|error| error.on(&target.name))?;
            self.check_count(target).await?;
            // What is live stays in a merge, aliases too.
            let stays =
                |alias: &&String| self.token.merge && self.token.aliases.contains_key(*alias);
            let aliases = document.aliases.iter().filter(|alias| !stays(alias));
            wishes.extend(aliases.map(|alias| point(&self.token.wish(alias), &target.shadow)));
        }
        self.set_notes(&[Note::Sealed], wishes).await?;
        Ok(BTreeSet::from([Note::Sealed]))
    }

    /// Refuses native snapshots that gave another number of points.
    async fn check_count(&self, target: &Target) -> Result<()> {
        let expected = {
            let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            expected.get(&target.name).copied()
        };
        let Some(expected) = expected else { return Ok(()) };
        let found = self.client.count(&target.shadow).await?;
        if found == expected {
            return Ok(());
        }
        let what = format!("native snapshots gave {found} points instead of {expected}");
        Err(Error::new(ErrorKind::Mismatch, what).on(&target.name))
    }

    async fn finish_collection(&self, shadow: &str, document: &Document) -> Result<()> {
        // A native snapshot brings its own.
        let is = self.client.settings(shadow).await?.payload_indexes;
        let mut missing = document.payload_indexes.clone();
        missing.retain(|field, _| !is.contains_key(field));
        self.create_indexes(shadow, &missing).await?;
        // What holds back indexing until now.
        let asked = document.config.pointer("/optimizer_config/indexing_threshold");
        let threshold = asked.cloned().unwrap_or_default();
        let body = json!({"optimizers_config": {"indexing_threshold": threshold}});
        self.client.rest.patch(&["collections", shadow], body).long().send().await?;
        self.wait_for_green(shadow).await?;
        let is = self.client.settings(shadow).await?;
        let mut differ = differences(&document.config, &is.config, "");
        for (field, index) in &document.payload_indexes {
            let is = is.payload_indexes.get(field).unwrap_or(&Value::Null);
            differ.extend(differences(index, is, &format!("/payload_indexes/{field}")));
        }
        if is.shard_keys != document.shard_keys {
            differ.push("/shard_keys are others".to_owned());
        }
        if differ.is_empty() || self.options.other_settings {
            return Ok(());
        }
        let what = "the server did not take the collection's settings as they are in the archive";
        Err(Error::new(ErrorKind::Incompatible, what).on(differ.join("; ")).advise(
            "restore to a server of the version that the archive names, or accept what this \
                 one makes of them with `accept_other_settings`",
        ))
    }

    pub(super) async fn create_indexes(
        &self,
        collection: &str,
        indexes: &BTreeMap<String, Value>,
    ) -> Result<()> {
        for (field, index) in indexes {
            let body = json!({"field_name": field, "field_schema": index});
            let call = self.client.rest.put(&["collections", collection, "index"], body);
            call.query("wait", "true").long().send().await?;
        }
        Ok(())
    }

    pub(super) async fn wait_for_green(&self, collection: &str) -> Result<()> {
        let mut pause = Duration::from_millis(20);
        let deadline = std::time::Instant::now() + self.client.rest.patience();
        loop {
            self.cancel.check()?;
            let info = self.client.info(collection).await?;
            match info["status"].as_str() {
                // Grey: the server waits with it for the next write.
                Some("green" | "grey") => return Ok(()),
                Some("red") => {
                    let said = info["optimizer_status"].to_string();
                    let what = "Qdrant cannot index the restored collection";
                    return Err(Error::new(ErrorKind::Io, what).because(said));
                }
                _ if std::time::Instant::now() > deadline => {
                    let what = "Qdrant did not finish indexing in time";
                    return Err(Error::new(ErrorKind::Busy, what)
                        .advise("try again, with a longer `snapshot_timeout`"));
                }
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn tallies(&self, live: bool) -> Result<Content> {
        let mut content = Content::new();
        for target in &self.token.targets {
            self.cancel.check()?;
            if live && self.token.merge {
                let tally = self.tally_merged(target).await;
                let tally = tally.map_err(|error| error.on(&target.name))?;
                content.collections.insert(target.name.clone(), tally);
                continue;
            }
            let place = if live { &target.name } else { &target.shadow };
            if target.native {
                let whole = self.client.count(&target.shadow).await?;
                if live && self.client.count(place).await? != whole {
                    let what = "the live collection has not as many points as what was restored";
                    return Err(Error::new(ErrorKind::Mismatch, what).on(&target.name));
                }
                for shard in target.files() {
                    let found = self.native_content(target, shard).await?;
                    content.blobs.insert(file_name(&target.name, shard), found);
                }
                continue;
            }
            let document = self.client.settings(place).await?;
            let scroll = Scroll::start(&self.client, place, &target.name, &document)?;
            let tally = scroll.tally().await.map_err(|error| error.on(&target.name))?;
            content.collections.insert(target.name.clone(), tally);
        }
        Ok(content)
    }

    /// Removes those of the restore's own collections that `unwanted` picks, the anchor last.
    pub(super) async fn drop_own(&self, unwanted: impl Fn(&str) -> bool) -> Result<()> {
        let there = self.client.collections().await?;
        for name in self.token.own().into_iter().filter(|name| unwanted(name)) {
            if there.iter().any(|known| known == name) {
                self.client.drop_collection(name).await?;
            }
        }
        Ok(())
    }
}

fn interrupted(what: &str, collection: &str) -> Error {
    Error::new(ErrorKind::Unfinished, what)
        .on(collection)
        .advise("begin the restore again, or abort it")
}

#[async_trait]
impl SinkSession for Session {
    async fn existing(&self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        self.cancel.check()?;
        let (collection, keys) = (collection.to_owned(), keys.to_vec());
        self.on_runtime(|this| async move { this.look_up(&collection, &keys).await }).await
    }

    async fn write(&self, part: Part) -> Result<()> {
        self.cancel.check()?;
        match part {
            Part::Schema(schema) => {
                self.on_runtime(|this| async move { this.schema(schema).await }).await
            }
            Part::Records(batch) => {
                self.on_runtime(|this| async move { this.records(batch).await }).await
            }
            Part::Blob(blob) => {
                self.on_runtime(|this| async move { this.native(blob).await }).await
            }
            Part::End(_) | Part::Notice(_) => Ok(()),
            other => Err(other.refused_by("a Qdrant server")),
        }
    }

    async fn verify(&self, _: &Content) -> Result<Content> {
        self.cancel.check()?;
        self.on_runtime(|this| async move {
            let notes = this.seal().await?;
            this.tallies(notes.contains(&Note::Committed)).await
        })
        .await
    }

    async fn commit(&self) -> Result<()> {
        self.on_runtime(|this| async move { this.switch().await }).await
    }

    async fn undo(&self) -> Result<()> {
        self.on_runtime(|this| async move { this.uncancelled().switch_back().await }).await
    }

    async fn finish(&self) -> Result<()> {
        self.on_runtime(|this| async move { this.uncancelled().end().await }).await
    }

    async fn abort(&self) -> Result<()> {
        self.on_runtime(|this| async move { this.uncancelled().give_up().await }).await
    }
}
