//! Records as rows: a database made from its schema documents.

use std::{collections::BTreeMap, time::Duration};

use backup_core::{Cancel, Error, ErrorKind, Result, Schema, record::RecordBatch};
use rusqlite::{Connection, limits::Limit};

use super::{
    document::{Database, Document, Fill, KeyForm, Object},
    tables,
    value::{self, Bound},
};
use crate::{
    catalog::quote,
    config::Config,
    connect::{self, Access},
    error::sql,
    stage::Stage,
    switch::{self, Live},
};

/// Makes a database out of schemas and records.
///
/// Each part is a transaction of its own, and the documents are kept in the stage: another
/// process can go on with it.
///
/// The documents come out of an archive and are not trusted: each statement may make the one
/// object that it says, and nothing else.
pub(crate) struct Writer {
    database: Connection,
    stage: Stage,
    limit: Duration,
    cancel: Cancel,
    // Of a target in WAL mode, which refuses any other.
    page_size: Option<i64>,
    settings: Option<Database>,
    tables: BTreeMap<String, Target>,
    views: Vec<Object>,
}

struct Target {
    document: Document,
    columns: Vec<String>,
    insert: String,
}

impl Writer {
    /// Opens the staged database, and takes up what an earlier process made.
    pub(crate) fn open(config: &Config, stage: &Stage, cancel: &Cancel) -> Result<Self> {
        let earlier = stage.documents()?;
        let path = stage.staged();
        if earlier.is_empty() {
            switch::remove_files(&path)?;
        }
        let database = config.connect(&path, Access::Create)?;
        database
            .execute_batch(
                // The journal is for a process that is killed; the finished file is synced
                // as a whole.
                "PRAGMA synchronous=OFF; PRAGMA journal_mode=TRUNCATE; \
                 PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON;",
            )
            .map_err(sql("could not begin to stage the database"))?;
        let _ = database.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0);
        let page_size = match switch::look(config)? {
            Live::Database { wal: true, page_size, .. } => Some(page_size),
            _ => None,
        };
        let mut writer = Self {
            database,
            stage: stage.clone(),
            limit: config.check_limit,
            cancel: cancel.clone(),
            page_size,
            settings: None,
            tables: BTreeMap::new(),
            views: Vec::new(),
        };
        for (collection, document) in earlier {
            writer.table(&collection, &document)?;
        }
        Ok(writer)
    }

    fn run(&self, text: &str) -> Result<()> {
        self.database.execute_batch(text).map_err(sql("could not stage the database"))
    }

    // Settings that must stand before the first table.
    fn settle(&mut self, settings: &Database) -> Result<()> {
        if self.settings.is_some() {
            return Ok(());
        }
        if !matches!(settings.encoding.as_str(), "UTF-8" | "UTF-16le" | "UTF-16be") {
            return Err(Error::new(ErrorKind::Corrupt, "a schema names an unknown text encoding")
                .on(&settings.encoding));
        }
        self.run(&format!(
            "PRAGMA page_size={}; PRAGMA auto_vacuum={}; PRAGMA encoding='{}'; \
             PRAGMA user_version={}; PRAGMA application_id={};",
            self.page_size.unwrap_or(settings.page_size),
            settings.auto_vacuum,
            settings.encoding,
            settings.user_version,
            settings.application_id,
        ))?;
        self.settings = Some(settings.clone());
        Ok(())
    }

    /// Makes the table of a collection.
    pub(crate) fn schema(&mut self, schema: &Schema) -> Result<()> {
        self.table(&schema.collection, &schema.document)?;
        self.stage.add_document(&schema.collection, &schema.document)
    }

    fn table(&mut self, name: &str, document: &serde_json::Value) -> Result<()> {
        let document = Document::read(name, document)?;
        self.settle(&document.database)?;
        let Some(statement) = &document.sql else {
            self.views.extend(document.views);
            return Ok(());
        };
        // An index over another table may want that table first.
        if document.content != Fill::Rebuild && document.content != Fill::Nothing {
            self.make("table", name, statement)?;
        }
        for (setting, value) in &document.settings {
            self.command(name, setting, Some(value))?;
        }
        let columns = match document.content {
            Fill::Records => tables::columns(&self.database, name)?,
            _ => Vec::new(),
        };
        let insert = insert(name, &columns, &document.key);
        self.tables.insert(name.to_owned(), Target { document, columns, insert });
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
            let known = super::module::parse(statement)
                .and_then(|(module, arguments)| super::module::fill(&module, &arguments));
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

    /// Inserts records.
    pub(crate) fn records(&mut self, batch: &RecordBatch, cancel: &Cancel) -> Result<()> {
        let name = batch.collection();
        let failed = |e| sql("could not insert a record")(e).on(name);
        let Some(target) = self.tables.get(name) else {
            let what = "records came before the schema of their table";
            return Err(Error::new(ErrorKind::Corrupt, what).on(name));
        };
        // All of the batch or nothing, also if this fails half-way.
        let transaction = self.database.unchecked_transaction().map_err(failed)?;
        let mut statement = transaction.prepare(&target.insert).map_err(failed)?;
        for record in batch.iter() {
            cancel.check()?;
            let bound = target.bind(record.value_json()).and_then(|mut bound| {
                bound.extend(target.rowid(&record.key())?);
                Ok(bound)
            });
            let bound = bound.map_err(|e| e.on(format!("{name}, record {}", record.key_json())))?;
            statement.execute(rusqlite::params_from_iter(bound)).map_err(failed)?;
        }
        drop(statement);
        transaction.commit().map_err(failed)
    }

    /// Makes what stands on the filled tables. Whether the database wants to be in WAL mode.
    pub(crate) fn finish(mut self) -> Result<bool> {
        let defaults =
            Database { encoding: "UTF-8".into(), page_size: 4096, ..Database::default() };
        self.settle(&defaults)?;
        self.run("BEGIN")?;
        let documents: Vec<_> =
            self.tables.iter().map(|(name, t)| (name.clone(), t.document.clone())).collect();
        for (_, document) in &documents {
            for index in &document.indexes {
                self.make("index", &index.name, &index.sql)?;
            }
        }
        for view in std::mem::take(&mut self.views) {
            self.make("view", &view.name, &view.sql)?;
            for trigger in &view.triggers {
                self.make("trigger", &trigger.name, &trigger.sql)?;
            }
        }
        for (name, document) in &documents {
            let Some(statement) = &document.sql else { continue };
            match document.content {
                Fill::Rebuild => {
                    self.make("table", name, statement)?;
                    for (setting, value) in &document.settings {
                        self.command(name, setting, Some(value))?;
                    }
                    self.command(name, "rebuild", None)?;
                }
                Fill::Nothing => self.make("table", name, statement)?,
                Fill::Records | Fill::Lost => {}
            }
        }
        // Last, so that nothing above fired one.
        for (name, document) in &documents {
            for trigger in &document.triggers {
                self.make("trigger", &trigger.name, &trigger.sql)?;
            }
            self.counter(name, document.autoincrement)?;
        }
        self.run("COMMIT")?;
        let wal = self.settings.is_some_and(|settings| settings.journal_mode == "wal");
        self.database.close().map_err(|(_, e)| sql("could not close the staged database")(e))?;
        Ok(wal)
    }

    // Inserting has counted on its own, which need not be where the counter stood.
    fn counter(&self, table: &str, counter: Option<i64>) -> Result<()> {
        if !crate::catalog::has_sequence(&self.database)? {
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
}

impl Target {
    fn bind(&self, value: &str) -> Result<Vec<Bound>> {
        let wrong = |what: &str| Error::new(ErrorKind::Incompatible, what);
        let mut members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(value)
                .map_err(|e| wrong("a record of a table is not an object").because(e))?;
        let mut bound = Vec::with_capacity(self.columns.len() + 1);
        for column in &self.columns {
            let value = members.remove(column);
            let value =
                value.ok_or_else(|| wrong("a record has no value for a column").on(column))?;
            bound.push(value::read(value).map_err(|e| e.on(column))?);
        }
        match members.keys().next() {
            Some(name) => Err(wrong("a record has a value for which there is no column").on(name)),
            None => Ok(bound),
        }
    }

    fn rowid(&self, key: &backup_core::record::Key) -> Result<Option<Bound>> {
        if !matches!(self.document.key, KeyForm::Rowid(_)) {
            return Ok(None);
        }
        let json = serde_json::from_str(key.as_json())
            .map_err(|e| Error::new(ErrorKind::Corrupt, "a key cannot be read").because(e))?;
        value::read(json).map(Some)
    }
}

fn insert(table: &str, columns: &[String], key: &KeyForm) -> String {
    let mut names: Vec<String> = columns.iter().map(|name| quote(name)).collect();
    if let KeyForm::Rowid(rowid) = key {
        names.push(quote(rowid));
    }
    let values = vec!["?"; names.len()].join(", ");
    format!("INSERT INTO {} ({}) VALUES ({values})", quote(table), names.join(", "))
}
