//! What must not be opened: other stores, the archive, databases in use, open files.

use std::{fs, process::Command};

use backup_core::ErrorKind;
use rusqlite::Connection;

use crate::*;

fn request(avoid: &[&Path]) -> PinRequest {
    let mut request = PinRequest::new();
    request.avoid = avoid.iter().map(|path| path.to_path_buf()).collect();
    request
}

// FAULTS 39
#[test]
fn the_archive_and_other_stores_are_left_out_by_name_and_by_identity() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir_all(root.join("backups/old")).unwrap();
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(root.join("backups/old/a.tar.gz"), "archive").unwrap();
    fs::write(root.join("sub/state.db"), "a database").unwrap();
    fs::hard_link(root.join("sub/state.db"), root.join("another name")).unwrap();
    fs::write(root.join("upload"), "content").unwrap();
    std::os::unix::fs::symlink("r", dir.path().join("link")).unwrap();
    let store = FilesStore::open(&root).unwrap();
    // By way of a link, relative, and not there yet.
    let avoid = request(&[
        &dir.path().join("link/backups"),
        &root.join("sub/state.db"),
        &root.join("sub/new.tar.gz.tmp"),
        &dir.path().join("elsewhere"),
    ]);
    let taken = take_with(&store, &avoid, |entry| {
        if entry.path.as_bytes() == b"sub" {
            fs::write(root.join("sub/new.tar.gz.tmp"), "being written").unwrap();
        }
    })
    .unwrap();
    assert_eq!(taken.paths(), ["sub", "upload"]);
    let left_out: Vec<_> =
        taken.notices.iter().filter(|notice| notice.kind == NoticeKind::LeftOut).collect();
    let mut subjects: Vec<_> = left_out.iter().map(|notice| notice.subject.as_str()).collect();
    subjects.sort_unstable();
    assert!(
        subjects == ["another name", "backups", "sub/state.db"]
            || subjects == ["another name", "backups", "sub/new.tar.gz.tmp", "sub/state.db"],
        "{subjects:?}"
    );
    assert!(!taken.is_partial());
}

#[test]
fn a_root_within_what_is_left_out_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    let store = FilesStore::open(&root).unwrap();
    for avoid in [dir.path(), &root] {
        let error = take_with(&store, &request(&[avoid]), |_| ()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let mut plan = StagePlan::new("r1", "store", "files");
        plan.avoid.push(avoid.to_owned());
        assert_eq!(block_on(store.prepare(&plan)).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn excluded_files_are_left_out_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/cache/deep")).unwrap();
    fs::write(dir.path().join("a/x.tmp"), "").unwrap();
    fs::write(dir.path().join("a/cache/deep/y"), "").unwrap();
    fs::write(dir.path().join("a/kept"), "").unwrap();
    let store =
        FilesStore::builder().root("root", dir.path()).exclude("*.tmp").exclude("cache/").build();
    let taken = take(&store.unwrap()).unwrap();
    assert_eq!(taken.paths(), ["a", "a/kept"]);
    assert_eq!(taken.notices, []);
    assert_eq!(taken.summary.metadata["excluded"], 2);
    assert_eq!(taken.schemas[0].document["exclude"], serde_json::json!(["*.tmp", "cache/"]));
}

#[test]
fn databases_in_use_are_left_out_with_all_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let all = [
        "a.db",
        "a.db-wal",
        "a.db-shm",
        "b",
        "b-journal",
        "c.db",
        "lone-journal",
        "x.duckdb",
        "x.duckdb.wal",
    ];
    for name in all {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    // Its log is open here: neither half is of use alone.
    let open = fs::File::open(dir.path().join("x.duckdb.wal")).unwrap();
    let taken = take(&FilesStore::open(dir.path()).unwrap()).unwrap();
    drop(open);
    assert_eq!(taken.paths(), ["c.db", "lone-journal"]);
    // They are in no archive, unless they are stores: then the engine names them.
    assert!(taken.notices.iter().all(|notice| notice.kind == NoticeKind::Unsupported));
    assert_eq!(taken.notices.len(), 7);
}

#[test]
fn a_file_that_is_open_for_a_moment_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("served"), "content").unwrap();
    fs::write(dir.path().join("log"), "always open").unwrap();
    let log = fs::File::open(dir.path().join("log")).unwrap();
    let served = fs::File::open(dir.path().join("served")).unwrap();
    let store = FilesStore::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(served);
        });
        let taken = take(&store).unwrap();
        assert_eq!(taken.paths(), ["served"]);
        assert_eq!(taken.kinds(), [(NoticeKind::Unsupported, "log")]);
    });
    drop(log);
}

/// Whether another process could write to the database now.
fn others_can_write(database: &Path) -> bool {
    let exe = std::env::current_exe().unwrap();
    let ran = Command::new(exe)
        .args(["--exact", "left_out::writes_to_a_database", "--nocapture"])
        .env("BACKUP_FILES_WRITE_TO", database)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.contains("wrote: "), "{said}");
    said.contains("wrote: true")
}

#[test]
fn writes_to_a_database() {
    // The other process of the tests below; by itself it proves that the method works.
    let path = std::env::var_os("BACKUP_FILES_WRITE_TO");
    let Some(path) = path else {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("a.db");
        Connection::open(&database).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        assert!(others_can_write(&database));
        return;
    };
    let other = Connection::open(path).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    let wrote = other.execute("INSERT INTO t VALUES ('other')", []).is_ok();
    #[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
    {
        println!("wrote: {wrote}");
    }
}

#[test]
fn a_lock_of_this_process_outlives_a_backup_of_the_folder_around_it() {
    for mode in ["delete", "wal", "truncate"] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("upload"), "content").unwrap();
        // No name that tells what it is, and nothing that registers it.
        let database = root.join("sub/state");
        let host = Connection::open(&database).unwrap();
        let set: String =
            host.query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0)).unwrap();
        assert_eq!(set, mode);
        host.execute_batch("CREATE TABLE t(x); BEGIN IMMEDIATE; INSERT INTO t VALUES ('host')")
            .unwrap();
        assert!(!others_can_write(&database), "{mode}: the lock does not even hold before");
        let taken = take(&FilesStore::open(&root).unwrap()).unwrap();
        assert_eq!(taken.paths(), ["sub", "upload"], "{mode}");
        assert!(taken.notices.iter().all(|notice| notice.kind == NoticeKind::Unsupported));
        assert!(!others_can_write(&database), "{mode}: the backup dropped the host's lock");
        host.execute_batch("COMMIT").unwrap();
        assert!(others_can_write(&database), "{mode}");
    }
}

#[test]
fn databases_in_a_root_stay_as_they_are_through_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    sample(&root);
    fs::create_dir(root.join("docs/db")).unwrap();
    let registered = root.join("docs/db/state.db");
    let unknown = root.join("unknown");
    for path in [&registered, &unknown] {
        Connection::open(path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    }
    let host = Connection::open(&unknown).unwrap();
    host.execute_batch("INSERT INTO t VALUES ('host')").unwrap();
    let store = FilesStore::open(&root).unwrap();
    let taken = take_with(&store, &request(&[&registered]), |_| ()).unwrap();
    assert!(!taken.paths().iter().any(|path| path.contains("state") || path == "unknown"));

    fs::remove_file(root.join("docs/a.txt")).unwrap();
    fs::write(root.join("docs/later"), "must go").unwrap();
    fs::write(root.join("docs/db/later"), "must go").unwrap();
    let before = snapshot(&root);
    let mut plan = taken.plan("r1");
    plan.avoid.push(registered.clone());
    let prepared = block_on(store.prepare(&plan)).unwrap();
    assert_eq!(prepared.switch, backup_core::Switch::Stepwise);
    assert!(prepared.notes.iter().any(|note| note.contains("stay as they are")));

    host.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES ('during')").unwrap();
    let (_, session) = stage(&store, &taken, &plan).unwrap();
    block_on(session.commit()).unwrap();
    verified(&*session, &taken);
    assert!(root.join("docs/a.txt").exists());
    assert_eq!(names(&root.join("docs/db")), ["state.db"]);
    assert!(!others_can_write(&unknown), "the restore dropped the host's lock");

    block_on(session.undo()).unwrap();
    host.execute_batch("ROLLBACK").unwrap();
    assert_eq!(snapshot(&root), before);
    block_on(session.finish()).unwrap();

    let (_, session) = stage(&store, &taken, &plan).unwrap();
    block_on(session.commit()).unwrap();
    block_on(session.finish()).unwrap();
    assert_eq!(names(dir.path()), ["r"]);
    let rows: i64 = host.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
    drop(host);
    let again = take_with(&store, &request(&[&registered, &unknown]), |_| ()).unwrap();
    assert_eq!(again.content(), taken.content());
}

#[test]
fn an_archive_that_holds_what_belongs_to_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("state.db"), "taken when it was a file like any other").unwrap();
    let store = FilesStore::open(&root).unwrap();
    let taken = take(&store).unwrap();
    let mut plan = taken.plan("r1");
    plan.avoid.push(root.join("state.db"));
    let token = block_on(store.prepare(&plan)).unwrap().token;
    let session = block_on(store.begin(&token, &Cancel::new())).unwrap();
    assert_eq!(fill(&*session, &taken).unwrap_err().kind(), ErrorKind::Busy);
    block_on(session.abort()).unwrap();
    assert_eq!(names(dir.path()), ["r"]);
}
