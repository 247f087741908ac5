//! A file that appears under its name only when it is whole and on the disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use crate::error::{Error, ErrorKind, Result};

/// So much is written before the disk is asked to take it.
const EARLY: u64 = 32 << 20;

/// A file under a temporary name, which [`commit`](OutputFile::commit) syncs and renames.
///
/// Dropping it removes the temporary file. The name begins with a dot and ends with
/// [`OutputFile::TEMPORARY`], so that no later run takes it for a backup.
#[derive(Debug)]
pub struct OutputFile {
    file: Option<File>,
    early: Option<EarlySync>,
    unsynced: u64,
    temporary: PathBuf,
    target: PathBuf,
    overwrite: bool,
}

impl OutputFile {
    /// Ending of a file that is being written.
    pub const TEMPORARY: &str = ".partial";

    /// Creates the temporary file beside `target`.
    ///
    /// # Errors
    /// A target that exists, unless `overwrite`; a folder that is missing or read-only.
    pub fn create(target: impl Into<PathBuf>, overwrite: bool) -> Result<Self> {
        let target = target.into();
        let exists = || {
            Error::new(ErrorKind::AlreadyExists, "the file exists already")
                .on(target.display())
                .advise("choose another name, or ask for it to be replaced")
        };
        if !overwrite && target.symlink_metadata().is_ok() {
            return Err(exists());
        }
        let name = target.file_name().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "not the name of a file").on(target.display())
        })?;
        let unique = format!("{:x}-{}", std::process::id(), crate::clock::ArchiveId::random());
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{unique}{}", Self::TEMPORARY));
        let temporary = target.with_file_name(hidden);
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .open(&temporary)
            .map_err(|e| Error::io("the file could not be created", e).on(target.display()))?;
        Ok(Self { file: Some(file), early: None, unsynced: 0, temporary, target, overwrite })
    }

    /// The name that the file will have.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The name that it has until then.
    #[must_use]
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Syncs the file, gives it its name, and syncs the folder.
    ///
    /// # Errors
    /// A failed sync is final: what was written may be lost, so it is never tried again. A
    /// target that has come into being meanwhile, unless it may be overwritten. There is then
    /// no new file under the name; only a file that is replaced may be the new one already,
    /// where the folder could not be synced.
    pub fn commit(mut self) -> Result<()> {
        let file = self.file.take().expect("taken only here");
        // Each error of a disk is told once only, perhaps to the other thread.
        let early = self.early.take().map_or(Ok(()), EarlySync::end);
        early
            .and_then(|()| file.sync_all())
            .map_err(|e| self.failed("the file could not be synced to the disk", e))?;
        drop(file);
        if self.overwrite {
            self.rename()?;
            return sync_parent(&self.target);
        }
        // A link, unlike a rename, fails where the name is taken.
        match fs::hard_link(&self.temporary, &self.target) {
            // The other name harms nothing if it stays: no run takes it for a backup.
            Ok(()) => drop(fs::remove_file(&self.temporary)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.failed("the file exists already", e));
            }
            // A file system without links.
            Err(_) => self.rename()?,
        }
        sync_parent(&self.target).inspect_err(|_| drop(fs::remove_file(&self.target)))
    }

    fn rename(&self) -> Result<()> {
        fs::rename(&self.temporary, &self.target)
            .map_err(|e| self.failed("the finished file could not be given its name", e))
    }

    fn failed(&self, what: &str, cause: io::Error) -> Error {
        Error::io(what, cause).on(self.target.display())
    }
}

/// Syncs the folder that holds `path`, so that a new or changed name survives a crash.
///
/// # Errors
/// A folder that cannot be synced. Does nothing where folders cannot be opened (Windows).
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    if cfg!(unix) {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| Error::io("the folder could not be synced", e).on(parent.display()))?;
    }
    Ok(())
}

impl OutputFile {
    // From time to time, so that the disk works along and not only at the end.
    fn sync_early(&mut self) -> io::Result<()> {
        let early = match (self.early.take(), &self.file) {
            (Some(early), _) if early.thread.is_finished() => return early.end(),
            (Some(early), _) => early,
            (None, Some(file)) => EarlySync::start(file.try_clone()?)?,
            (None, None) => return Ok(()),
        };
        // Where the last one still runs, the next bytes will ask again.
        if early.ask.try_send(()).is_ok() {
            self.unsynced = 0;
        }
        self.early = Some(early);
        Ok(())
    }
}

/// A thread that syncs what was written so far, whenever it is asked to.
#[derive(Debug)]
struct EarlySync {
    ask: mpsc::SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl EarlySync {
    fn start(file: File) -> io::Result<Self> {
        let (ask, asked) = mpsc::sync_channel(1);
        let work = move || asked.iter().try_for_each(|()| file.sync_data());
        let thread = thread::Builder::new().name("backup-sync".into()).spawn(work)?;
        Ok(Self { ask, thread })
    }

    /// Waits for the sync under way; the first error of all.
    fn end(self) -> io::Result<()> {
        drop(self.ask);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file.as_ref().expect("taken only by commit");
        let written = file.write(bytes)?;
        self.unsynced += written as u64;
        if self.unsynced >= EARLY {
            self.sync_early()?;
        }
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("taken only by commit").flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(early) = self.early.take() {
            let _ = early.end();
        }
        self.file = None;
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entry = |e: io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        fs::read_dir(folder).unwrap().map(entry).collect()
    }

    #[test]
    fn a_file_appears_when_it_is_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.tar.gz");
        let mut dropped = OutputFile::create(&target, false).unwrap();
        dropped.write_all(b"x").unwrap();
        assert!(names(folder.path())[0].ends_with(OutputFile::TEMPORARY));
        drop(dropped);
        assert!(names(folder.path()).is_empty());
        let mut kept = OutputFile::create(&target, false).unwrap();
        kept.write_all(b"new").unwrap();
        kept.commit().unwrap();
        assert_eq!(names(folder.path()), ["a.tar.gz"]);
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_sync_that_fails_on_the_way_is_never_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = OutputFile::create(folder.path().join("a"), false).unwrap();
        // Takes everything, and cannot be synced.
        let null = File::options().write(true).open("/dev/null").unwrap();
        let good = out.file.replace(null).unwrap();
        let mut write = |bytes: u64| out.write_all(&vec![0; bytes as usize]);
        write(EARLY).unwrap();
        let while_writing = write(EARLY).and_then(|()| write(EARLY));
        // And if it goes well from now on.
        out.file = Some(good);
        match while_writing {
            Ok(()) => assert!(out.commit().is_err()),
            // Seen before the end already.
            Err(_) => drop(out),
        }
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_file_that_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let late = OutputFile::create(&target, false).unwrap();
        fs::write(&target, "old").unwrap();
        assert_eq!(
            OutputFile::create(&target, false).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(late.commit().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        OutputFile::create(&target, true).unwrap().commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"");
        assert_eq!(names(folder.path()), ["a"]);
    }
}
