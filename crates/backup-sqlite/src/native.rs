//! The native form: the whole database file, as one blob.

use std::{
    fs::File,
    io::Read,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
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
// A year: counting ends with the session.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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
    worker: Arc<Worker<Reader>>,
    cancel: Cancel,
    warning: Mutex<Option<Notice>>,
    copying: Mutex<Option<BoxFuture<'static, Result<Copied>>>>,
    facts: Mutex<Metadata>,
    counting: Mutex<Option<Counting>>,
}

struct Copied {
    len: u64,
    facts: Metadata,
    counting: Counting,
}

/// The rows of the copy, counted on a thread of its own while the copy is read.
struct Counting {
    counts: BoxFuture<'static, Result<Counts>>,
    stop: Cancel,
}

type Counts = Vec<(String, Option<u64>)>;

impl Counting {
    fn start(config: Arc<Config>, copy: PathBuf) -> Result<Self> {
        let stop = Cancel::new();
        let flag = stop.clone();
        let worker = Worker::spawn("sqlite counts", move || config.connect(&copy, Access::Read))?;
        let counts =
            worker.call(move |copy| connect::limited(copy, NO_LIMIT, &flag, catalog::counts));
        Ok(Self { counts: counts.boxed(), stop })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.stop.cancel();
    }
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
        let counting = Counting::start(copied, copy.path.clone())?;
        reader.copy = Some(copy);
        Ok(Copied { len, facts, counting })
    });
    Box::new(Session {
        worker: Arc::new(worker),
        cancel,
        warning: Mutex::new(version::notice()),
        copying: Mutex::new(Some(copying.boxed())),
        facts: Mutex::default(),
        counting: Mutex::default(),
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
        let Copied { len, facts, counting } = copying.await?;
        lock(&self.facts).clone_from(&facts);
        *lock(&self.counting) = Some(counting);
        Ok(Some(Part::Blob(Blob {
            name: BLOB.into(),
            len: Some(len),
            masked: MASKED.to_vec(),
            metadata: facts,
            body: body(Arc::clone(&self.worker), self.cancel.clone()),
        })))
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        let counting = lock(&self.counting).take().filter(|_| !self.cancel.is_cancelled());
        let counted = match counting {
            Some(mut counting) => Some((&mut counting.counts).await?),
            None => None,
        };
        let removed = self.worker.call(|reader| {
            *reader = Reader::default();
            Ok(())
        });
        removed.await?;
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
