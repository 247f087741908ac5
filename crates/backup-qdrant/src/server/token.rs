//! What a restore makes on a server, by name.
//!
//! A restore has an anchor: a small collection that is made first and removed last, so whether
//! it is there tells whether the restore is under way. How far it came stands in aliases of the
//! anchor, its notes: they change in one request with the aliases of the application.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// Names that begin so are those of restores.
pub(super) const PREFIX: &str = "backup-kit.";

/// What the adapter's tokens hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) anchor: String,
    /// Points are added to the collections that are there.
    #[serde(default)]
    pub(super) merge: bool,
    /// The collections of the archive.
    pub(super) targets: Vec<Target>,
    /// Collections that the archive does not have.
    pub(super) removed: Vec<Removed>,
    /// All aliases, as they were when the restore was planned.
    pub(super) aliases: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) name: String,
    /// Restored from a native snapshot.
    pub(super) native: bool,
    /// The numbers of its shards, where each has a native snapshot of its own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) shards: BTreeSet<u64>,
    pub(super) was: Was,
    /// Where its new content is staged; stays, where the name is an alias that is moved.
    pub(super) shadow: String,
    /// Where its old content is kept, in a merge that of the points that are written.
    pub(super) old: String,
    /// Vectors of the archive that are left out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) left_out: BTreeSet<String>,
}

/// What a name was when the restore was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Was {
    Free,
    Collection,
    Alias(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removed {
    pub(super) name: String,
    pub(super) old: String,
}

/// How far a restore came: the name of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Note {
    /// All is staged, indexed and as the archive has it.
    Sealed,
    /// Safety copies are whole; live collections are being replaced.
    Committing,
    Committed,
    Undoing,
    Undone,
}

impl Target {
    /// The native files that it is restored from: of the collection, or of shards.
    pub(super) fn files(&self) -> Vec<Option<u64>> {
        match self.shards.is_empty() {
            true => vec![None; self.native.into()],
            false => self.shards.iter().copied().map(Some).collect(),
        }
    }

    /// The collection that the application uses by this name.
    pub(super) fn place(&self) -> &str {
        match &self.was {
            Was::Alias(to) => to,
            Was::Free | Was::Collection => &self.name,
        }
    }
}

impl Note {
    pub(super) const ALL: [Self; 5] =
        [Self::Sealed, Self::Committing, Self::Committed, Self::Undoing, Self::Undone];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
        }
    }
}

impl Token {
    pub(super) fn anchor(restore_id: &str) -> String {
        format!("{PREFIX}{restore_id}")
    }

    /// Whether points are added to a collection that is there.
    pub(super) fn adds_to(&self, target: &Target) -> bool {
        self.merge && target.was != Was::Free
    }

    /// Whether an alias is moved to the shadow, which then stays.
    pub(super) fn repoints(&self, target: &Target) -> bool {
        !self.merge && matches!(target.was, Was::Alias(_))
    }

    /// The alias that is a note.
    pub(super) fn note(&self, note: Note) -> String {
        format!("{}.{}", self.anchor, note.as_str())
    }

    /// The alias that remembers an alias the archive has.
    pub(super) fn wish(&self, alias: &str) -> String {
        format!("{}.as.{alias}", self.anchor)
    }

    /// The alias that remembers a snapshot of a live collection.
    pub(super) fn snapshot(&self, name: &str) -> String {
        format!("{}.snapshot.{name}", self.anchor)
    }

    /// How the alias begins that remembers a native file.
    pub(super) fn native(&self) -> String {
        format!("{}.native.", self.anchor)
    }

    /// Refuses names that no plan of this adapter has: the journal may be damaged.
    pub(super) fn check(&self) -> Result<()> {
        let kept = |name: &String| name.starts_with(&format!("{}.", self.anchor));
        let good = self.anchor.starts_with(PREFIX)
            && self.anchor.len() > PREFIX.len()
            && self.removed.iter().all(|removed| kept(&removed.old) && !self.merge)
            && self.targets.iter().all(|target| {
                let shadow = if self.repoints(target) {
                    target.shadow.starts_with(&target.name)
                } else {
                    kept(&target.shadow)
                };
                let names = [target.name.as_str(), target.place()];
                shadow && kept(&target.old) && names.iter().all(|name| check_name(name).is_ok())
            });
        if good {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, "the token of a restore names what it may not")
            .on(&self.anchor))
    }

    /// The collections that are the restore's own, the anchor last.
    pub(super) fn own(&self) -> Vec<&str> {
        let shadows = self.targets.iter().map(|target| target.shadow.as_str());
        let olds = self.targets.iter().map(|target| target.old.as_str());
        let removed = self.removed.iter().map(|removed| removed.old.as_str());
        shadows.chain(olds).chain(removed).chain([self.anchor.as_str()]).collect()
    }
}

/// Refuses what cannot be the name of a collection.
pub(super) fn check_name(name: &str) -> Result<()> {
    let odd = |c: char| c.is_control() || "<>:\"/\\|?*".contains(c);
    let fault = if name.is_empty() || name.len() > 255 || name == "." || name == ".." {
        "this cannot be the name of a collection"
    } else if name.contains(odd) {
        "a collection's name has a character that Qdrant does not take"
    } else if name.starts_with(PREFIX) {
        "a collection has a name that restores use"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Incompatible, fault).on(name))
}
