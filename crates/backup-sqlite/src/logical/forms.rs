//! Whether the rows of one table fit into another.

use std::collections::BTreeMap;

use backup_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::{
    document::{Document, Fill, KeyForm},
    tables,
};
use crate::error::sql;

/// What two tables must have in common for the rows of one to be merged into the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    content: Fill,
    key: KeyForm,
    // Those that are stored, whatever their order.
    columns: BTreeMap<String, Affinity>,
}

/// What a column makes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// As SQLite tells it from a declared type.
    pub(crate) fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if has(&["INT"]) {
            Self::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Self::Text
        } else if declared.is_empty() || has(&["BLOB"]) {
            Self::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

impl Form {
    /// Of a table that is there, unless it is filled from another one.
    pub(crate) fn of(connection: &Connection, name: &str, document: &Document) -> Result<Self> {
        let columns = match document.content {
            Fill::Records => tables::affinities(connection, name)?,
            _ => BTreeMap::new(),
        };
        Ok(Self { content: document.content, key: document.key.clone(), columns })
    }
}

/// The forms of all tables of a database.
pub(crate) struct Forms {
    // By name; those of the other objects that share their names have none.
    found: BTreeMap<String, (String, Option<Form>)>,
}

impl Forms {
    pub(crate) fn read(connection: &Connection) -> Result<Self> {
        let mut forms = Self { found: BTreeMap::new() };
        for name in names(connection)? {
            forms.found.insert(name.to_ascii_lowercase(), (name, None));
        }
        for table in tables::read(connection)?.tables {
            let form = Form::of(connection, &table.name, &table.document)?;
            forms.found.insert(table.name.to_ascii_lowercase(), (table.name, Some(form)));
        }
        Ok(forms)
    }

    /// Whether a table, view or index of this name is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.found.contains_key(&name.to_ascii_lowercase())
    }

    /// Checks that a table can be merged into the one of its name, or be made.
    pub(crate) fn fit(&self, name: &str, theirs: &Form) -> Result<()> {
        let Some((known, ours)) = self.found.get(&name.to_ascii_lowercase()) else { return Ok(()) };
        let refuse = |why: &str| {
            Err(Error::new(ErrorKind::Incompatible, why).on(name).advise(
                "migrate one of the two, restore the table under another name, or replace the \
                 database instead of merging",
            ))
        };
        match ours {
            _ if known != name => refuse(&format!(
                "the name differs from that of {known} in upper and lower case only"
            )),
            None => refuse("the live database has something else of the name of a table"),
            Some(ours) if ours.content != theirs.content => {
                refuse("the table takes its rows from elsewhere than the live one of its name")
            }
            Some(ours) if ours.content != Fill::Records => Ok(()),
            Some(ours) if ours.key != theirs.key => {
                refuse("the table has another key than the live one of its name")
            }
            Some(Form { key: KeyForm::Order, .. }) => {
                refuse("the rows of the table have no key by which they could be merged")
            }
            Some(ours) => match ours.difference(theirs) {
                None => Ok(()),
                Some(column) => refuse(&format!(
                    "the table has other columns than the live one of its name: {column}"
                )),
            },
        }
    }
}

impl Form {
    // A column that only one of the two has, or has otherwise.
    fn difference<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        let lacks = |a: &'a Self, b: &'a Self| {
            a.columns.iter().find(|(name, is)| b.columns.get(*name) != Some(*is))
        };
        lacks(self, other).or_else(|| lacks(other, self)).map(|(name, _)| name.as_str())
    }
}

// Of tables, views and indexes: they share one space of names.
fn names(connection: &Connection) -> Result<Vec<String>> {
    let read = || -> rusqlite::Result<Vec<String>> {
        connection
            .prepare("SELECT name FROM sqlite_master WHERE type <> 'trigger'")?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    read().map_err(sql("could not read the schema of the database"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The examples of SQLite's own documentation.
    #[test]
    fn affinity_is_told_as_sqlite_tells_it() {
        let connection = Connection::open_in_memory().unwrap();
        for declared in [
            "INT",
            "UNSIGNED BIG INT",
            "INT2",
            "VARYING CHARACTER(255)",
            "NCHAR(55)",
            "CLOB",
            "BLOB",
            "",
            "REAL",
            "DOUBLE PRECISION",
            "FLOAT",
            "NUMERIC",
            "DECIMAL(10,5)",
            "BOOLEAN",
            "DATE",
            "CHARINT",
            "FLOATING POINT",
            "STRING",
            "any",
        ] {
            connection
                .execute_batch(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t(a {declared})"))
                .unwrap();
            // What becomes of text, of a float and of a large one tells them apart.
            connection.execute_batch("INSERT INTO t VALUES ('1.0'), (2.5), ('x')").unwrap();
            let first: String =
                connection.query_row("SELECT typeof(a) || a FROM t", [], |row| row.get(0)).unwrap();
            let second: String = connection
                .query_row("SELECT typeof(a) FROM t WHERE rowid = 2", [], |row| row.get(0))
                .unwrap();
            let expected: &[Affinity] = match (first.as_str(), second.as_str()) {
                ("text1.0", "text") => &[Affinity::Text],
                ("text1.0", "real") => &[Affinity::Blob],
                ("real1.0", _) => &[Affinity::Real],
                ("integer1", _) => &[Affinity::Integer, Affinity::Numeric],
                other => panic!("{other:?}"),
            };
            assert!(expected.contains(&Affinity::of(declared)), "{declared}");
        }
    }
}
