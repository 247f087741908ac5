//! Where points lie: in a collection, or under one of its shard keys.

use std::fmt;

use backup_core::record::Key;
use qdrant_client::qdrant::{self as proto, ShardKeySelector, shard_key};

use crate::{
    points::{Id, write_key},
    schema::Document,
    shard_key::ShardKey,
};

/// A collection, or what of it lies under one shard key. Without one a request to read means all
/// shards, and answers an id that two shard keys have once.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) collection: String,
    pub(super) shard: Option<ShardKey>,
}

impl Place {
    /// The places that hold the points of a collection, each once.
    pub(super) fn all(collection: &str, document: &Document) -> Vec<Self> {
        let whole = Self { collection: collection.to_owned(), shard: None };
        if !document.is_keyed() {
            return vec![whole];
        }
        let keys = document.shard_keys.iter().map(|shards| shards.key.clone());
        keys.map(|key| Self { shard: Some(key), ..whole.clone() }).collect()
    }

    /// The same shard key of another collection.
    pub(super) fn of(&self, collection: &str) -> Self {
        Self { collection: collection.to_owned(), shard: self.shard.clone() }
    }

    /// The key of the record of a point.
    pub(super) fn key(&self, id: Id) -> Key {
        write_key(self.shard.as_ref(), id)
    }

    pub(super) fn selector(&self) -> Option<ShardKeySelector> {
        let key = match self.shard.clone()? {
            ShardKey::Number(number) => shard_key::Key::Number(number),
            ShardKey::Text(text) => shard_key::Key::Keyword(text),
        };
        let shard_keys = vec![proto::ShardKey { key: Some(key) }];
        Some(ShardKeySelector { shard_keys, fallback: None })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shard {
            None => f.write_str(&self.collection),
            Some(shard) => write!(f, "{}, shard key {shard}", self.collection),
        }
    }
}
