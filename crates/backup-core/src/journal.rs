//! What a restore has done so far, written down and synced before each step.
//!
//! A journal is a file of lines, `<crc32> <json>`, that only grows. The first line says what
//! is going to be restored and holds every sink's token; each of the others is the step that
//! begins. A line that was cut by a crash is the last one and says nothing: its step had not
//! begun. A lock file beside it, which stays there, keeps two restores apart; the system
//! lets go of it when a process dies.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    archive::sync_parent,
    clock::{ArchiveId, Timestamp},
    error::{Error, ErrorKind, Result},
    part::Content,
    sink::{StageToken, Switch},
};

const NAME: &str = "restore.journal";
const LOCK: &str = "restore.lock";
const MAX_BYTES: u64 = 1 << 30;

/// What a restore writes down before it does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RestoreStep {
    /// Everything from the archive is in staging areas; it is read back next.
    Staged,
    /// The staging areas hold what they should.
    Verified,
    /// A store is switched next.
    Committing {
        /// The store.
        store: String,
    },
    /// All stores are switched; their live content is read back next.
    Committed,
    /// Live content is what it should be; earlier content is dropped next.
    Finishing,
    /// The restore is taken back.
    Undoing,
    /// Nothing is left to do.
    Finished,
}

/// The first line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) journal: u32,
    pub(crate) restore_id: String,
    pub(crate) archive: ArchiveId,
    pub(crate) started: Timestamp,
    // In the order in which they switch.
    pub(crate) stores: Vec<Member>,
    // The folder of the safety backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) safety: Option<PathBuf>,
}

/// One store of a restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) switch: Switch,
    pub(crate) token: StageToken,
    pub(crate) expected: Content,
}

/// A line after the first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Step(RestoreStep),
    // What was staged, by store, where the archive alone does not tell.
    Expected { expected: BTreeMap<String, Content> },
}

/// A journal under way. Dropping it leaves it for `resume`.
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    last: Option<RestoreStep>,
    _lock: File,
}

impl Journal {
    /// The files that a restore keeps in `dir`.
    pub(crate) fn files(dir: &Path) -> [PathBuf; 2] {
        [dir.join(NAME), dir.join(LOCK)]
    }

    /// An error where a restore in `dir` is under way or has not come to its end: the stores
    /// may hold a mixture.
    pub(crate) fn none_pending(dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        if exists(&path)? {
            return Err(unfinished("a restore has not come to its end", &path));
        }
        Ok(())
    }

    /// Begins a restore.
    pub(crate) fn create(dir: &Path, header: &Header) -> Result<Self> {
        let lock = lock(dir)?;
        let path = dir.join(NAME);
        match read(&path)? {
            Found::Nothing => {}
            Found::Done => fs::remove_file(&path).map_err(|e| failed(e, &path))?,
            Found::Unfinished { header, .. } => {
                let what = format!("restore {} has not come to its end", header.restore_id);
                return Err(unfinished(&what, &path));
            }
        }
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| failed(e, &path))?;
        let mut journal = Self { file, path, last: None, _lock: lock };
        let written = journal.append(header).and_then(|()| sync_parent(&journal.path));
        if written.is_err() {
            // Nothing has been done, so there is nothing to remember.
            let _ = fs::remove_file(&journal.path);
        }
        written.map(|()| journal)
    }

    /// Takes up a restore that was interrupted; `None` where there is none.
    pub(crate) fn open(dir: &Path) -> Result<Option<(Self, Header)>> {
        if !exists(&dir.join(NAME))? {
            return Ok(None);
        }
        let lock = lock(dir)?;
        let path = dir.join(NAME);
        match read(&path)? {
            Found::Nothing => Ok(None),
            Found::Done => {
                fs::remove_file(&path).map_err(|e| failed(e, &path))?;
                sync_parent(&path)?;
                Ok(None)
            }
            Found::Unfinished { header, last, len } => {
                let mut file =
                    OpenOptions::new().write(true).open(&path).map_err(|e| failed(e, &path))?;
                // A cut line goes, or what follows would be read as a part of it.
                file.set_len(len)
                    .and_then(|()| file.seek(SeekFrom::End(0)).map(drop))
                    .and_then(|()| file.sync_all())
                    .map_err(|e| failed(e, &path))?;
                Ok(Some((Self { file, path, last, _lock: lock }, header)))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The latest step.
    pub(crate) fn last(&self) -> Option<&RestoreStep> {
        self.last.as_ref()
    }

    /// Writes a step down; it may begin when this returns.
    pub(crate) fn record(&mut self, step: RestoreStep) -> Result<()> {
        self.append(&step)?;
        self.last = Some(step);
        Ok(())
    }

    /// Writes down what these stores should hold, where that is not known from the start.
    pub(crate) fn expect(&mut self, expected: BTreeMap<String, Content>) -> Result<()> {
        self.append(&Line::Expected { expected })
    }

    /// Ends a restore.
    pub(crate) fn remove(&mut self) -> Result<()> {
        self.record(RestoreStep::Finished)?;
        fs::remove_file(&self.path).map_err(|e| failed(e, &self.path))?;
        sync_parent(&self.path)
    }

    fn append(&mut self, value: &impl Serialize) -> Result<()> {
        let json = serde_json::to_string(value).map_err(|e| {
            Error::adapter("a stage token holds what JSON cannot")
                .on(self.path.display())
                .because(e)
        })?;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        // One call, so that a crash cuts at most this line.
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_all())
            .map_err(|e| failed(e, &self.path))
    }
}

enum Found {
    Nothing,
    Done,
    Unfinished { header: Header, last: Option<RestoreStep>, len: u64 },
}

fn read(path: &Path) -> Result<Found> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_BYTES).read_to_end(&mut text).map_err(|e| failed(e, path))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(failed(e, path)),
    };
    let mut lines = Vec::new();
    let mut len = 0;
    for line in text.split_inclusive(|b| *b == b'\n') {
        match checked(line) {
            Some(json) => lines.push(json),
            // Cut by a crash: only the last line can be.
            None if !line.ends_with(b"\n") => break,
            None => return Err(damaged(path)),
        }
        len += line.len();
    }
    // Not even the first line was finished: nothing had begun.
    let mut lines = lines.into_iter();
    let Some(header) = lines.next() else { return Ok(Found::Done) };
    let mut header: Header =
        serde_json::from_slice(header).map_err(|e| damaged(path).because(e))?;
    if header.journal != 1 {
        let what = format!("the journal has version {}, this build reads 1", header.journal);
        return Err(Error::new(ErrorKind::UnknownVersion, what).on(path.display()));
    }
    let mut last = None;
    for line in lines {
        match serde_json::from_slice(line).map_err(|e| damaged(path).because(e))? {
            Line::Step(step) => last = Some(step),
            Line::Expected { mut expected } => {
                for member in &mut header.stores {
                    member.expected = expected
                        .remove(&member.name)
                        .unwrap_or_else(|| std::mem::take(&mut member.expected));
                }
            }
        }
    }
    if last == Some(RestoreStep::Finished) {
        return Ok(Found::Done);
    }
    Ok(Found::Unfinished { header, last, len: len as u64 })
}

// The JSON of a line whose checksum is right.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (crc, json) = (line.get(..8)?, line.get(9..)?);
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    (line[8] == b' ' && crc == crc32fast::hash(json)).then_some(json)
}

// What cannot be looked at is not taken for absent.
fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| failed(e, path))
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| failed(e, &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::new(ErrorKind::Locked, "another restore is under way").on(path.display()))
        }
        Err(TryLockError::Error(e)) => Err(failed(e, &path)),
    }
}

fn failed(cause: std::io::Error, path: &Path) -> Error {
    Error::io("the restore's journal could not be read or written", cause).on(path.display())
}

fn unfinished(what: &str, path: &Path) -> Error {
    Error::new(ErrorKind::Unfinished, what)
        .on(path.display())
        .advise("call resume with the journal's folder, then try again")
}

fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::RepairNeeded, "the restore's journal is damaged")
        .on(path.display())
        .advise("keep it: it names what the restore had staged in each store")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            journal: 1,
            restore_id: "r1".into(),
            archive: ArchiveId::from_bytes([7; 16]),
            started: Timestamp::from_micros(0),
            stores: Vec::new(),
            safety: None,
        }
    }

    fn last(dir: &Path) -> Option<RestoreStep> {
        let (journal, found) = Journal::open(dir).unwrap().unwrap();
        assert_eq!(found, header());
        journal.last().cloned()
    }

    #[test]
    fn a_line_that_was_cut_anywhere_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &header()).unwrap();
        journal.record(RestoreStep::Staged).unwrap();
        let path = journal.path().to_owned();
        let before = fs::read(&path).unwrap().len();
        journal.record(RestoreStep::Committing { store: "a".into() }).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for cut in before..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(last(dir.path()), Some(RestoreStep::Staged), "cut at {cut}");
            assert_eq!(fs::read(&path).unwrap().len(), before);
        }
        // What is written after a cut line is read.
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap().unwrap();
        journal.record(RestoreStep::Undoing).unwrap();
        drop(journal);
        assert_eq!(last(dir.path()), Some(RestoreStep::Undoing));
        // Without a whole first line nothing had begun.
        fs::write(&path, &whole[..20]).unwrap();
        assert!(Journal::open(dir.path()).unwrap().is_none());
        assert!(!path.exists());
    }

    #[test]
    fn damage_before_the_end_is_never_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &header()).unwrap();
        journal.record(RestoreStep::Staged).unwrap();
        let path = journal.path().to_owned();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap();
        for at in 0..=first {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            let error = Journal::open(dir.path()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::RepairNeeded, "byte {at}");
        }
        let error = Journal::create(dir.path(), &header()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::RepairNeeded);
    }

    #[cfg(unix)]
    #[test]
    fn a_journal_that_cannot_be_looked_at_is_not_taken_for_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        // A link to itself: even an administrator cannot open it.
        std::os::unix::fs::symlink(NAME, &path).unwrap();
        assert!(Journal::none_pending(dir.path()).is_err());
        assert!(Journal::open(dir.path()).is_err());
        assert!(read(&path).is_err());
    }

    #[test]
    fn one_restore_at_a_time_and_none_over_an_unfinished_one() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), &header()).unwrap();
        let error = Journal::create(dir.path(), &header()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert_eq!(Journal::open(dir.path()).err().unwrap().kind(), ErrorKind::Locked);
        drop(journal);
        let error = Journal::create(dir.path(), &header()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unfinished);
        let (mut journal, _) = Journal::open(dir.path()).unwrap().unwrap();
        journal.remove().unwrap();
        drop(journal);
        assert!(Journal::open(dir.path()).unwrap().is_none());
        Journal::create(dir.path(), &header()).unwrap();
    }
}
