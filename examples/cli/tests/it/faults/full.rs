//! Disks that are really full: file systems of a few pages.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use super::scene::{RESTORE, Scene, config};
use crate::world::{World, skipped};

const PAGE: usize = 4096;

/// A file system of its own, which can be made larger and smaller.
struct Disk(TempDir);

impl Disk {
    /// `None` where this user may not mount: the test is skipped, aloud.
    fn new(pages: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={}", pages * PAGE);
        let done = mount(&["-t", "tmpfs", "-o", &size, "none"], folder.path());
        if done.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        skipped("a full disk: this user cannot mount a tmpfs");
        None
    }

    fn resize(&self, pages: usize) -> bool {
        let size = format!("remount,size={}", pages * PAGE);
        mount(&["-o", &size], self.0.path()).unwrap().status.success()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn mount(options: &[&str], folder: &Path) -> std::io::Result<Output> {
    Command::new("mount").args(options).arg(folder).output()
}

/// Bytes that cannot be compressed.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn a_full_catalog_gets_no_archive() {
    let Some(disk) = Disk::new(8) else { return };
    let catalog = disk.0.path().to_str().unwrap();
    let world = World::with(&config(catalog));
    fs::write(world.path("uploads/noise"), noise(128 << 10)).unwrap();
    let scene = Scene::of(world);
    // Out of room after every page of it, down to the trailer.
    let mut failed = 0;
    for pages in 1.. {
        assert!(disk.resize(pages));
        let ran = scene.world.run(&["create", "--json"]);
        if ran.code == Some(0) {
            break;
        }
        failed += 1;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert_eq!(ran.document()["error"]["kind"], "no-space", "{ran:?}");
        assert!(scene.listed().is_empty());
        let names = fs::read_dir(catalog).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name != "catalog.lock").collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(scene.live(), scene.old);
    }
    assert!(failed >= 32, "{failed}");
    assert_eq!(scene.listed().len(), 1);
    scene.world.good(&["validate", "latest"]);
}

#[test]
fn a_restore_to_a_full_disk_leaves_everything_as_it_was() {
    const ENOUGH: usize = 4096;
    let Some(disk) = Disk::new(ENOUGH) else { return };
    let catalog = tempfile::tempdir().unwrap();
    let world = World::within(disk.0.path(), &config(catalog.path().to_str().unwrap()));
    fs::write(world.path("uploads/noise"), noise(64 << 10)).unwrap();
    let filled = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 64)
                  INSERT INTO notes (text) SELECT hex(randomblob(512)) FROM n";
    world.db().execute_batch(filled).unwrap();
    let scene = Scene::of(world).change(None);
    // From no room at all, which a file system refuses to be shrunk below, to enough.
    let mut failed = 0;
    for pages in (1..).filter(|pages| disk.resize(*pages)) {
        let ran = scene.world.run(&[&RESTORE[..], &["--json"]].concat());
        // To look at a database takes some room, too.
        assert!(disk.resize(ENOUGH));
        if ran.code == Some(0) {
            break;
        }
        failed += 1;
        assert_eq!(ran.code, Some(1), "{pages}: {ran:?}");
        assert_eq!(ran.document()["error"]["kind"], "no-space", "{pages}: {ran:?}");
        assert_eq!(scene.live(), scene.old, "{pages}: {ran:?}");
        assert_eq!(scene.world.good(&["resume"]), "nothing to resume\n", "{pages}: {ran:?}");
        scene.nothing_is_left();
    }
    assert!(failed > 16, "{failed}");
    assert_eq!(scene.live(), scene.new);
    scene.nothing_is_left();
}
