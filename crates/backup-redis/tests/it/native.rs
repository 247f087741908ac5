//! A server's own snapshot, kept whole and restored to a server that is stopped.

use std::{fs, path::Path, pin::Pin};

use backup_conformance::{Dataset, Harness};
use backup_core::{
    Catalog, ErrorKind, Outcome, Result, Stores, archive::Archive, async_trait, record::Tally,
};
use backup_redis::{RdbFile, RedisFolder, RedisStore};

use crate::{
    cluster::Cluster,
    conform::fill,
    rich,
    server::{Raw, Server, available, content, free_port},
};

fn digest(server: &Server) -> String {
    server.raw().text("DEBUG DIGEST")
}

fn folder(server: &Server) -> RedisFolder {
    let address = format!("127.0.0.1:{}", server.port);
    RedisFolder::new(server.folder.path().join("dump.rdb"), &address).unwrap()
}

async fn backup(server: &Server, catalog: &Catalog) -> Archive {
    let store = RedisStore::options(&server.url()).native().connect().await.unwrap();
    let backup = Stores::new("n", "1.0.0").with("redis", store).backup(catalog).await.unwrap();
    assert!(matches!(backup.outcome, Outcome::Complete), "{:?}", backup.outcome);
    catalog.latest().unwrap()
}

async fn restore(archive: &Archive, to: RedisFolder) -> Result<()> {
    let stores = Stores::new("n", "1.0.0").with("redis", to);
    stores.plan_restore(archive).await?.execute().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_backup_comes_back_on_a_server_that_was_stopped() {
    if !available() {
        return;
    }
    let (from, mut to) = (Server::start(&[]), Server::start(&[]));
    rich::fill(&mut [from.raw()]);
    Raw::to(&format!("{}/3", from.url())).run("SET elsewhere x");
    from.raw().bytes(&[
        b"FUNCTION",
        b"LOAD",
        b"#!lua name=mine\nredis.register_function('f', function() return 1 end)",
    ]);
    to.raw().run("SET old x");
    to.raw().run("SAVE");
    let before = digest(&to);
    for diskless in ["yes", "no"] {
        from.raw().run(&format!("CONFIG SET repl-diskless-sync {diskless}"));
        let catalogs = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(catalogs.path()).unwrap();
        let archive = backup(&from, &catalog).await;

        // The server runs: nothing is touched.
        let error = restore(&archive, folder(&to)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        assert_eq!(names(to.folder.path()), ["dump.rdb"]);
        to.kill();
        to.restart();
        assert_eq!(digest(&to), before);

        to.kill();
        let old = fs::read(to.folder.path().join("dump.rdb")).unwrap();
        restore(&archive, folder(&to)).await.unwrap();
        assert_eq!(names(to.folder.path()), ["dump.rdb"]);
        to.restart();
        assert_eq!(digest(&to), digest(&from));
        assert_eq!(content(&mut to.raw()), content(&mut from.raw()));
        assert_eq!(to.raw().run("FCALL f 0"), redis::Value::Int(1));
        to.kill();
        fs::write(to.folder.path().join("dump.rdb"), old).unwrap();
        to.restart();
    }
}

/// What is in the folder but for what servers of tests have there.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| !["log", "redis.conf"].contains(&name.as_str()));
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_native_part_of_an_archive_is_read_as_records() {
    if !available() {
        return;
    }
    let from = Server::start(&[]);
    rich::fill(&mut [from.raw()]);
    Raw::to(&format!("{}/3", from.url())).run("SET elsewhere x");
    let catalogs = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(catalogs.path()).unwrap();
    let archive = backup(&from, &catalog).await;
    let paused = RedisStore::options(&from.url()).databases([0, 3]);
    let paused = crate::snapshot::content(paused.consistency(crate::snapshot::PAUSED)).await;
    let native = RdbFile::in_archive(&archive, "redis").databases([0, 3]).content().unwrap();
    assert!(native.collections == paused, "{native:?}");
    assert!(native.collections["db0/keys"] != Tally::new());
    let error = RdbFile::in_archive(&archive, "other").content().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_server_cannot_take_is_refused_before_it_begins() {
    if !available() {
        return;
    }
    let from = Server::start(&[]);
    from.raw().run("SET a 1");
    let catalogs = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(catalogs.path()).unwrap();
    let native = backup(&from, &catalog).await;
    let place = tempfile::tempdir().unwrap();
    let to = || RedisFolder::new(place.path().join("dump.rdb"), "127.0.0.1:1").unwrap();
    // A server with an append-only file would not read the snapshot.
    fs::create_dir(place.path().join("appendonlydir")).unwrap();
    let error = restore(&native, to()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.advice().contains("appendonly"), "{error:?}");
    fs::remove_dir(place.path().join("appendonlydir")).unwrap();
    // Records are for a server that runs, and a native backup is for one that does not.
    let store = RedisStore::connect(&from.url()).await.unwrap();
    let stores = Stores::new("n", "1.0.0").with("redis", store.clone());
    stores.backup(&catalog).await.unwrap();
    let error = restore(&catalog.latest().unwrap(), to()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    let error = stores.plan_restore(&native).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert_eq!(names(place.path()), Vec::<String>::new());
    for (path, address) in [("/", "127.0.0.1:1"), ("dump.rdb", "127.0.0.1")] {
        let error = RedisFolder::new(path, address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    }
    let cluster = Cluster::start();
    let store = RedisStore::options(&cluster.url()).native().connect().await.unwrap();
    let error = Stores::new("n", "1.0.0").with("r", store).backup(&catalog).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    // A file that is no snapshot, or a damaged one, does not get into an archive.
    let damaged = place.path().join("dump.rdb");
    fs::write(&damaged, b"not a snapshot").unwrap();
    for round in 0..2 {
        let stores = Stores::new("n", "1.0.0").with("redis", to());
        let error = stores.backup(&catalog).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{round}: {error:?}");
        from.raw().run("SAVE");
        let mut bytes = fs::read(from.folder.path().join("dump.rdb")).unwrap();
        bytes[12] ^= 1;
        fs::write(&damaged, bytes).unwrap();
    }
}

/// The folder of a server that is never started; what is in its file is seen by another one.
struct Folder;

struct Place {
    folder: tempfile::TempDir,
    server: std::cell::RefCell<Server>,
}

impl Place {
    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("dump.rdb")
    }

    /// Does something with the file's content, in a server.
    fn with<T>(&self, work: impl FnOnce(&mut Raw) -> T) -> T {
        let mut server = self.server.borrow_mut();
        server.kill();
        let file = server.folder.path().join("dump.rdb");
        let _ = fs::remove_file(&file);
        if self.file().exists() {
            fs::copy(self.file(), &file).unwrap();
        }
        server.restart();
        let mut raw = server.raw();
        let done = work(&mut raw);
        raw.run("SAVE");
        server.kill();
        // As a server does: another file under the name.
        let beside = self.folder.path().join("temp.rdb");
        fs::copy(&file, &beside).unwrap();
        fs::rename(&beside, self.file()).unwrap();
        done
    }
}

#[async_trait(?Send)]
impl Harness for Folder {
    type Place = Place;
    type Store = RedisFolder;

    async fn place(&self) -> Result<Place> {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder, server: Server::start(&[]).into() };
        place.with(|_| ());
        Ok(place)
    }

    async fn open(&self, place: &Place) -> Result<RedisFolder> {
        RedisFolder::new(place.file(), &format!("127.0.0.1:{}", free_port()))
    }

    async fn fill(&self, place: &Place, data: &Dataset) -> Result<()> {
        place.with(|raw| fill(data, &mut |command| drop(raw.bytes(command))))
    }

    async fn change(&self, place: &Place) -> Result<()> {
        place.with(|raw| drop(raw.run("INCR notes:999999")));
        Ok(())
    }

    async fn dump(&self, place: &Place) -> Result<Option<Vec<String>>> {
        let copy =
            Place { folder: tempfile::tempdir().unwrap(), server: Server::start(&[]).into() };
        if place.file().exists() {
            fs::copy(place.file(), copy.file()).unwrap();
        }
        Ok(Some(copy.with(content)))
    }

    async fn trace(&self, place: &Place) -> Result<Option<Vec<String>>> {
        let mut names = names(place.folder.path());
        names.retain(|name| name != "dump.rdb");
        Ok(Some(names))
    }

    fn block_on(&self, case: Pin<Box<dyn Future<Output = ()> + '_>>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(case);
    }
}

#[test]
fn the_folder_of_a_stopped_server_conforms() {
    if available() {
        backup_conformance::run(&Folder);
    }
}
