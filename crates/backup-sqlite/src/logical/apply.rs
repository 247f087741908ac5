//! Merging: staged rows into a copy of the live database.

use backup_core::{
    Cancel, Content, Error, ErrorKind, Result,
    record::{BatchBuilder, Key, Sha256Digest, Tally},
};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, Statement, config::DbConfig, params_from_iter,
    types::ToSqlOutput,
};

use super::{
    document::{Database, Document, Fill, KeyForm},
    forms::{Form, Forms},
    lookup::{Address, Lookup, condition, each_key, tally_same_keys},
    make::{Maker, settle},
    module,
    read::{self, Query},
    tables::{self, Table},
    write::{insert, make_room},
};
use crate::{answers::Answers, catalog::quote, config::Config, error::sql, stage::Stage};

/// What was staged to be merged.
pub(crate) struct Staged {
    database: Connection,
    documents: Vec<(String, Document)>,
}

impl Staged {
    pub(crate) fn new(database: Connection, stage: &Stage) -> Result<Self> {
        let documents = stage.documents()?.into_iter();
        let documents =
            documents.map(|(name, json)| Document::read(&name, &json).map(|d| (name, d)));
        Ok(Self { database, documents: documents.collect::<Result<_>>()? })
    }

    /// Gives a new database the settings of the archive's.
    pub(crate) fn settle(&self, database: &Connection) -> Result<()> {
        settle(database, &self.settings())
    }

    /// Whether the archive's database was in WAL mode.
    pub(crate) fn wants_wal(&self) -> bool {
        self.settings().journal_mode == "wal"
    }

    fn settings(&self) -> Database {
        self.documents.first().map_or_else(Database::fresh, |(_, first)| first.database.clone())
    }

    fn table(&self, name: &str, document: &Document) -> Result<Table> {
        Table::made(&self.database, name, document)
    }

    /// Tallies what is staged.
    pub(crate) fn tally(&self, cancel: &Cancel) -> Result<Content> {
        self.tally_each(|table| read::tally_table(&self.database, table, cancel))
    }

    /// Tallies those rows of another database that have the keys of what is staged.
    pub(crate) fn tally_in(&self, database: &Connection, cancel: &Cancel) -> Result<Content> {
        let there = Forms::read(database)?;
        self.tally_each(|table| {
            if !there.has(&table.name) {
                return Ok(Tally::new());
            }
            let theirs = Table::made(database, &table.name, &table.document)?;
            tally_same_keys((&self.database, table), (database, &theirs), cancel)
        })
    }

    fn tally_each(&self, tally: impl Fn(&Table) -> Result<Tally>) -> Result<Content> {
        let mut content = Content::new();
        for (name, document) in &self.documents {
            let tally = match document.content {
                Fill::Records => tally(&self.table(name, document)?)?,
                _ => Tally::new(),
            };
            content.collections.insert(name.clone(), tally);
        }
        Ok(content)
    }

    /// Writes all that is staged into `database`, a copy of the live one: all of it, or the copy
    /// is of no use.
    ///
    /// No trigger fires: what triggers did when the records were first written stands in the
    /// records of other tables. Full-text indexes over other tables, which triggers keep, are
    /// made anew.
    pub(crate) fn apply(
        &self,
        database: Connection,
        config: &Config,
        answers: &Answers,
        cancel: &Cancel,
    ) -> Result<Connection> {
        let failed = sql("could not begin to merge");
        database
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
            .and_then(|_| database.execute_batch("PRAGMA foreign_keys=OFF; BEGIN"))
            .map_err(failed)?;
        let live = Forms::read(&database)?;
        let mut maker = Maker::new(config, database, cancel);
        let tables = || self.documents.iter().filter(|(_, document)| document.sql.is_some());
        let (known, new): (Vec<_>, Vec<_>) = tables()
            .map(|(name, document)| (name.as_str(), document))
            .partition(|(n, _)| live.has(n));
        for (name, document) in &new {
            maker.table(name, document)?;
        }
        // Into a table that is there, nothing comes that its CHECKs forbid; what was stored in
        // one that is not may break a CHECK that came later.
        let mut touched = Vec::new();
        for (name, document) in tables() {
            live.fit(name, &Form::of(&self.database, name, document)?)?;
            let ignore = if live.has(name) { "OFF" } else { "ON" };
            maker.run(&format!("PRAGMA ignore_check_constraints={ignore}"))?;
            if document.content == Fill::Records
                && self.rows(name, document, &maker, answers, cancel)?
            {
                touched.push(name.to_lowercase());
            }
        }
        let views: Vec<_> =
            self.documents.iter().flat_map(|(_, document)| &document.views).cloned().collect();
        let views: Vec<_> = views.into_iter().filter(|view| !live.has(&view.name)).collect();
        for (name, document) in known {
            maker.raise_counter(name, document.autoincrement)?;
        }
        rebuild(&maker, &touched)?;
        maker.complete(&new, &views)?;
        maker.run("COMMIT")?;
        self.compare(&maker.database, cancel)?;
        Ok(maker.database)
    }

    // Whether there were any.
    fn rows(
        &self,
        name: &str,
        document: &Document,
        maker: &Maker,
        answers: &Answers,
        cancel: &Cancel,
    ) -> Result<bool> {
        let from = self.table(name, document)?;
        let to = Table::made(&maker.database, name, document)?;
        let rows = Rows { staged: (&self.database, &from), live: (&maker.database, &to), cancel };
        maker.run(
            "CREATE TEMP TABLE IF NOT EXISTS places (number INTEGER PRIMARY KEY, place INTEGER); \
             DELETE FROM temp.places",
        )?;
        // All go before the first one comes: two rows may have exchanged a unique value.
        let any = rows.remove(answers)?;
        rows.insert()?;
        Ok(any)
    }

    // A column may be of another kind than it seemed.
    fn compare(&self, merged: &Connection, cancel: &Cancel) -> Result<()> {
        let (staged, merged) = (self.tally(cancel)?, self.tally_in(merged, cancel)?);
        let other =
            staged.collections.iter().find(|(name, t)| merged.collections.get(*name) != Some(t));
        match other {
            None => Ok(()),
            Some((name, _)) => Err(Error::new(
                ErrorKind::Incompatible,
                "the live table does not keep the records of the archive as they are",
            )
            .on(name)
            .advise("compare the two statements that make the table, and migrate one of them")),
        }
    }
}

// The rows of one table on their way.
struct Rows<'a> {
    staged: (&'a Connection, &'a Table),
    live: (&'a Connection, &'a Table),
    cancel: &'a Cancel,
}

impl Rows<'_> {
    fn each(&self, visit: impl FnMut(i64, &Key, &Row<'_>) -> Result<()>) -> Result<()> {
        each_key(self.staged.0, self.staged.1, self.cancel, visit)
    }

    fn name(&self) -> &str {
        &self.live.1.name
    }

    fn prepare(&self, text: &str) -> Result<Statement<'_>> {
        self.live.0.prepare(text).map_err(|e| sql("could not merge a table")(e).on(self.name()))
    }

    // Removes the live rows that are about to be replaced, and keeps their row ids. Whether
    // anything is staged at all.
    fn remove(&self, answers: &Answers) -> Result<bool> {
        let (database, table) = self.live;
        let mut lookup = Lookup::new(database, table)?;
        let delete = |condition: &str| {
            self.prepare(&format!("DELETE FROM {} WHERE {condition}", quote(self.name())))
        };
        let mut by_key = delete(&condition(table))?;
        let by_rowid = table.hidden_rowid.map(|rowid| delete(&format!("{rowid} = ?1")));
        let mut by_rowid = by_rowid.transpose()?;
        let mut keep = self.prepare("INSERT INTO temp.places VALUES (?1, ?2)")?;
        let (mut asked, mut any) = (answers.asked()?, false);
        self.each(|number, key, _| {
            any = true;
            let subject = |e: Error| e.on(format!("{}, record {key}", self.name()));
            let failed = |e| subject(sql("could not replace a record")(e));
            let answer = asked.get(self.name(), key)?;
            let found = lookup.find(key, |query, row| {
                let digest = match &answer {
                    Some(_) => {
                        let mut line = BatchBuilder::new(self.name());
                        query.push(&mut line, key, row)?;
                        Some(Sha256Digest::of(line.finish()?.get(0).line().as_bytes()))
                    }
                    None => None,
                };
                Ok((query.hidden_rowid(row)?, digest))
            })?;
            let digest = found.as_ref().and_then(|(_, digest)| *digest);
            if answer.is_some_and(|answer| answer != digest) {
                let what = "a record was changed after it was compared with the archive's";
                return Err(subject(Error::new(ErrorKind::Changed, what)));
            }
            let Some((rowid, _)) = found else { return Ok(()) };
            match (Address::of(table, key), &mut by_rowid) {
                (Some(Address::Values(values)), _) => by_key.execute(params_from_iter(values)),
                (Some(Address::Rowid(rowid)), Some(by_rowid)) => by_rowid.execute([rowid]),
                _ => Ok(0),
            }
            .map_err(failed)?;
            if let Some(rowid) = rowid {
                keep.execute([number, rowid]).map_err(failed)?;
            }
            Ok(())
        })?;
        Ok(any)
    }

    // Inserts all rows. First those that replace others, under the row ids of those, as
    // something in the database may refer to them; then the rest, where there is room.
    fn insert(&self) -> Result<()> {
        let (from, to) = (self.staged.1, self.live.1);
        let rowid = match &to.document.key {
            KeyForm::Rowid(name) => Some(name.as_str()),
            _ => None,
        };
        let mut plain = self.prepare(&insert(self.name(), &from.columns, rowid))?;
        let Some(rowid) = to.hidden_rowid else {
            return self.each(|_, key, row| self.put(&mut plain, key, row, None));
        };
        let mut at = self.prepare(&insert(self.name(), &from.columns, Some(rowid)))?;
        let mut make_room = self.prepare(&make_room(self.name(), rowid))?;
        let mut places = self.prepare("SELECT place FROM temp.places WHERE number = ?1")?;
        let mut place = |number: i64| {
            let place = places.query_row([number], |row| row.get::<_, i64>(0)).optional();
            place.map_err(|e| sql("could not merge a table")(e).on(self.name()))
        };
        self.each(|number, key, row| match place(number)? {
            Some(place) => self.put(&mut at, key, row, Some(place)),
            None => Ok(()),
        })?;
        self.each(|number, key, row| match Address::of(to, key) {
            _ if place(number)?.is_some() => Ok(()),
            Some(Address::Rowid(rowid)) => {
                make_room.execute([rowid]).map_err(|e| self.refused(key, e))?;
                self.put(&mut at, key, row, Query::of(from).hidden_rowid(row)?)
            }
            _ => self.put(&mut plain, key, row, None),
        })
    }

    fn put(
        &self,
        statement: &mut Statement<'_>,
        key: &Key,
        row: &Row<'_>,
        place: Option<i64>,
    ) -> Result<()> {
        let parameters = statement.parameter_count();
        let mut put = || {
            for column in 0..parameters - usize::from(place.is_some()) {
                let value = ToSqlOutput::Borrowed(row.get_ref(column)?);
                statement.raw_bind_parameter(column + 1, value)?;
            }
            if let Some(place) = place {
                statement.raw_bind_parameter(parameters, place)?;
            }
            statement.raw_execute()
        };
        put().map(drop).map_err(|e| self.refused(key, e))
    }

    fn refused(&self, key: &Key, cause: rusqlite::Error) -> Error {
        let constraint = cause.sqlite_error_code() == Some(ErrorCode::ConstraintViolation);
        let error = if constraint {
            let what = "a record breaks a constraint of the live database";
            Error::new(ErrorKind::Incompatible, what)
                .advise(
                    "a live record of another key may have its unique value: leave one of the two \
                     out, or change it, and restore again",
                )
                .because(cause)
        } else {
            sql("could not merge a record")(cause)
        };
        error.on(format!("{}, record {key}", self.name()))
    }
}

// Makes anew what full-text indexes hold of tables that were written. An index over a view
// may be over any of them.
fn rebuild(maker: &Maker, touched: &[String]) -> Result<()> {
    if touched.is_empty() {
        return Ok(());
    }
    let tables = tables::read(&maker.database)?.tables;
    let is_table = |name: &str| tables.iter().any(|t| t.name.to_lowercase() == name);
    for table in tables.iter().filter(|table| table.document.content == Fill::Rebuild) {
        let statement = table.document.sql.as_deref().unwrap_or_default();
        let (_, arguments) = module::parse(statement).unwrap_or_default();
        let over = module::content_table(&arguments).unwrap_or_default().to_lowercase();
        if touched.contains(&over) || !is_table(&over) {
            maker.rebuild(&table.name)?;
        }
    }
    Ok(())
}
