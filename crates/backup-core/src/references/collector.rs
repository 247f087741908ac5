//! The values at both ends of every reference, as records go by.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::{Fingerprint, Reference};
use crate::{
    manifest::{ReferenceCount, ReferenceEnd},
    migrate::Pointer,
    part::EntryPath,
    record::{Key, RecordBatch, canonical},
};

/// So many long values of an end are kept as text too, to name those that dangle: those with the
/// least fingerprints, so that the order in which they come does not matter.
const MAX_TEXTS: usize = 1 << 14;
/// Longer ones are not.
const MAX_TEXT_BYTES: usize = 256;
const EXAMPLES: usize = 5;

/// Collects the values of every end.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    links: Vec<Link>,
    ends: Vec<End>,
    max_values: usize,
}

#[derive(Debug)]
struct Link {
    reference: Reference,
    // Places in `ends`.
    from: usize,
    to: usize,
}

#[derive(Debug)]
struct End {
    declared: ReferenceEnd,
    // Its store and collection as they are called in what goes by.
    store: String,
    collection: String,
    pointer: Option<Pointer>,
    // Whether values of it point.
    points: bool,
    values: HashSet<Fingerprint>,
    texts: BTreeMap<Fingerprint, String>,
    trouble: Option<String>,
}

impl Collector {
    /// `name` says what the store and the collection of an end are called in what goes by.
    pub(crate) fn new(
        references: &[Reference],
        max_values: usize,
        name: impl Fn(&ReferenceEnd) -> (String, String),
    ) -> Self {
        let mut collector = Self { max_values, ..Self::default() };
        for reference in references {
            let from = collector.place(&reference.from, &name);
            let to = collector.place(&reference.to, &name);
            collector.ends[from].points = true;
            collector.links.push(Link { reference: reference.clone(), from, to });
        }
        collector
    }

    fn place(
        &mut self,
        end: &ReferenceEnd,
        name: impl Fn(&ReferenceEnd) -> (String, String),
    ) -> usize {
        if let Some(place) = self.ends.iter().position(|known| known.declared == *end) {
            return place;
        }
        let (store, collection) = name(end);
        self.ends.push(End {
            declared: end.clone(),
            store,
            collection,
            pointer: end.field.as_deref().map(Pointer::new),
            points: false,
            values: HashSet::new(),
            texts: BTreeMap::new(),
            trouble: None,
        });
        self.ends.len() - 1
    }

    /// Takes the values out of a batch. What cannot be looked into is told by
    /// [`counts`](Self::counts).
    pub(crate) fn batch(&mut self, store: &str, batch: &RecordBatch) {
        let mut ends = self.ends_in(store, batch.collection());
        if ends.is_empty() {
            return;
        }
        let looks = ends.iter().any(|(end, _)| end.pointer.is_some());
        for record in batch.iter() {
            let value = looks.then(|| match record.element_json() {
                Some(_) => Err("it has records that come in elements"),
                None => serde_json::from_str::<Value>(record.value_json())
                    .map_err(|_| "a record of it cannot be read"),
            });
            for (end, max) in &mut ends {
                match &value {
                    Some(value) if end.pointer.is_some() => end.field(value, *max),
                    _ => end.add(record.key_json(), *max),
                }
            }
        }
    }

    /// Takes the path of an entry.
    pub(crate) fn entry(&mut self, store: &str, root: &str, path: &EntryPath) {
        for (end, max) in self.ends_in(store, root) {
            if end.pointer.is_none() {
                end.add(Key::from(&*path.to_string()).as_json(), max);
            }
        }
    }

    fn ends_in(&mut self, store: &str, collection: &str) -> Vec<(&mut End, usize)> {
        let max = self.max_values;
        let ends = self.ends.iter_mut();
        ends.filter(|end| end.store == store && end.collection == collection)
            .map(|end| (end, max))
            .collect()
    }

    /// Once everything went by: `why` says why an end was not seen, if it was not.
    pub(crate) fn rule_out(&mut self, why: impl Fn(&ReferenceEnd) -> Option<String>) {
        for end in &mut self.ends {
            if let Some(trouble) = why(&end.declared) {
                end.fail(trouble);
            }
        }
    }

    /// What came of each reference.
    pub(crate) fn counts(&self) -> Vec<ReferenceCount> {
        (0..self.links.len()).map(|link| self.count(link)).collect()
    }

    fn count(&self, link: usize) -> ReferenceCount {
        let Link { reference, from, to } = &self.links[link];
        let (from, to) = (&self.ends[*from], &self.ends[*to]);
        let mut count = ReferenceCount::new(&reference.from, &reference.to);
        count.required = reference.required;
        count.values = from.values.len() as u64;
        let trouble = [from, to].into_iter().find_map(|end| Some((end, end.trouble.as_ref()?)));
        match trouble {
            Some((end, why)) => count.unchecked = Some(format!("{}: {why}", end.declared)),
            None => self.tell(link, &mut count, self.dangling(link)),
        }
        count
    }

    /// Writes into a count what dangles.
    pub(crate) fn tell(
        &self,
        link: usize,
        count: &mut ReferenceCount,
        mut dangling: Vec<Fingerprint>,
    ) {
        count.dangling = Some(dangling.len() as u64);
        dangling.sort_unstable();
        let known = dangling.iter().filter_map(|value| self.text(link, value));
        count.examples = known.take(EXAMPLES).collect();
    }

    /// The values of a reference that no record has.
    pub(crate) fn dangling(&self, link: usize) -> Vec<Fingerprint> {
        let Link { from, to, .. } = &self.links[link];
        let known = &self.ends[*to].values;
        self.ends[*from].values.iter().filter(|value| !known.contains(value)).copied().collect()
    }

    /// The canonical JSON of a value of a reference, where it was kept.
    pub(crate) fn text(&self, link: usize, value: &Fingerprint) -> Option<String> {
        let from = &self.ends[self.links[link].from];
        value.json().or_else(|| from.texts.get(value).cloned())
    }

    /// What the collection is called that a reference points to.
    pub(crate) fn target(&self, link: usize) -> (&str, &str) {
        let end = &self.ends[self.links[link].to];
        (&end.store, &end.collection)
    }
}

impl End {
    fn field(&mut self, value: &Result<Value, &str>, max: usize) {
        let found = match value {
            Ok(value) => self.pointer.as_ref().and_then(|pointer| pointer.get(value)),
            Err(why) => return self.fail((*why).to_owned()),
        };
        let items = match found {
            None => return,
            Some(Value::Array(items)) => items.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        for item in items.iter().filter(|item| !item.is_null()) {
            let mut json = Vec::new();
            let written = canonical::Writer::new(&mut json).value(item);
            match (written, String::from_utf8(json)) {
                (Ok(()), Ok(json)) => self.add(&json, max),
                _ => self.fail("a value of it cannot be read".into()),
            }
        }
    }

    fn add(&mut self, json: &str, max: usize) {
        if self.trouble.is_some() {
            return;
        }
        let value = Fingerprint::of(json);
        if !self.values.insert(value) {
            return;
        }
        if self.values.len() > max {
            return self.fail(format!("it has more than {max} different values"));
        }
        if self.points && json.len() <= MAX_TEXT_BYTES && value.json().is_none() {
            self.texts.insert(value, json.to_owned());
            if self.texts.len() > MAX_TEXTS {
                self.texts.pop_last();
            }
        }
    }

    // What was collected by then would count too little.
    fn fail(&mut self, why: String) {
        self.trouble.get_or_insert(why);
        (self.values, self.texts) = Default::default();
    }
}
