//! Record by record through a collection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    exact::Exact,
    fuzzy::{Fuzzy, Prepared},
    options::DuplicateOptions,
    semantic::Semantic,
};
use crate::{
    conflict::Resolver,
    error::{Error, ErrorKind, Result},
    manifest::FieldMapping,
    record::{Key, RecordBatch, RecordRef, canonical},
};

/// In which way two records say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DuplicateKind {
    /// Equal values.
    Exact,
    /// Texts that are alike.
    Fuzzy,
    /// Vectors that are alike.
    Semantic,
}

/// What a record is a duplicate of.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Duplicate {
    /// The key of the earlier record.
    pub of: Key,
    /// In which way.
    pub kind: DuplicateKind,
    /// How much alike they are: 1 where they are equal, else similarity or cosine.
    pub score: f64,
}

/// Records that say the same.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DuplicateGroup {
    /// In which way.
    pub kind: DuplicateKind,
    /// Their keys: first the one that all others are alike.
    pub keys: Vec<Key>,
    /// The least score of those others.
    pub score: f64,
}

/// What a [`Finder`] found.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct DuplicateReport {
    /// Records that were compared.
    pub records: u64,
    /// Large records, and elements of such, which were not.
    pub left_out: u64,
    /// The groups, in the order of their first records.
    pub groups: Vec<DuplicateGroup>,
}

impl DuplicateReport {
    /// How many records would go if one of each group stayed.
    #[must_use]
    pub fn surplus(&self, kind: DuplicateKind) -> usize {
        let groups = self.groups.iter().filter(|group| group.kind == kind);
        groups.map(|group| group.keys.len() - 1).sum()
    }
}

/// Looks for records of one collection that say the same under different keys.
///
/// Each record is compared with those before it, and is a duplicate of at most one: an equal
/// one, else the one with the most similar text, else the one with the nearest vector. A
/// record that is alike another is not one that others are compared with for likeness, so
/// there are no chains: all records of a group are alike its first.
///
/// ```
/// use backup_core::{DuplicateKind, DuplicateOptions, Finder, manifest::FieldMapping};
/// use backup_core::record::{BatchBuilder, Key};
///
/// let mut builder = BatchBuilder::new("notes");
/// builder.push_json(&Key::from(1), br#"{"text":"Water the plants"}"#)?;
/// builder.push_json(&Key::from(2), br#"{"text":"Feed the cat"}"#)?;
/// builder.push_json(&Key::from(3), br#"{"text":"Water the plants"}"#)?;
///
/// let mut finder = Finder::new(&DuplicateOptions::default(), &FieldMapping::default())?;
/// finder.add(&builder.finish()?)?;
/// let report = finder.finish();
/// assert_eq!(report.groups[0].kind, DuplicateKind::Exact);
/// assert_eq!(report.groups[0].keys, [Key::from(1), Key::from(3)]);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Finder {
    exact: Option<Exact>,
    fuzzy: Option<Fuzzy>,
    semantic: Option<Semantic>,
    text: [Option<String>; 2],
    // Of the records that others were or may be compared with.
    keys: Vec<Key>,
    groups: BTreeMap<(u32, DuplicateKind), (f64, Vec<Key>)>,
    records: u64,
    left_out: u64,
    memory: usize,
    used: usize,
}

// What of a record is compared.
struct Probe {
    digest: Option<crate::record::Sha256Digest>,
    text: Option<Prepared>,
    vector: Option<Vec<f32>>,
}

// The earlier record's place in `keys`.
struct Found {
    at: u32,
    kind: DuplicateKind,
    score: f64,
}

impl Finder {
    /// `fields` says where the text of a record is (the content, else the title), and its
    /// times, which do not count.
    ///
    /// # Errors
    /// A threshold that is not within 0 and 1; an ignored field that is no JSON pointer;
    /// a search for texts without a mapped field.
    pub fn new(options: &DuplicateOptions, fields: &FieldMapping) -> Result<Self> {
        let semantic = options.semantic.as_ref();
        let thresholds = options.fuzzy.into_iter().chain(semantic.map(|s| s.threshold));
        if let Some(bad) = thresholds.into_iter().find(|t| !(*t > 0.0 && *t <= 1.0)) {
            let what = format!("{bad} is not a threshold for duplicates");
            return Err(
                Error::new(ErrorKind::InvalidInput, what).advise("use a number above 0, up to 1")
            );
        }
        if options.fuzzy.is_some() && fields.content.is_none() && fields.title.is_none() {
            let what = "a search for similar texts needs a field that holds the text";
            return Err(Error::new(ErrorKind::InvalidInput, what).advise("map content or title"));
        }
        let times = [&fields.created_at, &fields.updated_at].into_iter().flatten();
        let ignored = options.ignore.iter().chain(times).map(String::as_str);
        Ok(Self {
            exact: options.exact.then(|| Exact::new(ignored)).transpose()?,
            fuzzy: options.fuzzy.map(Fuzzy::new),
            semantic: semantic.map(|s| Semantic::new(s.vector.clone(), s.threshold)),
            text: [fields.content.clone(), fields.title.clone()],
            keys: Vec::new(),
            groups: BTreeMap::new(),
            records: 0,
            left_out: 0,
            memory: options.memory,
            used: 0,
        })
    }

    /// Looks at every record of a batch, for the report.
    ///
    /// # Errors
    /// As [`seen`](Self::seen).
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        for record in batch.iter() {
            if let Some(found) = self.look(record)? {
                let group = (found.score, Vec::new());
                let group = self.groups.entry((found.at, found.kind)).or_insert(group);
                group.0 = group.0.min(found.score);
                group.1.push(record.key());
                self.used += record.key_json().len() + size_of::<Key>();
            }
        }
        Ok(())
    }

    /// What of the records so far this one says again; the caller may then leave it out.
    ///
    /// # Errors
    /// More records than [memory](DuplicateOptions::memory) holds; vectors that cannot be
    /// compared.
    pub fn seen(&mut self, record: RecordRef<'_>) -> Result<Option<Duplicate>> {
        let found = self.look(record)?;
        Ok(found.map(|Found { at, kind, score }| Duplicate {
            of: self.keys[at as usize].clone(),
            kind,
            score,
        }))
    }

    /// What was found in all batches.
    #[must_use]
    pub fn finish(self) -> DuplicateReport {
        let groups = self.groups.into_iter().map(|((first, kind), (score, others))| {
            let first = self.keys[first as usize].clone();
            DuplicateGroup { kind, score, keys: [first].into_iter().chain(others).collect() }
        });
        DuplicateReport { records: self.records, left_out: self.left_out, groups: groups.collect() }
    }

    fn look(&mut self, record: RecordRef<'_>) -> Result<Option<Found>> {
        if record.element_json().is_some() || record.line().len() > Resolver::MAX_LINE_BYTES {
            self.left_out += 1;
            return Ok(None);
        }
        self.records += 1;
        let subject = || format!("{}, record {}", record.collection(), record.key_json());
        let probe = self.probe(record).map_err(|e| e.on(subject()))?;
        if let Some(at) = probe.digest.and_then(|digest| self.exact.as_ref()?.find(&digest)) {
            return Ok(Some(Found { at, kind: DuplicateKind::Exact, score: 1.0 }));
        }
        let alike = self.alike(&probe);
        self.remember(record, probe, alike.is_some())?;
        Ok(alike)
    }

    fn probe(&self, record: RecordRef<'_>) -> Result<Probe> {
        let value = canonical::parse(record.value_json().as_bytes())?;
        let text = |value: &Value| {
            let mut places = self.text.iter().flatten();
            Prepared::new(places.find_map(|pointer| value.pointer(pointer)?.as_str())?)
        };
        Ok(Probe {
            text: self.fuzzy.as_ref().and_then(|_| text(&value)),
            vector: match &self.semantic {
                Some(semantic) => semantic.prepare(record)?,
                None => None,
            },
            digest: self.exact.as_ref().map(|exact| exact.digest(record, &value)).transpose()?,
        })
    }

    fn alike(&self, probe: &Probe) -> Option<Found> {
        let text = self.fuzzy.as_ref().zip(probe.text.as_ref());
        if let Some((at, score)) = text.and_then(|(fuzzy, text)| fuzzy.find(text)) {
            return Some(Found { at, kind: DuplicateKind::Fuzzy, score });
        }
        let (semantic, vector) = self.semantic.as_ref().zip(probe.vector.as_ref())?;
        let (at, score) = semantic.find(vector)?;
        Some(Found { at, kind: DuplicateKind::Semantic, score })
    }

    // A record that is alike another can have equals, but no others that are alike.
    fn remember(&mut self, record: RecordRef<'_>, probe: Probe, alike: bool) -> Result<()> {
        self.used += size_of::<Key>() + record.key_json().len();
        self.used += probe.digest.map_or(0, |_| Exact::BYTES);
        if !alike {
            self.used += probe.text.as_ref().map_or(0, Prepared::byte_size);
            self.used += probe.vector.as_ref().map_or(0, |vector| size_of_val(&vector[..]));
        }
        let at = u32::try_from(self.keys.len()).ok().filter(|_| self.used <= self.memory);
        let Some(at) = at else {
            let what = format!(
                "{} records are too many to be searched for duplicates in {} MiB",
                self.records,
                self.memory >> 20
            );
            return Err(Error::new(ErrorKind::LimitExceeded, what)
                .on(record.collection())
                .advise("allow more memory, select fewer records, or look for exact ones only"));
        };
        self.keys.push(record.key());
        if let Some((exact, digest)) = self.exact.as_mut().zip(probe.digest) {
            exact.add(digest, at);
        }
        if alike {
            return Ok(());
        }
        if let Some((fuzzy, text)) = self.fuzzy.as_mut().zip(probe.text) {
            fuzzy.add(text, at);
        }
        if let Some((semantic, vector)) = self.semantic.as_mut().zip(probe.vector) {
            semantic.add(&vector, at);
        }
        Ok(())
    }
}
