//! Records as rows: a database made from its schema documents.

use std::collections::BTreeMap;

use backup_core::{
    Cancel, Error, ErrorKind, Result, Schema,
    record::{Key, RecordBatch},
};
use rusqlite::params_from_iter;

use super::{
    document::{Database, Document, Fill, KeyForm, Object},
    forms::{Form, Forms},
    make::{Maker, settle},
    tables::Table,
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
pub(crate) struct Writer {
    maker: Maker,
    stage: Stage,
    // Of a target in WAL mode, which refuses any other.
    page_size: Option<i64>,
    // What is to be merged into.
    live: Option<Forms>,
    settings: Option<Database>,
    tables: BTreeMap<String, Target>,
    views: Vec<Object>,
}

struct Target {
    document: Document,
    columns: Vec<String>,
    insert: String,
    // For keys that hold NULL.
    at_rowid: Option<AtRowid>,
}

struct AtRowid {
    insert: String,
    make_room: String,
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
        let (page_size, live) = match switch::look(config)? {
            Live::Database { pages, .. } if stage.merges() && pages > 0 => {
                let live = config.connect(&config.path, Access::Read)?;
                connect::pin(&live)?;
                (None, Some(Forms::read(&live)?))
            }
            Live::Database { wal: true, page_size, .. } => (Some(page_size), None),
            _ => (None, None),
        };
        let mut writer = Self {
            maker: Maker::new(config, database, cancel),
            stage: stage.clone(),
            page_size,
            live,
            settings: None,
            tables: BTreeMap::new(),
            views: Vec::new(),
        };
        for (collection, document) in earlier {
            writer.table(&collection, &document)?;
        }
        Ok(writer)
    }

    // Settings that must stand before the first table.
    fn settle(&mut self, settings: &Database) -> Result<()> {
        if self.settings.is_some() {
            return Ok(());
        }
        let mut settled = settings.clone();
        if let Some(page_size) = self.page_size {
            settled.page_size = page_size;
        }
        settle(&self.maker.database, &settled)?;
        self.settings = Some(settled);
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
        if document.sql.is_none() {
            self.views.extend(document.views);
            return Ok(());
        }
        self.maker.table(name, &document)?;
        if let Some(live) = &self.live {
            live.fit(name, &Form::of(&self.maker.database, name, &document)?)?;
        }
        let target = Target::new(&self.maker, name, document)?;
        self.tables.insert(name.to_owned(), target);
        Ok(())
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
        let transaction = self.maker.database.unchecked_transaction().map_err(failed)?;
        let mut statement = transaction.prepare(&target.insert).map_err(failed)?;
        for record in batch.iter() {
            cancel.check()?;
            let subject = |e: Error| e.on(format!("{name}, record {}", record.key_json()));
            let mut bound = target.bind(record.value_json()).map_err(subject)?;
            match target.place(&record.key()).map_err(subject)? {
                Place::Free => statement.execute(params_from_iter(bound)).map(drop),
                Place::Rowid(rowid) => {
                    bound.push(rowid);
                    statement.execute(params_from_iter(bound)).map(drop)
                }
                Place::Room(rowid, at) => {
                    bound.push(rowid.clone());
                    transaction
                        .execute(&at.make_room, [rowid])
                        .and_then(|_| transaction.execute(&at.insert, params_from_iter(bound)))
                        .map(drop)
                }
            }
            .map_err(failed)?;
        }
        drop(statement);
        transaction.commit().map_err(failed)
    }

    /// Makes what stands on the filled tables. Whether the database wants to be in WAL mode.
    pub(crate) fn finish(mut self) -> Result<bool> {
        self.settle(&Database::fresh())?;
        self.maker.run("BEGIN")?;
        let made: Vec<_> =
            self.tables.iter().map(|(name, target)| (name.as_str(), &target.document)).collect();
        self.maker.complete(&made, &self.views)?;
        self.maker.run("COMMIT")?;
        let wal = self.settings.as_ref().is_some_and(|settings| settings.journal_mode == "wal");
        self.close()?;
        Ok(wal)
    }

    /// Leaves the tables as they are, for a merge.
    pub(crate) fn finish_rows(mut self) -> Result<()> {
        self.settle(&Database::fresh())?;
        self.close()
    }

    fn close(self) -> Result<()> {
        let closed = self.maker.database.close();
        closed.map_err(|(_, e)| sql("could not close the staged database")(e))
    }
}

// Where a row goes.
enum Place<'a> {
    Free,
    Rowid(Bound),
    // At a row id that another row may have got.
    Room(Bound, &'a AtRowid),
}

impl Target {
    fn new(maker: &Maker, name: &str, document: Document) -> Result<Self> {
        if document.content != Fill::Records {
            return Ok(Self {
                document,
                columns: Vec::new(),
                insert: String::new(),
                at_rowid: None,
            });
        }
        let Table { columns, hidden_rowid, document, .. } =
            Table::made(&maker.database, name, &document)?;
        let rowid = match &document.key {
            KeyForm::Rowid(rowid) => Some(rowid.as_str()),
            _ => None,
        };
        let at_rowid = hidden_rowid.map(|rowid| AtRowid {
            insert: insert(name, &columns, Some(rowid)),
            make_room: make_room(name, rowid),
        });
        Ok(Self { insert: insert(name, &columns, rowid), columns, document, at_rowid })
    }

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

    fn place(&self, key: &Key) -> Result<Place<'_>> {
        let json = || -> Result<serde_json::Value> {
            serde_json::from_str(key.as_json())
                .map_err(|e| Error::new(ErrorKind::Corrupt, "a key cannot be read").because(e))
        };
        match (&self.document.key, &self.at_rowid) {
            (KeyForm::Rowid(_), _) => value::read(json()?).map(Place::Rowid),
            // The key of no other row is an object.
            (KeyForm::Columns(_), Some(at)) if key.as_json().starts_with('{') => {
                let rowid = value::rowid_of(&json()?);
                Ok(rowid.map_or(Place::Free, |rowid| Place::Room(rowid, at)))
            }
            _ => Ok(Place::Free),
        }
    }
}

/// The statement that inserts a row; the last parameter is the row id, if it has a name.
pub(crate) fn insert(table: &str, columns: &[String], rowid: Option<&str>) -> String {
    let mut names: Vec<String> = columns.iter().map(|name| quote(name)).collect();
    names.extend(rowid.map(quote));
    let values = vec!["?"; names.len()].join(", ");
    format!("INSERT INTO {} ({}) VALUES ({values})", quote(table), names.join(", "))
}

/// The statement that gives the row at a row id another one: row ids that nothing refers to are
/// not kept, but for a row whose key holds NULL they are the key.
pub(crate) fn make_room(table: &str, rowid: &str) -> String {
    let table = quote(table);
    format!(
        "UPDATE {table} SET {rowid} = (SELECT max({rowid}) + 1 FROM {table}) WHERE {rowid} = ?1"
    )
}
