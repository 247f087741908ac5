//! How a store is configured: once, for both ways.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use backup_core::{
    Adapter, Capabilities, CollectionDescription, Description, Error, ErrorKind, Result, Worker,
};
use rusqlite::{Connection, OpenFlags};

use crate::{
    catalog,
    connect::{Access, SIDES, beside},
    error::sql,
    logical, version,
};

type Opener = dyn Fn(&Path, OpenFlags) -> rusqlite::Result<Connection> + Send + Sync;

/// A SQLite database, to be backed up and restored.
///
/// Made once and used both ways; cloning is cheap. Nothing is opened before a backup or a
/// restore begins.
///
/// The limits, all of which can be set: five seconds of waiting for others
/// ([`busy_timeout`](Self::busy_timeout)), half an hour for checking a database that came out
/// of an archive ([`check_limit`](Self::check_limit)).
#[derive(Clone)]
pub struct SqliteStore {
    pub(crate) config: Arc<Config>,
}

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    pub(crate) form: Form,
    pub(crate) busy_timeout: Duration,
    pub(crate) check_limit: Duration,
    pub(crate) temp_dir: PathBuf,
    pub(crate) opener: Option<Arc<Opener>>,
    pub(crate) dangling: bool,
}

/// What a backup holds of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Native,
    Logical,
}

impl SqliteStore {
    /// The database at `path`; it need not exist if it is only restored to.
    ///
    /// # Errors
    /// A path that cannot be one of a database: empty, `:memory:`, a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bad = |what: &str| Err(Error::new(ErrorKind::InvalidInput, what).on(path.display()));
        if path.as_os_str().is_empty() || path == Path::new(":memory:") {
            return bad("a database in memory cannot be backed up by its path");
        }
        let absolute = std::path::absolute(path)
            .map_err(|e| Error::io("could not find the database", e).on(path.display()))?;
        // SQLite names the files beside a database after what a link points at; so do we.
        let path = match absolute.canonicalize() {
            Ok(found) if found.is_dir() => return bad("a folder stands where the database should"),
            Ok(found) => found,
            Err(_) => match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
                (Some(Ok(folder)), Some(name)) => folder.join(name),
                (_, Some(_)) => absolute,
                (_, None) => return bad("a path names no file"),
            },
        };
        Ok(Self {
            config: Arc::new(Config {
                path,
                form: Form::Native,
                busy_timeout: Duration::from_secs(5),
                check_limit: Duration::from_secs(30 * 60),
                temp_dir: std::env::temp_dir(),
                opener: None,
                dangling: false,
            }),
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// Backs up the whole database file as one blob: exact and fast. The default.
    #[must_use]
    pub fn native(self) -> Self {
        self.with(|config| config.form = Form::Native)
    }

    /// Backs up schema and rows as portable records: selectable, readable by anything.
    #[must_use]
    pub fn logical(self) -> Self {
        self.with(|config| config.form = Form::Logical)
    }

    /// How long to wait for other connections before giving up with
    /// [`Busy`](ErrorKind::Busy). Five seconds unless told.
    #[must_use]
    pub fn busy_timeout(self, limit: Duration) -> Self {
        self.with(|config| config.busy_timeout = limit)
    }

    /// How long the checks of a staged database may take (`integrity_check`,
    /// `foreign_key_check`). Half an hour unless told.
    #[must_use]
    pub fn check_limit(self, limit: Duration) -> Self {
        self.with(|config| config.check_limit = limit)
    }

    /// Where a backup puts its temporary copy, as large as the database. The system's folder
    /// for temporary files unless told.
    #[must_use]
    pub fn temp_dir(self, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        self.with(|config| config.temp_dir = folder)
    }

    /// Restores a database whose foreign keys point at rows that are not there. Refused
    /// unless told.
    #[must_use]
    pub fn accept_dangling_references(self) -> Self {
        self.with(|config| config.dangling = true)
    }

    /// Opens every database file of this store: give the key, register functions, collations
    /// and modules.
    ///
    /// Called for the live database and, with the same flags and key, for temporary copies
    /// and staged files.
    ///
    /// ```
    /// use backup_sqlite::{SqliteStore, rusqlite::Connection};
    ///
    /// let store = SqliteStore::open("state.db")?.opener(|path, flags| {
    ///     let connection = Connection::open_with_flags(path, flags)?;
    ///     connection.pragma_update(None, "key", "from the host's key ring")?;
    ///     Ok(connection)
    /// });
    /// # let _ = store;
    /// # Ok::<(), backup_core::Error>(())
    /// ```
    #[must_use]
    pub fn opener<F>(self, open: F) -> Self
    where
        F: Fn(&Path, OpenFlags) -> rusqlite::Result<Connection> + Send + Sync + 'static,
    {
        self.with(|config| config.opener = Some(Arc::new(open)))
    }
}

#[async_trait]
impl Adapter for SqliteStore {
    fn kind(&self) -> &'static str {
        crate::KIND
    }

    fn capabilities(&self) -> Capabilities {
        let logical = self.config.form == Form::Logical;
        let mut can = Capabilities::default();
        can.records = logical;
        can.collections = logical;
        can.blobs = !logical;
        can.pins = true;
        // The form of the archive decides, not that of the store: records can be merged.
        can.merge = true;
        can.undo = true;
        can
    }

    fn owned_paths(&self) -> Vec<PathBuf> {
        let path = &self.config.path;
        let sides = SIDES.iter().map(|suffix| beside(path, suffix));
        std::iter::once(path.clone()).chain(sides).collect()
    }

    async fn describe(&self) -> Result<Description> {
        let config = Arc::clone(&self.config);
        let worker = Worker::spawn("sqlite describe", || Ok(()))?;
        worker
            .call(move |()| {
                let live = config.connect(&config.path, Access::Read)?;
                let mut description = Description::new("SQLite");
                description.version = Some(rusqlite::version().to_owned());
                description.metadata = crate::connect::facts(&live)?;
                description.metadata.extend(version::warning());
                description.collections = match config.form {
                    Form::Native => catalog::counts(&live)?
                        .into_iter()
                        .map(|(name, records)| {
                            let mut collection = CollectionDescription::new(name);
                            collection.records = records;
                            collection
                        })
                        .collect(),
                    Form::Logical => logical::describe(&live)?,
                };
                live.close().map_err(|(_, e)| sql("could not close the database")(e))?;
                Ok(description)
            })
            .await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.config.path)
            .field("form", &self.config.form)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused() {
        for bad in ["", ":memory:", "/", "."] {
            let error = SqliteStore::open(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[test]
    fn the_files_beside_a_database_are_owned_too() {
        let store = SqliteStore::open("/nowhere/state.db").unwrap();
        let names: Vec<_> =
            store.owned_paths().into_iter().map(|p| p.display().to_string()).collect();
        let all = ["state.db", "state.db-wal", "state.db-shm", "state.db-journal"];
        assert_eq!(names, all.map(|name| format!("/nowhere/{name}")));
    }
}
