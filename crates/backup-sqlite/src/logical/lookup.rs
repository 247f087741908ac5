//! Rows as records: those of given keys.

use backup_core::{
    Cancel, Error, ErrorKind, Result,
    record::{BatchBuilder, Key, RecordBatch, Tally},
};
use rusqlite::{Connection, Row, Statement, params_from_iter};

use super::{
    document::{Fill, KeyForm},
    read::{self, Query},
    tables::{self, Table},
    value::{self, Bound},
};
use crate::{catalog::quote, error::sql};

/// Finds the rows of one table by their keys.
pub(crate) struct Lookup<'a> {
    table: &'a Table,
    query: Query<'a>,
    by_key: Statement<'a>,
    // For keys that hold NULL.
    by_rowid: Option<Statement<'a>>,
    lossy: bool,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(connection: &'a Connection, table: &'a Table) -> Result<Self> {
        let query = Query::of(table);
        let prepare = |condition: &str| {
            let prepared = connection.prepare(&query.rows_where(condition));
            prepared.map_err(|e| sql("could not read a table by its keys")(e).on(&table.name))
        };
        let by_key = prepare(&condition(table))?;
        let by_rowid = table.hidden_rowid.map(|rowid| prepare(&format!("{rowid} = ?1")));
        let (by_rowid, lossy) = (by_rowid.transpose()?, read::is_lossy(connection)?);
        Ok(Self { table, query, by_key, by_rowid, lossy })
    }

    /// What `take` makes of the row that has exactly this key.
    pub(crate) fn find<T>(
        &mut self,
        key: &Key,
        take: impl FnOnce(&Query<'_>, &Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let failed = |e| sql("could not read a table by its keys")(e).on(&self.table.name);
        let (statement, values) = match Address::of(self.table, key) {
            Some(Address::Values(values)) => (&mut self.by_key, values),
            Some(Address::Rowid(rowid)) => match &mut self.by_rowid {
                Some(statement) => (statement, vec![rowid]),
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            // To SQLite 1 and 1.0 are equal, and what else a collation says.
            if self.query.key(row, 0)? != *key {
                continue;
            }
            if self.lossy
                && let Some(column) = self.query.torn_text(row)
            {
                let what = format!("the text in {column} is not valid UTF-16");
                let subject = format!("{}, record {key}", self.table.name);
                return Err(Error::new(ErrorKind::Unsupported, what)
                    .on(subject)
                    .advise("mend it, or restore in the native form"));
            }
            return take(&self.query, row).map(Some);
        }
        Ok(None)
    }

    /// Adds the record of a key to a batch; whether there is one.
    pub(crate) fn push(&mut self, key: &Key, batch: &mut BatchBuilder) -> Result<bool> {
        let found = self.find(key, |query, row| query.push(batch, key, row))?;
        Ok(found.is_some())
    }
}

/// Where the row of a key is.
pub(crate) enum Address {
    /// Where the columns of the key hold these values.
    Values(Vec<Bound>),
    /// At this row id: the key holds NULL.
    Rowid(Bound),
}

impl Address {
    /// The place of a key; `None` where no row can have it.
    pub(crate) fn of(table: &Table, key: &Key) -> Option<Self> {
        let json: serde_json::Value = serde_json::from_str(key.as_json()).ok()?;
        let parts = match (&table.document.key, json) {
            (KeyForm::Order, _) => return None,
            (KeyForm::Columns(names), serde_json::Value::Array(parts)) => {
                (names.len() > 1 && parts.len() == names.len()).then_some(parts)?
            }
            (KeyForm::Columns(names), one) => {
                if let Some(rowid) = value::rowid_of(&one) {
                    return Some(Self::Rowid(rowid));
                }
                (names.len() == 1).then(|| vec![one])?
            }
            (KeyForm::Rowid(_), one) => vec![one],
        };
        let values: Result<_> = parts.into_iter().map(value::read).collect();
        values.ok().map(Self::Values)
    }
}

/// The condition that finds the row of a key, its values as parameters from 1. The first of each
/// two finds it by the index of the key, the second holds for no other text.
pub(crate) fn condition(table: &Table) -> String {
    match &table.document.key {
        KeyForm::Columns(names) => {
            let one = |(place, name): (usize, &String)| {
                let (name, place) = (quote(name), place + 1);
                format!("{name} = ?{place} AND {name} = ?{place} COLLATE BINARY")
            };
            names.iter().enumerate().map(one).collect::<Vec<_>>().join(" AND ")
        }
        KeyForm::Rowid(name) => format!("{name} = ?1"),
        KeyForm::Order => "FALSE".to_owned(),
    }
}

/// Tallies those rows of `connection` that have the keys of the rows of `keys`.
pub(crate) fn tally_same_keys(
    (keys, keyed): (&Connection, &Table),
    (connection, table): (&Connection, &Table),
    cancel: &Cancel,
) -> Result<Tally> {
    let (mut tally, mut lookup) = (Tally::new(), Lookup::new(connection, table)?);
    each_key(keys, keyed, cancel, |_, key, _| {
        let mut batch = BatchBuilder::new(&table.name);
        if lookup.push(key, &mut batch)? {
            tally.add_batch(&batch.finish()?);
        }
        Ok(())
    })?;
    Ok(tally)
}

/// Every row of a table with its number, from 0, and its key; always in the same order.
pub(crate) fn each_key(
    connection: &Connection,
    table: &Table,
    cancel: &Cancel,
    mut visit: impl FnMut(i64, &Key, &Row<'_>) -> Result<()>,
) -> Result<()> {
    let failed = |e| sql("could not read a table")(e).on(&table.name);
    let query = Query::of(table);
    let mut statement = connection.prepare(&query.all()).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut number = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        cancel.check()?;
        visit(number, &query.key(row, number + 1)?, row)?;
        number += 1;
    }
    Ok(())
}

/// The records of those keys that a database has, and the keys that it has not.
pub(crate) fn existing<'k>(
    connection: &Connection,
    collection: &str,
    keys: &'k [Key],
    cancel: &Cancel,
) -> Result<(Vec<RecordBatch>, Vec<&'k Key>)> {
    // Each once, though it be asked for twice.
    let mut keys: Vec<_> = keys.iter().collect();
    keys.sort_unstable();
    keys.dedup();
    let catalog = tables::read(connection)?;
    let table = catalog.tables.iter().find(|table| table.name == collection);
    let Some(table) = table.filter(|table| table.document.content == Fill::Records) else {
        return Ok((Vec::new(), keys));
    };
    let (mut batches, mut free) = (Vec::new(), Vec::new());
    let mut lookup = Lookup::new(connection, table)?;
    let mut batch = BatchBuilder::new(collection);
    for key in keys {
        cancel.check()?;
        if !lookup.push(key, &mut batch)? {
            free.push(key);
        }
        if batch.is_full() {
            let full = std::mem::replace(&mut batch, BatchBuilder::new(collection));
            batches.push(full.finish()?);
        }
    }
    if !batch.is_empty() {
        batches.push(batch.finish()?);
    }
    Ok((batches, free))
}
