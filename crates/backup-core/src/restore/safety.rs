//! A backup of what is live, before a restore touches it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    backup::{BackupOptions, Outcome},
    cancel::Cancel,
    catalog::{self, Catalog},
    error::{Error, ErrorKind, Result},
    stores::Stores,
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
    pub(super) dir: PathBuf,
    /// What nobody may read meanwhile: the archive, the journal.
    pub(super) avoid: Vec<PathBuf>,
}

/// A safety backup that was taken.
pub(super) struct Kept {
    pub(super) path: Option<PathBuf>,
    pub(super) warning: Option<String>,
}

impl Safety {
    /// Backs up what is live; `None` where nothing is there yet.
    pub(super) async fn take(mut self, description: &str, cancel: &Cancel) -> Result<Option<Kept>> {
        let mut there = Vec::new();
        for entry in &self.stores.entries {
            match guarded(&entry.name, entry.source.describe()).await {
                Ok(_) => there.push(Arc::clone(entry)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.stores.keep(there);
        if self.stores.entries.is_empty() {
            return Ok(None);
        }
        let options =
            BackupOptions::new().description(description).avoid(self.avoid).cancel(cancel);
        let taken = async {
            let catalog = Catalog::open(&self.dir)?;
            self.stores.backup_with(&catalog, &options).await
        };
        let report = taken.await.map_err(failed)?;
        let warning = match report.outcome {
            Outcome::Complete => None,
            Outcome::Partial(_) => Some(format!(
                "the safety backup is partial: {} of what was live is missing in it or in doubt",
                report.manifest.notice_count
            )),
        };
        Ok(Some(Kept { path: report.path, warning }))
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
