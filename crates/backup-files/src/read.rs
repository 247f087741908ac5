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
    whole_while(among, dir, name, || ())
}

/// `meanwhile` is what may happen between reading and looking again.
fn whole_while(
    among: &Arc<OpenFiles>,
    dir: BorrowedFd<'_>,
    name: &[u8],
    mut meanwhile: impl FnMut(),
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
        meanwhile();
        let whole = body.len() as u64 == stamp.size && unchanged(&file, dir, name, &stamp);
        if whole || attempt == ATTEMPTS {
            let attributes = file.has_attributes();
            return Ok(Taken { stamp, body, attributes, torn: !whole });
        }
    }
}

/// Copies several files that belong together, one after the other, again if any of them
/// changes until the last is copied.
pub(crate) fn group(
    among: &Arc<OpenFiles>,
    dir: BorrowedFd<'_>,
    names: &[&[u8]],
) -> Result<Vec<Taken<SpooledTempFile>>, Trouble> {
    group_while(among, dir, names, || ())
}

fn group_while(
    among: &Arc<OpenFiles>,
    dir: BorrowedFd<'_>,
    names: &[&[u8]],
    mut meanwhile: impl FnMut(),
) -> Result<Vec<Taken<SpooledTempFile>>, Trouble> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut files = Vec::new();
        for name in names {
            files.push(open(among, dir, name)?);
        }
        let mut taken = Vec::new();
        let mut whole = true;
        for (file, stamp) in &mut files {
            let failed = Trouble::Unreadable;
            let mut body = SpooledTempFile::new(SPOOL_MEMORY);
            let copied = io::copy(&mut file.file().take(stamp.size), &mut body).map_err(failed)?;
            body.rewind().map_err(failed)?;
            whole &= copied == stamp.size;
            let attributes = file.has_attributes();
            let stamp = Stamp { size: copied, ..*stamp };
            taken.push(Taken { stamp, body, attributes, torn: false });
        }
        meanwhile();
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
    use std::{fs, os::fd::AsFd, os::fd::OwnedFd};

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let open = sys::open_path(dir.path()).unwrap();
        (dir, open)
    }

    #[test]
    fn a_file_at_rest_is_taken_as_it_is() {
        let (_dir, open) = folder(&[("a", "text")]);
        let taken = whole(&Arc::default(), open.as_fd(), b"a").unwrap();
        assert_eq!((taken.body.as_slice(), taken.torn), (&b"text"[..], false));
    }

    // FAULTS 34
    #[test]
    fn a_file_that_changes_is_read_again_until_it_rests() {
        let (dir, open) = folder(&[("a", "one")]);
        let path = dir.path().join("a");
        let changes: [&dyn Fn(); 5] = [
            &|| fs::write(&path, "two").unwrap(),
            &|| fs::write(&path, "longer than before").unwrap(),
            &|| fs::write(&path, "").unwrap(),
            &|| fs::write(&path, "the same length: 1").unwrap(),
            &|| {
                fs::write(dir.path().join("b"), "renamed over it").unwrap();
                fs::rename(dir.path().join("b"), &path).unwrap();
            },
        ];
        for change in changes {
            let mut attempts = 0;
            let taken = whole_while(&Arc::default(), open.as_fd(), b"a", || {
                attempts += 1;
                if attempts == 1 {
                    change();
                }
            });
            let taken = taken.unwrap();
            assert_eq!((attempts, taken.torn), (2, false));
            assert_eq!(taken.body, fs::read(&path).unwrap());
        }
    }

    #[test]
    fn a_file_that_never_rests_is_taken_and_said_to_be_torn() {
        let (dir, open) = folder(&[("a", "text")]);
        let mut attempts = 0_u8;
        // The same length every time, and at once: only the time tells.
        let taken = whole_while(&Arc::default(), open.as_fd(), b"a", || {
            attempts += 1;
            fs::write(dir.path().join("a"), [attempts; 4]).unwrap();
        });
        let taken = taken.unwrap();
        assert_eq!((attempts, taken.torn, taken.body), (3, true, vec![2; 4]));
    }

    #[test]
    fn a_file_that_goes_away_or_becomes_a_link_is_not_taken() {
        let (dir, open) = folder(&[("a", "text"), ("b", "text")]);
        let gone = whole_while(&Arc::default(), open.as_fd(), b"a", || {
            fs::remove_file(dir.path().join("a")).unwrap();
        });
        assert!(matches!(gone, Err(Trouble::Vanished)));
        let linked = whole_while(&Arc::default(), open.as_fd(), b"b", || {
            fs::remove_file(dir.path().join("b")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", dir.path().join("b")).unwrap();
        });
        assert!(matches!(linked, Err(Trouble::Became)));
    }

    #[test]
    fn a_group_is_of_one_moment_or_said_to_be_torn() {
        let (dir, open) = folder(&[("x", "base 0"), ("x.wal", "log 0")]);
        let read = |calm_after: u32| {
            let mut attempts = 0;
            let taken = group_while(&Arc::default(), open.as_fd(), &[b"x", b"x.wal"], || {
                attempts += 1;
                if attempts < calm_after {
                    fs::write(dir.path().join("x.wal"), format!("log {attempts}")).unwrap();
                }
            });
            let mut taken = taken.unwrap();
            let mut log = String::new();
            taken[1].body.read_to_string(&mut log).unwrap();
            assert_eq!(taken[0].torn, taken[1].torn);
            (attempts, taken[0].torn, log)
        };
        assert_eq!(read(1), (1, false, "log 0".into()));
        assert_eq!(read(2), (2, false, "log 1".into()));
        assert_eq!(read(9), (3, true, "log 2".into()));
    }

    #[test]
    fn links_are_not_followed_and_pipes_do_not_block() {
        let (dir, open) = folder(&[("a", "text")]);
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        rustix::fs::mkfifoat(&open, "pipe", sys::mode(0o600)).unwrap();
        for name in [&b"link"[..], b"pipe"] {
            let taken = whole(&Arc::default(), open.as_fd(), name);
            assert!(matches!(taken, Err(Trouble::Became)), "{name:?}");
        }
        let taken = whole(&Arc::default(), open.as_fd(), b"none");
        assert!(matches!(taken, Err(Trouble::Vanished)));
    }
}
