//! How a backup is taken, and what it came to.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    archive::WriterOptions,
    cancel::Cancel,
    clock::ArchiveId,
    manifest::{Manifest, StoreNotice},
    record::Sha256Digest,
    select::Selection,
};

/// What becomes of stores that cannot fix a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LivePolicy {
    /// The application stays paused until they are copied. Needs a
    /// [`Quiesce`](crate::Quiesce), and is the default where there is one.
    HoldPause,
    /// They are read while they may change, and the manifest says so. The default where the
    /// application cannot be paused.
    AcceptFuzzy,
    /// The backup is refused.
    Fail,
}

/// What to back up, and how.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    pub(super) description: Option<String>,
    pub(super) stores: Option<Vec<String>>,
    pub(super) selection: Selection,
    pub(super) live: Option<LivePolicy>,
    pub(super) writer: WriterOptions,
    pub(super) parallel: usize,
    pub(super) overwrite: bool,
    pub(super) sha256_file: bool,
    pub(super) system_info: bool,
    pub(super) spool_dir: PathBuf,
    pub(super) avoid: Vec<PathBuf>,
    pub(super) cancel: Cancel,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            description: None,
            stores: None,
            selection: Selection::new(),
            live: None,
            writer: WriterOptions::default(),
            parallel: 4,
            overwrite: false,
            sha256_file: false,
            system_info: false,
            spool_dir: std::env::temp_dir(),
            avoid: Vec::new(),
            cancel: Cancel::new(),
        }
    }
}

impl BackupOptions {
    /// Everything, in gzip.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the user says of this backup.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Only these stores.
    #[must_use]
    pub fn stores<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.stores = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Only these stores, collections and records. The manifest says so, and a restore of such an
    /// archive leaves what was not selected as it is.
    ///
    /// ```
    /// use backup_core::{BackupOptions, Catalog, MemoryStore, Selection, Stores};
    /// use serde_json::json;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # futures::executor::block_on(async {
    /// let state = MemoryStore::new();
    /// state.insert("notes", 1, json!({"lang": "en"}))?;
    /// state.insert("notes", 2, json!({"lang": "de"}))?;
    ///
    /// let options = BackupOptions::new().select(Selection::parse(["/lang=de"])?);
    /// let stores = Stores::new("docs", "1.0.0").with("state", state);
    /// let report = stores.backup_with(&Catalog::open(folder.path())?, &options).await?;
    ///
    /// let notes = &report.manifest.stores["state"].collections["notes"];
    /// assert_eq!((notes.tally.records, notes.selected_from), (1, Some(2)));
    /// assert_eq!(report.manifest.selection, ["/lang=de"]);
    /// # Ok::<(), backup_core::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn select(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// What becomes of stores that cannot fix a moment.
    #[must_use]
    pub fn live_policy(mut self, policy: LivePolicy) -> Self {
        self.live = Some(policy);
        self
    }

    /// Codec, level, memory and threads of the archive writer.
    #[must_use]
    pub fn writer(mut self, options: WriterOptions) -> Self {
        self.writer = options;
        self
    }

    /// How many partitions are read at the same time: 4 by default, at least 1. The order of
    /// the parts in the archive depends on it.
    #[must_use]
    pub fn parallel(mut self, partitions: usize) -> Self {
        self.parallel = partitions.max(1);
        self
    }

    /// Replaces a file that is there.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Writes `<archive>.sha256` beside the archive, for `sha256sum -c`.
    #[must_use]
    pub fn sha256_file(mut self, write: bool) -> Self {
        self.sha256_file = write;
        self
    }

    /// Records operating system and processor architecture in the manifest.
    #[must_use]
    pub fn system_info(mut self, record: bool) -> Self {
        self.system_info = record;
        self
    }

    /// Where native snapshots of unknown length wait until it is known; by default the
    /// system's folder for temporary files. Nothing stays there.
    #[must_use]
    pub fn spool_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.spool_dir = dir.into();
        self
    }

    /// Paths that no store may read, beside those of the other stores and of the archive. Of a
    /// folder around a store, only what this library put there is left out.
    #[must_use]
    pub fn avoid(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.avoid.extend(paths);
        self
    }

    /// Stops the backup when asked to, between two pieces; nothing is left behind.
    #[must_use]
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BackupReport {
    /// The file, if it is one.
    pub path: Option<PathBuf>,
    /// The archive's identity.
    pub id: ArchiveId,
    /// Length of the archive in bytes.
    pub size: u64,
    /// SHA-256 of the archive.
    pub sha256: Sha256Digest,
    /// What the archive says of itself.
    pub manifest: Manifest,
    /// Whether everything is in it.
    pub outcome: Outcome,
}

/// Whether everything that was asked for is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is.
    Complete,
    /// It is not, or something is in doubt: the first thousand reasons.
    Partial(Vec<StoreNotice>),
}

impl Outcome {
    /// Whether everything is in the backup.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::Complete
    }
}
