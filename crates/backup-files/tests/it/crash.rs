//! Restores that die between any two verbs, or in the middle of one. FAULTS 64 to 66, 68.

use std::fs;

use crate::*;

/// What a store was and what it is to become, and where.
struct Scene {
    dir: tempfile::TempDir,
    stepwise: bool,
    old: BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>,
    taken: Taken,
}

impl Scene {
    fn new(stepwise: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r");
        sample(&root);
        fs::create_dir(root.join("v1")).unwrap();
        fs::write(root.join("v1/data"), "data 1").unwrap();
        fs::write(root.join("CURRENT"), "v1").unwrap();
        let mut scene = Self { dir, stepwise, old: BTreeMap::new(), taken: Taken::default() };
        scene.taken = take(&scene.open()).unwrap();
        fs::rename(root.join("v1"), root.join("v2")).unwrap();
        fs::write(root.join("CURRENT"), "v2").unwrap();
        fs::write(root.join("docs/a.txt"), "second").unwrap();
        fs::remove_file(root.join("link")).unwrap();
        fs::write(root.join("extra"), "only in the old one").unwrap();
        scene.old = snapshot(&root);
        scene
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("r")
    }

    /// As a new process would.
    fn open(&self) -> FilesStore {
        let builder = FilesStore::builder().root("root", self.root());
        if self.stepwise { builder.switch_stepwise() } else { builder }.build().unwrap()
    }

    fn reattach(&self, token: &StageToken) -> Reattached {
        let text = serde_json::to_string(token).unwrap();
        block_on(self.open().reattach(&serde_json::from_str(&text).unwrap())).unwrap()
    }

    fn staged(&self) -> StageToken {
        stage(&self.open(), &self.taken, &self.taken.plan("r1")).unwrap().0
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join(".r.r1.staged")
    }

    /// Puts the state of a crash on the disk.
    fn set_step(&self, step: &str) {
        let path = self.place().join("state.json");
        let mut state: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        state["step"] = step.into();
        fs::write(path, state.to_string()).unwrap();
    }

    #[track_caller]
    fn is_old(&self) {
        assert_eq!(snapshot(&self.root()), self.old);
    }

    #[track_caller]
    fn is_new(&self) {
        let now = take(&self.open()).unwrap();
        assert_eq!(now.content(), self.taken.content());
    }

    #[track_caller]
    fn is_clean(&self, token: &StageToken) {
        assert!(matches!(self.reattach(token), Reattached::Absent));
        assert_eq!(names(self.dir.path()), ["r"]);
    }

    /// Whatever was found, it can be brought to either end.
    fn ends_well(&self, token: &StageToken, forward: bool) {
        match self.reattach(token) {
            Reattached::Staged(session) if forward => {
                self.is_old();
                verified(&*session, &self.taken);
                block_on(session.commit()).unwrap();
                drop(session);
                return self.ends_well(token, forward);
            }
            Reattached::Staged(session) => {
                self.is_old();
                block_on(session.abort()).unwrap();
                block_on(session.abort()).unwrap();
            }
            Reattached::Committed(session) if forward => {
                self.is_new();
                verified(&*session, &self.taken);
                block_on(session.commit()).unwrap();
                block_on(session.finish()).unwrap();
                block_on(session.finish()).unwrap();
            }
            Reattached::Committed(session) => {
                self.is_new();
                block_on(session.undo()).unwrap();
                drop(session);
                return self.ends_well(token, forward);
            }
            Reattached::Undone(session) => {
                self.is_old();
                block_on(session.undo()).unwrap();
                block_on(session.finish()).unwrap();
                self.is_clean(token);
                return self.is_old();
            }
            other => panic!("{other:?}"),
        }
        self.is_clean(token);
        if forward { self.is_new() } else { self.is_old() }
    }
}

fn all(check: impl Fn(Scene, bool)) {
    for stepwise in [false, true] {
        for forward in [false, true] {
            check(Scene::new(stepwise), forward);
        }
    }
}

#[test]
fn a_process_that_dies_between_verbs_leaves_what_another_can_finish() {
    all(|scene, forward| {
        let token = scene.staged();
        scene.ends_well(&token, forward);
    });
    all(|scene, forward| {
        let token = scene.staged();
        let Reattached::Staged(session) = scene.reattach(&token) else { panic!() };
        block_on(session.commit()).unwrap();
        scene.is_new();
        drop(session);
        scene.ends_well(&token, forward);
    });
    all(|scene, forward| {
        let token = scene.staged();
        let Reattached::Staged(session) = scene.reattach(&token) else { panic!() };
        block_on(session.commit()).unwrap();
        block_on(session.undo()).unwrap();
        drop(session);
        scene.ends_well(&token, forward);
    });
}

#[test]
fn a_crash_on_either_side_of_the_exchange_is_told_apart() {
    for forward in [false, true] {
        // Noted, and not made.
        let scene = Scene::new(false);
        let token = scene.staged();
        let Reattached::Staged(session) = scene.reattach(&token) else { panic!() };
        block_on(session.commit()).unwrap();
        block_on(session.undo()).unwrap();
        drop(session);
        scene.set_step("exchange");
        assert!(matches!(scene.reattach(&token), Reattached::Staged(_)));
        scene.ends_well(&token, forward);

        // Made, and not noted.
        let scene = Scene::new(false);
        let token = scene.staged();
        let Reattached::Staged(session) = scene.reattach(&token) else { panic!() };
        block_on(session.commit()).unwrap();
        drop(session);
        scene.set_step("exchange");
        assert!(matches!(scene.reattach(&token), Reattached::Committed(_)));
        scene.ends_well(&token, forward);
    }
    // The way back, noted and not made.
    let scene = Scene::new(false);
    let token = scene.staged();
    let Reattached::Staged(session) = scene.reattach(&token) else { panic!() };
    block_on(session.commit()).unwrap();
    drop(session);
    scene.set_step("exchange-back");
    assert!(matches!(scene.reattach(&token), Reattached::Undone(_)));
    scene.ends_well(&token, false);
}

/// Moves by hand what a crash would have left on the other side.
fn shift(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        fs::rename(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_crash_among_the_moves_is_gone_back_from_or_finished() {
    for forward in [false, true] {
        // On the way out: some entries are aside, the pointer first.
        let scene = Scene::new(true);
        let token = scene.staged();
        fs::create_dir(scene.place().join("old")).unwrap();
        shift(&scene.root(), &scene.place().join("old"), &["CURRENT", "docs", "empty"]);
        scene.set_step("out");
        scene.ends_well(&token, forward);

        // On the way in.
        let scene = Scene::new(true);
        let token = scene.staged();
        let old = names(&scene.root());
        let old: Vec<_> = old.iter().map(String::as_str).collect();
        fs::create_dir(scene.place().join("old")).unwrap();
        shift(&scene.root(), &scene.place().join("old"), &old);
        shift(&scene.place().join("new"), &scene.root(), &["docs", "link"]);
        let mut state: serde_json::Value =
            serde_json::from_slice(&fs::read(scene.place().join("state.json")).unwrap()).unwrap();
        state["stepwise"] = true.into();
        fs::write(scene.place().join("state.json"), state.to_string()).unwrap();
        scene.set_step("in");
        scene.ends_well(&token, forward);

        // On the way back, in either half.
        let scene = Scene::new(true);
        let token = scene.staged();
        let Reattached::Staged(session) = scene.reattach(&token) else { panic!() };
        block_on(session.commit()).unwrap();
        drop(session);
        shift(&scene.root(), &scene.place().join("new"), &["CURRENT", "v1"]);
        scene.set_step("back-in");
        scene.ends_well(&token, false);
    }
}

#[test]
fn a_crash_in_begin_finish_or_abort_leaves_nothing_that_stays() {
    let scene = Scene::new(false);
    let prepared = block_on(scene.open().prepare(&scene.taken.plan("r1"))).unwrap();
    // Made, and nothing noted yet; or all but the folder itself removed.
    fs::create_dir(scene.place()).unwrap();
    scene.is_clean(&prepared.token);
    scene.is_old();

    // Finished but for half of the old tree.
    let token = scene.staged();
    let Reattached::Staged(session) = scene.reattach(&token) else { panic!() };
    block_on(session.commit()).unwrap();
    drop(session);
    fs::remove_dir_all(scene.place().join("new/docs")).unwrap();
    let Reattached::Committed(session) = scene.reattach(&token) else { panic!() };
    block_on(session.finish()).unwrap();
    scene.is_new();
    scene.is_clean(&token);
}

#[test]
fn half_a_staging_area_is_not_committed() {
    let scene = Scene::new(false);
    let store = scene.open();
    let token = block_on(store.prepare(&scene.taken.plan("r1"))).unwrap().token;
    let session = block_on(store.begin(&token, &Cancel::new())).unwrap();
    block_on(session.write(scene.taken.entries[0].part())).unwrap();
    drop(session);
    let Reattached::Staged(session) = scene.reattach(&token) else { panic!() };
    let error = block_on(session.commit()).unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::Unfinished);
    scene.is_old();
    // Begun again, from the first part on.
    let session = block_on(scene.open().begin(&token, &Cancel::new())).unwrap();
    fill(&*session, &scene.taken).unwrap();
    verified(&*session, &scene.taken);
    drop(session);
    scene.ends_well(&token, true);
}

#[test]
fn two_roots_are_switched_both_or_neither() {
    let dir = tempfile::tempdir().unwrap();
    for root in ["one", "two"] {
        fs::create_dir(dir.path().join(root)).unwrap();
        fs::write(dir.path().join(root).join("f"), "new").unwrap();
    }
    let open = || {
        FilesStore::builder()
            .root("one", dir.path().join("one"))
            .root("two", dir.path().join("two"))
            .build()
            .unwrap()
    };
    let taken = take(&open()).unwrap();
    for root in ["one", "two"] {
        fs::write(dir.path().join(root).join("f"), "old").unwrap();
    }
    let read = |root: &str| fs::read_to_string(dir.path().join(root).join("f")).unwrap();
    let (token, session) = stage(&open(), &taken, &taken.plan("r1")).unwrap();
    drop(session);
    let store = open();
    // The second cannot be switched: something else has taken its place.
    fs::rename(dir.path().join("two"), dir.path().join("aside")).unwrap();
    fs::write(dir.path().join("two"), "a file").unwrap();
    let Reattached::Staged(session) = block_on(store.reattach(&token)).unwrap() else { panic!() };
    block_on(session.commit()).unwrap_err();
    assert_eq!(read("one"), "old");
    fs::remove_file(dir.path().join("two")).unwrap();
    fs::rename(dir.path().join("aside"), dir.path().join("two")).unwrap();
    // Between the two the process died.
    block_on(session.commit()).unwrap();
    drop(session);
    let second = dir.path().join(".two.r1.staged");
    let spare = dir.path().join("spare");
    fs::rename(second.join("new"), &spare).unwrap();
    fs::rename(dir.path().join("two"), second.join("new")).unwrap();
    fs::rename(&spare, dir.path().join("two")).unwrap();
    assert_eq!((read("one"), read("two")), ("new".into(), "old".into()));
    let Reattached::Staged(session) = block_on(open().reattach(&token)).unwrap() else { panic!() };
    assert_eq!((read("one"), read("two")), ("old".into(), "old".into()));
    block_on(session.commit()).unwrap();
    assert_eq!((read("one"), read("two")), ("new".into(), "new".into()));
    block_on(session.undo()).unwrap();
    assert_eq!((read("one"), read("two")), ("old".into(), "old".into()));
    block_on(session.finish()).unwrap();
    assert_eq!(names(dir.path()), ["one", "two"]);
}

#[test]
fn a_root_that_is_neither_old_nor_new_is_left_to_a_person() {
    let scene = Scene::new(false);
    let token = scene.staged();
    let Reattached::Staged(session) = scene.reattach(&token) else { panic!() };
    block_on(session.commit()).unwrap();
    fs::rename(scene.root(), scene.dir.path().join("aside")).unwrap();
    fs::create_dir(scene.root()).unwrap();
    let error = block_on(session.undo()).unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::RepairNeeded);
    drop(session);
    let Reattached::Unknown { reason } = scene.reattach(&token) else { panic!() };
    assert!(reason.contains(".r.r1.staged/new"), "{reason}");
    // Both are kept.
    assert!(scene.place().join("new/extra").exists());
    fs::remove_dir(scene.root()).unwrap();
    fs::rename(scene.dir.path().join("aside"), scene.root()).unwrap();
    scene.ends_well(&token, false);
}
