//! What another process has to know to go on with a restore, or to undo it: names.

use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::place;

/// What the adapter's tokens hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) way: Way,
    /// Records are added to those that are there.
    pub(crate) merge: bool,
    /// The collections of the archive.
    pub(crate) collections: Vec<String>,
    /// Milliseconds by which deadlines are moved.
    pub(crate) shift: i64,
}

/// How a restore switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Databases are swapped: each live one, and where its new content is staged.
    Swap(Vec<(u32, u32)>),
    /// Keys are renamed, in these databases.
    Rename(Vec<u32>),
}

/// How far a restore came: the value of its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Staged,
    /// All is staged and ready to be switched.
    Sealed,
    /// Live keys that the archive does not have are moved aside.
    Clearing,
    /// Staged keys are moved in.
    Switching,
    Committed,
    Undoing,
    Undone,
}

impl State {
    const ALL: [(Self, &str); 7] = [
        (Self::Staged, "staged"),
        (Self::Sealed, "sealed"),
        (Self::Clearing, "clearing"),
        (Self::Switching, "switching"),
        (Self::Committed, "committed"),
        (Self::Undoing, "undoing"),
        (Self::Undone, "undone"),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn read(text: &[u8]) -> Result<Self> {
        let known = Self::ALL.iter().find(|(_, name)| name.as_bytes() == text);
        known.map(|(state, _)| *state).ok_or_else(|| {
            let what = "the marker of a restore holds what no restore writes";
            Error::new(ErrorKind::RepairNeeded, what).on(String::from_utf8_lossy(text))
        })
    }
}

impl Token {
    /// The key that tells how far the restore came.
    pub(crate) fn marker(&self) -> String {
        let pattern = place::pattern(&self.id, 'x');
        pattern.trim_end_matches(":x:*").to_owned()
    }

    /// Refuses names that no plan of this adapter has: the journal may be damaged.
    pub(crate) fn check(&self, live: &[u32]) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
        let id = !self.id.is_empty() && self.id.len() <= 100 && self.id.chars().all(plain);
        let databases = match &self.way {
            Way::Swap(pairs) => {
                !self.merge
                    && pairs.iter().map(|(live, _)| live).eq(live)
                    && pairs.iter().all(|(_, spare)| !live.contains(spare))
            }
            Way::Rename(databases) => databases == live,
        };
        if id && databases {
            return Ok(());
        }
        let what = "the token of a restore names what this store does not have";
        Err(Error::new(ErrorKind::Corrupt, what).on(&self.id))
    }
}
