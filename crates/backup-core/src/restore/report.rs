//! What a restore came to.

use serde::Serialize;

use crate::{clock::ArchiveId, part::Content, sink::Switch};

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
    /// What was read back from the live store, equal to what the archive holds; `None` where
    /// the restore was taken back.
    pub content: Option<Content>,
}

impl RestoreReport {
    /// Whether the archive's content is live. `false` only after a
    /// [`resume`](crate::Stores::resume) that took an unfinished restore back.
    #[must_use]
    pub fn restored(&self) -> bool {
        self.restored
    }
}
