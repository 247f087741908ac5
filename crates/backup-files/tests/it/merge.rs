//! Restores that put files into a folder that has some.

use std::{fs, os::unix::fs::symlink, time::SystemTime};

use backup_core::{
    BackupOptions, Conflict, ConflictCounts, ErrorKind, MergedCollection, RestoreOptions,
    RestoreReport, Stores, WriteMode, archive::Archive,
};

use crate::*;

const LONG: usize = 3 << 20;

/// A folder, an archive of what it was, and what it has become.
struct World {
    dir: tempfile::TempDir,
    stepwise: bool,
    archived: Tree,
    live: Tree,
}

type Tree = BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>;

impl World {
    fn new(stepwise: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r");
        fs::create_dir_all(root.join("sub/gone")).unwrap();
        write(&root, "same", "same", 1000);
        write(&root, "long", &"x".repeat(LONG), 1000);
        write(&root, "older.tar.gz", "archived", 1000);
        write(&root, "newer", "archived", 3000);
        write(&root, "sub/gone/deep", "archived", 1000);
        write(&root, "CURRENT", "archived", 1000);
        symlink("same", root.join("link")).unwrap();
        let mut world = Self { dir, stepwise, archived: Tree::new(), live: Tree::new() };
        world.archived = snapshot(&root);
        let whole = block_on(world.stores().backup_to_file(world.path("x"), &BackupOptions::new()));
        assert!(whole.unwrap().outcome.is_complete());
        write(&root, "older.tar.gz", "live", 2000);
        write(&root, "newer", "live", 2000);
        write(&root, "mine", "live", 2000);
        write(&root, "sub/mine", "live", 2000);
        write(&root, "CURRENT", "live", 500);
        fs::remove_dir_all(root.join("sub/gone")).unwrap();
        fs::remove_file(root.join("link")).unwrap();
        symlink("mine", root.join("link")).unwrap();
        chmod(&root.join("sub"), 0o2755);
        world.live = snapshot(&root);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("r")
    }

    fn store(&self) -> FilesStore {
        let builder = FilesStore::builder().root("root", self.root());
        if self.stepwise { builder.switch_stepwise() } else { builder }.build().unwrap()
    }

    fn stores(&self) -> Stores {
        Stores::new("docs", "1.0.0").with("uploads", self.store())
    }

    fn options(rule: Conflict) -> RestoreOptions {
        RestoreOptions::new().merge().conflict(rule)
    }

    fn restore(&self, options: &RestoreOptions) -> Result<RestoreReport> {
        self.restore_from(&self.path("x"), options)
    }

    fn restore_from(&self, archive: &Path, options: &RestoreOptions) -> Result<RestoreReport> {
        block_on(async {
            let archive = Archive::open(archive)?;
            self.stores().plan_restore_with(&archive, options).await?.execute().await
        })
    }

    /// What is in a file or link, by either's path.
    fn text(&self, name: &str) -> Option<String> {
        let content = snapshot(&self.root()).remove(Path::new(name))?.3;
        Some(String::from_utf8(content).unwrap())
    }

    #[track_caller]
    fn is_tidy(&self) {
        let mut there = names(self.dir.path());
        there.retain(|name| !["r", "x", "before-restore", "restore.lock"].contains(&name.as_str()));
        assert!(there.is_empty(), "{there:?}");
    }

    #[track_caller]
    fn is_live(&self) {
        assert_eq!(snapshot(&self.root()), self.live);
        self.is_tidy();
    }
}

fn write(root: &Path, name: &str, text: &str, seconds: u64) {
    fs::write(root.join(name), text).unwrap();
    let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000 + seconds);
    fs::File::open(root.join(name)).unwrap().set_modified(time).unwrap();
}

fn counts(report: &RestoreReport) -> ConflictCounts {
    report.stores[0].merged["root"].counts
}

#[test]
fn every_rule_does_as_it_says_and_leaves_what_is_not_in_the_archive() {
    // older.tar.gz, newer, CURRENT, link; updated, copied, skipped.
    let rules = [
        (Conflict::Overwrite, ["archived", "archived", "archived", "same"], (5, 0, 0)),
        (Conflict::Merge, ["archived", "archived", "archived", "same"], (5, 0, 0)),
        (Conflict::Skip, ["live", "live", "live", "mine"], (0, 0, 4)),
        (Conflict::KeepNewer, ["live", "archived", "archived", "mine"], (2, 0, 3)),
        (Conflict::KeepOlder, ["archived", "live", "live", "same"], (3, 0, 2)),
        (Conflict::KeepBoth, ["live", "live", "live", "mine"], (0, 4, 0)),
    ];
    for (rule, wanted, (updated, copied, skipped)) in rules {
        for stepwise in [false, true] {
            let world = World::new(stepwise);
            let archive = Archive::open(world.path("x")).unwrap();
            let options = World::options(rule);
            let (report, preview) = block_on(async {
                let plan = world.stores().plan_restore_with(&archive, &options).await.unwrap();
                let preview = plan.preview().await.unwrap();
                world.is_live();
                (plan.execute().await.unwrap(), preview)
            });
            let found =
                ["older.tar.gz", "newer", "CURRENT", "link"].map(|n| world.text(n).unwrap());
            assert_eq!(found, wanted, "{rule}");
            for name in ["mine", "sub/mine"] {
                assert_eq!(world.text(name).unwrap(), "live", "{rule}");
            }
            let path = Path::new("sub/gone/deep");
            assert_eq!(snapshot(&world.root())[path], world.archived[path], "{rule}");
            let MergedCollection { counts: before, .. } = preview["uploads"]["root"];
            let counts = counts(&report);
            assert_eq!(before, counts, "{rule}");
            assert_eq!(counts.created, 2, "{rule}");
            let other = (counts.updated, counts.copied, counts.skipped);
            assert_eq!(other, (updated, copied, skipped), "{rule}");
            // The special bits of a folder are not carried: they stay.
            let sub = fs::metadata(world.root().join("sub")).unwrap().mode();
            assert_eq!(sub & 0o7777, 0o2755, "{rule}");
            world.is_tidy();
            // Once more: nothing is left to do.
            let again = world.restore(&options).unwrap();
            let again = again.stores[0].merged["root"].counts;
            assert_eq!((again.created, again.updated, again.copied), (0, 0, 0), "{rule}");
        }
    }
}

#[test]
fn fail_changes_nothing_and_names_the_file() {
    let world = World::new(false);
    let error = world.restore(&World::options(Conflict::Fail)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("CURRENT"), "{error}");
    world.is_live();
}

#[test]
fn a_copy_keeps_its_extension_and_is_not_made_twice() {
    let world = World::new(false);
    let report = world.restore(&World::options(Conflict::KeepBoth)).unwrap();
    assert_eq!(report.undo, None, "nothing was changed");
    let copies = || -> Vec<String> {
        names(&world.root()).into_iter().filter(|name| name.contains("(imported ")).collect()
    };
    let first = copies();
    assert_eq!(first.len(), 4);
    let copy = first.iter().find(|name| name.starts_with("older.tar (imported ")).unwrap();
    assert!(copy.ends_with(").gz"), "{copy}");
    assert_eq!(world.text(copy).unwrap(), "archived");
    // One that was edited is kept, and another made.
    write(&world.root(), copy, "edited", 9000);
    let again = world.restore(&World::options(Conflict::KeepBoth)).unwrap();
    assert_eq!(
        (counts(&again).copied, counts(&again).unchanged),
        (1, counts(&report).unchanged + 5)
    );
    assert_eq!(copies().len(), 5);
    assert_eq!(world.text(copy).unwrap(), "edited");
}

#[test]
fn what_is_replaced_is_kept_in_an_archive_that_brings_it_back() {
    let world = World::new(false);
    let report = world.restore(&World::options(Conflict::Overwrite)).unwrap();
    assert_eq!(report.safety_backup, None);
    let undo = report.undo.unwrap();
    let held = Archive::open(&undo).unwrap();
    let tally = &held.manifest().stores["uploads"].collections["root"].tally;
    assert_eq!(tally.records, counts_of_updated(&report.stores[0].merged));
    let back = RestoreOptions::new().no_safety_backup();
    world.restore_from(&undo, &back).unwrap();
    let mut now = snapshot(&world.root());
    // What is new stays; and so the folder that it lies in has another time.
    now.retain(|path, _| !path.starts_with("sub/gone"));
    assert_eq!(now, world.live);
}

fn counts_of_updated(merged: &BTreeMap<String, MergedCollection>) -> u64 {
    merged["root"].counts.updated
}

#[test]
fn a_folder_and_a_file_of_one_name_are_not_mixed() {
    let world = World::new(false);
    fs::remove_file(world.root().join("newer")).unwrap();
    fs::create_dir(world.root().join("newer")).unwrap();
    write(&world.root(), "sub/gone", "a file", 1);
    let live = snapshot(&world.root());
    for rule in [Conflict::Overwrite, Conflict::KeepNewer, Conflict::KeepBoth, Conflict::Fail] {
        let error = world.restore(&World::options(rule)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{rule}");
        assert_eq!(snapshot(&world.root()), live, "{rule}");
        world.is_tidy();
    }
    // All that the archive has below gives way with the folder.
    let report = world.restore(&World::options(Conflict::Skip)).unwrap();
    assert_eq!(snapshot(&world.root()), live);
    assert_eq!((counts(&report).created, counts(&report).skipped), (0, 6));
}

#[test]
fn links_in_the_root_lead_nowhere_else() {
    let world = World::new(false);
    let outside = world.path("x-outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir_all(world.root().join("sub")).unwrap();
    symlink(&outside, world.root().join("sub")).unwrap();
    let error = world.restore(&World::options(Conflict::Overwrite)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    world.restore(&World::options(Conflict::Skip)).unwrap();
    assert!(names(&outside).is_empty());
}

#[test]
fn a_root_that_is_not_there_is_made_and_one_that_came_meanwhile_is_not_replaced() {
    let world = World::new(false);
    fs::remove_dir_all(world.root()).unwrap();
    let report = world.restore(&World::options(Conflict::Overwrite)).unwrap();
    assert_eq!(counts(&report).created, 9);
    assert_eq!(snapshot(&world.root()), world.archived);

    let moved = world.path("x-moved");
    fs::rename(world.root(), &moved).unwrap();
    let archive = Archive::open(world.path("x")).unwrap();
    let (token, session) = staged(&world, &archive);
    fs::rename(&moved, world.root()).unwrap();
    let error = block_on(session.commit()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    drop(session);
    let Reattached::Staged(session) = block_on(world.store().reattach(&token)).unwrap() else {
        panic!()
    };
    block_on(session.abort()).unwrap();
    assert_eq!(snapshot(&world.root()), world.archived);
    world.is_tidy();
}

/// All of an archive, asked for and written into staging.
fn staged(world: &World, archive: &Archive) -> (StageToken, Box<dyn SinkSession>) {
    let store = world.store();
    block_on(async {
        let mut plan = StagePlan::new("r1", "uploads", "files");
        plan.mode = WriteMode::Merge;
        plan.content.collections.insert("root".into(), Tally::new());
        let token = store.prepare(&plan).await.unwrap().token;
        let session = store.begin(&token, &Cancel::new()).await.unwrap();
        let mut parts = archive.stream(&["uploads".into()], &Cancel::new()).unwrap();
        while let Some(part) = parts.next().await {
            let (_, part) = part.unwrap();
            if let Part::Entry(entry) = &part {
                session.existing_entry("root", &entry.path).await.unwrap();
            }
            session.write(part).await.unwrap();
        }
        session.verify(&Content::new()).await.unwrap();
        (token, session)
    })
}

#[test]
fn what_changes_after_it_was_looked_at_is_not_written_over() {
    let changes: [fn(&Path); 6] = [
        |root| fs::write(root.join("newer"), "changed").unwrap(),
        |root| {
            fs::remove_file(root.join("newer")).unwrap();
        },
        |root| chmod(&root.join("newer"), 0o600),
        |root| fs::write(root.join("sub/gone"), "made").unwrap(),
        |root| {
            fs::create_dir(root.join("sub/gone")).unwrap();
            fs::write(root.join("sub/gone/deep"), "made").unwrap();
        },
        |root| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("other", root.join("link")).unwrap();
        },
    ];
    for stepwise in [false, true] {
        for (number, change) in changes.iter().enumerate() {
            let world = World::new(stepwise);
            let archive = Archive::open(world.path("x")).unwrap();
            let (_, session) = staged(&world, &archive);
            change(&world.root());
            let live = snapshot(&world.root());
            let error = block_on(session.commit()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Changed, "{number}");
            assert_eq!(snapshot(&world.root()), live, "{number}");
            block_on(session.abort()).unwrap();
            assert_eq!(snapshot(&world.root()), live, "{number}");
            world.is_tidy();
        }
    }
}

/// Every number of moves that a crash may leave, on the way in and on the way back.
#[test]
fn a_crash_among_the_moves_is_finished_or_gone_back_from() {
    for stepwise in [false, true] {
        for forward in [false, true] {
            for moves in 0..=7 {
                let world = World::new(stepwise);
                let archive = Archive::open(world.path("x")).unwrap();
                let (token, session) = staged(&world, &archive);
                let merged = {
                    let other = World::new(stepwise);
                    let (_, session) = staged(&other, &Archive::open(world.path("x")).unwrap());
                    block_on(session.commit()).unwrap();
                    let merged = without_folders(&other.root());
                    block_on(session.undo()).unwrap();
                    assert_eq!(snapshot(&other.root()), other.live);
                    block_on(session.finish()).unwrap();
                    merged
                };
                let place = world.path(".r.r1.staged");
                // The lists that a switch begins with.
                block_on(session.commit()).unwrap();
                block_on(session.undo()).unwrap();
                drop(session);
                let step = if forward { "in" } else { "back-in" };
                some_moves(&world, &place, moves);
                set_step(&place, step);
                let store = world.store();
                match block_on(store.reattach(&token)).unwrap() {
                    Reattached::Committed(session) if forward => {
                        assert_eq!(without_folders(&world.root()), merged, "{moves}");
                        block_on(session.verify(&Content::new())).unwrap();
                        block_on(session.finish()).unwrap();
                        assert_eq!(without_folders(&world.root()), merged, "{moves}");
                    }
                    Reattached::Undone(session) if !forward => {
                        assert_eq!(snapshot(&world.root()), world.live, "{moves}");
                        block_on(session.finish()).unwrap();
                        assert_eq!(snapshot(&world.root()), world.live, "{moves}");
                    }
                    other => panic!("{other:?}"),
                }
                world.is_tidy();
            }
        }
    }
}

fn without_folders(root: &Path) -> Tree {
    let mut tree = snapshot(root);
    tree.retain(|path, _| !root.join(path).is_dir() || root.join(path).is_symlink());
    // A link's time is not the same in two worlds.
    tree.values_mut().for_each(|facts| (facts.1, facts.2) = (0, 0));
    tree
}

/// Moves by hand as many entries as a crash would have left on the other side, the last one half
/// where that takes two moves.
fn some_moves(world: &World, place: &Path, moves: usize) {
    let (new, old) = (place.join("new"), place.join("old"));
    let list = fs::read(place.join("notes")).unwrap();
    let paths: Vec<_> = list.split(|byte| *byte == 0).step_by(2).collect();
    let mut left = moves;
    for (index, path) in paths.iter().enumerate() {
        let path = String::from_utf8(path.to_vec()).unwrap();
        let (live, staged) = (world.root().join(&path), new.join(&path));
        if left == 0
            || path.is_empty()
            || path == "CURRENT"
            || !staged.exists() && !staged.is_symlink()
        {
            continue;
        }
        let there = fs::symlink_metadata(&live);
        if there.as_ref().is_ok_and(fs::Metadata::is_dir) {
            continue;
        }
        left -= 1;
        match there {
            Err(_) => fs::rename(&staged, &live).unwrap(),
            Ok(_) if world.stepwise => {
                fs::rename(&live, old.join(index.to_string())).unwrap();
                if left > 0 {
                    fs::rename(&staged, &live).unwrap();
                }
            }
            Ok(_) => {
                let spare = place.join("spare");
                fs::rename(&live, &spare).unwrap();
                fs::rename(&staged, &live).unwrap();
                fs::rename(&spare, &staged).unwrap();
            }
        }
    }
}

fn set_step(place: &Path, step: &str) {
    let path = place.join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["step"] = step.into();
    state["stepwise"] = true.into();
    fs::write(path, state.to_string()).unwrap();
}
