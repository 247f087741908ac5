//! Texts that are alike.
//!
//! MinHash over short runs of characters finds the few texts worth comparing (Broder 1997;
//! bands as in Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3); those
//! are compared by edit distance.

use std::collections::HashMap;

use rapidfuzz::distance::levenshtein;

/// Bytes of a run.
const RUN: usize = 5;
/// A text is looked up by this many hashes …
const BANDS: usize = 32;
/// … each of the least values of this many permutations.
const ROWS: usize = 4;
/// So many of the latest texts with the same hash are looked at,
const LONGEST_WALK: usize = 256;
/// and so many of them are compared.
const MOST_COMPARED: usize = 16;
/// Shorter texts, normalised, have nothing to go by.
const SHORTEST: usize = 32;
/// Longer texts are compared by their beginning.
const LONGEST: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Fuzzy {
    threshold: f64,
    texts: Vec<Text>,
    // The latest text with a hash, and for each text and band the one before it.
    latest: HashMap<u64, u32>,
}

#[derive(Debug)]
struct Text {
    record: u32,
    text: Box<str>,
    earlier: [Option<u32>; BANDS],
}

/// A text as it is compared.
pub(super) struct Prepared {
    text: Box<str>,
    bands: [u64; BANDS],
}

impl Prepared {
    /// Words in lower case with one blank between them: neither punctuation nor white space
    /// counts. `None` for a text that is too short.
    pub(super) fn new(text: &str) -> Option<Self> {
        let text = normal(text);
        (text.len() >= SHORTEST).then(|| Self { bands: bands(text.as_bytes()), text: text.into() })
    }

    /// Bytes that it takes in memory.
    pub(super) fn byte_size(&self) -> usize {
        self.text.len() + size_of::<Text>() + BANDS * 24
    }
}

impl Fuzzy {
    pub(super) fn new(threshold: f64) -> Self {
        Self { threshold, texts: Vec::new(), latest: HashMap::new() }
    }

    /// The most similar text, if it is similar enough: its record, and how similar.
    pub(super) fn find(&self, text: &Prepared) -> Option<(u32, f64)> {
        let mut best = None;
        for candidate in self.candidates(text) {
            let known = best.map_or(self.threshold, |(_, score)| score);
            let args = levenshtein::Args::default().score_cutoff(known);
            let (a, b) = (candidate.text.chars(), text.text.chars());
            let score = levenshtein::normalized_similarity_with_args(a, b, &args);
            if let Some(score) = score.filter(|score| best.is_none() || *score > known) {
                best = Some((candidate.record, score));
            }
        }
        best
    }

    // Those with the most hashes in common first.
    fn candidates(&self, text: &Prepared) -> impl Iterator<Item = &Text> {
        let mut common: HashMap<u32, u32> = HashMap::new();
        for (band, hash) in text.bands.iter().enumerate() {
            let mut next = self.latest.get(hash).copied();
            for _ in 0..LONGEST_WALK {
                let Some(at) = next else { break };
                *common.entry(at).or_default() += 1;
                next = self.texts[at as usize].earlier[band];
            }
        }
        let mut common: Vec<_> = common.into_iter().map(|(at, bands)| (bands, at)).collect();
        common.sort_unstable_by_key(|(bands, at)| (std::cmp::Reverse(*bands), *at));
        common.into_iter().take(MOST_COMPARED).map(|(_, at)| &self.texts[at as usize])
    }

    pub(super) fn add(&mut self, text: Prepared, record: u32) {
        let at = u32::try_from(self.texts.len()).expect("memory is limited");
        let earlier = text.bands.map(|hash| self.latest.insert(hash, at));
        self.texts.push(Text { record, text: text.text, earlier });
    }
}

fn normal(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut normal = String::new();
    for word in words {
        if normal.len() + word.len() > LONGEST {
            break;
        }
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.extend(word.chars().flat_map(char::to_lowercase));
    }
    normal
}

fn bands(text: &[u8]) -> [u64; BANDS] {
    let mut least = [u32::MAX; BANDS * ROWS];
    for run in text.windows(RUN) {
        let run = run.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let hash = (mix(run) >> 32) as u32;
        for (i, least) in least.iter_mut().enumerate() {
            let (factor, term) = PERMUTATIONS[i];
            *least = (*least).min(hash.wrapping_mul(factor).wrapping_add(term));
        }
    }
    std::array::from_fn(|band| {
        let rows = &least[band * ROWS..][..ROWS];
        rows.iter()
            .fold(band as u64, |hash, least| mix(hash << 32 ^ hash >> 32 ^ u64::from(*least)))
    })
}

const PERMUTATIONS: [(u32, u32); BANDS * ROWS] = {
    let mut made = [(0, 0); BANDS * ROWS];
    let mut i = 0;
    while i < made.len() {
        let random = mix(i as u64 + 1);
        // An odd factor: every hash keeps a place of its own.
        made[i] = (random as u32 | 1, (random >> 32) as u32);
        i += 1;
    }
    made
};

// The finaliser of SplitMix64.
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
