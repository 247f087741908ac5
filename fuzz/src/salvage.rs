//! Salvage over archives that are damaged or forged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use arbitrary::{Arbitrary, Unstructured};
use backup_core::{
    Cancel, MemoryStore, RestoreOptions, Stores,
    archive::{Archive, Salvage},
    record::Sha256Digest,
};

use crate::{
    forge::{Edit, Forgery, edit},
    parts::{self, CODECS},
};

#[derive(Debug, Arbitrary)]
enum Input {
    /// A true archive: which, where it is cut, and what is changed.
    Damaged {
        codec: u8,
        cut: Option<u16>,
        edits: Vec<Edit>,
    },
    /// A forged one, and what is changed after its sealing.
    Forged(Box<Forgery>, Vec<Edit>),
    Raw(Vec<u8>),
}

type Hashes = BTreeMap<String, Sha256Digest>;

static SAMPLES: LazyLock<Vec<(Vec<u8>, Hashes)>> = LazyLock::new(|| {
    let sample = |codec| {
        let bytes = parts::archive(&parts::sample(), codec);
        let archive = Archive::from_source(bytes.clone()).unwrap();
        let parts = archive.entries().map(|part| {
            let part = part.unwrap();
            let content = archive.read(&part).unwrap();
            (part.path, Sha256Digest::of(&content))
        });
        (bytes, parts.collect())
    };
    CODECS.into_iter().map(sample).collect()
});

/// Salvages what the input says. What is handed out has its length, nothing comes twice, and
/// damage never gives a part that was not in the archive.
///
/// An input that begins with `raw:` is an archive as it stands.
pub fn salvage(data: &[u8]) {
    if let Some(raw) = data.strip_prefix(b"raw:") {
        return recover(raw.to_vec(), None);
    }
    match Unstructured::new(data).arbitrary() {
        Ok(Input::Damaged { codec, cut, edits }) => {
            let (bytes, hashes) = &SAMPLES[usize::from(codec) % SAMPLES.len()];
            let mut bytes = bytes.clone();
            bytes.truncate(cut.map_or(usize::MAX, usize::from));
            edit(&mut bytes, &edits);
            recover(bytes, Some(hashes));
        }
        Ok(Input::Forged(forgery, edits)) => {
            let mut bytes = forgery.archive();
            edit(&mut bytes, &edits);
            recover(bytes, None);
        }
        Ok(Input::Raw(bytes)) => recover(bytes, None),
        Err(_) => {}
    }
}

fn recover(bytes: Vec<u8>, known: Option<&Hashes>) {
    restore(bytes.clone());
    let Ok(salvage) = Salvage::from_source(bytes) else { return };
    let mut seen = BTreeSet::new();
    let report = salvage.parts(&Cancel::new(), &mut |part, content| {
        let (size, hash) = Sha256Digest::of_reader(content).unwrap();
        assert_eq!(size, part.size, "{}", part.path);
        assert!(seen.insert(part.path.clone()), "twice: {}", part.path);
        if let Some(known) = known {
            assert_eq!(known.get(&part.path), Some(&hash), "{}", part.path);
        }
        Ok(())
    });
    if let Ok(report) = report {
        assert_eq!(report.whole, seen.len() as u64);
        assert!(report.lost_count >= report.lost.len() as u64);
    }
}

/// Restores what is whole into stores in memory: what the report says is live then, or nothing.
fn restore(bytes: Vec<u8>) {
    let Ok(salvage) = Salvage::from_source(bytes) else { return };
    let named = salvage.manifest().map(|manifest| manifest.stores.keys().cloned().collect());
    let names: BTreeSet<String> =
        named.unwrap_or_else(|| ["v", "sql", "up"].map(Into::into).into());
    let stores: Vec<_> =
        names.into_iter().map(|name| (name, MemoryStore::new().with_kind("fuzz"))).collect();
    let empty = MemoryStore::new().with_kind("fuzz").snapshot();
    let set = stores
        .iter()
        .fold(Stores::new("fuzz", "1.0.0"), |set, (name, store)| set.with(name, store.clone()));
    let folder = tempfile::tempdir().unwrap();
    let options = RestoreOptions::new()
        .journal_dir(folder.path())
        .no_safety_backup()
        .allow_other_application(true);
    let restored = futures::executor::block_on(async {
        set.plan_salvage(salvage, &options).await?.execute().await
    });
    match restored {
        Ok(report) => {
            assert!(report.restored() && report.lost.is_some());
            for (name, store) in &stores {
                match report.stores.iter().find(|one| one.name == *name) {
                    Some(one) => {
                        let content = one.content.as_ref().unwrap();
                        assert_eq!(content.collections, store.content().collections, "{name}");
                    }
                    None => assert_eq!(store.snapshot(), empty, "{name}"),
                }
            }
        }
        Err(error) => {
            for (name, store) in &stores {
                assert_eq!(store.snapshot(), empty, "{name}: {error}");
            }
        }
    }
    for (name, store) in &stores {
        assert_eq!(store.traces(), [""; 0], "{name}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.len() <= 1, "only the lock: {left:?}");
}
