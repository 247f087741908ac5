//! Files, folders and links that exist on both sides.

use sha2::{Digest as _, Sha256};

use super::resolver::Resolver;
use super::{Conflict, SkipReason};
use crate::{
    error::{Error, ErrorKind, Result},
    part::{EntryKind, EntryPath, FileEntry},
    record::Sha256Digest,
};

/// How often another name is tried for an entry that is kept beside others.
pub(crate) const MAX_NAMES: u32 = 16;

/// What becomes of an entry of the archive at whose path the live store has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It takes the place of the live one.
    Replace,
    /// It gets another name.
    Copy,
    /// What it would make is there.
    Unchanged,
    /// The live one stays.
    Skip(SkipReason),
    /// The live one stays, and so nothing can be below.
    SkipAll(SkipReason),
}

impl Resolver {
    /// `equal` says whether the two have the same line. Of two folders only mode and time can
    /// differ: what they hold is looked at entry by entry.
    pub(crate) fn entry(
        &self,
        archived: &FileEntry,
        live: &FileEntry,
        equal: bool,
    ) -> Result<Verdict> {
        let is_folder = |entry: &FileEntry| matches!(entry.kind, EntryKind::Directory);
        let folders = match (is_folder(archived), is_folder(live)) {
            _ if equal => return Ok(Verdict::Unchanged),
            (true, false) | (false, true) if self.strategy == Conflict::Skip => {
                return Ok(Verdict::SkipAll(SkipReason::Exists));
            }
            (true, false) | (false, true) => {
                let what = "one side has a folder where the other has none";
                return Err(Error::new(ErrorKind::Conflict, what)
                    .advise("choose skip, or move away what is live"));
            }
            (folders, _) => folders,
        };
        Ok(match self.strategy {
            Conflict::Overwrite | Conflict::Merge => Verdict::Replace,
            Conflict::KeepNewer | Conflict::KeepOlder => {
                let newer = self.strategy == Conflict::KeepNewer;
                match archived.modified.cmp(&live.modified) {
                    std::cmp::Ordering::Equal => Verdict::Skip(SkipReason::SameTime),
                    order if newer == order.is_gt() => Verdict::Replace,
                    _ if newer => Verdict::Skip(SkipReason::LiveIsNewer),
                    _ => Verdict::Skip(SkipReason::LiveIsOlder),
                }
            }
            Conflict::Skip | Conflict::KeepBoth | Conflict::Fail if folders => Verdict::Unchanged,
            Conflict::Skip => Verdict::Skip(SkipReason::Exists),
            Conflict::KeepBoth => Verdict::Copy,
            Conflict::Fail => {
                let what = "a file or link differs from the live one";
                return Err(Error::new(ErrorKind::Conflict, what)
                    .advise("choose another rule, or restore into another place"));
            }
        })
    }

    /// The `attempt`th name for a copy beside `path`: always the same, and one that the same
    /// archive has not.
    pub(crate) fn copy_path(&self, path: &EntryPath, attempt: u32) -> Result<EntryPath> {
        let mut hasher = Sha256::new();
        hasher.update(self.archive.as_bytes());
        hasher.update(attempt.to_le_bytes());
        let seed = Sha256Digest::finish(hasher).to_string();
        let (folder, name) = path.as_bytes().split_at(start_of_name(path.as_bytes()));
        // What comes after the last point, unless nothing is before it.
        let point = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0);
        let (stem, extension) = name.split_at(point.unwrap_or(name.len()));
        let mark = format!(" (imported {})", &seed[..8]);
        EntryPath::new([folder, stem, mark.as_bytes(), extension].concat())
    }
}

fn start_of_name(path: &[u8]) -> usize {
    path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1)
}
