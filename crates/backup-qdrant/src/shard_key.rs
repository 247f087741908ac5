//! Shard keys: where an application chooses the shards of its points.

use std::fmt;

use backup_core::record::{Key, tagged::Scalar};
use serde::{Deserialize, Serialize};

/// What an application calls some of a collection's shards: a number, or text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum ShardKey {
    Number(u64),
    Text(String),
}

/// A shard key of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyedShards {
    pub(crate) key: ShardKey,
    /// How many shards its points are spread over.
    pub(crate) shards_number: u32,
}

impl ShardKey {
    /// As a part of a record's key.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Number(number) => Key::from(*number),
            Self::Text(text) => Key::from(text.as_str()),
        }
    }

    pub(crate) fn from_scalar(scalar: &Scalar) -> Option<Self> {
        match scalar {
            Scalar::Integer(number) => u64::try_from(*number).ok().map(Self::Number),
            Scalar::Text(text) => Some(Self::Text(text.clone())),
            _ => None,
        }
    }
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}
