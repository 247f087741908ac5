//! How segments are compressed.

use serde::{Deserialize, Serialize};

/// How segments are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Codec {
    /// Opened by everything: `.tar.gz`.
    #[default]
    Gzip,
    /// Smaller and faster, `.tar.zst`; needs the feature `zstd`.
    Zstd,
    /// Not at all: `.tar`.
    None,
}
