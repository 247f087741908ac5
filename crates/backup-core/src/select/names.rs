//! Other names at a restore.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::text;
use crate::error::{Error, ErrorKind, Result};

/// Other names for stores, and for what is in them: collections, tables, roots.
///
/// The names on the left are those of the archive.
///
/// ```
/// use backup_core::NameMap;
///
/// let names = NameMap::parse(["state=state-test", "vectors/notes=notes-2026"])?;
/// assert_eq!(names.store("state"), "state-test");
/// assert_eq!(names.collection("vectors", "notes"), "notes-2026");
/// assert_eq!(names.collection("state", "notes"), "notes");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameMap {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    stores: BTreeMap<String, String>,
    // By store of the archive.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    collections: BTreeMap<String, BTreeMap<String, String>>,
}

impl NameMap {
    /// Every name stays.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `store=other` and `store/old=new`; a name with other characters than letters, digits,
    /// `_`, `-` and `.` stands in double quotes.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for text of another form, and for a name that gets
    /// two others.
    pub fn parse<S: AsRef<str>>(renamings: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut names = Self::new();
        for renaming in renamings {
            let ((store, collection), new) = text::renaming(renaming.as_ref())?;
            let twice = match collection {
                None => names.stores.insert(store, new),
                Some(name) => names.collections.entry(store).or_default().insert(name, new),
            };
            if twice.is_some() {
                let what = "a name is given two others";
                return Err(Error::new(ErrorKind::InvalidInput, what)
                    .on(renaming.as_ref())
                    .advise("map each name once"));
            }
        }
        Ok(names)
    }

    /// Another name for a store.
    #[must_use]
    pub fn with_store(mut self, store: impl Into<String>, new: impl Into<String>) -> Self {
        self.stores.insert(store.into(), new.into());
        self
    }

    /// Another name for a collection, table or root of a store of the archive.
    #[must_use]
    pub fn with_collection(
        mut self,
        store: impl Into<String>,
        collection: impl Into<String>,
        new: impl Into<String>,
    ) -> Self {
        self.collections.entry(store.into()).or_default().insert(collection.into(), new.into());
        self
    }

    /// Whether every name stays.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a collection of this store of the archive gets another name.
    #[must_use]
    pub fn renames_in(&self, store: &str) -> bool {
        let of = self.collections.get(store);
        of.is_some_and(|of| of.iter().any(|(old, new)| old != new))
    }

    /// What a store of the archive is called.
    #[must_use]
    pub fn store<'a>(&'a self, store: &'a str) -> &'a str {
        self.stores.get(store).map_or(store, String::as_str)
    }

    /// What a collection is called; `store` is the archive's name of its store.
    #[must_use]
    pub fn collection<'a>(&'a self, store: &str, collection: &'a str) -> &'a str {
        let of = self.collections.get(store);
        of.and_then(|of| of.get(collection)).map_or(collection, String::as_str)
    }

    /// Checks against the stores of an archive, each with its collections and roots.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a name that the archive does not have;
    /// [`InvalidInput`](ErrorKind::InvalidInput) where two would get one name, or an empty one.
    pub fn check<'k, C>(&self, archive: &'k BTreeMap<String, C>) -> Result<()>
    where
        &'k C: IntoIterator<Item = &'k String>,
    {
        for store in self.stores.keys() {
            check(archive, store, None)?;
        }
        for (store, collections) in &self.collections {
            for name in collections.keys() {
                check(archive, store, Some(name))?;
            }
        }
        distinct(archive.keys().map(|old| (old.as_str(), self.store(old))))?;
        for (store, collections) in archive {
            let names =
                collections.into_iter().map(|old| (old.as_str(), self.collection(store, old)));
            distinct(names).map_err(|error| error.on(store))?;
        }
        Ok(())
    }
}

fn distinct<'a>(names: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    let wrong = |what: &str, on: String| {
        let error = Error::new(ErrorKind::InvalidInput, what.to_owned()).on(on);
        Err(error.advise("give each another name"))
    };
    let mut taken = BTreeMap::new();
    for (old, new) in names {
        if new.is_empty() {
            return wrong("a name cannot be empty", format!("{old:?}"));
        } else if let Some(earlier) = taken.insert(new, old) {
            return wrong("two get the same name", format!("{earlier} and {old}: {new}"));
        }
    }
    Ok(())
}

/// Whether there is such a store, and such a collection in it.
pub(super) fn check<'k, C>(
    known: &'k BTreeMap<String, C>,
    store: &str,
    collection: Option<&str>,
) -> Result<()>
where
    &'k C: IntoIterator<Item = &'k String>,
{
    let place = text::place(store, collection);
    let Some(collections) = known.get(store) else {
        let stores: Vec<_> = known.keys().map(String::as_str).collect();
        return Err(missing("there is no such store", place, &stores));
    };
    let Some(collection) = collection else { return Ok(()) };
    let names: Vec<_> = collections.into_iter().map(String::as_str).collect();
    if names.contains(&collection) {
        return Ok(());
    }
    Err(missing("there is no such collection", place, &names))
}

/// What was named is not there, and what is.
pub(super) fn missing(what: &str, place: String, known: &[&str]) -> Error {
    Error::new(ErrorKind::NotFound, what.to_owned())
        .on(place)
        .advise(format!("use one of these: {}", known.join(", ")))
}
