//! A database that is stopped, as the server's own tool dumps and loads it.

mod admin;
mod sink;
mod source;
mod stage;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use backup_core::{Adapter, Capabilities, Description, Result, Worker, async_trait};

use self::admin::Admin;

/// A database of Neo4j that is **stopped**, carried as `neo4j-admin database dump` writes it.
///
/// For those who want the server's own form, which only the same version or a later one reads, and
/// for whom a pause is no matter. [`Neo4jStore`](crate::Neo4jStore) carries the graph of a running
/// server, as records that can be looked into, selected and merged. In the Community edition a database
/// is stopped when its server is: the host does that before a backup or a restore, or with a
/// [`Quiesce`](backup_core::Quiesce) around a backup. A database that is in use is an error, and
/// nothing is changed.
///
/// A restore writes the dump into `folder`, loads it into a copy beside it and has the server's tool
/// check that copy, before it touches the database. Then it dumps the database that is there, so that
/// it can be taken back, and loads the new one over it. That is not atomic for the server's files, but
/// nothing reads them meanwhile, and a restore that dies is finished or taken back by
/// [`resume`](backup_core::Stores::resume). Where there was no database before, it cannot be taken back.
///
/// ```no_run
/// use std::process::Command;
/// use backup_core::Stores;
/// use backup_neo4j::Neo4jDump;
///
/// let graph = Neo4jDump::new(&Command::new("neo4j-admin"), "/var/lib/app/neo4j-restore");
/// let stores = Stores::new("app", "1.0.0").with("graph", graph);
/// ```
#[derive(Clone)]
pub struct Neo4jDump(Arc<Place>);

/// Where the database is, and where a restore works.
#[derive(Debug, Clone)]
struct Place {
    admin: Admin,
    database: String,
    folder: PathBuf,
}

impl Neo4jDump {
    /// The database `neo4j` of the server that `admin` belongs to: `neo4j-admin` with whatever
    /// arguments, environment and working folder it needs. `folder` is where a restore keeps the dump,
    /// a copy of the database that is loaded from it, and the dump of what was there before; it is made
    /// when it is needed.
    #[must_use]
    pub fn new(admin: &Command, folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref().to_owned();
        Self(Arc::new(Place { admin: Admin::new(admin), database: "neo4j".to_owned(), folder }))
    }

    /// Another database of that server.
    #[must_use]
    pub fn database(self, name: &str) -> Self {
        Self(Arc::new(Place { database: name.to_owned(), ..Arc::unwrap_or_clone(self.0) }))
    }
}

impl Place {
    /// The name of the dump in an archive, whatever database it is restored to.
    const BLOB: &str = "neo4j.dump";
}

#[async_trait]
impl Adapter for Neo4jDump {
    fn kind(&self) -> &'static str {
        "neo4j-dump"
    }

    fn capabilities(&self) -> Capabilities {
        let mut all = Capabilities::default();
        all.blobs = true;
        all.undo = true;
        all
    }

    fn owned_paths(&self) -> Vec<PathBuf> {
        vec![self.0.folder.clone()]
    }

    async fn describe(&self) -> Result<Description> {
        let mut description = Description::new("Neo4j");
        description.version = Some(in_thread(&self.0, |place| place.admin.version()).await?);
        Ok(description)
    }
}

/// Does what blocks in a thread of its own.
async fn in_thread<T: Send + 'static>(
    place: &Arc<Place>,
    work: impl FnOnce(&Place) -> Result<T> + Send + 'static,
) -> Result<T> {
    let place = Arc::clone(place);
    let worker = Worker::spawn("neo4j-admin", move || Ok(place))?;
    worker.call(move |place| work(place)).await
}

impl fmt::Debug for Neo4jDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neo4jDump")
            .field("database", &self.0.database)
            .field("folder", &self.0.folder)
            .finish_non_exhaustive()
    }
}
