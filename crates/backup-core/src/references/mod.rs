//! References between records, of one store or of several: declared by the host, counted at a
//! backup and checked again at a restore.

mod collector;
mod fingerprint;
#[cfg(test)]
mod tests;

pub(crate) use self::{collector::Collector, fingerprint::Fingerprint};
use crate::{
    error::{Error, ErrorKind, Result},
    manifest::ReferenceEnd,
    migrate::Pointer,
    stores::Stores,
};

/// Values in the records of one collection that name records of another, which may be in
/// another store.
///
/// A value is compared as the canonical JSON that stands in the archive, so `1` and `"1"`
/// differ. Each different value counts once. `null` and a field that is not there name nothing;
/// of a list each item is a value. An entry of a folder tree has its path as its key.
///
/// ```
/// use backup_core::{Reference, manifest::ReferenceEnd};
///
/// let reference = Reference::new(
///     ReferenceEnd::field("state", "notes", "/point"),
///     ReferenceEnd::key("vectors", "passages"),
/// );
/// assert_eq!(reference.to_string(), "state/notes:/point -> vectors/passages");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub(crate) from: ReferenceEnd,
    pub(crate) to: ReferenceEnd,
    pub(crate) required: bool,
}

impl Reference {
    /// So many different values of an end are kept in memory, as 17 bytes each in a hash set: at
    /// most 80 MiB. A reference with an end that has more is not counted, and it is said.
    pub const MAX_VALUES: usize = 2 << 20;

    /// The values of `from` name the records that have them at `to`.
    #[must_use]
    pub fn new(from: ReferenceEnd, to: ReferenceEnd) -> Self {
        Self { from, to, required: false }
    }

    /// A restore after which more values dangle than in the archive is taken back before it
    /// switches, unless that is
    /// [allowed](crate::RestoreOptions::allow_dangling). Without this it is a warning.
    ///
    /// A backup is never refused.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Where the values are that point.
    #[must_use]
    pub fn from(&self) -> &ReferenceEnd {
        &self.from
    }

    /// Where they point.
    #[must_use]
    pub fn to(&self) -> &ReferenceEnd {
        &self.to
    }

    /// Whether it is [required](Self::required).
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

/// Refuses references that cannot be followed.
pub(crate) fn check(stores: &Stores) -> Result<()> {
    for (i, reference) in stores.references.iter().enumerate() {
        for end in [&reference.from, &reference.to] {
            check_end(end, stores).map_err(|e| e.on(format!("reference {reference}")))?;
        }
        let same =
            |earlier: &Reference| (&earlier.from, &earlier.to) == (&reference.from, &reference.to);
        if stores.references[..i].iter().any(same) {
            let what = "the same reference is declared twice";
            return Err(Error::new(ErrorKind::InvalidInput, what).on(reference));
        }
    }
    Ok(())
}

fn check_end(end: &ReferenceEnd, stores: &Stores) -> Result<()> {
    if stores.entry(&end.store).is_none() {
        return Err(stores.unknown(&end.store));
    }
    if end.collection.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "a reference names no collection")
            .advise("write it like store/collection or store/collection:/field"));
    }
    end.field.as_deref().map_or(Ok(()), |field| Pointer::new(field).check())
}
