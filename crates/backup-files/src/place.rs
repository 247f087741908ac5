//! The hidden folder that holds everything a restore makes for one root, and what it knows.
//!
//! ```text
//! .uploads.<restore id>.staged/    beside the root, or in it where that is a mount point
//!     state.json                   how far the restore came, synced before each step
//!     new/                         the staged tree; after an exchange, the pre-image
//!     old/                         the pre-image, where entries are moved one by one
//!     implied                      folders that nothing announced
//!     notes, folders               of a merge: what was staged, and what was around it
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use backup_core::{Error, ErrorKind, Result};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    notes::List,
    remove,
    sys::{self, Stamp, fail},
};

pub(crate) const NEW: &[u8] = b"new";
pub(crate) const OLD: &[u8] = b"old";
/// What a merge staged, and the live folders that it puts something into.
pub(crate) const NOTES: &[u8] = b"notes";
pub(crate) const FOLDERS: &[u8] = b"folders";
const STATE: &[u8] = b"state.json";
const STATE_NEXT: &[u8] = b"state.json.next";
const IMPLIED: &[u8] = b"implied";
const PROBE: &[u8] = b"probe";

/// What a stage token says of one root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RootToken {
    /// The root's name: the collection.
    pub(crate) root: String,
    /// Its folder, without links.
    pub(crate) path: String,
    /// The name of the hidden folder.
    pub(crate) staging: String,
    /// It lies in the root, not beside it.
    pub(crate) inside: bool,
    /// Entries are moved one by one from the start.
    pub(crate) stepwise: bool,
    /// Folders above the root that have to be made, from the top.
    pub(crate) made: Vec<String>,
    /// Paths in the root that belong to others and stay as they are.
    pub(crate) keep: Vec<String>,
    #[serde(default)]
    pub(crate) how: How,
}

/// What becomes of what is in the root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum How {
    #[default]
    Replace,
    Merge,
    /// Nothing: the root was not there when the merge was planned, and must not be.
    Make,
}

impl RootToken {
    pub(crate) fn keep(&self) -> Vec<Vec<u8>> {
        self.keep.iter().map(|path| path.clone().into_bytes()).collect()
    }

    /// The folder that holds the hidden one.
    pub(crate) fn outer(&self) -> PathBuf {
        let path = Path::new(&self.path);
        if self.inside { path.into() } else { path.parent().unwrap_or(path).into() }
    }

    /// The root's own name in its parent.
    pub(crate) fn base(&self) -> &[u8] {
        Path::new(&self.path).file_name().map_or(b"", |name| name.as_encoded_bytes())
    }
}

/// Mode and time of folders, by their paths.
pub(crate) type Folders = BTreeMap<String, (u32, (i64, u32))>;

/// How far a restore came in one root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// The tree is being staged, or is staged.
    Staging,
    /// What was staged may not have reached the disk.
    Failed,
    /// An exchange was about to be made: the inodes tell whether it was.
    Exchange,
    /// Live entries are on their way out.
    Out,
    /// Staged entries are on their way in.
    In,
    Committed,
    /// An exchange was about to be taken back.
    ExchangeBack,
    /// Restored entries are on their way back into staging.
    BackIn,
    /// Entries of the pre-image are on their way back.
    BackOut,
    Undone,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) step: Step,
    /// Whether all entries have come.
    pub(crate) whole: bool,
    /// Inode of the staged tree.
    pub(crate) staged: u64,
    /// Inode of the live tree, if there was one, at the time of the exchange.
    pub(crate) live: Option<u64>,
    /// Whether entries are moved one by one.
    pub(crate) stepwise: bool,
    /// Mode for a root that has to be made.
    pub(crate) mode: u32,
    /// Folders that hold something of others: as they were, and as the archive has them.
    pub(crate) old_folders: Folders,
    pub(crate) new_folders: Folders,
}

/// The hidden folder, open.
pub(crate) struct Place {
    pub(crate) token: RootToken,
    pub(crate) outer: OwnedFd,
    pub(crate) dir: OwnedFd,
    pub(crate) state: State,
}

impl Place {
    /// Makes the hidden folder with an empty tree, in place of one that was begun before.
    pub(crate) fn create(token: &RootToken) -> Result<Self> {
        for folder in &token.made {
            match rustix::fs::mkdir(folder.as_str(), sys::mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(fail("could not make a folder", folder.as_bytes())(e)),
            }
        }
        if let Some(earlier) = Self::open(token)? {
            if !matches!(earlier.state.step, Step::Staging | Step::Failed) {
                return Err(Error::new(
                    ErrorKind::Unfinished,
                    "this restore was switched to already",
                )
                .on(&token.path));
            }
            earlier.remove()?;
        }
        let failed = |errno| fail("could not make the staging area", token.path.as_bytes())(errno);
        let outer = sys::open_path(&token.outer()).map_err(failed)?;
        let dir = sys::create_dir(&outer, token.staging.as_bytes()).map_err(failed)?;
        probe(&dir, &token.path)?;
        let new = sys::create_dir(&dir, NEW).map_err(failed)?;
        let state = State {
            step: Step::Staging,
            whole: false,
            staged: sys::stat_fd(&new).map_err(failed)?.id.1,
            live: None,
            stepwise: false,
            mode: 0o755,
            old_folders: Folders::new(),
            new_folders: Folders::new(),
        };
        let mut place = Self { token: token.clone(), outer, dir, state };
        place.save(Step::Staging)?;
        rustix::fs::fsync(&place.outer).map_err(failed)?;
        Ok(place)
    }

    /// Opens the hidden folder; `None` if there is none. One that knows nothing was just made
    /// or is nearly gone: it is removed.
    pub(crate) fn open(token: &RootToken) -> Result<Option<Self>> {
        let failed = |errno| fail("could not open the staging area", token.path.as_bytes())(errno);
        let outer = match sys::open_path(&token.outer()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let dir = match sys::open_dir(&outer, token.staging.as_bytes()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mut text = String::new();
        match sys::open_file(&dir, STATE) {
            Ok(mut file) => {
                file.read_to_string(&mut text)
                    .map_err(|e| Error::io("could not read the state of a restore", e))?;
            }
            Err(Errno::NOENT) => {
                remove::tree(&outer, token.staging.as_bytes())?;
                return Ok(None);
            }
            Err(errno) => return Err(failed(errno)),
        }
        let state = serde_json::from_str(&text).map_err(|e| {
            Error::new(ErrorKind::RepairNeeded, "the state of a restore cannot be read")
                .on(token.outer().join(&token.staging).display())
                .because(e)
        })?;
        Ok(Some(Self { token: token.clone(), outer, dir, state }))
    }

    /// Notes a step, so that it is on the disk before what follows.
    pub(crate) fn save(&mut self, step: Step) -> Result<()> {
        self.state.step = step;
        let what = "could not note the state of a restore";
        let failed = |errno| fail(what, self.token.path.as_bytes())(errno);
        let text = serde_json::to_vec(&self.state)
            .map_err(|e| Error::new(ErrorKind::Adapter, what).because(e))?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(&self.dir, STATE_NEXT, flags, Mode::from_raw_mode(0o600));
        let mut next = File::from(next.map_err(failed)?);
        next.write_all(&text).and_then(|()| next.sync_all()).map_err(|e| Error::io(what, e))?;
        rustix::fs::renameat(&self.dir, STATE_NEXT, &self.dir, STATE).map_err(failed)?;
        rustix::fs::fsync(&self.dir).map_err(failed)
    }

    /// A new, empty list of the folders that nothing announced.
    pub(crate) fn create_implied(&self) -> Result<File> {
        sys::create_file(&self.dir, IMPLIED).map_err(self.failed())
    }

    pub(crate) fn create_notes(&self) -> Result<Option<List>> {
        if self.token.how != How::Merge {
            return Ok(None);
        }
        let file = sys::create_file(&self.dir, NOTES).map_err(self.failed())?;
        Ok(Some(List::new(file)))
    }

    pub(crate) fn implied(&self) -> Result<File> {
        sys::open_file(&self.dir, IMPLIED).map_err(self.failed())
    }

    pub(crate) fn folder(&self, name: &[u8]) -> Result<OwnedFd> {
        sys::open_dir(&self.dir, name).map_err(self.failed())
    }

    /// The live root, if there is one.
    pub(crate) fn live(&self) -> Result<Option<(OwnedFd, Stamp)>> {
        let open = if self.token.inside {
            sys::open_dir(&self.outer, b".")
        } else {
            sys::open_dir(&self.outer, self.token.base())
        };
        let open = match open {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(fail("could not open a root", self.token.path.as_bytes()))?,
        };
        let stamp = sys::stat_fd(&open).map_err(self.failed())?;
        Ok(Some((open, stamp)))
    }

    /// Removes the hidden folder; what it knows goes last.
    pub(crate) fn remove(self) -> Result<()> {
        for name in [NEW, OLD, IMPLIED, NOTES, FOLDERS, PROBE, STATE_NEXT, STATE] {
            remove::tree(&self.dir, name)?;
        }
        remove::tree(&self.outer, self.token.staging.as_bytes())?;
        rustix::fs::fsync(&self.outer).map_err(self.failed())
    }

    pub(crate) fn failed(&self) -> impl FnOnce(Errno) -> Error + use<> {
        fail("could not use the staging area", self.token.path.as_bytes())
    }
}

/// Removes the folders that were made for a root that is not there.
pub(crate) fn unmake(token: &RootToken) {
    for folder in token.made.iter().rev() {
        // One that holds something is somebody's.
        let _ = rustix::fs::rmdir(folder.as_str());
    }
}

/// Whether the file system keeps what an entry carries.
fn probe(dir: impl AsFd, root: &str) -> Result<()> {
    let failed = |errno| fail("could not use the staging area", root.as_bytes())(errno);
    let modified = (1_000_000_000, 123_456_789);
    let file = sys::create_file(&dir, PROBE).map_err(failed)?;
    sys::dress(&file, 0o741, modified).map_err(failed)?;
    let stamp = sys::stat_fd(&file).map_err(failed)?;
    rustix::fs::unlinkat(dir, PROBE, AtFlags::empty()).map_err(failed)?;
    if stamp.mode() == 0o741 && stamp.modified == modified {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "the file system does not keep permissions or exact times, so nothing could be proven",
    )
    .on(root)
    .advise("restore to another file system and copy from there"))
}
