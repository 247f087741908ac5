//! Opening a database, always in the same careful way.

use std::path::{Path, PathBuf};

use backup_core::{Cancel, Error, ErrorKind, Metadata, Result};
use rusqlite::{Connection, OpenFlags, config::DbConfig, types::FromSql};

use crate::{config::Config, error::sql};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads a database that is there.
    Read,
    /// Writes a database that is there.
    Write,
    /// Writes a database, and makes it if need be.
    Create,
}

impl Config {
    pub(crate) fn connect(&self, path: &Path, access: Access) -> Result<Connection> {
        // A reader too opens for writing, as it may have to roll back what a crash left;
        // SQLite falls back to reading alone where the file is read-only.
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if access == Access::Create {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        } else if !path.exists() {
            return Err(Error::new(ErrorKind::NotFound, "there is no database")
                .on(path.display())
                .advise("check the path"));
        }
        // A log that is there before us is not ours to write back, which the last connection
        // to close would do.
        let keep_log = access == Access::Read && beside(path, "-wal").exists();
        let opened = match &self.opener {
            Some(open) => open(path, flags),
            None => Connection::open_with_flags(path, flags),
        };
        opened
            .and_then(|connection| {
                self.harden(&connection, access)?;
                if keep_log {
                    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                }
                Ok(connection)
            })
            .map_err(|e| sql("could not open the database")(e).on(path.display()))
    }

    // A database is not trusted, wherever it comes from: what its schema says runs without
    // side effects, and SQLite's own tables cannot be written by hand.
    fn harden(&self, connection: &Connection, access: Access) -> rusqlite::Result<()> {
        connection.busy_timeout(self.busy_timeout)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON")?;
        if access == Access::Read {
            connection.execute_batch("PRAGMA query_only=ON")?;
        }
        Ok(())
    }
}

/// What SQLite adds to the name of a database for the files beside it.
pub(crate) const SIDES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A file beside a database, as SQLite names it.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

/// Begins a read transaction: all that the connection reads is of this moment.
pub(crate) fn pin(connection: &Connection) -> Result<()> {
    connection
        .execute_batch("BEGIN; SELECT 1 FROM sqlite_master LIMIT 1;")
        .map_err(sql("could not begin to read the database"))
}

/// The value of a pragma.
pub(crate) fn pragma<T: FromSql>(connection: &Connection, name: &str) -> Result<T> {
    connection
        .pragma_query_value(None, name, |row| row.get(0))
        .map_err(|e| sql("could not read a setting of the database")(e).on(name))
}

/// Whether the database is in WAL mode.
pub(crate) fn is_wal(connection: &Connection) -> Result<bool> {
    Ok(pragma::<String>(connection, "journal_mode")? == "wal")
}

/// Sets how changes are journalled.
pub(crate) fn set_journal_mode(connection: &Connection, mode: &str) -> Result<()> {
    let set = || -> rusqlite::Result<bool> {
        let mut statement = connection.prepare(&format!("PRAGMA journal_mode={mode}"))?;
        let mut rows = statement.query([])?;
        let is = rows.next()?.map(|row| row.get::<_, String>(0)).transpose()?;
        // The change is written after the row: only the end says whether that went well.
        while rows.next()?.is_some() {}
        Ok(is.as_deref() == Some(mode))
    };
    let failed = "could not change the journal mode of a database";
    match set().map_err(sql(failed))? {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Busy, failed).on(mode)),
    }
}

/// What a manifest says of a database as a whole.
pub(crate) fn facts(connection: &Connection) -> Result<Metadata> {
    let mut facts = Metadata::new();
    for name in ["page_size", "page_count", "user_version", "application_id"] {
        facts.insert(name.to_owned(), pragma::<i64>(connection, name)?.into());
    }
    for name in ["encoding", "journal_mode"] {
        facts.insert(name.to_owned(), pragma::<String>(connection, name)?.into());
    }
    Ok(facts)
}

/// Runs `work` until it ends, is cancelled, or takes longer than `limit`.
pub(crate) fn limited<T>(
    connection: &mut Connection,
    limit: std::time::Duration,
    cancel: &Cancel,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    // Some thousand steps of SQLite's machine take well under a millisecond.
    const STEPS: i32 = 4_000;
    let end = std::time::Instant::now() + limit;
    let flag = cancel.clone();
    let watch = move || flag.is_cancelled() || std::time::Instant::now() >= end;
    let _ = connection.progress_handler(STEPS, Some(watch));
    let done = work(connection);
    let _ = connection.progress_handler(0, None::<fn() -> bool>);
    cancel.check()?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    // FAULTS 51.
    #[test]
    fn no_database_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::SqliteStore::open(dir.path().join("state.db")).unwrap().config;
        for access in [Access::Create, Access::Write, Access::Read] {
            let connection = config.connect(&config.path, access).unwrap();
            assert_eq!(pragma::<i64>(&connection, "trusted_schema").unwrap(), 0);
            assert_eq!(pragma::<i64>(&connection, "cell_size_check").unwrap(), 1);
            assert!(connection.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE).unwrap());
            let writes = connection.execute_batch("PRAGMA user_version=1").is_ok();
            assert_eq!(writes, access != Access::Read);
        }
    }
}
