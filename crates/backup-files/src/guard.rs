//! What must not be opened: other stores' files, the archive, and what this process has open.

use std::{
    collections::HashSet,
    fs::File,
    os::fd::AsFd,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use backup_core::{Error, ErrorKind, NoticeKind, Result};
use rustix::fs::FileType;

use crate::sys::{self, Identity, Names, Stamp};

/// The names that SQLite gives to the files beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The regular files that this process has open, other than through [`OpenFiles::open`].
///
/// Closing any handle of a file drops all of the process's POSIX locks on it, also those of
/// an SQLite connection. So such files are known before anything is opened.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    ours: Mutex<Vec<Identity>>,
}

impl OpenFiles {
    fn ours(&self) -> MutexGuard<'_, Vec<Identity>> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What others in this process have open now; `None` where the system does not tell.
    pub(crate) fn held(&self) -> Option<HashSet<Identity>> {
        // Held throughout, so that none of ours is opened or closed meanwhile.
        let ours = self.ours();
        let table = if cfg!(any(target_os = "linux", target_os = "android")) {
            "/proc/self/fd"
        } else {
            "/dev/fd"
        };
        let table = sys::open_path(Path::new(table)).ok()?;
        let names = Names::read(&table).ok()?;
        let files = names.iter().filter_map(|name| sys::stat_target(&table, name).ok());
        let files = files.filter(|file| file.kind == FileType::RegularFile);
        Some(files.map(|file| file.id).filter(|id| !ours.contains(id)).collect())
    }

    /// Opens a file for reading, known as one of ours until it is dropped.
    pub(crate) fn open(
        self: &Arc<Self>,
        dir: impl AsFd,
        name: &[u8],
    ) -> rustix::io::Result<OpenFile> {
        let mut ours = self.ours();
        let file = sys::open_file(dir, name)?;
        let id = sys::stat_fd(&file)?.id;
        ours.push(id);
        drop(ours);
        Ok(OpenFile { file: Some(file), id, among: Arc::clone(self) })
    }
}

/// A file that this adapter reads.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: Option<File>,
    id: Identity,
    among: Arc<OpenFiles>,
}

impl OpenFile {
    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("taken only when dropped")
    }

    pub(crate) fn stat(&self) -> rustix::io::Result<Stamp> {
        sys::stat_fd(self.file.as_ref().expect("taken only when dropped"))
    }

    pub(crate) fn has_attributes(&self) -> bool {
        self.file.as_ref().is_some_and(sys::has_attributes)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut ours = self.among.ours();
        self.file = None;
        if let Some(at) = ours.iter().position(|id| *id == self.id) {
            ours.swap_remove(at);
        }
    }
}

/// What one root must leave alone.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) open_files: Arc<OpenFiles>,
    avoid: Vec<Vec<u8>>,
    avoid_ids: HashSet<Identity>,
    held: HashSet<Identity>,
    /// Whether the system told what is open.
    pub(crate) sees_open_files: bool,
    /// How often it will still be waited for files that are open for a moment only.
    patience: u32,
}

/// A file that is being served or written is open for a moment; a database for long. One is
/// waited for so many times so long, and all of a root together [`PATIENCE`] times.
const WAITS: u32 = 5;
const WAIT: Duration = Duration::from_millis(20);
const PATIENCE: u32 = 50;

impl Guard {
    /// For the root at `root`; `avoid` are paths of any kind, in it or not, there or not.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a root that lies in what is to be avoided.
    pub(crate) fn new(root: &Path, avoid: &[PathBuf], open_files: Arc<OpenFiles>) -> Result<Self> {
        let mut avoid_ids = HashSet::new();
        for path in avoid {
            if let Ok(Some(stamp)) = sys::stat_path(path) {
                avoid_ids.insert(stamp.id);
            }
        }
        let avoid = within(root, avoid)?;
        let mut guard = Self {
            open_files,
            avoid,
            avoid_ids,
            held: HashSet::new(),
            sees_open_files: true,
            patience: PATIENCE,
        };
        guard.refresh();
        Ok(guard)
    }

    /// Looks again at what this process has open.
    pub(crate) fn refresh(&mut self) {
        match self.open_files.held() {
            Some(held) => self.held = held,
            None => self.sees_open_files = false,
        }
    }

    /// Why the entry must not be opened, if so; what nobody else backs up is missing then.
    /// Opens nothing.
    pub(crate) fn forbids(
        &mut self,
        dir: impl AsFd,
        names: &Names,
        name: &[u8],
        path: &[u8],
        stamp: &Stamp,
    ) -> Option<(NoticeKind, &'static str)> {
        if self.avoid.iter().any(|avoid| avoid == path) || self.avoid_ids.contains(&stamp.id) {
            let why = "belongs to another store or to the backup itself";
            return Some((NoticeKind::LeftOut, why));
        }
        if stamp.kind != FileType::RegularFile {
            return None;
        }
        if is_database(dir, names, name) {
            let why = "is a database in use, which only its engine may open: \
                       make it a store, or exclude it";
            return Some((NoticeKind::Unsupported, why));
        }
        let why = "is held open by this process, which could lose its locks on it: \
                   close it, or exclude it";
        self.stays_open(stamp.id).then_some((NoticeKind::Unsupported, why))
    }

    fn stays_open(&mut self, id: Identity) -> bool {
        for _ in 0..WAITS {
            if self.patience == 0 || !self.held.contains(&id) {
                break;
            }
            self.patience -= 1;
            thread::sleep(WAIT);
            self.refresh();
        }
        self.held.contains(&id)
    }
}

/// Whether a regular file is an SQLite database with a file beside it, or such a file.
fn is_database(dir: impl AsFd, names: &Names, name: &[u8]) -> bool {
    let is_file = |name: &[u8]| {
        names.contains(name)
            && sys::stat_at(&dir, name).is_ok_and(|s| s.kind == FileType::RegularFile)
    };
    BESIDE.iter().any(|suffix| {
        let base = name.strip_suffix(suffix.as_bytes());
        base.is_some_and(|base| !base.is_empty() && is_file(base))
            || is_file(&[name, suffix.as_bytes()].concat())
    })
}

/// A database's own path and those of the files that its engine may make beside it.
pub(crate) fn family(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let base = BESIDE.iter().find_map(|suffix| path.strip_suffix(suffix.as_bytes()));
    let base = base.unwrap_or(path).to_vec();
    [""].into_iter().chain(BESIDE).map(move |suffix| [&base, suffix.as_bytes()].concat())
}

/// Which of `paths` lie in `root`, relative to it.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for a root that is one of them or lies in one.
pub(crate) fn within(root: &Path, paths: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let root = real(root);
    let mut inside = Vec::new();
    for path in paths {
        let path = real(path);
        if root.starts_with(&path) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a root lies in a folder that has to be left out",
            )
            .on(format!("{} in {}", root.display(), path.display()))
            .advise("keep archives, and the files of other stores, in folders of their own"));
        }
        if let Ok(relative) = path.strip_prefix(&root) {
            inside.push(relative.as_os_str().as_bytes().to_vec());
        }
    }
    Ok(inside)
}

/// The path without links, also where only its first part exists.
pub(crate) fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest = Vec::new();
    let mut there = path.as_path();
    loop {
        if let Ok(mut found) = there.canonicalize() {
            found.extend(rest.iter().rev());
            return found;
        }
        match (there.parent(), there.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name);
                there = parent;
            }
            _ => return path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_has_four_names_whichever_is_seen() {
        for name in ["a/x.db", "a/x.db-wal", "a/x.db-shm", "a/x.db-journal"] {
            let all: Vec<_> = family(name.as_bytes()).collect();
            assert_eq!(
                all,
                [&b"a/x.db"[..], b"a/x.db-wal", b"a/x.db-shm", b"a/x.db-journal"],
                "{name}"
            );
        }
    }

    #[test]
    fn files_of_this_process_are_seen_but_for_those_that_it_reads_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("theirs"), "x").unwrap();
        std::fs::write(dir.path().join("ours"), "x").unwrap();
        let handle = sys::open_path(dir.path()).unwrap();
        let theirs = File::open(dir.path().join("theirs")).unwrap();
        let open_files = Arc::new(OpenFiles::default());
        let ours = open_files.open(&handle, b"ours").unwrap();
        let held = open_files.held().unwrap();
        assert!(held.contains(&sys::stat_fd(&theirs).unwrap().id));
        assert!(!held.contains(&ours.stat().unwrap().id));
        drop((theirs, ours));
        assert!(open_files.ours().is_empty());
    }
}
