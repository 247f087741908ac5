//! One restore under way: parts in, a checked database out.

use std::{
    fs::{self, File},
    io::Write,
    ops::Range,
    path::Path,
    sync::Arc,
};

use backup_core::{Cancel, Content, Error, ErrorKind, Result, Schema, record::RecordBatch};
use rusqlite::Connection;

use crate::{
    BLOB, catalog,
    config::Config,
    connect::{self, Access},
    copy,
    error::sql,
    logical::{self, Writer},
    stage::{Fingerprint, Seal, Stage},
    switch::{self, Live},
};

/// What a sink session's thread owns.
pub(crate) struct Staging {
    config: Arc<Config>,
    stage: Stage,
    cancel: Cancel,
    incoming: Incoming,
}

enum Incoming {
    Nothing,
    Image(File),
    Rows(Box<Writer>),
}

impl Staging {
    pub(crate) fn new(config: Arc<Config>, stage: Stage, cancel: Cancel) -> Self {
        Self { config, stage, cancel, incoming: Incoming::Nothing }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.stage
    }

    pub(crate) fn begin_blob(&mut self) -> Result<()> {
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
        self.stage.remove()
    }

    // Completes and checks what was staged, once.
    fn seal(&mut self) -> Result<Seal> {
        if let Some(seal) = self.stage.seal()? {
            return Ok(seal);
        }
        let path = self.stage.staged();
        let live = switch::look(&self.config)?;
        let masked = self.stage.arrived()?;
        let blob = masked.as_deref().map(|masked| copy::image(&path, masked)).transpose()?;
        let wal_wanted = match (&blob, std::mem::replace(&mut self.incoming, Incoming::Nothing)) {
            (Some(_), _) => None,
            (None, Incoming::Rows(writer)) => Some(writer.finish()?),
            // Staged by another process; or no part came at all, which is an empty database.
            (None, Incoming::Nothing) if !path.exists() || !self.stage.documents()?.is_empty() => {
                Some(Writer::open(&self.config, &self.stage, &self.cancel)?.finish()?)
            }
            (None, _) => {
                return Err(Error::new(ErrorKind::Corrupt, "a restore was staged only in part")
                    .on(self.stage.folder().display())
                    .advise("abort it and restore again"));
            }
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

    fn converted(&self) -> std::path::PathBuf {
        self.stage.folder().join("converted.db")
    }

    // A database that came out of an archive is not trusted before it passed this.
    fn check(&self, staged: &mut Connection) -> Result<()> {
        connect::limited(staged, self.config.check_limit, &self.cancel, |staged| {
            integrity(staged)?;
            if self.config.dangling { Ok(()) } else { foreign_keys(staged) }
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

fn integrity(staged: &Connection) -> Result<()> {
    let read = || -> rusqlite::Result<Vec<String>> {
        staged.prepare("PRAGMA integrity_check(5)")?.query_map([], |row| row.get(0))?.collect()
    };
    let faults = read().map_err(sql("could not check the staged database"))?;
    if faults == ["ok"] {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, "the staged database is damaged")
        .on(faults.join("; "))
        .advise("restore another backup; the live database was not touched"))
}

fn foreign_keys(staged: &Connection) -> Result<()> {
    let read = || -> rusqlite::Result<Option<String>> {
        let mut statement = staged.prepare("PRAGMA foreign_key_check")?;
        let mut rows = statement.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        Ok(Some(format!("{table} refers to rows of {parent} that are not there")))
    };
    match read().map_err(sql("could not check the foreign keys of the staged database"))? {
        None => Ok(()),
        Some(fault) => Err(Error::new(ErrorKind::Mismatch, "a foreign key points nowhere")
            .on(fault)
            .advise("if the application allows that, accept dangling references in the options")),
    }
}

fn mixed() -> Error {
    Error::new(ErrorKind::Unsupported, "an image of a database and records came together")
}
