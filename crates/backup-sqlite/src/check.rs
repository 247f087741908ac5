//! What a database has to pass before it becomes live.

use backup_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension, types::ToSqlOutput};

use crate::error::sql;

/// Its pages and its indexes. No CHECK: what was stored may break one that came later.
pub(crate) fn integrity(staged: &Connection) -> Result<()> {
    let read = || -> rusqlite::Result<Vec<String>> {
        staged.execute_batch("PRAGMA ignore_check_constraints=ON")?;
        staged.prepare("PRAGMA integrity_check(5)")?.query_map([], |row| row.get(0))?.collect()
    };
    let faults = read().map_err(sql("could not check the staged database"))?;
    if faults == ["ok"] {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, "the staged database is damaged")
        .on(faults.join("; "))
        .advise("restore another backup; the live database was not touched"))
}

/// No foreign key points nowhere.
pub(crate) fn foreign_keys(staged: &Connection) -> Result<()> {
    let read = || -> rusqlite::Result<Option<String>> {
        let mut statement = staged.prepare("PRAGMA foreign_key_check")?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        Ok(Some(fault(&table, &parent)))
    };
    nowhere(read().map_err(sql(KEYS))?)
}

/// No foreign key points nowhere that did not do so in `before`.
pub(crate) fn new_foreign_keys(merged: &Connection, before: Option<&Connection>) -> Result<()> {
    let Some(before) = before else { return foreign_keys(merged) };
    if foreign_keys(merged).is_ok() {
        return Ok(());
    }
    let read = || -> rusqlite::Result<Option<String>> {
        merged.execute_batch(
            "CREATE TEMP TABLE known (child TEXT, place INTEGER, parent TEXT, fk INTEGER, n INTEGER)",
        )?;
        let mut insert = merged.prepare("INSERT INTO temp.known VALUES (?1, ?2, ?3, ?4, ?5)")?;
        // Rows of a table without row ids are counted together.
        let faults = "SELECT \"table\", rowid, parent, fkid, count(*) AS n \
                      FROM pragma_foreign_key_check GROUP BY 1, 2, 3, 4";
        let mut statement = before.prepare(faults)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..5 {
                insert
                    .raw_bind_parameter(column + 1, ToSqlOutput::Borrowed(row.get_ref(column)?))?;
            }
            insert.raw_execute()?;
        }
        let new = format!(
            "SELECT now.\"table\", now.parent FROM ({faults}) AS now \
             LEFT JOIN temp.known AS was ON was.child = now.\"table\" AND was.place IS now.rowid \
             AND was.parent = now.parent AND was.fk = now.fkid WHERE now.n > ifnull(was.n, 0) LIMIT 1"
        );
        merged
            .query_row(&new, [], |row| {
                Ok(fault(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?))
            })
            .optional()
    };
    nowhere(read().map_err(sql(KEYS))?)
}

const KEYS: &str = "could not check the foreign keys of the staged database";

fn fault(table: &str, parent: &str) -> String {
    format!("{table} refers to rows of {parent} that are not there")
}

fn nowhere(fault: Option<String>) -> Result<()> {
    match fault {
        None => Ok(()),
        Some(fault) => Err(Error::new(ErrorKind::Mismatch, "a foreign key points nowhere")
            .on(fault)
            .advise("if the application allows that, accept dangling references in the options")),
    }
}
