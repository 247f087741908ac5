//! Both sides of the collections that differ, one partition at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    gather::{Gathered, Place},
    report::DiffKeys,
    spill::PARTITIONS,
};
use crate::{cancel::Cancel, error::Result, record::ContentDigest};

/// Only left, only right, changed, with other vectors.
pub(super) type Changes = [DiffKeys; 4];

/// What one side has under a key: usually one record; an engine may allow several under `null`.
#[derive(Default, Clone, Copy, PartialEq)]
struct Under {
    records: u64,
    line: ContentDigest,
    vectors: ContentDigest,
}

/// What differs in the collections `wanted`; of each kind at most `most` keys.
pub(super) fn merge(
    sides: &mut [Gathered; 2],
    wanted: &BTreeSet<Place>,
    most: usize,
    cancel: &Cancel,
) -> Result<BTreeMap<Place, Changes>> {
    let wanted: Vec<&Place> = wanted.iter().collect();
    let mut found = vec![<[Found; 4]>::default(); wanted.len()];
    let of_side = |side: &Gathered| -> Vec<Option<usize>> {
        side.places.iter().map(|place| wanted.binary_search(&place).ok()).collect()
    };
    let numbers = [of_side(&sides[0]), of_side(&sides[1])];
    for partition in 0..PARTITIONS {
        cancel.check()?;
        let mut under: HashMap<(usize, Box<[u8]>), [Under; 2]> = HashMap::new();
        for (number, side) in sides.iter_mut().enumerate() {
            side.spill.each(partition, |record| {
                let Some(place) = numbers[number][record.collection as usize] else { return };
                let one = &mut under.entry((place, record.key.into())).or_default()[number];
                one.records += 1;
                one.line.add(&record.line);
                one.vectors.add(&record.vectors);
            })?;
        }
        for ((place, key), [left, right]) in under {
            let [only_left, only_right, changed, vectors] = &mut found[place];
            only_left.add(&key, left.records.saturating_sub(right.records), most);
            only_right.add(&key, right.records.saturating_sub(left.records), most);
            if left.records == right.records {
                changed.add(&key, (left.line != right.line).into(), most);
                vectors.add(&key, (left.vectors != right.vectors).into(), most);
            }
        }
    }
    let places = wanted.into_iter().cloned();
    Ok(places.zip(found.into_iter().map(|four| four.map(Found::keys))).collect())
}

#[derive(Default, Clone)]
struct Found {
    count: u64,
    first: BTreeSet<Box<[u8]>>,
}

impl Found {
    fn add(&mut self, key: &[u8], count: u64, most: usize) {
        self.count += count;
        let last = self.first.last();
        let early = self.first.len() < most || last.is_some_and(|last| key < &**last);
        if count == 0 || most == 0 || !early {
            return;
        }
        self.first.insert(key.into());
        if self.first.len() > most {
            self.first.pop_last();
        }
    }

    fn keys(self) -> DiffKeys {
        let text = |key: Box<[u8]>| String::from_utf8_lossy(&key).into_owned();
        DiffKeys { count: self.count, first: self.first.into_iter().map(text).collect() }
    }
}
