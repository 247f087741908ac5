//! Equal values, by their digest.

use std::collections::HashMap;

use serde_json::Value;

use crate::{
    error::Result,
    migrate::Pointer,
    record::{RecordRef, Sha256Digest, canonical},
};

#[derive(Debug)]
pub(super) struct Exact {
    ignored: Vec<Pointer>,
    first: HashMap<Sha256Digest, u32>,
}

impl Exact {
    /// Bytes that one record takes.
    pub(super) const BYTES: usize = 48;

    pub(super) fn new<'a>(ignored: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let ignored: Vec<_> = ignored.into_iter().map(Pointer::new).collect();
        ignored.iter().try_for_each(Pointer::check)?;
        Ok(Self { ignored, first: HashMap::new() })
    }

    pub(super) fn digest(&self, record: RecordRef<'_>, value: &Value) -> Result<Sha256Digest> {
        let mut value = value.clone();
        let taken = self.ignored.iter().filter_map(|pointer| pointer.take(&mut value)).count();
        if taken == 0 {
            return Ok(Sha256Digest::of(record.value_json().as_bytes()));
        }
        let mut text = Vec::new();
        canonical::Writer::new(&mut text).value(&value)?;
        Ok(Sha256Digest::of(&text))
    }

    pub(super) fn find(&self, digest: &Sha256Digest) -> Option<u32> {
        self.first.get(digest).copied()
    }

    pub(super) fn add(&mut self, digest: Sha256Digest, record: u32) {
        self.first.insert(digest, record);
    }
}
