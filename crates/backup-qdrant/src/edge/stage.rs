//! The folder that one restore works in, and the switch.
//!
//! It lies hidden beside the live folder, so that both are of one file system:
//!
//! ```text
//! memory/                     live
//! .memory.restore-<id>/
//!     shard/                  what is to become live; after the switch what was live
//!     records/                of a merge: the points that are added
//!     built                   of a merge: `shard` is the live one with them
//!     old/                    for a moment, where two folders cannot be exchanged at once
//!     state.json              the name of the restore, which its shard carries too
//!     whole                   everything was staged and is on the disk
//!     kept                    there was a live folder when the switch began
//!     spare, then undoing     the switch is being, or was, taken back
//! ```
//!
//! Which of the two is live is told by the name in them, so a crash leaves no doubt.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use backup_core::{Error, ErrorKind, Result, record::Sha256Digest};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    files::{self, fail},
    note::{self, Note},
};
use crate::schema::Document;

const BUILT: &str = "built";

/// One restore of one store.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    live: PathBuf,
    folder: PathBuf,
}

/// How far it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Absent,
    Staged,
    Committed,
    Undone,
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct State {
    restore: String,
}

impl Stage {
    /// The stage of a restore of the shard at `live`, which is absolute.
    pub(crate) fn new(live: &Path, restore_id: &str) -> Result<Self> {
        if !is_plain(restore_id) {
            let what = "the name of a restore can be no part of a folder's name";
            return Err(Error::new(ErrorKind::Hostile, what).on(restore_id));
        }
        let folder = sibling(live, &format!("restore-{restore_id}"));
        Ok(Self { live: live.to_owned(), folder })
    }

    /// Those that a crash may have left beside a shard.
    pub(crate) fn left_behind(live: &Path) -> Vec<Self> {
        let beginning = sibling(live, "restore-");
        let beginning = beginning.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let entries = live.parent().and_then(|parent| fs::read_dir(parent).ok());
        let stage = |entry: fs::DirEntry| {
            let name = entry.file_name();
            Self::new(live, name.to_str()?.strip_prefix(beginning)?).ok()
        };
        entries.into_iter().flatten().flatten().filter_map(stage).collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn shard(&self) -> PathBuf {
        self.folder.join("shard")
    }

    /// A shard of those points that a merge adds.
    pub(crate) fn records(&self) -> PathBuf {
        self.folder.join("records")
    }

    fn old(&self) -> PathBuf {
        self.folder.join("old")
    }

    fn doomed(&self) -> PathBuf {
        let mut name = self.folder.clone().into_os_string();
        name.push(".done");
        PathBuf::from(name)
    }

    /// Makes the folder, with an empty shard at this place in it.
    pub(crate) fn make(&self, place: &Path) -> Result<()> {
        files::make(&self.folder)?;
        // To be renamed later, when a disk may be full.
        self.mark("spare")?;
        files::make(place)?;
        let restore = Uuid::now_v7().to_string();
        Note { document: None, restore: restore.clone() }.write(place)?;
        // Last: without it there is no restore.
        note::write(&self.folder.join("state.json"), &State { restore })?;
        self.folder.parent().map_or(Ok(()), files::sync)
    }

    /// Writes into a shard of the restore whose it is.
    pub(crate) fn write_note(&self, place: &Path, document: Option<Document>) -> Result<()> {
        let state = self.state()?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "a restore is gone").on(self.folder.display())
        })?;
        Note { document, restore: state.restore }.write(place)
    }

    fn state(&self) -> Result<Option<State>> {
        note::read(&self.folder.join("state.json"))
    }

    /// Finds out how far the restore came. A switch that a crash interrupted is completed or
    /// taken back first.
    pub(crate) fn find(&self) -> Result<Found> {
        self.settle()?;
        let Some(state) = self.state()? else {
            if self.is_whole() {
                return Ok(Found::Unknown);
            }
            self.remove()?;
            return Ok(Found::Absent);
        };
        let ours = |shard: &Path| -> Result<bool> {
            Ok(Note::read(shard)?.is_some_and(|note| note.restore == state.restore))
        };
        let to_build = !self.has(BUILT) && ours(&self.records())?;
        Ok(match (ours(&self.live)?, to_build || ours(&self.shard())?) {
            (true, false) => Found::Committed,
            (false, true) if self.has("undoing") => Found::Undone,
            (false, true) => Found::Staged,
            _ => Found::Unknown,
        })
    }

    /// After a crash within [`exchange`](Self::exchange).
    pub(crate) fn settle(&self) -> Result<()> {
        if !self.old().exists() {
            return Ok(());
        }
        let to = if self.live.exists() { self.shard() } else { self.live.clone() };
        rename(&self.old(), &to)?;
        self.sync()
    }

    /// Puts the staged folder in the place of the live one, and that in its.
    pub(crate) fn exchange(&self) -> Result<()> {
        match (self.live.exists(), self.shard().exists()) {
            (true, false) => rename(&self.live, &self.shard())?,
            (false, _) => rename(&self.shard(), &self.live)?,
            (true, true) => {
                let failed = fail("could not exchange two folders", &self.live);
                if !files::exchange(&self.shard(), &self.live).map_err(failed)? {
                    self.exchange_stepwise()?;
                }
            }
        }
        self.sync()
    }

    /// As where two folders cannot be exchanged at once.
    pub(crate) fn exchange_stepwise(&self) -> Result<()> {
        rename(&self.live, &self.old())?;
        if let Err(error) = rename(&self.shard(), &self.live) {
            self.settle()?;
            return Err(error);
        }
        rename(&self.old(), &self.shard())
    }

    fn sync(&self) -> Result<()> {
        files::sync(&self.folder)?;
        self.live.parent().map_or(Ok(()), files::sync)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.has("whole")
    }

    pub(crate) fn mark_whole(&self) -> Result<()> {
        self.mark("whole")
    }

    /// Empties the place of the shard that a merge makes.
    pub(crate) fn clear_built(&self) -> Result<()> {
        let mark = self.folder.join(BUILT);
        match fs::remove_file(&mark) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(fail("could not remove a file", &mark)(e));
            }
            _ => files::sync(&self.folder)?,
        }
        files::remove(&self.shard())
    }

    pub(crate) fn mark_built(&self) -> Result<()> {
        self.mark(BUILT)
    }

    /// Whether there should be a folder to put back.
    pub(crate) fn kept_something(&self) -> bool {
        self.has("kept")
    }

    /// Right before the switch.
    pub(crate) fn mark_kept(&self) -> Result<()> {
        if !self.live.exists() {
            return Ok(());
        }
        let facts = fs::metadata(&self.live);
        let dressed =
            facts.and_then(|facts| fs::set_permissions(self.shard(), facts.permissions()));
        dressed.map_err(fail("could not set permissions", &self.shard()))?;
        self.mark("kept")
    }

    pub(crate) fn mark_undoing(&self) -> Result<()> {
        if self.has("undoing") {
            return Ok(());
        }
        rename(&self.folder.join("spare"), &self.folder.join("undoing"))?;
        files::sync(&self.folder)
    }

    fn mark(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        let made = File::create(&path).and_then(|file| file.sync_all());
        made.map_err(fail("could not write a file", &path))?;
        files::sync(&self.folder)
    }

    fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    /// Removes the folder and all in it. It is renamed first: so it is there or not, and never
    /// there in part.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::rename(&self.folder, self.doomed()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(fail("could not remove a folder", &self.folder)(e));
            }
            _ => {}
        }
        files::remove(&self.doomed())?;
        self.folder.parent().map_or(Ok(()), files::sync)
    }
}

/// A hidden name beside a shard's folder.
pub(crate) fn sibling(live: &Path, what: &str) -> PathBuf {
    let name = live.file_name().unwrap_or_default().to_string_lossy();
    // A name has at most 255 bytes, and no two folders may share one.
    let name = match name.len() {
        ..=100 => name.into_owned(),
        _ => Sha256Digest::of(name.as_bytes()).to_string(),
    };
    live.with_file_name(format!(".{name}.{what}"))
}

fn is_plain(restore_id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=100).contains(&restore_id.len()) && restore_id.chars().all(plain)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| {
        let busy = e.kind() == io::ErrorKind::ResourceBusy;
        let error = fail("could not rename a folder", from)(e);
        match busy {
            true => error.advise("if it is a mount point, keep the shard in a folder below it"),
            false => error,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        stage: Stage,
    }

    /// A live folder with a file, and another one staged.
    fn place(live: bool) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::new(&dir.path().join("live"), "r1").unwrap();
        if live {
            fs::create_dir(&stage.live).unwrap();
            fs::write(stage.live.join("old"), b"").unwrap();
        }
        stage.make(&stage.shard()).unwrap();
        fs::write(stage.shard().join("new"), b"").unwrap();
        Place { _dir: dir, stage }
    }

    fn holds(folder: &Path, name: &str) -> bool {
        folder.join(name).exists()
    }

    #[test]
    fn a_switch_in_steps_is_settled_after_each() {
        // One rename and another: nothing is live.
        let Place { stage, _dir } = place(true);
        rename(&stage.live, &stage.old()).unwrap();
        assert_eq!(stage.find().unwrap(), Found::Staged);
        assert!(holds(&stage.live, "old") && holds(&stage.shard(), "new"));
        // Two renames: the new one is live, the old one not where it belongs.
        rename(&stage.live, &stage.old()).unwrap();
        rename(&stage.shard(), &stage.live).unwrap();
        assert_eq!(stage.find().unwrap(), Found::Committed);
        assert!(holds(&stage.live, "new") && holds(&stage.shard(), "old"));
        // The same on the way back.
        stage.mark_undoing().unwrap();
        rename(&stage.live, &stage.old()).unwrap();
        assert_eq!(stage.find().unwrap(), Found::Committed);
        rename(&stage.live, &stage.old()).unwrap();
        rename(&stage.shard(), &stage.live).unwrap();
        assert_eq!(stage.find().unwrap(), Found::Undone);
        assert!(holds(&stage.live, "old") && holds(&stage.shard(), "new"));
        stage.remove().unwrap();
        assert_eq!(stage.find().unwrap(), Found::Absent);
        assert!(holds(&stage.live, "old"));
    }

    #[test]
    fn in_steps_or_at_once_is_the_same() {
        for at_once in [true, false] {
            let Place { stage, _dir } = place(true);
            let exchange = |stage: &Stage| match at_once {
                true => stage.exchange(),
                false => stage.exchange_stepwise(),
            };
            exchange(&stage).unwrap();
            assert!(!stage.old().exists());
            assert_eq!(stage.find().unwrap(), Found::Committed);
            assert!(holds(&stage.live, "new") && holds(&stage.shard(), "old"));
            exchange(&stage).unwrap();
            assert_eq!(stage.find().unwrap(), Found::Staged);
            assert!(holds(&stage.live, "old") && holds(&stage.shard(), "new"));
        }
    }

    #[test]
    fn where_nothing_was_there_is_nothing_to_exchange() {
        let Place { stage, _dir } = place(false);
        stage.exchange().unwrap();
        assert_eq!(stage.find().unwrap(), Found::Committed);
        assert!(holds(&stage.live, "new") && !stage.shard().exists());
        stage.exchange().unwrap();
        assert_eq!(stage.find().unwrap(), Found::Staged);
        assert!(!stage.live.exists());
    }

    #[test]
    fn a_stage_that_was_not_made_whole_is_none() {
        let Place { stage, _dir } = place(true);
        fs::remove_file(stage.folder.join("state.json")).unwrap();
        assert_eq!(stage.find().unwrap(), Found::Absent);
        assert!(!stage.folder.exists() && holds(&stage.live, "old"));
        // Half removed by a process that died.
        fs::create_dir(stage.doomed()).unwrap();
        assert_eq!(stage.find().unwrap(), Found::Absent);
        assert!(!stage.doomed().exists());
    }

    #[test]
    fn a_folder_that_is_neither_is_left_alone() {
        let Place { stage, _dir } = place(true);
        stage.exchange().unwrap();
        fs::remove_dir_all(&stage.live).unwrap();
        fs::create_dir(&stage.live).unwrap();
        assert_eq!(stage.find().unwrap(), Found::Unknown);
        assert!(holds(&stage.shard(), "old"));
    }
}
