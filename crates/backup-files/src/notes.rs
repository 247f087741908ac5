//! What a merge staged, entry by entry: a list in the hidden folder.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
};

use backup_core::{Error, Result};
use rustix::fs::FileType;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{stage::Dress, sys::Stamp};

/// An entry that was staged, in the order in which they came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Its inode: where it is tells what was done.
    pub(crate) inode: u64,
    pub(crate) folder: bool,
    /// `None` of a folder that nothing announced.
    pub(crate) dress: Option<Dress>,
    /// What was live when the engine asked.
    pub(crate) before: Known,
}

/// What is known of a path in the live root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) enum Known {
    #[default]
    Unasked,
    Nothing,
    There(Facts),
}

/// By what a change is seen. Not by the time of the last change of any kind: a rename counts there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) inode: u64,
    pub(crate) folder: bool,
    pub(crate) bits: u32,
    pub(crate) size: u64,
    pub(crate) modified: (i64, u32),
}

/// A live folder that a merge puts something into, as it was.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Before {
    pub(crate) bits: u32,
    pub(crate) modified: (i64, u32),
}

impl Facts {
    pub(crate) fn of(stamp: &Stamp) -> Self {
        let Stamp { id: (_, inode), kind, bits, size, modified, .. } = *stamp;
        Self { inode, folder: kind == FileType::Directory, bits, size, modified }
    }
}

impl Known {
    /// Whether this is still so; `now` is what is there.
    pub(crate) fn holds(&self, now: Option<&Stamp>) -> bool {
        match (self, now) {
            (Self::Unasked, _) | (Self::Nothing, None) => true,
            // A folder changes with what is put into it.
            (Self::There(before), Some(now)) if before.folder => now.kind == FileType::Directory,
            (Self::There(before), Some(now)) => Facts::of(now) == *before,
            _ => false,
        }
    }
}

/// A list of paths, each with what is known of it: NUL behind the path, and behind the rest.
pub(crate) struct List(BufWriter<File>);

impl List {
    pub(crate) fn new(file: File) -> Self {
        Self(BufWriter::new(file))
    }

    pub(crate) fn add(&mut self, path: &[u8], what: &impl Serialize) -> Result<()> {
        let failed = |e| Error::io("could not write to the staging area", e);
        let what = serde_json::to_vec(what).map_err(|e| failed(e.into()))?;
        [path, &[0], &what, &[0]].iter().try_for_each(|part| self.0.write_all(part)).map_err(failed)
    }

    /// The list is on the disk when this returns.
    pub(crate) fn finish(self) -> Result<()> {
        let failed = |e| Error::io("could not write to the staging area", e);
        let file = self.0.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)
    }
}

/// Reads a list back.
pub(crate) fn read<T: DeserializeOwned>(file: File) -> impl Iterator<Item = Result<(Vec<u8>, T)>> {
    let mut file = BufReader::new(file);
    std::iter::from_fn(move || next(&mut file).transpose())
}

fn next<T: DeserializeOwned>(file: &mut BufReader<File>) -> Result<Option<(Vec<u8>, T)>> {
    let failed = |e| Error::io("could not read the staging area", e);
    let (mut path, mut what) = (Vec::new(), Vec::new());
    file.read_until(0, &mut path).map_err(failed)?;
    if path.pop().is_none() {
        return Ok(None);
    }
    file.read_until(0, &mut what).map_err(failed)?;
    what.pop();
    let what = serde_json::from_slice(&what).map_err(|e| failed(e.into()))?;
    Ok(Some((path, what)))
}
