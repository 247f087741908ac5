//! The numbers that the server gave to staged nodes: a relationship finds its ends by them faster than
//! by their keys.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
};

use backup_core::Result;

use super::stage::odd;

/// Nodes whose numbers are kept, 17 bytes each. The others have their keys in the database.
const MOST: usize = (1 << 21) / 8 * 7;

/// Numbers of nodes by their keys. Of a key eight bytes are kept, of a hash that nobody outside can
/// foresee; two that were taken for one would be found when all is read back.
pub(super) struct Placed {
    by_hash: HashMap<u64, i64, BuildHasherDefault<Hash>>,
    hasher: RandomState,
    most: usize,
}

impl Default for Placed {
    fn default() -> Self {
        Self::of_at_most(MOST)
    }
}

impl Placed {
    pub(super) fn of_at_most(most: usize) -> Self {
        Self { by_hash: HashMap::default(), hasher: RandomState::new(), most }
    }

    pub(super) fn has_room_for(&self, more: usize) -> bool {
        self.by_hash.len() + more <= self.most
    }

    /// # Errors
    /// A key that was there before.
    pub(super) fn insert(&mut self, key: &str, number: i64) -> Result<()> {
        match self.by_hash.insert(self.hasher.hash_one(key), number) {
            None => Ok(()),
            Some(_) => Err(odd("two nodes have the same key").on(key)),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<i64> {
        self.by_hash.get(&self.hasher.hash_one(key)).copied()
    }
}

/// What is a hash already.
#[derive(Default)]
struct Hash(u64);

impl Hasher for Hash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_to_numbers_and_are_there_once() {
        let mut placed = Placed::default();
        for number in 0..1000 {
            placed.insert(&format!("key {number}"), number).unwrap();
        }
        assert_eq!(placed.get("key 17"), Some(17));
        assert_eq!(placed.get("key 1000"), None);
        assert!(placed.insert("key 17", 17).is_err());
        assert!(placed.has_room_for(MOST - 1000) && !placed.has_room_for(MOST));
    }
}
