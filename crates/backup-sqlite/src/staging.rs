//! One restore under way: parts in, a checked database out.

use std::{
    fs::{self, File},
    io::Write,
    ops::Range,
    path::Path,
    sync::Arc,
};

use backup_core::{
    Cancel, Content, Error, ErrorKind, Result, Schema,
    record::{Key, RecordBatch},
};
use rusqlite::Connection;

use crate::{
    BLOB,
    answers::Answers,
    catalog, check,
    config::Config,
    connect::{self, Access},
    copy,
    error::sql,
    logical::{self, Staged, Writer},
    prepare,
    stage::{Fingerprint, Seal, Stage},
    switch::{self, Live},
};

/// What a sink session's thread owns.
pub(crate) struct Staging {
    config: Arc<Config>,
    stage: Stage,
    cancel: Cancel,
    incoming: Incoming,
    answers: Option<Answers>,
}

enum Incoming {
    Nothing,
    Image(File),
    Rows(Box<Writer>),
}

impl Staging {
    pub(crate) fn new(config: Arc<Config>, stage: Stage, cancel: Cancel) -> Self {
        Self { config, stage, cancel, incoming: Incoming::Nothing, answers: None }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The live records of some keys; a merge remembers what it was told.
    pub(crate) fn existing(&mut self, name: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        let (batches, free) = match switch::look(&self.config)? {
            Live::Absent => (Vec::new(), keys.iter().collect()),
            Live::Unreadable(error) => return Err(switch::unmergeable(error)),
            Live::Database { .. } => {
                let live = self.config.connect(&self.config.path, Access::Read)?;
                connect::pin(&live)?;
                logical::existing(&live, name, keys, &self.cancel)
                    .map_err(|e| e.on(self.config.path.display()))?
            }
        };
        if self.stage.merges() {
            let answers = match self.answers.take() {
                Some(answers) => answers,
                None => Answers::open(&self.config, &self.stage)?,
            };
            answers.add(name, &batches, &free)?;
            self.answers = Some(answers);
        }
        Ok(batches)
    }

    pub(crate) fn begin_blob(&mut self) -> Result<()> {
        if self.stage.merges() {
            return Err(prepare::no_image());
        }
        if !matches!(self.incoming, Incoming::Nothing) || !self.stage.documents()?.is_empty() {
            return Err(mixed());
        }
        let path = self.stage.staged();
        let file = File::create(&path)
            .map_err(|e| Error::io("could not stage the database", e).on(path.display()))?;
        self.incoming = Incoming::Image(file);
        Ok(())
    }

    pub(crate) fn blob_piece(&mut self, piece: &[u8]) -> Result<()> {
        let Incoming::Image(file) = &mut self.incoming else { return Err(mixed()) };
        file.write_all(piece).map_err(|e| {
            Error::io("could not stage the database", e).on(self.stage.staged().display())
        })
    }

    pub(crate) fn end_blob(&mut self, masked: &[Range<u64>]) -> Result<()> {
        let Incoming::Image(file) = &mut self.incoming else { return Err(mixed()) };
        file.sync_all().map_err(|e| Error::io("could not stage the database", e))?;
        self.incoming = Incoming::Nothing;
        self.stage.write_arrived(masked)
    }

    pub(crate) fn schema(&mut self, schema: &Schema) -> Result<()> {
        self.writer()?.schema(schema)
    }

    pub(crate) fn records(&mut self, batch: RecordBatch) -> Result<()> {
        let cancel = self.cancel.clone();
        self.writer()?.records(&batch, &cancel)
    }

    fn writer(&mut self) -> Result<&mut Writer> {
        if matches!(self.incoming, Incoming::Nothing) && self.stage.arrived()?.is_none() {
            let writer = Writer::open(&self.config, &self.stage, &self.cancel)?;
            self.incoming = Incoming::Rows(Box::new(writer));
        }
        match &mut self.incoming {
            Incoming::Rows(writer) => Ok(writer),
            _ => Err(mixed()),
        }
    }

    pub(crate) fn verify(&mut self, expected: &Content) -> Result<Content> {
        let seal = self.seal()?;
        let switched = self.stage.is_committed() || self.stage.is_undoing();
        let path = if switched { &self.config.path } else { &self.stage.staged() };
        if self.stage.merges() {
            return self.verify_merge(switched);
        }
        let Some(blob) = seal.blob else {
            let database = self.config.connect(path, Access::Read)?;
            connect::pin(&database)?;
            return logical::tally(&database, expected, &self.cancel);
        };
        // What is there now has the digest of the blob if it is what was staged from the blob;
        // else its own.
        let mut content = Content::new();
        let found = if switched {
            switch::live_fingerprint(&self.config, &self.stage)?
        } else {
            Some(Fingerprint { image: copy::digest(path)?, rows: None })
        };
        if let Some(found) = found {
            let mut blob = blob;
            if !found.same(&seal.staged) {
                blob.digest = found.image;
            }
            content.blobs.insert(BLOB.to_owned(), blob);
        }
        Ok(content)
    }

    fn verify_merge(&self, switched: bool) -> Result<Content> {
        let staged = self.config.connect(&self.stage.staged(), Access::Read)?;
        let staged = Staged::new(staged, &self.stage)?;
        if !switched {
            return staged.tally(&self.cancel);
        }
        let live = self.config.connect(&self.config.path, Access::Read)?;
        connect::pin(&live)?;
        staged.tally_in(&live, &self.cancel)
    }

    pub(crate) fn commit(&mut self) -> Result<()> {
        self.seal()?;
        switch::commit(&self.config, &self.stage, &self.cancel)
            .map_err(|e| e.on(self.config.path.display()))
    }

    pub(crate) fn abort(&mut self) -> Result<()> {
        if self.stage.is_committed() && !self.stage.is_undoing() {
            return Err(Error::adapter("a restore was aborted after it was committed"));
        }
        switch::release(&self.config, &self.stage)?;
        self.remove()
    }

    pub(crate) fn remove(&mut self) -> Result<()> {
        self.incoming = Incoming::Nothing;
        self.answers = None;
        self.stage.remove()
    }

    // Completes and checks what was staged, once.
    fn seal(&mut self) -> Result<Seal> {
        if let Some(seal) = self.stage.seal()? {
            return Ok(seal);
        }
        if self.stage.merges() {
            return self.seal_rows();
        }
        let path = self.stage.staged();
        let live = switch::look(&self.config)?;
        let masked = self.stage.arrived()?;
        let blob = masked.as_deref().map(|masked| copy::image(&path, masked)).transpose()?;
        let wal_wanted = match blob {
            Some(_) => None,
            None => Some(self.written()?.finish()?),
        };
        let mut staged = self.config.connect(&path, Access::Write)?;
        self.check(&mut staged)?;
        let rows = self.fit(&mut staged, &live, wal_wanted)?;
        staged.close().map_err(|(_, e)| sql("could not close the staged database")(e))?;
        let converted = self.converted();
        if converted.exists() {
            fs::rename(&converted, &path)
                .map_err(|e| Error::io("could not stage the database", e).on(path.display()))?;
        }
        copy::sync(&path)?;
        let seal = Seal { blob, staged: Fingerprint { image: copy::digest(&path)?, rows } };
        self.stage.write_seal(&seal)?;
        Ok(seal)
    }

    // Tables and rows as they came, for a merge: the rest is done in the commit.
    fn seal_rows(&mut self) -> Result<Seal> {
        self.written()?.finish_rows()?;
        self.answers = None;
        let answers = self.stage.answers();
        if answers.exists() {
            copy::sync(&answers)?;
        }
        let path = self.stage.staged();
        copy::sync(&path)?;
        let staged = Fingerprint { image: copy::digest(&path)?, rows: None };
        let seal = Seal { blob: None, staged };
        self.stage.write_seal(&seal)?;
        Ok(seal)
    }

    // What took the records.
    fn written(&mut self) -> Result<Writer> {
        match std::mem::replace(&mut self.incoming, Incoming::Nothing) {
            Incoming::Rows(writer) => Ok(*writer),
            // Staged by another process; or no part came at all, which is an empty database.
            Incoming::Nothing
                if !self.stage.staged().exists() || !self.stage.documents()?.is_empty() =>
            {
                Writer::open(&self.config, &self.stage, &self.cancel)
            }
            _ => Err(Error::new(ErrorKind::Corrupt, "a restore was staged only in part")
                .on(self.stage.folder().display())
                .advise("abort it and restore again")),
        }
    }

    fn converted(&self) -> std::path::PathBuf {
        self.stage.folder().join("converted.db")
    }

    // A database that came out of an archive is not trusted before it passed this.
    fn check(&self, staged: &mut Connection) -> Result<()> {
        connect::limited(staged, self.config.check_limit, &self.cancel, |staged| {
            check::integrity(staged)?;
            if self.config.dangling { Ok(()) } else { check::foreign_keys(staged) }
        })
    }

    // Brings the staged database to what the target's mode asks for; the digest of its rows
    // where its image will not be comparable.
    fn fit(
        &self,
        staged: &mut Connection,
        live: &Live,
        wal_wanted: Option<bool>,
    ) -> Result<Option<catalog::RowsDigest>> {
        if connect::pragma::<i64>(staged, "page_count")? == 0 {
            // A first page, so that there is something to copy.
            staged
                .execute_batch("BEGIN IMMEDIATE; PRAGMA user_version=0; COMMIT")
                .map_err(sql("could not fit the staged database to its place"))?;
        }
        match live {
            // The target keeps its journal mode: connections to it rely on that.
            Live::Database { wal, page_size, .. } => {
                connect::set_journal_mode(staged, "delete")?;
                if *wal && connect::pragma::<i64>(staged, "page_size")? != *page_size {
                    return self.convert(staged, *page_size).map(Some);
                }
            }
            _ if wal_wanted == Some(true) => connect::set_journal_mode(staged, "wal")?,
            _ => {}
        }
        self.config.opener.as_ref().map(|_| catalog::rows_digest(staged)).transpose()
    }

    // A database in WAL mode refuses pages of another size.
    fn convert(&self, staged: &Connection, page_size: i64) -> Result<catalog::RowsDigest> {
        let path = self.converted();
        switch::remove_files(&path)?;
        let failed = "could not bring the staged database to the page size of its target";
        let rows = catalog::rows_digest(staged)?;
        staged.execute_batch(&format!("PRAGMA page_size={page_size}")).map_err(sql(failed))?;
        let name = path.to_str().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the database's path is not UTF-8")
        })?;
        staged.execute("VACUUM INTO ?1", [name]).map_err(sql(failed))?;
        let converted = self.config.connect(&path, Access::Read)?;
        if catalog::rows_digest(&converted)? != rows {
            return Err(Error::new(ErrorKind::Mismatch, failed).on(path_name(&path)));
        }
        Ok(rows)
    }
}

fn path_name(path: &Path) -> String {
    path.display().to_string()
}

fn mixed() -> Error {
    Error::new(ErrorKind::Unsupported, "an image of a database and records came together")
}
