//! Servers that fail, refuse, are slow, or change under a backup.

use std::time::Duration;

use backup_core::{
    Cancel, Catalog, Content, ErrorKind, Part, PinRequest, Pinned, RestoreReport, Sink, Source,
    StagePlan, Stores,
    record::{BatchBuilder, ElementType, Key, Tally},
};
use backup_qdrant::{QdrantOptions, QdrantStore};
use qdrant_testserver::{Action, Fault, Match, Options, TestServer};
use serde_json::{Value, json};

use super::fixture::{Site, run, same};

/// A server with three collections: two with points, one with an alias, and their backup.
async fn scene() -> (Site, tempfile::TempDir, Catalog) {
    scene_backed_up(QdrantOptions::clone).await
}

async fn scene_backed_up(
    how: impl Fn(&QdrantOptions) -> QdrantOptions,
) -> (Site, tempfile::TempDir, Catalog) {
    let site = Site::start().await;
    for (name, count) in [("a", 700_u64), ("b", 20), ("empty", 0)] {
        site.create(name, json!({"vectors": {"size": 4, "distance": "Cosine"}})).await;
        let point = |n| json!({"id": n, "vector": [n, 1.0, 2.0, 3.0], "payload": {"n": n}});
        if count > 0 {
            site.upsert(name, (0..count).map(point).collect()).await;
        }
    }
    site.alias("b-live", "b").await;
    let index = json!({"field_name": "n", "field_schema": "integer"});
    site.ask("PUT", "/collections/a/index?wait=true", index).await;
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = Catalog::open(folder.path()).expect("a catalog");
    let store = how(&site.options()).open().expect("a store");
    stores(store).backup(&catalog).await.expect("a backup");
    (site, folder, catalog)
}

fn stores(store: QdrantStore) -> Stores {
    Stores::new("test", "1.0.0").with("vectors", store)
}

async fn restore(store: QdrantStore, catalog: &Catalog) -> backup_core::Result<()> {
    let plan = stores(store).plan_restore(&catalog.latest()?).await?;
    let report = plan.execute().await?;
    assert!(report.restored(), "{report:?}");
    Ok(())
}

/// Changes that a restore has to take back: one collection of each kind.
async fn spoil(site: &Site) {
    site.upsert("a", vec![json!({"id": 1, "vector": [9.0, 9.0, 9.0, 9.0]})]).await;
    site.ask("DELETE", "/collections/empty", Value::Null).await;
    site.create("later", json!({"vectors": {"size": 1, "distance": "Dot"}})).await;
    let action = json!({"delete_alias": {"alias_name": "b-live"}});
    site.ask("POST", "/collections/aliases", json!({"actions": [action]})).await;
}

#[test]
fn a_server_that_is_not_there_is_named() {
    run(async {
        let error = QdrantStore::connect("http://127.0.0.1:9").await.expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
        for bad in
            ["", "localhost:6334", "ftp://localhost:6334", "http://user:secret@localhost:6334"]
        {
            let error = QdrantStore::options(bad).open().expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            assert!(!error.report().contains("secret"), "{}", error.report());
        }
    });
}

#[test]
fn a_key_is_asked_for_and_never_shown() {
    run(async {
        let key = "a-very-secret-key";
        let options = Options { api_key: Some(key.to_owned()), ..Options::default() };
        let server = TestServer::start_with(options).await.expect("a server");
        let open = || QdrantStore::options(&server.grpc_url()).rest_url(&server.rest_url());
        for options in [open(), open().api_key("another").expect("a key")] {
            let error = options.connect().await.expect_err("no key");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!("{key}\n")).expect("written");
        let options = open().api_key_file(file.path()).expect("a key");
        assert!(!format!("{options:?}").contains(key));
        let store = options.connect().await.expect("the right key");
        assert!(!format!("{store:?}").contains(key));
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(folder.path()).expect("a catalog");
        stores(store).backup(&catalog).await.expect("a backup");
        let manifest = format!("{:?}", catalog.latest().expect("a backup").manifest());
        assert!(!manifest.contains(key));
        assert!(open().api_key_env("THIS_VARIABLE_IS_NOT_SET").is_err());
        assert!(open().api_key("line\nfeed").is_err());
    });
}

#[test]
fn a_server_that_stops_in_the_middle_ends_the_backup() {
    run(async {
        let (site, folder, catalog) = scene().await;
        if site.faults().is_none() {
            return;
        }
        let store = site.store();
        let Pinned::Live { session, .. } = store.pin(&PinRequest::new()).await.expect("a session")
        else {
            panic!("a scroll pins nothing")
        };
        let partitions = session.partitions().await.expect("partitions");
        drop(site);
        let mut failed = None;
        while failed.is_none() {
            match session.next(&partitions[0]).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the whole collection came from a server that is gone"),
                Err(error) => failed = Some(error),
            }
        }
        assert_eq!(failed.expect("checked").kind(), ErrorKind::Unreachable);
        let before = catalog.list().expect("a list").backups.len();
        let error = stores(store).backup(&catalog).await.expect_err("no server");
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
        assert_eq!(catalog.list().expect("a list").backups.len(), before);
        drop(folder);
    });
}

#[test]
fn a_slow_server_is_waited_for_so_long_and_no_longer() {
    run(async {
        let site = Site::start().await;
        let Some(faults) = site.faults() else { return };
        let slow = || {
            Fault::new(Match::rest("GET", "/collections"), Action::Delay(Duration::from_secs(2)))
        };
        faults.push(slow().always());
        let error = site.options().timeout(Duration::from_millis(100)).connect().await;
        let error = error.expect_err("too slow");
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
        assert!(error.to_string().contains("in time"), "{error}");
        faults.clear();
        faults.push(slow());
        site.options().connect().await.expect("slow, and in time");
    });
}

#[test]
fn a_collection_that_vanishes_ends_the_backup() {
    run(async {
        let (site, _folder, _) = scene().await;
        let store = site.store();
        let Pinned::Live { session, .. } = store.pin(&PinRequest::new()).await.expect("a session")
        else {
            panic!("a scroll pins nothing")
        };
        let partitions = session.partitions().await.expect("partitions");
        site.ask("DELETE", "/collections/b", Value::Null).await;
        let first = session.next(&partitions[1]).await.expect("the description is there");
        assert!(matches!(first, Some(Part::Schema(_))));
        let error = session.next(&partitions[1]).await.expect_err("the points are not");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(error.to_string().contains("removed while it was read"), "{error}");
        session.close().await.expect("closed");
    });
}

#[test]
fn points_that_come_and_go_are_reported() {
    run(async {
        let (site, _folder, catalog) = scene().await;
        let Pinned::Live { session, .. } =
            site.store().pin(&PinRequest::new()).await.expect("a session")
        else {
            panic!("a scroll pins nothing")
        };
        site.upsert("b", vec![json!({"id": 77, "vector": [1.0, 1.0, 1.0, 1.0]})]).await;
        for partition in session.partitions().await.expect("partitions") {
            while session.next(&partition).await.expect("a part").is_some() {}
        }
        let summary = session.close().await.expect("closed");
        assert_eq!(summary.changed, Some(true));
        assert_eq!(summary.metadata["counts_changed"], json!({"b": [20, 21]}));
        drop(catalog);
    });
}

#[test]
fn what_passes_is_tried_again() {
    run(async {
        let (site, _folder, catalog) = scene().await;
        let Some(faults) = site.faults() else { return };
        let before = site.all().await;
        spoil(&site).await;
        for (requests, status) in [
            (Match::grpc("Scroll"), 503),
            (Match::grpc("Upsert"), 429),
            (Match::grpc("Count"), 503),
            (Match::rest("GET", "/collections"), 503),
            (Match::rest("PUT", "/collections/backup-kit."), 429),
        ] {
            // A collection is made once only; its indexes come later.
            let skip = if matches!(&requests, Match::Rest { method, .. } if method == "PUT") {
                4
            } else {
                0
            };
            faults.push(Fault::new(requests, Action::Status(status, "later".into())).after(skip));
        }
        restore(site.store(), &catalog).await.expect("a restore");
        assert_eq!(faults.left(), 0);
        same(&site.all().await, &before);
    });
}

#[test]
fn an_answer_that_is_lost_after_the_work_was_done_does_no_harm() {
    run(async {
        let (site, _folder, catalog) = scene().await;
        let Some(faults) = site.faults() else { return };
        let before = site.all().await;
        spoil(&site).await;
        faults.push(Fault::new(Match::grpc("Upsert"), Action::Cut(0)).times(3));
        restore(site.store(), &catalog).await.expect("a restore");
        assert_eq!(faults.left(), 0);
        same(&site.all().await, &before);
    });
}

#[test]
fn a_server_that_is_always_busy_is_given_up() {
    run(async {
        let (site, _folder, catalog) = scene().await;
        let Some(faults) = site.faults() else { return };
        let later = |status| Action::Status(status, "later".to_owned());
        for (status, kind) in [(503, ErrorKind::Unreachable), (429, ErrorKind::Busy)] {
            faults.push(Fault::new(Match::grpc("Scroll"), later(status)).always());
            let started = std::time::Instant::now();
            let error = stores(site.store()).backup(&catalog).await.expect_err("always busy");
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
            faults.clear();
        }
    });
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    run(async {
        let (site, _folder, catalog) = scene().await;
        let Some(faults) = site.faults() else { return };
        spoil(&site).await;
        let before = site.all().await;
        faults.push(Fault::new(Match::grpc("Upsert"), Action::disk_full()).after(1).always());
        let error = restore(site.store(), &catalog).await.expect_err("a full disk");
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        assert!(error.report().contains("free some space on the server"), "{}", error.report());
        same(&site.all().await, &before);
        assert_eq!(site.traces().await, Vec::<String>::new());
    });
}

#[test]
fn a_record_of_another_form_leaves_everything_as_it_was() {
    run(async {
        let (site, _folder, _) = scene().await;
        let store = site.store();
        let before = site.all().await;
        let mut plan = StagePlan::new("wrong", "vectors", "qdrant");
        plan.content = Content::new();
        plan.content.collections.insert("a".to_owned(), Tally::new());
        let Pinned::Live { session, .. } = store.pin(&PinRequest::new()).await.expect("a session")
        else {
            panic!("a scroll pins nothing")
        };
        let partition = &session.partitions().await.expect("partitions")[0];
        let Some(Part::Schema(schema)) = session.next(partition).await.expect("a part") else {
            panic!("a schema comes first")
        };
        let batch = |key: Key, dim: usize, name: &str| {
            let mut builder = BatchBuilder::new("a");
            let column = builder.dense(name, ElementType::F32, dim);
            builder.push_json(&key, b"{}").expect("a record");
            builder.set_f32(column, &vec![0.5; dim]).expect("a vector");
            Part::Records(builder.finish().expect("a batch"))
        };
        for (part, said) in [
            (batch(Key::from(1), 3, ""), "another form"),
            (batch(Key::from(1), 4, "other"), "no such vector"),
            (batch(Key::from("no UUID"), 4, ""), "neither a number"),
            (batch(Key::from(-1), 4, ""), "neither a number"),
        ] {
            let token = store.prepare(&plan).await.expect("a plan").token;
            let staged = store.begin(&token, &Cancel::new()).await.expect("a beginning");
            staged.write(Part::Schema(schema.clone())).await.expect("a schema");
            let error = staged.write(part).await.expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
            assert!(error.to_string().contains(said), "{error}");
            staged.abort().await.expect("aborted");
        }
        same(&site.all().await, &before);
        assert_eq!(site.traces().await, Vec::<String>::new());
    });
}

#[test]
fn what_an_earlier_death_left_is_found_and_named() {
    run(async {
        let (site, _folder, catalog) = scene().await;
        let store = site.store();
        let plan = {
            let mut plan = StagePlan::new("dead", "vectors", "qdrant");
            plan.content.collections.insert("a".to_owned(), Tally::new());
            plan
        };
        let token = store.prepare(&plan).await.expect("a plan").token;
        drop(store.begin(&token, &Cancel::new()).await.expect("a beginning"));
        assert_eq!(store.leftovers().await.expect("a list"), ["backup-kit.dead"]);
        // Not backed up, and named where the next restore is planned.
        let memory = stores(store.clone());
        memory.backup(&catalog).await.expect("a backup");
        let latest = catalog.latest().expect("a backup");
        assert!(!format!("{:?}", latest.manifest()).contains("backup-kit.dead"));
        let plan = memory.plan_restore(&latest).await.expect("a plan");
        assert!(plan.to_string().contains("backup-kit.dead"), "{plan}");
        assert_eq!(store.remove_leftovers().await.expect("removed"), ["backup-kit.dead"]);
        assert_eq!(site.traces().await, Vec::<String>::new());
    });
}

/// Fails every request to REST that changes something, one after the other: the restore has
/// happened or has not, and after `resume` nothing is left over.
#[test]
fn whichever_request_fails_it_is_all_or_nothing() {
    run(sweep(QdrantOptions::clone));
}

#[test]
fn whichever_request_of_a_native_restore_fails_it_is_all_or_nothing() {
    run(sweep(|options| options.clone().native()));
}

async fn sweep(how: impl Fn(&QdrantOptions) -> QdrantOptions) {
    let (site, _folder, catalog) = scene_backed_up(how).await;
    let spoil = async || {
        site.ask("DELETE", "/collections/empty", Value::Null).await;
        site.create("empty", json!({"vectors": {"size": 4, "distance": "Cosine"}})).await;
        spoil(&site).await;
    };
    let Some((failed, done)) = all_or_nothing(&site, &catalog, || site.store(), spoil).await else {
        return;
    };
    assert!(failed * step() > 15 && done >= 4, "{failed} {done}");
    #[expect(clippy::print_stderr, reason = "how much was tried")]
    {
        eprintln!("{failed} restores failed and left all as it was, {done} went through");
    }
}

/// Every which request is failed; all of them take minutes.
fn step() -> usize {
    if std::env::var("BACKUP_KIT_SWEEP").is_ok_and(|v| v == "full") { 1 } else { 7 }
}

/// Fails requests to REST that change something, one after the other. The restore of what the server has now has happened or has
/// not, and after `resume` nothing is left over. `spoil` is what it takes back, the same each time.
///
/// How many restores failed, and how many went through.
pub(super) async fn all_or_nothing(
    site: &Site,
    catalog: &Catalog,
    store: impl Fn() -> QdrantStore,
    spoil: impl AsyncFn(),
) -> Option<(usize, usize)> {
    let faults = site.faults()?;
    let restored = site.all().await;
    spoil().await;
    let spoiled = site.all().await;
    let (mut failed, mut done) = (0, 0);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for number in (0..).step_by(step()) {
            let broken = Action::Status(500, "Service internal error: broken".to_owned());
            faults.push(Fault::new(Match::rest(method, "/"), broken).after(number));
            let archive = catalog.latest().expect("a backup");
            let outcome = match stores(store()).plan_restore(&archive).await {
                Ok(plan) => plan.execute().await,
                Err(error) => Err(error),
            };
            let happened = faults.left() == 0;
            faults.clear();
            stores(store()).resume(catalog.dir()).await.expect("resumed");
            assert_eq!(site.traces().await, Vec::<String>::new(), "{method} {number}");
            let now = site.all().await;
            if now == restored {
                done += 1;
                let told = outcome.as_ref().map_or(happened, RestoreReport::restored);
                assert!(told, "{outcome:?}");
                spoil().await;
                same(&site.all().await, &spoiled);
            } else {
                failed += 1;
                outcome.expect_err("it was not restored");
                same(&now, &spoiled);
            }
            if !happened {
                break;
            }
        }
    }
    Some((failed, done))
}
