//! Removing a tree that this adapter made or was given.

use std::os::fd::AsFd;

use backup_core::{Error, ErrorKind, Result};
use rustix::{
    fs::{AtFlags, FileType},
    io::Errno,
};

use crate::{
    sys::{self, fail},
    walk::{Step, Walk},
};

/// Removes what is at the name, with all below; nothing if there is nothing.
///
/// Follows no link and does not leave the file system.
pub(crate) fn tree(dir: impl AsFd, name: &[u8]) -> Result<()> {
    const WHAT: &str = "could not remove";
    let stamp = match sys::stat_at(&dir, name) {
        Ok(stamp) => stamp,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(fail(WHAT, name)(errno)),
    };
    if stamp.kind != FileType::Directory {
        return rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(fail(WHAT, name));
    }
    let open = writable(&dir, name).map_err(fail(WHAT, name))?;
    let mut walk = Walk::<()>::new(open).map_err(fail(WHAT, name))?;
    while let Some(step) = walk.step() {
        let failed = |errno| fail(WHAT, walk.path())(errno);
        match step {
            Step::Lost(errno) => return Err(failed(errno)),
            Step::Up { .. } => {
                rustix::fs::unlinkat(walk.dir(), walk.name(), AtFlags::REMOVEDIR)
                    .map_err(failed)?;
            }
            Step::Name => {
                let inner = walk.stat().map_err(failed)?;
                if inner.kind != FileType::Directory {
                    rustix::fs::unlinkat(walk.dir(), walk.name(), AtFlags::empty())
                        .map_err(failed)?;
                } else if inner.id.0 != stamp.id.0 {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        "a file system is mounted in a folder that has to be removed",
                    )
                    .on(String::from_utf8_lossy(walk.path()))
                    .advise("unmount it, then finish the restore again"));
                } else {
                    drop(writable(walk.dir(), walk.name()).map_err(failed)?);
                    walk.enter().map_err(|errno| fail(WHAT, name)(errno))?;
                }
            }
        }
    }
    drop(walk);
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(fail(WHAT, name))
}

/// Opens a folder and sees to it that it can be emptied.
fn writable(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let open = match sys::open_dir(&dir, name) {
        Err(Errno::ACCESS) => {
            // Ours, and a folder: it was looked at a moment ago.
            rustix::fs::chmodat(&dir, name, sys::mode(0o700), AtFlags::empty())?;
            sys::open_dir(&dir, name)?
        }
        other => other?,
    };
    if sys::stat_fd(&open)?.bits & 0o700 != 0o700 {
        rustix::fs::fchmod(&open, sys::mode(0o700))?;
    }
    Ok(open)
}
