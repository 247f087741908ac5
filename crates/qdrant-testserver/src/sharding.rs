//! Shard keys: by which an application chooses the shards of its points.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text or a number.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(untagged)]
#[serde(expecting = "Expected a shard key: a string or an unsigned integer")]
pub(crate) enum ShardKey {
    Keyword(String),
    Number(u64),
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyword(keyword) => write!(f, "\"{keyword}\""),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Which shard keys a request means.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
#[serde(expecting = "Expected a shard key or a list of them")]
pub(crate) enum Selector {
    One(ShardKey),
    Several(Vec<ShardKey>),
}

impl Selector {
    pub(crate) fn keys(&self) -> &[ShardKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Several(keys) => keys,
        }
    }
}

/// The shards of one key, as they stand in the file of a collection and of its snapshots.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct KeyShards {
    pub(crate) key: ShardKey,
    pub(crate) shard_ids: Vec<u32>,
}

/// The body of a request that makes a shard key.
#[derive(Debug, Deserialize)]
pub(crate) struct NewKey {
    pub(crate) shard_key: ShardKey,
    #[serde(alias = "shard_number")]
    pub(crate) shards_number: Option<std::num::NonZeroU32>,
    pub(crate) placement: Option<Vec<u64>>,
}

/// The body of a request that removes a shard key.
#[derive(Debug, Deserialize)]
pub(crate) struct OldKey {
    pub(crate) shard_key: ShardKey,
}

/// The body of a request, and the shard keys that it is about.
#[derive(Debug, Deserialize)]
pub(crate) struct Keyed<T> {
    pub(crate) shard_key: Option<Selector>,
    #[serde(flatten)]
    pub(crate) body: T,
}
