//! Reading files that may change meanwhile.

use std::{
    io::{self, Read, Seek},
    os::fd::BorrowedFd,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use rustix::{fs::FileType, io::Errno};
use tempfile::SpooledTempFile;

use crate::{
    guard::{OpenFile, OpenFiles},
    sys::{self, Stamp},
};

/// Files up to this length are read whole, so that they can be read again.
pub(crate) const SMALL: u64 = 1 << 20;

/// Groups up to this length stay in memory.
const SPOOL_MEMORY: usize = 8 << 20;

/// How often something that changes is read.
const ATTEMPTS: u32 = 3;

/// Longer than the steps in which systems count a file's times.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// Why a file could not be taken.
#[derive(Debug)]
pub(crate) enum Trouble {
    Vanished,
    /// It is no regular file any more.
    Became,
    /// It grew beyond what is read whole.
    Outgrown,
    Unreadable(io::Error),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Vanished,
            // No link is followed, and a socket cannot be opened.
            Errno::LOOP | Errno::NXIO => Self::Became,
            other => Self::Unreadable(other.into()),
        }
    }
}

/// A file as it was at one moment, or as near to that as it allowed.
#[derive(Debug)]
pub(crate) struct Taken<B> {
    pub(crate) stamp: Stamp,
    pub(crate) body: B,
    /// It has attributes that are not carried.
    pub(crate) attributes: bool,
    /// It changed every time that it was read.
    pub(crate) torn: bool,
}

/// Opens a regular file and says what it is.
pub(crate) fn open(
    among: &Arc<OpenFiles>,
    dir: BorrowedFd<'_>,
    name: &[u8],
) -> Result<(OpenFile, Stamp), Trouble> {
    let file = among.open(dir, name)?;
    let stamp = file.stat()?;
    if stamp.kind != FileType::RegularFile {
        return Err(Trouble::Became);
    }
    let stamp = settled(&file, stamp)?;
    Ok((file, stamp))
}

/// Seconds since 1970 and nanoseconds.
pub(crate) fn now() -> (i64, u32) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos())
}

/// Waits until a later write must show in the file's times: two writes within one step of
/// the system's clock look alike.
fn settled(file: &OpenFile, stamp: Stamp) -> rustix::io::Result<Stamp> {
    let age =
        |(seconds, nanos): (i64, u32)| Duration::new(u64::try_from(seconds).unwrap_or(0), nanos);
    if age(now()).abs_diff(age(stamp.changed)) > TICK {
        return Ok(stamp);
    }
    thread::sleep(TICK);
    file.stat()
}

/// Whether the open file, and what is at its name, are still what they were.
pub(crate) fn unchanged(file: &OpenFile, dir: BorrowedFd<'_>, name: &[u8], before: &Stamp) -> bool {
    file.stat().is_ok_and(|now| now.same(before))
        && sys::stat_at(dir, name).is_ok_and(|now| now.id == before.id)
}

/// Reads a small file whole, again if it changes.
pub(crate) fn whole(
    among: &Arc<OpenFiles>,
    dir: BorrowedFd<'_>,
    name: &[u8],
) -> Result<Taken<Vec<u8>>, Trouble> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (mut file, stamp) = open(among, dir, name)?;
        if stamp.size > SMALL {
            return Err(Trouble::Outgrown);
        }
        let mut body = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or(0) + 1);
        file.file().take(SMALL).read_to_end(&mut body).map_err(Trouble::Unreadable)?;
        let whole = body.len() as u64 == stamp.size && unchanged(&file, dir, name, &stamp);
        if whole || attempt == ATTEMPTS {
            let attributes = file.has_attributes();
            return Ok(Taken { stamp, body, attributes, torn: !whole });
        }
    }
}

/// Copies several files that belong together, one after the other, again if any of them
/// changes until the last is copied.
///
/// # Errors
/// With the index of the file that made the trouble.
pub(crate) fn group(
    among: &Arc<OpenFiles>,
    dir: BorrowedFd<'_>,
    names: &[&[u8]],
) -> Result<Vec<Taken<SpooledTempFile>>, (usize, Trouble)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut files = Vec::new();
        for (index, name) in names.iter().enumerate() {
            files.push(open(among, dir, name).map_err(|trouble| (index, trouble))?);
        }
        let mut taken = Vec::new();
        let mut whole = true;
        for (index, (file, stamp)) in files.iter_mut().enumerate() {
            let failed = |e| (index, Trouble::Unreadable(e));
            let mut body = SpooledTempFile::new(SPOOL_MEMORY);
            let copied = io::copy(&mut file.file().take(stamp.size), &mut body).map_err(failed)?;
            body.rewind().map_err(failed)?;
            whole &= copied == stamp.size;
            let attributes = file.has_attributes();
            let stamp = Stamp { size: copied, ..*stamp };
            taken.push(Taken { stamp, body, attributes, torn: false });
        }
        whole &=
            files.iter().zip(names).all(|((file, stamp), name)| unchanged(file, dir, name, stamp));
        if whole || attempt == ATTEMPTS {
            taken.iter_mut().for_each(|file| file.torn = !whole);
            return Ok(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    fn handle(dir: &Path) -> std::os::fd::OwnedFd {
        sys::open_path(dir).unwrap()
    }

    #[test]
    fn a_file_at_rest_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "text").unwrap();
        use std::os::fd::AsFd;
        let open = handle(dir.path());
        let taken = whole(&Arc::default(), open.as_fd(), b"a").unwrap();
        assert_eq!((taken.body.as_slice(), taken.torn), (&b"text"[..], false));
    }

    #[test]
    fn links_are_not_followed_and_pipes_do_not_block() {
        use std::os::fd::AsFd;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "text").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let open = handle(dir.path());
        rustix::fs::mkfifoat(&open, "pipe", sys::mode(0o600)).unwrap();
        for name in [&b"link"[..], b"pipe"] {
            let taken = whole(&Arc::default(), open.as_fd(), name);
            assert!(matches!(taken, Err(Trouble::Became)), "{name:?}");
        }
        let taken = whole(&Arc::default(), open.as_fd(), b"none");
        assert!(matches!(taken, Err(Trouble::Vanished)));
    }
}
