//! A way down into a tree, folder by folder, with open handles.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::sys::{self, Identity};

/// Handles kept open at the deep end: a path may be 2 000 folders deep, and a process may
/// often have only 1 024 files open.
const KEPT: usize = 32;

/// The folders from a root down to where one is, each with data of the caller's.
///
/// A closed handle is opened again through `..` or from the root, and taken only if it is
/// the same folder: one that was moved or replaced by a link leads nowhere else.
pub(crate) struct Trail<T> {
    levels: Vec<Level<T>>,
    path: Vec<u8>,
}

struct Level<T> {
    handle: Option<OwnedFd>,
    id: Identity,
    /// Where the folder's own path ends.
    end: usize,
    data: T,
}

/// What [`Trail::pop`] gives back of the folder that was left.
pub(crate) struct Left<T> {
    /// The folder; `None` if it had been lost.
    pub(crate) handle: Option<OwnedFd>,
    pub(crate) data: T,
    /// Why the folder above, where one is now, can be used no longer, if so.
    pub(crate) lost: Option<Errno>,
}

impl<T> Trail<T> {
    pub(crate) fn new(root: OwnedFd, data: T) -> Result<Self> {
        let id = sys::stat_fd(&root)?.id;
        let root = Level { handle: Some(root), id, end: 0, data };
        Ok(Self { levels: vec![root], path: Vec::new() })
    }

    /// How many folders deep, the root being 0.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len() - 1
    }

    /// The path of the deepest folder.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The deepest folder.
    ///
    /// # Panics
    /// After `pop` reported it as lost.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.top().handle.as_ref().expect("pop reported a lost folder").as_fd()
    }

    pub(crate) fn data(&self) -> &T {
        &self.top().data
    }

    pub(crate) fn data_mut(&mut self) -> &mut T {
        let last = self.levels.len() - 1;
        &mut self.levels[last].data
    }

    fn top(&self) -> &Level<T> {
        &self.levels[self.levels.len() - 1]
    }

    /// Goes down into the open folder `handle`, called `name`.
    pub(crate) fn push(&mut self, name: &[u8], handle: OwnedFd, data: T) -> Result<()> {
        let id = sys::stat_fd(&handle)?.id;
        join(&mut self.path, name);
        self.levels.push(Level { handle: Some(handle), id, end: self.path.len(), data });
        // The root stays open: it is where everything can be found again from.
        if let Some(index) = self.levels.len().checked_sub(KEPT + 1).filter(|index| *index > 0) {
            self.levels[index].handle = None;
        }
        Ok(())
    }

    /// Goes up one folder; `None` at the root. Where the folder above is lost, every further
    /// `pop` tries the next one.
    pub(crate) fn pop(&mut self) -> Option<Left<T>> {
        if self.levels.len() == 1 {
            return None;
        }
        let left = self.levels.pop()?;
        let last = self.levels.len() - 1;
        self.path.truncate(self.levels[last].end);
        let mut lost = None;
        if self.levels[last].handle.is_none() {
            match self.reopen(left.handle.as_ref(), last) {
                Ok(parent) => self.levels[last].handle = Some(parent),
                Err(error) => lost = Some(error),
            }
        }
        Some(Left { handle: left.handle, data: left.data, lost })
    }

    fn reopen(&self, child: Option<&OwnedFd>, index: usize) -> Result<OwnedFd> {
        let id = self.levels[index].id;
        let same = |dir: OwnedFd| Ok((sys::stat_fd(&dir)?.id == id).then_some(dir));
        let above = child.map(|child| sys::open_dir(child, b"..").and_then(same));
        if let Some(Ok(Some(dir))) = above {
            return Ok(dir);
        }
        let mut dir = sys::open_dir(self.levels[0].handle.as_ref().ok_or(Errno::BADF)?, b".")?;
        for name in self.path[..self.levels[index].end].split(|byte| *byte == b'/') {
            dir = sys::open_dir(&dir, name)?;
        }
        same(dir)?.ok_or(Errno::STALE)
    }
}

/// Adds a name to a path.
pub(crate) fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
