//! Backs up what its features know, loses it, and brings it back.

use std::{error::Error, fs, path::Path};

use backup_kit::{
    BackupOptions, Catalog, MemoryStore, Stores,
    archive::{Codec, VerifyMode, WriterOptions},
};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    let folder = Path::new(&folder);
    fs::create_dir_all(folder)?;
    futures::executor::block_on(run(folder))
}

async fn run(folder: &Path) -> Result<(), Box<dyn Error>> {
    let memory = MemoryStore::new();
    memory.insert("notes", 1, "remember".into())?;
    let stores = Stores::new("host", "1.0.0").with("memory", memory.clone());

    #[cfg(feature = "files")]
    let (stores, uploads) = {
        let uploads = folder.join("uploads");
        fs::create_dir(&uploads)?;
        fs::write(uploads.join("a.txt"), "remember")?;
        (stores.with("uploads", backup_kit::files::FilesStore::open(&uploads)?), uploads)
    };
    #[cfg(feature = "sqlite")]
    let (stores, database) = {
        let database = folder.join("state.db");
        let connection = backup_kit::sqlite::rusqlite::Connection::open(&database)?;
        connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES ('remember')")?;
        (stores.with("state", backup_kit::sqlite::SqliteStore::open(&database)?), connection)
    };

    let mut writer = WriterOptions::default();
    if cfg!(feature = "zstd") {
        writer.codec = Codec::Zstd;
    }
    let catalog = Catalog::open(folder.join("backups"))?;
    let report = stores.backup_with(&catalog, &BackupOptions::new().writer(writer)).await?;
    assert!(report.outcome.is_complete());
    let archive = catalog.latest()?;
    archive.verify(VerifyMode::Full, &Default::default(), &mut |_| ())?;

    memory.clear();
    #[cfg(feature = "files")]
    fs::remove_file(uploads.join("a.txt"))?;
    #[cfg(feature = "sqlite")]
    database.execute_batch("DELETE FROM t")?;

    assert!(stores.plan_restore(&archive).await?.execute().await?.restored());
    assert_eq!(memory.get("notes", 1), Some("remember".into()));
    #[cfg(feature = "files")]
    assert_eq!(fs::read_to_string(uploads.join("a.txt"))?, "remember");
    #[cfg(feature = "sqlite")]
    assert_eq!(
        database.query_row("SELECT a FROM t", [], |row| row.get::<_, String>(0))?,
        "remember"
    );
    Ok(())
}
