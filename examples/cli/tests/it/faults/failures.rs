//! A call fails once, and all that follow succeed.

use super::{
    scene::{Catalog, MERGE, RESTORE, Scene},
    strace::{Blow, CHANGES, usable},
    sweep::{Sweep, full},
};

/// Every call that changes something, and `close`: the disk is full or broken.
fn rows() -> impl Iterator<Item = (&'static str, Blow)> {
    let blow = |call: &str| match call {
        "write" | "pwrite64" | "mkdir" | "mkdirat" | "linkat" | "ftruncate" => Blow::Enospc,
        _ => Blow::Eio,
    };
    CHANGES.into_iter().chain(["close"]).map(move |call| (call, blow(call)))
}

#[test]
fn in_a_backup() {
    if usable() {
        let mut sweep = Sweep::new("failures in create", &["create"], Scene::backed_up_or_not);
        rows().for_each(|(call, blow)| sweep.row(call, blow, || Scene::fresh(Catalog::Beside)));
        sweep.end();
    }
}

#[test]
fn in_a_restore() {
    if usable() {
        let mut sweep = Sweep::new("failures in restore", &RESTORE, Scene::restored_or_not);
        for (call, blow) in rows() {
            sweep.row(call, blow, || Scene::changed(Catalog::Beside));
            // Where each store's thread makes an Nth call, only the first is sure to be struck.
            for store in ["state", "uploads"] {
                sweep.row(call, blow, || Scene::changed_in(Catalog::Beside, Some(store)));
            }
        }
        sweep.end();
    }
}

#[test]
fn in_a_merge() {
    if usable() {
        let mut sweep = Sweep::new("failures in a merge", &MERGE, Scene::restored_or_not);
        rows().for_each(|(call, blow)| sweep.row(call, blow, Scene::merging));
        sweep.end();
    }
}

#[test]
fn in_a_restore_entry_by_entry() {
    if usable() {
        let name = "failures in restore entry by entry";
        let mut sweep = Sweep::new(name, &RESTORE, Scene::restored_or_not);
        rows().for_each(|(call, blow)| sweep.row(call, blow, || Scene::changed(Catalog::Inside)));
        sweep.end();
    }
}

#[test]
fn in_a_resume() {
    if usable() {
        let mut sweep = Sweep::new("failures in resume", &["resume"], Scene::settled);
        for line in if full() { 2..=8 } else { 5..=5 } {
            for (call, blow) in rows() {
                sweep.row(call, blow, || Scene::interrupted(line));
            }
        }
        sweep.end();
    }
}
