//! Which collection a key belongs to.

use std::collections::BTreeSet;

use backup_core::{Error, ErrorKind, Result, record::Key};

use crate::model;

/// The collection of the keys that have no prefix of their own.
pub(crate) const REST: &str = "keys";
/// Longest prefix that is a collection.
const LONGEST_PREFIX: usize = 200;
/// Names of what restores make begin so; they are never content.
pub(crate) const OWN: &[u8] = b"backup-kit:";

/// Says where keys belong. A function of the key alone, so that two readings agree.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    prefixes: Prefixes,
    /// The logical databases that are the store's. Several: names begin with `db<number>/`.
    databases: Vec<u32>,
}

/// Which prefixes are collections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Prefixes {
    /// None: one collection a database.
    #[default]
    None,
    /// Whatever stands before the first `:`.
    Every,
    /// These.
    Of(BTreeSet<String>),
}

impl Naming {
    /// `databases` are at least one.
    pub(crate) fn new(prefixes: Prefixes, databases: Vec<u32>) -> Self {
        debug_assert!(!databases.is_empty());
        Self { prefixes, databases }
    }

    pub(crate) fn databases(&self) -> &[u32] {
        &self.databases
    }

    /// The prefix that is a collection, and what stands behind it.
    pub(crate) fn split<'k>(&self, key: &'k [u8]) -> (Option<&'k str>, &'k [u8]) {
        let colon = match &self.prefixes {
            Prefixes::None => None,
            _ => key.iter().position(|byte| *byte == b':'),
        };
        let Some(colon) = colon.filter(|at| (1..=LONGEST_PREFIX).contains(at)) else {
            return (None, key);
        };
        let prefix = std::str::from_utf8(&key[..colon]).ok().filter(|prefix| {
            *prefix != REST
                && match &self.prefixes {
                    Prefixes::Of(some) => some.contains(*prefix),
                    _ => true,
                }
        });
        match prefix {
            Some(_) => (prefix, &key[colon + 1..]),
            None => (None, key),
        }
    }

    /// The collection of a prefix.
    pub(crate) fn collection(&self, db: u32, prefix: Option<&str>) -> String {
        let name = prefix.unwrap_or(REST);
        if self.databases.len() > 1 { format!("db{db}/{name}") } else { name.to_owned() }
    }

    /// The database and prefix of a collection.
    pub(crate) fn place(&self, collection: &str) -> Result<(u32, Option<String>)> {
        let (db, name) = if self.databases.len() > 1 {
            let split = collection.strip_prefix("db").and_then(|rest| rest.split_once('/'));
            let db = split.and_then(|(db, _)| db.parse().ok());
            match (db.filter(|db| self.databases.contains(db)), split) {
                (Some(db), Some((_, name))) => (db, name),
                _ => return Err(unplaced(collection)),
            }
        } else {
            (self.databases[0], collection)
        };
        if name == REST {
            return Ok((db, None));
        }
        if name.is_empty() || name.len() > LONGEST_PREFIX || name.contains(':') {
            return Err(unplaced(collection));
        }
        Ok((db, Some(name.to_owned())))
    }

    /// The key in Redis of a record.
    pub(crate) fn key(&self, collection: &str, key: &Key) -> Result<(u32, Vec<u8>)> {
        let (db, prefix) = self.place(collection)?;
        let rest = model::key_bytes(key)?;
        let bytes = match &prefix {
            Some(prefix) => [prefix.as_bytes(), b":", &rest].concat(),
            None => rest,
        };
        if is_own(&bytes) {
            let what = "a record has a key that restores use";
            return Err(Error::new(ErrorKind::Incompatible, what).on(key));
        }
        let (back, _) = self.split(&bytes);
        if back != prefix.as_deref() {
            let what = "a record's key belongs to another collection";
            return Err(
                Error::new(ErrorKind::Incompatible, what).on(format!("{collection}, key {key}"))
            );
        }
        Ok((db, bytes))
    }
}

/// Whether a key is one that restores make.
pub(crate) fn is_own(key: &[u8]) -> bool {
    key.starts_with(OWN)
}

fn unplaced(collection: &str) -> Error {
    let what = "a collection has no place among the databases and key prefixes of this store";
    Error::new(ErrorKind::Incompatible, what).on(collection).advise(
        "open the store with as many databases as the archive has, and give collections names \
         without a colon",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_place_and_comes_back() {
        let every = Naming::new(Prefixes::Every, vec![0]);
        for (key, collection) in [
            (&b"notes:1"[..], "notes"),
            (b"notes:", "notes"),
            (b"notes:a:b", "notes"),
            (b":x", REST),
            (b"", REST),
            (b"7", REST),
            (b"keys:1", REST),
            (b"\xff:1", REST),
            (b"007:1", "007"),
        ] {
            let (prefix, rest) = every.split(key);
            let name = every.collection(0, prefix);
            assert_eq!(name, collection);
            let back = every.key(&name, &model::record_key(rest)).unwrap();
            assert_eq!(back, (0, key.to_vec()));
        }
        assert!(every.key("keys", &Key::from("notes:1")).is_err());
        assert!(every.key("notes", &Key::from("1")).is_err());
        assert!(every.key("a:b", &Key::from(1)).is_err());
        assert!(every.key("keys", &Key::from("backup-kit:x")).is_err());
    }

    #[test]
    fn several_databases_stand_in_the_names() {
        let naming = Naming::new(Prefixes::None, vec![0, 3]);
        assert_eq!(naming.collection(3, None), "db3/keys");
        assert_eq!(naming.place("db3/keys").unwrap(), (3, None));
        for bad in ["keys", "db1/keys", "db3", "db/keys"] {
            assert!(naming.place(bad).is_err(), "{bad}");
        }
    }
}
