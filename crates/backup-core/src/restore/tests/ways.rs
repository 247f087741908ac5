//! What is changed between the archive and the stores.

use serde_json::Value;

use super::*;
use crate::{
    Change, Conflict, Migration, Migrations, NameMap, Rewrite, Selection, manifest::FieldMapping,
};

/// Notes of two projects, archived; the store holds some of them, changed since, and others.
pub(super) struct Notes {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: MemoryStore,
}

fn fields() -> FieldMapping {
    FieldMapping {
        project: Some("/project".into()),
        updated_at: Some("/at".into()),
        title: Some("/title".into()),
        ..FieldMapping::default()
    }
}

fn note(n: i32, title: &str, at: &str) -> Value {
    let project = if n % 2 == 0 { "even" } else { "odd" };
    json!({"project": project, "title": title, "at": at})
}

pub(super) fn stores(store: &MemoryStore) -> Stores {
    Stores::new("docs", "1.0.0").with("state", store.clone()).fields("state", "notes", fields())
}

impl Notes {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::new().with_batch_records(7);
        for n in 0..40 {
            store
                .insert_with_vector("notes", n, note(n, "archived", "2026-02-01"), "v", &[0.5])
                .unwrap();
        }
        store.insert("other", 1, json!("archived")).unwrap();
        let path = dir.path().join("x.tar.gz");
        block_on(stores(&store).backup_to_file(&path, &BackupOptions::new())).unwrap();
        store.clear();
        // Half of the archive's keys, one of them newer, and as many of its own.
        for n in 20..60 {
            let at = if n == 21 { "2026-03-01" } else { "2026-01-01" };
            store.insert("notes", n, note(n, "live", at)).unwrap();
        }
        store.insert("mine", 1, json!("live")).unwrap();
        Self { dir, store }
    }

    pub(super) fn plan(&self, stores: &Stores, options: &RestoreOptions) -> Result<RestorePlan> {
        let archive = Archive::open(self.dir.path().join("x.tar.gz")).unwrap();
        block_on(stores.plan_restore_with(&archive, options))
    }

    pub(super) fn restore(&self, options: &RestoreOptions) -> Result<RestoreReport> {
        let plan = self.plan(&stores(&self.store), options)?;
        block_on(plan.execute())
    }

    pub(super) fn title(&self, collection: &str, n: i32) -> Option<String> {
        let value = self.store.get(collection, n)?;
        value["title"].as_str().map(str::to_owned)
    }

    /// How many titles of notes are of the archive, and how many live.
    pub(super) fn titles(&self) -> (usize, usize) {
        let titles: Vec<_> = (0..100).filter_map(|n| self.title("notes", n)).collect();
        let of = |word: &str| titles.iter().filter(|title| *title == word).count();
        (of("archived"), of("live"))
    }
}

#[test]
fn records_on_both_sides_follow_the_rule() {
    let told = |rule| {
        let notes = Notes::new();
        // That collection has no times.
        let options = bare().merge().conflict(rule);
        let options = options.conflict_in("state", "other", Conflict::Overwrite);
        let report = notes.restore(&options).unwrap();
        assert!(report.restored());
        assert_eq!(notes.store.traces(), [""; 0]);
        assert_eq!(notes.store.get("mine", 1), Some(json!("live")), "others stay");
        assert_eq!(notes.store.get("other", 1), Some(json!("archived")));
        let counts = report.stores[0].merged["notes"].counts;
        let written = counts.created + counts.updated + counts.merged + counts.copied;
        let content = report.stores[0].content.clone().unwrap();
        assert_eq!(content.collections["notes"].records, written);
        (counts, notes)
    };
    let (counts, notes) = told(Conflict::Skip);
    assert_eq!((counts.created, counts.skipped), (20, 20));
    assert_eq!(notes.titles(), (20, 40));
    let (counts, notes) = told(Conflict::Overwrite);
    assert_eq!((counts.created, counts.updated), (20, 20));
    assert_eq!(notes.titles(), (40, 20));
    let (counts, notes) = told(Conflict::KeepNewer);
    assert_eq!((counts.created, counts.updated, counts.skipped), (20, 19, 1));
    assert_eq!(notes.title("notes", 21).unwrap(), "live");
    let (counts, _) = told(Conflict::Merge);
    assert_eq!((counts.created, counts.merged), (20, 20));
    let (counts, notes) = told(Conflict::KeepBoth);
    assert_eq!((counts.created, counts.copied), (20, 20));
    assert_eq!(notes.titles(), (20, 40));
    assert_eq!(notes.store.content().collections["notes"].records, 80);
    // Again: all of it is there.
    let report = notes.restore(&bare().merge().conflict(Conflict::KeepBoth)).unwrap();
    assert_eq!(report.stores[0].merged["notes"].counts.unchanged, 40);
    assert_eq!(notes.store.content().collections["notes"].records, 80);

    let notes = Notes::new();
    let before = notes.store.snapshot();
    let error = notes.restore(&bare().merge().conflict(Conflict::Fail)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(notes.store.snapshot(), before);
    // A rule of its own for one collection.
    let options =
        bare().merge().conflict(Conflict::Fail).conflict_in("state", "notes", Conflict::Skip);
    assert_eq!(notes.restore(&options).unwrap().stores[0].merged["notes"].counts.skipped, 20);
}

#[test]
fn a_record_that_is_changed_while_the_rule_is_applied_takes_the_merge_back() {
    let notes = Notes::new();
    let store = notes.store.clone();
    notes.store.hook(move |step| match step {
        Step::Commit => store.insert("notes", 25, json!("meanwhile")),
        _ => Ok(()),
    });
    let error = notes.restore(&bare().merge().conflict(Conflict::Overwrite)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(error.to_string().contains("notes, 25"), "{error}");
    assert_eq!(notes.store.get("notes", 25), Some(json!("meanwhile")));
    assert_eq!(notes.titles(), (0, 39));
}

#[test]
fn skipped_records_are_told() {
    let notes = Notes::new();
    let keys = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&keys);
    let set = stores(&notes.store).observe(move |event: &Event| {
        if let Event::Skipped { key, collection, .. } = event {
            assert_eq!(collection, "notes");
            inner.lock().unwrap().push(key.clone());
        }
    });
    let plan = notes.plan(&set, &bare().merge().conflict(Conflict::Skip)).unwrap();
    block_on(plan.execute()).unwrap();
    let mut keys: Vec<i32> = keys.lock().unwrap().iter().map(|key| key.parse().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, (20..40).collect::<Vec<_>>());
}

#[test]
fn what_is_selected_is_added_and_nothing_else_is_touched() {
    let notes = Notes::new();
    let options = bare().select(Selection::new().collection("state", "notes").project("odd"));
    let plan = notes.plan(&stores(&notes.store), &options).unwrap();
    assert!(plan.to_string().contains("added to"), "{plan}");
    let report = block_on(plan.execute()).unwrap();
    assert_eq!(report.stores[0].content.as_ref().unwrap().collections["notes"].records, 20);
    assert_eq!(notes.titles(), (20, 30));
    assert_eq!(notes.store.get("other", 1), None);
    assert_eq!(notes.store.get("mine", 1), Some(json!("live")));
    // A whole collection.
    let notes = Notes::new();
    let options = bare().select(Selection::new().collection("state", "other"));
    notes.restore(&options).unwrap();
    assert_eq!(notes.titles(), (0, 40));
    assert_eq!(notes.store.get("other", 1), Some(json!("archived")));
    // A field that is not mapped, a store that is not there.
    for (selection, kind) in [
        (Selection::new().tag("x"), ErrorKind::InvalidInput),
        (Selection::new().store("nowhere"), ErrorKind::NotFound),
    ] {
        let options = bare().select(selection);
        let error = notes.plan(&stores(&notes.store), &options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn a_restore_beside_what_is_there() {
    let notes = Notes::new();
    let before = notes.store.content().collections;
    let names = NameMap::new().with_collection("state", "notes", "notes-test");
    notes.restore(&bare().map(names)).unwrap();
    let mut after = notes.store.content().collections;
    assert_eq!(after.remove("notes-test").unwrap().records, 40);
    assert_eq!(after.remove("other").unwrap().records, 1);
    assert_eq!(after, before);
    // Into another store, which is then replaced.
    let test = MemoryStore::new();
    test.insert("old", 1, json!(1)).unwrap();
    let set = Stores::new("docs", "1.0.0").with("state-test", test.clone());
    let options = bare().map(NameMap::new().with_store("state", "state-test"));
    let plan = notes.plan(&set, &options).unwrap();
    assert!(
        plan.to_string().contains("1. state-test  memory, replaced: from state, 41 records"),
        "{plan}"
    );
    block_on(plan.execute()).unwrap();
    assert_eq!(test.content().collections.keys().collect::<Vec<_>>(), ["notes", "other"]);
    let nowhere = bare().map(NameMap::new().with_store("nowhere", "x"));
    assert_eq!(notes.plan(&set, &nowhere).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_project_gets_another_name_on_the_way() {
    let notes = Notes::new();
    let rewrite = Rewrite::new().rename_project("odd", "strange");
    let report = notes.restore(&bare().rewrite(rewrite)).unwrap();
    // The whole store, and so it is replaced.
    assert_eq!(notes.titles(), (40, 0));
    assert_eq!(notes.store.get("notes", 3).unwrap()["project"], json!("strange"));
    assert_eq!(notes.store.get("notes", 4).unwrap()["project"], json!("even"));
    let found = report.stores[0].content.clone().unwrap();
    assert_eq!(found, notes.store.content(), "what was computed is what is live");
}

fn renaming() -> Migrations {
    let rename = |from: &str, to: &str| Change::rename("state", "notes", from, to);
    Migrations::new([
        Migration::new("1.0.0", "1.1.0").change(rename("/title", "/name")),
        Migration::new("1.1.0", "2.0.0").change(rename("/name", "/heading")),
    ])
    .unwrap()
}

#[test]
fn a_field_is_migrated_over_two_versions_and_back() {
    let notes = Notes::new();
    let at = |version: &str| {
        Stores::new("docs", version)
            .with("state", notes.store.clone())
            .migrations(renaming())
            .fields("state", "notes", fields())
    };
    let archived = {
        notes.restore(&bare()).unwrap();
        notes.store.snapshot()
    };
    let plan = notes.plan(&at("2.0.0"), &bare()).unwrap();
    assert!(plan.to_string().contains("migration from 1.1.0 to 2.0.0"), "{plan}");
    block_on(plan.execute()).unwrap();
    let value = notes.store.get("notes", 5).unwrap();
    assert_eq!(value["heading"], json!("archived"));
    assert!(value.get("title").is_none() && value.get("name").is_none());

    // An archive of the new version, into the old.
    let path = notes.dir.path().join("x.tar.gz");
    std::fs::remove_file(&path).unwrap();
    block_on(at("2.0.0").backup_to_file(&path, &BackupOptions::new())).unwrap();
    let refused = notes.plan(&at("1.0.0"), &bare()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Incompatible);
    let options = bare().allow_downgrade(true);
    block_on(notes.plan(&at("1.0.0"), &options).unwrap().execute()).unwrap();
    assert_eq!(notes.store.snapshot(), archived);
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let notes = Notes::new();
    let before = notes.store.snapshot();
    let migrations = Migrations::new([Migration::new("1.0.0", "1.1.0").change(Change::values(
        "state",
        "notes",
        "fails",
        |_: &mut Value| Err(Error::adapter("as planned")),
    ))]);
    let set = Stores::new("docs", "1.1.0")
        .with("state", notes.store.clone())
        .migrations(migrations.unwrap());
    let plan = notes.plan(&set, &bare()).unwrap();
    let error = block_on(plan.execute()).unwrap_err();
    assert!(error.to_string().contains("in the migration from 1.0.0 to 1.1.0"), "{error}");
    assert_eq!(notes.store.snapshot(), before);
    assert_eq!(notes.store.traces(), [""; 0]);
}

#[test]
fn a_merge_is_counted_beforehand() {
    let notes = Notes::new();
    let before = notes.store.snapshot();
    for (rule, examples) in [(Conflict::Skip, 5), (Conflict::KeepBoth, 5), (Conflict::Merge, 0)] {
        let plan = notes.plan(&stores(&notes.store), &bare().merge().conflict(rule)).unwrap();
        let preview = block_on(plan.preview()).unwrap();
        assert_eq!(notes.store.snapshot(), before);
        assert_eq!(notes.store.traces(), [""; 0]);
        assert!(!Journal::files(notes.dir.path())[0].exists());
        assert_eq!(preview["state"]["notes"].examples.len(), examples);
        // Another archive: its copies have other keys.
        let other = Notes::new().restore(&bare().merge().conflict(rule)).unwrap();
        for (collection, previewed) in &preview["state"] {
            assert_eq!(previewed.counts, other.stores[0].merged[collection].counts);
        }
    }
    let plan = notes.plan(&stores(&notes.store), &bare().merge().conflict(Conflict::Fail)).unwrap();
    assert_eq!(block_on(plan.preview()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(notes.store.traces(), [""; 0]);
    // A store that is replaced has nothing to count.
    let plan = notes.plan(&stores(&notes.store), &bare()).unwrap();
    assert!(block_on(plan.preview()).unwrap().is_empty());
    // What is left where nothing can be removed now.
    notes.store.fail_at(Step::Abort, 1, ErrorKind::Busy);
    let plan = notes.plan(&stores(&notes.store), &bare().merge().conflict(Conflict::Skip)).unwrap();
    assert!(block_on(plan.preview()).unwrap_err().advice().contains("resume"));
    block_on(stores(&notes.store).resume(notes.dir.path())).unwrap().unwrap();
    assert_eq!(notes.store.snapshot(), before);
    assert_eq!(notes.store.traces(), [""; 0]);
}

#[test]
fn an_archive_of_a_part_is_added() {
    let notes = Notes::new();
    let path = notes.dir.path().join("x.tar.gz");
    std::fs::remove_file(&path).unwrap();
    let before = notes.store.content();
    let part = BackupOptions::new().select(Selection::new().collection("state", "notes"));
    block_on(stores(&notes.store).backup_to_file(&path, &part)).unwrap();
    notes.store.insert("notes", 20, json!("changed")).unwrap();
    let plan = notes.plan(&stores(&notes.store), &bare()).unwrap();
    assert!(plan.to_string().contains("memory, added to: "), "{plan}");
    block_on(plan.execute()).unwrap();
    assert_eq!(notes.store.content(), before, "the other collection stays");
}

#[test]
fn a_copy_has_its_key_in_its_value_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar.gz");
    let store = MemoryStore::new();
    let info = CollectionInfo { key: vec!["/id".into()], ..CollectionInfo::default() };
    store.create("rows", json!({}), info);
    store.insert("rows", 7, json!({"id": 7, "text": "archived"})).unwrap();
    let set = stores(&store);
    block_on(set.backup_to_file(&path, &BackupOptions::new())).unwrap();
    store.insert("rows", 7, json!({"id": 7, "text": "live"})).unwrap();
    let options = bare().merge().conflict(Conflict::KeepBoth);
    let archive = Archive::open(&path).unwrap();
    let report =
        block_on(async { set.plan_restore_with(&archive, &options).await?.execute().await });
    let merged = &report.unwrap().stores[0].merged["rows"];
    let [crate::MergeExample::Copied { new_key, .. }] = &merged.examples[..] else { panic!() };
    let copy = store.get("rows", new_key.parse::<i64>().unwrap()).unwrap();
    assert_eq!(copy["id"].to_string(), *new_key);
    assert_eq!(copy["text"], json!("archived"));
}

#[test]
fn records_that_say_the_same_come_back_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar.gz");
    let store = MemoryStore::new().with_batch_records(3);
    let info = CollectionInfo { key: vec!["/id".into()], ..CollectionInfo::default() };
    store.create("rows", json!({}), info);
    for key in 0..20 {
        store.insert("rows", key, json!({"id": key, "text": key % 7})).unwrap();
    }
    store.insert("other", 1, json!({"text": 0})).unwrap();
    block_on(stores(&store).backup_to_file(&path, &BackupOptions::new())).unwrap();
    let archive = Archive::open(&path).unwrap();
    let set = stores(&store);
    let options = bare().merge().conflict(Conflict::Overwrite);
    let options = options.skip_duplicates(crate::DuplicateOptions::default());
    let plan = block_on(set.plan_restore_with(&archive, &options)).unwrap();
    // Looking does not count.
    block_on(plan.preview()).unwrap();
    store.clear();
    let report = block_on(plan.execute()).unwrap();
    assert_eq!(report.stores[0].repeated["rows"], 13);
    let content = store.content().collections;
    assert_eq!((content["rows"].records, content["other"].records), (7, 1));
}
