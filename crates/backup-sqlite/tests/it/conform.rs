//! The suite that every adapter runs, for both forms and both journal modes.

use backup_conformance::{Asked, Dataset, Harness, Rows};
use backup_core::{Error, ErrorKind, Result, async_trait, record::tagged::Scalar};
use backup_sqlite::{SqliteStore, rusqlite::types::Value};

use crate::{
    fixture::Place,
    kit::{dump, names},
};

struct Database {
    logical: bool,
    wal: bool,
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn value(scalar: &Scalar) -> Value {
    match scalar.clone() {
        Scalar::Null => Value::Null,
        Scalar::Integer(i) => Value::Integer(i64::try_from(i).unwrap()),
        Scalar::Float(f) => Value::Real(f),
        Scalar::Text(text) => Value::Text(text),
        Scalar::Bytes(bytes) => Value::Blob(bytes),
        Scalar::Bool(_) => panic!("not held"),
    }
}

fn fill(place: &Place, rows: &Rows) {
    let connection = place.run("BEGIN");
    let table = quote(&rows.name);
    let Some(first) = rows.rows.first() else {
        connection.execute_batch(&format!("CREATE TABLE {table} (mark); COMMIT")).unwrap();
        return;
    };
    let keys: Vec<_> =
        (0..first.key.scalars().unwrap().len()).map(|i| format!("key {i}")).collect();
    let columns: Vec<_> = keys.iter().chain(first.fields.keys()).map(|name| quote(name)).collect();
    let key = keys.iter().map(|key| quote(key)).collect::<Vec<_>>().join(", ");
    let without = if keys.len() > 1 { "WITHOUT ROWID" } else { "" };
    let all = columns.join(", ");
    connection
        .execute_batch(&format!("CREATE TABLE {table} ({all}, PRIMARY KEY ({key})) {without}"))
        .unwrap();
    let holders = vec!["?"; columns.len()].join(", ");
    let mut insert =
        connection.prepare(&format!("INSERT INTO {table} VALUES ({holders})")).unwrap();
    for row in &rows.rows {
        let scalars = row.key.scalars().unwrap();
        let values = scalars.iter().chain(row.fields.values()).map(value);
        insert.execute(backup_sqlite::rusqlite::params_from_iter(values)).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

#[async_trait(?Send)]
impl Harness for Database {
    type Place = Place;
    type Store = SqliteStore;

    async fn place(&self) -> Result<Place> {
        Ok(Place::with(if self.wal { "PRAGMA journal_mode = WAL" } else { "VACUUM" }))
    }

    async fn open(&self, place: &Place) -> Result<SqliteStore> {
        let store = place.store();
        Ok(if self.logical { store.logical() } else { store.native() })
    }

    async fn fill(&self, place: &Place, data: &Dataset) -> Result<()> {
        data.collections.iter().for_each(|rows| fill(place, rows));
        Ok(())
    }

    async fn change(&self, place: &Place) -> Result<()> {
        let changed = place.run("").execute_batch(
            "CREATE TABLE IF NOT EXISTS changed (a); INSERT INTO changed VALUES (random())",
        );
        changed.map_err(|e| Error::new(ErrorKind::Io, "could not change the database").because(e))
    }

    async fn dump(&self, place: &Place) -> Result<Option<Vec<String>>> {
        Ok(Some(dump(&place.path)))
    }

    async fn trace(&self, place: &Place) -> Result<Option<Vec<String>>> {
        let content = ["state.db", "state.db-wal", "state.db-shm", "state.db-journal"];
        let mut names = names(place.dir());
        names.retain(|name| !content.contains(&name.as_str()));
        Ok(Some(names))
    }

    fn holds(&self, what: Asked<'_>) -> bool {
        match what {
            // The names of tables are the same in upper and in lower case.
            Asked::Collection(name) => name != "TWIN",
            Asked::Value(value) => match value {
                Scalar::Bool(_) => false,
                Scalar::Float(f) => !f.is_nan(),
                _ => true,
            },
            _ => true,
        }
    }
}

#[test]
fn the_native_form_conforms() {
    for wal in [false, true] {
        backup_conformance::run(&Database { logical: false, wal });
    }
}

#[test]
fn the_logical_form_conforms() {
    for wal in [false, true] {
        backup_conformance::run(&Database { logical: true, wal });
    }
}
