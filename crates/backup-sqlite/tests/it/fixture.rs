//! Databases with one of everything.

use std::path::{Path, PathBuf};

use backup_sqlite::{SqliteStore, rusqlite::Connection};
use tempfile::TempDir;

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("state.db");
        Self { folder, path }
    }

    pub(crate) fn with(sql: &str) -> Self {
        let place = Self::new();
        place.run(sql);
        place
    }

    pub(crate) fn run(&self, sql: &str) -> Connection {
        let connection = Connection::open(&self.path).unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    pub(crate) fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.path).unwrap()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }
}

/// Every kind of table and value.
pub(crate) const RICH: &str = r#"
    PRAGMA user_version = 42;
    PRAGMA application_id = -7;
    PRAGMA foreign_keys = OFF;
    CREATE TABLE plain (id INTEGER PRIMARY KEY, v, t TEXT DEFAULT 'x');
    INSERT INTO plain VALUES (1, NULL, 'a'), (2, 9223372036854775807, ''), (-3, -9223372036854775808, NULL),
        (4, 1.5, 'é'), (5, 9e999, 'inf'), (6, -9e999, 'x'), (7, x'00ff', char(0) || 'nul'),
        (8, x'', 'empty'), (9, 1e22, 'big'), (10, 5e-324, 'small'), (11, 0.1, '{"$type":"Base64"}'),
        (12, 9007199254740993, 'beyond'), (13, CAST(x'ff41' AS TEXT), 'not UTF-8'), (14, 1.0, 'whole');
    CREATE TABLE real_column (r REAL, n NUMERIC, b BLOB, PRIMARY KEY (r));
    INSERT INTO real_column VALUES (3, '12', '12'), (-0.0, 1e3, 7), (2.5, 'x', 2.5);
    CREATE TABLE no_key (a, b);
    INSERT INTO no_key (rowid, a, b) VALUES (5, 'x', 1), (9, 'x', 1), (-2, NULL, NULL);
    CREATE TABLE text_key (k TEXT PRIMARY KEY, v);
    INSERT INTO text_key VALUES ('b', 1), ('a', 2), (NULL, 3), (NULL, 3);
    CREATE TABLE composite (a TEXT, b INTEGER, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
    INSERT INTO composite VALUES ('x', 1, 'one'), ('x', 2, 'two'), ('y', 1, x'01');
    CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
    INSERT INTO counted(v) VALUES ('a'), ('b'), ('c');
    DELETE FROM counted WHERE id > 1;
    CREATE TABLE made (a INTEGER, b INTEGER GENERATED ALWAYS AS (a * 2) VIRTUAL,
        c TEXT GENERATED ALWAYS AS (a || '!') STORED, d);
    INSERT INTO made(a, d) VALUES (1, 'x'), (21, 'y');
    CREATE TABLE strict_one (id INTEGER PRIMARY KEY, n INT, a ANY) STRICT;
    INSERT INTO strict_one VALUES (1, 2, '12'), (2, 3, x'02');
    CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE child (id INTEGER PRIMARY KEY, p REFERENCES parent);
    INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1), (2, NULL);
    CREATE TABLE taken (rowid, _rowid_, oid);
    INSERT INTO taken VALUES (1, 2, 3), (1, 2, 3);
    CREATE TABLE no_rows (a, b);
    CREATE INDEX by_v ON plain(v) WHERE v IS NOT NULL;
    CREATE UNIQUE INDEX by_expression ON plain(lower(t), id DESC);
    CREATE VIEW some AS SELECT id, v FROM plain WHERE id > 2;
    CREATE TRIGGER on_view INSTEAD OF INSERT ON some BEGIN INSERT INTO no_key VALUES (new.id, 'view'); END;
    CREATE TRIGGER on_plain AFTER INSERT ON plain BEGIN INSERT INTO no_key VALUES (new.id, 'fired; really'); END;

    CREATE VIRTUAL TABLE own USING fts5(title, body, tokenize = 'porter unicode61', prefix = '2 3');
    INSERT INTO own(rowid, title, body) VALUES (7, 'hello', 'running water'), (90, 'world', NULL);
    INSERT INTO own(own, rank) VALUES ('rank', 'bm25(10.0, 5.0)');
    INSERT INTO own(own, rank) VALUES ('automerge', 6);
    CREATE TABLE docs (name TEXT PRIMARY KEY, body TEXT);
    INSERT INTO docs(rowid, name, body) VALUES (11, 'one', 'quick brown fox'), (33, 'two', 'lazy dog');
    CREATE VIRTUAL TABLE outside USING fts5(body, content='docs');
    INSERT INTO outside(outside) VALUES ('rebuild');
    CREATE VIRTUAL TABLE terms USING fts5vocab('own', 'row');
    CREATE VIRTUAL TABLE old USING fts4(a, b);
    INSERT INTO old(rowid, a, b) VALUES (3, 'x', 'y');
    CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, +note);
    INSERT INTO boxes VALUES (4, 0.1, 1.7, 'a'), (6, -3.0, 9.5, NULL);
"#;

/// Names that want to be something else.
pub(crate) const NAMES: [&str; 9] = [
    "a\"b",
    "it's",
    "`tick`",
    "new\nline",
    "täble ☃",
    "x\"; DROP TABLE plain; --",
    "[bracket]",
    "select",
    " ",
];

pub(crate) fn hostile(place: &Place) {
    let connection = place.run("");
    let long = "n".repeat(300);
    for name in NAMES.iter().copied().chain([long.as_str(), ""]) {
        let quoted = name.replace('"', "\"\"");
        connection
            .execute_batch(&format!(
                "CREATE TABLE \"{quoted}\" (\"{quoted}\" TEXT PRIMARY KEY, \"c {quoted}\");
                 CREATE INDEX \"i {quoted}\" ON \"{quoted}\"(\"c {quoted}\");
                 CREATE TRIGGER \"t {quoted}\" AFTER DELETE ON \"{quoted}\" BEGIN SELECT 1; END;
                 CREATE VIEW \"v {quoted}\" AS SELECT * FROM \"{quoted}\";"
            ))
            .unwrap();
        connection
            .execute(
                &format!("INSERT INTO \"{quoted}\" VALUES (?1, ?2)"),
                [name, "'); DROP TABLE x; --"],
            )
            .unwrap();
    }
}
