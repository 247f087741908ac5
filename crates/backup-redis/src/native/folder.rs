//! The folder of a server that is stopped.

use std::{
    fs::File,
    io::Write,
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use backup_core::{
    Adapter, Blob, Cancel, Capabilities, Content, Description, Error, ErrorKind, Metadata, Part,
    Partition, PinRequest, Pinned, Prepared, Reattached, Result, Sink, SinkSession, Source,
    SourceSession, StagePlan, StageToken, Summary, Switch, Worker, async_trait,
};
use futures::StreamExt;
use tokio::sync::{Mutex, mpsc};

use super::{
    stage::{Phase, Stage, failed},
    stream::{DUMP, dump},
};

/// The snapshot file of a server that is stopped while a restore switches: takes
/// [native](crate::RedisOptions::native) backups.
///
/// A restore writes the new file beside the old one, compares it, and renames it into place; the
/// old one stays until the end, and comes back when the restore is taken back. The server has to
/// be stopped from the first switch to the last: `RestoreHooks` do that. Whether it is, is asked
/// before a file is renamed. A server started afterwards loads the file, if it is not of an older
/// version than the one that made it.
///
/// As the source of a backup it gives the file as it is, which is what the server saved last.
///
/// ```no_run
/// use backup_core::{Catalog, Stores};
/// use backup_redis::RedisFolder;
///
/// # async fn example() -> backup_core::Result<()> {
/// let file = RedisFolder::new("/var/lib/redis/dump.rdb", "localhost:6379")?;
/// let memory = Stores::new("docs-memory", "1.0.0").with("state", file);
/// let plan = memory.plan_restore(&Catalog::open("backups")?.latest()?).await?;
/// plan.execute().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RedisFolder {
    file: PathBuf,
    server: String,
}

impl RedisFolder {
    /// The file that a server loads (`dir` and `dbfilename` of its configuration), and the
    /// address, `host:port`, at which it listens when it runs.
    ///
    /// # Errors
    /// A path without a file's name, an address without a port.
    pub fn new(file: impl AsRef<Path>, server: &str) -> Result<Self> {
        let file = std::path::absolute(file.as_ref())
            .map_err(|e| failed("looked for", file.as_ref(), e))?;
        if file.file_name().is_none() {
            let what = "the path of a snapshot names no file";
            return Err(Error::new(ErrorKind::InvalidInput, what).on(file.display()));
        }
        let port = server.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            let what = "the address of a server is not host:port";
            return Err(Error::new(ErrorKind::InvalidInput, what).on(server));
        }
        Ok(Self { file, server: server.to_owned() })
    }

    fn stage(&self, token: &StageToken) -> Result<Stage> {
        let (file, restore_id): (PathBuf, String) = token.read(self)?;
        if file != self.file {
            let what = "a restore was begun for another file";
            return Err(Error::new(ErrorKind::Incompatible, what).on(file.display()));
        }
        Stage::of(&file, &restore_id)
    }

    fn session(&self, stage: Stage, file: Option<File>, cancel: &Cancel) -> Result<Writing> {
        let files = Files { stage, file, server: self.server.clone() };
        let files = Worker::spawn("redis-folder", move || Ok(files))?;
        Ok(Writing { files, cancel: cancel.clone() })
    }

    /// A server with an append-only file reads that, and not the snapshot.
    fn appends(&self) -> Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        for name in ["appendonlydir", "appendonly.aof"] {
            let path = folder.join(name);
            if path.try_exists().map_err(|e| failed("looked for", &path, e))? {
                let what = "the server has an append-only file, and would not read the snapshot";
                return Err(Error::new(ErrorKind::Unsupported, what).on(path.display()).advise(
                    "turn `appendonly` off and move the file away, or restore records through \
                     the running server",
                ));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Adapter for RedisFolder {
    fn kind(&self) -> &'static str {
        crate::KIND
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.blobs = true;
        can.pins = true;
        can.undo = true;
        can
    }

    fn owned_paths(&self) -> Vec<PathBuf> {
        vec![self.file.clone()]
    }

    async fn describe(&self) -> Result<Description> {
        Ok(Description::new("Redis"))
    }
}

#[async_trait]
impl Source for RedisFolder {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        request.cancel.check()?;
        if let Some(name) = request.collections.first() {
            let what = "a snapshot file is backed up whole, and not by collection";
            return Err(Error::new(ErrorKind::Unsupported, what).on(name));
        }
        // An open file outlives its name: a server that saves renames another one over it.
        let file = match File::open(&self.file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(|e| failed("opened", &self.file, e))?),
        };
        let (send, parts) = mpsc::channel(1);
        if let Some(file) = file {
            let len = file.metadata().map_err(|e| failed("read", &self.file, e))?.len();
            thread::Builder::new()
                .name("redis-folder".to_owned())
                .spawn(move || dump(file, Some(len), Metadata::new(), &send))
                .map_err(|e| Error::io("could not start a thread", e))?;
        }
        let session = Reading { parts: Mutex::new(parts), cancel: request.cancel.clone() };
        Ok(Pinned::Pinned { session: Box::new(session), mark: None })
    }
}

struct Reading {
    parts: Mutex<mpsc::Receiver<Result<Part>>>,
    cancel: Cancel,
}

#[async_trait]
impl SourceSession for Reading {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(vec![Partition::new("file")])
    }

    async fn next(&self, _: &Partition) -> Result<Option<Part>> {
        self.cancel.check()?;
        self.parts.lock().await.recv().await.transpose()
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        Ok(Summary::new())
    }
}

#[async_trait]
impl Sink for RedisFolder {
    fn staging_paths(&self, restore_id: &str) -> Vec<PathBuf> {
        let stage = Stage::of(&self.file, restore_id);
        stage.map_or(Vec::new(), |stage| vec![stage.new, stage.old, stage.undone])
    }

    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        plan.check(self)?;
        if !plan.content.collections.is_empty() || !plan.content.blobs.keys().eq([DUMP]) {
            let what = "a stopped server takes a native backup, which is one snapshot";
            return Err(Error::new(ErrorKind::Incompatible, what)
                .on(&plan.store)
                .advise("restore records through a server that runs"));
        }
        self.appends()?;
        Stage::of(&self.file, &plan.restore_id)?;
        let token = plan.token(&(&self.file, &plan.restore_id))?;
        let note = format!("the server at {} has to be stopped for the switch", self.server);
        Ok(Prepared { token, switch: Switch::AtomicPointer, notes: vec![note] })
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        cancel.check()?;
        let stage = self.stage(token)?;
        let file = Some(stage.begin()?);
        Ok(Box::new(self.session(stage, file, cancel)?))
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let stage = self.stage(token)?;
        let phase = stage.phase()?;
        let session = || Ok::<_, Error>(Box::new(self.session(stage, None, &Cancel::new())?));
        Ok(match phase {
            Phase::Absent => Reattached::Absent,
            Phase::Staged => Reattached::Staged(session()?),
            Phase::Committed => Reattached::Committed(session()?),
            Phase::Undone => Reattached::Undone(session()?),
        })
    }
}

struct Writing {
    files: Worker<Files>,
    cancel: Cancel,
}

struct Files {
    stage: Stage,
    /// None in a session that was reattached: nobody knows how much of the last write arrived.
    file: Option<File>,
    server: String,
}

impl Files {
    fn write(&mut self, piece: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else {
            let what = "a snapshot that was written in part cannot be gone on with";
            return Err(Error::new(ErrorKind::Unfinished, what).advise("begin the restore again"));
        };
        file.write_all(piece).map_err(|e| failed("written", &self.stage.new, e))
    }

    fn commit(&self) -> Result<()> {
        self.stage.commit(|| stopped(&self.server))
    }

    fn undo(&self) -> Result<()> {
        self.stage.undo(|| stopped(&self.server))
    }
}

/// Refuses to go on where something listens at the server's address.
fn stopped(server: &str) -> Result<()> {
    let addresses = server.to_socket_addrs().map_err(|e| {
        Error::new(ErrorKind::Unreachable, "whether the server is stopped cannot be told")
            .on(server)
            .because(e)
            .advise("correct the server's address")
    })?;
    for address in addresses {
        if TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok() {
            let what = "the server runs, and its file cannot be replaced under it";
            return Err(Error::new(ErrorKind::Busy, what)
                .on(server)
                .advise("stop it first: the application's hooks can"));
        }
    }
    Ok(())
}

impl Writing {
    async fn take(&self, mut blob: Blob) -> Result<()> {
        let mut len = 0;
        while let Some(piece) = blob.body.next().await {
            self.cancel.check()?;
            let piece = piece?;
            len += piece.len() as u64;
            self.files.call(move |files| files.write(&piece)).await?;
        }
        if blob.len.is_some_and(|told| told != len) {
            let what = format!("a snapshot has {len} bytes and not as many as told");
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        Ok(())
    }
}

#[async_trait]
impl SinkSession for Writing {
    async fn write(&self, part: Part) -> Result<()> {
        self.cancel.check()?;
        match part {
            Part::Blob(blob) if blob.name == DUMP => self.take(blob).await,
            Part::Notice(_) => Ok(()),
            other => Err(other.refused_by("a stopped server")),
        }
    }

    async fn verify(&self, _: &Content) -> Result<Content> {
        self.cancel.check()?;
        self.files.call(|files| files.stage.verify()).await
    }

    async fn commit(&self) -> Result<()> {
        self.cancel.check()?;
        self.files.call(|files| files.commit()).await
    }

    async fn undo(&self) -> Result<()> {
        self.files.call(|files| files.undo()).await
    }

    async fn finish(&self) -> Result<()> {
        self.files.call(|files| files.stage.finish()).await
    }

    async fn abort(&self) -> Result<()> {
        self.files.call(|files| files.stage.abort()).await
    }
}
