//! From a manifest and a set of stores to a plan.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Origin, RestoreOptions,
    plan::{PlannedArchive, PlannedStore, RestoreEstimate, RestorePlan, Work},
    references::References,
    run::Seat,
    safety::Safety,
    versions,
    way::{Meets, Way, Wishes},
};
use crate::{
    catalog,
    compat::VersionVerdict,
    error::{Error, ErrorKind, Result},
    journal::{Journal, Member},
    manifest::{Manifest, StoreConsistency, StoreManifest},
    select::Selection,
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
    let journal_dir = journal_dir(&origin, options)?;
    let restore_id = stores.clock.new_id().to_string();
    let safety = options.safety.dir(&journal_dir);
    let mut planner = Planner {
        stores,
        options,
        origin: &origin,
        versions: &versions,
        restore_id: &restore_id,
        avoid: Journal::files(&journal_dir).into_iter().chain(origin.path.clone()).collect(),
        // A catalog within a folder that is restored: its other backups have to stay.
        folders: options.avoid.iter().cloned().chain(safety.clone()).collect(),
        warnings: versions.warnings.clone(),
    };
    let beside = origin.path.as_deref().and_then(Path::parent);
    planner.folders.extend(beside.filter(|dir| catalog::is_catalog(dir)).map(Path::to_owned));
    let mut chosen = Vec::new();
    check_names(&manifest, &options.wishes)?;
    for (from, store) in selected(&manifest, options, &mut notes)? {
        match planner.seat(from, store).await? {
            Some(one) => chosen.push(one),
            None => notes.push(format!("{from} is not selected and stays as it is")),
        }
    }
    let Planner { avoid, folders, mut warnings, .. } = planner;
    if chosen.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "there is no store to restore"));
    }
    // What cannot be taken back goes last, so that everything before it can be; then slow
    // and stepwise switches before those that are a pointer's.
    chosen.sort_by_key(|(planned, seat)| {
        (!seat.sink.capabilities().undo, planned.switch, planned.name.clone())
    });
    let for_good: Vec<_> = chosen
        .iter()
        .filter(|(_, seat)| !seat.sink.capabilities().undo)
        .map(|(planned, _)| planned.name.clone())
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
    let (planned, seats): (Vec<PlannedStore>, Vec<_>) = chosen.into_iter().unzip();
    let names: Vec<_> = planned.iter().map(|store| store.name.as_str()).collect();
    let added_to = planned.iter().zip(&seats).filter_map(|(store, seat)| {
        let merges = store.mode == WriteMode::Merge && !options.whole_safety;
        let way = seat.way.as_ref().filter(|_| merges)?;
        Some((store.name.clone(), way.forecast().collections.into_keys().collect()))
    });
    let safety = safety.map(|dir| Safety {
        stores: stores.only(&names),
        added_to: added_to.collect(),
        dir,
        avoid: avoid.into_iter().chain(folders).collect(),
    });
    let references = References::new(stores, &manifest, &seats, options.dangling);
    let windows = planned.iter().filter_map(|store| manifest.stores.get(&store.from));
    let whole = safety.as_ref().is_some_and(|safety| safety.added_to.len() < planned.len());
    let estimate = RestoreEstimate::new(windows.map(|store| store.window), whole);
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
            took: manifest.created.seconds_until(manifest.finished),
        },
        stores: planned,
        references: manifest.references.clone(),
        versions,
        notes,
        warnings,
        journal_dir,
        lost: None,
        estimate,
        safety_backup: safety.as_ref().map(|safety| safety.dir.clone()),
        work: Work {
            origin,
            safety,
            hooks: stores.hooks.clone(),
            seats,
            references,
            pauser: stores.pauser.clone(),
            clock: Arc::clone(&stores.clock),
            cancel: options.cancel.clone(),
        },
    })
}

/// What planning each store takes.
struct Planner<'a> {
    stores: &'a Stores,
    options: &'a RestoreOptions,
    origin: &'a Origin,
    versions: &'a VersionVerdict,
    restore_id: &'a str,
    // What no store may touch: files, and folders of this library's.
    avoid: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Planner<'_> {
    // `None`: nothing of it is selected.
    async fn seat(
        &mut self,
        from: &str,
        store: &StoreManifest,
    ) -> Result<Option<(PlannedStore, Seat)>> {
        let mut wishes = Cow::Borrowed(&self.options.wishes);
        let name = wishes.names.store(from).to_owned();
        let sink = sink_for(self.stores, &name, store)?;
        let can = sink.capabilities();
        let entries = can.entries && !can.records && store.blobs.is_empty();
        let records = can.records && store.blobs.is_empty();
        if !records && !wishes.selection.takes_all_of(from) {
            let Some(whole) = unreadable(&wishes.selection, from, store, entries)? else {
                return Ok(None);
            };
            wishes.to_mut().selection = whole;
        }
        let native = versions::native(&name, store, &*sink, self.options).await?;
        self.warnings.extend(native);
        if store.consistency == StoreConsistency::Fuzzy {
            self.warnings.push(format!("{name} was read while it could change"));
        }
        // An archive of a part says nothing of the rest.
        let merges = wishes.merges(from) || !self.origin.manifest.asked_for_all_of(from);
        let fields = |collection: &str| {
            let host = &self.stores.facts.fields;
            host.get(&(name.clone(), collection.to_owned())).cloned()
        };
        let meets = merges.then_some(if entries { Meets::Entries } else { Meets::Records });
        let migration = self.versions.migration.as_ref();
        let archive = self.origin.manifest.id;
        let way = Way::new(archive, from, store, &wishes, migration, meets, fields)?;
        let mut request = StagePlan::new(self.restore_id, from, &store.kind);
        request.mode = if merges { WriteMode::Merge } else { WriteMode::Replace };
        request.content = way.forecast();
        request.info = way.info(store);
        request.vectors = way.vectors();
        request.bytes = store.bytes;
        request.avoid = self.off_limits(&name, &*sink);
        let mut prepared = guarded(&name, sink.prepare(&request)).await?;
        prepared.notes.extend(way.vector_notes());
        let content = &way.from_archive;
        let planned = PlannedStore {
            name: name.clone(),
            from: from.to_owned(),
            kind: store.kind.clone(),
            mode: request.mode,
            switch: prepared.switch,
            atomic: prepared.switch.is_atomic(),
            collections: content.collections.len() as u64,
            records: content.collections.values().map(|tally| tally.records).sum(),
            native_files: store.blobs.len() as u64,
            bytes: store.bytes,
            notes: prepared.notes,
        };
        let member = Member {
            name,
            switch: prepared.switch,
            token: prepared.token,
            expected: request.content,
        };
        let mut seat = Seat::new(member, sink);
        seat.from = from.to_owned();
        seat.way = (!way.is_straight(store)).then(|| Arc::new(way));
        Ok(Some((planned, seat)))
    }

    fn off_limits(&self, name: &str, sink: &dyn Sink) -> Vec<PathBuf> {
        let mut avoid = self.stores.owned_by_others(name);
        let others = self.stores.entries.iter().filter(|entry| entry.name != name);
        let sinks = others.filter_map(|entry| entry.sink.as_ref());
        avoid.extend(sinks.flat_map(|sink| sink.staging_paths(self.restore_id)));
        avoid.extend_from_slice(&self.avoid);
        avoid.extend(self.folders.iter().flat_map(|dir| catalog::off_limits(dir, sink)));
        avoid
    }
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
    let selection = &options.wishes.selection;
    if let Some(name) = selection.named().keys().find(|n| !manifest.stores.contains_key(*n)) {
        return Err(Error::new(ErrorKind::NotFound, "the archive has no such store").on(name));
    }
    let mut selected = Vec::new();
    for (name, store) in &manifest.stores {
        let mut asked = options.stores.as_ref().map(|names| names.contains(name));
        if !selection.named().is_empty() {
            asked = Some(asked.unwrap_or(true) && selection.takes_store(name));
        }
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

// Other names, rules for conflicts and wishes for vectors, of what the archive has.
fn check_names(manifest: &Manifest, wishes: &Wishes) -> Result<()> {
    let known: BTreeMap<String, BTreeSet<String>> = manifest
        .stores
        .iter()
        .map(|(name, store)| (name.clone(), store.collections.keys().cloned().collect()))
        .collect();
    wishes.names.check(&known)?;
    let ruled = wishes.conflicts.keys().map(|(s, c)| (s.as_str(), c.as_str()));
    for (store, collection) in ruled.chain(wishes.vectors.places()) {
        if !known.get(store).is_some_and(|of| of.contains(collection)) {
            return Err(Error::new(ErrorKind::NotFound, "the archive has no such collection")
                .on(format!("{store}/{collection}")));
        }
    }
    Ok(())
}

// What is taken of a store without records: folders one by one, all else as one piece. `None` for
// nothing.
fn unreadable(
    selection: &Selection,
    name: &str,
    store: &StoreManifest,
    folders: bool,
) -> Result<Option<Selection>> {
    if !folders {
        return Ok(selection.takes_unreadable(name, None)?.then(Selection::new));
    }
    let mut taken = Selection::new();
    let mut all = selection.named().get(name).is_none_or(BTreeSet::is_empty);
    for root in store.collections.keys() {
        match selection.takes_unreadable(name, Some(root))? {
            true => taken = taken.collection(name, root),
            false => all = false,
        }
    }
    let some = (!taken.named().is_empty()).then_some(taken);
    Ok(some.map(|some| if all { Selection::new() } else { some }))
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
