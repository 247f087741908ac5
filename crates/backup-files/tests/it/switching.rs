//! How old becomes new: at once, or entry by entry on a mount point.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use backup_core::{ErrorKind, Switch};

use crate::*;

#[test]
fn a_folder_is_exchanged_at_once_and_keeps_its_mode_and_owner() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    sample(&root);
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    chmod(&root, 0o2770);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&root, Some(1234), Some(1234)).unwrap();
    }
    let before = fs::metadata(&root).unwrap();
    let prepared = block_on(store.prepare(&taken.plan("r1"))).unwrap();
    assert!(prepared.switch.is_atomic() || prepared.switch == Switch::Stepwise);
    let (_, session) = stage(&store, &taken, &taken.plan("r1")).unwrap();
    block_on(session.commit()).unwrap();
    let after = fs::metadata(&root).unwrap();
    assert_eq!(
        (after.mode(), after.uid(), after.gid()),
        (before.mode(), before.uid(), before.gid())
    );
    assert_ne!(after.ino(), before.ino(), "it is another folder");
    block_on(session.finish()).unwrap();
}

#[test]
fn the_pointer_goes_first_and_comes_last() {
    // Nothing else can be seen of it from outside than that a reader who finds the pointer
    // also finds what it points at.
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    let version = |n: u32| {
        fs::create_dir_all(root.join(format!("v{n}"))).unwrap();
        fs::write(root.join(format!("v{n}/data")), "data").unwrap();
        for filler in 0..200 {
            fs::write(root.join(format!("{filler}-{n}")), "").unwrap();
        }
        fs::write(root.join("CURRENT"), format!("v{n}")).unwrap();
    };
    version(1);
    let store = FilesStore::builder().root("root", &root).switch_stepwise().build().unwrap();
    let taken = take(&store).unwrap();
    fs::remove_dir_all(&root).unwrap();
    version(2);
    for turn in 0..5 {
        let (_, session) = stage(&store, &taken, &taken.plan(&format!("r{turn}"))).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Others need the processor too.
                    std::thread::yield_now();
                    let Ok(name) = fs::read_to_string(root.join("CURRENT")) else { continue };
                    let there = root.join(&name).join("data").exists();
                    // Gone again meanwhile is no fault of the order.
                    let again = fs::read_to_string(root.join("CURRENT")).ok();
                    assert!(there || again.as_ref() != Some(&name), "{name} points at nothing");
                }
            });
            let stop = Stop(&done);
            block_on(session.commit()).unwrap();
            assert_eq!(fs::read_to_string(root.join("CURRENT")).unwrap(), "v1");
            block_on(session.undo()).unwrap();
            drop(stop);
            reader.join().unwrap();
        });
        block_on(session.finish()).unwrap();
    }
}

/// A file system of its own, if this user may mount one.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(&path);
        match mount.output() {
            Ok(done) if done.status.success() => Some(Self(path)),
            other => {
                assert!(
                    std::env::var_os("BACKUP_KIT_REQUIRE").is_none(),
                    "a mount was required: {other:?}"
                );
                #[expect(clippy::print_stderr, reason = "a skip is said aloud")]
                {
                    eprintln!("SKIPPED: this user cannot mount a tmpfs");
                }
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_mount_point_is_switched_entry_by_entry_from_within() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path().join("r"), "size=8m") else { return };
    let root = &mount.0;
    sample(root);
    chmod(&root.join("docs"), 0o555);
    let store = FilesStore::open(root).unwrap();
    let taken = take(&store).unwrap();
    chmod(&root.join("docs"), 0o755);
    fs::write(root.join("docs/later"), "must go").unwrap();
    fs::write(root.join("later"), "must go").unwrap();
    let before = snapshot(root);
    let prepared = block_on(store.prepare(&taken.plan("r1"))).unwrap();
    assert_eq!(prepared.switch, Switch::Stepwise);
    assert!(prepared.notes.iter().any(|note| note.contains("mount point")));
    let (token, session) = stage(&store, &taken, &taken.plan("r1")).unwrap();
    assert_eq!(names(dir.path()), ["r"], "nothing beside the mount point");
    block_on(session.commit()).unwrap();
    verified(&*session, &taken);
    drop(session);
    let Reattached::Committed(session) = block_on(store.reattach(&token)).unwrap() else {
        panic!("not committed")
    };
    verified(&*session, &taken);
    block_on(session.undo()).unwrap();
    block_on(session.finish()).unwrap();
    assert_eq!(snapshot(root), before);
    restore(&store, &taken).unwrap();
    assert_eq!(take(&store).unwrap().content(), taken.content());
}

// FAULTS 71
#[test]
fn a_restore_without_room_does_not_begin() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path().join("r"), "size=1m,nr_inodes=20") else { return };
    let store = FilesStore::open(&mount.0).unwrap();
    let mut plan = StagePlan::new("r1", "store", "files");
    plan.bytes = 2 << 20;
    assert_eq!(block_on(store.prepare(&plan)).unwrap_err().kind(), ErrorKind::NoSpace);
    plan.bytes = 0;
    let mut many = Tally::new();
    many.records = 1000;
    plan.content.collections.insert("root".into(), many);
    assert_eq!(block_on(store.prepare(&plan)).unwrap_err().kind(), ErrorKind::NoSpace);
    // One that fills up on the way is an error, and aborts cleanly.
    plan.content = Content::new();
    let token = block_on(store.prepare(&plan)).unwrap().token;
    let session = block_on(store.begin(&token, &Cancel::new())).unwrap();
    let large = entry("large", Kind::File(vec![1; 3 << 20]));
    assert_eq!(block_on(session.write(large.part())).unwrap_err().kind(), ErrorKind::NoSpace);
    block_on(session.abort()).unwrap();
    assert_eq!(names(&mount.0), Vec::<String>::new());
}

#[test]
fn a_mount_within_a_root_is_backed_up_and_not_restored_over() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    let Some(mount) = Mount::new(root.join("inner"), "size=1m") else { return };
    fs::write(mount.0.join("f"), "content").unwrap();
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    assert_eq!(taken.paths(), ["inner", "inner/f"]);
    let error = block_on(store.prepare(&taken.plan("r1"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    drop(mount);
    restore(&store, &taken).unwrap();
    assert_eq!(names(&root.join("inner")), ["f"]);
}

#[test]
fn what_cannot_be_restored_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    sample(&root);
    let store = FilesStore::open(&root).unwrap();
    let refused = |plan: &StagePlan| block_on(store.prepare(plan)).unwrap_err().kind();
    assert_eq!(refused(&StagePlan::new("r1", "store", "sqlite")), ErrorKind::Incompatible);
    for id in ["", "../r", "a/b", "a b"] {
        assert_eq!(refused(&StagePlan::new(id, "store", "files")), ErrorKind::InvalidInput);
    }
    let mut plan = StagePlan::new("r1", "store", "files");
    plan.content.collections.insert("other".into(), Tally::new());
    assert_eq!(refused(&plan), ErrorKind::NotFound);
    fs::rename(&root, dir.path().join("aside")).unwrap();
    fs::write(&root, "a file now").unwrap();
    assert_eq!(refused(&StagePlan::new("r1", "store", "files")), ErrorKind::InvalidInput);
}

#[test]
fn files_whose_folders_were_not_chosen_get_folders_that_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    for stepwise in [false, true] {
        let builder = FilesStore::builder().root("root", &root);
        let store = if stepwise { builder.switch_stepwise() } else { builder }.build().unwrap();
        let mut taken = Taken::default();
        for path in ["a/b/c/file", "a/b/other", "z/file"] {
            taken.entries.push(entry(path, Kind::File(path.into())));
        }
        restore(&store, &taken).unwrap();
        assert_eq!(fs::metadata(root.join("a/b")).unwrap().mode() & 0o777, 0o755);
        assert_eq!(fs::read(root.join("a/b/c/file")).unwrap(), b"a/b/c/file");
    }
}

#[test]
fn plans_say_that_excluded_files_will_be_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = FilesStore::builder().root("root", dir.path()).exclude("models/").build().unwrap();
    let plan = StagePlan::new("r1", "store", "files");
    let notes = block_on(store.prepare(&plan)).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("models/")), "{notes:?}");
}
