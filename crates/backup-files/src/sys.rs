//! The few system calls that everything here is made of: names below an open folder, never
//! whole paths, and never through a symbolic link.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use backup_core::{Error, Result};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
};

/// Device and inode: what a file is, whatever its name.
pub(crate) type Identity = (u64, u64);

/// What `stat` says, of all systems in the same types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) id: Identity,
    pub(crate) kind: FileType,
    /// All permission bits, with setuid, setgid and sticky.
    pub(crate) bits: u32,
    pub(crate) links: u64,
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    /// In units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) modified: (i64, u32),
    pub(crate) changed: (i64, u32),
}

impl Stamp {
    // The types of the fields differ from system to system.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn new(stat: &Stat) -> Self {
        Self {
            id: (stat.st_dev as u64, stat.st_ino as u64),
            kind: FileType::from_raw_mode(stat.st_mode),
            bits: Mode::from_raw_mode(stat.st_mode).bits() as u32 & 0o7777,
            links: stat.st_nlink as u64,
            owner: (stat.st_uid, stat.st_gid),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: stat.st_blocks as u64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        }
    }

    /// The permission bits that are carried; links have none of their own.
    pub(crate) fn mode(&self) -> u32 {
        if self.kind == FileType::Symlink { 0o777 } else { self.bits & 0o777 }
    }

    /// The same file, not written to since. Blocks do not count: they are assigned late.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.id == other.id
            && self.bits == other.bits
            && self.size == other.size
            && self.modified == other.modified
            && self.changed == other.changed
    }
}

/// Of the name itself, not of what a link points at.
pub(crate) fn stat_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Stamp> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Stamp::new(&stat))
}

/// Of what the name leads to.
pub(crate) fn stat_target(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Stamp> {
    rustix::fs::statat(dir, name, AtFlags::empty()).map(|stat| Stamp::new(&stat))
}

pub(crate) fn stat_fd(fd: impl AsFd) -> rustix::io::Result<Stamp> {
    rustix::fs::fstat(fd).map(|stat| Stamp::new(&stat))
}

/// `None` where there is nothing.
pub(crate) fn stat_path(path: &Path) -> rustix::io::Result<Option<Stamp>> {
    match rustix::fs::stat(path) {
        Ok(stat) => Ok(Some(Stamp::new(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a folder by its name; a link is refused.
pub(crate) fn open_dir(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a folder that the host named; links on the way are the host's affair.
pub(crate) fn open_path(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, FOLDER, Mode::empty())
}

/// Opens a file for reading by its name; a link is refused, a pipe does not block.
pub(crate) fn open_file(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map(File::from)
}

/// Makes a file that must not exist.
pub(crate) fn create_file(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
}

/// Makes a folder that must not exist, for its owner alone, and opens it.
pub(crate) fn create_dir(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700))?;
    open_dir(dir, name)
}

/// Permission bits as the system's type has them.
#[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
pub(crate) fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode((bits & 0o7777) as rustix::fs::RawMode)
}

/// A modification time for `futimens`; the access time stays.
#[allow(clippy::useless_conversion)]
pub(crate) fn times(modified: (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified.0.into(), tv_nsec: modified.1.into() },
    }
}

/// Sets what an entry carries beside its content.
pub(crate) fn dress(fd: impl AsFd, bits: u32, modified: (i64, u32)) -> rustix::io::Result<()> {
    rustix::fs::fchmod(&fd, mode(bits & 0o777))?;
    rustix::fs::futimens(fd, &times(modified))
}

/// Whether it has attributes of the user's or an access control list.
pub(crate) fn has_attributes(fd: impl AsFd) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        let mut names = [0_u8; 1024];
        match rustix::fs::flistxattr(fd, &mut names) {
            // Labels that the system gives to every file.
            Ok(len) => names[..len]
                .split(|byte| *byte == 0)
                .any(|name| !matches!(name, b"" | b"security.selinux" | b"com.apple.provenance")),
            // More than fit.
            Err(errno) => errno == Errno::RANGE,
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    {
        let _ = fd;
        false
    }
}

/// An error of the system about `path`.
pub(crate) fn fail(what: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error + use<> {
    let path = String::from_utf8_lossy(path).into_owned();
    move |errno| Error::io(what, io::Error::from(errno)).on(path)
}

/// The names in one folder, sorted by their bytes, in two allocations.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
}

impl Names {
    pub(crate) fn read(dir: impl AsFd) -> rustix::io::Result<Self> {
        let mut names = Self::default();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let start = u32::try_from(names.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
            names.bytes.extend_from_slice(name);
            let end = u32::try_from(names.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
            names.spans.push((start, end));
        }
        let bytes = &names.bytes;
        names.spans.sort_unstable_by_key(|span| slice(bytes, *span));
        // A folder that changes while it is listed may show a name twice.
        names.spans.dedup_by_key(|span| slice(bytes, *span));
        Ok(names)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans.get(index).map(|span| slice(&self.bytes, *span))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| slice(&self.bytes, *span))
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.spans.binary_search_by_key(&name, |span| slice(&self.bytes, *span)).is_ok()
    }
}

fn slice(bytes: &[u8], (start, end): (u32, u32)) -> &[u8] {
    &bytes[start as usize..end as usize]
}

/// Brings everything written below `dir` to the disk.
pub(crate) fn sync_all(dir: impl AsFd) -> Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let done = rustix::fs::syncfs(dir);
    // Elsewhere every file was synced when it was written.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let done = rustix::fs::fsync(dir);
    done.map_err(|e| {
        Error::io("the restored files could not be brought to the disk", e.into())
            .advise("check the disk; nothing was switched, run the restore again")
    })
}
