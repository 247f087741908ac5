//! The process dies in the middle of the switch. FAULTS 64 to 66, for one store.

use std::{thread, time::Duration};

use backup_core::{Reattached, Sink};
use futures::executor::block_on;

use crate::{
    child,
    fixture::Place,
    kit::{dump, names, stage, take},
};

#[test]
fn a_killed_switch_leaves_old_or_new() {
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
                INSERT INTO t SELECT randomblob(900) FROM n;";
    let taken = take(&Place::with(&format!("CREATE TABLE t(a); {fill}")).store()).unwrap();
    let (mut old_seen, mut new_seen) = (0, 0);
    for (mode, exists) in [("DELETE", true), ("WAL", true), ("", false)] {
        for delay in (0..60).step_by(4) {
            let place = Place::new();
            if exists {
                place.run(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t(a); {fill}"));
            }
            let old = exists.then(|| dump(&place.path));
            let store = place.store();
            let (token, session) = stage(&store, &taken).unwrap();
            drop(session);
            let mut process = child::commit(&place.path, &token);
            thread::sleep(Duration::from_millis(delay));
            process.kill().unwrap();
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
                other => panic!("{mode} after {delay} ms: {other:?}"),
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
