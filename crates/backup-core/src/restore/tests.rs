mod crash;
mod host;
mod references;
mod salvage;
mod staging;
mod undo;
mod vectors;
mod versions;
mod ways;

use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use futures::executor::block_on;
use serde_json::json;

use super::*;
use crate::{
    BackupOptions, EntryPath, Error, ErrorKind, Event, MemoryStore, RestoreStep, Step,
    journal::Journal, manifest::CollectionInfo, quiesce::tests::TestQuiesce,
};

// Three stores with something in each, an archive of it, and then other content.
struct World {
    dir: tempfile::TempDir,
    stores: [MemoryStore; 3],
    archived: Vec<crate::MemorySnapshot>,
    before: Vec<crate::MemorySnapshot>,
}

/// Without a safety backup, which has tests of its own.
fn bare() -> RestoreOptions {
    RestoreOptions::new().no_safety_backup()
}

const NAMES: [&str; 3] = ["state", "uploads", "vectors"];

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let stores = [(); 3].map(|()| MemoryStore::new().with_batch_records(10));
    for key in 0..35 {
        stores[0].insert("notes", key, json!({"n": key})).unwrap();
        stores[2].insert_with_vector("points", key, json!(key), "text", &[0.5, 1.0]).unwrap();
    }
    stores[0].create("empty", json!({"ddl": "x"}), CollectionInfo::default());
    stores[1].put_directory("root", EntryPath::new("a").unwrap());
    stores[1].put_file("root", EntryPath::new("a/b").unwrap(), vec![7; 3 << 20]);
    stores[1].put_symlink("root", EntryPath::new("link").unwrap(), "a/b");
    stores[2].put_blob("native.db", vec![3; 100_000]);
    let snapshots = |stores: &[MemoryStore]| stores.iter().map(MemoryStore::snapshot).collect();
    let archived = snapshots(&stores);
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    let path = dir.path().join("x.tar.gz");
    let archive = ARCHIVE.get_or_init(|| {
        let report = block_on(set(&stores).backup_to_file(&path, &BackupOptions::new()));
        assert!(report.unwrap().outcome.is_complete());
        std::fs::read(&path).unwrap()
    });
    std::fs::write(&path, archive).unwrap();
    for store in &stores {
        store.clear();
        store.insert("newer", 1, json!("since the backup")).unwrap();
    }
    let before = snapshots(&stores);
    World { dir, stores, archived, before }
}

fn set(stores: &[MemoryStore]) -> Stores {
    NAMES
        .iter()
        .zip(stores)
        .fold(Stores::new("docs", "1.0.0"), |set, (name, store)| set.with(*name, store.clone()))
}

impl World {
    fn archive(&self) -> Archive {
        Archive::open(self.dir.path().join("x.tar.gz")).unwrap()
    }

    fn now(&self) -> Vec<crate::MemorySnapshot> {
        self.stores.iter().map(MemoryStore::snapshot).collect()
    }

    fn heal(&self) {
        self.stores.iter().for_each(MemoryStore::heal);
    }

    fn journal(&self) -> bool {
        Journal::files(self.dir.path())[0].exists()
    }

    fn restore(&self, set: &Stores) -> Result<RestoreReport> {
        block_on(async { set.plan_restore_with(&self.archive(), &bare()).await?.execute().await })
    }

    // Nothing but the archive and the lock; no staging area in any store.
    #[track_caller]
    fn is_tidy(&self) {
        assert!(!self.journal());
        for store in &self.stores {
            assert_eq!(store.traces(), [""; 0]);
        }
        let inside = std::fs::read_dir(self.dir.path()).unwrap().count();
        assert!(inside <= 2);
    }

    #[track_caller]
    fn is_old(&self) {
        assert_eq!(self.now(), self.before);
        self.is_tidy();
    }

    #[track_caller]
    fn is_new(&self) {
        assert_eq!(self.now(), self.archived);
        self.is_tidy();
    }
}

#[test]
fn everything_comes_back_and_is_proved() {
    let world = world();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&steps);
    let host = TestQuiesce::default();
    let set = set(&world.stores).quiesce(host.clone()).observe(move |event: &Event| {
        if let Event::Step { step, .. } = event {
            inner.lock().unwrap().push(step.clone());
        }
    });
    let report = world.restore(&set).unwrap();
    assert!(report.restored() && report.warnings.is_empty());
    for (store, found) in world.stores.iter().zip(&report.stores) {
        assert_eq!(found.content, Some(store.content()));
    }
    world.is_new();
    let committing = |store: &str| RestoreStep::Committing { store: store.into() };
    let expected = [
        RestoreStep::Staged,
        RestoreStep::Verified,
        committing("state"),
        committing("uploads"),
        committing("vectors"),
        RestoreStep::Committed,
        RestoreStep::Finishing,
    ];
    assert_eq!(*steps.lock().unwrap(), expected);
    assert_eq!(host.pauses.load(Ordering::SeqCst), 1);
    assert_eq!(host.open.load(Ordering::SeqCst), 0);
}

#[test]
fn a_long_part_tells_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar.gz");
    let store = MemoryStore::new();
    store.put_blob("native.db", vec![3; 20 << 20]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&told);
    let backup = Stores::new("docs", "1.0.0").with("state", store.clone());
    block_on(backup.backup_to_file(&path, &BackupOptions::new())).unwrap();

    let set = Stores::new("docs", "1.0.0").with("state", store).observe(move |event: &Event| {
        if let Event::Progress { done, total } = event {
            inner.lock().unwrap().push((*done, *total));
        }
    });
    let plan = block_on(set.plan_restore_with(&Archive::open(path).unwrap(), &bare())).unwrap();
    block_on(plan.execute()).unwrap();
    let told = told.lock().unwrap();
    assert!(told.len() >= 4 && told.is_sorted(), "{told:?}");
    assert!(told.iter().all(|(done, of)| *of == Some(20 << 20) && *done <= 20 << 20), "{told:?}");
}

#[test]
fn the_plan_shows_everything_and_touches_nothing() {
    let world = world();
    let set = set(&world.stores);
    let plan = block_on(set.plan_restore_with(&world.archive(), &bare())).unwrap();
    world.is_old();
    let text = plan.to_string();
    for piece in [
        "Restore docs 1.0.0\n",
        "  1. state    memory, replaced: 35 records in 2 collections, ",
        "  2. uploads  memory, replaced: 3 records in 1 collection, 3.0 MiB\n",
        ", 1 native file, ",
        "switches at one moment, at once",
        "Nothing has been changed. Journal: ",
    ] {
        assert!(text.contains(piece), "{piece:?} in {text}");
    }
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["stores"][1]["name"], json!("uploads"));
    assert_eq!(json["stores"][1]["switch"], json!("atomic-pointer"));
    assert_eq!(json["archive"]["id"], json!(plan.archive().id.to_string()));
}

#[test]
fn a_failure_at_any_call_of_any_verb_takes_everything_back() {
    use Step::{Abort, Begin, Commit, CommitDone, Finish, Prepare, Verify, Write};
    for step in [Prepare, Begin, Write, Verify, Commit, CommitDone, Finish, Abort] {
        for (place, name) in NAMES.iter().enumerate() {
            for nth in 1.. {
                let world = world();
                world.stores[place].fail_at(step, nth, ErrorKind::NoSpace);
                let outcome = world.restore(&set(&world.stores));
                let text = format!("{step:?} {nth} of {name}: {outcome:?}");
                match outcome {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::NoSpace, "{text}");
                        assert!(error.subject().unwrap().starts_with(name), "{text}");
                        assert!(step == Prepare || error.report().contains("as before"), "{text}");
                        world.is_old();
                    }
                    // Live content is proved by then: the restore stands.
                    Ok(report) if step == Finish && nth == 1 => {
                        assert!(report.warnings[0].contains("left behind"), "{text}");
                        assert!(world.journal());
                        assert_eq!(world.now(), world.archived);
                        let error = world.restore(&set(&world.stores)).unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Unfinished);
                        let set = set(&world.stores);
                        let report = block_on(set.resume(world.dir.path())).unwrap().unwrap();
                        assert!(report.restored());
                        world.is_new();
                    }
                    Ok(_) => {
                        world.is_new();
                        assert!(nth > 1 || step == Abort, "{text}");
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn a_panic_or_a_cancellation_at_any_call_takes_everything_back() {
    for panics in [true, false] {
        for nth in 0.. {
            let world = world();
            let calls = Arc::new(AtomicUsize::new(0));
            let cancel = Cancel::new();
            for store in &world.stores {
                let (calls, cancel) = (Arc::clone(&calls), cancel.clone());
                store.hook(move |step| {
                    // What is done on the way back is not disturbed: that is the next test.
                    if !matches!(step, Step::Finish | Step::Prepare)
                        && calls.fetch_add(1, Ordering::SeqCst) == nth
                    {
                        assert!(!panics, "as planned");
                        cancel.cancel();
                    }
                    Ok(())
                });
            }
            let set = set(&world.stores).quiesce(TestQuiesce::default());
            let options = bare().cancel(&cancel);
            let outcome = block_on(async {
                set.plan_restore_with(&world.archive(), &options).await?.execute().await
            });
            match outcome {
                Ok(_) => {
                    assert!(nth > 20 && calls.load(Ordering::SeqCst) <= nth + 1, "{nth}");
                    world.is_new();
                    break;
                }
                Err(error) => {
                    let kind = if panics { ErrorKind::Adapter } else { ErrorKind::Cancelled };
                    assert_eq!(error.kind(), kind, "{error}");
                    world.is_old();
                }
            }
        }
    }
}

#[test]
fn an_undo_that_fails_keeps_both_contents_until_resume() {
    for (step, unknown) in [(Step::Undo, false), (Step::UndoDone, false), (Step::Undo, true)] {
        let world = world();
        // The third store does not switch, and the first cannot be brought back now.
        world.stores[2].fail_always(Step::Commit, ErrorKind::NoSpace);
        world.stores[0].fail_always(step, ErrorKind::Unreachable);
        let error = world.restore(&set(&world.stores)).unwrap_err();
        if step == Step::UndoDone {
            // The caller was told that it failed, and the store says that it is done.
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            world.is_old();
            continue;
        }
        assert_eq!(error.kind(), ErrorKind::RepairNeeded);
        assert!(error.to_string().contains("state"), "{error}");
        assert!(error.report().contains("because: a failure that a test asked for"));
        assert!(world.journal() && world.now()[1..] == world.before[1..]);
        // Nothing is thrown away before all are back.
        assert!(world.stores.iter().all(|store| store.traces().len() == 1));
        let stores = set(&world.stores);
        let again = block_on(stores.resume(world.dir.path())).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::RepairNeeded);
        world.heal();
        if unknown {
            world.stores[0].lose_track("old in A, new in B");
            let error = block_on(stores.resume(world.dir.path())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::RepairNeeded);
            assert!(error.to_string().contains("old in A, new in B"), "{error}");
            world.heal();
        }
        let report = block_on(stores.resume(world.dir.path())).unwrap().unwrap();
        assert!(!report.restored());
        world.is_old();
        assert!(block_on(stores.resume(world.dir.path())).unwrap().is_none());
    }
}

#[test]
fn content_that_differs_is_never_a_success() {
    // Once in the staging area, once after the switch.
    for nth in [1, 2] {
        let world = world();
        let victim = world.stores[0].clone();
        let calls = AtomicUsize::new(0);
        world.stores[1].hook(move |step| {
            // The second store is read back after the first was damaged.
            if step == Step::Commit && nth == 2 && calls.fetch_add(1, Ordering::SeqCst) == 0 {
                victim.insert("notes", 3, json!("damaged")).unwrap();
            }
            Ok(())
        });
        if nth == 2 {
            let error = world.restore(&set(&world.stores)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch);
            assert!(error.to_string().contains("digest of the records differs"), "{error}");
            assert!(error.to_string().ends_with("(state: notes)"), "{error}");
            world.is_old();
            continue;
        }
        // An archive whose manifest says something else than its parts.
        let archive = world.archive();
        let mut origin = Origin::of(&archive);
        let mut manifest = archive.manifest().clone();
        let tally = &mut manifest.stores.get_mut("state").unwrap().collections;
        tally.get_mut("notes").unwrap().tally.records += 1;
        origin.manifest = Arc::new(manifest);
        let set = set(&world.stores);
        let error = block_on(async { prepare::plan(&set, origin, &bare()).await?.execute().await });
        let error = error.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the number of records differs: expected 36, found 35 (state: notes)"
        );
        world.is_old();
    }
}

#[test]
fn a_damaged_archive_changes_nothing() {
    let world = world();
    let path = world.dir.path().join("x.tar.gz");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    let error = world.restore(&set(&world.stores)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    world.is_old();
}

#[test]
fn an_archive_that_is_changed_after_the_plan_changes_nothing() {
    let world = world();
    let path = world.dir.path().join("x.tar.gz");
    let plan = block_on(set(&world.stores).plan_restore_with(&world.archive(), &bare())).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(block_on(plan.execute()).unwrap_err().kind(), ErrorKind::Corrupt);
    world.is_old();
}

#[test]
fn one_restore_at_a_time() {
    let world = world();
    let set = set(&world.stores);
    let lock = std::fs::File::create(&Journal::files(world.dir.path())[1]).unwrap();
    lock.lock().unwrap();
    let error = world.restore(&set).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    world.is_old();
    drop(lock);
    world.restore(&set).unwrap();
    world.is_new();
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_touched() {
    let world = world();
    let [a, b, c] = world.stores.clone();
    let refused = |stores: Stores, options: RestoreOptions| {
        let archive = world.archive();
        let error = block_on(stores.plan_restore_with(&archive, &options)).unwrap_err();
        world.is_old();
        (error.kind(), error.subject().unwrap_or_default().to_owned())
    };
    let all = bare;
    let kind = |kind, name: &str| (kind, name.to_owned());

    let two = Stores::new("docs", "1").with("state", a.clone()).with("uploads", b.clone());
    assert_eq!(refused(two, all()), kind(ErrorKind::NotFound, "vectors"));
    let other = Stores::new("docs", "1")
        .with("state", MemoryStore::new().with_kind("sqlite"))
        .with("uploads", b.clone())
        .with("vectors", c.clone());
    assert_eq!(refused(other, all()), kind(ErrorKind::Incompatible, "state"));
    let source = Stores::new("docs", "1").with_source("state", a.clone());
    let one = all().stores(["state"]);
    assert_eq!(refused(source, one.clone()), kind(ErrorKind::Unsupported, "state"));
    let nowhere = all().stores(["nowhere"]);
    assert_eq!(refused(set(&world.stores), nowhere), kind(ErrorKind::NotFound, "nowhere"));
    let none = all().stores([""; 0]);
    assert_eq!(refused(set(&world.stores), none).0, ErrorKind::InvalidInput);

    let renamed = || Stores::new("other", "1").with("state", a.clone());
    assert_eq!(refused(renamed(), one.clone()).0, ErrorKind::Incompatible);
    let allowed = one.clone().allow_other_application(true);
    let plan = block_on(renamed().plan_restore_with(&world.archive(), &allowed))
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        plan.warnings(),
        ["the archive is of another application, \"docs\": versions are not compared"]
    );

    // From memory: the journal has no place of its own.
    let bytes = std::fs::read(world.dir.path().join("x.tar.gz")).unwrap();
    let archive = Archive::from_source(bytes).unwrap();
    let stores = set(&world.stores);
    let error = block_on(stores.plan_restore_with(&archive, &bare())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let place = one.journal_dir(world.dir.path());
    let plan = block_on(stores.plan_restore_with(&archive, &place)).unwrap();
    assert!(block_on(plan.execute()).unwrap().restored());
    // Only that one.
    assert_eq!(world.now()[0], world.archived[0]);
    assert_eq!(world.now()[1..], world.before[1..]);
}

#[test]
fn a_partial_backup_is_restored_and_said_to_be_one() {
    let world = world();
    let path = world.dir.path().join("partial.tar.gz");
    let optional = || {
        Stores::new("docs", "2")
            .with("state", world.stores[0].clone())
            .optional("uploads", world.stores[1].clone())
    };
    world.stores[1].unreachable();
    block_on(optional().backup_to_file(&path, &BackupOptions::new())).unwrap();
    world.heal();
    world.stores[0].pinnable(false);
    let fuzzy = world.dir.path().join("fuzzy.tar.gz");
    let one = BackupOptions::new().stores(["state"]);
    block_on(optional().backup_to_file(&fuzzy, &one)).unwrap();
    let plan = |path, stores: Stores| {
        let archive = Archive::open(path).unwrap();
        block_on(async move { stores.plan_restore_with(&archive, &bare()).await })
    };
    let text = plan(&path, optional()).unwrap().to_string();
    assert!(text.contains("warning: the backup is partial: 1 of what was asked for"), "{text}");
    assert!(text.contains("note: uploads is not in the archive and stays as it is"), "{text}");
    let text = plan(&fuzzy, optional()).unwrap().to_string();
    assert!(text.contains("warning: state was read while it could change"), "{text}");
    world.stores[0].clear();
    assert!(block_on(plan(&path, optional()).unwrap().execute()).unwrap().restored());
    assert_eq!(world.now(), world.before);
}

#[test]
fn a_pause_that_cannot_be_had_or_runs_out() {
    let world = world();
    let refuses = TestQuiesce { refuses: true, ..TestQuiesce::default() };
    let error = world.restore(&set(&world.stores).quiesce(refuses)).unwrap_err();
    assert_eq!(error.to_string(), "no pause now (the pause of the application)");
    world.is_old();
    let lost = TestQuiesce { runs_out: true, ..TestQuiesce::default() };
    let report = world.restore(&set(&world.stores).quiesce(lost)).unwrap();
    assert!(report.warnings[0].contains("pause ran out"), "{:?}", report.warnings);
    world.is_new();
}

#[test]
fn what_cannot_be_removed_is_named_and_removed_by_resume() {
    // A restore that is aborted, and one that is undone.
    for (fails, leaves) in [(Step::Verify, Step::Abort), (Step::Commit, Step::Finish)] {
        let world = world();
        world.stores[1].fail_at(fails, 1, ErrorKind::NoSpace);
        world.stores[0].fail_at(leaves, 1, ErrorKind::Busy);
        let error = world.restore(&set(&world.stores)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.advice().contains("live content is as before; something is left behind"));
        assert!(error.advice().contains("state"), "{}", error.advice());
        assert_eq!(world.now(), world.before);
        assert!(world.journal());
        let report = block_on(set(&world.stores).resume(world.dir.path())).unwrap().unwrap();
        assert!(!report.restored());
        world.is_old();
    }
}

#[test]
fn a_restore_is_resumed_only_with_its_own_stores() {
    let world = world();
    world.stores[2].fail_at(Step::Finish, 1, ErrorKind::Busy);
    world.restore(&set(&world.stores)).unwrap();
    let dir = world.dir.path();
    let two = Stores::new("docs", "1").with("state", world.stores[0].clone());
    assert_eq!(block_on(two.resume(dir)).unwrap_err().kind(), ErrorKind::NotFound);
    let other = set(&[(); 3].map(|()| MemoryStore::new().with_kind("sqlite")));
    assert_eq!(block_on(other.resume(dir)).unwrap_err().kind(), ErrorKind::Incompatible);
    world.stores[1].unreachable();
    let error = block_on(set(&world.stores).resume(dir)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    world.heal();
    assert!(block_on(set(&world.stores).resume(dir)).unwrap().unwrap().restored());
    world.is_new();
}

#[test]
fn the_third_of_four_refuses_and_the_first_two_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c", "d"];
    let stores = names.map(|_| MemoryStore::new());
    let path = dir.path().join("x.tar.gz");
    let set = || {
        let named = names.iter().zip(&stores);
        named.fold(Stores::new("docs", "1"), |set, (name, store)| set.with(*name, store.clone()))
    };
    stores.iter().for_each(|store| store.insert("c", 1, json!("archived")).unwrap());
    block_on(set().backup_to_file(&path, &BackupOptions::new())).unwrap();
    stores.iter().for_each(|store| store.insert("c", 1, json!("live")).unwrap());
    let before: Vec<_> = stores.iter().map(MemoryStore::snapshot).collect();
    let calls = Arc::new(Mutex::new(Vec::new()));
    for (name, store) in names.into_iter().zip(&stores) {
        let calls = Arc::clone(&calls);
        store.hook(move |step| {
            if matches!(step, Step::Commit | Step::Undo | Step::Finish | Step::Abort) {
                calls.lock().unwrap().push(format!("{step:?} {name}"));
            }
            let refuses = name == "c" && step == Step::Commit;
            let full = || Err(Error::new(ErrorKind::NoSpace, "as planned"));
            if refuses { full() } else { Ok(()) }
        });
    }
    let archive = Archive::open(&path).unwrap();
    let restored =
        block_on(async { set().plan_restore_with(&archive, &bare()).await?.execute().await });
    assert_eq!(restored.unwrap_err().kind(), ErrorKind::NoSpace);
    let expected = [
        "Commit a", "Commit b", "Commit c", "Undo b", "Undo a", "Finish a", "Finish b", "Abort c",
        "Abort d",
    ];
    assert_eq!(*calls.lock().unwrap(), expected);
    assert_eq!(stores.iter().map(MemoryStore::snapshot).collect::<Vec<_>>(), before);
}
