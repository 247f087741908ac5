//! What a comparison found.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Serialize;

use crate::clock::ArchiveId;

/// What a comparison found; see [`Archive::diff`](crate::archive::Archive::diff). Its `Display`
/// is for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DiffReport {
    /// The left side.
    pub left: Compared,
    /// The right side.
    pub right: Compared,
    /// Every store of either side, also where nothing differs.
    pub stores: BTreeMap<String, StoreDiff>,
    /// Why the comparison may say less than it seems: something could not be read, or
    /// changed meanwhile.
    pub warnings: Vec<String>,
}

/// What one side is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Compared {
    /// The archive's identity; `None`: the live stores.
    pub archive: Option<ArchiveId>,
    /// The archive's file, if it is one.
    pub path: Option<PathBuf>,
}

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiffSide {
    /// The first.
    Left,
    /// The second.
    Right,
}

/// One store of a [`DiffReport`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreDiff {
    /// The only side that has it, where that is so.
    pub only: Option<DiffSide>,
    /// Every collection, table or root of either side.
    pub collections: BTreeMap<String, CollectionDiff>,
    /// Every native snapshot of either side. They are compared as a whole, by their digest, in
    /// which what a restore may change does not count.
    pub native: BTreeMap<String, NativeDiff>,
}

/// One collection of a [`StoreDiff`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CollectionDiff {
    /// The only side that has it, where that is so; its records are not listed.
    pub only: Option<DiffSide>,
    /// Records or files of the left side.
    pub left: u64,
    /// Records or files of the right side.
    pub right: u64,
    /// Whether the schema documents differ.
    pub schema: bool,
    /// What only the left side has.
    pub only_left: DiffKeys,
    /// What only the right side has.
    pub only_right: DiffKeys,
    /// What both have, with other values; of a file its content, mode, or time.
    pub changed: DiffKeys,
    /// What both have, with other vectors.
    pub vectors: DiffKeys,
}

/// How many, and some of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DiffKeys {
    /// How many.
    pub count: u64,
    /// The first of them, sorted as text: keys as JSON, of an element its key and its own; paths.
    pub first: Vec<String>,
}

/// One native snapshot of a [`StoreDiff`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NativeDiff {
    /// The only side that has it, where that is so.
    pub only: Option<DiffSide>,
    /// Whether length or digest differ.
    pub changed: bool,
}

impl DiffReport {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.stores.values().all(StoreDiff::is_equal)
    }
}

impl StoreDiff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.only.is_none()
            && self.collections.values().all(CollectionDiff::is_equal)
            && self.native.values().all(NativeDiff::is_equal)
    }
}

impl CollectionDiff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        let keys = [&self.only_left, &self.only_right, &self.changed, &self.vectors];
        self.only.is_none() && !self.schema && keys.iter().all(|keys| keys.count == 0)
    }
}

impl NativeDiff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.only.is_none() && !self.changed
    }
}

impl fmt::Display for DiffSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left => "left",
            Self::Right => "right",
        })
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, &self.archive) {
            (Some(path), _) => write!(f, "{}", path.display()),
            (None, Some(id)) => write!(f, "backup {id}"),
            (None, None) => f.write_str("the live stores"),
        }
    }
}

impl fmt::Display for DiffReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "left:  {}", self.left)?;
        writeln!(f, "right: {}", self.right)?;
        for (name, store) in &self.stores {
            match store.only {
                Some(side) => writeln!(f, "{name}: only {side}")?,
                None if store.is_equal() => writeln!(f, "{name}: equal")?,
                None => write!(f, "{name}\n{store}")?,
            }
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

// What differs, one line a collection, and its keys.
impl fmt::Display for StoreDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, native) in self.native.iter().filter(|(_, native)| !native.is_equal()) {
            match native.only {
                Some(side) => writeln!(f, "  {name}: only {side}")?,
                None => writeln!(f, "  {name}: differs; a native snapshot is compared as a whole")?,
            }
        }
        let collections = self.collections.iter().filter(|(_, one)| !one.is_equal());
        for (name, collection) in collections {
            writeln!(f, "  {name}: {collection}")?;
            collection.keys(f)?;
        }
        Ok(())
    }
}

impl CollectionDiff {
    fn keys(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            (&self.only_left, "<"),
            (&self.only_right, ">"),
            (&self.changed, "~"),
            (&self.vectors, "v"),
        ];
        for (keys, sign) in lists {
            for key in &keys.first {
                writeln!(f, "    {sign} {key}")?;
            }
            if keys.count > keys.first.len() as u64 {
                writeln!(f, "    {sign} and {} more", keys.count - keys.first.len() as u64)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for CollectionDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(side) = self.only {
            return write!(f, "only {side}, with {}", self.left + self.right);
        }
        let mut words = Vec::new();
        if self.schema {
            words.push("another schema".to_owned());
        }
        let lists = [
            (&self.only_left, "only left"),
            (&self.only_right, "only right"),
            (&self.changed, "changed"),
            (&self.vectors, "with other vectors"),
        ];
        let lists = lists.iter().filter(|(keys, _)| keys.count > 0);
        words.extend(lists.map(|(keys, word)| format!("{} {word}", keys.count)));
        f.write_str(&words.join(", "))
    }
}
