//! From old to new and back: at once by an exchange, or entry by entry.

use std::os::fd::{AsFd, OwnedFd};

use backup_core::{Error, ErrorKind, Result};
use rustix::{
    fs::{AtFlags, FileType, RenameFlags},
    io::Errno,
};

use crate::{
    place::{Folders, How, NEW, OLD, Place, Step},
    stage::below,
    sys::{self, Names, fail},
    trail::join,
};

/// What names the current one of the folders beside it: leaves first and arrives last.
pub(crate) const POINTER: &[u8] = b"CURRENT";

/// Which of two trees is live, as far as an exchange tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    Old,
    New,
    Neither,
}

impl Place {
    /// Makes the staged tree live. May be repeated after a crash.
    ///
    /// # Errors
    /// The old tree is then live, unless the error is `RepairNeeded`.
    pub(crate) fn commit(&mut self) -> Result<()> {
        match self.state.step {
            Step::Committed => return Ok(()),
            Step::Staging | Step::Exchange | Step::Out | Step::In => {}
            Step::Failed => {
                return Err(Error::new(ErrorKind::Io, "what was staged did not reach the disk")
                    .on(&self.token.path)
                    .advise("check the disk, then run the restore again from the start"));
            }
            _ => return Err(Error::adapter("a restore that was undone cannot be committed")),
        }
        if !self.state.whole {
            return Err(Error::new(ErrorKind::Unfinished, "staging was interrupted")
                .on(&self.token.path)
                .advise("begin the restore again, or abort it"));
        }
        if self.state.step == Step::Staging {
            if let Err(error) = sys::sync_all(&self.dir) {
                // The next call would succeed although the data is gone.
                self.save(Step::Failed)?;
                return Err(error.on(&self.token.path));
            }
            if self.token.how == How::Make && self.live()?.is_some() {
                return Err(Error::new(
                    ErrorKind::Changed,
                    "the root was made by something else during the restore",
                )
                .on(&self.token.path)
                .advise("run the restore again: what is there now will be looked at"));
            }
            self.state.stepwise = self.token.stepwise || self.token.how == How::Merge;
        }
        if !self.state.stepwise && self.exchange()? {
            return self.save(Step::Committed);
        }
        let done = self.step_in();
        if let Err(error) = done {
            return Err(match self.step_back() {
                Ok(()) => {
                    self.state.stepwise = false;
                    self.save(Step::Staging)?;
                    error
                }
                Err(second) => self.repair(&error.to_string(), second),
            });
        }
        Ok(())
    }

    /// Makes the pre-image live again. May be repeated after a crash.
    pub(crate) fn undo(&mut self) -> Result<()> {
        match self.state.step {
            Step::Undone => return Ok(()),
            Step::Staging | Step::Failed => {}
            _ if self.state.stepwise => self
                .step_back()
                .map_err(|error| self.repair("entries could not be moved back", error))?,
            _ => {
                self.save(Step::ExchangeBack)?;
                match self.which_is_live()? {
                    Live::Old => {}
                    Live::New => self.swap_back()?,
                    Live::Neither => {
                        let cause = Error::new(ErrorKind::Mismatch, "it is neither old nor new");
                        return Err(self.repair("something else was put in its place", cause));
                    }
                }
                self.sync_exchange()?;
            }
        }
        self.save(Step::Undone)
    }

    /// Takes back a commit because of another root's failure: it may be committed later.
    pub(crate) fn roll_back(&mut self) -> Result<()> {
        if matches!(self.state.step, Step::Staging | Step::Failed) {
            return Ok(());
        }
        self.undo()?;
        self.state.stepwise = false;
        self.save(Step::Staging)
    }

    /// By the inodes that were noted before the exchange.
    pub(crate) fn which_is_live(&self) -> Result<Live> {
        let inode = |stamp: rustix::io::Result<sys::Stamp>| match stamp {
            Ok(stamp) => Ok(Some(stamp.id.1)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed()(errno)),
        };
        let live = inode(sys::stat_at(&self.outer, self.token.base()))?;
        let aside = inode(sys::stat_at(&self.dir, NEW))?;
        let (staged, before) = (Some(self.state.staged), self.state.live);
        Ok(if live == staged && (aside == before || aside.is_none()) {
            Live::New
        } else if aside == staged && live == before {
            Live::Old
        } else {
            Live::Neither
        })
    }

    /// Exchanges the two trees; `false` where the file system cannot.
    fn exchange(&mut self) -> Result<bool> {
        let failed = fail("could not exchange a root", self.token.path.as_bytes());
        if self.state.step != Step::Exchange {
            let live = self.live()?;
            let new = self.folder(NEW)?;
            let bits = live.as_ref().map_or(self.state.mode, |(_, stamp)| stamp.bits);
            if let Some((_, stamp)) = &live {
                // Only the superuser can, and only then it may differ.
                let (user, group) = stamp.owner;
                let (user, group) =
                    (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
                let _ = rustix::fs::fchown(&new, Some(user), Some(group));
            }
            rustix::fs::fchmod(&new, sys::mode(bits)).map_err(self.failed())?;
            self.state.live = live.map(|(_, stamp)| stamp.id.1);
            self.save(Step::Exchange)?;
        }
        match self.which_is_live()? {
            Live::New => {}
            Live::Neither => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    "the root was replaced by something else during the restore",
                )
                .on(&self.token.path));
            }
            Live::Old => {
                let done = if self.state.live.is_some() {
                    let flags = RenameFlags::EXCHANGE;
                    let base = self.token.base();
                    rename_with(&self.dir, NEW, &self.outer, base, flags)
                } else {
                    rename_new(&self.dir, NEW, &self.outer, self.token.base())
                };
                match done {
                    Ok(()) => {}
                    Err(Errno::XDEV | Errno::BUSY | Errno::INVAL | Errno::NOSYS)
                        if self.state.live.is_some() =>
                    {
                        return Ok(false);
                    }
                    Err(Errno::OPNOTSUPP) if self.state.live.is_some() => return Ok(false),
                    Err(errno) => return Err(failed(errno)),
                }
            }
        }
        if let Err(error) = self.sync_exchange() {
            self.swap_back()?;
            return Err(error);
        }
        Ok(true)
    }

    fn swap_back(&self) -> Result<()> {
        let base = self.token.base();
        let done = if self.state.live.is_some() {
            rename_with(&self.dir, NEW, &self.outer, base, RenameFlags::EXCHANGE)
        } else {
            rename_new(&self.outer, base, &self.dir, NEW)
        };
        done.map_err(|errno| {
            let error = fail("could not exchange a root", self.token.path.as_bytes())(errno);
            self.repair("the exchange could not be taken back", error)
        })
    }

    /// A rename is lasting when the folders on both sides are on the disk.
    fn sync_exchange(&self) -> Result<()> {
        rustix::fs::fsync(&self.outer).map_err(self.failed())?;
        rustix::fs::fsync(&self.dir).map_err(self.failed())
    }

    /// Moves everything out, then everything in: in between no name is of both trees, so
    /// what has been done can be told from what is there.
    fn step_in(&mut self) -> Result<()> {
        if self.token.how == How::Merge {
            return self.put_in();
        }
        let keep = self.token.keep();
        if matches!(self.state.step, Step::Staging | Step::Exchange) {
            if let Err(errno) = rustix::fs::mkdirat(&self.dir, OLD, sys::mode(0o700))
                && errno != Errno::EXIST
            {
                return Err(self.failed()(errno));
            }
            let Some((live, _)) = self.live()? else {
                return Err(
                    Error::new(ErrorKind::NotFound, "the root is gone").on(&self.token.path)
                );
            };
            self.state.old_folders = above(&live, &keep)?;
            self.state.new_folders = above(&self.folder(NEW)?, &keep)?;
            self.state.stepwise = true;
            self.save(Step::Out)?;
        }
        if self.state.step == Step::Out {
            self.sweep(Side::Live, Side::Old, &keep)?;
            self.save(Step::In)?;
        }
        self.sweep(Side::New, Side::Live, &keep)?;
        self.dress(&self.state.new_folders)?;
        self.save(Step::Committed)
    }

    /// Finishes what a crash interrupted in the middle of moving entries.
    pub(crate) fn step_on(&mut self) -> Result<()> {
        match self.state.step {
            // The old tree is not whole: back to it.
            Step::Out => {
                self.step_back()?;
                self.state.stepwise = false;
                self.save(Step::Staging)
            }
            // What was looked at before may be something else by now.
            Step::In if self.token.how == How::Merge => self.commit(),
            Step::In => self.step_in(),
            Step::BackIn | Step::BackOut | Step::ExchangeBack => self.undo(),
            _ => Ok(()),
        }
    }

    fn step_back(&mut self) -> Result<()> {
        let keep = self.token.keep();
        match self.state.step {
            Step::Staging | Step::Failed | Step::Exchange | Step::Undone => return Ok(()),
            Step::In | Step::Committed => self.save(Step::BackIn)?,
            Step::Out => self.save(Step::BackOut)?,
            Step::BackIn | Step::BackOut | Step::ExchangeBack => {}
        }
        if self.token.how == How::Merge {
            return self.take_out();
        }
        if self.state.step == Step::BackIn {
            self.sweep(Side::Live, Side::New, &keep)?;
            self.dress_in(&self.folder(NEW)?, &self.state.new_folders)?;
            self.save(Step::BackOut)?;
        }
        self.sweep(Side::Old, Side::Live, &keep)?;
        self.dress(&self.state.old_folders)
    }

    fn side(&self, side: Side) -> Result<OwnedFd> {
        match side {
            Side::New => self.folder(NEW),
            Side::Old => self.folder(OLD),
            Side::Live => {
                let gone =
                    || Error::new(ErrorKind::NotFound, "the root is gone").on(&self.token.path);
                self.live()?.map(|(open, _)| open).ok_or_else(gone)
            }
        }
    }

    fn sweep(&self, from: Side, to: Side, keep: &[Vec<u8>]) -> Result<()> {
        let sweep = Sweep {
            keep,
            staging: self.token.inside.then_some(self.token.staging.as_bytes()),
            pointer_first: from == Side::Live,
        };
        sweep.folder(&self.side(from)?, &self.side(to)?, b"")
    }

    /// Gives back mode and time to live folders that entries were moved in.
    fn dress(&self, folders: &Folders) -> Result<()> {
        self.dress_in(&self.side(Side::Live)?, folders)
    }

    fn dress_in(&self, root: &OwnedFd, folders: &Folders) -> Result<()> {
        // The deeper come later: a folder's time does not depend on theirs.
        for (path, (mode, modified)) in folders {
            let failed = || fail("could not finish a folder", path.as_bytes());
            let folder = descend(root, path.as_bytes()).map_err(failed())?;
            sys::dress(folder, *mode, *modified).map_err(failed())?;
        }
        Ok(())
    }

    fn repair(&self, what: &str, cause: Error) -> Error {
        let aside = self.token.outer().join(&self.token.staging);
        Error::new(ErrorKind::RepairNeeded, format!("a root is half restored: {what}"))
            .on(&self.token.path)
            .advise(format!(
                "stop what uses {}, then run the restore again to resume; both contents are there and in {}",
                self.token.path,
                aside.display()
            ))
            .because(cause)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Live,
    New,
    Old,
}

/// Moves all entries of a folder but for those of others.
struct Sweep<'a> {
    keep: &'a [Vec<u8>],
    staging: Option<&'a [u8]>,
    pointer_first: bool,
}

impl Sweep<'_> {
    fn folder(&self, from: &OwnedFd, to: &OwnedFd, at: &[u8]) -> Result<()> {
        let names = Names::read(from).map_err(fail("could not read a folder", at))?;
        let pointer = names.contains(POINTER).then_some(POINTER);
        let others = names.iter().filter(|name| *name != POINTER);
        if self.pointer_first {
            pointer
                .into_iter()
                .chain(others)
                .try_for_each(|name| self.entry(from, to, at, name))?;
        } else {
            others.chain(pointer).try_for_each(|name| self.entry(from, to, at, name))?;
        }
        // Every rename is on the disk before the step that follows is noted.
        sync_both(from, to).map_err(fail("could not sync a folder", at))
    }

    fn entry(&self, from: &OwnedFd, to: &OwnedFd, at: &[u8], name: &[u8]) -> Result<()> {
        let mut path = at.to_vec();
        join(&mut path, name);
        if self.keep.contains(&path) || (at.is_empty() && self.staging == Some(name)) {
            return Ok(());
        }
        if self.keep.iter().any(|kept| below(kept, &path)) {
            let failed = || fail("could not move the content of a folder", &path);
            let from = sys::open_dir(from, name).map_err(failed())?;
            let to = open_or_create(to, name).map_err(failed())?;
            return self.folder(&from, &to, &path);
        }
        shift(from, to, name).map_err(|errno| match errno {
            Errno::EXIST | Errno::NOTEMPTY => Error::new(
                ErrorKind::Busy,
                "something was written into the folder while it was switched",
            )
            .on(String::from_utf8_lossy(&path))
            .advise("pause what writes there, then run the restore again"),
            errno => fail("could not move an entry", &path)(errno),
        })
    }
}

/// Moves one entry to another folder, without overwriting.
pub(crate) fn shift(from: impl AsFd, to: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let first = rename_new(from, name, to, name);
    let errno = match first {
        Ok(()) => return Ok(()),
        Err(errno) => errno,
    };
    let stamp = sys::stat_at(from, name)?;
    if stamp.kind != FileType::Directory {
        return Err(errno);
    }
    match errno {
        // A folder without write permission cannot get another parent.
        Errno::ACCESS if stamp.bits & 0o200 == 0 => {
            let folder = sys::open_dir(from, name)?;
            rustix::fs::fchmod(&folder, sys::mode(stamp.bits | 0o200))?;
            let moved = rename_new(from, name, to, name);
            rustix::fs::fchmod(&folder, sys::mode(stamp.bits))?;
            moved
        }
        // A folder of a lower layer of an overlay cannot be moved, and one that was begun to
        // be moved is on both sides.
        Errno::XDEV | Errno::EXIST | Errno::NOTEMPTY => {
            let there = open_or_create(to, name)?;
            let folder = sys::open_dir(from, name)?;
            for inner in Names::read(&folder)?.iter() {
                shift(&folder, &there, inner)?;
            }
            sys::dress(&there, stamp.mode(), stamp.modified)?;
            sync_both(&folder, &there)?;
            rustix::fs::unlinkat(from, name, AtFlags::REMOVEDIR)
        }
        errno => Err(errno),
    }
}

fn sync_both(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::fsync(to)?;
    rustix::fs::fsync(from)
}

fn open_or_create(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    match sys::open_dir(&dir, name) {
        Err(Errno::NOENT) => sys::create_dir(&dir, name),
        other => other,
    }
}

/// Opens a folder by its path, through folders only.
fn descend(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut names = path.split(|byte| *byte == b'/');
    let first = sys::open_dir(root, names.next().unwrap_or(b"."))?;
    names.try_fold(first, |dir, name| sys::open_dir(&dir, name))
}

/// The folders above what is kept, as they are now.
fn above(root: &OwnedFd, keep: &[Vec<u8>]) -> Result<Folders> {
    let mut folders = Folders::new();
    for path in keep {
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            match descend(root, &path[..end]).and_then(sys::stat_fd) {
                Ok(stamp) => {
                    let name = String::from_utf8_lossy(&path[..end]).into_owned();
                    folders.insert(name, (stamp.mode(), stamp.modified));
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(fail("could not read a folder", path)(errno)),
            }
        }
    }
    Ok(folders)
}

pub(crate) fn rename_with(
    from: impl AsFd,
    name: &[u8],
    to: impl AsFd,
    as_name: &[u8],
    flags: RenameFlags,
) -> rustix::io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    return rustix::fs::renameat_with(from, name, to, as_name, flags);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    {
        let _ = (from, name, to, as_name, flags);
        Err(Errno::NOSYS)
    }
}

/// Renames to a name that must be free.
pub(crate) fn rename_new(
    from: impl AsFd,
    name: &[u8],
    to: impl AsFd,
    as_name: &[u8],
) -> rustix::io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    match rename_with(from, name, to, as_name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match sys::stat_at(to, as_name) {
            Err(Errno::NOENT) => rustix::fs::renameat(from, name, to, as_name),
            Ok(_) => Err(Errno::EXIST),
            Err(errno) => Err(errno),
        },
        other => other,
    }
}
