//! The schema document of a collection, as it stands in an archive.

use backup_core::{Error, ErrorKind, Result, manifest::CollectionInfo};
use serde::{Deserialize, Serialize};

/// The version of the document that this module reads and writes.
pub(crate) const VERSION: u32 = 1;

/// The collection that stands for the database itself: views, and no records. No table can
/// have its name.
pub(crate) const DATABASE: &str = "sqlite_schema";

/// What recreates one table, or the database around the tables.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Document {
    /// Version of this document.
    pub(crate) sqlite: u32,
    /// Repeated in every document, so that each is enough by itself.
    pub(crate) database: Database,
    pub(crate) content: Fill,
    /// The statement that made the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sql: Option<String>,
    /// What the records' keys are.
    #[serde(default)]
    pub(crate) key: KeyForm,
    /// The AUTOINCREMENT counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) autoincrement: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) indexes: Vec<Object>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) triggers: Vec<Object>,
    /// The tables in which a virtual table keeps its data; they are not carried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) shadows: Vec<String>,
    /// Settings of a full-text index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) settings: Vec<(String, serde_json::Value)>,
    /// Views with the triggers on them; only of the database itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) views: Vec<Object>,
}

/// Settings of the whole database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Database {
    pub(crate) application_id: i64,
    pub(crate) auto_vacuum: i64,
    pub(crate) encoding: String,
    pub(crate) journal_mode: String,
    pub(crate) page_size: i64,
    pub(crate) user_version: i64,
}

/// Where the content of a table comes from at restore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fill {
    /// From its records.
    #[default]
    Records,
    /// From another table, by the command `rebuild`.
    Rebuild,
    /// There is none: the database itself, or a table that only shows another one.
    Nothing,
    /// There was some that cannot be carried: the table is made empty.
    Lost,
}

/// What the key of a record is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyForm {
    /// The values of these columns.
    Columns(Vec<String>),
    /// The hidden row id, which is restored; this is a name that reaches it.
    Rowid(String),
    /// The number of the row in the table, from 1: all names of the row id are taken.
    #[default]
    Order,
}

/// A named object and the statement that made it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) sql: String,
    /// Of a view: the triggers on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) triggers: Vec<Object>,
}

impl Document {
    /// What the manifest says of the table: where its rows repeat their key.
    pub(crate) fn info(&self) -> CollectionInfo {
        let mut info = CollectionInfo::default();
        if let KeyForm::Columns(columns) = &self.key {
            // RFC 6901.
            let escaped =
                |name: &String| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            info.key = columns.iter().map(escaped).collect();
        }
        info
    }
}

impl Database {
    /// Those of a database that nobody set.
    pub(crate) fn fresh() -> Self {
        Self { encoding: "UTF-8".into(), page_size: 4096, ..Self::default() }
    }
}

impl Document {
    pub(crate) fn read(collection: &str, json: &serde_json::Value) -> Result<Self> {
        let version = json.get("sqlite").and_then(serde_json::Value::as_u64);
        match version {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                let what = format!("a table's schema has version {version}, not {VERSION}");
                return Err(Error::new(ErrorKind::UnknownVersion, what).on(collection));
            }
            None => return Err(unreadable().on(collection)),
        }
        serde_json::from_value(json.clone()).map_err(|e| unreadable().on(collection).because(e))
    }

    pub(crate) fn write(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self)
            .map_err(|e| Error::adapter("a table's schema cannot be written").because(e))
    }
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, "a table's schema is not one of a SQLite table")
}
