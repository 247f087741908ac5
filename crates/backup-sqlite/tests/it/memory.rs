//! Merging many records in little memory.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use backup_core::{Cancel, Part, PinRequest, Pinned, Sink, Source, StagePlan, WriteMode};
use backup_sqlite::SqliteStore;
use futures::executor::block_on;

use crate::{child, fixture::Place, kit::rows};

/// Merges all records of one database into another as an engine would: never all at once.
/// Prints the seconds that each step took.
pub(crate) fn stream(database: &str, archive: &str) {
    let (store, source) =
        (SqliteStore::open(database).unwrap(), SqliteStore::open(archive).unwrap());
    let mut plan = StagePlan::new("r1", "state", "sqlite");
    plan.mode = WriteMode::Merge;
    let mut clock = Instant::now();
    let mut lap = |step: &str| {
        println!("{step} took {:?}", clock.elapsed());
        clock = Instant::now();
    };
    block_on(async {
        let token = store.prepare(&plan).await.unwrap().token;
        let session = store.begin(&token, &Cancel::new()).await.unwrap();
        let pinned = source.logical().pin(&PinRequest::new()).await.unwrap();
        let Pinned::Pinned { session: from, .. } = pinned else { panic!() };
        let partition = &from.partitions().await.unwrap()[0];
        while let Some(part) = from.next(partition).await.unwrap() {
            if let Part::Records(batch) = &part {
                let keys: Vec<_> = batch.iter().map(|record| record.key()).collect();
                session.existing(batch.collection(), &keys).await.unwrap();
            }
            session.write(part).await.unwrap();
        }
        lap("staging");
        let expected = session.verify(&Default::default()).await.unwrap();
        lap("verify");
        session.commit().await.unwrap();
        lap("commit");
        assert_eq!(session.verify(&Default::default()).await.unwrap(), expected);
        lap("verify after commit");
        session.finish().await.unwrap();
    });
    println!("peak {} KiB", peak_kib());
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_what_is_merged() {
    let table = "CREATE TABLE notes(k TEXT PRIMARY KEY, body TEXT);";
    let fill = |from: u32, count: u32| {
        format!(
            "{table} WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n LIMIT {count})
             INSERT INTO notes SELECT printf('note-%08d', i), hex(randomblob(400)) FROM n;"
        )
    };
    let peak = |count: u32| -> u64 {
        let (live, archive) = (Place::with(&fill(0, count)), Place::with(&fill(count / 2, count)));
        let said = child::merge(&live.path, &archive.path);
        println!("{count} rows into {count}, half in conflict: {said}");
        let number = rows(&live.run(""), "SELECT count(*) FROM notes");
        assert_eq!(number, [format!("Integer({})", count + count / 2)]);
        let peak = said.split("peak ").nth(1).and_then(|rest| rest.split(' ').next());
        peak.unwrap().parse().unwrap()
    };
    let (small, large) = (peak(20_000), peak(100_000));
    // 16 MB and 80 MB on either side.
    assert!(large < small + (24 << 10), "{small} KiB and {large} KiB");
}
