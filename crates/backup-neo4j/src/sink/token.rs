//! What another process has to know to go on with a restore.

use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// What the adapter's tokens hold; the rest stands in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) way: Way,
}

/// How a restore switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Nodes and relationships in one transaction.
    Once,
    /// In batches, each of which may be repeated.
    Batches,
}

impl Token {
    /// Refuses what no plan of this adapter has: the journal may be damaged.
    pub(crate) fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
        if !self.id.is_empty() && self.id.len() <= 100 && self.id.chars().all(plain) {
            return Ok(());
        }
        let what = "the token of a restore has an id that none has";
        Err(Error::new(ErrorKind::Corrupt, what).on(&self.id))
    }
}
