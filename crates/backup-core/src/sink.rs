//! The writing half of an adapter.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    adapter::Adapter,
    cancel::Cancel,
    compat::VectorChanges,
    error::{Error, ErrorKind, Result},
    manifest::CollectionInfo,
    part::{Content, EntryPath, FileEntry, Part},
    record::{Key, RecordBatch},
};

/// Restores a store.
///
/// An adapter implements it; the restore engine calls it, in this order:
///
/// ```text
/// prepare ─ begin ─ write… ─ verify ─ commit ─ verify ─ finish
///                      └─ abort          └─ undo ─ finish
/// ```
///
/// Up to `commit` nothing that the application sees is changed. Between any two steps the
/// process may die; a new one calls [`reattach`](Sink::reattach) with the same token and
/// goes on. So every verb after `prepare` may be repeated, by another process, and then
/// does nothing more.
#[async_trait]
pub trait Sink: Adapter {
    /// Files and folders that a restore with this id makes, by name, before they are there.
    /// Other stores of the same restore are told to [avoid](StagePlan::avoid) them: a folder
    /// that is replaced may be around them.
    fn staging_paths(&self, _restore_id: &str) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Chooses the names of staging area and pre-image, and checks all that can be known
    /// before the first byte: space, permissions, versions, limits. Touches nothing.
    ///
    /// # Errors
    /// A restore that cannot succeed.
    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared>;

    /// Creates the staging area that the token names.
    ///
    /// Called again, the parts come again from the first on: what was staged may be kept or
    /// dropped.
    ///
    /// # Errors
    /// A store that cannot be reached or has no room.
    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>>;

    /// Changes a collection's document so that it recreates the collection with other vectors:
    /// without those that are left out, and with those that are made as they will be. Called
    /// before [`write`](SinkSession::write) of that schema, whose `info` says the same. By default
    /// the document stays: where it says nothing of vectors.
    ///
    /// # Errors
    /// A change that the store cannot have.
    fn revise_vectors(
        &self,
        _document: &mut serde_json::Value,
        _changes: &VectorChanges,
    ) -> Result<()> {
        Ok(())
    }

    /// Finds out, in a process that may be another one, how far the restore with this token
    /// came.
    ///
    /// # Errors
    /// A store that cannot be reached; the question is then still open.
    async fn reattach(&self, token: &StageToken) -> Result<Reattached>;
}

/// What a restore is going to write into one store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StagePlan {
    /// Unique for this restore; goes into the names of staging areas.
    pub restore_id: String,
    /// The store's name in the archive.
    pub store: String,
    /// The adapter that wrote the store's parts.
    pub kind: String,
    /// Replace the content, or add to it.
    pub mode: WriteMode,
    /// What the archive says of the content.
    pub content: Content,
    /// What the collections are to be, their vectors and model: what a store can
    /// [compare](crate::VectorDifferences) with what it has. Empty for native snapshots.
    #[serde(default)]
    pub info: BTreeMap<String, CollectionInfo>,
    /// The collections of which the restore changes vectors; `info` has them as they will be.
    #[serde(default)]
    pub vectors: BTreeMap<String, VectorChanges>,
    /// Bytes of the parts, uncompressed.
    pub bytes: u64,
    /// Paths that the restore must not touch: the archive, the catalog, other stores.
    pub avoid: Vec<PathBuf>,
}

/// Whether a restore replaces the content of a store or adds to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WriteMode {
    /// Afterwards the store holds what the archive holds, and nothing else.
    #[default]
    Replace,
    /// Records of the archive are added to those of the store.
    Merge,
}

/// The result of [`Sink::prepare`].
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Names everything that the restore will make.
    pub token: StageToken,
    /// How the switch happens.
    pub switch: Switch,
    /// For people: what will be replaced, what to expect.
    pub notes: Vec<String>,
}

/// How a sink switches from old to new; stores commit in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Switch {
    /// Entry by entry, journalled: readers may see a mixture meanwhile.
    Stepwise,
    /// At one moment, after a copy that takes time.
    AtomicCopy,
    /// At one moment, at once: a rename, an alias.
    AtomicPointer,
}

impl Switch {
    /// Whether readers see the old content or the new and never a mixture.
    #[must_use]
    pub const fn is_atomic(self) -> bool {
        !matches!(self, Self::Stepwise)
    }
}

/// Names what a restore makes in one store; journalled before it is made.
///
/// Made by [`StagePlan::token`] and read by [`read`](Self::read).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageToken {
    /// The adapter's kind, checked when another process reattaches.
    pub kind: String,
    /// The mode that was planned.
    pub mode: WriteMode,
    /// Whatever the adapter needs. Holds no secret.
    pub data: serde_json::Value,
}

/// How far a restore came.
pub enum Reattached {
    /// There is no staging area: it was never made, or is finished or aborted.
    Absent,
    /// Staged, perhaps not completely; live content is old.
    ///
    /// What had been verified can be verified again and committed. What had not, nobody
    /// knows to be whole: the sink may refuse to go on with it, and the caller aborts it, or
    /// begins again and writes from the first part on.
    Staged(Box<dyn SinkSession>),
    /// Live content is new; the pre-image is there.
    Committed(Box<dyn SinkSession>),
    /// Live content is old again; the pre-image is still there.
    Undone(Box<dyn SinkSession>),
    /// Live content is neither the old nor the new; both are kept.
    Unknown {
        /// What was found, and where the two are.
        reason: String,
    },
}

/// A restore into one store under way.
///
/// Dropping a session changes nothing: what is staged stays for `reattach`.
#[async_trait]
pub trait SinkSession: Send + Sync {
    /// The records of `keys` that the live store holds, whole and as a backup would carry
    /// them, in any order; vectors of unlike form make several batches. None for a collection
    /// that is not there. Only an adapter with the capability `merge` has it.
    ///
    /// A session that can remembers the answer, also that a key was free: where a record that
    /// [`commit`](Self::commit) is about to write has changed since, it refuses with
    /// [`Changed`](crate::ErrorKind::Changed). Where it cannot, the last writer wins, and
    /// [`Prepared::notes`] say so.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without the capability `merge`.
    async fn existing(&self, collection: &str, _keys: &[Key]) -> Result<Vec<RecordBatch>> {
        Err(no_merge().on(collection))
    }

    /// What the live store has at a path of a root, as a backup would carry it; `None` for
    /// nothing. As [`existing`](Self::existing), for entries, with the same promise for what was
    /// asked since the entry before was written. Bodies may be read until then, too.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) without the capability `merge`;
    /// [`Conflict`](crate::ErrorKind::Conflict) where no entry can be: what is there is none,
    /// or a folder above is something else.
    async fn existing_entry(&self, root: &str, _path: &EntryPath) -> Result<Option<FileEntry>> {
        Err(no_merge().on(root))
    }

    /// Writes a part into staging. May be called for several parts at once, but a schema
    /// comes alone and before its records, and entries of a root come in order; in merge mode
    /// one that is kept under another name comes in the place of the other.
    ///
    /// # Errors
    /// A part that the store refuses. The restore is then aborted.
    async fn write(&self, part: Part) -> Result<()>;

    /// Reads back what is staged, or after `commit` what is live, and tallies it. The
    /// caller compares. In merge mode these are the records that were staged, and after
    /// `commit` those same records as they are live; what else the store holds does not count.
    ///
    /// `expected` tells what to look for: collections, and which ranges of a blob are
    /// masked. An adapter may not copy figures from it.
    ///
    /// # Errors
    /// Content that cannot be read or is damaged.
    async fn verify(&self, expected: &Content) -> Result<Content>;

    /// Keeps the live content as the pre-image and makes the staged content live. In merge
    /// mode that is the content of the records that were staged and of no others; a collection
    /// that is not there is made.
    ///
    /// # Errors
    /// The live content is then still the old one, unless the error is
    /// [`RepairNeeded`](crate::ErrorKind::RepairNeeded).
    async fn commit(&self) -> Result<()>;

    /// Makes the pre-image live again.
    ///
    /// # Errors
    /// [`RepairNeeded`](crate::ErrorKind::RepairNeeded), naming where both contents are.
    async fn undo(&self) -> Result<()>;

    /// After `commit` or `undo`: drops pre-image and staging area.
    ///
    /// # Errors
    /// What could not be removed, named; live content is right all the same.
    async fn finish(&self) -> Result<()>;

    /// Before `commit`: removes the staging area without a trace.
    ///
    /// # Errors
    /// What could not be removed, named.
    async fn abort(&self) -> Result<()>;
}

impl StagePlan {
    /// A plan without content.
    #[must_use]
    pub fn new(
        restore_id: impl Into<String>,
        store: impl Into<String>,
        kind: impl Into<String>,
    ) -> Self {
        Self {
            restore_id: restore_id.into(),
            store: store.into(),
            kind: kind.into(),
            ..Self::default()
        }
    }

    /// Refuses what no adapter can do: the first thing in [`prepare`](Sink::prepare).
    ///
    /// # Errors
    /// A plan for another kind of store, or one to merge where the adapter cannot.
    pub fn check(&self, adapter: &(impl Adapter + ?Sized)) -> Result<()> {
        check_kind(adapter, &self.kind)?;
        if self.mode == WriteMode::Merge && !adapter.capabilities().merge {
            return Err(no_merge().on(&self.store));
        }
        Ok(())
    }

    /// The token of this plan, with whatever a later process needs to know.
    ///
    /// # Errors
    /// Data that JSON cannot hold, such as a path that is not Unicode.
    pub fn token(&self, data: &impl Serialize) -> Result<StageToken> {
        let data = serde_json::to_value(data).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "the names of a restore are not Unicode text")
                .because(e)
        })?;
        Ok(StageToken { kind: self.kind.clone(), mode: self.mode, data })
    }
}

impl StageToken {
    /// What [`StagePlan::token`] was given. The token may come from a journal that is
    /// damaged: names in it are still to be checked.
    ///
    /// # Errors
    /// A token of another kind of store, or one that holds something else.
    pub fn read<T: DeserializeOwned>(&self, adapter: &(impl Adapter + ?Sized)) -> Result<T> {
        check_kind(adapter, &self.kind)?;
        serde_json::from_value(self.data.clone()).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "the token of a restore cannot be read")
                .on(&self.kind)
                .because(e)
        })
    }
}

fn check_kind(adapter: &(impl Adapter + ?Sized), kind: &str) -> Result<()> {
    if kind == adapter.kind() {
        return Ok(());
    }
    let what = format!("a {} store cannot take what was backed up of another kind", adapter.kind());
    Err(Error::new(ErrorKind::Incompatible, what).on(kind))
}

fn no_merge() -> Error {
    Error::new(ErrorKind::Unsupported, "the store cannot be merged into")
        .advise("restore in replace mode, into another store if need be")
}

impl std::fmt::Debug for Reattached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::Staged(_) => f.write_str("Staged"),
            Self::Committed(_) => f.write_str("Committed"),
            Self::Undone(_) => f.write_str("Undone"),
            Self::Unknown { reason } => write!(f, "Unknown({reason})"),
        }
    }
}
