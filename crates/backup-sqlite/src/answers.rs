//! What a merge was told of the live records, so that the commit can see whether one of them
//! was changed since.

use backup_core::{
    Result,
    record::{Key, RecordBatch, Sha256Digest},
};
use rusqlite::{Connection, OptionalExtension, Row, Statement};

use crate::{config::Config, connect::Access, error::sql, stage::Stage};

const WRITE: &str = "could not record what the live database was seen to hold";
const READ: &str = "could not read what the live database was seen to hold";

/// The answers of one restore, in a database of their own beside the staged one.
pub(crate) struct Answers(Connection);

impl Answers {
    pub(crate) fn open(config: &Config, stage: &Stage) -> Result<Self> {
        // With the opener of the live one: keys of records are as secret as the records.
        let database = config.connect(&stage.answers(), Access::Create)?;
        // The journal is for a process that is killed; the file is synced as a whole.
        let made = database.execute_batch(
            "PRAGMA synchronous=OFF; PRAGMA journal_mode=TRUNCATE; \
             CREATE TABLE IF NOT EXISTS answers (collection TEXT, key TEXT, digest BLOB, \
             PRIMARY KEY (collection, key)) WITHOUT ROWID;",
        );
        made.map(|()| Self(database)).map_err(sql(WRITE))
    }

    /// Keeps an answer: records, and keys that were free.
    pub(crate) fn add(
        &self,
        collection: &str,
        batches: &[RecordBatch],
        free: &[&Key],
    ) -> Result<()> {
        let add = || {
            let transaction = self.0.unchecked_transaction()?;
            let mut insert =
                transaction.prepare("INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3)")?;
            for record in batches.iter().flat_map(RecordBatch::iter) {
                let digest = Sha256Digest::of(record.line().as_bytes());
                insert.execute((collection, record.key_json(), &digest.as_bytes()[..]))?;
            }
            for key in free {
                insert.execute((collection, key.as_json(), None::<&[u8]>))?;
            }
            drop(insert);
            transaction.commit()
        };
        add().map_err(sql(WRITE))
    }

    /// Reads the answers back.
    pub(crate) fn asked(&self) -> Result<Asked<'_>> {
        let query = "SELECT digest FROM answers WHERE collection = ?1 AND key = ?2";
        self.0.prepare(query).map(Asked).map_err(sql(READ))
    }
}

/// Reads answers.
pub(crate) struct Asked<'a>(Statement<'a>);

impl Asked<'_> {
    /// The digest of the line that was answered, or that there was none; `None` where nobody
    /// asked.
    pub(crate) fn get(
        &mut self,
        collection: &str,
        key: &Key,
    ) -> Result<Option<Option<Sha256Digest>>> {
        let digest = |row: &Row<'_>| row.get::<_, Option<[u8; 32]>>(0);
        let answer = self.0.query_row([collection, key.as_json()], digest).optional();
        let answer = answer.map_err(sql(READ))?;
        Ok(answer.map(|digest| digest.map(Sha256Digest::from_bytes)))
    }
}
