//! What is whole in a damaged archive, restored on request.

use super::*;
use crate::archive::Salvage;

impl World {
    fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.dir.path().join("x.tar.gz");
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
    }

    fn salvaged(&self) -> Result<RestoreReport> {
        block_on(async {
            let salvage = Salvage::open(self.dir.path().join("x.tar.gz"))?;
            set(&self.stores).plan_salvage(salvage, &bare()).await?.execute().await
        })
    }

    /// Whatever is live is of the archive, and was there before where the archive lost it.
    #[track_caller]
    fn holds_only_what_was_archived(&self, report: &RestoreReport) {
        let restored = |name: &str| report.stores.iter().any(|store| store.name == name);
        for (n, (name, store)) in NAMES.iter().zip(&self.stores).enumerate() {
            if !restored(name) {
                assert_eq!(store.snapshot(), self.before[n], "{name}");
            }
        }
        if restored("state") {
            for key in 0..35 {
                let value = self.stores[0].get("notes", key);
                assert!(value.is_none() || value == Some(json!({"n": key})));
            }
            assert_eq!(self.stores[0].get("newer", 1), None, "a restore replaces");
        }
        if restored("vectors") {
            let content = self.stores[2].content();
            let points = content.collections.get("points").cloned().unwrap_or_default();
            assert_eq!(points.records, points.vectors.get("text").map_or(0, |text| text.count));
            assert!(self.stores[2].blob("native.db").is_none_or(|blob| blob == vec![3; 100_000]));
        }
    }
}

#[test]
fn nothing_is_lost_of_a_whole_archive() {
    let world = world();
    let report = world.salvaged().unwrap();
    assert_eq!(report.lost.unwrap().lost_count, 0);
    world.is_new();
}

#[test]
fn what_a_damaged_byte_leaves_is_restored_and_the_rest_is_named() {
    let len = std::fs::metadata(world().dir.path().join("x.tar.gz")).unwrap().len() as usize;
    let (mut all, mut some) = (0, 0);
    for n in 0..60 {
        let world = world();
        world.damage(|bytes| bytes[len * n / 60] ^= 0x40);
        match world.salvaged() {
            // The begin says whose it is, where the end is damaged.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                world.is_old();
            }
            Ok(report) => {
                world.holds_only_what_was_archived(&report);
                let lost = report.lost.as_ref().unwrap();
                let changed = world.now() != world.archived;
                assert!(!changed || lost.lost_count > 0, "{report:?}");
                *(if changed { &mut some } else { &mut all }) += 1;
                // Without being asked for, nothing is restored of it.
                let world = self::world();
                world.damage(|bytes| bytes[len * n / 60] ^= 0x40);
                let opened = Archive::open(world.dir.path().join("x.tar.gz"));
                let stores = set(&world.stores);
                let plain = opened.and_then(|archive| {
                    block_on(async {
                        stores.plan_restore_with(&archive, &bare()).await?.execute().await
                    })
                });
                if changed {
                    assert_eq!(plain.unwrap_err().kind(), ErrorKind::Corrupt);
                    world.is_old();
                }
            }
        }
    }
    assert!(some > 20 && all + some > 50, "{all} all, {some} some");
}

#[test]
fn a_cut_archive_gives_what_its_pages_describe() {
    // Pages stand at the end of a small archive: cut there, they and so the rest remain.
    let world = world();
    world.damage(|bytes| bytes.truncate(bytes.len() - 10));
    let report = world.salvaged().unwrap();
    world.holds_only_what_was_archived(&report);
    assert!(report.lost.as_ref().unwrap().lost.iter().any(|lost| lost.what == "manifest.json"));
    assert_eq!(world.stores[0].snapshot(), world.archived[0]);
    // Cut earlier, nothing says what is what.
    let world = self::world();
    world.damage(|bytes| bytes.truncate(bytes.len() / 2));
    assert_eq!(world.salvaged().unwrap_err().kind(), ErrorKind::Corrupt);
    world.is_old();
}
