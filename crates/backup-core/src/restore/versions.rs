//! Versions of application and engines, compared when a restore is planned.

use std::collections::BTreeSet;

use super::RestoreOptions;
use crate::{
    compat::{EngineFit, VersionVerdict, Versions, engine},
    error::{Error, ErrorKind, Result},
    manifest::{Manifest, StoreManifest},
    migrate::MigrationPath,
    sink::Sink,
    stores::Stores,
    worker::guarded,
};

/// Compares the application's versions.
///
/// # Errors
/// [`Incompatible`](ErrorKind::Incompatible) for another application, or a version that the
/// policy does not let in.
pub(super) fn judge(
    stores: &Stores,
    manifest: &Manifest,
    options: &RestoreOptions,
) -> Result<VersionVerdict> {
    let verdict = verdict(stores, manifest, options);
    if verdict.allowed {
        return Ok(verdict);
    }
    let what = format!("the archive does not fit: {verdict}");
    Err(Error::new(ErrorKind::Incompatible, what).advise(verdict.next_step))
}

/// The verdict on what these options take of an archive.
pub(super) fn verdict(
    stores: &Stores,
    manifest: &Manifest,
    options: &RestoreOptions,
) -> VersionVerdict {
    let (theirs, ours) = (&manifest.application, &stores.application);
    let mut verdict = if theirs.name == ours.name {
        let archive =
            Versions::new(&theirs.version).data_schema(manifest.data_schema_version.as_deref());
        let running =
            Versions::new(&ours.version).data_schema(stores.facts.data_schema_version.as_deref());
        let policy = stores.versions.clone().asked(options.downgrade);
        policy.judge(archive, running, &stores.migrations)
    } else {
        let mut verdict = VersionVerdict::incomparable(&theirs.version, &ours.version);
        let what = format!("the archive is of another application, {:?}", theirs.name);
        if options.other_application {
            verdict.warnings.push(format!("{what}: versions are not compared"));
        } else {
            verdict.refuse(what, "choose another archive, or allow another application's");
        }
        verdict
    };
    verdict.warnings.extend(stores.versions.age(manifest.created, stores.clock.now()));
    if let Some(path) = verdict.migration.clone() {
        let taken = |name: &String| {
            options.wishes.selection.takes_store(name)
                && options.stores.as_ref().is_none_or(|names| names.contains(name))
        };
        let stores = manifest.stores.iter().filter(|(name, store)| !store.missing && taken(name));
        for (name, store) in stores {
            if let Err(refusal) = migratable(name, store, &path) {
                verdict.refuse(refusal.to_string(), refusal.advice());
            }
        }
    }
    verdict
}

// Whether the migrations can be carried out on what the archive holds of a store.
fn migratable(name: &str, store: &StoreManifest, path: &MigrationPath) -> Result<()> {
    if !path.touches(name) {
        return Ok(());
    }
    let refused = |what: &str| Error::new(ErrorKind::Incompatible, what.to_owned()).on(name);
    if !store.blobs.is_empty() {
        let what = "a native snapshot cannot be migrated";
        let first = path.steps().swap_remove(0);
        return Err(refused(what).advise(format!(
            "restore with version {}, or use a backup of the store's records",
            first.from
        )));
    }
    let mut names = BTreeSet::new();
    for name in store.collections.keys().filter_map(|c| path.collection(name, c)) {
        if names.contains(&name) {
            let what = format!("two collections get the name {name:?} in the migration");
            return Err(refused(&what).advise("correct the migration"));
        }
        names.insert(name);
    }
    Ok(())
}

/// Compares the versions of a store's engine, where the archive holds native parts; what there
/// is to say of it.
///
/// # Errors
/// [`Incompatible`](ErrorKind::Incompatible) for an engine that may not read them.
pub(super) async fn native(
    name: &str,
    store: &StoreManifest,
    sink: &dyn Sink,
    options: &RestoreOptions,
) -> Result<Option<String>> {
    if store.blobs.is_empty() {
        return Ok(None);
    }
    let live = match guarded(name, sink.describe()).await {
        Ok(description) => description.version,
        // Nothing is there yet: what is restored comes first.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let (what, advice) = match engine(store, live.as_deref()) {
        EngineFit::Fits => return Ok(None),
        EngineFit::Unknown(what) => return Ok(Some(format!("{name} is {what}"))),
        EngineFit::Older(what) if options.downgrade => {
            return Ok(Some(format!("{name} is {what}")));
        }
        EngineFit::Older(what) => (what, "update the engine, or allow the downgrade"),
        EngineFit::Other(what) => {
            (what, "use an engine of the same major version, or a backup of the store's records")
        }
    };
    Err(Error::new(ErrorKind::Incompatible, what).on(name).advise(advice))
}
