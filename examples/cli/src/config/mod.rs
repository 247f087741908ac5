//! `backup.toml`: whose data, which catalog, which stores.
//!
//! Read from the document's own tree and not through derived types, so that every fault has its
//! line, and an unknown key a suggestion. Messages never quote a value of an unknown key or a
//! line of the file: it might hold a secret.

mod conflicts;
mod fields;
mod hooks;
mod references;
mod secret;
mod server;
#[cfg(test)]
mod tests;
mod tree;
mod versions;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use backup_kit::{
    Conflict, Error, ErrorKind, Migrations, Reference, Result, VersionPolicy,
    manifest::FieldMapping,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use self::tree::{Fault, Section, fault, position};
pub(crate) use self::{
    hooks::{Hook, Hooks},
    server::Server,
};

/// The configuration; paths are resolved against the folder of the file.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The folder of the file.
    pub(crate) folder: PathBuf,
    pub(crate) app: App,
    pub(crate) catalog: Option<PathBuf>,
    pub(crate) stores: Vec<Store>,
    /// What becomes of records that are on both sides, where records are added.
    pub(crate) conflict: Option<Conflict>,
    /// Programs that are run around a restore.
    pub(crate) hooks: Hooks,
    pub(crate) versions: VersionPolicy,
    pub(crate) migrations: Migrations,
    pub(crate) references: Vec<Reference>,
}

/// Whose data it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) data_schema: Option<String>,
}

/// One `[[store]]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Store {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Unreachable is a warning and a partial archive.
    pub(crate) optional: bool,
    /// Taken without being named by `--include`.
    pub(crate) default: bool,
    /// By collection, where its records have what a selection asks for.
    pub(crate) fields: BTreeMap<String, FieldMapping>,
    /// By collection, what becomes of records that are on both sides.
    pub(crate) conflicts: BTreeMap<String, Conflict>,
}

/// What a store is, and where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Sqlite { path: PathBuf, form: Form },
    Files { path: PathBuf, exclude: Vec<String> },
    Qdrant(Server),
    Redis(Server),
    Neo4j(Server),
}

/// What a backup holds of a database or server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Native,
    Logical,
}

const FORMS: &[&str] = &["native", "logical"];
const KINDS: &[&str] = &["files", "sqlite", "qdrant", "redis", "neo4j"];

impl Config {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let missing = e.kind() == std::io::ErrorKind::NotFound;
            let error = Error::io("the configuration cannot be read", e).on(path.display());
            if missing {
                error.advise("name it with -c, or write one: see backup-kit --help")
            } else {
                error
            }
        })?;
        // A file in the current folder has the empty path as its parent: that joins well.
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(|fault| {
            let (line, column) = position(&text, fault.at);
            let error = Error::new(ErrorKind::InvalidInput, fault.what)
                .on(format!("{}:{line}:{column}", path.display()));
            match fault.hint {
                Some(hint) => error.advise(hint),
                None => error.advise("correct the configuration"),
            }
        })
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, Fault> {
        let document = DeTable::parse(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            Fault { what: format!("not TOML: {}", e.message()), at, hint: None }
        })?;
        let document = Section::new("the configuration", &document, document.get_ref())
            .knows(&["app", "catalog", "store", "restore", "versions", "migration", "reference"])?;

        let app = document.required("app")?;
        let app = Section::table("[app]", app)?.knows(&["name", "version", "data_schema"])?;
        let data_schema = app.get("data_schema").map(|_| app.text("data_schema")).transpose()?;
        let catalog = match document.get("catalog") {
            Some(catalog) => {
                let catalog = Section::table("[catalog]", catalog)?.knows(&["path"])?;
                Some(folder.join(catalog.text("path")?))
            }
            None => None,
        };
        let stores = document.required("store")?;
        let Some(list) = stores.get_ref().as_array() else {
            return Err(fault(stores, "`store` has to be a list").hint("write [[store]]"));
        };
        let restore = match document.get("restore") {
            Some(restore) => Some(
                Section::table("[restore]", restore)?
                    .knows(&["conflict", "stop", "check", "start"])?,
            ),
            None => None,
        };
        let hooks = restore.as_ref().map(|section| Hooks::parse(section, folder)).transpose()?;
        let mut config = Self {
            folder: here(folder),
            app: App { name: app.text("name")?, version: app.text("version")?, data_schema },
            catalog,
            stores: Vec::new(),
            conflict: restore.as_ref().map(conflicts::usual).transpose()?.flatten(),
            hooks: hooks.unwrap_or_default(),
            versions: versions::policy(&document)?,
            migrations: versions::migrations(&document)?,
            references: Vec::new(),
        };
        for entry in list.iter() {
            let store = Store::parse(entry, folder)?;
            if config.stores.iter().any(|earlier| earlier.name == store.name) {
                return Err(fault(entry, format!("two stores have the name `{}`", store.name)));
            }
            config.stores.push(store);
        }
        if config.stores.is_empty() {
            return Err(fault(stores, "there is no [[store]]"));
        }
        config.references = references::parse(&document, &config.stores)?;
        Ok(config)
    }
}

impl Store {
    fn parse(entry: &Spanned<DeValue<'_>>, folder: &Path) -> Result<Self, Fault> {
        let section = Section::table("[[store]]", entry)?;
        let named = section.required("kind")?;
        let kind = section.text("kind")?;
        let common = ["name", "kind", "optional", "default", "fields", "conflicts"];
        let own: &[&str] = match kind.as_str() {
            "sqlite" => &["path", "mode"],
            "files" => &["path", "exclude"],
            "qdrant" => &[
                "url",
                "rest_url",
                "peers",
                "root_certificate",
                "api_key",
                "mode",
                "collections",
                "without",
                "model",
            ],
            "redis" => &[
                "url",
                "root_certificate",
                "user",
                "password",
                "keys",
                "functions",
                "users",
                "settings",
            ],
            "neo4j" => &["url", "user", "password", "database", "key"],
            other => {
                let unknown = fault(named, format!("unknown kind of store `{other}`"));
                return Err(unknown.suggest(other, KINDS));
            }
        };
        let section = section.knows(&[&common, own].concat())?;
        let path = || section.text("path").map(|path| folder.join(path));
        let server = || Server::parse(&section, folder);
        Ok(Self {
            name: section.text("name")?,
            kind: match kind.as_str() {
                "qdrant" => Kind::Qdrant(server()?),
                "redis" => Kind::Redis(server()?),
                "neo4j" => Kind::Neo4j(server()?),
                "sqlite" => Kind::Sqlite { path: path()?, form: Form::or(&section, Form::Native)? },
                _ => Kind::Files { path: path()?, exclude: section.texts("exclude")? },
            },
            optional: section.flag("optional")?.unwrap_or(false),
            default: section.flag("default")?.unwrap_or(true),
            fields: fields::parse(&section)?,
            conflicts: conflicts::of(&section)?,
        })
    }
}

impl Form {
    fn or(section: &Section<'_, '_>, usual: Self) -> Result<Self, Fault> {
        let Some(value) = section.get("mode") else { return Ok(usual) };
        match section.text("mode")?.as_str() {
            "native" => Ok(Self::Native),
            "logical" => Ok(Self::Logical),
            other => Err(fault(value, format!("unknown mode `{other}`")).suggest(other, FORMS)),
        }
    }
}

// A file in the current folder has the empty path as its parent.
fn here(folder: &Path) -> PathBuf {
    if folder == Path::new("") { ".".into() } else { folder.to_owned() }
}
