//! What a database holds: its tables, and what kind each is.

use std::collections::HashMap;

use backup_core::{Error, ErrorKind, Result, record::Sha256Digest};
use rusqlite::{Connection, types::ValueRef};
use sha2::{Digest, Sha256};

use crate::error::sql;

/// A name as SQL wants it: in double quotes, those within it doubled.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableKind {
    Ordinary,
    /// Answers through a module: FTS5, R-tree.
    Virtual,
    /// Belongs to a virtual table.
    Shadow,
}

/// A table, in the order of creation.
#[derive(Debug, Clone)]
pub(crate) struct TableName {
    pub(crate) name: String,
    pub(crate) kind: TableKind,
    pub(crate) without_rowid: bool,
    pub(crate) sql: String,
}

/// The tables of a database, SQLite's own left out.
pub(crate) fn tables(connection: &Connection) -> Result<Vec<TableName>> {
    if rusqlite::version_number() < 3_037_000 {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("SQLite {} cannot list its tables", rusqlite::version()),
        )
        .advise("link SQLite 3.37 or later, or build it in with the feature `bundled`"));
    }
    let read = || -> rusqlite::Result<Vec<TableName>> {
        let kinds: HashMap<String, (TableKind, bool)> = connection
            .prepare("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'")?
            .query_map([], |row| {
                let kind = match row.get_ref(1)?.as_str()? {
                    "virtual" => TableKind::Virtual,
                    "shadow" => TableKind::Shadow,
                    _ => TableKind::Ordinary,
                };
                Ok((row.get(0)?, (kind, row.get(2)?)))
            })?
            .collect::<rusqlite::Result<_>>()?;
        connection
            .prepare(
                "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL \
                 AND substr(lower(name), 1, 7) <> 'sqlite_' ORDER BY rowid",
            )?
            .query_map([], |row| {
                let name: String = row.get(0)?;
                let (kind, without_rowid) =
                    kinds.get(&name).copied().unwrap_or((TableKind::Ordinary, false));
                Ok(TableName { name, kind, without_rowid, sql: row.get(1)? })
            })?
            .collect()
    };
    read().map_err(sql("could not read the schema of the database"))
}

/// Whether there is a table of AUTOINCREMENT counters.
pub(crate) fn has_sequence(connection: &Connection) -> Result<bool> {
    connection
        .prepare("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'")
        .and_then(|mut statement| statement.exists([]))
        .map_err(sql("could not read the schema of the database"))
}

/// Names and numbers of rows of the tables that the application made; no number where
/// counting is not possible.
pub(crate) fn counts(connection: &Connection) -> Result<Vec<(String, Option<u64>)>> {
    let ours = tables(connection)?.into_iter().filter(|table| table.kind != TableKind::Shadow);
    Ok(ours
        .map(|table| {
            let query = format!("SELECT count(*) FROM {}", quote(&table.name));
            // A virtual table may need a module that is not there.
            let count = connection.query_row(&query, [], |row| row.get::<_, i64>(0)).ok();
            (table.name, count.and_then(|count| u64::try_from(count).ok()))
        })
        .collect())
}

/// Digest of a schema and of all rows, as they stand in the tables.
pub(crate) type RowsDigest = Sha256Digest;

/// Takes the digest of a schema and of all rows with their row ids, shadow tables included:
/// for copies whose bytes may differ (another page size, encryption).
pub(crate) fn rows_digest(connection: &Connection) -> Result<RowsDigest> {
    let mut hasher = Sha256::new();
    let mut queries =
        vec!["SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name".to_owned()];
    queries.extend(["user_version", "application_id", "encoding"].map(|p| format!("PRAGMA {p}")));
    for table in tables(connection)? {
        let rowid = if table.without_rowid { "" } else { "rowid, " };
        if table.kind != TableKind::Virtual {
            // In the order of the table itself, which is the same in every copy.
            queries.push(format!("SELECT {rowid}* FROM {} NOT INDEXED", quote(&table.name)));
        }
    }
    if has_sequence(connection)? {
        queries.push("SELECT name, seq FROM sqlite_sequence ORDER BY name".to_owned());
    }
    let mut add = |query: &str| -> rusqlite::Result<()> {
        let mut statement = connection.prepare(query)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        frame(&mut hasher, b'q', query.as_bytes());
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                match row.get_ref(column)? {
                    ValueRef::Null => frame(&mut hasher, b'n', &[]),
                    ValueRef::Integer(i) => frame(&mut hasher, b'i', &i.to_le_bytes()),
                    ValueRef::Real(f) => frame(&mut hasher, b'f', &f.to_bits().to_le_bytes()),
                    ValueRef::Text(t) => frame(&mut hasher, b't', t),
                    ValueRef::Blob(b) => frame(&mut hasher, b'b', b),
                }
            }
        }
        Ok(())
    };
    for query in queries {
        add(&query).map_err(|e| sql("could not read the rows of the database")(e).on(&query))?;
    }
    Ok(Sha256Digest::finish(hasher))
}

fn frame(hasher: &mut Sha256, class: u8, bytes: &[u8]) {
    hasher.update([class]);
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
