//! What happens around a restore: the safety backup, and the host's hooks.

use std::time::Duration;

use super::*;
use crate::{Catalog, RestoreHooks, async_trait};

#[test]
fn what_is_live_is_backed_up_first() {
    let world = world();
    let set = set(&world.stores);
    let plan = block_on(set.plan_restore(&world.archive())).unwrap();
    assert!(plan.to_string().contains("What is live is backed up first, into "), "{plan}");
    let report = block_on(plan.execute()).unwrap();
    assert_eq!(world.now(), world.archived);
    let kept = report.safety_backup.unwrap();
    assert!(kept.starts_with(world.dir.path().join("before-restore")));
    let archive = Archive::open(&kept).unwrap();
    let description = archive.manifest().description.clone().unwrap();
    assert!(description.starts_with("before restore "), "{description}");
    // The newest backup of the catalog is not this one, and this one brings all of it back.
    let catalog = Catalog::open(world.dir.path()).unwrap();
    assert_eq!(catalog.latest().unwrap().manifest().id, world.archive().manifest().id);
    block_on(async { set.plan_restore_with(&archive, &bare()).await?.execute().await }).unwrap();
    assert_eq!(world.now(), world.before);
}

#[test]
fn the_estimate_goes_by_the_stores_that_are_restored_and_by_what_is_done_with_them() {
    use crate::{clock::Timestamp, manifest::TimeWindow};
    let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
    let window = |start, end| TimeWindow { start: at(start), end: at(end) };
    for (windows, read) in [
        (vec![window(10, 12)], 2.0),
        (vec![window(20, 21), window(10, 12)], 3.0),
        (vec![window(10, 20), window(12, 15), window(15, 25)], 15.0),
        (vec![], 0.0),
    ] {
        let estimate = RestoreEstimate::new(windows.clone().into_iter(), true);
        assert_eq!((estimate.read, estimate.seconds), (read, read * 4.0), "{windows:?}");
        assert_eq!(RestoreEstimate::new(windows.into_iter(), false).seconds, read * 3.0);
    }
    let world = world();
    let set = set(&world.stores);
    let plan = |options| block_on(set.plan_restore_with(&world.archive(), &options)).unwrap();
    let all = plan(RestoreOptions::new());
    assert_eq!(all.estimate().times, 4);
    assert!(all.to_string().contains(" s: 4 times the "), "{all}");
    assert_eq!(plan(bare()).estimate().times, 3);
    let one = plan(RestoreOptions::new().stores(["state"]));
    assert!(one.estimate().read <= all.estimate().read);
}

#[test]
fn a_safety_backup_that_cannot_be_had_ends_the_restore() {
    let world = world();
    world.stores[1].fail_always(Step::Next, ErrorKind::PermissionDenied);
    let plan = |options: RestoreOptions| {
        block_on(set(&world.stores).plan_restore_with(&world.archive(), &options)).unwrap()
    };
    let error = block_on(plan(RestoreOptions::new()).execute()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.report().contains("without a safety backup"), "{}", error.report());
    assert_eq!(world.now(), world.before);
    assert!(!world.journal());
    // Nothing is there to be saved.
    for store in &world.stores {
        store.fail_always(Step::Describe, ErrorKind::NotFound);
    }
    let report = block_on(plan(RestoreOptions::new()).execute()).unwrap();
    assert_eq!(report.safety_backup, None);
    assert_eq!(world.now(), world.archived);
    // A folder of the caller's.
    world.heal();
    let elsewhere = world.dir.path().join("else/where");
    let report = block_on(plan(RestoreOptions::new().safety_backup(&elsewhere)).execute()).unwrap();
    assert!(report.safety_backup.unwrap().starts_with(elsewhere));
}

/// Remembers its calls; does what it is told to at one of them.
#[derive(Clone, Default)]
struct Daemon {
    calls: Arc<Mutex<Vec<&'static str>>>,
    fails_at: Option<&'static str>,
    hangs_at: Option<&'static str>,
}

impl Daemon {
    async fn call(&self, name: &'static str) -> Result<()> {
        self.calls.lock().unwrap().push(name);
        if self.hangs_at == Some(name) {
            std::future::pending::<()>().await;
        }
        match self.fails_at {
            Some(at) if at == name => Err(Error::new(ErrorKind::Mismatch, "it does not")),
            _ => Ok(()),
        }
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

#[async_trait]
impl RestoreHooks for Daemon {
    async fn stop(&self) -> Result<()> {
        self.call("stop").await
    }
    async fn check(&self) -> Result<()> {
        self.call("check").await
    }
    async fn start(&self) -> Result<()> {
        self.call("start").await
    }
}

#[test]
fn the_application_is_stopped_asked_and_started() {
    let world = world();
    let daemon = Daemon::default();
    let calls = daemon.calls.clone();
    world.stores[0].hook(move |step| {
        if matches!(step, Step::Commit | Step::Finish) {
            calls.lock().unwrap().push(if step == Step::Commit { "commit" } else { "finish" });
        }
        Ok(())
    });
    let report = world.restore(&set(&world.stores).hooks(daemon.clone())).unwrap();
    assert!(report.warnings.is_empty());
    assert_eq!(daemon.calls(), ["stop", "commit", "check", "finish", "start"]);
    world.is_new();
}

#[test]
fn a_host_that_refuses_has_the_last_word() {
    let told = |daemon: &Daemon| {
        let world = world();
        let set = set(&world.stores).hooks(daemon.clone());
        let outcome = world.restore(&set.hook_deadline(Duration::from_millis(20)));
        (world, outcome, daemon.calls())
    };
    let fails = |at| Daemon { fails_at: Some(at), ..Daemon::default() };
    let hangs = |at| Daemon { hangs_at: Some(at), ..Daemon::default() };
    for (daemon, kind, calls) in [
        (fails("stop"), ErrorKind::Mismatch, &["stop", "start"][..]),
        (hangs("stop"), ErrorKind::Busy, &["stop", "start"]),
        (fails("check"), ErrorKind::Mismatch, &["stop", "check", "start"]),
        (hangs("check"), ErrorKind::Busy, &["stop", "check", "start"]),
    ] {
        let (world, outcome, called) = told(&daemon);
        assert_eq!(outcome.unwrap_err().kind(), kind);
        assert_eq!(called, calls);
        world.is_old();
    }
    for daemon in [fails("start"), hangs("start")] {
        let (world, outcome, _) = told(&daemon);
        let warnings = outcome.unwrap().warnings;
        assert!(warnings[0].contains("was not started again"), "{warnings:?}");
        world.is_new();
    }
}

#[test]
fn a_resume_stops_and_starts_it_too() {
    let world = world();
    world.stores[2].fail_always(Step::Commit, ErrorKind::NoSpace);
    world.stores[0].fail_always(Step::Undo, ErrorKind::Unreachable);
    let daemon = Daemon::default();
    let stores = set(&world.stores).hooks(daemon.clone());
    let error = world.restore(&stores).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RepairNeeded);
    // Not on a mixture.
    assert_eq!(daemon.calls(), ["stop"]);
    world.heal();
    block_on(stores.resume(world.dir.path())).unwrap().unwrap();
    assert_eq!(daemon.calls(), ["stop", "start"]);
    world.is_old();
}
