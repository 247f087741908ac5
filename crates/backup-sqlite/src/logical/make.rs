//! Making what schema documents say.

use std::time::Duration;

use backup_core::{Cancel, Error, ErrorKind, Result};
use rusqlite::Connection;

use super::{
    document::{Database, Document, Fill, Object},
    module, value,
};
use crate::{
    catalog::{self, quote},
    config::Config,
    connect,
    error::sql,
};

/// Makes objects in a database of our own.
///
/// The documents come out of an archive and are not trusted: each statement may make the one
/// object that it says, and nothing else.
pub(crate) struct Maker {
    pub(crate) database: Connection,
    limit: Duration,
    cancel: Cancel,
}

fn run(database: &Connection, text: &str) -> Result<()> {
    database.execute_batch(text).map_err(sql("could not stage the database"))
}

/// Gives a new database the settings that must stand before the first table.
pub(crate) fn settle(database: &Connection, settings: &Database) -> Result<()> {
    if !matches!(settings.encoding.as_str(), "UTF-8" | "UTF-16le" | "UTF-16be") {
        return Err(Error::new(ErrorKind::Corrupt, "a schema names an unknown text encoding")
            .on(&settings.encoding));
    }
    let text = format!(
        "PRAGMA page_size={}; PRAGMA auto_vacuum={}; PRAGMA encoding='{}'; \
         PRAGMA user_version={}; PRAGMA application_id={};",
        settings.page_size,
        settings.auto_vacuum,
        settings.encoding,
        settings.user_version,
        settings.application_id,
    );
    run(database, &text)
}

impl Maker {
    pub(crate) fn new(config: &Config, database: Connection, cancel: &Cancel) -> Self {
        let _ = database.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_ATTACHED, 0);
        Self { database, limit: config.check_limit, cancel: cancel.clone() }
    }

    pub(crate) fn run(&self, text: &str) -> Result<()> {
        run(&self.database, text)
    }

    /// Makes a table that is to be filled with records.
    pub(crate) fn table(&mut self, name: &str, document: &Document) -> Result<()> {
        // An index over another table may want that table first.
        if let (Some(statement), Fill::Records | Fill::Lost) = (&document.sql, document.content) {
            self.make("table", name, statement)?;
            self.settings(name, document)?;
        }
        Ok(())
    }

    /// Makes what stands on filled tables.
    pub(crate) fn complete(&mut self, made: &[(&str, &Document)], views: &[Object]) -> Result<()> {
        for (_, document) in made {
            for index in &document.indexes {
                self.make("index", &index.name, &index.sql)?;
            }
        }
        for view in views {
            self.make("view", &view.name, &view.sql)?;
            for trigger in &view.triggers {
                self.make("trigger", &trigger.name, &trigger.sql)?;
            }
        }
        for (name, document) in made {
            let Some(statement) = &document.sql else { continue };
            match document.content {
                Fill::Rebuild => {
                    self.make("table", name, statement)?;
                    self.settings(name, document)?;
                    self.rebuild(name)?;
                }
                Fill::Nothing => self.make("table", name, statement)?,
                Fill::Records | Fill::Lost => {}
            }
        }
        // Last, so that nothing above fired one.
        for (name, document) in made {
            for trigger in &document.triggers {
                self.make("trigger", &trigger.name, &trigger.sql)?;
            }
            self.set_counter(name, document.autoincrement)?;
        }
        Ok(())
    }

    // Runs a statement that makes one object, and makes sure that it made that and is the
    // whole statement.
    fn make(&mut self, kind: &str, name: &str, statement: &str) -> Result<()> {
        let hostile = || {
            Error::new(
                ErrorKind::Hostile,
                "a schema holds a statement that does not make its object",
            )
            .on(format!("{kind} {name}"))
        };
        let begins: &[&str] = match kind {
            "table" => &["CREATE TABLE ", "CREATE VIRTUAL TABLE "],
            "index" => &["CREATE INDEX ", "CREATE UNIQUE INDEX "],
            "view" => &["CREATE VIEW "],
            _ => &["CREATE TRIGGER "],
        };
        if !begins.iter().any(|begin| statement.starts_with(begin)) {
            return Err(hostile());
        }
        if statement.starts_with("CREATE VIRTUAL") {
            let known = module::parse(statement)
                .and_then(|(module, arguments)| module::fill(&module, &arguments));
            known.ok_or_else(hostile)?;
        }
        let failed =
            |e| sql("could not make an object of the database")(e).on(format!("{kind} {name}"));
        let cancel = self.cancel.clone();
        let made = connect::limited(&mut self.database, self.limit, &cancel, |database| {
            let there = || {
                let query =
                    "SELECT 1 FROM sqlite_master WHERE type = ?1 AND name = ?2 AND sql = ?3";
                database.prepare(query).and_then(|mut s| s.exists([kind, name, statement]))
            };
            let make = || {
                // An earlier process may have made it.
                if there()? {
                    return Ok(true);
                }
                database.prepare(statement)?.raw_execute()?;
                there()
            };
            make().map_err(|error| match error {
                rusqlite::Error::MultipleStatement => hostile(),
                other => failed(other),
            })
        })?;
        if made { Ok(()) } else { Err(hostile()) }
    }

    fn settings(&self, table: &str, document: &Document) -> Result<()> {
        let mut settings = document.settings.iter();
        settings.try_for_each(|(setting, value)| self.command(table, setting, Some(value)))
    }

    /// Fills a full-text index anew from the table that it is over.
    pub(crate) fn rebuild(&self, table: &str) -> Result<()> {
        self.command(table, "rebuild", None)
    }

    // Full-text indexes take commands as rows.
    fn command(&self, table: &str, command: &str, value: Option<&serde_json::Value>) -> Result<()> {
        let name = quote(table);
        let failed = |e| sql("could not restore a full-text index")(e).on(table);
        let done = match value {
            None => {
                self.database.execute(&format!("INSERT INTO {name}({name}) VALUES (?1)"), [command])
            }
            Some(value) => self.database.execute(
                &format!("INSERT INTO {name}({name}, rank) VALUES (?1, ?2)"),
                (command, value::read(value.clone())?),
            ),
        };
        done.map(|_| ()).map_err(failed)
    }

    // Inserting has counted on its own, which need not be where the counter stood.
    fn set_counter(&self, table: &str, counter: Option<i64>) -> Result<()> {
        if !catalog::has_sequence(&self.database)? {
            return Ok(());
        }
        let failed = |e| sql("could not restore an AUTOINCREMENT counter")(e).on(table);
        self.database
            .execute("DELETE FROM sqlite_sequence WHERE name = ?1", [table])
            .map_err(failed)?;
        if let Some(counter) = counter {
            self.database
                .execute("INSERT INTO sqlite_sequence(name, seq) VALUES (?1, ?2)", (table, counter))
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Sees to it that the AUTOINCREMENT counter of a table stands no lower than `counter`.
    pub(crate) fn raise_counter(&self, table: &str, counter: Option<i64>) -> Result<()> {
        if !catalog::has_sequence(&self.database)? {
            return Ok(());
        }
        let current: Option<i64> = self
            .database
            .query_row(
                "SELECT max(seq) FROM sqlite_sequence WHERE name = ?1 AND typeof(seq) = 'integer'",
                [table],
                |row| row.get(0),
            )
            .map_err(|e| sql("could not read an AUTOINCREMENT counter")(e).on(table))?;
        if counter > current { self.set_counter(table, counter) } else { Ok(()) }
    }
}
