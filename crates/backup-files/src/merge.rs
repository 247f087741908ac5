//! Putting staged entries among those of a live root, one by one, and taking them out again.
//!
//! What was done is told by where the staged inodes are: one that is not in the staged tree is
//! live, by itself or with a folder above. What it replaced then lies in its place in the staged
//! tree or, where the file system cannot exchange two names, in `old` under its number.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use backup_core::{Cancel, Error, ErrorKind, Result, record::Tally};
use rustix::{
    fs::{FileType, RenameFlags},
    io::Errno,
};

use crate::{
    notes::{self, Before, List, Note},
    place::{FOLDERS, NEW, NOTES, OLD, Place, Step},
    remove,
    switch::{POINTER, rename_new, rename_with, shift},
    sys::{self, Stamp, fail},
    tally::entry_line,
};

/// The folders of a tree, one of them open.
pub(crate) struct Tree {
    root: OwnedFd,
    at: Option<(Vec<u8>, OwnedFd)>,
    /// Ours: its folders may be made writable.
    staged: bool,
    changed: bool,
}

impl Tree {
    pub(crate) fn new(root: OwnedFd, staged: bool) -> Self {
        Self { root, at: None, staged, changed: false }
    }

    /// Opens a folder by its path, through folders only; of an empty path, the root.
    pub(crate) fn folder(&mut self, path: &[u8]) -> rustix::io::Result<BorrowedFd<'_>> {
        if self.at.as_ref().is_none_or(|(open, _)| open != path) {
            self.leave()?;
            let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
            let mut dir = sys::open_dir(&self.root, b".")?;
            for name in names {
                dir = sys::open_dir(&dir, name)?;
                let bits = sys::stat_fd(&dir)?.bits;
                if self.staged && bits & 0o700 != 0o700 {
                    rustix::fs::fchmod(&dir, sys::mode(bits | 0o700))?;
                }
            }
            self.at = Some((path.to_vec(), dir));
        }
        Ok(self.at.as_ref().map_or(self.root.as_fd(), |(_, dir)| dir.as_fd()))
    }

    /// What is at the path; `None` also where there is no such folder.
    fn stat(&mut self, path: &[u8]) -> rustix::io::Result<Option<Stamp>> {
        let (folder, name) = split(path);
        let found = match self.folder(folder) {
            Ok(dir) => sys::stat_at(dir, name),
            Err(errno) => Err(errno),
        };
        match found {
            Ok(stamp) => Ok(Some(stamp)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Renames in a folder are on the disk before another is opened.
    fn leave(&mut self) -> rustix::io::Result<()> {
        match self.at.take() {
            Some((_, dir)) if std::mem::take(&mut self.changed) => rustix::fs::fsync(dir),
            _ => Ok(()),
        }
    }
}

pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

impl Place {
    /// Makes the staged entries live. May be repeated after a crash.
    pub(crate) fn put_in(&mut self) -> Result<()> {
        if self.state.step == Step::Staging {
            self.look()?;
            self.state.stepwise = true;
            self.save(Step::In)?;
        }
        let mut trees = Trees::open(self)?;
        // The pointer last: who finds it finds what it points at.
        for pointers in [false, true] {
            for (index, note) in self.notes()?.enumerate() {
                let (path, note) = note?;
                if (split(&path).1 == POINTER) == pointers {
                    trees.put(index, &path, &note)?;
                }
            }
        }
        trees.sync()?;
        for note in self.notes()? {
            if let (path, Note { folder: true, dress: Some(dress), .. }) = note? {
                let failed = || fail("could not finish a folder", &path);
                let folder = trees.live.folder(&path).map_err(failed())?;
                // What is not carried stays.
                let bits = sys::stat_fd(folder).map_err(failed())?.bits & 0o7000 | dress.mode;
                give(folder, bits, dress.modified).map_err(failed())?;
            }
        }
        self.save(Step::Committed)
    }

    /// Brings the staged entries back into staging, and what they replaced back.
    pub(crate) fn take_out(&self) -> Result<()> {
        let mut trees = Trees::open(self)?;
        for pointers in [true, false] {
            for (index, note) in self.notes()?.enumerate() {
                let (path, note) = note?;
                if (split(&path).1 == POINTER) == pointers {
                    trees.take(index, &path, &note)?;
                }
            }
        }
        trees.sync()?;
        for note in self.notes()? {
            if let (path, Note { folder: true, dress: Some(dress), .. }) = note? {
                let failed = || fail("could not finish a folder", &path);
                let folder = trees.new.folder(&path).map_err(failed())?;
                sys::dress(folder, dress.mode, dress.modified).map_err(failed())?;
            }
        }
        let folders = sys::open_file(&self.dir, FOLDERS).map_err(self.failed())?;
        for before in notes::read::<Before>(folders) {
            let (path, Before { bits, modified }) = before?;
            match trees.live.folder(&path) {
                Ok(folder) => give(folder, bits, modified),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(errno),
            }
            .map_err(fail("could not finish a folder", &path))?;
        }
        Ok(())
    }

    /// Reads back what was staged, where it is now.
    pub(crate) fn verify_merge(&self, cancel: &Cancel) -> Result<Tally> {
        let trees = Trees::open(self)?;
        let mut tree = if self.state.step == Step::Committed { trees.live } else { trees.new };
        let (mut tally, mut buffer) = (Tally::new(), vec![0; 1 << 20]);
        for note in self.notes()? {
            cancel.check()?;
            let (path, Note { dress: Some(_), .. }) = note? else { continue };
            let (folder, name) = split(&path);
            let failed = |errno| fail("could not read a restored file back", &path)(errno);
            let dir = tree.folder(folder).map_err(failed)?;
            let stamp = sys::stat_at(dir, name).map_err(failed)?;
            tally.add_line(&entry_line(dir, name, &path, &stamp, &mut buffer, cancel)?);
        }
        Ok(tally)
    }

    fn notes(&self) -> Result<impl Iterator<Item = Result<(Vec<u8>, Note)>> + use<>> {
        Ok(notes::read(sys::open_file(&self.dir, NOTES).map_err(self.failed())?))
    }

    /// Whether every path is as the engine found it, and which folders will be put into.
    fn look(&self) -> Result<()> {
        for name in [OLD, FOLDERS] {
            remove::tree(&self.dir, name)?;
        }
        let mut trees = Trees::open(self)?;
        let file = sys::create_file(&self.dir, FOLDERS).map_err(self.failed())?;
        let mut folders = List::new(file);
        // The root itself.
        let root = sys::stat_fd(trees.live.folder(b"").map_err(self.failed())?);
        let Stamp { bits, modified, .. } = root.map_err(self.failed())?;
        folders.add(b"", &Before { bits, modified })?;
        for note in self.notes()? {
            let (path, note) = note?;
            let now = trees.live.stat(&path).map_err(fail("could not read a root", &path))?;
            let is_folder = now.is_some_and(|now| now.kind == FileType::Directory);
            if !note.before.holds(now.as_ref()) || (now.is_some() && is_folder != note.folder) {
                return Err(changed(&path));
            }
            if let Some(Stamp { bits, modified, .. }) = now.filter(|_| is_folder) {
                folders.add(&path, &Before { bits, modified })?;
            }
        }
        folders.finish()
    }
}

struct Trees {
    live: Tree,
    new: Tree,
    old: OwnedFd,
    /// As on a file system that cannot exchange two names.
    exchanges: bool,
}

impl Trees {
    fn open(place: &Place) -> Result<Self> {
        let gone = || Error::new(ErrorKind::NotFound, "the root is gone").on(&place.token.path);
        let (live, _) = place.live()?.ok_or_else(gone)?;
        let old = match sys::open_dir(&place.dir, OLD) {
            Err(Errno::NOENT) => sys::create_dir(&place.dir, OLD),
            other => other,
        };
        let old = old.map_err(place.failed())?;
        let new = Tree::new(place.folder(NEW)?, true);
        Ok(Self { live: Tree::new(live, false), new, old, exchanges: !place.token.stepwise })
    }

    fn sync(&mut self) -> Result<()> {
        let left = self.live.leave().and_then(|()| self.new.leave());
        let left = left.and_then(|()| rustix::fs::fsync(&self.old));
        left.map_err(fail("could not sync a folder", b""))
    }

    fn put(&mut self, index: usize, path: &[u8], note: &Note) -> Result<()> {
        let failed = || fail("could not move an entry", path);
        let staged = self.new.stat(path).map_err(failed())?;
        if staged.is_none_or(|staged| staged.id.1 != note.inode) {
            return Ok(());
        }
        let now = self.live.stat(path).map_err(failed())?;
        let is_folder = now.is_some_and(|now| now.kind == FileType::Directory);
        if now.is_some() && is_folder && note.folder {
            return Ok(());
        }
        if now.is_some() && is_folder != note.folder {
            return Err(changed(path));
        }
        let (folder, name) = split(path);
        // Both are open: what is at the path was just looked at.
        (self.live.changed, self.new.changed) = (true, true);
        let live = self.live.folder(folder).map_err(|_| changed(path))?;
        let new = self.new.folder(folder).map_err(failed())?;
        let number = index.to_string().into_bytes();
        if now.is_none() {
            // A crash may have come between the two halves of a replacement.
            if !note.before.holds(None) && sys::stat_at(&self.old, &number).is_err() {
                return Err(changed(path));
            }
            return shift(new, live, name).map_err(failed());
        }
        let exchanged = match self.exchanges {
            true => rename_with(new, name, live, name, RenameFlags::EXCHANGE),
            false => Err(Errno::NOSYS),
        };
        let before = match exchanged {
            Ok(()) => sys::stat_at(new, name),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rename_new(live, name, &self.old, &number).map_err(failed())?;
                rename_new(new, name, live, name).map_err(failed())?;
                sys::stat_at(&self.old, &number)
            }
            Err(errno) => return Err(failed()(errno)),
        };
        if !note.before.holds(Some(&before.map_err(failed())?)) {
            return Err(changed(path));
        }
        Ok(())
    }

    fn take(&mut self, index: usize, path: &[u8], note: &Note) -> Result<()> {
        let failed = || fail("could not move an entry back", path);
        let (folder, name) = split(path);
        let number = index.to_string().into_bytes();
        let back = |live| rename_new(&self.old, &number, live, name);
        let set_aside = sys::stat_at(&self.old, &number).is_ok();
        let now = self.live.stat(path).map_err(failed())?;
        let (live, new) = match (self.live.folder(folder), self.new.folder(folder)) {
            (Ok(live), Ok(new)) => (live, new),
            // It went in, and out, with a folder above.
            (Err(Errno::NOENT | Errno::NOTDIR), _) | (_, Err(Errno::NOENT)) => return Ok(()),
            (Err(errno), _) | (_, Err(errno)) => return Err(failed()(errno)),
        };
        let here = match sys::stat_at(new, name) {
            Ok(here) => Some(here),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed()(errno)),
        };
        let done = match here {
            // It was not put in, or was taken out; what it replaces may still be aside.
            Some(here) if here.id.1 == note.inode => match (set_aside, now) {
                (true, None) => back(live),
                _ => return Ok(()),
            },
            Some(_) if now.is_some() => rename_with(new, name, live, name, RenameFlags::EXCHANGE),
            Some(_) => rename_new(new, name, live, name),
            None => {
                let out = if now.is_some() { shift(live, new, name) } else { Ok(()) };
                out.and_then(|()| if set_aside { back(live) } else { Ok(()) })
            }
        };
        (self.live.changed, self.new.changed) = (true, true);
        done.map_err(failed())
    }
}

/// Mode, special bits too, and time of a live folder.
fn give(folder: BorrowedFd<'_>, bits: u32, modified: (i64, u32)) -> rustix::io::Result<()> {
    rustix::fs::fchmod(folder, sys::mode(bits))?;
    rustix::fs::futimens(folder, &sys::times(modified))
}

fn changed(path: &[u8]) -> Error {
    Error::new(ErrorKind::Changed, "a file was changed after it was compared with the archive's")
        .on(String::from_utf8_lossy(path))
        .advise("pause what writes there, then run the restore again")
}
