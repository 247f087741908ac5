//! The files of one restore, beside the server's. Which of them are there tells how far it is.
//!
//! | `new` | `old` | `undone` | the restore is |
//! |---|---|---|---|
//! | there | – or there | – | staged; the server's file is the old one |
//! | – | there | – or there | committed; it is the new one |
//! | – | – | there | undone; it is the old one again |
//! | – | – | – | not begun, or over |

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use backup_core::{BlobContent, Content, Error, ErrorKind, Result, record::Sha256Digest};
use sha2::{Digest, Sha256};

use super::stream::{DUMP, pass};

#[derive(Clone)]
pub(super) struct Stage {
    live: PathBuf,
    /// What is restored, until it is the server's file.
    pub(super) new: PathBuf,
    /// The server's file from before; empty where there was none.
    pub(super) old: PathBuf,
    /// Empty: what was restored was taken back.
    pub(super) undone: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Absent,
    Staged,
    Committed,
    Undone,
}

impl Stage {
    pub(super) fn of(live: &Path, restore_id: &str) -> Result<Self> {
        // It may come from a journal that somebody tampered with.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if restore_id.is_empty() || restore_id.len() > 100 || !restore_id.bytes().all(plain) {
            let what = "the id of a restore is not a plain name";
            return Err(Error::new(ErrorKind::Hostile, what).on(restore_id));
        }
        let beside = |end: &str| {
            let mut name = live.as_os_str().to_owned();
            name.push(format!(".{restore_id}.{end}"));
            PathBuf::from(name)
        };
        let (new, old, undone) = (beside("new"), beside("old"), beside("undone"));
        Ok(Self { live: live.to_owned(), new, old, undone })
    }

    pub(super) fn phase(&self) -> Result<Phase> {
        let marks = [
            (&self.new, Phase::Staged),
            (&self.old, Phase::Committed),
            (&self.undone, Phase::Undone),
        ];
        for (path, phase) in marks {
            if path.try_exists().map_err(|e| failed("looked for", path, e))? {
                return Ok(phase);
            }
        }
        Ok(Phase::Absent)
    }

    /// The file into which the new content is written; the server has to be able to read it.
    pub(super) fn begin(&self) -> Result<File> {
        if let phase @ (Phase::Committed | Phase::Undone) = self.phase()? {
            return Err(out_of_order("begin", phase));
        }
        let create = || {
            remove(&self.new)?;
            let file = private(&self.new)?;
            match fs::metadata(&self.live) {
                Ok(was) => {
                    file.set_permissions(was.permissions())?;
                    give(&file, &was)?;
                }
                Err(_) => give(&file, &fs::metadata(self.folder())?)?,
            }
            Ok(file)
        };
        create().map_err(|e| failed("made", &self.new, e))
    }

    /// Length and hash of what is staged, or after the commit of the server's file.
    pub(super) fn verify(&self) -> Result<Content> {
        let path = match self.phase()? {
            Phase::Absent => return Err(out_of_order("verify", Phase::Absent)),
            Phase::Staged => &self.new,
            Phase::Committed | Phase::Undone => &self.live,
        };
        let file = File::open(path).map_err(|e| failed("opened", path, e))?;
        let (mut hasher, mut len) = (Sha256::new(), 0);
        pass(file, |piece| {
            hasher.update(&piece);
            len += piece.len() as u64;
            true
        })
        .map_err(|error| error.on(path.display()))?;
        let digest = Sha256Digest::finish(hasher);
        let mut content = Content::new();
        content.blobs.insert(DUMP.to_owned(), BlobContent { len, digest, masked: Vec::new() });
        Ok(content)
    }

    /// `stopped` is asked right before anything changes.
    pub(super) fn commit(&self, stopped: impl FnOnce() -> Result<()>) -> Result<()> {
        match self.phase()? {
            Phase::Staged => stopped()?,
            Phase::Committed => return Ok(()),
            phase => return Err(out_of_order("commit", phase)),
        }
        let switch = || {
            step()?;
            File::open(&self.new)?.sync_all()?;
            // One from a commit that did not end may not be what the server has now.
            step()?;
            remove(&self.old)?;
            step()?;
            match fs::hard_link(&self.live, &self.old) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => drop(File::create(&self.old)?),
                linked => linked?,
            }
            self.sync()?;
            step()?;
            fs::rename(&self.new, &self.live)?;
            self.sync()
        };
        switch().map_err(|e| failed("replaced", &self.live, e))
    }

    pub(super) fn undo(&self, stopped: impl FnOnce() -> Result<()>) -> Result<()> {
        match self.phase()? {
            Phase::Committed => stopped()?,
            Phase::Undone => return Ok(()),
            phase => return Err(out_of_order("undo", phase)),
        }
        let switch = || {
            step()?;
            File::create(&self.undone)?;
            self.sync()?;
            if fs::metadata(&self.old)?.len() > 0 {
                step()?;
                fs::rename(&self.old, &self.live)?;
            } else {
                step()?;
                remove(&self.live)?;
                self.sync()?;
                step()?;
                remove(&self.old)?;
            }
            self.sync()
        };
        switch().map_err(|e| {
            let what = format!("what was there before is in {}", self.old.display());
            failed("put back", &self.live, e).advise(what)
        })
    }

    pub(super) fn finish(&self) -> Result<()> {
        match self.phase()? {
            Phase::Staged => Err(out_of_order("finish", Phase::Staged)),
            _ => self.remove(&[&self.undone, &self.old]),
        }
    }

    pub(super) fn abort(&self) -> Result<()> {
        match self.phase()? {
            Phase::Staged | Phase::Absent => self.remove(&[&self.old, &self.new]),
            phase => Err(out_of_order("abort", phase)),
        }
    }

    /// The last of `paths` is the mark of the phase: until it goes, the verb can be repeated.
    fn remove(&self, paths: &[&PathBuf]) -> Result<()> {
        for path in paths {
            step().and_then(|()| remove(path)).map_err(|e| failed("removed", path, e))?;
        }
        self.sync().map_err(|e| failed("removed for good", &self.live, e))
    }

    fn folder(&self) -> &Path {
        match self.live.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    /// A name is on the disk when its folder is.
    fn sync(&self) -> io::Result<()> {
        step()?;
        File::open(self.folder())?.sync_all()
    }
}

/// Gives a file to whom another one belongs.
fn give(file: &File, like: &fs::Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let is = file.metadata()?;
        if (is.uid(), is.gid()) != (like.uid(), like.gid()) {
            fchown(file, Some(like.uid()), Some(like.gid()))?;
        }
    }
    let _ = (file, like);
    Ok(())
}

/// A new file, for its owner alone.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

pub(super) fn failed(verb: &str, path: &Path, cause: io::Error) -> Error {
    Error::io(format!("a file could not be {verb}"), cause).on(path.display())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn out_of_order(verb: &str, phase: Phase) -> Error {
    Error::out_of_order(verb, format_args!("the restore is {phase:?}"))
}

/// Before anything that changes: where a test has the process end.
#[cfg(not(test))]
fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
fn step() -> io::Result<()> {
    tests::step()
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Write};

    use super::*;

    thread_local! {
        /// Steps until this process is dead.
        static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(super) fn step() -> io::Result<()> {
        let left = LEFT.get();
        LEFT.set(left.saturating_sub(1));
        if left > 0 { Ok(()) } else { Err(io::Error::other("the process died")) }
    }

    fn dying<T>(steps: usize, work: impl FnOnce() -> T) -> T {
        LEFT.set(steps);
        let outcome = work();
        LEFT.set(usize::MAX);
        outcome
    }

    fn content(path: &Path) -> Option<Vec<u8>> {
        fs::read(path).ok()
    }

    fn staged(folder: &Path, old: Option<&[u8]>) -> Stage {
        let live = folder.join("dump.rdb");
        remove(&live).unwrap();
        if let Some(old) = old {
            fs::write(&live, old).unwrap();
        }
        let stage = Stage::of(&live, "r-1").unwrap();
        stage.begin().unwrap().write_all(b"new").unwrap();
        stage
    }

    /// Dies before each step of each verb; another process goes forward, or back.
    #[test]
    fn whichever_step_is_the_last_it_is_old_or_new() {
        let folder = tempfile::tempdir().unwrap();
        let stopped = || Ok(());
        for old in [Some(&b"old"[..]), None] {
            let was = old.map(<[u8]>::to_vec);
            for back in [false, true] {
                let mut deaths = 0;
                for steps in 0..40 {
                    let stage = staged(folder.path(), old);
                    let run = dying(steps, || {
                        stage.commit(stopped)?;
                        if back {
                            stage.undo(stopped)?;
                        }
                        stage.finish()
                    });
                    deaths += usize::from(run.is_err());
                    let found = content(&stage.live);
                    assert!(found == was || found.as_deref() == Some(b"new"), "{steps}: {found:?}");
                    // Those after the switch see the new one, those after the way back the old.
                    let phase = stage.phase().unwrap();
                    match phase {
                        Phase::Staged => assert_eq!(found, was),
                        Phase::Committed if !stage.undone.exists() => {
                            assert_eq!(found.as_deref(), Some(&b"new"[..]));
                        }
                        Phase::Undone => assert_eq!(found, was),
                        _ => {}
                    }
                    let ended_old = match phase {
                        Phase::Staged => {
                            stage.abort().unwrap();
                            true
                        }
                        Phase::Committed => {
                            stage.undo(stopped).unwrap();
                            stage.undo(stopped).unwrap();
                            stage.finish().unwrap();
                            true
                        }
                        Phase::Undone => {
                            stage.finish().unwrap();
                            true
                        }
                        Phase::Absent => back,
                    };
                    let wanted = if ended_old { was.clone() } else { Some(b"new".to_vec()) };
                    assert_eq!(content(&stage.live), wanted, "{steps}");
                    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
                    assert_eq!(left.len(), usize::from(wanted.is_some()), "{steps}: {left:?}");
                }
                assert!(deaths > 5, "{deaths}");
            }
        }
    }

    #[test]
    fn a_server_that_runs_and_verbs_out_of_order_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let stage = staged(folder.path(), Some(b"old"));
        let runs = || Err(Error::new(ErrorKind::Busy, "it runs"));
        assert_eq!(stage.commit(runs).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(content(&stage.live).as_deref(), Some(&b"old"[..]));
        assert!(stage.undo(|| Ok(())).is_err() && stage.finish().is_err());
        stage.commit(|| Ok(())).unwrap();
        assert_eq!(stage.undo(runs).unwrap_err().kind(), ErrorKind::Busy);
        assert!(stage.abort().is_err() && stage.begin().is_err());
        assert_eq!(content(&stage.live).as_deref(), Some(&b"new"[..]));
        assert!(Stage::of(&stage.live, "../up").is_err());
    }
}
