//! One server of a cluster.

use crate::error::{Error, Result};

/// The id of the first; the others follow.
const FIRST: u64 = 1_167_873_649_292_640;

/// Which of the servers of a cluster is asked: they hold their shards in turn, each in one copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    index: u32,
    count: u32,
}

impl Peer {
    /// All servers of a cluster.
    pub(crate) fn all(count: u32) -> impl Iterator<Item = Self> {
        (0..count).map(move |index| Self { index, count })
    }

    pub(crate) fn id(self) -> u64 {
        FIRST + u64::from(self.index)
    }

    /// The server that has a shard.
    pub(crate) fn of(self, shard: u32) -> Self {
        Self { index: shard % self.count, ..self }
    }

    pub(crate) fn has(self, shard: u32) -> bool {
        self.of(shard).index == self.index
    }

    /// Refuses what another server has.
    pub(crate) fn check(self, shard: Option<u32>) -> Result<()> {
        match shard {
            Some(shard) if !self.has(shard) => {
                Err(Error::bad_input(format!("Shard {shard} is not a local or queue proxy shard")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to recover a collection as a whole, of which each server has some shards only.
    pub(crate) fn check_recovers(self, shard: Option<u32>) -> Result<()> {
        if shard.is_none() && self.count > 1 {
            return Err(Error::service(
                "This server recovers a collection of several peers shard by shard only",
            ));
        }
        self.check(shard)
    }
}
