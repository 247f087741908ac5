//! What a restore came to.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Serialize;

use super::{merge::MergedCollection, vectors::RestoredVector};
use crate::{
    archive::SalvageReport, clock::ArchiveId, manifest::ReferenceCount, part::Content, sink::Switch,
};

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
    /// The references that the host declares, checked before the first store switched; none where
    /// a restore was resumed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<RestoredReference>,
    /// What was live before, as a backup of its own, if one was taken.
    pub safety_backup: Option<PathBuf>,
    /// Of stores to which records were added, an archive of the records that were changed, as they
    /// were; none where no record was. A restore of it brings them back; records that are new stay.
    pub undo: Option<PathBuf>,
    /// What was lost of a damaged archive, and is not live. Not known to a
    /// [`resume`](crate::Stores::resume).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<SalvageReport>,
    /// What went on beside it: a pause that ran out, something that could not be removed.
    pub warnings: Vec<String>,
}

/// What a restore made of a reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RestoredReference {
    /// Of the values that were restored, how many dangle: name no record that was restored or, of
    /// a store that keeps what it holds, is live.
    #[serde(flatten)]
    pub count: ReferenceCount,
    /// How many dangled in the archive, where it says so.
    pub in_archive: Option<u64>,
}

impl RestoredReference {
    /// Whether more values dangle than in the archive, as far as is known.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.count.dangling > Some(self.in_archive.unwrap_or(0))
    }
}

/// `state/notes:/point -> vectors/passages: 2 of 9 values dangle: 7, 8; none in the archive`
impl fmt::Display for RestoredReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count)?;
        match (self.count.dangling, self.in_archive) {
            (None | Some(0), _) => Ok(()),
            (_, None) => f.write_str("; the archive does not say how many of its own"),
            (_, Some(0)) => f.write_str("; none in the archive"),
            (_, Some(dangling)) => write!(f, "; {dangling} in the archive"),
        }
    }
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
    /// What became of vectors that were left out or made again, by collection and name. What was
    /// made is not known to a [`resume`](crate::Stores::resume).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub vectors: BTreeMap<String, BTreeMap<String, RestoredVector>>,
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
