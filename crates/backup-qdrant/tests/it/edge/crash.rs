//! The process dies in the middle of a restore or a backup.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use backup_core::{ErrorKind, PinRequest, Reattached, Sink, Source, StageToken, WriteMode};
use backup_qdrant::edge::EdgeStore;
use futures::executor::block_on;

use super::kit::{Place, dump, names, put, sample, stage, stage_in, take};

const TASK: &str = "BACKUP_QDRANT_CHILD";

/// The other process; without a task there is nothing to do.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<_> = task.split('\n').collect();
    match words[..] {
        ["commit", shard, token] => {
            let token: StageToken = serde_json::from_str(token).unwrap();
            let store = EdgeStore::open(shard).unwrap();
            let Reattached::Staged(session) = block_on(store.reattach(&token)).unwrap() else {
                panic!("not staged")
            };
            block_on(session.commit()).unwrap();
        }
        ["pin", shard] => {
            let store = EdgeStore::open(shard).unwrap();
            let _pinned = block_on(store.pin(&PinRequest::new())).unwrap();
            std::process::abort();
        }
        _ => panic!("unknown task"),
    }
}

fn command(task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "edge::crash::child"])
        .env(TASK, task)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn a_killed_switch_leaves_old_or_new() {
    killed(WriteMode::Replace);
}

#[test]
fn a_killed_merge_leaves_old_or_new() {
    killed(WriteMode::Merge);
}

fn killed(mode: WriteMode) {
    let source = Place::with(300);
    put(&source.store, vec![sample(1000, "only in the archive")]);
    let taken = take(&source.store);
    let (mut old_seen, mut new_seen) = (0, 0);
    for delay in (0..400).step_by(20) {
        let place = Place::with(5);
        // Stays where points are added.
        put(&place.store, vec![sample(2000, "only in the shard")]);
        let old = dump(&place.store);
        let (token, session) = stage_in(&place.store, &taken, mode).unwrap();
        drop(session);
        let Place { dir, store } = place;
        drop(store);
        let path = dir.path().join("notes");
        let task =
            format!("commit\n{}\n{}", path.display(), serde_json::to_string(&token).unwrap());
        let mut process = command(&task).spawn().unwrap();
        thread::sleep(Duration::from_millis(delay));
        process.kill().unwrap();
        process.wait().unwrap();
        let store = EdgeStore::open(&path).unwrap();
        let session = match block_on(store.reattach(&token)).unwrap() {
            Reattached::Staged(session) => {
                old_seen += 1;
                assert_eq!(dump(&store), old, "after {delay} ms");
                block_on(session.commit()).unwrap();
                session
            }
            Reattached::Committed(session) => {
                new_seen += 1;
                session
            }
            other => panic!("after {delay} ms: {other:?}"),
        };
        assert_eq!(block_on(session.verify(&taken.content)).unwrap(), taken.content);
        let points = store.shard().unwrap().info().points_count;
        assert_eq!(points, if mode == WriteMode::Merge { 302 } else { 301 }, "after {delay} ms");
        block_on(session.undo()).unwrap();
        block_on(session.finish()).unwrap();
        assert_eq!(dump(&store), old);
        assert_eq!(names(dir.path()), ["notes"]);
    }
    assert!(old_seen > 0 && new_seen > 0, "both sides were seen: {old_seen}, {new_seen}");
}

#[test]
fn every_state_is_found_by_another_process() {
    let taken = take(&Place::with(40).store);
    let place = Place::with(3);
    let old = dump(&place.store);
    let (token, session) = stage(&place.store, &taken).unwrap();
    drop(session);
    let place = place.reopen();
    assert_eq!(dump(&place.store), old);
    let found = block_on(place.store.reattach(&token)).unwrap();
    let Reattached::Staged(session) = found else { panic!("{found:?}") };
    block_on(session.commit()).unwrap();
    drop(session);
    let place = place.reopen();
    assert_eq!(place.store.shard().unwrap().info().points_count, 40);
    let found = block_on(place.store.reattach(&token)).unwrap();
    let Reattached::Committed(session) = found else { panic!("{found:?}") };
    block_on(session.undo()).unwrap();
    drop(session);
    let place = place.reopen();
    assert_eq!(dump(&place.store), old);
    let found = block_on(place.store.reattach(&token)).unwrap();
    let Reattached::Undone(session) = found else { panic!("{found:?}") };
    block_on(session.finish()).unwrap();
    drop(session);
    let place = place.reopen();
    assert!(matches!(block_on(place.store.reattach(&token)).unwrap(), Reattached::Absent));
    assert_eq!(names(place.dir.path()), ["notes"]);
}

#[test]
fn where_nothing_was_nothing_is_again() {
    let taken = take(&Place::with(4).store);
    let place = Place::new();
    let (token, session) = stage(&place.store, &taken).unwrap();
    block_on(session.commit()).unwrap();
    drop(session);
    let place = place.reopen();
    assert_eq!(place.store.shard().unwrap().info().points_count, 4);
    let found = block_on(place.store.reattach(&token)).unwrap();
    let Reattached::Committed(session) = found else { panic!("{found:?}") };
    block_on(session.undo()).unwrap();
    let again = place.store.shard().unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
    block_on(session.finish()).unwrap();
    assert_eq!(names(place.dir.path()), Vec::<String>::new());
}

#[test]
fn a_shard_that_was_put_in_between_is_not_touched() {
    let taken = take(&Place::with(4).store);
    let place = Place::with(2);
    let (token, session) = stage(&place.store, &taken).unwrap();
    block_on(session.commit()).unwrap();
    drop(session);
    let Place { dir, store } = place;
    drop(store);
    // By hand, from a copy of somebody's.
    fs::remove_dir_all(dir.path().join("notes")).unwrap();
    fs::create_dir(dir.path().join("notes")).unwrap();
    let store = EdgeStore::open(dir.path().join("notes")).unwrap();
    let found = block_on(store.reattach(&token)).unwrap();
    assert!(
        matches!(&found, Reattached::Unknown { reason } if reason.contains("notes")),
        "{found:?}"
    );
    assert_eq!(names(dir.path()), [".notes.restore-r1", "notes"]);
}

#[test]
fn a_copy_of_a_dead_process_is_removed() {
    let Place { dir, store } = Place::with(10);
    drop(store);
    let path = dir.path().join("notes");
    assert!(!command(&format!("pin\n{}", path.display())).status().unwrap().success());
    let copies = dir.path().join(".notes.copies");
    let left = names(&copies);
    assert_eq!(left.len(), 1, "the copy of the dead process");
    let store = EdgeStore::open(&path).unwrap();
    // One that is in use stays.
    let used = block_on(store.pin(&PinRequest::new())).unwrap();
    let mine = names(&copies);
    assert_eq!(mine.len(), 1);
    assert_ne!(mine, left);
    assert_eq!(take(&store).tally().records, 10);
    assert_eq!(names(&copies), mine);
    drop(used);
    assert_eq!(names(dir.path()), ["notes"]);
}
