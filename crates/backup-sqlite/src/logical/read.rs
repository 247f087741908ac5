//! Rows as records: all of a table.

use backup_core::{
    Cancel, CollectionDescription, Content, Notice, NoticeKind, Result,
    record::{BatchBuilder, Key, RecordBatch, Tally},
};
use rusqlite::{Connection, Row, types::ValueRef};

use super::{
    document::{DATABASE, Fill, KeyForm},
    tables::{self, Table},
    value,
};
use crate::{catalog::quote, connect::pragma, error::sql};

/// Reads a table, batch by batch; a row that cannot be carried is a notice.
pub(crate) fn scan(
    connection: &Connection,
    table: &Table,
    cancel: &Cancel,
    mut give: impl FnMut(RecordBatch) -> Result<()>,
    mut notice: impl FnMut(Notice) -> Result<()>,
) -> Result<u64> {
    if table.document.content != Fill::Records {
        return Ok(0);
    }
    let failed = |e| sql("could not read a table")(e).on(&table.name);
    let query = Query::of(table);
    let mut statement = connection.prepare(&query.all()).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let lossy = is_lossy(connection)?;
    let (mut number, mut given) = (0_i64, 0_u64);
    let mut batch = BatchBuilder::new(&table.name);
    while let Some(row) = rows.next().map_err(failed)? {
        number += 1;
        cancel.check()?;
        let key = query.key(row, number).map_err(|e| e.on(&table.name))?;
        if lossy && let Some(column) = query.torn_text(row) {
            notice(Notice {
                kind: NoticeKind::Unsupported,
                collection: table.name.clone(),
                subject: key.to_string(),
                detail: format!(
                    "the text in {column} is not valid UTF-16; the native form carries it"
                ),
            })?;
            continue;
        }
        query.push(&mut batch, &key, row)?;
        given += 1;
        if batch.is_full() {
            let full = std::mem::replace(&mut batch, BatchBuilder::new(&table.name));
            give(full.finish()?)?;
        }
    }
    if !batch.is_empty() {
        give(batch.finish()?)?;
    }
    Ok(given)
}

// Text that is no valid Unicode cannot be read from a database in UTF-16 as it is.
pub(crate) fn is_lossy(connection: &Connection) -> Result<bool> {
    Ok(pragma::<String>(connection, "encoding")? != "UTF-8")
}

/// The query for rows of a table, and where in its answer key and columns are.
pub(crate) struct Query<'a> {
    table: &'a Table,
    selected: String,
    key: Places,
    // In the order of their names' bytes, as a record wants them.
    members: Vec<(usize, &'a str)>,
}

enum Places {
    Order,
    Rowid,
    // With the place of the row id, where there is one, for keys that hold NULL.
    Columns(Vec<usize>, Option<usize>),
}

impl<'a> Query<'a> {
    pub(crate) fn of(table: &'a Table) -> Self {
        let mut selected: Vec<String> = table.columns.iter().map(|name| quote(name)).collect();
        let key = match &table.document.key {
            KeyForm::Order => Places::Order,
            KeyForm::Rowid(name) => {
                selected.push(name.clone());
                Places::Rowid
            }
            KeyForm::Columns(names) => {
                let place = |name: &String| table.columns.iter().position(|c| c == name);
                selected.extend(table.hidden_rowid.map(str::to_owned));
                let rowid = table.hidden_rowid.map(|_| table.columns.len());
                Places::Columns(names.iter().filter_map(place).collect(), rowid)
            }
        };
        let mut members: Vec<_> =
            table.columns.iter().enumerate().map(|(i, name)| (i, name.as_str())).collect();
        members.sort_unstable_by_key(|(_, name)| *name);
        Self { table, selected: selected.join(", "), key, members }
    }

    /// All rows, always in the same order.
    pub(crate) fn all(&self) -> String {
        // In the order of the table itself, not of an index that happens to hold all columns.
        let order = if self.table.is_virtual { "" } else { " NOT INDEXED" };
        format!("SELECT {} FROM {}{order}", self.selected, quote(&self.table.name))
    }

    /// The rows for which a condition holds.
    pub(crate) fn rows_where(&self, condition: &str) -> String {
        format!("SELECT {} FROM {} WHERE {condition}", self.selected, quote(&self.table.name))
    }

    /// Adds a row to a batch.
    pub(crate) fn push(&self, batch: &mut BatchBuilder, key: &Key, row: &Row<'_>) -> Result<()> {
        let failed = |e| sql("could not read a table")(e).on(&self.table.name);
        batch.push(key, |json| {
            json.begin_object()?;
            for (place, name) in &self.members {
                json.name(name)?;
                value::write(json, row.get_ref(*place).map_err(failed)?);
            }
            json.end_object();
            Ok(())
        })
    }

    /// The row id of a row that has another key.
    pub(crate) fn hidden_rowid(&self, row: &Row<'_>) -> Result<Option<i64>> {
        match self.key {
            Places::Columns(_, Some(place)) => {
                row.get(place).map(Some).map_err(sql("could not read a row id"))
            }
            _ => Ok(None),
        }
    }

    /// The key of a row, which is the `number`th of all.
    pub(crate) fn key(&self, row: &Row<'_>, number: i64) -> Result<Key> {
        let get = |place: usize| row.get_ref(place).map_err(sql("could not read a key"));
        match &self.key {
            Places::Order => Ok(Key::from(number)),
            Places::Rowid => value::key(get(self.members.len())?),
            Places::Columns(places, rowid) => {
                let values = places.iter().map(|p| get(*p)).collect::<Result<Vec<_>>>()?;
                if let (true, Some(rowid)) = (values.contains(&ValueRef::Null), rowid) {
                    let rowid = row.get(*rowid).map_err(sql("could not read a key"))?;
                    return value::rowid_key(rowid);
                }
                let mut keys = values.into_iter().map(value::key).collect::<Result<Vec<_>>>()?;
                match keys.pop() {
                    Some(one) if keys.is_empty() => Ok(one),
                    last => Ok(Key::composite(keys.into_iter().chain(last))),
                }
            }
        }
    }

    /// A column whose text cannot be carried.
    pub(crate) fn torn_text(&self, row: &Row<'_>) -> Option<&'a str> {
        let torn = |place: usize| match row.get_ref(place) {
            Ok(ValueRef::Text(bytes)) => std::str::from_utf8(bytes).is_err(),
            _ => false,
        };
        self.members.iter().find(|(place, _)| torn(*place)).map(|(_, name)| *name)
    }
}

/// Tallies every collection of a database as a backup of it would.
pub(crate) fn tally(
    connection: &Connection,
    expected: &Content,
    cancel: &Cancel,
) -> Result<Content> {
    let mut content = Content::new();
    if expected.collections.contains_key(DATABASE) {
        content.collections.insert(DATABASE.to_owned(), Tally::new());
    }
    for table in tables::read(connection)?.tables {
        let tally = tally_table(connection, &table, cancel)?;
        content.collections.insert(table.name, tally);
    }
    Ok(content)
}

/// Tallies a table as a backup of it would.
pub(crate) fn tally_table(
    connection: &Connection,
    table: &Table,
    cancel: &Cancel,
) -> Result<Tally> {
    let mut tally = Tally::new();
    let add = |batch| {
        tally.add_batch(&batch);
        Ok(())
    };
    scan(connection, table, cancel, add, |_| Ok(()))?;
    Ok(tally)
}

/// The collections that a backup would have.
pub(crate) fn describe(connection: &Connection) -> Result<Vec<CollectionDescription>> {
    let count = |table: &Table| -> Result<i64> {
        if table.document.content != Fill::Records {
            return Ok(0);
        }
        let query = format!("SELECT count(*) FROM {}", quote(&table.name));
        let failed = |e| sql("could not count the rows of a table")(e).on(&table.name);
        connection.query_row(&query, [], |row| row.get(0)).map_err(failed)
    };
    let one = |name: &str, count: i64| {
        let mut collection = CollectionDescription::new(name);
        collection.records = u64::try_from(count).ok();
        collection
    };
    let mut all = vec![one(DATABASE, 0)];
    for table in tables::read(connection)?.tables {
        all.push(one(&table.name, count(&table)?));
    }
    Ok(all)
}
