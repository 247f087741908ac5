//! The process dies in the middle of the switch. FAULTS 64 to 66, for one store.

use std::{
    thread,
    time::{Duration, Instant},
};

use backup_core::{Reattached, Sink, WriteMode};
use futures::executor::block_on;

use crate::{
    child,
    fixture::Place,
    kit::{Taken, dump, names, stage_to, take},
};

fn fill(rows: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO t SELECT randomblob(900) FROM n;"
    )
}

#[test]
fn a_killed_switch_leaves_old_or_new() {
    let fill = fill(3000);
    let taken = take(&Place::with(&format!("CREATE TABLE t(a); {fill}")).store()).unwrap();
    let moments = |whole: Duration| (0..15).map(move |moment| whole * moment / 13);
    killed(WriteMode::Replace, &fill, &taken, moments);
}

#[test]
fn a_killed_merge_leaves_old_or_new() {
    let fill = fill(1000);
    let place = Place::with(&format!("CREATE TABLE t(a); {fill} DELETE FROM t WHERE rowid % 2;"));
    let taken = take(&place.store().logical()).unwrap();
    // A process takes its time to begin; the last moments are after its end.
    let moments = |whole: Duration| (2..10).map(move |moment| whole * moment / 8);
    killed(WriteMode::Merge, &fill, &taken, moments);
}

// Kills a commit at moments that are chosen by how long it takes.
fn killed<I>(write: WriteMode, fill: &str, taken: &Taken, moments: impl Fn(Duration) -> I)
where
    I: Iterator<Item = Duration>,
{
    let (mut old_seen, mut new_seen) = (0, 0);
    for (mode, exists) in [("DELETE", true), ("WAL", true), ("", false)] {
        let place = || {
            let place = Place::new();
            if exists {
                place.run(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t(a); {fill}"));
            }
            place
        };
        let whole = {
            let place = place();
            let (token, _) = stage_to(&place.store(), taken, write).unwrap();
            let begun = Instant::now();
            assert!(child::commit(&place.path, &token).wait().unwrap().success());
            begun.elapsed()
        };
        // Also at no moment: a busy machine may not get so far at any other.
        for moment in moments(whole).map(Some).chain([None]) {
            let place = place();
            let old = exists.then(|| dump(&place.path));
            let store = place.store();
            let (token, session) = stage_to(&store, taken, write).unwrap();
            drop(session);
            let mut process = child::commit(&place.path, &token);
            if let Some(moment) = moment {
                thread::sleep(moment);
                process.kill().unwrap();
            }
            process.wait().unwrap();
            // What a host finds that knows nothing of a restore.
            let found = block_on(store.reattach(&token)).unwrap();
            match found {
                Reattached::Staged(session) => {
                    old_seen += 1;
                    if let Some(old) = &old {
                        assert_eq!(dump(&place.path), *old);
                    }
                    block_on(session.commit()).unwrap();
                    assert_eq!(block_on(session.verify(&taken.content)).unwrap(), taken.content);
                    block_on(session.undo()).unwrap();
                    block_on(session.finish()).unwrap();
                }
                Reattached::Committed(session) => {
                    new_seen += 1;
                    assert_eq!(block_on(session.verify(&taken.content)).unwrap(), taken.content);
                    block_on(session.undo()).unwrap();
                    block_on(session.finish()).unwrap();
                }
                other => panic!("{mode} after {moment:?}: {other:?}"),
            }
            match old {
                Some(old) => assert_eq!(dump(&place.path), old),
                None => assert!(!place.path.exists()),
            }
            let left: Vec<_> =
                names(place.dir()).into_iter().filter(|n| n.starts_with('.')).collect();
            assert_eq!(left, Vec::<String>::new());
        }
    }
    assert!(old_seen > 0 && new_seen > 0, "both sides were seen: {old_seen}, {new_seen}");
}
