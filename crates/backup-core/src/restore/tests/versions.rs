//! Versions are compared when a restore is planned.

use super::*;
use crate::{
    Change, Compatibility, FixedClock, Migration, Migrations, Rewrite, Selection, Timestamp,
    VersionPolicy, manifest::FieldMapping,
};

// Of the first store, which has a collection of records, or of the last, which has a native file.
fn plan(
    world: &World,
    version: &str,
    store: usize,
    host: impl FnOnce(Stores) -> Stores,
    downgrade: bool,
) -> Result<RestorePlan> {
    let stores = Stores::new("docs", version).with(NAMES[store], world.stores[store].clone());
    let options = bare().stores([NAMES[store]]).allow_downgrade(downgrade);
    block_on(host(stores).plan_restore_with(&world.archive(), &options))
}

#[test]
fn a_version_that_does_not_fit_is_refused_with_what_to_do() {
    let world = world();
    let error = plan(&world, "0.9.0", 0, |stores| stores, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let expected = "the archive does not fit: incompatible, refused: the archive was written by \
                    1.0.0, this is 0.9.0; it is another major version, and no migration leads \
                    there";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.advice(), "update the application to 1.0.0");
    world.is_old();
}

#[test]
fn a_downgrade_is_allowed_for_one_restore_or_by_policy() {
    let world = world();
    let policy = VersionPolicy::new;
    let path = world.dir.path().join("newer.tar.gz");
    let newer = Stores::new("docs", "1.0.3").with("state", world.stores[0].clone());
    block_on(newer.backup_to_file(&path, &BackupOptions::new())).unwrap();
    let archive = Archive::open(path).unwrap();
    let plan = |policy, downgrade| {
        let older = Stores::new("docs", "1.0.1").with("state", world.stores[0].clone());
        let options = bare().allow_downgrade(downgrade);
        block_on(older.versions(policy).plan_restore_with(&archive, &options))
    };
    let refused = plan(policy(), false).unwrap_err();
    assert_eq!(refused.advice(), "allow the downgrade, or update the application");
    for allowed in [plan(policy(), true), plan(policy().allow_patch_downgrade(true), false)] {
        let plan = allowed.unwrap();
        assert_eq!(plan.versions().compatibility, Compatibility::Downgrade);
        assert!(plan.to_string().contains("\n  version downgrade: the archive was written by"));
        let shown = serde_json::to_value(&plan).unwrap();
        assert_eq!(shown["versions"]["compatibility"], "downgrade");
        assert_eq!(shown["versions"]["allowed"], true);
    }
}

#[test]
fn age_and_data_schema_are_part_of_the_verdict() {
    let world = world();
    let later = Timestamp::now().as_micros() + 100 * 86_400_000_000;
    let clock =
        FixedClock { time: Timestamp::from_micros(later), id: world.archive().manifest().id };
    let host = |stores: Stores| stores.clock(clock).data_schema_version("8");
    let plan = plan(&world, "1.0.0", 0, host, false).unwrap();
    assert_eq!(
        plan.warnings(),
        ["the archive names no data schema; this is 8", "the backup is 100 days old"]
    );
}

#[test]
fn migrations_are_held_against_what_the_archive_has() {
    let world = world();
    let archive = world.archive();
    let verdict = |change| {
        let step = Migration::new("1.0.0", "2.0.0").change(change);
        let stores = Stores::new("docs", "2.0.0").migrations(Migrations::new([step]).unwrap());
        stores.verdict(archive.manifest())
    };
    let fits = verdict(Change::rename("state", "notes", "/n", "/number"));
    assert_eq!(fits.compatibility, Compatibility::NeedsMigration);
    assert!(fits.allowed, "{fits}");
    assert!(verdict(Change::remove("nowhere", "notes", "/n")).allowed);
    let native = verdict(Change::remove("vectors", "points", "/n"));
    assert!(!native.allowed && native.to_string().contains("(vectors)"), "{native}");
    assert_eq!(
        native.next_step,
        "restore with version 1.0.0, or use a backup of the store's records"
    );
    let stores = Stores::new("docs", "2.0.0").migrations(
        Migrations::new([
            Migration::new("1.0.0", "2.0.0").change(Change::remove("vectors", "points", "/n"))
        ])
        .unwrap(),
    );
    let judged =
        |options| super::super::versions::verdict(&stores, archive.manifest(), &options).allowed;
    assert!(!judged(RestoreOptions::new()));
    assert!(judged(RestoreOptions::new().stores(["state"])));
    assert!(judged(RestoreOptions::new().select(Selection::new().store("state"))));
    let clash = verdict(Change::rename_collection("state", "notes", "empty"));
    assert!(!clash.allowed && clash.to_string().contains("\"empty\""), "{clash}");
}

#[test]
fn native_parts_need_an_engine_that_is_not_older() {
    let planned = |live: &str, downgrade| {
        let world = world();
        let archive = world.archive();
        let mut origin = Origin::of(&archive);
        let mut manifest = archive.manifest().clone();
        for store in manifest.stores.values_mut() {
            store.engine_version = Some("1.15.0".into());
        }
        origin.manifest = Arc::new(manifest);
        let live = world.stores.clone().map(|store| store.with_engine_version(live));
        let options = bare().allow_downgrade(downgrade);
        block_on(prepare::plan(&set(&live), origin, &options))
            .map(|plan| plan.warnings().to_vec())
            .map_err(|error| (error.kind(), error.to_string()))
    };
    assert_eq!(planned("1.15.2", false), Ok(vec![]));
    let what = "a native snapshot of memory 1.15.0, and the engine here is";
    let refused = |live| Err((ErrorKind::Incompatible, format!("{what} {live} (vectors)")));
    assert_eq!(planned("1.14.0", false), refused("1.14.0"));
    assert_eq!(planned("1.14.0", true), Ok(vec![format!("vectors is {what} 1.14.0")]));
    assert_eq!(planned("2.0.0", true), refused("2.0.0"));
    assert_eq!(planned("odd", false), Ok(vec![format!("vectors is {what} odd")]));
}

#[test]
fn fields_are_where_each_version_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar.gz");
    let store = MemoryStore::new();
    for n in 0..10 {
        let project = if n < 4 { "a" } else { "b" };
        store.insert("notes", n, json!({"project": project})).unwrap();
    }
    let project = |at: &str| FieldMapping { project: Some(at.into()), ..FieldMapping::default() };
    let old = Stores::new("docs", "1.0.0").with("state", store.clone());
    let old = old.fields("state", "notes", project("/project"));
    block_on(old.backup_to_file(&path, &BackupOptions::new())).unwrap();

    store.clear();
    let step = Migration::new("1.0.0", "2.0.0")
        .change(Change::rename("state", "notes", "/project", "/meta/of"))
        .change(Change::rename_collection("state", "notes", "documents"));
    let options = RestoreOptions::new()
        .select(Selection::new().project("a"))
        .rewrite(Rewrite::new().rename_project("a", "c"));
    // Known from the archive, or said by the host.
    let told = [FieldMapping::default(), project("/meta/of")];
    for mapping in told {
        let mut new = Stores::new("docs", "2.0.0")
            .with("state", store.clone())
            .migrations(Migrations::new([step.clone()]).unwrap());
        if !mapping.is_empty() {
            new = new.fields("state", "documents", mapping);
        }
        let archive = Archive::open(&path).unwrap();
        block_on(async { new.plan_restore_with(&archive, &options).await?.execute().await })
            .unwrap();
        assert_eq!(store.get("documents", 3), Some(json!({"meta": {"of": "c"}})));
        assert_eq!((store.get("documents", 4), store.get("notes", 3)), (None, None));
        store.clear();
    }
}
