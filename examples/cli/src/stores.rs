//! The stores of a configuration, as the library takes them.

use backup_kit::{Result, Stores, files::FilesStore, sqlite::SqliteStore};

use crate::config::{Config, Form, Kind, Store};

/// The application with these of its stores. Nothing is opened yet.
pub(crate) fn make<'s>(
    config: &Config,
    chosen: impl IntoIterator<Item = &'s Store>,
) -> Result<Stores> {
    let mut stores = Stores::new(&config.app.name, &config.app.version);
    for store in chosen {
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
        };
    }
    Ok(stores)
}

fn add(
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
