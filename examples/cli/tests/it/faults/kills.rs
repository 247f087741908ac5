//! SIGKILL before a call: what a run leaves behind is all that the next one has.

use super::{
    scene::{Catalog, MERGE, RESTORE, Scene},
    strace::{Blow, CHANGES, usable},
    sweep::{Sweep, full},
};

#[test]
fn of_a_backup() {
    if usable() {
        let mut sweep = Sweep::new("kills of create", &["create"], Scene::backed_up_or_not);
        for call in CHANGES {
            sweep.row(call, Blow::Kill, || Scene::fresh(Catalog::Beside));
        }
        sweep.end();
    }
}

#[test]
fn of_a_restore() {
    if usable() {
        let mut sweep = Sweep::new("kills of restore", &RESTORE, Scene::restored_or_not);
        for catalog in [Catalog::Beside, Catalog::Inside] {
            for call in CHANGES {
                sweep.row(call, Blow::Kill, || Scene::changed(catalog));
            }
        }
        sweep.end();
    }
}

#[test]
fn of_a_merge() {
    if usable() {
        let mut sweep = Sweep::new("kills of a merge", &MERGE, Scene::restored_or_not);
        for call in CHANGES {
            sweep.row(call, Blow::Kill, Scene::merging);
        }
        sweep.end();
    }
}

#[test]
fn of_a_resume() {
    if usable() {
        let mut sweep = Sweep::new("kills of resume", &["resume"], Scene::settled);
        for line in if full() { 2..=8 } else { 5..=5 } {
            for call in CHANGES {
                sweep.row(call, Blow::Kill, || Scene::interrupted(line));
            }
        }
        sweep.end();
    }
}
