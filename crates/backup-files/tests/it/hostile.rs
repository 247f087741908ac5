//! Entries that no honest archive holds. FAULTS 1 to 4, 8, 21, 38.

use std::{fs, os::unix::fs::symlink};

use backup_core::{Error, ErrorKind};

use crate::*;

/// A root with something in it and something beside it, and a restore that has begun.
struct Scene {
    dir: tempfile::TempDir,
    store: FilesStore,
    session: Box<dyn SinkSession>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("r")).unwrap();
        fs::write(dir.path().join("r/live"), "live").unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/precious"), "precious").unwrap();
        chmod(&dir.path().join("outside"), 0o750);
        let store = FilesStore::open(dir.path().join("r")).unwrap();
        let plan = StagePlan::new("r1", "store", "files");
        let token = block_on(store.prepare(&plan)).unwrap().token;
        let session = block_on(store.begin(&token, &Cancel::new())).unwrap();
        Self { dir, store, session }
    }

    fn write(&self, entry: Entry) -> Result<()> {
        block_on(self.session.write(entry.part()))
    }

    fn staged(&self) -> PathBuf {
        self.dir.path().join(".r.r1.staged/new")
    }

    /// Nothing outside was touched, and an abort leaves no trace.
    fn unharmed(self) {
        block_on(self.session.abort()).unwrap();
        assert_eq!(names(self.dir.path()), ["outside", "r"]);
        assert_eq!(names(&self.dir.path().join("outside")), ["precious"]);
        let outside = fs::metadata(self.dir.path().join("outside")).unwrap();
        assert_eq!(outside.mode() & 0o777, 0o750);
        assert_eq!(fs::read(self.dir.path().join("outside/precious")).unwrap(), b"precious");
        assert_eq!(take(&self.store).unwrap().paths(), ["live"]);
    }
}

fn file(path: &str) -> Entry {
    entry(path, Kind::File(b"content".to_vec()))
}

fn large(path: &str) -> Entry {
    entry(path, Kind::File(vec![1; 2 << 20]))
}

fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Link(target.into()))
}

/// Brings what was written to the disk: entries are made in batches.
fn flush(scene: &Scene) -> Result<()> {
    block_on(scene.session.verify(&Content::new())).map(|_| ())
}

#[track_caller]
fn is(kind: ErrorKind, outcome: Result<()>) -> Error {
    let error = outcome.expect_err("was taken");
    assert_eq!(error.kind(), kind, "{error:?}");
    error
}

#[test]
fn paths_that_lead_out_cannot_even_be_named() {
    for path in ["../x", "/x", "a/../../x", "a//x", "./x", ""] {
        assert_eq!(EntryPath::new(path).unwrap_err().kind(), ErrorKind::Hostile);
    }
    // Plain names here, whatever they mean elsewhere.
    let scene = Scene::new();
    scene.write(file("..\\x")).unwrap();
    scene.write(file("C:\\x")).unwrap();
    flush(&scene).unwrap();
    assert_eq!(names(&scene.staged()), ["..\\x", "C:\\x"]);
    scene.unharmed();
}

#[test]
fn nothing_is_written_through_a_link() {
    let scene = Scene::new();
    scene.write(link("a", "../../../outside")).unwrap();
    is(ErrorKind::Hostile, scene.write(file("a/precious")));
    is(ErrorKind::Hostile, scene.write(entry("a/sub", Kind::Folder)));
    is(ErrorKind::Hostile, scene.write(link("a/link", "x")));
    scene.write(file("b")).unwrap();
    is(ErrorKind::Hostile, scene.write(file("b/below a file")));
    scene.unharmed();
}

#[test]
fn a_folder_in_the_place_of_a_link_does_not_change_what_the_link_names() {
    let scene = Scene::new();
    scene.write(link("a", "../../../outside")).unwrap();
    is(ErrorKind::Hostile, scene.write(Entry { mode: 0o777, ..entry("a", Kind::Folder) }));
    scene.unharmed();
}

#[test]
fn names_twice_or_out_of_order_are_refused() {
    let scene = Scene::new();
    scene.write(file("a/b/c")).unwrap();
    is(ErrorKind::Hostile, scene.write(file("a/b/c")));
    is(ErrorKind::Hostile, scene.write(entry("a/b", Kind::Folder)));
    is(ErrorKind::Hostile, scene.write(entry("a", Kind::Folder)));
    is(ErrorKind::Hostile, scene.write(file("Z")));
    scene.write(file("a.txt")).unwrap();
    scene.unharmed();
}

// What a file system without upper and lower case says when the second name is made.
#[test]
fn names_that_the_target_takes_for_the_same_are_refused() {
    for entry in [
        file("readme"),
        entry("readme", Kind::Folder),
        file("readme/x"),
        link("readme", "x"),
        entry("readme", Kind::File(vec![0; 5 << 20])),
    ] {
        let scene = Scene::new();
        fs::write(scene.staged().join("readme"), "made under the name README").unwrap();
        let outcome = scene.write(entry).and_then(|()| flush(&scene));
        let error = is(ErrorKind::Incompatible, outcome);
        assert!(error.to_string().contains("readme"));
        // Nor can it be forgotten.
        block_on(scene.session.commit()).unwrap_err();
        scene.unharmed();
    }
}

#[test]
fn special_bits_are_dropped_and_absurd_times_refused() {
    let scene = Scene::new();
    scene.write(Entry { mode: 0o7777, ..file("a") }).unwrap();
    for modified in [(i64::MAX, 0), (i64::MIN, 0), (0, 1_000_000_000), (1 << 40, 5)] {
        is(ErrorKind::Hostile, scene.write(Entry { modified, ..file("b") }));
    }
    scene.write(Entry { modified: (-1, 999_999_999), ..file("b") }).unwrap();
    flush(&scene).unwrap();
    let mode = fs::metadata(scene.staged().join("a")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o777);
    scene.unharmed();
}

#[test]
fn links_that_no_system_makes_are_refused() {
    let scene = Scene::new();
    is(ErrorKind::Hostile, scene.write(link("a", "")));
    is(ErrorKind::Hostile, scene.write(link("b", "x\0y")));
    is(ErrorKind::Hostile, scene.write(link("c", &"x".repeat(5000))));
    scene.unharmed();
}

// FAULTS 38
#[test]
fn a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere() {
    let scene = Scene::new();
    let outside = scene.dir.path().join("outside");
    scene.write(entry("a", Kind::Folder)).unwrap();
    scene.write(entry("a/b", Kind::Folder)).unwrap();
    // Large files are made at once, with all that came before them.
    scene.write(large("a/b/a")).unwrap();
    fs::rename(scene.staged().join("a"), scene.dir.path().join(".moved")).unwrap();
    symlink(&outside, scene.staged().join("a")).unwrap();
    // The handle is of the folder, wherever it is now.
    scene.write(large("a/b/c")).unwrap();
    scene.write(large("a/precious")).unwrap();
    assert!(scene.dir.path().join(".moved/b/c").exists());
    assert!(scene.dir.path().join(".moved/precious").exists());
    scene.write(file("z")).unwrap();
    let found = block_on(scene.session.verify(&Content::new())).unwrap();
    assert_eq!(found.collections["root"].records, 2, "the link and z: not what was written");
    fs::remove_dir_all(scene.dir.path().join(".moved")).unwrap();
    scene.unharmed();
}

#[test]
fn a_root_that_is_swapped_for_a_link_is_not_followed() {
    let scene = Scene::new();
    scene.write(file("a")).unwrap();
    let (live, outside) = (scene.dir.path().join("r"), scene.dir.path().join("outside"));
    fs::rename(&live, scene.dir.path().join("elsewhere")).unwrap();
    symlink(&outside, &live).unwrap();
    let outcome = block_on(scene.session.commit());
    outcome.unwrap_err();
    fs::remove_file(&live).unwrap();
    fs::rename(scene.dir.path().join("elsewhere"), &live).unwrap();
    scene.unharmed();
}

#[test]
fn bodies_of_another_length_are_refused() {
    for len in [3, 9, 5 << 20] {
        let scene = Scene::new();
        let mut part = file("a").part();
        if let Part::Entry(FileEntry { kind: EntryKind::File { len: claimed, .. }, .. }) = &mut part
        {
            *claimed = len;
        }
        is(ErrorKind::Corrupt, block_on(scene.session.write(part)));
        is(ErrorKind::Unfinished, scene.write(file("b")));
        is(ErrorKind::Unfinished, block_on(scene.session.commit()));
        scene.unharmed();
    }
}
