//! What is counted, against a model that keeps everything.

use std::collections::BTreeSet;

use futures::executor::block_on;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    BackupOptions, BackupReport, EntryPath, MemoryStore, Selection,
    manifest::ReferenceCount,
    record::{BatchBuilder, Key, RecordBatch},
};

fn points_to_passages() -> Reference {
    let from = ReferenceEnd::field("state", "notes", "/points");
    Reference::new(from, ReferenceEnd::key("vectors", "passages"))
}

fn collector(max_values: usize) -> Collector {
    Collector::new(&[points_to_passages()], max_values, |end| {
        (end.store.clone(), end.collection.clone())
    })
}

fn batch<'r>(collection: &str, records: impl IntoIterator<Item = (Key, &'r Value)>) -> RecordBatch {
    let mut builder = BatchBuilder::new(collection);
    for (key, value) in records {
        builder.push_json(&key, value.to_string().as_bytes()).unwrap();
    }
    builder.finish().unwrap()
}

fn only(counts: Vec<ReferenceCount>) -> ReferenceCount {
    let [count] = <[_; 1]>::try_from(counts).unwrap();
    count
}

#[test]
fn a_short_value_and_a_uuid_are_kept_as_they_are() {
    let uuid = r#""019b7d1c-8c22-7bbb-8000-0123456789ab""#;
    for json in ["7", "-1.5", r#""""#, r#""fourteen bytes""#, "[1,2]", uuid] {
        assert_eq!(Fingerprint::of(json).json().as_deref(), Some(json));
    }
    let upper = uuid.to_uppercase();
    let bare = uuid.replace('-', "");
    let long = r#""fifteen bytes..""#;
    let mut all = BTreeSet::from([Fingerprint::of(uuid)]);
    for json in [&upper, &bare, long] {
        assert_eq!(Fingerprint::of(json).json(), None, "{json}");
        assert!(all.insert(Fingerprint::of(json)));
    }
    assert_ne!(Fingerprint::of("1"), Fingerprint::of(r#""1""#));
}

#[test]
fn the_end_of_a_reference_is_read_as_it_is_written() {
    for (text, end) in [
        ("state/notes", ReferenceEnd::key("state", "notes")),
        ("state/a/b:c", ReferenceEnd::key("state", "a/b:c")),
        ("state/notes:/meta/id", ReferenceEnd::field("state", "notes", "/meta/id")),
    ] {
        assert_eq!(text.parse::<ReferenceEnd>().unwrap(), end);
        assert_eq!(end.to_string(), text);
    }
    for bad in ["", "state", "/notes", "state/", "state:/id", "state/:/id"] {
        assert!(bad.parse::<ReferenceEnd>().is_err(), "{bad}");
    }
}

#[test]
fn a_value_counts_once_and_null_not_at_all() {
    let mut collector = collector(100);
    let notes =
        [json!({"points": [1, null, "1", [2]]}), json!({"points": 1}), json!({"points": null})];
    let more = [json!({"other": 9}), json!("text"), json!({"points": []})];
    collector.batch("state", &batch("notes", notes.iter().map(|value| (1.into(), value))));
    collector.batch("state", &batch("notes", more.iter().map(|value| (1.into(), value))));
    collector.batch("state", &batch("others", [(1.into(), &json!({"points": 5}))]));
    collector.batch("vectors", &batch("passages", [(1.into(), &json!(0))]));
    let count = only(collector.counts());
    assert_eq!((count.values, count.dangling), (3, Some(2)));
    assert_eq!(count.examples, [r#""1""#, "[2]"]);
    assert_eq!(
        count.to_string(),
        r#"state/notes:/points -> vectors/passages: 2 of 3 values dangle: "1", [2]"#
    );
}

#[test]
fn what_is_too_much_or_cannot_be_looked_into_is_not_counted() {
    let mut small = collector(3);
    let value = json!({"points": [1, 2, 3, 3, 2, 1]});
    small.batch("state", &batch("notes", [(1.into(), &value)]));
    assert_eq!(only(small.counts()).dangling, Some(3));
    small.batch("state", &batch("notes", [(1.into(), &json!({"points": 4}))]));
    let count = only(small.counts());
    assert_eq!((count.dangling, count.examples.len()), (None, 0));
    let why = "state/notes:/points: it has more than 3 different values";
    assert_eq!(count.unchecked.as_deref(), Some(why));

    let elements = |collection| {
        let mut builder = BatchBuilder::new(collection);
        for element in ["a", "b"] {
            let element = Key::from(element);
            builder
                .push_element(&Key::from(1), &element, |json| {
                    json.null();
                    Ok(())
                })
                .unwrap();
        }
        builder.finish().unwrap()
    };
    let mut large = collector(100);
    large.batch("state", &batch("notes", [(1.into(), &json!({"points": 1}))]));
    large.batch("vectors", &elements("passages"));
    assert_eq!(only(large.counts()).dangling, Some(0), "a key is a key");
    large.batch("state", &elements("notes"));
    assert!(only(large.counts()).unchecked.unwrap().contains("elements"));
}

#[test]
fn examples_do_not_depend_on_the_order() {
    let keys: Vec<_> = (0..20_000).map(|n| format!("docs:long:passage:{n}")).collect();
    let counted = |keys: &mut dyn Iterator<Item = &String>| {
        let mut collector = collector(1 << 20);
        for key in keys {
            collector.batch("state", &batch("notes", [(1.into(), &json!({"points": key}))]));
        }
        only(collector.counts())
    };
    let count = counted(&mut keys.iter());
    assert_eq!((count.dangling, count.examples.len()), (Some(20_000), 5));
    assert_eq!(count, counted(&mut keys.iter().rev()));
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        (0..30).prop_map(Value::from),
        (0..30).prop_map(|n: i32| Value::from(n.to_string())),
        (0..30_u32).prop_map(|n| Value::from(format!("docs:a:long:name:{n}"))),
        (0..30_u128).prop_map(|n| Value::from(uuid::Uuid::from_u128(n).to_string())),
    ]
}

fn key(value: &Value) -> Key {
    Key::from_json(&value.to_string()).unwrap()
}

proptest! {
    #[test]
    fn counts_are_those_of_a_model(
        notes in proptest::collection::vec(
            prop_oneof![value(), proptest::collection::vec(value(), 0..5).prop_map(Value::from)],
            0..30,
        ),
        passages in proptest::collection::vec(value(), 0..30),
        targets_first in any::<bool>(),
        size in 1_usize..8,
    ) {
        let mut collector = collector(1000);
        let records: Vec<_> = notes.iter().map(|value| json!({"points": value})).collect();
        for first in [targets_first, !targets_first] {
            if first {
                for some in passages.chunks(size) {
                    let some = some.iter().map(|value| (key(value), &Value::Null));
                    collector.batch("vectors", &batch("passages", some));
                }
            } else {
                for some in records.chunks(size) {
                    let some = some.iter().map(|value| (Key::from(1), value));
                    collector.batch("state", &batch("notes", some));
                }
            }
        }
        let known: BTreeSet<_> = passages.iter().map(Value::to_string).collect();
        let items = notes.iter().flat_map(|value| match value {
            Value::Array(items) => items.clone(),
            one => vec![one.clone()],
        });
        let pointing: BTreeSet<_> =
            items.filter(|item| !item.is_null()).map(|item| item.to_string()).collect();
        let dangling: BTreeSet<_> = pointing.difference(&known).cloned().collect();
        let count = only(collector.counts());
        prop_assert_eq!(count.values, pointing.len() as u64);
        prop_assert_eq!(count.dangling, Some(dangling.len() as u64));
        prop_assert_eq!(count.examples.len(), dangling.len().min(5));
        prop_assert!(count.examples.iter().all(|example| dangling.contains(example)));
    }
}

fn memory() -> (MemoryStore, MemoryStore) {
    let (rows, points) = (MemoryStore::new().with_batch_records(3), MemoryStore::new());
    for n in 0..10 {
        rows.insert("notes", n, json!({"points": [n, n + 1], "n": n})).unwrap();
    }
    for n in 0..9 {
        points.insert("passages", n, json!({})).unwrap();
    }
    (rows, points)
}

fn stores(rows: &MemoryStore, points: &MemoryStore) -> Stores {
    Stores::new("docs", "1.0.0")
        .with("state", rows.clone())
        .optional("vectors", points.clone())
        .reference(points_to_passages())
}

fn backup(stores: &Stores, options: &BackupOptions) -> Result<BackupReport> {
    let dir = tempfile::tempdir().unwrap();
    block_on(stores.backup_to_file(dir.path().join("x.tar.gz"), options))
}

#[test]
fn a_backup_counts_what_dangles() {
    let (rows, points) = memory();
    let report = backup(&stores(&rows, &points), &BackupOptions::new()).unwrap();
    assert!(report.outcome.is_complete() && report.manifest.notice_count == 0);
    let count = only(report.manifest.references);
    assert_eq!((count.values, count.dangling), (11, Some(2)));
    assert_eq!(count.examples, ["9", "10"]);
    // There is no such collection, so nothing is in it.
    points.remove_collection("passages");
    let report = backup(&stores(&rows, &points), &BackupOptions::new()).unwrap();
    assert_eq!(only(report.manifest.references).dangling, Some(11));
    // A part, in which fewer point and are pointed to.
    let (rows, points) = memory();
    let part = Selection::parse(["state/notes: /n<3"]).unwrap();
    let report = backup(&stores(&rows, &points), &BackupOptions::new().select(part)).unwrap();
    let count = only(report.manifest.references);
    assert_eq!((count.values, count.dangling), (4, Some(0)));
}

#[test]
fn files_are_named_by_their_paths() {
    let (rows, files) = (MemoryStore::new(), MemoryStore::new());
    rows.insert("notes", 1, json!({"path": "a/b"})).unwrap();
    rows.insert("notes", 2, json!({"path": "a/c"})).unwrap();
    files.put_directory("root", EntryPath::new("a").unwrap());
    files.put_file("root", EntryPath::new("a/b").unwrap(), vec![7; 3]);
    let stores = Stores::new("docs", "1.0.0").with("state", rows).with("uploads", files).reference(
        Reference::new(
            ReferenceEnd::field("state", "notes", "/path"),
            ReferenceEnd::key("uploads", "root"),
        ),
    );
    let report = backup(&stores, &BackupOptions::new()).unwrap();
    assert_eq!(only(report.manifest.references).examples, [r#""a/c""#]);
}

#[test]
fn a_backup_says_why_it_did_not_count() {
    let why = |stores: &Stores, options: &BackupOptions| {
        let manifest = backup(stores, options).unwrap().manifest;
        let count = only(manifest.references);
        assert_eq!(count.dangling, None);
        let why = count.unchecked.unwrap();
        let told = manifest.notices.iter().filter(|n| n.notice.detail.contains(&why)).count();
        assert_eq!(told, 1, "{:?}", manifest.notices);
        why
    };
    let (rows, points) = memory();
    let all = BackupOptions::new();
    let one = BackupOptions::new().stores(["state"]);
    assert!(why(&stores(&rows, &points), &one).contains("is not backed up"));
    let part = BackupOptions::new().select(Selection::new().collection("state", "notes"));
    assert!(why(&stores(&rows, &points), &part).contains("not backed up"));
    points.put_blob("native.db", vec![3; 100]);
    points.remove_collection("passages");
    assert!(why(&stores(&rows, &points), &all).contains("native form"));
    points.unreachable();
    assert!(why(&stores(&rows, &points), &all).contains("could not be reached"));
    let (rows, points) = memory();
    points.insert("others", 1, json!(1)).unwrap();
    let part = Selection::new().store("state").collection("vectors", "others");
    let part = BackupOptions::new().select(part);
    assert!(why(&stores(&rows, &points), &part).contains("not selected"));
}

#[test]
fn a_reference_that_cannot_be_followed_is_refused() {
    let (rows, points) = memory();
    let refused = |from: &str, to: &str| {
        let reference = Reference::new(from.parse().unwrap(), to.parse().unwrap());
        let error = backup(&stores(&rows, &points).reference(reference), &BackupOptions::new());
        error.unwrap_err()
    };
    let error = refused("state/notes:/n", "graph/nodes");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.subject(), Some("reference state/notes:/n -> graph/nodes: graph"));
    assert!(error.advice().contains("state, vectors"), "{}", error.advice());
    assert_eq!(refused("state/notes:/a~2", "vectors/passages").kind(), ErrorKind::InvalidInput);
    let error = refused("state/notes:/points", "vectors/passages");
    assert!(error.to_string().contains("declared twice"), "{error}");
}
