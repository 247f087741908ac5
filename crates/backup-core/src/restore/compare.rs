//! What should be there against what is there.

use std::{collections::BTreeMap, fmt};

use crate::{
    error::{Error, ErrorKind, Result},
    part::Content,
    record::Tally,
};

/// Compares the whole content of a store; the error names the first difference.
pub(crate) fn compare(store: &str, expected: &Content, found: &Content) -> Result<()> {
    let at = |name: &str| format!("{store}: {name}");
    each(&expected.collections, &found.collections, "collection", at, |name, a, b| {
        tallies(a, b).map_err(|e| e.on(at(name)))
    })?;
    each(&expected.blobs, &found.blobs, "native file", at, |name, a, b| {
        equal("length", a.len, b.len)
            .and_then(|()| equal("digest", a.digest, b.digest))
            .map_err(|e| e.on(at(name)))
    })
}

/// Compares one collection.
pub(crate) fn tallies(expected: &Tally, found: &Tally) -> Result<()> {
    equal("number of records", expected.records, found.records)?;
    equal("digest of the records", expected.digest, found.digest)?;
    // A column without any vector is as good as none.
    let some = |tally: &Tally| {
        let vectors = tally.vectors.iter().filter(|(_, vector)| vector.count > 0);
        vectors.map(|(name, vector)| (name.clone(), vector.clone())).collect::<BTreeMap<_, _>>()
    };
    each(&some(expected), &some(found), "vector", str::to_owned, |name, a, b| {
        equal("number of vectors", a.count, b.count)
            .and_then(|()| equal("digest of the vectors", a.digest, b.digest))
            .map_err(|e| e.on(name))
    })
}

fn each<T>(
    expected: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
    what: &str,
    at: impl Fn(&str) -> String,
    same: impl Fn(&str, &T, &T) -> Result<()>,
) -> Result<()> {
    for (name, one) in expected {
        match found.get(name) {
            Some(other) => same(name, one, other)?,
            None => return Err(mismatch(format!("a {what} is not there")).on(at(name))),
        }
    }
    match found.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(mismatch(format!("a {what} is there that should not be")).on(at(name))),
        None => Ok(()),
    }
}

fn equal<T: PartialEq + fmt::Display>(what: &str, expected: T, found: T) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(mismatch(format!("the {what} differs: expected {expected}, found {found}")))
}

fn mismatch(what: String) -> Error {
    Error::new(ErrorKind::Mismatch, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        part::BlobContent,
        record::{Sha256Digest, VectorTally},
    };

    #[test]
    fn every_difference_is_found_and_named() {
        let mut content = Content::new();
        let mut tally = Tally::new();
        tally.add_line(b"a");
        tally.vectors.insert("v".into(), VectorTally { count: 1, ..VectorTally::default() });
        content.collections.insert("c".into(), tally.clone());
        let digest = Sha256Digest::of(b"");
        content.blobs.insert("b".into(), BlobContent { len: 3, digest, masked: Vec::new() });
        compare("s", &content, &content).unwrap();

        let differs = |change: fn(&mut Content), text: &str| {
            let mut other = content.clone();
            change(&mut other);
            for (one, two) in [(&content, &other), (&other, &content)] {
                let error = compare("s", one, two).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Mismatch);
                assert!(error.to_string().contains("(s: "), "{error}");
            }
            assert_eq!(compare("s", &content, &other).unwrap_err().to_string(), text);
        };
        differs(
            |c| c.collections.get_mut("c").unwrap().add_line(b"a"),
            "the number of records differs: expected 1, found 2 (s: c)",
        );
        differs(|c| _ = c.collections.remove("c"), "a collection is not there (s: c)");
        differs(
            |c| _ = c.collections.insert("d".into(), Tally::new()),
            "a collection is there that should not be (s: d)",
        );
        differs(
            |c| _ = c.collections.get_mut("c").unwrap().vectors.remove("v"),
            "a vector is not there (s: c: v)",
        );
        differs(
            |c| c.blobs.get_mut("b").unwrap().len = 4,
            "the length differs: expected 3, found 4 (s: b)",
        );
        differs(|c| _ = c.blobs.remove("b"), "a native file is not there (s: b)");
        let mut other = content.clone();
        let tally = other.collections.get_mut("c").unwrap();
        *tally = Tally::new();
        tally.add_line(b"b");
        assert!(compare("s", &content, &other).unwrap_err().to_string().contains("digest"));
        let mut other = content.clone();
        other.blobs.get_mut("b").unwrap().digest = Sha256Digest::of(b"x");
        assert!(compare("s", &content, &other).unwrap_err().to_string().contains("digest"));
    }
}
