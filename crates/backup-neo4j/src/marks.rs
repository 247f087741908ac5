//! Names of what is in the database and is not live: what a restore has staged, and what it has
//! replaced.
//!
//! Neither labels nor types of the application are on it, so that nothing finds it by them. All
//! names begin with one prefix, and are the same for every restore: the server never forgets a name
//! that was used once.

use crate::{names::Kind, records::Keys};

/// What every such name begins with.
pub(crate) const PREFIX: &str = "backup-kit:";

/// The label of the node that tells how far a restore came.
pub(crate) const RESTORE: &str = "backup-kit:restore";

/// The label of nodes that relationships name and that were not staged yet.
pub(crate) const MISSING: &str = "backup-kit:missing";

/// By what a staged node is found while relationships are staged.
pub(crate) const KEY: &str = "backup-kit:key";

/// The number that the archive knows a node by which has no other key; goes when a restore ends.
pub(crate) const NUMBER: &str = "backup-kit:number";

/// What the live record of a key was when somebody asked for it: the digest of its properties, or
/// nothing.
pub(crate) const SEEN: &str = "backup-kit:seen";

/// The number of the live node or relationship that a staged one is to become.
pub(crate) const LIVE: &str = "backup-kit:live";

/// What was done with it: [`SWAPPED`] or [`MADE`].
pub(crate) const DONE: &str = "backup-kit:done";

/// It holds what the live one held, which holds what was staged.
pub(crate) const SWAPPED: &str = "swapped";

/// The live one was made.
pub(crate) const MADE: &str = "made";

/// Never set: the server locks what it is removed from.
pub(crate) const LOCK: &str = "backup-kit:lock";

/// Where a node or a relationship belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    /// What the application sees.
    Live,
    Staged,
    /// What was live before.
    Old,
}

impl World {
    /// The label that all of its nodes have.
    pub(crate) fn base(self) -> Option<&'static str> {
        match self {
            Self::Live => None,
            Self::Staged => Some("backup-kit:staged"),
            Self::Old => Some("backup-kit:old"),
        }
    }

    /// What stands for a label or type in it.
    pub(crate) fn name(self, name: &str) -> String {
        match self.base() {
            None => name.to_owned(),
            Some(base) => format!("{base}:{name}"),
        }
    }

    /// The label or type that a name stands for; none where it belongs elsewhere.
    pub(crate) fn real(self, name: &str) -> Option<&str> {
        match self.base() {
            None => (!is_marked(name)).then_some(name),
            Some(base) => name.strip_prefix(base)?.strip_prefix(':'),
        }
    }

    /// The labels of a node; none where it belongs elsewhere.
    pub(crate) fn labels(self, labels: Vec<String>) -> Option<Vec<String>> {
        match self.base() {
            None => (!labels.iter().any(|label| is_marked(label))).then_some(labels),
            Some(base) => labels.iter().any(|label| label == base).then(|| {
                labels.iter().filter_map(|label| self.real(label)).map(str::to_owned).collect()
            }),
        }
    }
}

/// Whether a name is one of these.
pub(crate) fn is_marked(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What of a database is read, and how its nodes are named.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) world: World,
    pub(crate) keys: Keys,
    /// Whether nodes without a key have the number that an archive knows them by.
    pub(crate) numbered: bool,
}

impl View {
    /// The graph as the application has it.
    pub(crate) fn live(keys: Keys) -> Self {
        Self { world: World::Live, keys, numbered: false }
    }

    /// What holds nodes with these labels, and the properties that make up their keys.
    pub(crate) fn kind(&self, labels: Vec<String>) -> Option<(Kind, Vec<String>)> {
        let kind = Kind::nodes(self.world.labels(labels)?);
        let key = match &kind {
            Kind::Nodes(labels) => self.keys.of(labels),
            _ => Vec::new(),
        };
        Some((kind, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_one_world() {
        for world in [World::Live, World::Staged, World::Old] {
            for name in ["Person", "", "a:b", "staged"] {
                let marked = world.name(name);
                for other in [World::Live, World::Staged, World::Old] {
                    assert_eq!(other.real(&marked), (other == world).then_some(name));
                }
            }
            let labels = ["A", "B"].map(|name| world.name(name)).into_iter();
            let labels: Vec<_> = labels.chain(world.base().map(str::to_owned)).collect();
            assert_eq!(world.labels(labels), Some(vec!["A".to_owned(), "B".to_owned()]));
        }
        assert_eq!(World::Live.labels(vec![RESTORE.to_owned()]), None);
        assert_eq!(World::Staged.labels(vec![RESTORE.to_owned()]), None);
        assert_eq!(World::Live.labels(Vec::new()), Some(Vec::new()));
    }
}
