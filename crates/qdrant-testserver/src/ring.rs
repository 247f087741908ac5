//! Which shard a point belongs to: the hash ring of the server, so that the shards of a snapshot
//! that a real server took hold the points that are looked for in them.

use std::hash::Hasher as _;

use qdrant_edge::PointId;
use siphasher::sip::SipHasher24;

const PLACES_OF_A_SHARD: u32 = 100;

/// Some shards, among which points are spread. There is at least one.
#[derive(Debug)]
pub(crate) struct Ring {
    shards: Vec<u32>,
    places: Vec<(u64, u32)>,
}

impl Ring {
    pub(crate) fn new(shards: Vec<u32>) -> Self {
        let mut places = Vec::new();
        for shard in &shards {
            for place in 0..PLACES_OF_A_SHARD {
                let mut hasher = SipHasher24::new();
                hasher.write(&shard.to_le_bytes());
                hasher.write(&place.to_le_bytes());
                places.push((hasher.finish(), *shard));
            }
        }
        places.sort_unstable();
        Self { shards, places }
    }

    /// The numbers of the shards.
    pub(crate) fn shards(&self) -> &[u32] {
        &self.shards
    }

    pub(crate) fn shard_of(&self, point: &PointId) -> u32 {
        let mut hasher = SipHasher24::new();
        match point {
            PointId::NumId(number) => {
                hasher.write(&0u64.to_le_bytes());
                hasher.write(&number.to_le_bytes());
            }
            PointId::Uuid(uuid) => {
                hasher.write(&1u64.to_le_bytes());
                hasher.write(&16u64.to_le_bytes());
                hasher.write(uuid.as_bytes());
            }
        }
        let hash = hasher.finish();
        let next = self.places.partition_point(|(place, _)| *place < hash);
        self.places[next % self.places.len()].1
    }
}
