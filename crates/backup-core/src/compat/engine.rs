//! Versions of store engines: who may read the native parts of an archive.

use super::Version;
use crate::manifest::StoreManifest;

/// Whether the engine that runs may read what a store's archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineFit {
    Fits,
    /// Nobody knows.
    Unknown(String),
    /// The engine is older than the one that wrote, within one major version.
    Older(String),
    /// The engine is of another major version.
    Other(String),
}

/// Portable parts are for any version. Native ones need an engine of the same major version, and
/// of no earlier minor one than that which wrote them.
pub(crate) fn engine(store: &StoreManifest, live: Option<&str>) -> EngineFit {
    if store.blobs.is_empty() {
        return EngineFit::Fits;
    }
    let theirs = store.engine_version.as_deref();
    // Also where neither has one: there is nothing to compare.
    if theirs == live {
        return EngineFit::Fits;
    }
    let shown = |version: Option<&str>| match version {
        Some(version) => version.escape_debug().to_string(),
        None => "of an unknown version".into(),
    };
    let what = format!(
        "a native snapshot of {} {}, and the engine here is {}",
        store.engine.escape_debug(),
        shown(theirs),
        shown(live)
    );
    match (theirs.and_then(Version::parse), live.and_then(Version::parse)) {
        (Some(theirs), Some(live)) if theirs.number.0 != live.number.0 => EngineFit::Other(what),
        (Some(theirs), Some(live)) if live.line() < theirs.line() => EngineFit::Older(what),
        (Some(_), Some(_)) => EngineFit::Fits,
        _ => EngineFit::Unknown(what),
    }
}
