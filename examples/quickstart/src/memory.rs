//! A memory as an application would keep it: rows in SQLite, vectors in an index, uploads in a
//! folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use backup_kit::{
    Error, ErrorKind, Result,
    sqlite::rusqlite::{self, Connection, params},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::vectors::{self, Vectors};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA user_version = 7;
    CREATE TABLE documents (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, title TEXT NOT NULL);
    CREATE TABLE passages (
        id TEXT PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents, chunk INTEGER NOT NULL,
        content TEXT NOT NULL, tags TEXT NOT NULL, importance REAL NOT NULL, updated_at INTEGER NOT NULL,
        UNIQUE (document, chunk)) WITHOUT ROWID;
    CREATE VIRTUAL TABLE search USING fts5(title, content, passage UNINDEXED);
    CREATE TABLE recalls (number INTEGER PRIMARY KEY, note TEXT NOT NULL);
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
    INSERT INTO counters VALUES ('recalls', 0);
";

/// The three stores of the application.
pub(crate) struct Memory {
    pub(crate) state: PathBuf,
    pub(crate) uploads: PathBuf,
    pub(crate) vectors: Vectors,
}

impl Memory {
    /// Fills a new memory in `folder` from the sample.
    pub(crate) fn fill(folder: &Path, sample: &Path) -> Result<Self> {
        let points = read(&sample.join("points.jsonl"))?;
        let points: Vec<Value> = points
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).map_err(|e| broken("points.jsonl", e)))
            .collect::<Result<_>>()?;
        let embeddings = embeddings(&sample.join("vectors.npy"), points.len())?;
        let memory = Self {
            state: folder.join("state.db"),
            uploads: folder.join("uploads"),
            vectors: Vectors::fill(folder, &points, embeddings)?,
        };
        memory.fill_rows(&points)?;
        copy_tree(&sample.join("uploads"), &memory.uploads)?;
        Ok(memory)
    }

    fn fill_rows(&self, points: &[Value]) -> Result<()> {
        let mut db = Connection::open(&self.state).map_err(sql)?;
        db.execute_batch(SCHEMA).map_err(sql)?;
        let all = db.transaction().map_err(sql)?;
        for point in points {
            let payload = &point["payload"];
            let text = |name: &str| payload[name].as_str();
            all.execute(
                "INSERT INTO documents (name, title) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![text("document"), text("title")],
            )
            .map_err(sql)?;
            all.execute(
                "INSERT INTO passages VALUES
                 (?1, (SELECT id FROM documents WHERE name = ?2), ?3, ?4, ?5, ?6, ?7)",
                params![
                    point["id"].as_str(),
                    text("document"),
                    payload["chunk"].as_i64(),
                    text("content"),
                    payload["tags"].to_string(),
                    payload["importance"].as_f64(),
                    payload["updated_at"].as_i64(),
                ],
            )
            .map_err(sql)?;
            all.execute(
                "INSERT INTO search VALUES (?1, ?2, ?3)",
                params![text("title"), text("content"), point["id"].as_str()],
            )
            .map_err(sql)?;
        }
        all.commit().map_err(sql)
    }

    /// Deletes everything that was filled in; what is left is an empty memory.
    pub(crate) fn destroy(self) -> Result<Self> {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = self.state.clone().into_os_string();
            name.push(suffix);
            match fs::remove_file(&name) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        fs::remove_dir_all(&self.uploads)?;
        Ok(Self { vectors: self.vectors.destroy()?, ..self })
    }

    /// What the memory holds, by the application's own reading: rows, vectors, files.
    pub(crate) fn look(&self) -> Result<Look> {
        let db = database(&self.state)?;
        let mut rows = Sha256::new();
        for table in ["documents", "passages"] {
            hash_rows(&db, &format!("SELECT * FROM {table} ORDER BY 1"), &mut rows)?;
        }
        let count = |sql_text: &str| db.query_row(sql_text, [], |row| row.get(0)).map_err(sql);
        let mut files = Sha256::new();
        let uploads = hash_tree(&self.uploads, Path::new(""), &mut files)?;
        Ok(Look {
            documents: count("SELECT count(*) FROM documents")?,
            passages: count("SELECT count(*) FROM passages")?,
            uploads,
            found: count("SELECT count(*) FROM search WHERE search MATCH 'vacuum'")?,
            rows: hex(rows),
            files: hex(files),
            vectors: self.vectors.look()?,
        })
    }
}

/// What a memory holds.
#[derive(Debug, PartialEq)]
pub(crate) struct Look {
    pub(crate) documents: i64,
    pub(crate) passages: i64,
    pub(crate) uploads: u64,
    /// Passages that the full-text index finds for a word.
    pub(crate) found: i64,
    /// SHA-256 of all rows of both tables.
    pub(crate) rows: String,
    /// SHA-256 of names and contents.
    pub(crate) files: String,
    pub(crate) vectors: vectors::Look,
}

/// One write of the application: a note of what was recalled, and the counter that goes with it.
pub(crate) struct Recall {
    number: i64,
    note: String,
}

impl Recall {
    /// Write number `number` is always the same, so a restored database can be checked for it.
    pub(crate) fn nth(number: i64) -> Self {
        Self { number, note: hex(Sha256::new_with_prefix(number.to_le_bytes())) }
    }

    pub(crate) fn write(&self, db: &mut Connection) -> Result<()> {
        let both = db.transaction().map_err(sql)?;
        both.execute("INSERT INTO recalls VALUES (?1, ?2)", params![self.number, self.note])
            .map_err(sql)?;
        both.execute("UPDATE counters SET value = ?1 WHERE name = 'recalls'", [self.number])
            .map_err(sql)?;
        both.commit().map_err(sql)
    }

    /// How many writes a database holds; an error where it holds half of one, or skips one.
    pub(crate) fn count(state: &Path) -> Result<i64> {
        let db = database(state)?;
        let counter: i64 = db
            .query_row("SELECT value FROM counters WHERE name = 'recalls'", [], |row| row.get(0))
            .map_err(sql)?;
        let mut rows =
            db.prepare("SELECT number, note FROM recalls ORDER BY number").map_err(sql)?;
        let rows = rows
            .query_map([], |row| Ok(Self { number: row.get(0)?, note: row.get(1)? }))
            .map_err(sql)?;
        let mut last = 0;
        for row in rows {
            let row = row.map_err(sql)?;
            last += 1;
            if row.number != last || row.note != Self::nth(last).note {
                return Err(mismatch(format!("write {last} is not what was written")));
            }
        }
        if last == counter {
            Ok(last)
        } else {
            Err(mismatch(format!("there are {last} writes and the counter says {counter}")))
        }
    }
}

/// The rows of the sample's array.
fn embeddings(npy: &Path, count: usize) -> Result<Vec<Vec<f32>>> {
    let bytes = read(npy)?;
    let rows = bytes.get(128..).unwrap_or_default().chunks_exact(vectors::DIM * 4);
    if rows.len() != count {
        return Err(broken("vectors.npy", "it has another number of rows"));
    }
    let float = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Ok(rows.map(|row| row.chunks_exact(4).map(float).collect()).collect())
}

/// Opens the application's database.
pub(crate) fn database(path: &Path) -> Result<Connection> {
    let db = Connection::open(path).map_err(sql)?;
    db.pragma_update(None, "synchronous", "normal").map_err(sql)?;
    db.busy_timeout(std::time::Duration::from_secs(5)).map_err(sql)?;
    Ok(db)
}

fn hash_rows(db: &Connection, query: &str, hash: &mut Sha256) -> Result<()> {
    let mut query = db.prepare(query).map_err(sql)?;
    let columns = query.column_count();
    let mut rows = query.query([]).map_err(sql)?;
    while let Some(row) = rows.next().map_err(sql)? {
        for column in 0..columns {
            let value: rusqlite::types::Value = row.get(column).map_err(sql)?;
            hash.update(format!("{value:?}\n"));
        }
    }
    Ok(())
}

/// Hashes names and contents; how many files there are.
fn hash_tree(folder: &Path, within: &Path, hash: &mut Sha256) -> Result<u64> {
    let mut files = 0;
    for path in children(folder)? {
        let name = within.join(path.file_name().unwrap_or_default());
        hash.update(format!("{}\n", name.display()));
        if path.is_dir() {
            files += hash_tree(&path, &name, hash)?;
        } else {
            hash.update(Sha256::digest(read(&path)?));
            files += 1;
        }
    }
    Ok(files)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for path in children(from)? {
        let copy = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() { copy_tree(&path, &copy)? } else { fs::write(copy, read(&path)?)? }
    }
    Ok(())
}

fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(folder).map_err(|e| Error::io("a folder cannot be read", e))?;
    let mut paths: Vec<_> = list.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io("a file cannot be read", e).on(path.display()))
}

pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sql(error: rusqlite::Error) -> Error {
    Error::new(ErrorKind::Io, "SQLite failed").because(error)
}

fn mismatch(what: String) -> Error {
    Error::new(ErrorKind::Mismatch, what)
}

fn broken(file: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Corrupt, "the sample is damaged").on(file).because(cause)
}
