//! The process dies at every moment of a restore of two stores, one of them a server.

use std::time::Duration;

use backup_core::{Catalog, MemoryStore, RestoreOptions, Stores};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::fixture::{Site, run};

/// What an application sees: points and rows.
type Live = (Vec<Value>, Vec<String>, Option<Value>);

struct World {
    site: Site,
    rows: MemoryStore,
    catalog: Catalog,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let site = Site::start().await;
        site.create("a", json!({"vectors": {"size": 2, "distance": "Dot"}})).await;
        let point = |n| json!({"id": n, "vector": [n, 1], "payload": {"n": n}});
        site.upsert("a", (0..10).map(point).collect()).await;
        let rows = MemoryStore::new();
        rows.insert("notes", 1, json!("archived")).expect("a row");
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(folder.path()).expect("a catalog");
        let world = Self { site, rows, catalog, _folder: folder };
        world.stores().backup(&world.catalog).await.expect("a backup");
        world
    }

    // As another process has them.
    fn stores(&self) -> Stores {
        let stores = Stores::new("test", "1.0.0").with("vectors", self.site.store());
        stores.with("rows", self.rows.clone())
    }

    /// What is not in the archive.
    async fn change(&self) {
        let point = |n| json!({"id": n, "vector": [7, 7], "payload": {"since": "then"}});
        self.site.upsert("a", vec![point(1), point(99)]).await;
        self.rows.insert("notes", 1, json!("live")).expect("a row");
    }

    async fn live(&self) -> Live {
        (self.site.points("a").await, self.site.collections().await, self.rows.get("notes", 1))
    }

    /// Restores for so long, and then dies; whether it lived.
    async fn restore(&self, life: Duration) -> bool {
        let options = RestoreOptions::new().no_safety_backup();
        let archive = self.catalog.latest().expect("an archive");
        let stores = self.stores();
        let plan = stores.plan_restore_with(&archive, &options).await.expect("a plan");
        match timeout(life, plan.execute()).await {
            Ok(outcome) => outcome.expect("a restore").restored(),
            Err(_) => false,
        }
    }
}

#[test]
fn a_restore_that_died_anywhere_is_resumed_to_old_or_new() {
    let full = std::env::var("BACKUP_KIT_SWEEP").is_ok_and(|sweep| sweep == "full");
    let (mut forward, mut back) = (0, 0);
    run(async {
        let world = World::new().await;
        let new = world.live().await;
        world.change().await;
        let old = world.live().await;
        let step = Duration::from_millis(if full { 1 } else { 12 });
        for n in 0.. {
            if world.restore(step * n).await {
                assert_eq!(world.live().await, new);
                break;
            }
            // The recovery dies, too: earlier and later.
            let stores = world.stores();
            let dir = world.catalog.dir();
            if let Ok(outcome) = timeout(step * (n % 10), stores.resume(dir)).await {
                outcome.expect("a recovery");
            }
            let report = world.stores().resume(dir).await.expect("a recovery");
            let now = world.live().await;
            assert!(now == old || now == new, "{n}: {report:?}: {now:?}");
            // A snapshot that the server had made and not yet answered for is nobody's: it might be
            // the user's own, and stays.
            let mut traces = world.site.traces().await;
            traces.retain(|trace| !trace.starts_with("a: "));
            assert_eq!(traces, [""; 0], "{n}: {report:?}");
            assert!(world.stores().resume(dir).await.expect("nothing").is_none());
            *(if now == new { &mut forward } else { &mut back }) += 1;
            world.change().await;
        }
    });
    #[expect(clippy::print_stderr, reason = "how much was tried depends on the machine")]
    {
        eprintln!("died {} times: {forward} went forward, {back} back", forward + back);
    }
    assert!(back > 0 && (forward > 0 || !full), "{forward} forward, {back} back");
}
