//! The host's set of stores: where a backup or a restore begins.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    clock::{Clock, SystemClock},
    compat::VersionPolicy,
    error::{Error, ErrorKind, Result},
    event::{Observer, Watch},
    hooks::{Hooks, RestoreHooks},
    manifest::{Application, FieldMapping, ReferenceEnd},
    migrate::Migrations,
    part::Metadata,
    quiesce::{Pauser, Quiesce},
    redact::redact,
    references::{self, Reference},
    sink::Sink,
    source::Source,
};

/// All stores of an application, by name: what is backed up together and restored together.
///
/// A store is configured once and serves both ways. Nothing is opened or read before a
/// backup or a restore is asked for.
///
/// ```
/// use backup_core::{Catalog, MemoryStore, Stores};
///
/// # let folder = tempfile::tempdir()?;
/// # let (rows, uploads) = (MemoryStore::new(), MemoryStore::new());
/// # rows.insert("notes", 1, "hello".into())?;
/// # futures::executor::block_on(async {
/// let memory = Stores::new("docs-memory", env!("CARGO_PKG_VERSION"))
///     .with("state", rows.clone())
///     .with("uploads", uploads);
/// let catalog = Catalog::open(folder.path())?;
///
/// let backup = memory.backup(&catalog).await?;
/// assert!(backup.outcome.is_complete());
///
/// rows.clear();
/// let plan = memory.plan_restore(&catalog.latest()?).await?;
/// println!("{plan}"); // the dry-run
/// let report = plan.execute().await?;
/// assert!(report.restored());
/// # assert_eq!(rows.get("notes", 1), Some("hello".into()));
/// # Ok::<(), backup_core::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stores {
    pub(crate) hooks: Hooks,
    pub(crate) application: Application,
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) pauser: Pauser,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) facts: Facts,
    pub(crate) versions: VersionPolicy,
    pub(crate) migrations: Migrations,
    pub(crate) references: Vec<Reference>,
}

/// One registered store.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) sink: Option<Arc<dyn Sink>>,
    pub(crate) optional: bool,
}

/// What the host adds to the manifest.
#[derive(Clone, Default)]
pub(crate) struct Facts {
    pub(crate) data_schema_version: Option<String>,
    pub(crate) config: BTreeMap<String, serde_json::Value>,
    pub(crate) statistics: BTreeMap<String, u64>,
    pub(crate) metadata: Metadata,
    pub(crate) fields: BTreeMap<(String, String), FieldMapping>,
}

impl Stores {
    /// Longest name of a store, in bytes.
    pub const MAX_NAME_BYTES: usize = 100;

    /// No stores yet. Name and version of the application stand in every archive; a restore
    /// compares them.
    #[must_use]
    pub fn new(application: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            hooks: Hooks { host: None, deadline: Duration::from_secs(60) },
            application: Application { name: application.into(), version: version.into() },
            entries: Vec::new(),
            pauser: Pauser { host: None, length: Duration::from_secs(30), watch: Watch::default() },
            clock: Arc::new(SystemClock),
            facts: Facts::default(),
            versions: VersionPolicy::new(),
            migrations: Migrations::default(),
            references: Vec::new(),
        }
    }

    fn add(
        mut self,
        name: String,
        source: Arc<dyn Source>,
        sink: Option<Arc<dyn Sink>>,
        optional: bool,
    ) -> Self {
        self.entries.push(Arc::new(Entry { name, source, sink, optional }));
        self
    }

    /// Adds a store that every backup needs. Its name in the archive must be unique, not
    /// empty and free of control characters; this is checked when a backup or restore
    /// begins.
    #[must_use]
    pub fn with(self, name: impl Into<String>, store: impl Source + Sink + 'static) -> Self {
        let store = Arc::new(store);
        self.add(name.into(), Arc::clone(&store) as _, Some(store), false)
    }

    /// Adds a store that a backup can do without: where it does not answer, the backup is
    /// partial and says so.
    #[must_use]
    pub fn optional(self, name: impl Into<String>, store: impl Source + Sink + 'static) -> Self {
        let store = Arc::new(store);
        self.add(name.into(), Arc::clone(&store) as _, Some(store), true)
    }

    /// Adds a store that is backed up and cannot be restored through this set.
    #[must_use]
    pub fn with_source(self, name: impl Into<String>, store: impl Source + 'static) -> Self {
        self.add(name.into(), Arc::new(store), None, false)
    }

    /// Lets backups and restores pause the application. A pause is a lease of 30 seconds,
    /// renewed while it is needed; see [`lease`](Self::lease).
    #[must_use]
    pub fn quiesce(mut self, application: impl Quiesce + 'static) -> Self {
        self.pauser.host = Some(Arc::new(application));
        self
    }

    /// How long one lease of a pause is.
    #[must_use]
    pub fn lease(mut self, length: Duration) -> Self {
        self.pauser.length = length;
        self
    }

    /// What the host does around a restore: stop its daemon, ask a sample question, start it
    /// again.
    #[must_use]
    pub fn hooks(mut self, hooks: impl RestoreHooks + 'static) -> Self {
        self.hooks.host = Some(Arc::new(hooks));
        self
    }

    /// How long one of the [hooks](Self::hooks) may take; 60 seconds by default.
    #[must_use]
    pub fn hook_deadline(mut self, deadline: Duration) -> Self {
        self.hooks.deadline = deadline;
        self
    }

    /// Who is told what happens.
    #[must_use]
    pub fn observe(mut self, observer: impl Observer + 'static) -> Self {
        self.pauser.watch = Watch::new(observer);
        self
    }

    /// Where times and identities come from: a [`FixedClock`](crate::FixedClock) makes runs
    /// repeatable.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Which versions a restore accepts.
    #[must_use]
    pub fn versions(mut self, policy: VersionPolicy) -> Self {
        self.versions = policy;
        self
    }

    /// What leads from the data of other versions of the application to that of this one.
    #[must_use]
    pub fn migrations(mut self, migrations: Migrations) -> Self {
        self.migrations = migrations;
        self
    }

    /// The version of the application's own data schema, for the manifest; compared at restore.
    #[must_use]
    pub fn data_schema_version(mut self, version: impl Into<String>) -> Self {
        self.facts.data_schema_version = Some(version.into());
        self
    }

    /// Keeps a piece of the host's effective configuration in the archive, as
    /// `config/<name>.json`.
    ///
    /// # Security
    /// Values under names such as `password`, `token`, `secret` or `api_key`, and user names
    /// and passwords in URLs are replaced first. A secret under an innocent name stays.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, mut value: serde_json::Value) -> Self {
        redact(&mut value);
        self.facts.config.insert(name.into(), value);
        self
    }

    /// A named figure for the manifest: documents, projects.
    #[must_use]
    pub fn statistic(mut self, name: impl Into<String>, value: u64) -> Self {
        self.facts.statistics.insert(name.into(), value);
        self
    }

    /// Anything else for the manifest. It is not searched for secrets.
    #[must_use]
    pub fn metadata(mut self, name: impl Into<String>, value: serde_json::Value) -> Self {
        self.facts.metadata.insert(name.into(), value);
        self
    }

    /// Says where in the records of a collection the well-known fields are. It wins over
    /// what the adapter says.
    #[must_use]
    pub fn fields(
        mut self,
        store: impl Into<String>,
        collection: impl Into<String>,
        mapping: FieldMapping,
    ) -> Self {
        self.facts.fields.insert((store.into(), collection.into()), mapping);
        self
    }

    /// Declares that values in the records of one collection name records of another. How many
    /// of them dangle is counted at every backup and again at every restore.
    ///
    /// The stores of both ends must be registered, and a field must be a JSON pointer; this is
    /// checked when a backup or a restore begins. A collection that is not there has no records.
    ///
    /// ```
    /// use backup_core::{Catalog, MemoryStore, Reference, Stores, manifest::ReferenceEnd};
    /// use serde_json::json;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (rows, points) = (MemoryStore::new(), MemoryStore::new());
    /// rows.insert("notes", 1, json!({"points": [7, 8]}))?;
    /// points.insert("passages", 7, json!({}))?;
    /// let stores = Stores::new("docs-memory", "1.0.0")
    ///     .with("state", rows)
    ///     .with("vectors", points)
    ///     .reference(Reference::new(
    ///         ReferenceEnd::field("state", "notes", "/points"),
    ///         ReferenceEnd::key("vectors", "passages"),
    ///     ));
    /// # futures::executor::block_on(async {
    /// let backup = stores.backup(&Catalog::open(folder.path())?).await?;
    /// let [counted] = &backup.manifest.references[..] else { panic!() };
    /// assert_eq!((counted.values, counted.dangling), (2, Some(1)));
    /// assert_eq!(counted.examples, ["8"]);
    /// # Ok::<(), backup_core::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Security
    /// A few of the values that dangle stand in the manifest, in the plan and in the report.
    #[must_use]
    pub fn reference(mut self, reference: Reference) -> Self {
        self.references.push(reference);
        self
    }

    /// The names of the stores, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    // The same set with only these stores.
    pub(crate) fn only(&self, names: &[&str]) -> Self {
        let entries = self.entries.iter().filter(|entry| names.contains(&entry.name.as_str()));
        let mut only = Self {
            hooks: self.hooks.clone(),
            application: self.application.clone(),
            entries: Vec::new(),
            pauser: self.pauser.clone(),
            clock: Arc::clone(&self.clock),
            facts: self.facts.clone(),
            versions: self.versions.clone(),
            migrations: self.migrations.clone(),
            references: self.references.clone(),
        };
        only.keep(entries.cloned().collect());
        only
    }

    // Leaves these stores, and the references between them.
    pub(crate) fn keep(&mut self, entries: Vec<Arc<Entry>>) {
        let there = |end: &ReferenceEnd| entries.iter().any(|entry| entry.name == end.store);
        self.references.retain(|one| there(&one.from) && there(&one.to));
        self.entries = entries;
    }

    // The stores of these names, or all; in the order in which they were added.
    pub(crate) fn chosen(&self, names: Option<&[String]>) -> Result<Vec<Arc<Entry>>> {
        let wrong = |what: &str, name: &str| {
            Err(Error::new(ErrorKind::InvalidInput, what.to_owned()).on(format!("{name:?}")))
        };
        for (i, name) in self.names().enumerate() {
            if name.is_empty() || name.len() > Self::MAX_NAME_BYTES {
                return wrong("a store's name is empty or too long", name);
            } else if name.chars().any(char::is_control) {
                return wrong("a store's name has a control character", name);
            } else if self.names().take(i).any(|earlier| earlier == name) {
                return wrong("two stores have the same name", name);
            }
        }
        references::check(self)?;
        let Some(names) = names else { return Ok(self.entries.clone()) };
        if let Some(name) = names.iter().find(|name| self.entry(name).is_none()) {
            return Err(self.unknown(name));
        }
        Ok(self.entries.iter().filter(|entry| names.contains(&entry.name)).cloned().collect())
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    pub(crate) fn unknown(&self, name: &str) -> Error {
        let known: Vec<_> = self.names().collect();
        Error::new(ErrorKind::NotFound, "there is no such store")
            .on(name)
            .advise(format!("use one of these: {}", known.join(", ")))
    }

    // What others own and `name` must keep away from.
    pub(crate) fn owned_by_others(&self, name: &str) -> Vec<PathBuf> {
        let others = self.entries.iter().filter(|entry| entry.name != name);
        others.flat_map(|entry| entry.source.owned_paths()).collect()
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("application", &self.application)
            .field("stores", &self.names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
