use futures::executor::block_on;
use serde_json::json;

use super::*;
use crate::{
    Cancel, Part, PinRequest, Pinned, Reattached, Sink, SinkSession, Source, SourceSession,
    StagePlan, StageToken, WriteMode,
};

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).unwrap()
}

/// A little of everything.
fn filled() -> MemoryStore {
    let store = MemoryStore::new().with_batch_records(2);
    store.create("empty", json!({"ddl": "x"}), CollectionInfo::default());
    for key in 0..5 {
        store.insert("notes", key, json!({"n": key})).unwrap();
    }
    store.insert_with_vector("notes", 2, json!(2), "text", &[0.5, -0.0]).unwrap();
    // The same name in another dimension: not in one column with the other.
    store.insert_with_vector("notes", 3, json!(3), "text", &[f32::NAN]).unwrap();
    let mut builder = BatchBuilder::new("notes");
    let multi = builder.multi("m", ElementType::U8, 2);
    let sparse = builder.sparse("s", ElementType::F16);
    builder
        .push_element(&Key::from("hash"), &Key::from("field"), |json| {
            json.null();
            Ok(())
        })
        .unwrap();
    builder.push_json(&Key::from("v"), b"[]").unwrap();
    builder.set(multi, &[1, 2, 3, 4]).unwrap();
    builder.set_sparse(sparse, &[7, 9], &[1, 2, 3, 4]).unwrap();
    store.insert_batch(&builder.finish().unwrap()).unwrap();
    store.put_directory("uploads", path("a"));
    store.put_file("uploads", path("a/b"), "text");
    store.put_symlink("uploads", path("link"), "a/b");
    store.put_blob("native.bin", vec![7; 1000]);
    store
}

fn open(store: &MemoryStore) -> Box<dyn SourceSession> {
    match block_on(store.pin(&PinRequest::new())).unwrap() {
        Pinned::Pinned { session, .. } | Pinned::Live { session, .. } => session,
    }
}

fn read_all(store: &MemoryStore) -> Vec<Part> {
    let session = open(store);
    let mut parts = Vec::new();
    for partition in block_on(session.partitions()).unwrap() {
        while let Some(part) = block_on(session.next(&partition)).unwrap() {
            parts.push(part);
        }
    }
    parts
}

fn token(store: &MemoryStore, mode: WriteMode) -> StageToken {
    let mut plan = StagePlan::new("r1", "s", store.kind());
    plan.mode = mode;
    block_on(store.prepare(&plan)).unwrap().token
}

fn stage(store: &MemoryStore, token: &StageToken, parts: Vec<Part>) -> Box<dyn SinkSession> {
    let session = block_on(store.begin(token, &Cancel::new())).unwrap();
    for part in parts {
        block_on(session.write(part)).unwrap();
    }
    session
}

#[test]
fn everything_comes_back() {
    for partitions in [1, 3] {
        let (from, to) = (filled().with_partitions(partitions), MemoryStore::new());
        to.insert("old", 1, json!(1)).unwrap();
        let token = token(&to, WriteMode::Replace);
        let session = stage(&to, &token, read_all(&from));
        assert_eq!(block_on(session.verify(&Content::new())).unwrap(), from.content());
        assert_eq!(to.content().collections["old"].records, 1);
        block_on(session.commit()).unwrap();
        block_on(session.finish()).unwrap();
        assert_eq!(to.snapshot(), from.snapshot());
        assert_eq!(to.traces(), [""; 0]);
    }
}

#[test]
fn a_pinned_session_does_not_see_later_changes_and_a_live_one_says_so() {
    let store = filled();
    let records = |session: &dyn SourceSession| {
        let partition = &block_on(session.partitions()).unwrap()[0];
        let mut records = 0;
        while let Some(part) = block_on(session.next(partition)).unwrap() {
            if let Part::Records(batch) = part {
                records += batch.len();
            }
        }
        records
    };
    let pinned = open(&store);
    store.insert("notes", 99, json!(0)).unwrap();
    assert_eq!(records(&*pinned), 7);
    assert_eq!(block_on(pinned.close()).unwrap().changed, None);

    store.pinnable(false);
    let live = open(&store);
    store.remove("notes", 99);
    assert_eq!(records(&*live), 7);
    assert_eq!(block_on(live.close()).unwrap().changed, Some(true));
}

#[test]
fn a_merge_keeps_what_is_there() {
    let (from, to) = (MemoryStore::new(), MemoryStore::new());
    from.insert("c", 1, json!("new")).unwrap();
    to.insert("c", 1, json!("old")).unwrap();
    to.insert("c", 2, json!("old")).unwrap();
    let before = to.snapshot();
    let session = stage(&to, &token(&to, WriteMode::Merge), read_all(&from));
    let existing = block_on(session.existing("c", &[Key::from(1), Key::from(3)])).unwrap();
    assert_eq!(existing.len(), 1);
    assert_eq!(&existing[0].text()[..], b"{\"key\":1,\"value\":\"old\"}\n");
    block_on(session.commit()).unwrap();
    assert_eq!((to.get("c", 1), to.get("c", 2)), (Some(json!("new")), Some(json!("old"))));
    block_on(session.undo()).unwrap();
    assert_eq!(to.snapshot(), before);
}

#[test]
fn a_merge_tells_of_its_own_records_and_refuses_what_changed() {
    let (from, to) = (MemoryStore::new(), MemoryStore::new());
    from.insert("c", 1, json!("new")).unwrap();
    from.insert("c", 3, json!("new")).unwrap();
    to.insert("c", 1, json!("old")).unwrap();
    to.insert("c", 2, json!("old")).unwrap();
    let session = stage(&to, &token(&to, WriteMode::Merge), read_all(&from));
    let keys = [Key::from(1), Key::from(2), Key::from(3)];
    let ask = || block_on(session.existing("c", &keys)).unwrap();
    ask();
    assert!(block_on(session.existing("absent", &keys)).unwrap().is_empty());
    for change in [(1, "other"), (3, "not free any more")] {
        to.insert("c", change.0, json!(change.1)).unwrap();
        let error = block_on(session.commit()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        ask();
    }
    to.insert("c", 2, json!("not written")).unwrap();
    let verify = || block_on(session.verify(&Content::new())).unwrap();
    assert_eq!(verify(), from.content());
    block_on(session.commit()).unwrap();
    assert_eq!(verify(), from.content());
    to.insert("c", 2, json!("others do not count")).unwrap();
    assert_eq!(verify(), from.content());
    to.insert("c", 3, json!("this does")).unwrap();
    assert_ne!(verify(), from.content());
}

#[test]
fn another_process_finds_out_how_far_a_restore_came() {
    let store = filled();
    let token = token(&store, WriteMode::Replace);
    let state = |expected: &str| {
        let found = block_on(store.clone().reattach(&token)).unwrap();
        assert!(format!("{found:?}").starts_with(expected), "{found:?}");
        match found {
            Reattached::Staged(s) | Reattached::Committed(s) | Reattached::Undone(s) => Some(s),
            _ => None,
        }
    };
    state("Absent");
    drop(stage(&store, &token, read_all(&filled())));
    let session = state("Staged").unwrap();
    assert!(block_on(session.undo()).is_err());
    assert!(block_on(session.finish()).is_err());
    block_on(session.commit()).unwrap();
    let session = state("Committed").unwrap();
    assert!(block_on(session.abort()).is_err());
    store.lose_track("a test");
    state("Unknown");
    store.heal();
    block_on(session.undo()).unwrap();
    let session = state("Undone").unwrap();
    block_on(session.undo()).unwrap();
    block_on(session.finish()).unwrap();
    block_on(session.finish()).unwrap();
    state("Absent");
}

#[test]
fn failures_come_when_they_are_asked_for() {
    let store = filled();
    store.fail_at(Step::Next, 2, ErrorKind::Io);
    let session = open(&store);
    let partition = block_on(session.partitions()).unwrap().remove(0);
    assert!(block_on(session.next(&partition)).is_ok());
    assert_eq!(block_on(session.next(&partition)).unwrap_err().kind(), ErrorKind::Io);
    assert!(block_on(session.next(&partition)).is_ok());

    // Done, although the caller is told that it failed.
    let token = token(&store, WriteMode::Replace);
    let sink = stage(&store, &token, Vec::new());
    store.fail_always(Step::CommitDone, ErrorKind::NoSpace);
    assert_eq!(block_on(sink.commit()).unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(store.content().collections.is_empty());
    store.heal();

    store.unreachable();
    assert_eq!(block_on(store.describe()).unwrap_err().kind(), ErrorKind::Unreachable);
    store.heal();
    store.hook(|step| match step {
        Step::Describe => Err(Error::new(ErrorKind::Busy, "hooked")),
        _ => Ok(()),
    });
    assert_eq!(block_on(store.describe()).unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn a_body_can_break_and_a_wrong_length_is_refused() {
    let source = filled();
    source.fail_at(Step::Body, 1, ErrorKind::Io);
    let target = MemoryStore::new();
    let token = token(&target, WriteMode::Replace);
    let sink = stage(&target, &token, Vec::new());
    let outcomes: Vec<_> =
        read_all(&source).into_iter().map(|part| block_on(sink.write(part))).collect();
    let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].kind(), ErrorKind::Io);

    let short = StoredBlob { bytes: "ab".into(), masked: Vec::new(), metadata: BTreeMap::new() };
    let mut short = short.to_part("x");
    short.len = Some(3);
    assert!(block_on(sink.write(Part::Blob(short))).is_err());
}

#[test]
fn a_selection_reads_what_it_names_and_refuses_what_is_not_there() {
    let store = filled();
    let mut request = PinRequest::new();
    request.collections = vec!["notes".into()];
    let Pinned::Pinned { session, .. } = block_on(store.pin(&request)).unwrap() else { panic!() };
    let partition = &block_on(session.partitions()).unwrap()[0];
    while let Some(part) = block_on(session.next(partition)).unwrap() {
        match part {
            Part::Schema(schema) => assert_eq!(schema.collection, "notes"),
            Part::Records(batch) => assert_eq!(batch.collection(), "notes"),
            Part::End(end) => assert_eq!(end.count, Some(7)),
            other => panic!("{other:?}"),
        }
    }
    request.collections.push("nowhere".into());
    assert_eq!(block_on(store.pin(&request)).unwrap_err().kind(), ErrorKind::NotFound);
}
