//! The order in which parts may stand: what makes every path unique without remembering
//! all of them.

use std::collections::{HashMap, HashSet};

use super::entry::{EntryHead, PartEntry, PartKind, VectorRole};
use crate::{
    error::{Error, ErrorKind, Result},
    part::EntryPath,
};

/// Most stores, collections, partitions, blobs and configurations together.
const MAX_NAMES: usize = 1_000_000;

/// Checks parts in their order; writer and reader use the same rules.
///
/// `backup.json` comes first and `checksums.sha256` last; a collection's schema comes once
/// and before its records; the numbers of a partition's batches ascend from 0; arrays follow
/// their batch, in the order of vectors' names; the entries of a root ascend, and only a
/// folder has entries below it.
#[derive(Debug, Default)]
pub(super) struct Order {
    stage: Stage,
    schemas: HashSet<(String, String)>,
    batches: HashMap<(String, String, String), u64>,
    single: HashSet<String>,
    roots: HashMap<(String, String), (EntryPath, bool)>,
    latest: Option<PartKind>,
}

#[derive(Debug, Default, PartialEq)]
enum Stage {
    #[default]
    Begin,
    Parts,
    End,
}

impl Order {
    /// Takes the next part.
    pub(super) fn check(&mut self, part: &PartEntry) -> Result<()> {
        let fault = |kind, what: &str| Err(Error::new(kind, what).on(&part.path));
        let corrupt = |what| fault(ErrorKind::Corrupt, what);
        let names = self.schemas.len() + self.batches.len() + self.single.len() + self.roots.len();
        if names > MAX_NAMES {
            return fault(ErrorKind::LimitExceeded, "the archive has too many names");
        }
        if part.path != part.kind.path() {
            return fault(ErrorKind::Hostile, "a part's path is not the one that it must have");
        }
        match (&part.kind, &self.stage) {
            (PartKind::Preamble {}, Stage::Begin) => self.stage = Stage::Parts,
            (PartKind::Preamble {}, _) | (_, Stage::Begin | Stage::End) => {
                return corrupt("a part stands where it must not");
            }
            (PartKind::Checksums {}, Stage::Parts) => self.stage = Stage::End,
            (PartKind::Schema { store, collection }, _) => {
                if !self.schemas.insert((store.clone(), collection.clone())) {
                    return corrupt("a collection has two schemas");
                }
            }
            (PartKind::Records { store, collection, partition, number, .. }, _) => {
                if !self.schemas.contains(&(store.clone(), collection.clone())) {
                    return corrupt("records stand before their schema");
                }
                let key = (store.clone(), collection.clone(), partition.clone());
                let next = self.batches.entry(key).or_default();
                if next != number {
                    return corrupt("a batch is out of order");
                }
                *next += 1;
            }
            (PartKind::Vector { vector, role, .. }, _) => {
                let follows = match &self.latest {
                    Some(PartKind::Records { .. }) => role.is_values(),
                    Some(PartKind::Vector { vector: last, role: last_role, .. }) => {
                        if last == vector {
                            follows(*last_role, *role)
                        } else {
                            last < vector && role.is_values()
                        }
                    }
                    _ => false,
                };
                if !follows || self.latest.as_ref().is_none_or(|last| !same_batch(last, &part.kind))
                {
                    return corrupt("an array does not follow its batch");
                }
            }
            (PartKind::Blob { .. } | PartKind::Config { .. }, _) => {
                if !self.single.insert(part.path.clone()) {
                    return corrupt("a part stands twice");
                }
            }
            (PartKind::Entry { store, root, name, mode, entry, .. }, _) => {
                if *mode > 0o777 {
                    return fault(ErrorKind::Hostile, "an entry has more than permissions");
                }
                let path = EntryPath::new(name)?;
                let folder = *entry == EntryHead::Directory;
                let key = (store.clone(), root.clone());
                if let Some((last, last_is_folder)) = self.roots.get(&key) {
                    if path <= *last {
                        return corrupt("entries of a root do not ascend");
                    }
                    let below = path.as_bytes().strip_prefix(last.as_bytes());
                    if below.is_some_and(|rest| rest.starts_with(b"/")) && !last_is_folder {
                        return fault(
                            ErrorKind::Hostile,
                            "an entry stands below what is no folder",
                        );
                    }
                }
                self.roots.insert(key, (path, folder));
            }
        }
        self.latest = Some(part.kind.clone());
        Ok(())
    }

    /// Whether everything that must be there has come.
    pub(super) fn is_complete(&self) -> bool {
        self.stage == Stage::End
    }
}

fn follows(last: VectorRole, next: VectorRole) -> bool {
    use VectorRole::{Dense, Indices, Multi, Offsets, Present, Sparse};
    matches!(
        (last, next),
        (Dense, Present)
            | (Multi | Sparse, Offsets)
            | (Offsets, Indices | Present)
            | (Indices, Present)
    )
}

fn same_batch(a: &PartKind, b: &PartKind) -> bool {
    let batch = |kind: &PartKind| match kind {
        PartKind::Records { store, collection, partition, number, .. }
        | PartKind::Vector { store, collection, partition, number, .. } => {
            Some((store.clone(), collection.clone(), partition.clone(), *number))
        }
        _ => None,
    };
    batch(a) == batch(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ElementType;

    fn part(kind: PartKind) -> PartEntry {
        PartEntry { path: kind.path(), offset: 0, size: 0, kind }
    }

    fn schema(collection: &str) -> PartKind {
        PartKind::Schema { store: "s".into(), collection: collection.into() }
    }

    fn records(number: u64) -> PartKind {
        PartKind::Records {
            store: "s".into(),
            collection: "c".into(),
            partition: "p".into(),
            number,
            records: 1,
        }
    }

    fn vector(number: u64, vector: &str, role: VectorRole) -> PartKind {
        PartKind::Vector {
            store: "s".into(),
            collection: "c".into(),
            partition: "p".into(),
            number,
            vector: vector.into(),
            role,
            element: ElementType::F32,
            shape: vec![],
        }
    }

    fn entry(name: &str, entry: EntryHead) -> PartKind {
        PartKind::Entry {
            store: "s".into(),
            root: "r".into(),
            name: name.into(),
            mode: 0,
            modified: (0, 0),
            entry,
            fault: None,
        }
    }

    fn check(kinds: &[PartKind]) -> Result<()> {
        let mut order = Order::default();
        order.check(&part(PartKind::Preamble {}))?;
        kinds.iter().try_for_each(|kind| order.check(&part(kind.clone())))
    }

    #[test]
    fn what_a_writer_emits_is_accepted() {
        check(&[
            schema("c"),
            records(0),
            vector(0, "a", VectorRole::Dense),
            vector(0, "a", VectorRole::Present),
            vector(0, "b", VectorRole::Sparse),
            vector(0, "b", VectorRole::Offsets),
            vector(0, "b", VectorRole::Indices),
            records(1),
            entry("a", EntryHead::Directory),
            entry("a/b", EntryHead::Symlink(b"/".to_vec())),
            entry("a.txt", EntryHead::File),
            PartKind::Checksums {},
        ])
        .unwrap();
    }

    #[test]
    fn everything_else_is_refused() {
        let bad: &[&[PartKind]] = &[
            &[PartKind::Preamble {}],
            &[schema("c"), schema("c")],
            &[records(0)],
            &[schema("c"), records(1)],
            &[schema("c"), records(0), records(0)],
            &[schema("c"), records(0), vector(1, "a", VectorRole::Dense)],
            &[schema("c"), records(0), vector(0, "a", VectorRole::Present)],
            &[schema("c"), vector(0, "a", VectorRole::Dense)],
            &[
                schema("c"),
                records(0),
                vector(0, "b", VectorRole::Dense),
                vector(0, "a", VectorRole::Dense),
            ],
            &[entry("a", EntryHead::File), entry("a", EntryHead::File)],
            &[entry("b", EntryHead::File), entry("a", EntryHead::File)],
            &[entry("a", EntryHead::Symlink(b"/etc".to_vec())), entry("a/x", EntryHead::File)],
            &[entry("a", EntryHead::File), entry("a/x", EntryHead::File)],
            &[entry("../a", EntryHead::File)],
            &[PartKind::Config { name: "x".into() }, PartKind::Config { name: "x".into() }],
            &[PartKind::Checksums {}, schema("c")],
        ];
        for kinds in bad {
            assert!(check(kinds).is_err(), "{kinds:?}");
        }
        let mut lying = part(schema("c"));
        lying.path = "stores/s/d/schema.json".into();
        let mut order = Order::default();
        order.check(&part(PartKind::Preamble {})).unwrap();
        assert_eq!(order.check(&lying).unwrap_err().kind(), ErrorKind::Hostile);
    }
}
