//! `validate --drill`: an archive restored into stores that exist only for that, and compared.

use std::{collections::BTreeMap, path::Path};

use backup_kit::{
    DiffOptions, DiffSide, Error, ErrorKind, RestoreOptions, Result, Stores,
    archive::{Archive, PartKind},
    files::FilesStore,
    manifest::StoreManifest,
    sqlite::SqliteStore,
};
use futures::executor::block_on;
use serde_json::{Value, json};

use super::Context;

/// What a drill came to; what differs is an error.
#[derive(Debug, Default)]
pub(super) struct Drill {
    /// Restored, read back, and equal.
    pub(super) restored: Vec<String>,
    /// Kinds of store that have no embedded form, by name.
    pub(super) left_out: BTreeMap<String, String>,
}

impl Drill {
    pub(super) fn document(&self) -> Value {
        json!({"restored": self.restored, "left_out": self.left_out})
    }
}

/// Restores all that can be restored here into a folder for temporary files.
pub(super) fn run(context: &Context<'_>, archive: &Archive) -> Result<Drill> {
    let folder = tempfile::Builder::new().prefix("backup-kit-drill-").tempdir();
    let folder = folder.map_err(|e| Error::io("there is no place for a drill", e))?;
    let done = drill(context, archive, folder.path());
    // A folder that stays would fill the disk; what went wrong before says more.
    let removed = folder.close().map_err(|e| Error::io("a drill's folder cannot be removed", e));
    done.and_then(|drill| removed.map(|()| drill))
}

fn drill(context: &Context<'_>, archive: &Archive, folder: &Path) -> Result<Drill> {
    let mut drill = Drill::default();
    let mut stores = scratch(archive);
    let held = archive.manifest().stores.iter().filter(|(_, store)| !store.missing);
    for (number, (name, store)) in held.enumerate() {
        let place = folder.join(number.to_string());
        match store.kind.as_str() {
            "sqlite" => stores = stores.with(name, sqlite(store, &place)?),
            "files" => stores = stores.with(name, files(archive, name, store, &place)?),
            kind => {
                drill.left_out.insert(name.clone(), kind.to_owned());
                continue;
            }
        }
        drill.restored.push(name.clone());
    }
    if drill.restored.is_empty() {
        return Ok(drill);
    }
    let journal = folder.join("journal");
    make(&journal)?;
    let options = RestoreOptions::new()
        .stores(&drill.restored)
        .journal_dir(journal)
        .no_safety_backup()
        .cancel(&context.cancel);
    let plan = block_on(stores.plan_restore_with(archive, &options))?;
    block_on(plan.execute())?;
    let options = DiffOptions::new().stores(&drill.restored).cancel(&context.cancel);
    let mut found = block_on(stores.diff(archive, &options.temp_dir(folder)))?;
    if !archive.manifest().selection.is_empty() {
        // A part is added to an empty store, which may have what the part leaves out.
        for store in found.stores.values_mut() {
            store.collections.retain(|_, one| one.only != Some(DiffSide::Right));
        }
    }
    if found.is_equal() {
        return Ok(drill);
    }
    Err(Error::new(ErrorKind::Mismatch, format!("what was restored differs\n{found}"))
        .advise("keep this archive, take another backup, and report this"))
}

// The application that the archive is of: a drill asks whether it can be restored, not whether
// it fits what runs here.
fn scratch(archive: &Archive) -> Stores {
    let manifest = archive.manifest();
    let application = &manifest.application;
    let stores = Stores::new(&application.name, &application.version);
    match &manifest.data_schema_version {
        Some(version) => stores.data_schema_version(version),
        None => stores,
    }
}

fn sqlite(store: &StoreManifest, place: &Path) -> Result<SqliteStore> {
    make(place)?;
    let scratch = SqliteStore::open(place.join("scratch.db"))?.temp_dir(place);
    Ok(if store.blobs.is_empty() { scratch.logical() } else { scratch.native() })
}

fn files(archive: &Archive, name: &str, store: &StoreManifest, place: &Path) -> Result<FilesStore> {
    make(place)?;
    let mut scratch = FilesStore::builder();
    for (number, root) in store.collections.keys().enumerate() {
        scratch = scratch.root(root, place.join(number.to_string()));
    }
    for glob in excluded(archive, name)? {
        scratch = scratch.exclude(glob);
    }
    scratch.build().map_err(|e| e.on(name))
}

// What the backup left out stands in the schema, which is compared, too.
fn excluded(archive: &Archive, name: &str) -> Result<Vec<String>> {
    for part in archive.entries() {
        let part = part?;
        if matches!(&part.kind, PartKind::Schema { store, .. } if store == name) {
            let schema: Value = serde_json::from_slice(&archive.read(&part)?).unwrap_or_default();
            let globs = schema["exclude"].as_array().into_iter().flatten();
            return Ok(globs.filter_map(|glob| Some(glob.as_str()?.to_owned())).collect());
        }
    }
    Ok(Vec::new())
}

fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir(folder)
        .map_err(|e| Error::io("a folder for the drill cannot be made", e).on(folder.display()))
}
