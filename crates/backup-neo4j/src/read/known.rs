//! Which nodes were read, and how they are named: what relationships have to know of their ends.

/// Bytes of keys that are kept, and numbers of nodes up to which they are. Nodes beyond are asked for
/// again.
const TEXTS: usize = 48 << 20;
const SLOTS: usize = 4 << 20;

/// Numbers of nodes, a bit each.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Vec<u64>);

impl Numbers {
    pub(crate) fn insert(&mut self, number: i64) {
        let Ok(number) = usize::try_from(number) else { return };
        if self.0.len() <= number / 64 {
            self.0.resize(number / 64 + 1, 0);
        }
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub(crate) fn contains(&self, number: i64) -> bool {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// Collections and keys of the nodes that were read, of as many as there is room for.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Where the text of a node stands, plus one.
    slots: Vec<u32>,
    /// Of each node the number of its collection, the length of its key, and the key.
    texts: Vec<u8>,
    collections: Vec<String>,
    /// Whether there was no room for some.
    partly: bool,
}

impl Known {
    /// The number of a collection.
    pub(super) fn collection(&mut self, name: String) -> u32 {
        let at = self.collections.iter().position(|known| *known == name);
        let at = at.unwrap_or_else(|| {
            self.collections.push(name);
            self.collections.len() - 1
        });
        at as u32
    }

    /// Keeps how a node is named, while there is room.
    pub(super) fn insert(&mut self, node: i64, collection: u32, key: &str) {
        let at = self.texts.len();
        let slot = usize::try_from(node).ok().filter(|slot| *slot < SLOTS);
        let Some(slot) = slot.filter(|_| at + 8 + key.len() <= TEXTS) else {
            self.partly = true;
            return;
        };
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, 0);
        }
        self.slots[slot] = at as u32 + 1;
        self.texts.extend(collection.to_le_bytes());
        self.texts.extend((key.len() as u32).to_le_bytes());
        self.texts.extend(key.as_bytes());
    }

    /// Whether nodes were read, and all of them are known.
    pub(super) fn is_whole(&self) -> bool {
        !self.slots.is_empty() && !self.partly
    }

    /// Collection and key of a node.
    pub(super) fn get(&self, node: i64) -> Option<(&str, &str)> {
        let slot = *self.slots.get(usize::try_from(node).ok()?)?;
        let text = &self.texts[slot.checked_sub(1)? as usize..];
        let (collection, text) = text.split_first_chunk()?;
        let (len, text) = text.split_first_chunk()?;
        let key = text.get(..u32::from_le_bytes(*len) as usize)?;
        let collection = self.collections.get(u32::from_le_bytes(*collection) as usize)?;
        Some((collection, std::str::from_utf8(key).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_known_as_long_as_there_is_room() {
        let mut known = Known::default();
        assert!(!known.is_whole());
        let (a, b) = (known.collection("A".to_owned()), known.collection("A:B".to_owned()));
        assert_eq!((known.collection("A".to_owned()), a != b), (a, true));
        for node in [7, 0, 4_000_000] {
            known.insert(node, if node == 7 { b } else { a }, &node.to_string());
        }
        assert!(known.is_whole());
        known.insert(SLOTS as i64, a, "beyond");
        assert!(!known.is_whole());
        known.insert(-1, a, "none");
        assert_eq!(known.get(7), Some(("A:B", "7")));
        assert_eq!(known.get(0), Some(("A", "0")));
        assert_eq!(known.get(4_000_000), Some(("A", "4000000")));
        for node in [1, -1, SLOTS as i64, i64::MAX] {
            assert_eq!(known.get(node), None, "{node}");
        }
        known.insert(8, a, &"x".repeat(TEXTS - known.texts.len() - 8));
        known.insert(9, a, "");
        assert_eq!(known.get(8).map(|(_, key)| key.len()), Some(TEXTS - 4 * 8 - 9));
        assert_eq!(known.get(9), None);
        assert_eq!(known.texts.len(), TEXTS);
    }

    #[test]
    fn numbers_are_there_or_not() {
        let mut numbers = Numbers::default();
        for number in [0, 63, 64, 1000, -1] {
            numbers.insert(number);
        }
        let there: Vec<_> = (-2..1100).filter(|number| numbers.contains(*number)).collect();
        assert_eq!(there, [0, 63, 64, 1000]);
    }
}
