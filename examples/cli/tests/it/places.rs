//! A database in the folder that is restored with it, and the catalog anywhere.

use std::{fs, path::Path};

use backup_kit::{
    Cancel, Catalog, Result, Stores,
    archive::{Archive, VerifyMode},
    files::FilesStore,
    sqlite::{SqliteStore, rusqlite::Connection},
};
use futures::executor::block_on;

use crate::world::{CONFIG, World};

fn stores(folder: &Path, logical: bool) -> Result<Stores> {
    let state = SqliteStore::open(folder.join("state.db"))?;
    let state = if logical { state.logical() } else { state.native() };
    let uploads = FilesStore::open(folder)?;
    Ok(Stores::new("docs", "1.0.0").with("state", state).with("uploads", uploads))
}

#[test]
fn stores_and_catalog_may_lie_in_each_other() {
    // Beside the folder, within it, and around it.
    for (place, logical) in [("../backups", true), ("backups", false), ("..", true)] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/x.txt"), "hello").unwrap();
        let database = Connection::open(folder.join("state.db")).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT);
                 INSERT INTO t (x) VALUES ('one'), ('two');",
            )
            .unwrap();
        let memory = stores(&folder, logical).unwrap();
        let catalog = Catalog::open(folder.join(place)).unwrap();
        for _ in 0..2 {
            let backup = block_on(memory.backup(&catalog)).unwrap();
            assert!(backup.outcome.is_complete(), "{place}: {:?}", backup.outcome);
            let archive = Archive::open(backup.path.unwrap()).unwrap();
            archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {}).unwrap();
        }

        database.execute("DELETE FROM t", ()).unwrap();
        fs::remove_dir_all(folder.join("a")).unwrap();
        fs::write(folder.join("new"), "since the backup").unwrap();
        let report =
            block_on(async { memory.plan_restore(&catalog.latest()?).await?.execute().await });
        assert!(report.unwrap().restored());

        let rows = database.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0));
        assert_eq!(rows.unwrap(), 2, "{place}");
        assert_eq!(fs::read(folder.join("a/b/x.txt")).unwrap(), b"hello");
        assert!(!folder.join("new").exists());
        assert_eq!(catalog.list().unwrap().backups.len(), 2, "{place}");
        let hidden = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
        assert!(!fs::read_dir(&folder).unwrap().map(|e| e.unwrap()).any(hidden), "{place}");
    }
}

#[test]
fn an_archive_for_elsewhere_does_not_hold_the_catalog() {
    let world = World::with(&CONFIG.replace("\"backups\"", "\"uploads/backups\""));
    world.good(&["create"]);
    for output in ["elsewhere.tar.gz", "uploads/elsewhere.tar.gz"] {
        world.good(&["create", "--output", output]);
        let parts = world.good(&["list", output]);
        assert!(parts.contains("files/uploads/root/a.md"), "{parts}");
        assert!(!parts.contains("backups") && !parts.contains(".tar"), "{parts}");
        fs::remove_file(world.path(output)).unwrap();
    }
    let piped = world.command(&["create", "--output", "-"]).output().unwrap();
    fs::write(world.path("piped.tar.gz"), piped.stdout).unwrap();
    let parts = world.good(&["list", "piped.tar.gz"]);
    assert!(parts.contains("a.md") && !parts.contains("backups"), "{parts}");
}

#[test]
fn a_database_that_is_no_store_makes_a_backup_of_its_folder_partial() {
    let world = World::new();
    let database = Connection::open(world.path("uploads/unknown.db")).unwrap();
    database.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)").unwrap();
    let document = world.json(3, &["create"]);
    let notices = document["notices"].to_string();
    assert!(notices.contains("unknown.db") && notices.contains("exclude it"), "{notices}");
    let config = CONFIG.replace("*.tmp\"", "*.tmp\", \"unknown.db*\"");
    fs::write(world.path("backup.toml"), config).unwrap();
    world.json(0, &["create"]);
}
