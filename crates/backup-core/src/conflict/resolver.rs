//! The strategies, and what they need to know of a collection.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::resolution::{Resolution, Resolved};
use crate::{
    clock::ArchiveId,
    error::{Error, ErrorKind, Result},
    manifest::FieldMapping,
    record::{Key, RecordBatch},
};

/// What becomes of a record of the archive whose key the live store has, too, with another
/// content. `docs/CONFLICTS.md` has the rules, with examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Conflict {
    /// The live record stays.
    Skip,
    /// The archive's record takes its place.
    Overwrite,
    /// Both become one, member by member.
    Merge,
    /// The one that was changed last; the live one where that cannot be told.
    KeepNewer,
    /// The one that was changed first; the live one where that cannot be told.
    KeepOlder,
    /// The archive's record gets a new key.
    KeepBoth,
    /// An error, before anything is changed.
    #[default]
    Fail,
}

impl Conflict {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Skip,
        Self::Overwrite,
        Self::Merge,
        Self::KeepNewer,
        Self::KeepOlder,
        Self::KeepBoth,
        Self::Fail,
    ];

    /// Name in kebab case, as in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Overwrite => "overwrite",
            Self::Merge => "merge",
            Self::KeepNewer => "keep-newer",
            Self::KeepOlder => "keep-older",
            Self::KeepBoth => "keep-both",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Conflict {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Error::new(ErrorKind::InvalidInput, "there is no such rule for conflicts")
                .on(format!("{text:?}"))
                .advise(format!("use one of {names}"))
        })
    }
}

/// Resolves the conflicts of one collection.
///
/// ```
/// use backup_core::{ArchiveId, Conflict, Resolver, manifest::FieldMapping};
/// use backup_core::record::{BatchBuilder, Key};
///
/// let batch = |json: &[u8]| {
///     let mut builder = BatchBuilder::new("notes");
///     builder.push_json(&Key::from(1), json)?;
///     builder.finish()
/// };
/// let live = batch(br#"{"tags":["a"],"text":"old"}"#)?;
/// let archived = batch(br#"{"tags":["b"],"text":"new"}"#)?;
///
/// let resolver = Resolver::new(Conflict::Merge, &FieldMapping::default(), ArchiveId::random())?;
/// let resolved = resolver.resolve(archived, |_keys| Ok(vec![live.clone()]))?;
/// assert_eq!(resolved.counts.merged, 1);
/// assert_eq!(resolved.batches[0].get(0).value_json(), r#"{"tags":["a","b"],"text":"new"}"#);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Resolver {
    pub(super) strategy: Conflict,
    pub(super) fields: FieldMapping,
    pub(super) archive: ArchiveId,
    pub(super) key_fields: Vec<String>,
}

impl Resolver {
    /// Longest line of a record that is merged, compared by its time, or kept beside another:
    /// 16 MiB. Longer ones can be skipped or overwritten.
    pub const MAX_LINE_BYTES: usize = 16 << 20;

    /// `fields` says where a record's times and title are, `archive` where the records come
    /// from: it makes the new keys of [`Conflict::KeepBoth`] repeatable.
    ///
    /// # Errors
    /// A strategy that goes by time, without a field of times.
    pub fn new(strategy: Conflict, fields: &FieldMapping, archive: ArchiveId) -> Result<Self> {
        let by_time = matches!(strategy, Conflict::KeepNewer | Conflict::KeepOlder);
        if by_time && fields.updated_at.is_none() && fields.created_at.is_none() {
            let what = format!("{strategy} needs a field that holds the time of a change");
            return Err(Error::new(ErrorKind::InvalidInput, what)
                .advise("map updated_at or created_at, or choose another rule"));
        }
        Ok(Self { strategy, fields: fields.clone(), archive, key_fields: Vec::new() })
    }

    /// For files, folders and links, which have a time of their own.
    pub(crate) fn of_entries(strategy: Conflict, archive: ArchiveId) -> Self {
        Self { strategy, fields: FieldMapping::default(), archive, key_fields: Vec::new() }
    }

    /// Where a record's value repeats its key: a JSON pointer for each part, in order. A new
    /// key is written there, too.
    #[must_use]
    pub fn key_fields(mut self, pointers: impl IntoIterator<Item = String>) -> Self {
        self.key_fields = pointers.into_iter().collect();
        self
    }

    /// The strategy.
    #[must_use]
    pub fn strategy(&self) -> Conflict {
        self.strategy
    }

    /// Begins with one batch. The caller answers what it [asks](Resolution::asks) until it
    /// asks no more.
    #[must_use]
    pub fn start(&self, incoming: RecordBatch) -> Resolution<'_> {
        Resolution::new(self, incoming)
    }

    /// Resolves one batch where the live records are at hand.
    ///
    /// # Errors
    /// Those of [`Resolution::answer`], and what `existing` returns.
    pub fn resolve(
        &self,
        incoming: RecordBatch,
        mut existing: impl FnMut(&[Key]) -> Result<Vec<RecordBatch>>,
    ) -> Result<Resolved> {
        let mut resolution = self.start(incoming);
        while !resolution.asks().is_empty() {
            let answer = existing(resolution.asks())?;
            resolution.answer(answer)?;
        }
        resolution.finish()
    }
}
