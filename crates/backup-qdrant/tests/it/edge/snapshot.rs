//! Native snapshots of a real server, without one.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use backup_core::{
    ErrorKind,
    record::{BatchBuilder, ColumnId, ElementType, Key, RecordBatch, Tally, tagged},
};
use backup_qdrant::edge::Snapshot;
use serde_json::Value;

use super::{
    kit::{fixture, names},
    round_trip::rich,
};

/// The points as the server scrolled them, by the words of the format and nothing else.
fn expected(only: impl Fn(&Value) -> bool) -> Tally {
    let text = fs::read_to_string(fixture("rich.points.jsonl")).unwrap();
    let mut batch = BatchBuilder::new("rich");
    let dense: Vec<(&str, ColumnId, ElementType)> = [
        ("bytes", ElementType::U8, 8),
        ("half", ElementType::F16, 8),
        ("image", ElementType::F32, 8),
        ("text", ElementType::F32, 16),
    ]
    .map(|(name, element, dim)| (name, batch.dense(name, element, dim), element))
    .into();
    let colbert = batch.multi("colbert", ElementType::F32, 4);
    let bm25 = batch.sparse("bm25", ElementType::F32);
    let numbers = |json: &Value| -> Vec<f32> {
        json.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    };
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    for line in text.lines() {
        let point: Value = serde_json::from_str(line).unwrap();
        if !only(&point["id"]) {
            continue;
        }
        let key = match &point["id"] {
            Value::Number(number) => Key::from(number.as_u64().unwrap()),
            id => Key::from(id.as_str().unwrap()),
        };
        let payload = match &point["payload"] {
            Value::Null => Value::Object(Default::default()),
            payload => payload.clone(),
        };
        batch.push(&key, |json| json.value(&tagged::escape(payload))).unwrap();
        let vectors = &point["vector"];
        for (name, column, element) in &dense {
            let Some(json) = vectors.get(name) else { continue };
            let values = numbers(json);
            match element {
                ElementType::U8 => {
                    let values: Vec<u8> = values.iter().map(|v| *v as u8).collect();
                    batch.set(*column, &values).unwrap();
                }
                ElementType::F16 => {
                    let half = |v: &f32| half::f16::from_f32(*v).to_le_bytes();
                    let values: Vec<u8> = values.iter().flat_map(half).collect();
                    batch.set(*column, &values).unwrap();
                }
                _ => batch.set(*column, &bytes(&values)).unwrap(),
            }
        }
        if let Some(rows) = vectors.get("colbert") {
            let rows: Vec<f32> = rows.as_array().unwrap().iter().flat_map(numbers).collect();
            batch.set(colbert, &bytes(&rows)).unwrap();
        }
        if let Some(sparse) = vectors.get("bm25") {
            let places: Vec<u32> = sparse["indices"]
                .as_array()
                .unwrap()
                .iter()
                .map(|place| place.as_u64().unwrap() as u32)
                .collect();
            let mut pairs: Vec<_> = places.into_iter().zip(numbers(&sparse["values"])).collect();
            pairs.sort_by_key(|(place, _)| *place);
            let (places, values): (Vec<u32>, Vec<f32>) = pairs.into_iter().unzip();
            batch.set_sparse(bm25, &places, &bytes(&values)).unwrap();
        }
    }
    let mut tally = Tally::new();
    tally.add_batch(&batch.finish().unwrap());
    tally
}

fn keys(batches: impl Iterator<Item = backup_core::Result<RecordBatch>>) -> Vec<Value> {
    let mut keys = Vec::new();
    for batch in batches {
        let batch = batch.unwrap();
        keys.extend(batch.iter().map(|r| serde_json::from_str::<Value>(r.key_json()).unwrap()));
    }
    keys
}

#[test]
fn a_collections_snapshot_holds_what_the_server_had() {
    let scratch = tempfile::tempdir().unwrap();
    let snapshot = Snapshot::open(fixture("rich.snapshot"), scratch.path()).unwrap();
    assert_eq!((snapshot.shards(), snapshot.count().unwrap()), (2, 500));
    assert_eq!(snapshot.tally().unwrap(), expected(|_| true));
    let document = snapshot.schema("rich").unwrap().document;
    // A snapshot has no aliases; all else is as the server told it.
    let mut told = rich().document().clone();
    told.as_object_mut().unwrap().remove("aliases");
    assert_eq!(document, told);
    drop(snapshot);
    assert_eq!(names(scratch.path()), Vec::<String>::new());
}

#[test]
fn a_shards_snapshot_holds_its_part() {
    let scratch = tempfile::tempdir().unwrap();
    let snapshot = Snapshot::open(fixture("rich.shard0.snapshot"), scratch.path()).unwrap();
    assert_eq!((snapshot.shards(), snapshot.count().unwrap()), (1, 272));
    let keys = keys(snapshot.batches("rich"));
    assert_eq!(keys.len(), 272);
    assert_eq!(snapshot.tally().unwrap(), expected(|id| keys.contains(id)));
}

fn expected_of_shard() -> Tally {
    let scratch = tempfile::tempdir().unwrap();
    let shard = Snapshot::open(fixture("rich.shard0.snapshot"), scratch.path()).unwrap();
    shard.tally().unwrap()
}

#[test]
fn a_point_in_two_shards_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("moving.snapshot");
    let mut double = tar::Builder::new(File::create(&path).unwrap());
    for shard in 0..2 {
        let file = File::open(fixture("rich.shard0.snapshot")).unwrap();
        for entry in tar::Archive::new(file).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name.starts_with("segments/") {
                let mut header = entry.header().clone();
                double.append_data(&mut header, format!("{shard}/{name}"), &mut entry).unwrap();
            }
        }
    }
    double.finish().unwrap();
    let snapshot = Snapshot::open(&path, dir.path()).unwrap();
    assert_eq!((snapshot.shards(), snapshot.count().unwrap()), (2, 272));
    assert_eq!(snapshot.tally().unwrap(), expected_of_shard());
}

#[test]
fn an_older_server_names_shard_keys_in_another_form() {
    let dir = tempfile::tempdir().unwrap();
    let with = |mapping: &[u8]| {
        with_entry(dir.path(), "shard_key_mapping.json", tar::EntryType::Regular, mapping)
    };
    let none = Snapshot::open(with(b"{}"), dir.path()).unwrap();
    assert_eq!(none.tally().unwrap(), expected_of_shard());
    // Whether this is text or a number is lost.
    assert_eq!(refused(&with(br#"{"7":[0]}"#)), ErrorKind::Corrupt);
}

fn append(tar: &mut tar::Builder<File>, name: &str, kind: tar::EntryType, body: &[u8]) {
    let mut header = tar::Header::new_gnu();
    // As it is: `append_data` would refuse what is tested.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(body.len() as u64);
    header.set_mode(0o644);
    if kind == tar::EntryType::Symlink {
        header.set_link_name("/etc").unwrap();
    }
    header.set_cksum();
    tar.append(&header, body).unwrap();
}

/// A snapshot with one entry more.
fn with_entry(folder: &Path, name: &str, kind: tar::EntryType, body: &[u8]) -> PathBuf {
    let path = folder.join("odd.snapshot");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    append(&mut tar, name, kind, body);
    let rest = fs::read(fixture("rich.shard0.snapshot")).unwrap();
    let mut file = tar.into_inner().unwrap();
    // Without the two empty blocks that end the first.
    let len = file.metadata().unwrap().len();
    file.set_len(len - 1024).unwrap();
    file = File::options().append(true).open(&path).unwrap();
    file.write_all(&rest).unwrap();
    path
}

fn refused(path: &Path) -> ErrorKind {
    let scratch = tempfile::tempdir().unwrap();
    let error = Snapshot::open(path, scratch.path()).unwrap_err();
    assert_eq!(names(scratch.path()), Vec::<String>::new());
    assert!(!Path::new("/tmp/escaped").exists());
    error.kind()
}

#[test]
fn hostile_snapshots_are_refused() {
    use tar::EntryType;
    let dir = tempfile::tempdir().unwrap();
    let uuid = "d090381b-262e-4cfa-9583-65b946fbe45c";
    let file = |name: &str| refused(&with_entry(dir.path(), name, EntryType::Regular, b"x"));
    assert_eq!(file("segments/../../../../tmp/escaped"), ErrorKind::Hostile);
    assert_eq!(file("/tmp/escaped"), ErrorKind::Hostile);
    assert_eq!(file(&format!("segments/{uuid}/files/../../../x")), ErrorKind::Hostile);
    assert_eq!(file("segments/not-a-uuid.tar"), ErrorKind::Hostile);
    assert_eq!(file("many/segments/x.tar"), ErrorKind::Hostile);
    // The same segment comes again.
    assert_eq!(file(&format!("segments/{uuid}/files/segment.json")), ErrorKind::Hostile);
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Fifo, EntryType::Char] {
        let path = with_entry(dir.path(), &format!("segments/{uuid}"), kind, b"");
        assert_eq!(refused(&path), ErrorKind::Hostile, "{kind:?}");
    }
    // A segment that the engine would leave out in silence.
    let lone = "segments/11111111-262e-4cfa-9583-65b946fbe45c/files/segment.json";
    assert_eq!(file(lone), ErrorKind::Corrupt);
    let outside = br#"{"config":{"vector_data":{"/../../../escaped":{}}}}"#;
    let path = dir.path().join("name.snapshot");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    for (name, body) in [("segment.json", &outside[..]), ("version.info", b"0.6.0")] {
        let name = format!("segments/{uuid}/files/{name}");
        append(&mut tar, &name, EntryType::Regular, body);
    }
    tar.finish().unwrap();
    assert_eq!(refused(&path), ErrorKind::Unsupported);
}

#[test]
fn damaged_and_large_snapshots_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("rich.shard0.snapshot")).unwrap();
    let path = dir.path().join("cut.snapshot");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(refused(&path), ErrorKind::Corrupt);
    fs::write(&path, b"not a tar at all".repeat(100)).unwrap();
    assert_eq!(refused(&path), ErrorKind::Corrupt);
    fs::write(&path, b"").unwrap();
    assert_eq!(refused(&path), ErrorKind::Corrupt);
    let scratch = tempfile::tempdir().unwrap();
    let limited = Snapshot::open_limited(fixture("rich.snapshot"), scratch.path(), 64 << 20);
    assert_eq!(limited.unwrap_err().kind(), ErrorKind::LimitExceeded);
}
