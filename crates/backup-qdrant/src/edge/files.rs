//! Folders: copied, exchanged, synced, removed.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use backup_core::{Cancel, Error, Result};

/// An I/O error about a path.
pub(crate) fn fail(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let (what, path) = (what.to_owned(), path.display().to_string());
    move |error| Error::io(what, error).on(path)
}

/// Makes a folder for this user alone.
pub(crate) fn make(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(fail("could not make a folder", folder))
}

/// Removes a folder with all in it; nothing if it is not there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(fail("could not remove a folder", folder)(e))
        }
        _ => Ok(()),
    }
}

/// Brings the names in a folder to the disk.
pub(crate) fn sync(folder: &Path) -> Result<()> {
    // Elsewhere a folder cannot be opened, and renames are written through by themselves.
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(fail("could not bring a folder to the disk", folder))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Brings a folder and everything below to the disk.
pub(crate) fn sync_tree(folder: &Path) -> Result<()> {
    for entry in list(folder)? {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync_tree(&path)?;
        } else {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(fail("could not bring a file to the disk", &path))?;
        }
    }
    sync(folder)
}

pub(crate) fn list(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect);
    entries.map_err(fail("could not read a folder", folder))
}

/// Bytes of the files below a folder, without their holes; none if it is not there.
pub(crate) fn size(folder: &Path) -> Result<u64> {
    if !folder.exists() {
        return Ok(0);
    }
    let mut bytes: u64 = 0;
    for entry in list(folder)? {
        let path = entry.path();
        let facts = entry.metadata().map_err(fail("could not read a folder", &path))?;
        let size = if facts.is_dir() { size(&path)? } else { stored(&facts) };
        bytes = bytes.saturating_add(size);
    }
    Ok(bytes)
}

fn stored(facts: &fs::Metadata) -> u64 {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::blocks(facts).saturating_mul(512)
    }
    #[cfg(not(unix))]
    {
        facts.len()
    }
}

/// Bytes that are free for this user.
pub(crate) fn free(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let facts = rustix::fs::statvfs(folder).ok()?;
        facts.f_bavail.checked_mul(facts.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Exchanges two folders at one moment; `false` where the file system cannot.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::{fs::RenameFlags, io::Errno};
        let here = rustix::fs::CWD;
        match rustix::fs::renameat_with(here, one, here, other, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    {
        let _ = (one, other);
        Ok(false)
    }
}

/// Copies a folder into one that is not there, but what `skip` names in it.
///
/// The engine makes files of 32 MiB and more that are mostly holes: those are kept. Where the
/// file system shares blocks, nothing is copied at all.
pub(crate) fn copy(from: &Path, to: &Path, skip: &[&str], cancel: &Cancel) -> Result<()> {
    make(to)?;
    for entry in list(from)? {
        cancel.check()?;
        let name = entry.file_name();
        if skip.iter().any(|skip| name == *skip) {
            continue;
        }
        let (from, to) = (entry.path(), to.join(&name));
        let kind = entry.file_type().map_err(fail("could not read a folder", &from))?;
        if kind.is_dir() {
            copy(&from, &to, &[], cancel)?;
        } else if kind.is_file() {
            copy_file(&from, &to).map_err(fail("could not copy a file", &from))?;
        }
    }
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
    let (mut source, mut target) = (File::open(from)?, File::create_new(to)?);
    if ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let len = source.metadata()?.len();
    target.set_len(len)?;
    let mut place = 0;
    while place < len {
        let start = match seek(&source, SeekFrom::Data(place)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(rustix::io::Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(&source, SeekFrom::Hole(start))?.min(len);
        seek(&source, SeekFrom::Start(start))?;
        seek(&target, SeekFrom::Start(start))?;
        io::copy(&mut io::Read::take(&mut source, end - start), &mut target)?;
        place = end;
    }
    Ok(())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("deep")).unwrap();
        fs::create_dir(from.join("wal")).unwrap();
        let mut file = File::create(from.join("deep/holes")).unwrap();
        for place in [0, 1_000_000, 30_000_000] {
            file.seek(SeekFrom::Start(place)).unwrap();
            file.write_all(b"here").unwrap();
        }
        file.set_len(32 << 20).unwrap();
        fs::write(from.join("empty"), b"").unwrap();
        copy(&from, &to, &["wal"], &Cancel::new()).unwrap();
        assert!(!to.join("wal").exists() && to.join("empty").exists());
        let (one, other) = (from.join("deep/holes"), to.join("deep/holes"));
        assert!(fs::read(&one).unwrap() == fs::read(&other).unwrap());
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::MetadataExt;
            let blocks = |path: &Path| fs::metadata(path).unwrap().blocks();
            assert!(blocks(&other) <= blocks(&one) + 64, "{}", blocks(&other));
        }
    }
}
