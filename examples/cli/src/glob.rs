//! Patterns on the command line.

use backup_kit::{Error, ErrorKind, Result};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// All of `patterns` as one; where names are paths, `*` does not cross a `/`.
pub(crate) fn set(patterns: &[String], paths: bool) -> Result<GlobSet> {
    let wrong = |pattern: &str, cause: globset::Error| {
        Error::new(ErrorKind::InvalidInput, "not a glob").on(pattern).because(cause)
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(paths).build();
        set.add(glob.map_err(|e| wrong(pattern, e))?);
    }
    set.build().map_err(|e| wrong(&patterns.join(", "), e))
}
