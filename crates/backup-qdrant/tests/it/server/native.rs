//! Backups as the server's own snapshots.

use backup_core::{Catalog, ErrorKind, Part, PinRequest, Pinned, Source, Stores, record::Tally};
use qdrant_testserver::{Action, Fault, Match};
use serde_json::json;

use super::{
    fixture::{Site, run, same},
    keys::{digests, stores},
    rich::rich,
};

async fn backup(site: &Site, catalog: &Catalog) -> backup_core::Result<()> {
    let store = site.options().native().open().expect("a store");
    let memory = Stores::new("test", "1.0.0").with("vectors", store);
    let backup = memory.backup(catalog).await?;
    assert!(backup.outcome.is_complete(), "{backup:?}");
    Ok(())
}

async fn restore(site: &Site, catalog: &Catalog) -> backup_core::Result<()> {
    let memory = Stores::new("test", "1.0.0").with("vectors", site.store());
    let plan = memory.plan_restore(&catalog.latest()?).await?;
    let report = plan.execute().await?;
    assert!(report.restored() && report.warnings.is_empty(), "{report:?}");
    Ok(())
}

#[test]
fn a_native_snapshot_comes_back_here_and_elsewhere() {
    run(async {
        let (site, folder) = (rich().await, tempfile::tempdir().expect("a folder"));
        let catalog = Catalog::open(folder.path()).expect("a catalog");
        let before = site.all().await;
        backup(&site, &catalog).await.expect("a backup");
        assert_eq!(site.traces().await, Vec::<String>::new());
        site.ask("POST", "/collections/rich/points/delete?wait=true", json!({"points": [1]})).await;
        restore(&site, &catalog).await.expect("a restore");
        same(&site.all().await, &before);
        assert_eq!(site.traces().await, Vec::<String>::new());
        if std::env::var("QDRANT_URL").is_err() {
            let other = Site::start().await;
            restore(&other, &catalog).await.expect("a restore");
            same(&other.all().await, &before);
            assert_eq!(other.traces().await, Vec::<String>::new());
        }
    });
}

#[test]
fn where_snapshots_are_forbidden_points_are_read() {
    run(async {
        let (site, folder) = (rich().await, tempfile::tempdir().expect("a folder"));
        let Some(faults) = site.faults() else { return };
        let catalog = Catalog::open(folder.path()).expect("a catalog");
        let before = site.all().await;
        let forbidden = Action::Status(403, "Forbidden: snapshots are not allowed".to_owned());
        let taken = Match::rest("POST", "/collections/rich/snapshots");
        faults.push(Fault::new(taken, forbidden).always());
        backup(&site, &catalog).await.expect("a backup");
        faults.clear();
        let info = catalog.latest().expect("a backup").manifest().to_owned();
        let text = serde_json::to_string(&info).expect("JSON");
        assert!(text.contains("the server does not allow snapshots"), "{text}");
        site.ask("DELETE", "/collections/rich", serde_json::Value::Null).await;
        restore(&site, &catalog).await.expect("a restore");
        same(&site.all().await, &before);
    });
}

#[test]
fn a_snapshot_that_lies_is_found_out_and_removed() {
    run(async {
        let (site, folder) = (rich().await, tempfile::tempdir().expect("a folder"));
        let Some(faults) = site.faults() else { return };
        let catalog = Catalog::open(folder.path()).expect("a catalog");
        let download = || Match::rest("GET", "/collections/rich/snapshots/rich");
        for (action, kind) in [
            (Action::Corrupt(5000), ErrorKind::Corrupt),
            (Action::Cut(100_000), ErrorKind::Unreachable),
            (Action::Status(500, "Service internal error: bad disk".to_owned()), ErrorKind::Io),
        ] {
            faults.push(Fault::new(download(), action));
            let error = backup(&site, &catalog).await.expect_err("a snapshot that lies");
            assert_eq!(error.kind(), kind, "{error:?}");
            assert_eq!(site.traces().await, Vec::<String>::new());
            assert!(catalog.latest().is_err(), "there is a backup");
        }
    });
}

#[test]
fn records_of_one_moment_come_from_a_snapshot() {
    run(async {
        let (site, folder) = (rich().await, tempfile::tempdir().expect("a folder"));
        let scratch = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(folder.path()).expect("a catalog");
        let before = site.all().await;
        stores(site.store()).backup(&catalog).await.expect("a backup");
        let scrolled = digests(&catalog, "rich");
        let store = site.options().pinned(scratch.path()).open().expect("a store");
        let pinned = store.pin(&PinRequest::new()).await.expect("a session");
        let Pinned::Pinned { session, mark } = pinned else { panic!("a snapshot pins") };
        assert!(mark.expect("a mark").starts_with("rich-"));
        // What comes later is not in it.
        site.ask("POST", "/collections/rich/points/delete?wait=true", json!({"points": [1]})).await;
        let mut tally = Tally::new();
        for partition in session.partitions().await.expect("partitions") {
            while let Some(part) = session.next(&partition).await.expect("a part") {
                if let Part::Records(batch) = part {
                    tally.add_batch(&batch);
                }
            }
        }
        session.close().await.expect("closed");
        assert_eq!(serde_json::to_value(&tally).expect("JSON")["digest"], scrolled["digest"]);
        assert_eq!(site.traces().await, Vec::<String>::new());
        assert_eq!(std::fs::read_dir(scratch.path()).expect("a folder").count(), 0);
        // As a backup, with the point that is gone put back by the restore.
        restore(&site, &catalog).await.expect("a restore");
        same(&site.all().await, &before);
        let folder = tempfile::tempdir().expect("a folder");
        let second = Catalog::open(folder.path()).expect("a catalog");
        stores(store).backup(&second).await.expect("a backup");
        assert_eq!(digests(&second, "rich"), scrolled);
    });
}
