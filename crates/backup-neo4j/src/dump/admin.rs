//! The server's tool, run as a process.

use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use backup_core::{Cancel, Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes of a dump that are handed on at once, and how many such pieces wait.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;

/// Bytes of what the tool says that are kept: its last ones, where the reason stands.
const SAID: usize = 8 << 10;

/// How `neo4j-admin` is run.
#[derive(Clone)]
pub(crate) struct Admin {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, Option<OsString>)>,
    folder: Option<PathBuf>,
}

/// A dump under way. Dropped before its end, it is stopped.
pub(crate) struct Dump {
    pieces: mpsc::Receiver<Result<Option<Bytes>>>,
    first: Option<Result<Option<Bytes>>>,
    process: Process,
}

/// A process that is killed where nobody waits for it any more.
struct Process(Arc<Mutex<Child>>);

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(child.try_wait(), Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Admin {
    pub(crate) fn new(command: &Command) -> Self {
        let own = |text: &std::ffi::OsStr| text.to_owned();
        Self {
            program: own(command.get_program()),
            arguments: command.get_args().map(own).collect(),
            environment: command
                .get_envs()
                .map(|(name, value)| (own(name), value.map(own)))
                .collect(),
            folder: command.get_current_dir().map(Path::to_owned),
        }
    }

    fn command(&self, arguments: &[&str], data: Option<&Path>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(arguments);
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if let Some(settings) = data {
            let mut option = OsString::from("--additional-config=");
            option.push(settings);
            command.arg(option);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, command: &mut Command) -> Result<Child> {
        command.spawn().map_err(|e| {
            Error::io("the server's tool cannot be run", e)
                .on(Path::new(&self.program).display())
                .advise(
                    "give the path of neo4j-admin, and run it as the user that the server runs as",
                )
        })
    }

    /// The server's version, as the tool tells it.
    pub(crate) fn version(&self) -> Result<String> {
        let mut child = self.start(&mut self.command(&["--version"], None))?;
        let said = listen(child.stderr.take());
        let mut text = String::new();
        if let Some(output) = child.stdout.take() {
            output.take(1000).read_to_string(&mut text).map_err(broken)?;
        }
        ended(&mut child, said, "--version")?;
        Ok(text.trim().to_owned())
    }

    /// Begins to dump a database, and waits until the tool has found out whether it can.
    pub(crate) async fn dump(&self, database: &str) -> Result<Dump> {
        let arguments = ["database", "dump", database, "--to-stdout"];
        let mut child = self.start(&mut self.command(&arguments, None))?;
        let (to, mut pieces) = mpsc::channel(AHEAD);
        let said = listen(child.stderr.take());
        let output = child.stdout.take();
        let child = Arc::new(Mutex::new(child));
        let process = Process(Arc::clone(&child));
        let database = database.to_owned();
        thread::Builder::new()
            .name("neo4j dump".to_owned())
            .spawn(move || {
                let read = output.map_or(Ok(()), |mut output| {
                    while let Some(bytes) = piece(&mut output)? {
                        if to.blocking_send(Ok(Some(bytes))).is_err() {
                            break;
                        }
                    }
                    Ok(())
                });
                let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
                let end = read.and_then(|()| ended(&mut child, said, &database));
                let _ = to.blocking_send(end.map(|()| None));
            })
            .map_err(|e| Error::io("could not start a thread", e))?;
        let first = match pieces.recv().await {
            Some(Err(error)) => return Err(error),
            other => other,
        };
        Ok(Dump { pieces, first, process })
    }

    /// Dumps a database into a file, which is synced; whether there is such a database.
    pub(crate) fn dump_to(&self, database: &str, path: &Path) -> Result<bool> {
        let mut file = File::create(path)
            .map_err(|e| Error::io("a dump cannot be kept", e).on(path.display()))?;
        let arguments = ["database", "dump", database, "--to-stdout"];
        let mut child = self.start(&mut self.command(&arguments, None))?;
        let said = listen(child.stderr.take());
        let copied =
            child.stdout.take().map_or(Ok(0), |mut output| std::io::copy(&mut output, &mut file));
        if copied.is_err() {
            let _ = child.kill();
        }
        let end = ended(&mut child, said, database);
        copied.map_err(|e| Error::io("a dump cannot be kept", e).on(path.display()))?;
        match end {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            other => other?,
        }
        file.sync_all().map_err(|e| Error::io("a dump cannot be kept", e).on(path.display()))?;
        Ok(true)
    }

    /// Loads a dump over a database; with the settings of `data`, over one in another place.
    pub(crate) fn load(
        &self,
        database: &str,
        dump: &Path,
        data: Option<&Path>,
        cancel: &Cancel,
    ) -> Result<()> {
        let lost = |e| Error::io("a dump cannot be read", e).on(dump.display());
        let mut file = File::open(dump).map_err(lost)?;
        let arguments =
            ["database", "load", database, "--from-stdin", "--overwrite-destination=true"];
        let mut child = self.start(self.command(&arguments, data).stdin(Stdio::piped()))?;
        let said = listen(child.stderr.take());
        let quiet = drain(child.stdout.take());
        let mut input = child.stdin.take();
        let mut given = Ok(());
        let mut buffer = vec![0; PIECE];
        while let Some(to) = &mut input {
            given = cancel.check();
            let read = if given.is_err() { 0 } else { file.read(&mut buffer).map_err(lost)? };
            // A tool that has seen enough closes its end, and says why.
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                input = None;
            }
        }
        if given.is_err() {
            let _ = child.kill();
        }
        let end = ended(&mut child, said, database);
        drop(quiet.map(JoinHandle::join));
        given.and(end)
    }

    /// Has a database checked; with the settings of `data`, one in another place.
    pub(crate) fn check(&self, database: &str, data: Option<&Path>) -> Result<()> {
        let mut child = self.start(&mut self.command(&["database", "check", database], data))?;
        let said = listen(child.stderr.take());
        let quiet = drain(child.stdout.take());
        let end = ended(&mut child, said, database);
        drop(quiet.map(JoinHandle::join));
        end
    }
}

impl Dump {
    /// The next piece; `None` at the end of a dump that is whole.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => self.pieces.recv().await,
        };
        next.unwrap_or_else(|| Err(Error::adapter("the thread of a dump has ended")))
    }

    /// Stops it, where it has not ended.
    pub(crate) fn stop(self) {
        drop(self.process);
    }
}

/// The next bytes of a pipe.
fn piece(from: &mut impl Read) -> Result<Option<Bytes>> {
    let mut bytes = BytesMut::zeroed(PIECE);
    let mut filled = 0;
    while filled < PIECE {
        match from.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
    }
    bytes.truncate(filled);
    Ok((filled > 0).then(|| bytes.freeze()))
}

fn broken(error: std::io::Error) -> Error {
    Error::io("the server's tool cannot be listened to", error)
}

/// Reads what the tool says, and keeps the end of it.
fn listen(from: Option<ChildStderr>) -> Option<JoinHandle<Vec<u8>>> {
    let mut from = from?;
    Some(thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..read]);
            let over = kept.len().saturating_sub(SAID);
            kept.drain(..over);
        }
        kept
    }))
}

/// Reads what nobody wants, so that the tool does not wait.
fn drain(from: Option<impl Read + Send + 'static>) -> Option<JoinHandle<()>> {
    let mut from = from?;
    Some(thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut std::io::sink());
    }))
}

/// Waits for the tool, and makes of what it said what a caller can act on.
fn ended(child: &mut Child, said: Option<JoinHandle<Vec<u8>>>, database: &str) -> Result<()> {
    let status = child.wait().map_err(broken)?;
    let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let failure = |line: &&str| line.contains("Failed") || line.contains("rror");
    let line = said.lines().find(failure).or_else(|| said.lines().last()).unwrap_or_default();
    // Before it stand the time and the name of a class.
    let line = line.rsplit_once("] ").map_or(line, |(_, line)| line).trim();
    let (kind, what) = if said.contains("is in use") {
        (ErrorKind::Busy, "the database is in use")
    } else if said.contains("does not exist") {
        (ErrorKind::NotFound, "there is no such database")
    } else if said.contains("No space left") {
        (ErrorKind::NoSpace, "the server's tool has no room left")
    } else {
        (ErrorKind::Io, "the server's tool failed")
    };
    let error = Error::new(kind, what).on(database).because(line.to_owned());
    Err(match kind {
        ErrorKind::Busy => error.advise("stop the server, then try again"),
        _ => error,
    })
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("program", &self.program).finish_non_exhaustive()
    }
}
