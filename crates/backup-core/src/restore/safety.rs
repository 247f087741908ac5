//! A backup of what is live, before a restore touches it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    backup::{
        BackupOptions, Outcome,
        side::{Known, SideArchive},
    },
    cancel::Cancel,
    catalog::{self, Catalog},
    error::{Error, ErrorKind, Result},
    stores::{Entry, Stores},
    worker::guarded,
};

/// Where it goes, if nothing else is said: a folder beside the journal.
const FOLDER: &str = "before-restore";

/// Where safety backups go.
#[derive(Debug, Clone, Default)]
pub(super) enum Place {
    #[default]
    BesideTheJournal,
    In(PathBuf),
    Nowhere,
}

impl Place {
    pub(super) fn dir(&self, journal_dir: &Path) -> Option<PathBuf> {
        match self {
            Self::BesideTheJournal => Some(journal_dir.join(FOLDER)),
            Self::In(dir) => Some(dir.clone()),
            Self::Nowhere => None,
        }
    }
}

/// A safety backup that is to be taken.
pub(super) struct Safety {
    /// Those that are going to be touched.
    pub(super) stores: Stores,
    /// Of those to which records are added, the collections: only the records that are changed
    /// are kept, where the store gives records.
    pub(super) added_to: BTreeMap<String, Vec<String>>,
    pub(super) dir: PathBuf,
    /// What nobody may read meanwhile: the archive, the journal.
    pub(super) avoid: Vec<PathBuf>,
}

/// A safety backup that was taken.
pub(super) struct Kept {
    pub(super) path: Option<PathBuf>,
    pub(super) warning: Option<String>,
    /// Takes the records that are about to be changed.
    pub(super) undo: Option<SideArchive>,
}

impl Safety {
    /// Backs up what is live, as far as it is not kept record by record later.
    pub(super) async fn take(self, description: &str, cancel: &Cancel) -> Result<Kept> {
        let mut there = Vec::new();
        let mut known = Vec::new();
        for entry in &self.stores.entries {
            match guarded(&entry.name, entry.source.describe()).await {
                Ok(_) => match self.known(entry, cancel).await.map_err(failed)? {
                    Some(one) => known.push(one),
                    None => there.push(Arc::clone(entry)),
                },
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let mut kept = Kept { path: None, warning: None, undo: None };
        if !there.is_empty() {
            self.whole(there, description, cancel, &mut kept).await?;
        }
        if !known.is_empty() {
            let what = format!("records as they were {description}");
            let begun = SideArchive::begin(&self.stores, known, &self.dir, &what).await;
            kept.undo = Some(begun.map_err(failed)?);
        }
        Ok(kept)
    }

    // What of a store has to be known, so that only its changed records need be kept.
    async fn known(&self, entry: &Arc<Entry>, cancel: &Cancel) -> Result<Option<Known>> {
        let Some(collections) = self.added_to.get(&entry.name) else { return Ok(None) };
        let mut avoid = self.stores.owned_by_others(&entry.name);
        avoid.extend_from_slice(&self.avoid);
        Known::ask(entry, collections, avoid, cancel).await
    }

    async fn whole(
        &self,
        there: Vec<Arc<Entry>>,
        description: &str,
        cancel: &Cancel,
        kept: &mut Kept,
    ) -> Result<()> {
        let names: Vec<_> = there.iter().map(|entry| entry.name.clone()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let stores = self.stores.only(&names);
        let options =
            BackupOptions::new().description(description).avoid(self.avoid.clone()).cancel(cancel);
        let taken = async {
            let catalog = Catalog::open(&self.dir)?;
            stores.backup_with(&catalog, &options).await
        };
        let report = taken.await.map_err(failed)?;
        kept.path = report.path;
        kept.warning = match report.outcome {
            Outcome::Complete => None,
            Outcome::Partial(_) => Some(format!(
                "the safety backup is partial: {} of what was live is missing in it or in doubt",
                report.manifest.notice_count
            )),
        };
        Ok(())
    }
}

/// Removes what a safety backup that was interrupted left.
pub(super) fn sweep(dir: &Path) {
    if catalog::is_catalog(dir) {
        // One that cannot be removed harms nothing: it is never listed.
        let _ = Catalog::open(dir).and_then(|catalog| catalog.lock());
    }
}

fn failed(cause: Error) -> Error {
    if cause.kind() == ErrorKind::Cancelled {
        return cause;
    }
    Error::new(cause.kind(), "what is live could not be backed up before the restore")
        .because(cause)
        .advise("mend that; or, where what is live is not worth keeping, restore without a safety backup")
}
