//! Live records as they were when somebody asked for them, and as they are.

use backup_core::{Error, ErrorKind, record::Sha256Digest};

use crate::value::Value;

/// What is remembered of a live record.
pub(super) fn digest(properties: &str) -> Sha256Digest {
    Sha256Digest::of(properties.as_bytes())
}

/// Whether a live record is as it was when somebody asked for it, if somebody did.
pub(super) fn as_seen(seen: &Value, found: Option<&Sha256Digest>) -> bool {
    match seen {
        Value::Bytes(seen) => found.map_or(&[][..], |digest| &digest.as_bytes()[..]) == &seen[..],
        _ => true,
    }
}

pub(super) fn missing(reference: &str) -> Error {
    let what = "a relationship begins or ends at a node that is neither in the archive nor here";
    Error::new(ErrorKind::Incompatible, what)
        .on(reference)
        .advise("restore the nodes together with the relationships")
}

pub(super) fn changed(name: &str) -> Error {
    Error::new(ErrorKind::Changed, "a record was changed after it was compared with the archive's")
        .on(name)
        .advise("pause what writes to the graph, then restore again")
}
