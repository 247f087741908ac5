//! The stores of a configuration, as the library takes them.

use backup_kit::{Result, Stores, files::FilesStore, sqlite::SqliteStore};

use crate::{
    config::{Config, Form, Kind, Store},
    servers,
};

/// The application with these of its stores. Nothing is opened yet.
pub(crate) fn make<'s>(
    config: &Config,
    chosen: impl IntoIterator<Item = &'s Store>,
) -> Result<Stores> {
    let mut stores = config.references.iter().cloned().fold(application(config), Stores::reference);
    for store in chosen {
        for (collection, fields) in &store.fields {
            stores = stores.fields(&store.name, collection, fields.clone());
        }
        stores = match &store.kind {
            Kind::Sqlite { path, form } => {
                let sqlite = SqliteStore::open(path).map_err(|e| e.on(&store.name))?;
                let sqlite = match form {
                    Form::Native => sqlite.native(),
                    Form::Logical => sqlite.logical(),
                };
                add(stores, store, sqlite)
            }
            Kind::Files { path, exclude } => {
                let mut files = FilesStore::builder().root("root", path);
                for glob in exclude {
                    files = files.exclude(glob);
                }
                add(stores, store, files.build().map_err(|e| e.on(&store.name))?)
            }
            Kind::Qdrant(_) | Kind::Redis(_) | Kind::Neo4j(_) => servers::add(stores, store)?,
        };
    }
    Ok(stores)
}

/// The application without its stores: who compares versions needs no more.
pub(crate) fn application(config: &Config) -> Stores {
    let stores = Stores::new(&config.app.name, &config.app.version)
        .versions(config.versions.clone())
        .migrations(config.migrations.clone());
    match &config.app.data_schema {
        Some(version) => stores.data_schema_version(version),
        None => stores,
    }
}

/// Adds a store with its adapter.
pub(crate) fn add(
    stores: Stores,
    store: &Store,
    adapter: impl backup_kit::Source + backup_kit::Sink + 'static,
) -> Stores {
    if store.optional {
        stores.optional(&store.name, adapter)
    } else {
        stores.with(&store.name, adapter)
    }
}
