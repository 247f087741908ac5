//! The tables of a database as the logical form sees them.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Notice, NoticeKind, Result};
use rusqlite::Connection;

use super::{
    document::{Database, Document, Fill, KeyForm, Object, VERSION},
    forms::Affinity,
    module,
};
use crate::{
    catalog::{self, TableKind, TableName, quote},
    connect::pragma,
    error::sql,
};

/// One table that is carried.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) is_virtual: bool,
    /// A name of the row id, where the rows have one beside their key.
    pub(crate) hidden_rowid: Option<&'static str>,
    /// The columns that are stored, in the order of the table.
    pub(crate) columns: Vec<String>,
    pub(crate) document: Document,
}

/// All that is carried of a database, and what is not.
pub(crate) struct Catalog {
    pub(crate) database: Document,
    pub(crate) tables: Vec<Table>,
    pub(crate) notices: Vec<Notice>,
}

impl Table {
    /// The table that was made in `connection` from a document.
    pub(crate) fn made(connection: &Connection, name: &str, document: &Document) -> Result<Self> {
        let without_rowid = connection
            .prepare("SELECT 1 FROM pragma_table_list WHERE schema = 'main' AND name = ?1 AND wr")
            .and_then(|mut statement| statement.exists([name]))
            .map_err(|e| sql("could not read the schema of the database")(e).on(name))?;
        let is_virtual = document.sql.as_ref().is_some_and(|sql| sql.starts_with("CREATE VIRTUAL"));
        let all = all_columns(connection, name)?;
        Self::new(connection, name, (is_virtual, without_rowid), all, document.clone())
    }

    fn new(
        connection: &Connection,
        name: &str,
        (is_virtual, without_rowid): (bool, bool),
        all: Vec<Column>,
        document: Document,
    ) -> Result<Self> {
        let keyed = matches!(document.key, KeyForm::Columns(_)) && !is_virtual && !without_rowid;
        let hidden_rowid = match free_rowid(&all).filter(|_| keyed) {
            Some(rowid) if !is_rowid(connection, name, &primary(&all))? => Some(rowid),
            _ => None,
        };
        let columns = all.into_iter().filter(|c| c.hidden == 0).map(|c| c.name).collect();
        Ok(Self { name: name.to_owned(), is_virtual, hidden_rowid, columns, document })
    }
}

struct Column {
    name: String,
    declared: String,
    primary: i64,
    // 0: ordinary, 1: hidden in a virtual table, 2 and 3: generated.
    hidden: i64,
}

/// The columns that are stored and what they make of values.
pub(crate) fn affinities(
    connection: &Connection,
    table: &str,
) -> Result<BTreeMap<String, Affinity>> {
    let stored = all_columns(connection, table)?.into_iter().filter(|column| column.hidden == 0);
    Ok(stored.map(|column| (column.name, Affinity::of(&column.declared))).collect())
}

fn all_columns(connection: &Connection, table: &str) -> Result<Vec<Column>> {
    let read = || -> rusqlite::Result<Vec<Column>> {
        connection
            .prepare("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?1)")?
            .query_map([table], |row| {
                Ok(Column {
                    name: row.get(0)?,
                    declared: row.get(1)?,
                    primary: row.get(2)?,
                    hidden: row.get(3)?,
                })
            })?
            .collect()
    };
    read().map_err(|e| sql("could not read the columns of a table")(e).on(table))
}

/// Reads the schema.
pub(crate) fn read(connection: &Connection) -> Result<Catalog> {
    let database = Database {
        application_id: pragma(connection, "application_id")?,
        auto_vacuum: pragma(connection, "auto_vacuum")?,
        encoding: pragma(connection, "encoding")?,
        journal_mode: pragma(connection, "journal_mode")?,
        page_size: pragma(connection, "page_size")?,
        user_version: pragma(connection, "user_version")?,
    };
    let indexes = objects(connection, "index")?;
    let mut triggers = objects(connection, "trigger")?;
    let views = objects(connection, "view")?;
    let counters = counters(connection)?;
    let names = catalog::tables(connection)?;
    let modules: BTreeMap<&str, (String, Vec<String>)> = names
        .iter()
        .filter(|table| table.kind == TableKind::Virtual)
        .map(|table| (table.name.as_str(), module::parse(&table.sql).unwrap_or_default()))
        .collect();
    // Full-text indexes find the rows of these by row id.
    let indexed: BTreeSet<String> = modules
        .values()
        .filter_map(|(_, arguments)| module::content_table(arguments))
        .map(|name| name.to_lowercase())
        .collect();

    let mut tables = Vec::new();
    let mut notices = Vec::new();
    let empty = || Document { sqlite: VERSION, database: database.clone(), ..Document::default() };
    for table in names.iter().filter(|table| table.kind != TableKind::Shadow) {
        let mut document = empty();
        document.sql = Some(table.sql.clone());
        document.indexes = indexes.get(&table.name).cloned().unwrap_or_default();
        document.triggers = triggers.remove(&table.name).unwrap_or_default();
        document.autoincrement = counters.get(&table.name).copied();
        let is_virtual = table.kind == TableKind::Virtual;
        if is_virtual {
            let (module, arguments) = &modules[table.name.as_str()];
            let Some(fill) = module::fill(module, arguments) else {
                notices.push(unsupported(
                    &table.name,
                    format!(
                        "a virtual table of the module {module} cannot be rebuilt from records; \
                     the native form carries it"
                    ),
                ));
                continue;
            };
            if fill == Fill::Lost {
                notices.push(unsupported(
                    &table.name,
                    "a full-text index without content cannot be rebuilt; it will be empty, and \
                     the native form carries it"
                        .to_owned(),
                ));
            }
            document.content = fill;
            document.shadows = shadows(&names, &table.name);
            document.settings = settings(connection, module, &document.shadows, &table.name)?;
        }
        let all = all_columns(connection, &table.name)?;
        document.key = key(connection, table, &all, &modules, &indexed)?;
        let form = (is_virtual, table.without_rowid);
        tables.push(Table::new(connection, &table.name, form, all, document)?);
    }
    let mut whole = empty();
    whole.content = Fill::Nothing;
    whole.views = views
        .into_values()
        .flatten()
        .map(|mut view| {
            view.triggers = triggers.remove(&view.name).unwrap_or_default();
            view
        })
        .collect();
    if statistics(connection)? {
        notices.push(Notice {
            kind: NoticeKind::Remark,
            collection: String::new(),
            subject: "sqlite_stat1".into(),
            detail: "statistics of the query planner are not carried; ANALYZE makes them anew"
                .into(),
        });
    }
    Ok(Catalog { database: whole, tables, notices })
}

fn unsupported(table: &str, detail: String) -> Notice {
    Notice {
        kind: NoticeKind::Unsupported,
        collection: table.to_owned(),
        subject: table.to_owned(),
        detail,
    }
}

// Objects of one type with the statements that made them, by table.
fn objects(connection: &Connection, kind: &str) -> Result<BTreeMap<String, Vec<Object>>> {
    let read = || -> rusqlite::Result<BTreeMap<String, Vec<Object>>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        let mut statement = connection.prepare(
            "SELECT tbl_name, name, sql FROM sqlite_master \
             WHERE type = ?1 AND sql IS NOT NULL ORDER BY rowid",
        )?;
        let mut rows = statement.query([kind])?;
        while let Some(row) = rows.next()? {
            let object = Object { name: row.get(1)?, sql: row.get(2)?, triggers: Vec::new() };
            found.entry(row.get(0)?).or_default().push(object);
        }
        Ok(found)
    };
    read().map_err(sql("could not read the schema of the database"))
}

fn statistics(connection: &Connection) -> Result<bool> {
    connection
        .prepare("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'")
        .and_then(|mut statement| statement.exists([]))
        .map_err(sql("could not read the schema of the database"))
}

/// The AUTOINCREMENT counters by table.
pub(crate) fn counters(connection: &Connection) -> Result<BTreeMap<String, i64>> {
    if !catalog::has_sequence(connection)? {
        return Ok(BTreeMap::new());
    }
    // The application can write anything into this table; only numbers mean something.
    let read = || -> rusqlite::Result<BTreeMap<String, i64>> {
        connection
            .prepare("SELECT name, seq FROM sqlite_sequence WHERE typeof(seq) = 'integer' AND typeof(name) = 'text'")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    };
    read().map_err(sql("could not read the AUTOINCREMENT counters"))
}

// Shadow tables of a virtual table: their names begin with its name, and no longer name of a
// virtual table fits better.
fn shadows(tables: &[TableName], owner: &str) -> Vec<String> {
    let belongs = |shadow: &str, owner: &str| {
        shadow.strip_prefix(owner).is_some_and(|rest| rest.starts_with('_'))
    };
    let virtuals = || tables.iter().filter(|table| table.kind == TableKind::Virtual);
    tables
        .iter()
        .filter(|table| table.kind == TableKind::Shadow && belongs(&table.name, owner))
        .filter(|shadow| {
            !virtuals().any(|v| v.name.len() > owner.len() && belongs(&shadow.name, &v.name))
        })
        .map(|table| table.name.clone())
        .collect()
}

// What was set on a full-text index after it was made; SQLite's own version number is not
// ours to set.
fn settings(
    connection: &Connection,
    module: &str,
    shadows: &[String],
    table: &str,
) -> Result<Vec<(String, serde_json::Value)>> {
    let config = format!("{table}_config");
    if module != "fts5" || !shadows.contains(&config) {
        return Ok(Vec::new());
    }
    let read = || -> rusqlite::Result<Vec<(String, serde_json::Value)>> {
        connection
            .prepare(&format!("SELECT k, v FROM {} WHERE k <> 'version'", quote(&config)))?
            .query_map([], |row| {
                let value = match row.get_ref(1)? {
                    rusqlite::types::ValueRef::Integer(i) => i.into(),
                    other => String::from_utf8_lossy(other.as_bytes().unwrap_or_default()).into(),
                };
                Ok((row.get(0)?, value))
            })?
            .collect()
    };
    read().map_err(|e| sql("could not read the settings of a full-text index")(e).on(table))
}

fn key(
    connection: &Connection,
    table: &TableName,
    columns: &[Column],
    modules: &BTreeMap<&str, (String, Vec<String>)>,
    indexed: &BTreeSet<String>,
) -> Result<KeyForm> {
    let primary = primary(columns);
    let primary_names = || KeyForm::Columns(primary.iter().map(|c| c.name.clone()).collect());
    if table.without_rowid {
        return Ok(primary_names());
    }
    if let Some((module, _)) = modules.get(table.name.as_str()) {
        // The first column of an R-tree is its row id.
        return Ok(match columns.first() {
            Some(first) if module.starts_with("rtree") => {
                KeyForm::Columns(vec![first.name.clone()])
            }
            _ => rowid(columns),
        });
    }
    let by_rowid = indexed.contains(&table.name.to_lowercase());
    // Beside any other primary key the row id need be kept only where something refers to it.
    Ok(if is_rowid(connection, &table.name, &primary)? || (!primary.is_empty() && !by_rowid) {
        primary_names()
    } else {
        rowid(columns)
    })
}

// The columns of the primary key, in its order.
fn primary(columns: &[Column]) -> Vec<&Column> {
    let mut primary: Vec<_> = columns.iter().filter(|column| column.primary > 0).collect();
    primary.sort_by_key(|column| column.primary);
    primary
}

// An INTEGER PRIMARY KEY is the row id itself; any other primary key is an index beside it.
fn is_rowid(connection: &Connection, table: &str, primary: &[&Column]) -> Result<bool> {
    let [only] = primary else { return Ok(false) };
    Ok(only.declared.eq_ignore_ascii_case("INTEGER") && !has_primary_index(connection, table)?)
}

fn has_primary_index(connection: &Connection, table: &str) -> Result<bool> {
    connection
        .prepare("SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk'")
        .and_then(|mut statement| statement.exists([table]))
        .map_err(|e| sql("could not read the indexes of a table")(e).on(table))
}

// A name of the row id that no column has taken.
fn free_rowid(columns: &[Column]) -> Option<&'static str> {
    let taken = |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name))
}

fn rowid(columns: &[Column]) -> KeyForm {
    free_rowid(columns).map_or(KeyForm::Order, |name| KeyForm::Rowid(name.to_owned()))
}
