//! Migrations: what leads the data of one version of an application to another.
//!
//! Pure: the restore asks for a [path](MigrationPath) and calls it for every schema and batch.

mod change;
mod path;
mod pointer;
mod registry;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::json;

pub use self::{
    change::{Change, Transform},
    path::MigrationPath,
    registry::Migrations,
};
pub(crate) use self::{pointer::Pointer, registry::Route};
use crate::{
    error::Result,
    record::{Sha256Digest, canonical},
};

/// What leads the data of one version of an application to that of a later one.
///
/// The way back is made of the inverse of every [`Change`]; a migration without changes only
/// says that the later version reads the earlier one's data as it is, and the other way round.
///
/// ```
/// use backup_core::{Change, Migration, Migrations};
/// use serde_json::json;
///
/// let migrations = Migrations::new([
///     Migration::new("1.3.0", "1.4.0")
///         .describe("a note's title is its name")
///         .change(Change::rename("state", "notes", "/title", "/name")),
///     Migration::new("1.4.0", "2.0.0")
///         .describe("notes have a language; ranks count from one")
///         .change(Change::set_default("state", "notes", "/lang", json!("en")))
///         .change(Change::values("state", "notes", "rank from one", |note| {
///             let rank = note["rank"].as_u64().unwrap_or(0);
///             note["rank"] = json!(rank + 1);
///             Ok(())
///         })),
/// ])?;
/// assert!(migrations.available()[0].reversible);
/// assert!(!migrations.available()[1].reversible);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Migration {
    from: String,
    to: String,
    description: String,
    warnings: Vec<String>,
    changes: Vec<Change>,
}

impl Migration {
    /// A migration without changes, from the version that the data has to a later one.
    #[must_use]
    pub fn new(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            description: String::new(),
            warnings: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// What it is for, in one clause.
    #[must_use]
    pub fn describe(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// What a user should weigh before going this way.
    #[must_use]
    pub fn warn(mut self, warning: impl Into<String>) -> Self {
        self.warnings.push(warning.into());
        self
    }

    /// Adds a change; they are made in the order in which they were added.
    #[must_use]
    pub fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    // The changes of the way back, in the order in which they are made.
    fn back(&self) -> Option<Vec<Change>> {
        self.changes.iter().rev().map(Change::inverse).collect()
    }

    // Over what it does: a better description is the same migration.
    fn checksum(&self) -> Result<Sha256Digest> {
        let changes: Vec<_> = self.changes.iter().map(Change::canonical).collect();
        let value = json!({"from": self.from, "to": self.to, "changes": changes});
        let mut text = Vec::new();
        canonical::Writer::new(&mut text).value(&value)?;
        Ok(Sha256Digest::of(&text))
    }
}

/// A migration as it is shown; on a path, the way it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MigrationInfo {
    /// The version that the data has.
    pub from: String,
    /// The version that it gets.
    pub to: String,
    /// What it is for.
    pub description: String,
    /// What to weigh before going this way.
    pub warnings: Vec<String>,
    /// SHA-256 over the canonical JSON of versions and changes; code of the host's own counts
    /// with its name.
    pub checksum: Sha256Digest,
    /// Whether there is a way back.
    pub reversible: bool,
    /// Whether this is the way back.
    pub reverse: bool,
    /// Each change in words.
    pub changes: Vec<String>,
}
