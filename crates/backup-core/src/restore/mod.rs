//! Restoring: plan, stage, verify, switch, verify again, finish; or take everything back.

pub(crate) mod compare;
mod entries;
mod merge;
mod plan;
mod prepare;
mod preview;
mod references;
mod report;
mod resume;
mod run;
mod safety;
mod seen;
mod stage;
#[cfg(test)]
mod tests;
mod vectors;
mod versions;
mod way;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::StreamExt as _;

pub use self::{
    merge::{MergeExample, MergedCollection},
    plan::{PlannedArchive, PlannedStore, RestoreEstimate, RestorePlan},
    preview::Preview,
    report::{RestoreReport, RestoredReference, RestoredStore},
    vectors::{Embedder, Embedding, RestoredVector},
};
use self::{stage::Parts, way::Wishes};
use crate::{
    archive::{Archive, Salvage},
    cancel::Cancel,
    compat::VersionVerdict,
    conflict::Conflict,
    duplicates::DuplicateOptions,
    error::{Error, ErrorKind, Result},
    manifest::Manifest,
    select::{NameMap, Rewrite, Selection},
    stores::Stores,
    worker::Worker,
};

/// What to restore, and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    stores: Option<Vec<String>>,
    wishes: Wishes,
    journal_dir: Option<PathBuf>,
    other_application: bool,
    downgrade: bool,
    dangling: bool,
    safety: safety::Place,
    whole_safety: bool,
    avoid: Vec<PathBuf>,
    cancel: Cancel,
}

impl RestoreOptions {
    /// Everything that the archive holds, with the journal beside the archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only these stores.
    #[must_use]
    pub fn stores<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.stores = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Only this. Of a store that is not taken whole, what is taken is added to what the live
    /// store holds; nothing else there is touched.
    #[must_use]
    pub fn select(mut self, selection: Selection) -> Self {
        self.wishes.selection = selection;
        self
    }

    /// Other names for stores, collections, tables and roots: a restore beside, or into a test
    /// environment. Selections and conflict rules use the archive's names. A store in which
    /// collections get other names keeps what it holds.
    #[must_use]
    pub fn map(mut self, names: NameMap) -> Self {
        self.wishes.names = names;
        self
    }

    /// Other values in the records, after they were selected and migrated.
    #[must_use]
    pub fn rewrite(mut self, rewrite: Rewrite) -> Self {
        self.wishes.rewrite = rewrite;
        self
    }

    /// Adds the records to what the stores hold, instead of replacing it.
    #[must_use]
    pub fn merge(mut self) -> Self {
        self.wishes.merge = true;
        self
    }

    /// What becomes of records that are on both sides, where records are added to what a store
    /// holds: asked for by [`merge`](Self::merge), or because a [selection](Self::select) takes
    /// only a part, now or when the backup was taken. Without a rule the archive's overwrite.
    #[must_use]
    pub fn conflict(mut self, rule: Conflict) -> Self {
        self.wishes.conflict = Some(rule);
        self
    }

    /// As [`conflict`](Self::conflict), for one collection of the archive; it wins over that.
    #[must_use]
    pub fn conflict_in(
        mut self,
        store: impl Into<String>,
        collection: impl Into<String>,
        rule: Conflict,
    ) -> Self {
        self.wishes.conflicts.insert((store.into(), collection.into()), rule);
        self
    }

    /// Leaves out records that say what an earlier record of the same collection of the archive
    /// says under another key; `docs/DUPLICATES.md` tells which ways are safe for that.
    #[must_use]
    pub fn skip_duplicates(mut self, which: DuplicateOptions) -> Self {
        self.wishes.duplicates = Some(which);
        self
    }

    /// Leaves a vector of a collection of the archive out: records come without it, and a
    /// collection that is made has none. One that is live and added to keeps its own; a record that
    /// is written over loses that vector, as it loses what else the archive's does not have, unless
    /// the rule is to merge.
    #[must_use]
    pub fn drop_vector(
        mut self,
        store: impl Into<String>,
        collection: impl Into<String>,
        vector: impl Into<String>,
    ) -> Self {
        let place = (store.into(), collection.into());
        self.wishes.vectors.left_out.entry(place).or_default().insert(vector.into());
        self
    }

    /// Makes a vector of the texts of the records, by the model that the application uses now:
    /// where the archive's are of another model or dimension, or where there are none. A
    /// [preview](RestorePlan::preview) asks no model, and so takes no such record for equal to a
    /// live one.
    #[must_use]
    pub fn embed(mut self, embedding: Embedding) -> Self {
        self.wishes.vectors.embeddings.push(embedding);
        self
    }

    /// The folder of the journal and its lock. It must be on a disk that survives a crash.
    /// All restores into the same stores should use the same folder, since the lock there
    /// keeps them apart. By default the folder of the archive. The journal is removed at the
    /// end; the empty lock file, `restore.lock`, stays.
    #[must_use]
    pub fn journal_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.journal_dir = Some(dir.into());
        self
    }

    /// Before anything is touched, the live content of the stores that are replaced, and of those
    /// to which records are added the records that are changed, is backed up into a catalog in
    /// this folder; by default `before-restore` in the journal's folder. Nothing removes these
    /// backups. A store that is not there yet needs none.
    #[must_use]
    pub fn safety_backup(mut self, dir: impl Into<PathBuf>) -> Self {
        self.safety = safety::Place::In(dir.into());
        self
    }

    /// Backs up whole also the stores to which records are only added. By default only those
    /// records are kept that are changed, as they were; a restore of that archive brings them back,
    /// and records that are new stay. A restore of a whole backup brings all back as it was.
    #[must_use]
    pub fn whole_safety_backup(mut self, whole: bool) -> Self {
        self.whole_safety = whole;
        self
    }

    /// Restores without backing up first what is live. Until it is complete, the restore can
    /// be taken back all the same; afterwards what was live is gone.
    #[must_use]
    pub fn no_safety_backup(mut self) -> Self {
        self.safety = safety::Place::Nowhere;
        self
    }

    /// Paths that no store may touch, beside those of the other stores, of the archive and of
    /// the catalog that it lies in. Of a folder around a store, only what this library put
    /// there is left alone.
    #[must_use]
    pub fn avoid(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.avoid.extend(paths);
        self
    }

    /// Allows an archive of an application with another name.
    #[must_use]
    pub fn allow_other_application(mut self, allow: bool) -> Self {
        self.other_application = allow;
        self
    }

    /// Allows a newer patch of the application, a way back through
    /// [migrations](crate::Migrations), and native parts of a newer engine. What else a newer
    /// version wrote is let in by [policy](crate::VersionPolicy) only.
    #[must_use]
    pub fn allow_downgrade(mut self, allow: bool) -> Self {
        self.downgrade = allow;
        self
    }

    /// Goes on where more [references](crate::Stores::reference) dangle afterwards than in the
    /// archive, also where they are required; it is a warning then.
    #[must_use]
    pub fn allow_dangling(mut self, allow: bool) -> Self {
        self.dangling = allow;
        self
    }

    /// Stops the restore when asked to, and takes it back. Once every store is switched and
    /// proved, it is too late.
    #[must_use]
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }
}

type Open = Box<dyn Fn(&[String], &Cancel) -> Result<Parts> + Send + Sync>;

/// Where parts come from: an archive, and in tests anything else.
pub(crate) struct Origin {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) path: Option<PathBuf>,
    pub(crate) open: Open,
}

impl Origin {
    fn of(archive: &Archive) -> Self {
        let source = archive.clone();
        Self {
            manifest: Arc::new(archive.manifest().clone()),
            path: archive.path().map(Path::to_owned),
            open: Box::new(move |stores, cancel| Ok(source.stream(stores, cancel)?.boxed())),
        }
    }
}

impl Stores {
    /// Plans to restore what is whole in a damaged archive; the plan and the report
    /// [name](RestorePlan::lost) what is lost. Everything is read once to find out.
    ///
    /// A batch of records of which a vector is lost is lost, and so are records whose
    /// collection's description is. Where the archive's own description is lost, the kinds of
    /// the stores are taken to be those that are registered under their names.
    ///
    /// # Errors
    /// As [`plan_restore_with`](Self::plan_restore_with); an archive that does not say whose it
    /// is; nothing that is whole.
    pub async fn plan_salvage(
        &self,
        salvage: impl Into<Arc<Salvage>>,
        options: &RestoreOptions,
    ) -> Result<RestorePlan> {
        let salvage = salvage.into();
        let (inner, cancel) = (Arc::clone(&salvage), options.cancel.clone());
        let worker = Worker::spawn("backup-kit salvage", || Ok(()))?;
        let mut found = worker.call(move |()| inner.inventory(&cancel)).await?;
        if found.manifest.stores.is_empty() {
            let what = "nothing is whole that could be restored into a store";
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        for (name, store) in &mut found.manifest.stores {
            let sink = self.entry(options.wishes.names.store(name)).and_then(|e| e.sink.as_ref());
            if let (true, Some(sink)) = (store.kind.is_empty(), sink) {
                store.kind = sink.kind().to_owned();
            }
        }
        let path = salvage.path().map(Path::to_owned);
        let open: Open =
            Box::new(move |stores, cancel| Ok(salvage.stream(stores, cancel)?.boxed()));
        let origin = Origin { manifest: Arc::new(found.manifest), path, open };
        let mut plan = prepare::plan(self, origin, options).await?;
        plan.lost = Some(found.report);
        Ok(plan)
    }

    /// Plans to restore everything in `archive`; see
    /// [`plan_restore_with`](Self::plan_restore_with).
    ///
    /// # Errors
    /// As there.
    pub async fn plan_restore(&self, archive: &Archive) -> Result<RestorePlan> {
        self.plan_restore_with(archive, &RestoreOptions::new()).await
    }

    /// Plans a restore: reads the archive's manifest, checks that every store can take what
    /// it would be given, and touches nothing.
    ///
    /// # Errors
    /// A store that is not registered, or of another kind; another application's archive; a
    /// store that cannot be restored now.
    pub async fn plan_restore_with(
        &self,
        archive: &Archive,
        options: &RestoreOptions,
    ) -> Result<RestorePlan> {
        prepare::plan(self, Origin::of(archive), options).await
    }

    /// Whether the versions in an archive fit this application, why, and what to do next: what
    /// a restore will say, without the stores.
    #[must_use]
    pub fn verdict(&self, manifest: &Manifest) -> VersionVerdict {
        versions::verdict(self, manifest, &RestoreOptions::new())
    }

    /// Brings a restore that was interrupted to its end: forward where every store had
    /// been staged and proved and the switch had begun, else back. `None` where there is
    /// nothing to resume in `journal_dir`.
    ///
    /// The same stores must be registered under the same names. It may be called again
    /// after any failure, in any process.
    ///
    /// # Errors
    /// [`RepairNeeded`](crate::ErrorKind::RepairNeeded) where a store's content is neither
    /// the old nor the new; [`Locked`](crate::ErrorKind::Locked) where a restore is under
    /// way; a store that does not answer. The journal then stays.
    pub async fn resume(&self, journal_dir: impl AsRef<Path>) -> Result<Option<RestoreReport>> {
        resume::resume(self, journal_dir.as_ref()).await
    }
}
