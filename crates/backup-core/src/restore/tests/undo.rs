//! What a merge changes is kept first, and comes back.

use super::{ways::Notes, *};
use crate::{Catalog, Conflict, archive::VerifyMode};

fn merging(rule: Conflict) -> RestoreOptions {
    RestoreOptions::new().merge().conflict(rule).conflict_in("state", "other", rule)
}

/// How many records of notes an archive holds.
fn held(archive: &Archive) -> u64 {
    archive.manifest().stores["state"].collections["notes"].tally.records
}

#[test]
fn only_the_records_that_are_changed_are_kept() {
    for (rule, changed) in
        [(Conflict::Overwrite, 20), (Conflict::Merge, 20), (Conflict::KeepNewer, 19)]
    {
        let notes = Notes::new();
        let rules = merging(rule).conflict_in("state", "other", Conflict::Overwrite);
        let plan = notes.plan(&ways::stores(&notes.store), &rules).unwrap();
        let text = plan.to_string();
        assert!(text.contains("Records are kept before they are changed, in "), "{text}");
        assert!(!text.contains("What is live is backed up first"), "{text}");
        let report = block_on(plan.execute()).unwrap();
        assert_eq!(report.safety_backup, None);
        assert_eq!(notes.titles().1, 40 - if rule == Conflict::Merge { 20 } else { changed });

        let undo = Archive::open(report.undo.unwrap()).unwrap();
        undo.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {}).unwrap();
        assert_eq!(held(&undo), changed as u64);
        let manifest = undo.manifest();
        assert!(!manifest.asked_for_all_of("state"), "a restore of it adds");
        assert_eq!(manifest.metadata["before_restore"]["id"], json!(report.restore_id));

        // It is as any other archive, and brings back what was.
        let stores = ways::stores(&notes.store);
        let back =
            block_on(async { stores.plan_restore_with(&undo, &bare()).await?.execute().await });
        assert!(back.unwrap().restored());
        assert_eq!(notes.titles(), (20, 40), "what is new stays");
        for n in 20..40 {
            assert_eq!(notes.title("notes", n).as_deref(), Some("live"));
        }
    }
}

#[test]
fn where_no_record_is_changed_there_is_no_undo() {
    for rule in [Conflict::Skip, Conflict::KeepBoth] {
        let notes = Notes::new();
        let report = notes.restore(&merging(rule)).unwrap();
        assert_eq!((report.undo, report.safety_backup), (None, None));
        assert_eq!(files(&notes), ["catalog.lock"]);
    }
}

fn files(notes: &Notes) -> Vec<String> {
    let inside = std::fs::read_dir(notes.dir.path().join("before-restore")).unwrap();
    inside.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn it_is_on_the_disk_before_the_switch_and_none_is_left_of_one_that_failed() {
    // The rule fails in the middle of the staging.
    let notes = Notes::new();
    let before = notes.store.content();
    let fails = merging(Conflict::Overwrite).conflict_in("state", "other", Conflict::Fail);
    notes.store.insert("other", 1, json!("live")).unwrap();
    notes.restore(&fails).unwrap_err();
    assert_eq!(files(&notes), ["catalog.lock"]);
    // The switch fails: what it would have changed is there.
    notes.store.remove_collection("other");
    notes.store.fail_always(Step::Commit, ErrorKind::Io);
    notes.restore(&merging(Conflict::Overwrite)).unwrap_err();
    notes.store.heal();
    assert_eq!(notes.store.content(), before);
    let catalog = Catalog::open(notes.dir.path().join("before-restore")).unwrap();
    assert_eq!(held(&catalog.latest().unwrap()), 20);
}

#[test]
fn a_store_can_be_backed_up_whole_all_the_same() {
    let notes = Notes::new();
    let before = notes.store.content();
    let report = notes.restore(&merging(Conflict::Overwrite).whole_safety_backup(true)).unwrap();
    assert_eq!(report.undo, None);
    let whole = Archive::open(report.safety_backup.unwrap()).unwrap();
    let stores = ways::stores(&notes.store);
    let back = block_on(async { stores.plan_restore_with(&whole, &bare()).await?.execute().await });
    assert!(back.unwrap().restored());
    assert_eq!(notes.store.content(), before);
}
