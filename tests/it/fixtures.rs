//! The archives of `fixtures/`, which every version has to open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use backup_kit::{
    Cancel, Result,
    archive::{Archive, Salvage, VerifyMode},
    record::Sha256Digest,
};
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/archives/v1")
}

/// Name, bytes, and what has to happen.
fn fixtures() -> Vec<(String, Vec<u8>, Value)> {
    let text = fs::read(folder().join("expected.json")).unwrap();
    let expected: BTreeMap<String, Value> = serde_json::from_slice(&text).unwrap();
    expected
        .into_iter()
        .map(|(name, expected)| {
            let bytes = fs::read(folder().join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, bytes, expected)
        })
        .collect()
}

#[test]
fn no_fixture_was_changed_and_each_is_listed() {
    let mut names = BTreeSet::new();
    for (name, bytes, expected) in fixtures() {
        assert_eq!(Sha256Digest::of(&bytes).to_string(), expected["sha256"], "{name} was changed");
        names.insert(name);
    }
    for kind in ["golden", "damaged"] {
        for file in fs::read_dir(folder().join(kind)).unwrap() {
            let name = format!("{kind}/{}", file.unwrap().file_name().display());
            assert!(names.contains(&name), "{name} is not in expected.json");
        }
    }
}

/// Records, and the hash of every part.
fn read(bytes: &[u8]) -> Result<(u64, BTreeMap<String, String>)> {
    let archive = Archive::from_source(bytes.to_vec())?;
    let report = archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {})?;
    let parts = archive.entries().map(|part| {
        let part = part?;
        let hash = Sha256Digest::of(&archive.read(&part)?).to_string();
        Ok((part.path, hash))
    });
    Ok((report.records, parts.collect::<Result<_>>()?))
}

fn salvaged(bytes: Vec<u8>) -> u64 {
    let report = Salvage::from_source(bytes)
        .and_then(|salvage| salvage.parts(&Cancel::new(), &mut |_, _| Ok(())));
    report.map_or(0, |report| report.whole)
}

#[test]
fn golden_archives_are_whole_and_damaged_ones_are_refused() {
    let (mut golden, mut damaged) = (0, 0);
    for (name, bytes, expected) in fixtures() {
        if name.ends_with(".zst") && !cfg!(feature = "zstd") {
            continue;
        }
        match read(&bytes) {
            Ok((records, parts)) => {
                assert_eq!(expected["records"], records, "{name}");
                let known: BTreeMap<String, String> =
                    serde_json::from_value(expected["parts"].clone()).unwrap();
                assert_eq!(parts, known, "{name}");
                golden += 1;
            }
            Err(error) => {
                assert_eq!(expected["error"], error.kind().as_str(), "{name}: {error}");
                assert!(salvaged(bytes) >= expected["salvaged"].as_u64().unwrap(), "{name}");
                damaged += 1;
            }
        }
    }
    assert!(golden >= 6 && damaged >= 60, "{golden} golden, {damaged} damaged");
}
