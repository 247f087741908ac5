//! The native form: the whole database file, as one blob.

use std::{
    fs::File,
    io::Read,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use backup_core::{
    Blob, ByteStream, Cancel, Error, Metadata, Notice, Part, Partition, Result, SourceSession,
    Summary, Worker,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{
    BLOB, catalog,
    config::Config,
    connect::{self, Access},
    copy::{self, Copy, MASKED},
    error::sql,
    source::Reader,
    version,
};

const PARTITION: &str = "main";
const PIECE_BYTES: usize = 1 << 20;

/// A copy of the database in the temporary folder; dropping it removes it.
pub(crate) struct TempCopy {
    path: PathBuf,
    // Opened once the copy is complete and closed: it is this process's own.
    file: Option<File>,
    _folder: TempDir,
}

impl TempCopy {
    /// Copies what `live` is pinned to.
    pub(crate) fn make(config: &Config, live: &Connection, cancel: &Cancel) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("backup-kit-").tempdir_in(&config.temp_dir).map_err(
                |e| Error::io("could not make a temporary folder", e).on(config.temp_dir.display()),
            )?;
        let path = folder.path().join(BLOB);
        let mut to = config.connect(&path, Access::Create)?;
        copy::fast_target(&to)?;
        Copy::new(live, &mut to, config.busy_timeout, cancel)?
            .run()
            .map_err(|e| e.on(config.path.display()))?;
        to.close().map_err(|(_, e)| sql("could not close the temporary copy")(e))?;
        Ok(Self { path, file: None, _folder: folder })
    }

    /// Opens the copy through SQLite.
    pub(crate) fn connect(&self, config: &Config) -> Result<Connection> {
        config.connect(&self.path, Access::Read)
    }

    // Opens the copy for reading by hand; its length.
    fn open(&mut self) -> Result<u64> {
        let failed = |e| Error::io("could not read the temporary copy", e);
        let file = File::open(&self.path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        self.file = Some(file);
        Ok(len)
    }

    fn read(&mut self) -> Result<Option<Bytes>> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        file.take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)
            .map_err(|e| Error::io("could not read the temporary copy", e))?;
        if piece.is_empty() {
            self.file = None;
            return Ok(None);
        }
        Ok(Some(piece.into()))
    }
}

struct Session {
    config: Arc<Config>,
    worker: Arc<Worker<Reader>>,
    cancel: Cancel,
    warning: Mutex<Option<Notice>>,
    copying: Mutex<Option<BoxFuture<'static, Result<Copied>>>>,
    facts: Mutex<Metadata>,
}

struct Copied {
    len: u64,
    facts: Metadata,
}

pub(crate) fn session(
    config: Arc<Config>,
    worker: Worker<Reader>,
    cancel: Cancel,
) -> Box<dyn SourceSession> {
    let (copied, stop) = (Arc::clone(&config), cancel.clone());
    // At once, as in rollback mode writers wait until it is done.
    let copying = worker.call(move |reader| {
        let live = reader.live.take().ok_or_else(|| Error::adapter("a session has no database"))?;
        let mut copy = TempCopy::make(&copied, &live, &stop)?;
        let facts = connect::facts(&live)?;
        live.close().map_err(|(_, e)| sql("could not close the database")(e))?;
        let len = copy.open()?;
        reader.copy = Some(copy);
        Ok(Copied { len, facts })
    });
    Box::new(Session {
        config,
        worker: Arc::new(worker),
        cancel,
        warning: Mutex::new(version::notice()),
        copying: Mutex::new(Some(copying.boxed())),
        facts: Mutex::default(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn body(worker: Arc<Worker<Reader>>, cancel: Cancel) -> ByteStream {
    futures::stream::try_unfold((worker, cancel), |(worker, cancel)| async move {
        cancel.check()?;
        let piece = worker.call(|reader| match &mut reader.copy {
            Some(copy) => copy.read(),
            None => Ok(None),
        });
        Ok(piece.await?.map(|piece| (piece, (worker, cancel))))
    })
    .boxed()
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(vec![Partition::new(PARTITION)])
    }

    async fn next(&self, _: &Partition) -> Result<Option<Part>> {
        if let Some(warning) = lock(&self.warning).take() {
            return Ok(Some(Part::Notice(warning)));
        }
        let Some(copying) = lock(&self.copying).take() else { return Ok(None) };
        let Copied { len, facts } = copying.await?;
        lock(&self.facts).clone_from(&facts);
        Ok(Some(Part::Blob(Blob {
            name: BLOB.into(),
            len: Some(len),
            masked: MASKED.to_vec(),
            metadata: facts,
            body: body(Arc::clone(&self.worker), self.cancel.clone()),
        })))
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        let config = Arc::clone(&self.config);
        let cancel = self.cancel.clone();
        let counted = self
            .worker
            .call(move |reader| {
                reader.live = None;
                let Some(mut copy) = reader.copy.take() else { return Ok(None) };
                // Before SQLite opens it.
                copy.file = None;
                if cancel.is_cancelled() {
                    return Ok(None);
                }
                catalog::counts(&copy.connect(&config)?).map(Some)
            })
            .await?;
        let mut summary = Summary::new();
        summary.metadata = lock(&self.facts).clone();
        summary.metadata.extend(version::warning());
        if let Some(tables) = counted {
            let tables = tables.into_iter().map(|(name, count)| (name, count.into())).collect();
            summary.metadata.insert("tables".into(), serde_json::Value::Object(tables));
        }
        Ok(summary)
    }
}
