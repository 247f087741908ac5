//! Reading a restored tree back.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
};

use backup_core::{
    Cancel, EntryFacts, EntryPath, Error, ErrorKind, FileEntry, Result,
    record::{Sha256Digest, Tally},
};
use rustix::fs::FileType;
use sha2::{Digest, Sha256};

use crate::{
    place::Folders,
    stage::below,
    sys::{self, Stamp, fail},
    walk::{Step, Walk},
};

const WHAT: &str = "could not read a restored file back";

/// Which entries of a tree do not count.
pub(crate) struct Ignore<'a> {
    /// A name in the root: the staging area.
    pub(crate) name: Option<&'a [u8]>,
    /// What belongs to others.
    pub(crate) keep: &'a [Vec<u8>],
    /// The folders above those which are the archive's as well.
    pub(crate) folders: &'a Folders,
    /// Paths that nothing announced, ascending, each with a NUL.
    pub(crate) implied: File,
}

/// Counts and digests every entry, in the order of a backup and in bounded memory.
pub(crate) fn tally(root: OwnedFd, ignore: Ignore<'_>, cancel: &Cancel) -> Result<Tally> {
    let mut tally = Tally::new();
    let mut buffer = vec![0; 1 << 20];
    let mut implied = BufReader::new(ignore.implied);
    let mut next_implied = next(&mut implied)?;
    let mut walk = Walk::<()>::new(root).map_err(fail(WHAT, b""))?;
    while let Some(step) = walk.step() {
        cancel.check()?;
        match step {
            Step::Up { .. } => continue,
            Step::Lost(errno) => return Err(fail(WHAT, walk.path())(errno)),
            Step::Name => {}
        }
        let path = walk.path();
        if ignore.name == Some(path) || ignore.keep.iter().any(|kept| kept == path) {
            continue;
        }
        let stamp = walk.stat().map_err(fail(WHAT, path))?;
        let mut counts = !ignore.keep.iter().any(|kept| below(kept, path))
            || ignore.folders.contains_key(&*String::from_utf8_lossy(path));
        if next_implied == path {
            counts = false;
            next_implied = next(&mut implied)?;
        }
        if counts {
            let line = entry_line(walk.dir(), walk.name(), path, &stamp, &mut buffer, cancel)?;
            tally.add_line(&line);
        }
        if stamp.kind == FileType::Directory {
            walk.enter().map_err(|errno| fail(WHAT, walk.path())(errno))?;
        }
    }
    Ok(tally)
}

/// The line that stands for what is at a name, whose content is read.
pub(crate) fn entry_line(
    dir: impl AsFd,
    name: &[u8],
    path: &[u8],
    stamp: &Stamp,
    buffer: &mut [u8],
    cancel: &Cancel,
) -> Result<Vec<u8>> {
    let failed = |errno| fail(WHAT, path)(errno);
    let (sha256, target);
    let facts = match stamp.kind {
        FileType::Directory => EntryFacts::Directory,
        FileType::Symlink => {
            target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
            EntryFacts::Symlink { target: target.to_bytes() }
        }
        FileType::RegularFile => {
            let file = sys::open_file(dir, name).map_err(failed)?;
            let len;
            (len, sha256) =
                hash(file, buffer, cancel).map_err(|e| e.on(String::from_utf8_lossy(path)))?;
            EntryFacts::File { len, sha256: &sha256 }
        }
        _ => {
            return Err(Error::new(ErrorKind::Mismatch, "there is what no archive holds")
                .on(String::from_utf8_lossy(path)));
        }
    };
    Ok(FileEntry::line(&EntryPath::new(path)?, stamp.mode(), stamp.modified, facts))
}

fn hash(mut file: File, buffer: &mut [u8], cancel: &Cancel) -> Result<(u64, Sha256Digest)> {
    let mut hasher = Sha256::new();
    let mut len = 0;
    loop {
        cancel.check()?;
        match file.read(buffer) {
            Ok(0) => return Ok((len, Sha256Digest::finish(hasher))),
            Ok(read) => {
                len += read as u64;
                hasher.update(&buffer[..read]);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io(WHAT, e)),
        }
    }
}

fn next(implied: &mut BufReader<File>) -> Result<Vec<u8>> {
    let mut path = Vec::new();
    implied
        .read_until(0, &mut path)
        .map_err(|e| Error::io("could not read the staging area", e))?;
    path.pop();
    Ok(path)
}
