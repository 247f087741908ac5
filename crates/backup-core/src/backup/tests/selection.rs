//! Backups of what was selected.

use super::*;
use crate::{archive::PartKind, record::Tally, select::Unmapped};

fn selection(expressions: &[&str]) -> Selection {
    Selection::parse(expressions).unwrap()
}

fn attempt(stores: &Stores, selection: Selection) -> Result<(Archive, BackupReport), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let options = BackupOptions::new().select(selection);
    match block_on(stores.backup_to_file(&path, &options)) {
        Ok(report) => Ok((proven(&path), report)),
        Err(error) => {
            assert!(names(dir.path()).is_empty(), "nothing is left of a refused backup");
            Err(format!("{error} | {}", error.advice()))
        }
    }
}

fn tally(keys: impl Iterator<Item = i32>) -> Tally {
    let store = MemoryStore::new();
    for key in keys {
        store.insert_with_vector("notes", key, json!({"n": key}), "text", &[0.5]).unwrap();
    }
    store.content().collections["notes"].clone()
}

#[test]
fn records_are_selected_with_their_vectors_counts_and_digests() {
    let (stores, ..) = two();
    let asked = ["store=state", "state/notes: /n<7"];
    let (archive, report) = attempt(&stores, selection(&asked)).unwrap();
    assert!(report.outcome.is_complete());
    let manifest = archive.manifest();
    assert_eq!(manifest.selection, asked);
    assert_eq!(manifest.stores.keys().collect::<Vec<_>>(), ["state"]);
    assert!(!manifest.asked_for_all_of("state"));
    let state = &manifest.stores["state"];
    let notes = &state.collections["notes"];
    assert_eq!((&notes.tally, notes.selected_from), (&tally(0..7), Some(35)));
    let (archive_of_none, _) = attempt(&stores, selection(&["store=state", "/n<0"])).unwrap();
    let empty = &archive_of_none.manifest().stores["state"].collections["empty"];
    assert_eq!((empty.tally.records, empty.selected_from), (0, Some(0)));
    // No condition for this one.
    assert_eq!(state.collections["empty"].selected_from, None);
    let batches = archive.entries().map(Result::unwrap).filter_map(|part| match part.kind {
        PartKind::Records { records, .. } => Some(records),
        _ => None,
    });
    let batches: Vec<_> = batches.collect();
    assert_eq!(batches.iter().sum::<u64>(), 7);
    assert!(batches.iter().all(|records| *records > 0), "{batches:?}");
}

#[test]
fn what_is_selected_whole_is_what_a_backup_of_all_has() {
    let (stores, ..) = two();
    let (all, _) = attempt(&stores, Selection::new()).unwrap();
    let (named, _) = attempt(&stores, selection(&["store in [uploads, state]"])).unwrap();
    let whole = |archive: &Archive| archive.manifest().stores.clone();
    let content = |archive: &Archive| {
        let stores = whole(archive).into_iter();
        stores.map(|(name, s)| (name, s.collections, s.blobs, s.parts)).collect::<Vec<_>>()
    };
    assert_eq!(content(&named), content(&all));
    assert!(all.manifest().selection.is_empty());
    assert!(named.manifest().asked_for_all_of("state"));
}

#[test]
fn fields_are_where_host_or_adapter_say_and_nowhere_else() {
    let mapping = || FieldMapping { project: Some("/n".into()), ..FieldMapping::default() };
    let state = records(35);
    let stores = Stores::new("docs", "1").with("state", state.clone());
    let project = || Selection::new().project("4");
    let unknown = "it is not known where the records have their project (state/empty) | map the field for this collection; or leave such collections out with unmapped=leave-out, or take them whole with unmapped=whole";
    let of_notes = unknown.replace("state/empty", "state/notes");
    assert_eq!(attempt(&stores, project()).unwrap_err(), of_notes);

    let stores = stores.fields("state", "notes", mapping());
    // A collection without records needs no field.
    let (archive, _) = attempt(&stores, project()).unwrap();
    let collections = &archive.manifest().stores["state"].collections;
    assert_eq!(collections.keys().collect::<Vec<_>>(), ["empty", "notes"]);
    state.insert("empty", 1, json!({"n": 4})).unwrap();
    assert_eq!(attempt(&stores, project()).unwrap_err(), unknown);
    let left_out = project().unmapped(Unmapped::LeaveOut);
    let (archive, _) = attempt(&stores, left_out).unwrap();
    let collections = &archive.manifest().stores["state"].collections;
    assert_eq!(collections.keys().collect::<Vec<_>>(), ["notes"]);
    assert_eq!(collections["notes"].tally, tally(4..5));
    assert!(archive.entries().all(|part| !part.unwrap().path.contains("empty")));

    let info = CollectionInfo { fields: mapping(), ..CollectionInfo::default() };
    state.create("empty", json!({}), info);
    let (archive, _) = attempt(&stores, project()).unwrap();
    assert_eq!(archive.manifest().stores["state"].collections["empty"].tally.records, 1);
    let whole = Selection::new().category("c").unmapped(Unmapped::Whole);
    let (archive, _) = attempt(&stores, whole).unwrap();
    assert_eq!(archive.manifest().stores["state"].collections["notes"].tally, tally(0..35));
}

#[test]
fn files_and_native_snapshots_are_taken_whole_or_not_at_all() {
    let refusal = "a part is to be chosen of a store that is carried as files or native snapshots (uploads) | take it in its portable form; or leave it out with unmapped=leave-out, or take it whole with unmapped=whole";
    let rule = |more: &str| selection(&["/n=1", more]);

    // One that says before that it has no records is not even pinned.
    let opaque = Script { records: false, ..script(vec![vec![]]) };
    let stores = Stores::new("docs", "1").with("state", records(5));
    let stores = stores.with_source("uploads", opaque.clone());
    assert_eq!(attempt(&stores, rule("unmapped=refuse")).unwrap_err(), refusal);
    assert!(opaque.asked.lock().unwrap().is_none());
    let (archive, _) = attempt(&stores, rule("unmapped=leave-out")).unwrap();
    assert_eq!(archive.manifest().stores.keys().collect::<Vec<_>>(), ["state"]);
    let (archive, _) = attempt(&stores, rule("unmapped=whole")).unwrap();
    assert_eq!(archive.manifest().stores.len(), 2);
    let elsewhere = selection(&["state: /n=1"]);
    assert_eq!(attempt(&stores, elsewhere).unwrap().0.manifest().stores.len(), 2);

    // One that may have any of them shows it when it gives them.
    let (stores, ..) = two();
    assert_eq!(attempt(&stores, rule("unmapped=refuse")).unwrap_err(), refusal);
    let (archive, report) = attempt(&stores, rule("unmapped=leave-out")).unwrap();
    assert!(report.outcome.is_complete());
    let uploads = &archive.manifest().stores["uploads"];
    assert_eq!((uploads.bytes, uploads.blobs.len()), (5, 0), "only a schema");
    let (archive, _) = attempt(&stores, rule("unmapped=whole")).unwrap();
    let uploads = &archive.manifest().stores["uploads"];
    assert_eq!((uploads.collections["root"].tally.records, uploads.blobs.len()), (3, 1));
}

#[test]
fn names_that_are_not_there_are_refused_before_anything_is_read() {
    let (stores, a, _) = two();
    let reads = count(&a, Step::Next);
    for (expression, expected) in [
        ("store=stat", "there is no such store (stat) | use one of these: state, uploads"),
        ("stat: /n=1", "there is no such store (stat) | use one of these: state, uploads"),
        (
            "state/note: /n=1",
            "there is no such collection (state/note) | use one of these: empty, notes",
        ),
    ] {
        assert_eq!(attempt(&stores, selection(&[expression])).unwrap_err(), expected);
    }
    assert!(attempt(&stores, selection(&["collection=state/note"])).is_err());
    assert_eq!(reads.load(Ordering::SeqCst), 0);
}

#[test]
fn a_source_is_told_what_is_asked_and_need_not_heed_it() {
    let parts = || vec![schema(), batch(1), batch(2), end(2)];
    let source = script(vec![parts()]);
    let stores = Stores::new("docs", "1").with_source("s", source.clone());
    let (archive, _) = attempt(&stores, selection(&["\"\"=1"])).unwrap();
    let asked = source.asked.lock().unwrap().take().unwrap();
    assert_eq!(asked.conditions, [(None, "\"\"=1".parse().unwrap())]);
    let collection = &archive.manifest().stores["s"].collections["c"];
    assert_eq!(collection.tally.records, 2);
    // Figures of the whole would be wrong for a part.
    assert!(collection.statistics.is_empty());

    // What came is counted, not what was taken.
    let stores = Stores::new("docs", "1")
        .with_source("s", script(vec![vec![schema(), batch(1), batch(2), end(1)]]));
    let error = attempt(&stores, selection(&["\"\"=2"])).unwrap_err();
    assert!(
        error.starts_with("a source says that it gave 1 records, and 2 came (s: c)"),
        "{error}"
    );
}
