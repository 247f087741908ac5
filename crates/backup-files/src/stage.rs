//! Writing one root's entries into an empty folder, never out of it.

use std::{
    fs::File,
    io::{BufWriter, Write},
    os::fd::OwnedFd,
};

use backup_core::{EntryKind, EntryPath, Error, ErrorKind, Result};
use rustix::{
    fs::{AtFlags, FileType},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    notes::{Known, List, Note},
    reader::TIMES,
    sys::{self, Stamp},
    trail::Trail,
};

/// What an entry carries beside its content.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Dress {
    pub(crate) mode: u32,
    pub(crate) modified: (i64, u32),
}

/// Refuses entries that no honest archive holds, before anything is made of them.
pub(crate) struct Gate {
    last: Option<(EntryPath, bool)>,
    keep: Vec<Vec<u8>>,
    ordered: bool,
}

impl Gate {
    /// `keep` are paths that belong to others. In a merge an entry may have got another name: it
    /// is then out of order, and one that comes twice is found when it is made.
    pub(crate) fn new(keep: Vec<Vec<u8>>, ordered: bool) -> Self {
        Self { last: None, keep, ordered }
    }

    pub(crate) fn pass(&mut self, path: &EntryPath, dress: Dress, kind: &EntryKind) -> Result<()> {
        if !TIMES.contains(&dress.modified.0) || dress.modified.1 >= 1_000_000_000 {
            return Err(hostile("an entry has a time that no file can have", path));
        }
        if let Some((last, was_folder)) = self.last.as_ref().filter(|_| self.ordered) {
            if path <= last {
                return Err(hostile("an entry comes twice or out of order", path));
            }
            if !was_folder && below(path.as_bytes(), last.as_bytes()) {
                return Err(hostile("an entry lies below one that is no folder", path));
            }
        }
        if let EntryKind::Symlink { target } = kind
            && (target.is_empty() || target.contains(&0) || target.len() > EntryPath::MAX_BYTES)
        {
            return Err(hostile("a link has a target that no link can have", path));
        }
        self.free(path)?;
        self.last = Some((path.clone(), matches!(kind, EntryKind::Directory)));
        Ok(())
    }

    /// Refuses a path that belongs to others.
    pub(crate) fn free(&self, path: &EntryPath) -> Result<()> {
        let kept = |kept: &Vec<u8>| path.as_bytes() == kept || below(path.as_bytes(), kept);
        if self.keep.iter().any(kept) { Err(in_use(path)) } else { Ok(()) }
    }
}

pub(crate) fn in_use(path: &EntryPath) -> Error {
    let what = "the archive holds a file that is in use here, by another store or an open handle";
    Error::new(ErrorKind::Busy, what)
        .on(path)
        .advise("close it, or leave it out of the restore")
        .retryable(false)
}

/// What is made at a path.
pub(crate) enum Make {
    Folder,
    Link(Vec<u8>),
    File(Vec<u8>),
}

/// Makes entries that passed the gate, in that order.
///
/// A folder is dressed when the walk leaves it, after all that it holds: so its time stays
/// and one without write permission can be filled.
pub(crate) struct Stage {
    trail: Trail<Option<Dress>>,
    open: Option<Open>,
    /// Paths of folders that nothing announced, each with a NUL: `verify` does not count them.
    implied: BufWriter<File>,
    /// Of a merge: everything that is made.
    notes: Option<List>,
}

/// A file whose bytes come.
struct Open {
    file: File,
    path: EntryPath,
    left: u64,
    dress: Dress,
    before: Known,
}

impl Stage {
    pub(crate) fn new(root: OwnedFd, implied: File, notes: Option<List>) -> Result<Self> {
        let trail = Trail::new(root, None).map_err(sys::fail("could not read", b"staging"))?;
        Ok(Self { trail, open: None, implied: BufWriter::new(implied), notes })
    }

    /// `before` is what is known of the path in the live root.
    pub(crate) fn make(
        &mut self,
        path: EntryPath,
        dress: Dress,
        what: Make,
        before: Known,
    ) -> Result<()> {
        match what {
            Make::Folder => {
                let name = self.arrive(&path)?;
                let made = sys::create_dir(self.trail.dir(), &name).map_err(taken(&path))?;
                self.note(path.as_bytes(), sys::stat_fd(&made), Some(dress), before)?;
                self.trail.push(&name, made, Some(dress)).map_err(failed(&path))
            }
            Make::Link(target) => {
                let name = self.arrive(&path)?;
                let (dir, name) = (self.trail.dir(), name.as_slice());
                rustix::fs::symlinkat(target, dir, name).map_err(taken(&path))?;
                let times = sys::times(dress.modified);
                rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed(&path))?;
                let stamp = sys::stat_at(dir, name);
                self.note(path.as_bytes(), stamp, Some(dress), before)
            }
            Make::File(bytes) => {
                self.open(path, dress, bytes.len() as u64, before)?;
                self.append(&bytes)?;
                self.close()
            }
        }
    }

    /// Begins a file whose bytes follow.
    pub(crate) fn open(
        &mut self,
        path: EntryPath,
        dress: Dress,
        left: u64,
        before: Known,
    ) -> Result<()> {
        let name = self.arrive(&path)?;
        let file = sys::create_file(self.trail.dir(), &name).map_err(taken(&path))?;
        self.open = Some(Open { file, path, left, dress, before });
        Ok(())
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(Open { file, path, left, .. }) = &mut self.open else {
            return Err(Error::adapter("bytes came without a file"));
        };
        *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| too("long", path))?;
        file.write_all(bytes).map_err(|e| Error::io("could not write a file", e).on(&*path))
    }

    pub(crate) fn close(&mut self) -> Result<()> {
        let Some(Open { file, path, left, dress, before }) = self.open.take() else {
            return Err(Error::adapter("a file ended that had not begun"));
        };
        if left > 0 {
            return Err(too("short", &path));
        }
        sys::dress(&file, dress.mode, dress.modified).map_err(failed(&path))?;
        // Elsewhere one call for the whole file system does it before the switch.
        if cfg!(not(any(target_os = "linux", target_os = "android"))) {
            file.sync_all().map_err(|e| Error::io("could not sync a file", e).on(&path))?;
        }
        self.note(path.as_bytes(), sys::stat_fd(&file), Some(dress), before)
    }

    /// Ends the tree: dresses the folders that are still open.
    pub(crate) fn seal(mut self) -> Result<()> {
        if let Some(Open { path, .. }) = self.open {
            return Err(too("short", &path));
        }
        self.leave(0)?;
        let failed = |e| Error::io("could not write to the staging area", e);
        let implied = self.implied.into_inner().map_err(|e| failed(e.into_error()))?;
        implied.sync_all().map_err(failed)?;
        self.notes.map_or(Ok(()), List::finish)
    }

    fn note(
        &mut self,
        path: &[u8],
        made: rustix::io::Result<Stamp>,
        dress: Option<Dress>,
        before: Known,
    ) -> Result<()> {
        let Some(notes) = &mut self.notes else { return Ok(()) };
        let made = made.map_err(sys::fail("could not write to the staging area", path))?;
        let folder = made.kind == FileType::Directory;
        notes.add(path, &Note { inode: made.id.1, folder, dress, before })
    }

    /// Goes to the folder of `path` and returns its name there.
    fn arrive(&mut self, path: &EntryPath) -> Result<Vec<u8>> {
        if let Some(Open { path: unfinished, .. }) = &self.open {
            return Err(too("short", unfinished));
        }
        // Up to the folder that both paths share.
        let common = self
            .trail
            .path()
            .split(|byte| *byte == b'/')
            .zip(path.names())
            .take_while(|(ours, theirs)| ours == theirs)
            .count();
        self.leave(common.min(self.trail.depth()))?;
        // Down again, through folders that nothing announced.
        let names: Vec<&[u8]> = path.names().collect();
        let (name, parents) = names.split_last().expect("a path has a name");
        for parent in &parents[self.trail.depth()..] {
            let made = sys::create_dir(self.trail.dir(), parent).map_err(taken(path))?;
            rustix::fs::fchmod(&made, sys::mode(0o755)).map_err(failed(path))?;
            let stamp = sys::stat_fd(&made);
            self.trail.push(parent, made, None).map_err(failed(path))?;
            let implied = self.trail.path().to_vec();
            self.note(&implied, stamp, None, Known::Unasked)?;
            let noted = self.implied.write_all(self.trail.path());
            noted
                .and_then(|()| self.implied.write_all(&[0]))
                .map_err(|e| Error::io("could not write to the staging area", e))?;
        }
        Ok(name.to_vec())
    }

    fn leave(&mut self, depth: usize) -> Result<()> {
        while self.trail.depth() > depth {
            let path = self.trail.path().to_vec();
            let what = "could not finish a folder in the staging area";
            let Some(left) = self.trail.pop() else { break };
            if let Some(errno) = left.lost {
                return Err(sys::fail(what, &path)(errno));
            }
            if let (Some(folder), Some(dress)) = (left.handle, left.data) {
                sys::dress(folder, dress.mode, dress.modified).map_err(sys::fail(what, &path))?;
            }
        }
        Ok(())
    }
}

/// Whether `path` lies below the folder `folder`.
pub(crate) fn below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn hostile(what: &str, path: &EntryPath) -> Error {
    Error::new(ErrorKind::Hostile, what).on(path)
}

fn too(how: &str, path: &EntryPath) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a file is too {how}")).on(path)
}

fn failed(path: &EntryPath) -> impl FnOnce(Errno) -> Error {
    sys::fail("could not write to the staging area", path.as_bytes())
}

/// A name that is there already, in a tree that holds each once, is one that this file system
/// takes for another.
fn taken(path: &EntryPath) -> impl FnOnce(Errno) -> Error {
    move |errno| match errno {
        Errno::EXIST => Error::new(
            ErrorKind::Incompatible,
            "this file system takes two names of the archive for the same",
        )
        .on(path)
        .advise("restore to a file system that tells upper from lower case and Unicode forms"),
        errno => failed(path)(errno),
    }
}
