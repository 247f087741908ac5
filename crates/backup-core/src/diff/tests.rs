use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::executor::block_on;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    BackupOptions, EntryPath, MemoryStore, Step,
    archive::ReadAt,
    manifest::CollectionInfo,
    record::{BatchBuilder, Key},
};

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).unwrap()
}

fn notes() -> MemoryStore {
    let store = MemoryStore::new().with_batch_records(7).with_partitions(3);
    for key in 0..20 {
        store.insert_with_vector("notes", key, json!({"n": key}), "text", &[0.5]).unwrap();
    }
    store.insert("tags", "a", json!(1)).unwrap();
    store.create("empty", json!({"ddl": "x"}), CollectionInfo::default());
    store
}

fn uploads() -> MemoryStore {
    let store = MemoryStore::new();
    store.put_directory("root", path("a"));
    store.put_file("root", path("a/b"), vec![7; 3 << 20]);
    store.put_file("root", path("a/c"), "c");
    store.put_symlink("root", path("link"), "a/b");
    store.put_blob("native.db", vec![3; 100_000]);
    store
}

fn stores(notes: &MemoryStore, uploads: &MemoryStore) -> Stores {
    Stores::new("docs", "1.0.0").with("state", notes.clone()).with("uploads", uploads.clone())
}

fn backup(stores: &Stores, dir: &Path, name: &str) -> Archive {
    let path = dir.join(name);
    block_on(stores.backup_to_file(&path, &BackupOptions::new())).unwrap();
    Archive::open(path).unwrap()
}

// One difference of every kind.
fn change(notes: &MemoryStore, uploads: &MemoryStore) {
    assert!(notes.remove("notes", 3) && notes.remove("notes", 11));
    notes.insert("notes", 100, json!({})).unwrap();
    let other = json!({"n": "other"});
    notes.insert_with_vector("notes", 4, other.clone(), "text", &[0.5]).unwrap();
    notes.insert_with_vector("notes", 5, json!({"n": 5}), "text", &[0.75]).unwrap();
    notes.insert_with_vector("notes", 6, other.clone(), "text", &[0.75]).unwrap();
    // Another column, the same line.
    notes.insert_with_vector("notes", 7, json!({"n": 7}), "more", &[0.5]).unwrap();
    notes.remove_collection("tags");
    notes.insert("later", 1, json!(1)).unwrap();
    notes.create("empty", json!({"ddl": "y"}), CollectionInfo::default());
    uploads.put_file("root", path("a/b"), vec![8; 3 << 20]);
    uploads.put_file("root", path("d"), "d");
    uploads.put_symlink("root", path("link"), "a/c");
    uploads.put_blob("native.db", vec![4; 100_000]);
    uploads.put_blob("more.db", "more");
}

const FOUND: &str = "\
state
  empty: another schema
  later: only right, with 1
  notes: 2 only left, 1 only right, 2 changed, 3 with other vectors
    < 11
    < 3
    > 100
    ~ 4
    ~ 6
    v 5
    v 6
    v 7
  tags: only left, with 1
uploads
  more.db: only right
  native.db: differs; a native snapshot is compared as a whole
  root: 1 only right, 2 changed
    > d
    ~ a/b
    ~ link
";

fn found(report: &DiffReport) -> String {
    let text = report.to_string();
    text.lines().skip(2).map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_difference_between_two_archives_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (notes, uploads) = (notes(), uploads());
    let all = stores(&notes, &uploads);
    let one = backup(&all, dir.path(), "one");
    let same = backup(&all, dir.path(), "same");
    change(&notes, &uploads);
    let two = backup(&all, dir.path(), "two");

    let report = block_on(one.diff(&same, &DiffOptions::new())).unwrap();
    assert!(report.is_equal());
    assert_eq!(found(&report), "state: equal\nuploads: equal\n");
    let report = block_on(one.diff(&two, &DiffOptions::new())).unwrap();
    assert!(!report.is_equal());
    assert_eq!(found(&report), FOUND);
    assert!(report.to_string().starts_with(&format!("left:  {}", one.path().unwrap().display())));
    let counts = &report.stores["state"].collections["notes"];
    assert_eq!((counts.left, counts.right), (20, 19));
    let back = block_on(two.diff(&one, &DiffOptions::new())).unwrap();
    let turned = &back.stores["state"].collections["notes"];
    assert_eq!((&turned.only_left, &turned.only_right), (&counts.only_right, &counts.only_left));
    assert_eq!(back.stores["uploads"].native["more.db"].only, Some(DiffSide::Left));

    let only = DiffOptions::new().stores(["uploads"]).keys(1);
    let report = block_on(one.diff(&two, &only)).unwrap();
    assert_eq!(report.stores.len(), 1);
    let changed = &report.stores["uploads"].collections["root"].changed;
    assert_eq!((changed.count, &changed.first[..]), (2, &["a/b".to_owned()][..]));
    assert!(report.to_string().contains("    ~ a/b\n    ~ and 1 more\n"), "{report}");
    // Known, and on neither side.
    let gone = MemoryStore::new();
    gone.unreachable();
    let live = Stores::new("docs", "1.0.0").with("state", notes).optional("cache", gone);
    let chosen = DiffOptions::new().stores(["cache", "state"]);
    assert_eq!(block_on(live.diff(&two, &chosen)).unwrap().stores.len(), 1);
    let nothing = DiffOptions::new().stores(["cache"]);
    let error = block_on(one.diff(&two, &nothing)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_store_of_one_side_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (notes, uploads) = (notes(), uploads());
    let both = backup(&stores(&notes, &uploads), dir.path(), "both");
    let one = backup(&Stores::new("docs", "1.0.0").with("state", notes), dir.path(), "one");
    let report = block_on(both.diff(&one, &DiffOptions::new())).unwrap();
    assert_eq!(found(&report), "state: equal\nuploads: only left\n");
    assert!(!report.is_equal());
}

#[test]
fn the_live_stores_are_read_and_compared_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (notes, uploads) = (notes(), uploads());
    let all = stores(&notes, &uploads);
    let archive = backup(&all, dir.path(), "one");
    let report = block_on(all.diff(&archive, &DiffOptions::new())).unwrap();
    assert!(report.is_equal() && report.warnings.is_empty(), "{report}");
    change(&notes, &uploads);
    let before = (notes.snapshot(), uploads.snapshot());
    let report = block_on(all.diff(&archive, &DiffOptions::new())).unwrap();
    assert_eq!(found(&report), FOUND);
    assert!(report.to_string().contains("right: the live stores\n"), "{report}");
    assert!((notes.snapshot(), uploads.snapshot()) == before);

    uploads.pinnable(false);
    let report = block_on(all.diff(&archive, &DiffOptions::new())).unwrap();
    assert_eq!(report.warnings, ["uploads was read while it could change"]);
}

#[test]
fn a_store_that_fails_ends_the_comparison_and_an_optional_one_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (notes, uploads) = (notes(), uploads());
    let archive = backup(&stores(&notes, &uploads), dir.path(), "one");
    for step in [Step::Pin, Step::Partitions, Step::Next] {
        notes.fail_at(step, 1, ErrorKind::Unreachable);
        let all = stores(&notes, &uploads);
        let error = block_on(all.diff(&archive, &DiffOptions::new())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{step:?}");
    }
    notes.unreachable();
    let all = Stores::new("docs", "1.0.0").with("uploads", uploads).optional("state", notes);
    let report = block_on(all.diff(&archive, &DiffOptions::new())).unwrap();
    assert_eq!(report.stores["state"].only, Some(DiffSide::Left));
    assert!(report.warnings[0].starts_with("state: "), "{:?}", report.warnings);
}

#[test]
fn a_comparison_that_is_cancelled_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (notes, uploads) = (notes(), uploads());
    let all = stores(&notes, &uploads);
    let archive = backup(&all, dir.path(), "one");
    change(&notes, &uploads);
    let cancel = Cancel::new();
    let (stop, asked) = (cancel.clone(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&asked);
    notes.hook(move |step| {
        if step == Step::Next {
            stop.cancel();
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let error = block_on(all.diff(&archive, &DiffOptions::new().cancel(&cancel))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

struct Counted(Vec<u8>, Arc<AtomicU64>);

impl ReadAt for Counted {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}

#[test]
fn records_are_read_only_where_digests_differ() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    // Does not compress.
    let noise = |words: u64, seed: u64| {
        let bytes =
            (0..words).flat_map(|n| (n + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        bytes.collect::<Vec<_>>()
    };
    store.put_file("large", path("f"), noise(1 << 20, 1));
    store.put_file("small", path("f"), noise(1 << 14, 1));
    let all = Stores::new("docs", "1.0.0").with("s", store.clone());
    let one = backup(&all, dir.path(), "one");
    store.put_file("small", path("f"), noise(1 << 14, 2));
    backup(&all, dir.path(), "two");
    let bytes = std::fs::read(dir.path().join("two")).unwrap();
    let (read, size) = (Arc::new(AtomicU64::new(0)), bytes.len() as u64);
    let two = Archive::from_source(Counted(bytes, Arc::clone(&read))).unwrap();
    let report = block_on(one.diff(&two, &DiffOptions::new())).unwrap();
    assert_eq!(report.stores["s"].collections["small"].changed.count, 1);
    assert_eq!(report.right.path, None);
    let read = read.load(Ordering::Relaxed);
    assert!(read < size / 2, "{read} of {size}");
}

#[test]
fn records_that_share_a_key_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let sides = gather::sides(dir.path()).unwrap();
    for (side, values) in [&["1", "2", "2"][..], &["2", "1"]].into_iter().enumerate() {
        let mut builder = BatchBuilder::new("c");
        for value in values {
            builder.push_json(&Key::null(), value.as_bytes()).unwrap();
        }
        let batch = builder.finish().unwrap();
        let mut warnings = Vec::new();
        let cancel = &Cancel::new();
        let mut to = Gathering { sides: &sides, side, cancel, warnings: &mut warnings };
        block_on(to.part("s", crate::Part::Records(batch))).unwrap();
    }
    let place = ("s".to_owned(), "c".to_owned());
    let wanted = BTreeSet::from([place.clone()]);
    let merged = sides.call(move |sides| merge::merge(sides, &wanted, 9, &Cancel::new()));
    let merged = block_on(merged).unwrap();
    let counts = merged[&place].each_ref().map(|keys| keys.count);
    assert_eq!(counts, [1, 0, 0, 0]);
}

type Model = BTreeMap<u8, (u8, Option<u8>)>;

fn side() -> impl Strategy<Value = Model> {
    proptest::collection::btree_map(0..60_u8, (0..3_u8, proptest::option::of(0..2_u8)), 0..60)
}

fn filled(side: &Model) -> MemoryStore {
    let store = MemoryStore::new().with_batch_records(5).with_partitions(2);
    store.create("c", json!({}), CollectionInfo::default());
    for (key, (value, vector)) in side {
        let (key, value) = (i32::from(*key), json!(value));
        match vector {
            Some(v) => store.insert_with_vector("c", key, value, "v", &[f32::from(*v)]).unwrap(),
            None => store.insert("c", key, value).unwrap(),
        }
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_two_sides_differ_as_a_simple_model_says(left in side(), right in side(), most in 0..5_usize) {
        let dir = tempfile::tempdir().unwrap();
        let of = |side| Stores::new("docs", "1.0.0").with("s", filled(side));
        let archive = backup(&of(&left), dir.path(), "left");
        let report = block_on(of(&right).diff(&archive, &DiffOptions::new().keys(most))).unwrap();
        let keys = |wanted: &dyn Fn(&u8) -> bool| {
            let all = left.keys().chain(right.keys()).filter(|key| wanted(key));
            let all: BTreeSet<String> = all.map(ToString::to_string).collect();
            DiffKeys { count: all.len() as u64, first: all.into_iter().take(most).collect() }
        };
        let both = |key: &u8| left.get(key).zip(right.get(key));
        let found = &report.stores["s"].collections["c"];
        prop_assert_eq!(&found.only_left, &keys(&|key| !right.contains_key(key)));
        prop_assert_eq!(&found.only_right, &keys(&|key| !left.contains_key(key)));
        prop_assert_eq!(&found.changed, &keys(&|key| both(key).is_some_and(|(l, r)| l.0 != r.0)));
        prop_assert_eq!(&found.vectors, &keys(&|key| both(key).is_some_and(|(l, r)| l.1 != r.1)));
        prop_assert_eq!(report.is_equal(), left == right);
    }
}
