//! One batch on its way through the rules.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    identity,
    merge::merge,
    output::{Output, has_vectors_of, same_vectors},
    resolver::{Conflict, Resolver},
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::{Edit, Key, RecordBatch, RecordRef, canonical},
    select,
};

/// How often another key is tried for a record that is kept beside others.
const MAX_ATTEMPTS: u32 = 16;

/// What is to be written of one batch, and what became of its records.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Resolved {
    /// The records to write. More than one batch where records were merged.
    pub batches: Vec<RecordBatch>,
    /// How many records went which way.
    pub counts: ConflictCounts,
    /// The records of the archive that are not written although they differ.
    pub skipped: Vec<Skipped>,
    /// The records that got a new key.
    pub copied: Vec<Copied>,
}

/// How many records went which way; element records count one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConflictCounts {
    /// Keys that the live store did not have.
    pub created: u64,
    /// Live records that the archive's replace.
    pub updated: u64,
    /// Live records to which the archive's were added.
    pub merged: u64,
    /// Records that are written under a new key.
    pub copied: u64,
    /// Records of the archive that gave way to the live ones.
    pub skipped: u64,
    /// Records that need no write: what would be written is live.
    pub unchanged: u64,
    /// Those of `skipped` of which one side had no time to go by.
    pub undated: u64,
}

impl ConflictCounts {
    /// Adds those of another batch.
    pub fn add(&mut self, other: &Self) {
        let Self { created, updated, merged, copied, skipped, unchanged, undated } = other;
        self.created += created;
        self.updated += updated;
        self.merged += merged;
        self.copied += copied;
        self.skipped += skipped;
        self.unchanged += unchanged;
        self.undated += undated;
    }
}

/// A record of the archive that is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Its key.
    pub key: Key,
    /// Why the live one stays.
    pub reason: SkipReason,
}

/// Why the live record stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SkipReason {
    /// It is there, and the rule is to skip.
    Exists,
    /// It was changed later.
    LiveIsNewer,
    /// It was changed earlier.
    LiveIsOlder,
    /// Both were changed at the same time.
    SameTime,
    /// One of the two has no time.
    NoTime,
}

/// A record of the archive that is written under a new key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Its key in the archive.
    pub key: Key,
    /// Its key in the live store.
    pub new_key: Key,
}

/// One batch that is being resolved: it asks for live records until it knows enough.
///
/// ```
/// # use backup_core::{Result, Resolver, Resolved, record::{Key, RecordBatch}};
/// # fn existing(_keys: &[Key]) -> Result<Vec<RecordBatch>> { Ok(Vec::new()) }
/// fn resolve(resolver: &Resolver, batch: RecordBatch) -> Result<Resolved> {
///     let mut resolution = resolver.start(batch);
///     while !resolution.asks().is_empty() {
///         let live = existing(resolution.asks())?; // session.existing(…).await in a restore
///         resolution.answer(live)?;
///     }
///     resolution.finish()
/// }
/// ```
#[derive(Debug)]
pub struct Resolution<'r> {
    resolver: &'r Resolver,
    incoming: RecordBatch,
    asks: Vec<Key>,
    progress: Progress,
}

#[derive(Debug, Default)]
struct Progress {
    // One for each record, once the first answer is there.
    edits: Vec<Edit>,
    merged: Output,
    copies: Vec<Copy>,
    // Keys that a copy cannot have.
    taken: HashSet<Key>,
    counts: ConflictCounts,
    skipped: Vec<Skipped>,
    copied: Vec<Copied>,
}

// A record that is looking for a free key.
#[derive(Debug)]
struct Copy {
    row: usize,
    attempt: u32,
    key: Key,
    value: Value,
}

// The lines of one key on one side.
#[derive(Default)]
struct Lines<'a> {
    all: Vec<RecordRef<'a>>,
    elements: bool,
}

impl<'a> Lines<'a> {
    fn by_key(batches: impl IntoIterator<Item = &'a RecordBatch>) -> HashMap<&'a str, Self> {
        let mut index: HashMap<_, Self> = HashMap::new();
        for record in batches.into_iter().flat_map(RecordBatch::iter) {
            let lines = index.entry(record.key_json()).or_default();
            lines.elements |= record.element_json().is_some();
            lines.all.push(record);
        }
        index
    }
}

impl<'r> Resolution<'r> {
    pub(super) fn new(resolver: &'r Resolver, incoming: RecordBatch) -> Self {
        let mut seen = HashSet::new();
        let asks = incoming.iter().filter(|record| seen.insert(record.key_json()));
        let asks = asks.map(|record| record.key()).collect();
        Self { resolver, incoming, asks, progress: Progress::default() }
    }

    /// The keys whose live records it has to see next, each once; none: it can be
    /// [finished](Self::finish).
    #[must_use]
    pub fn asks(&self) -> &[Key] {
        &self.asks
    }

    /// Takes the live records of the keys that were asked for: whole, with their vectors, in
    /// any order, in any number of batches. A key without one is free.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) where the rule is to fail, and for records that the
    /// rule cannot take apart.
    pub fn answer(&mut self, existing: Vec<RecordBatch>) -> Result<()> {
        let asks = std::mem::take(&mut self.asks);
        let live = Lines::by_key(&existing);
        if self.progress.edits.is_empty() {
            self.progress.taken.extend(asks);
            self.progress.decide_all(self.resolver, &self.incoming, &live)?;
        } else {
            self.progress.check_copies(self.resolver, &self.incoming, &live)?;
        }
        self.asks = self.progress.copies.iter().map(|copy| copy.key.clone()).collect();
        Ok(())
    }

    /// What to write.
    ///
    /// # Errors
    /// Keys that were asked for and not answered.
    pub fn finish(self) -> Result<Resolved> {
        if !self.asks.is_empty() {
            let what = "a batch was finished before its live records were looked at";
            return Err(Error::adapter(what).on(self.incoming.collection()));
        }
        let Progress { edits, merged, counts, skipped, copied, .. } = self.progress;
        let mut edits = edits.into_iter();
        let kept = self.incoming.edit(|_| Ok(edits.next().unwrap_or(Edit::Keep)))?;
        let batches = [kept].into_iter().chain(merged.finish()?);
        let batches = batches.filter(|batch| !batch.is_empty()).collect();
        Ok(Resolved { batches, counts, skipped, copied })
    }
}

impl Progress {
    fn decide_all(
        &mut self,
        resolver: &Resolver,
        incoming: &RecordBatch,
        live: &HashMap<&str, Lines<'_>>,
    ) -> Result<()> {
        let archived = Lines::by_key([incoming]);
        let mut conflicts = Vec::new();
        for record in incoming.iter() {
            let key = record.key_json();
            let edit = match live.get(key) {
                None => {
                    self.counts.created += 1;
                    Edit::Keep
                }
                Some(live) => {
                    let decided = self.decide(resolver, record, &archived[key], live);
                    decided.map_err(|e| e.on(subject(record, incoming)))?.unwrap_or_else(|| {
                        conflicts.push(record);
                        Edit::Drop
                    })
                }
            };
            self.edits.push(edit);
        }
        let Some(first) = conflicts.first() else { return Ok(()) };
        let what = format!("{} records differ from the live ones", conflicts.len());
        Err(Error::new(ErrorKind::Conflict, what)
            .on(format!("first {}", subject(*first, incoming))))
    }

    // What becomes of a record whose key is live; `None` where the rule is to fail.
    fn decide(
        &mut self,
        resolver: &Resolver,
        record: RecordRef<'_>,
        archived: &Lines<'_>,
        live: &Lines<'_>,
    ) -> Result<Option<Edit>> {
        let strategy = resolver.strategy;
        let large = archived.elements || live.elements;
        let equal = live.all.iter().any(|live| same(record, *live));
        // A large record is replaced as a whole, its equal elements too.
        if equal && !(large && strategy == Conflict::Overwrite) {
            self.counts.unchanged += 1;
            return Ok(Some(Edit::Drop));
        }
        match strategy {
            Conflict::Skip => return Ok(Some(self.skip(record, SkipReason::Exists))),
            Conflict::Fail => return Ok(None),
            Conflict::Overwrite if large => {}
            _ if !large && (archived.all.len() > 1 || live.all.len() > 1) => {
                return Err(Error::new(ErrorKind::Conflict, "several records have the same key")
                    .advise("choose skip or fail for this collection"));
            }
            _ => {}
        }
        if strategy == Conflict::Overwrite {
            self.counts.updated += 1;
            return Ok(Some(Edit::Keep));
        }
        let live = live.all[0];
        let longest = record.line().len().max(live.line().len());
        if large || longest > Resolver::MAX_LINE_BYTES {
            let what = format!("a large record cannot be resolved by {strategy}");
            return Err(Error::new(ErrorKind::Conflict, what)
                .advise("choose skip, overwrite or fail for this collection"));
        }
        match strategy {
            Conflict::KeepBoth => self.copy(resolver, record),
            Conflict::Merge => self.merge(resolver, record, live),
            _ => self.by_time(resolver, record, live),
        }
        .map(Some)
    }

    fn skip(&mut self, record: RecordRef<'_>, reason: SkipReason) -> Edit {
        self.counts.skipped += 1;
        self.counts.undated += u64::from(reason == SkipReason::NoTime);
        self.skipped.push(Skipped { key: record.key(), reason });
        Edit::Drop
    }

    fn merge(
        &mut self,
        resolver: &Resolver,
        record: RecordRef<'_>,
        live: RecordRef<'_>,
    ) -> Result<Edit> {
        let value = merge(value(live)?, value(record)?, resolver.fields.tags.as_deref());
        if has_vectors_of(live, record) && text(&value)? == live.value_json() {
            self.counts.unchanged += 1;
        } else {
            self.counts.merged += 1;
            self.merged.push(record, live, &value)?;
        }
        Ok(Edit::Drop)
    }

    fn by_time(
        &mut self,
        resolver: &Resolver,
        record: RecordRef<'_>,
        live: RecordRef<'_>,
    ) -> Result<Edit> {
        let newer = resolver.strategy == Conflict::KeepNewer;
        let reason = match (time(resolver, record)?, time(resolver, live)?) {
            (Some(archived), Some(live)) if archived == live => SkipReason::SameTime,
            (Some(archived), Some(live)) if newer == (archived > live) => {
                self.counts.updated += 1;
                return Ok(Edit::Keep);
            }
            (Some(_), Some(_)) if newer => SkipReason::LiveIsNewer,
            (Some(_), Some(_)) => SkipReason::LiveIsOlder,
            _ => SkipReason::NoTime,
        };
        Ok(self.skip(record, reason))
    }

    fn copy(&mut self, resolver: &Resolver, record: RecordRef<'_>) -> Result<Edit> {
        let copy = Copy { row: record.row(), attempt: 0, key: Key::null(), value: Value::Null };
        self.propose(resolver, record, copy)?;
        // Until its key is known to be free.
        Ok(Edit::Drop)
    }

    // The next key that no record of this batch has.
    fn propose(
        &mut self,
        resolver: &Resolver,
        record: RecordRef<'_>,
        mut copy: Copy,
    ) -> Result<()> {
        while copy.attempt < MAX_ATTEMPTS {
            let collection = record.collection();
            copy.key = identity::new_key(resolver, collection, &record.key(), copy.attempt)?;
            copy.attempt += 1;
            if self.taken.insert(copy.key.clone()) {
                copy.value = value(record)?;
                identity::relabel(resolver, &mut copy.value, &copy.key)?;
                self.copies.push(copy);
                return Ok(());
            }
        }
        let what = format!("{MAX_ATTEMPTS} new keys for a record are all in use");
        Err(Error::new(ErrorKind::Conflict, what)
            .advise("remove copies from earlier imports, or choose another rule"))
    }

    fn check_copies(
        &mut self,
        resolver: &Resolver,
        incoming: &RecordBatch,
        live: &HashMap<&str, Lines<'_>>,
    ) -> Result<()> {
        for copy in std::mem::take(&mut self.copies) {
            let record = incoming.get(copy.row);
            let Some(live) = live.get(copy.key.as_json()) else {
                self.counts.copied += 1;
                self.copied.push(Copied { key: record.key(), new_key: copy.key.clone() });
                self.edits[copy.row] =
                    Edit::Change { key: Some(copy.key), value: Some(copy.value) };
                continue;
            };
            let written = text(&copy.value)?;
            let is_copy = |live: &RecordRef<'_>| {
                live.element_json().is_none()
                    && live.value_json() == written
                    && same_vectors(record, *live)
            };
            if live.all.iter().all(is_copy) {
                // An earlier import of the same archive made it.
                self.counts.unchanged += 1;
            } else {
                self.propose(resolver, record, copy)
                    .map_err(|e| e.on(subject(record, incoming)))?;
            }
        }
        Ok(())
    }
}

fn subject(record: RecordRef<'_>, batch: &RecordBatch) -> String {
    format!("{}, record {}", batch.collection(), record.key_json())
}

fn same(a: RecordRef<'_>, b: RecordRef<'_>) -> bool {
    a.line() == b.line() && same_vectors(a, b)
}

fn value(record: RecordRef<'_>) -> Result<Value> {
    canonical::parse(record.value_json().as_bytes())
}

fn text(value: &Value) -> Result<String> {
    let mut out = Vec::new();
    canonical::Writer::new(&mut out).value(value)?;
    Ok(String::from_utf8(out).expect("canonical text is UTF-8"))
}

// When a record was changed, else when it was made.
fn time(resolver: &Resolver, record: RecordRef<'_>) -> Result<Option<jiff::Timestamp>> {
    let value = value(record)?;
    let fields = &resolver.fields;
    let at = |pointer: &Option<String>| value.pointer(pointer.as_deref()?).and_then(select::time);
    Ok(at(&fields.updated_at).or_else(|| at(&fields.created_at)))
}
