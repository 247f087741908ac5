//! A walk through a tree in the order of [`EntryPath`](backup_core::EntryPath).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::{
    sys::{self, Names, Stamp},
    trail::{Trail, join},
};

/// Depth first, each folder sorted by the bytes of its names: a folder, all that it holds,
/// then its next sibling. Holds the names of the folders on the way down and nothing else.
///
/// `T` is what the caller keeps of every folder.
pub(crate) struct Walk<T> {
    trail: Trail<Level<T>>,
    /// The name that the walk stands at, and its path.
    name: Vec<u8>,
    path: Vec<u8>,
}

struct Level<T> {
    names: Names,
    next: usize,
    name: Vec<u8>,
    data: T,
}

/// Where a walk has come to.
pub(crate) enum Step<T> {
    /// At a name; [`Walk::enter`] goes down into it.
    Name,
    /// Out of a folder, which has no more names; the walk stands at its name again.
    Up { folder: OwnedFd, data: T },
    /// The rest of the folder that the walk stands at was moved or removed meanwhile.
    Lost(Errno),
}

impl<T: Default> Walk<T> {
    /// Starts at an open root.
    pub(crate) fn new(root: OwnedFd) -> Result<Self> {
        let names = Names::read(&root)?;
        let level = Level { names, next: 0, name: Vec::new(), data: T::default() };
        Ok(Self { trail: Trail::new(root, level)?, name: Vec::new(), path: Vec::new() })
    }

    /// Goes on; `None` at the end.
    pub(crate) fn step(&mut self) -> Option<Step<T>> {
        let level = self.trail.data_mut();
        if let Some(name) = level.names.get(level.next) {
            level.next += 1;
            self.name.clear();
            self.name.extend_from_slice(name);
            self.path.clear();
            self.path.extend_from_slice(self.trail.path());
            join(&mut self.path, &self.name);
            return Some(Step::Name);
        }
        self.path.clear();
        self.path.extend_from_slice(self.trail.path());
        let left = self.trail.pop()?;
        self.name = left.data.name;
        match (left.handle, left.lost) {
            (_, Some(errno)) => {
                // Nothing more is read from a folder that cannot be found again.
                self.trail.data_mut().names = Names::default();
                Some(Step::Lost(errno))
            }
            (Some(folder), None) => Some(Step::Up { folder, data: left.data.data }),
            (None, None) => self.step(),
        }
    }

    /// Goes down into the name that the walk stands at; a link is refused.
    pub(crate) fn enter(&mut self) -> Result<()> {
        let folder = sys::open_dir(self.trail.dir(), &self.name)?;
        let names = Names::read(&folder)?;
        let level = Level { names, next: 0, name: self.name.clone(), data: T::default() };
        self.trail.push(&self.name, folder, level)
    }

    /// The name that the walk stands at.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its path within the root.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The folder that holds it.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.trail.dir()
    }

    /// The other names in that folder.
    pub(crate) fn names(&self) -> &Names {
        &self.trail.data().names
    }

    /// What the caller keeps of that folder.
    pub(crate) fn data_mut(&mut self) -> &mut T {
        &mut self.trail.data_mut().data
    }

    /// What is at the name.
    pub(crate) fn stat(&self) -> Result<Stamp> {
        sys::stat_at(self.dir().as_fd(), &self.name)
    }
}
