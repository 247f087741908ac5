//! From a manifest and a set of stores to a plan.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Origin, RestoreOptions,
    plan::{PlannedArchive, PlannedStore, RestorePlan, Work},
    versions,
};
use crate::{
    catalog,
    error::{Error, ErrorKind, Result},
    journal::{Journal, Member},
    manifest::{Manifest, StoreConsistency, StoreManifest},
    sink::{Sink, StagePlan, WriteMode},
    stores::Stores,
    worker::guarded,
};

/// Checks all that can be known beforehand and asks every sink to prepare.
pub(crate) async fn plan(
    stores: &Stores,
    origin: Origin,
    options: &RestoreOptions,
) -> Result<RestorePlan> {
    stores.chosen(None)?;
    let manifest = Arc::clone(&origin.manifest);
    let mut notes = Vec::new();
    let versions = versions::judge(stores, &manifest, options)?;
    if versions.migration.is_some() {
        return Err(Error::new(ErrorKind::Unsupported, "migrations are not carried out yet"));
    }
    let journal_dir = journal_dir(&origin, options)?;
    let restore_id = stores.clock.new_id().to_string();
    let mut warnings = versions.warnings.clone();
    let mut chosen = Vec::new();
    for (name, store) in selected(&manifest, options, &mut notes)? {
        let sink = sink_for(stores, name, store)?;
        warnings.extend(versions::native(name, store, &*sink, options).await?);
        let mut request = StagePlan::new(&restore_id, name, &store.kind);
        request.content = store.content();
        request.bytes = store.bytes;
        request.avoid = stores.owned_by_others(name);
        let others = stores.entries.iter().filter(|entry| entry.name != name);
        let sinks = others.filter_map(|entry| entry.sink.as_ref());
        request.avoid.extend(sinks.flat_map(|sink| sink.staging_paths(&restore_id)));
        request.avoid.extend(Journal::files(&journal_dir));
        request.avoid.extend(origin.path.clone());
        // A catalog within a folder that is restored: its other backups have to stay.
        let folder = origin.path.as_deref().and_then(Path::parent);
        let catalog = folder.filter(|folder| catalog::is_catalog(folder));
        let more = options.avoid.iter().map(PathBuf::as_path).chain(catalog);
        request.avoid.extend(more.flat_map(|path| catalog::off_limits(path, &*sink)));
        let prepared = guarded(name, sink.prepare(&request)).await?;
        if store.consistency == StoreConsistency::Fuzzy {
            warnings.push(format!("{name} was read while it could change"));
        }
        let planned = PlannedStore {
            name: name.to_owned(),
            kind: store.kind.clone(),
            mode: WriteMode::Replace,
            switch: prepared.switch,
            atomic: prepared.switch.is_atomic(),
            collections: store.collections.len() as u64,
            records: store.collections.values().map(|c| c.tally.records).sum(),
            native_files: store.blobs.len() as u64,
            bytes: store.bytes,
            notes: prepared.notes,
        };
        let member = Member {
            name: name.to_owned(),
            switch: prepared.switch,
            token: prepared.token,
            expected: request.content,
        };
        chosen.push((planned, member, sink));
    }
    // What cannot be taken back goes last, so that everything before it can be; then slow
    // and stepwise switches before those that are a pointer's.
    chosen.sort_by_key(|(planned, _, sink)| {
        (!sink.capabilities().undo, planned.switch, planned.name.clone())
    });
    let for_good: Vec<_> = chosen
        .iter()
        .filter(|(_, _, sink)| !sink.capabilities().undo)
        .map(|(planned, ..)| planned.name.clone())
        .collect();
    if !for_good.is_empty() {
        warnings.push(format!("cannot be taken back once switched: {}", for_good.join(", ")));
    }
    if manifest.partial {
        warnings.push(format!(
            "the backup is partial: {} of what was asked for is missing or in doubt",
            manifest.notice_count
        ));
    }
    if Journal::files(&journal_dir)[0].exists() {
        warnings.push("an earlier restore has not come to its end: call resume first".into());
    }
    let mut planned = Vec::new();
    let mut members = Vec::new();
    for (store, member, sink) in chosen {
        planned.push(store);
        members.push((member, sink));
    }
    Ok(RestorePlan {
        restore_id,
        archive: PlannedArchive {
            path: origin.path.clone(),
            id: manifest.id,
            created: manifest.created,
            application: manifest.application.clone(),
            description: manifest.description.clone(),
            partial: manifest.partial,
            consistency: manifest.consistency,
        },
        stores: planned,
        versions,
        notes,
        warnings,
        journal_dir,
        work: Work {
            origin,
            members,
            pauser: stores.pauser.clone(),
            clock: Arc::clone(&stores.clock),
            cancel: options.cancel.clone(),
        },
    })
}

fn journal_dir(origin: &Origin, options: &RestoreOptions) -> Result<PathBuf> {
    let beside = || {
        let parent = origin.path.as_ref()?.parent()?;
        // A bare file name has the empty path as its parent.
        Some(if parent.as_os_str().is_empty() { ".".into() } else { parent.to_owned() })
    };
    options.journal_dir.clone().or_else(beside).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidInput,
            "the archive is not a file, so its journal has no place",
        )
        .advise("name a folder for the journal")
    })
}

fn selected<'a>(
    manifest: &'a Manifest,
    options: &RestoreOptions,
    notes: &mut Vec<String>,
) -> Result<Vec<(&'a str, &'a StoreManifest)>> {
    if let Some(names) = &options.stores
        && let Some(name) = names.iter().find(|name| !manifest.stores.contains_key(*name))
    {
        return Err(Error::new(ErrorKind::NotFound, "the archive has no such store").on(name));
    }
    let mut selected = Vec::new();
    for (name, store) in &manifest.stores {
        let asked = options.stores.as_ref().map(|names| names.contains(name));
        match (asked, store.missing) {
            (Some(false), _) => {}
            (Some(true), true) => {
                let what = "the store could not be reached when the backup was taken";
                return Err(Error::new(ErrorKind::NotFound, what).on(name));
            }
            (None, true) => notes.push(format!("{name} is not in the archive and stays as it is")),
            (_, false) => selected.push((name.as_str(), store)),
        }
    }
    if selected.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "there is no store to restore"));
    }
    Ok(selected)
}

fn sink_for(stores: &Stores, name: &str, store: &StoreManifest) -> Result<Arc<dyn Sink>> {
    let entry = stores.entry(name).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the archive holds a store that is not registered")
            .on(name)
            .advise("register it under that name, or select the stores to restore")
    })?;
    let sink = entry.sink.clone().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "the store is registered for backups only").on(name)
    })?;
    if sink.kind() != store.kind {
        let what = format!(
            "the archive's store is of kind {:?}, the registered one of kind {:?}",
            store.kind,
            sink.kind()
        );
        return Err(Error::new(ErrorKind::Incompatible, what)
            .on(name)
            .advise("register a store of the same kind under that name"));
    }
    if !store.blobs.is_empty() && !sink.capabilities().blobs {
        let what = "the archive holds a native snapshot, and the store takes none";
        return Err(Error::new(ErrorKind::Unsupported, what).on(name));
    }
    Ok(sink)
}
