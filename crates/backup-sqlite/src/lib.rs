//! SQLite for backup-kit: a live database, backed up and restored.
//!
//! ```
//! use backup_core::{Cancel, PinRequest, Pinned, Sink, Source, StagePlan};
//! use backup_sqlite::{SqliteStore, rusqlite::Connection};
//!
//! # futures::executor::block_on(async {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("state.db");
//! let host = Connection::open(&path).unwrap();
//! host.execute_batch("CREATE TABLE notes(text); INSERT INTO notes VALUES ('remember')").unwrap();
//!
//! let store = SqliteStore::open(&path)?;
//! let Pinned::Pinned { session, .. } = store.pin(&PinRequest::new()).await? else { panic!() };
//! let main = &session.partitions().await?[0];
//! let image = session.next(main).await?.expect("the database as one blob");
//! host.execute_batch("DELETE FROM notes").unwrap();
//!
//! let token = store.prepare(&StagePlan::new("restore-1", "state", "sqlite")).await?.token;
//! let restore = store.begin(&token, &Cancel::new()).await?;
//! restore.write(image).await?;
//! restore.commit().await?; // checked first: integrity, foreign keys
//! restore.finish().await?;
//! session.close().await?;
//!
//! let text: String = host.query_row("SELECT text FROM notes", [], |row| row.get(0)).unwrap();
//! assert_eq!(text, "remember"); // the open connection sees it
//! # Ok::<(), backup_core::Error>(()) }).unwrap();
//! ```
//!
//! Most hosts never call these verbs: they give the store to backup-kit, which does.
//!
//! The feature `bundled` builds SQLite in; without it the system's library is linked, and one
//! before 3.51.3 is warned about, as it can corrupt a database in WAL mode. rusqlite 0.41 links
//! with SQLite 3.44 or later only; where the system has an older one, name `rusqlite = "0.40"`
//! in the application's own manifest: any version from 0.32 on will do here.
//!
//! # What is carried
//! * **Native** (the default): the whole database file as one blob, `main.db`, copied by the
//!   online backup API within one read transaction while other connections go on writing.
//!   Everything is in it, and it opens with any SQLite.
//! * **[Logical](SqliteStore::logical)**: one collection a table, with a schema document (its
//!   statement, indexes, triggers, AUTOINCREMENT counter, settings of the database) and a
//!   record a row. The key is the primary key, or the row id where there is none; the value an
//!   object of all columns but generated ones. Integers beyond 2^53, infinities, blobs and
//!   text that is not UTF-8 (`{"$type":"Text","_value":"…"}`, its bytes in Base64) are tagged.
//!   Views stand in the schema document of the collection `sqlite_schema`, which has no
//!   records. Full-text indexes and R-trees come back: those with content of their own from
//!   records, those over another table by `rebuild`.
//!
//! A restore builds or takes a second file in a hidden folder beside the database, checks it,
//! and copies it over the live one by the online backup API: at one moment, and open
//! connections see the new content. A WAL database keeps its mode and page size.
//!
//! A [merge](backup_core::WriteMode::Merge) of records, whatever form the store is set to, makes
//! that second file of the live database and the records: a row of the same key is replaced, rows
//! of other keys stay, tables and views that are missing are made. A row that was changed after
//! the restore compared it, a row that would push out one of another key, a table of another form
//! and a foreign key that newly points nowhere refuse the whole. No trigger fires; full-text
//! indexes over other tables are rebuilt.
//!
//! # Limits
//! * A native backup makes a temporary copy ([`SqliteStore::temp_dir`]); so does a logical one
//!   of a database in rollback mode, where a long reader would keep writers out. In that mode
//!   writers wait while that copy is made. In WAL mode nobody waits, but the log grows.
//! * The logical form does not carry: contentless FTS5 and FTS4 indexes (they come back
//!   empty), virtual tables of other modules, in a UTF-16 database rows with text that is not
//!   valid (all these are reported, and make the backup partial); statistics of `ANALYZE`;
//!   hidden row ids of tables that have another primary key, unless a full-text index refers
//!   to them.
//! * A restore takes about twice the old and the new size in space beside the database until it
//!   is finished, a merge twice the old size more. Writers wait while a merge copies, merges and
//!   checks: as long as the whole database takes, not what comes.
//! * A merge needs keys: rows of a table without a primary key are told by row id, and a table
//!   whose columns took all names of the row id is refused. Contentless full-text indexes are not
//!   brought up to date. An image cannot be merged.
//! * A damaged database is backed up as it is; the damage is found when the backup is
//!   restored, by `integrity_check`.
//! * What stands at the path and is no readable database is moved aside rather than
//!   overwritten; programs that have it open must open it again.
//! * Functions, collations and modules of the application must be registered in the
//!   [opener](SqliteStore::opener), functions used in the schema as innocuous.
//!
//! # Security
//! A database out of an archive is opened with `trusted_schema` off and in defensive mode,
//! its checks end after [a time](SqliteStore::check_limit), and statements of a schema
//! document may make the one object that they name and nothing else. Its triggers and views
//! are the application's again once it is live: restore only what you trust.

mod answers;
mod catalog;
mod check;
mod config;
mod connect;
mod copy;
mod error;
mod logical;
mod merge;
mod native;
mod prepare;
mod sink;
mod source;
mod stage;
mod staging;
mod switch;
mod version;

pub use config::SqliteStore;
/// The client whose connections the opener hook returns; the version is the host's.
pub use rusqlite;

const KIND: &str = "sqlite";
/// The name of the native blob in an archive.
const BLOB: &str = "main.db";
