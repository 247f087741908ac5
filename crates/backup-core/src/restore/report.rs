//! What a restore came to.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::merge::MergedCollection;
use crate::{archive::SalvageReport, clock::ArchiveId, part::Content, sink::Switch};

/// What a restore came to. There is none without a comparison: content that differs is an
/// error, and live content is then as before.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The restore's identity.
    pub restore_id: String,
    /// The archive's identity.
    pub archive: ArchiveId,
    pub(super) restored: bool,
    /// The stores, in the order in which they switched.
    pub stores: Vec<RestoredStore>,
    /// What was live before, as a backup of its own, if one was taken.
    pub safety_backup: Option<PathBuf>,
    /// What was lost of a damaged archive, and is not live. Not known to a
    /// [`resume`](crate::Stores::resume).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<SalvageReport>,
    /// What went on beside it: a pause that ran out, something that could not be removed.
    pub warnings: Vec<String>,
}

/// One store of a [`RestoreReport`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RestoredStore {
    /// Its name.
    pub name: String,
    /// How it switched.
    pub switch: Switch,
    /// What was read back from the live store, equal to what the archive holds or, where the
    /// plan changes it on the way, to what came of it; of a merge the records that were written.
    /// `None` where the restore was taken back.
    pub content: Option<Content>,
    /// How many records were left out because they say what an earlier one says, by collection
    /// of the archive. Not known to a [`resume`](crate::Stores::resume).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub repeated: BTreeMap<String, u64>,
    /// Of a merge, what became of the records, by collection. Not known to a
    /// [`resume`](crate::Stores::resume).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub merged: BTreeMap<String, MergedCollection>,
}

impl RestoreReport {
    /// Whether the archive's content is live. `false` only after a
    /// [`resume`](crate::Stores::resume) that took an unfinished restore back.
    #[must_use]
    pub fn restored(&self) -> bool {
        self.restored
    }
}
