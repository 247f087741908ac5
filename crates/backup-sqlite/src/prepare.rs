//! What can be known before a restore begins.

use std::path::Path;

use backup_core::{Error, ErrorKind, Prepared, Result, StagePlan, Switch, WriteMode};

use crate::{
    BLOB,
    config::Config,
    stage::Stage,
    switch::{self, Live, undo_room},
};

/// Checks a plan and names the stage. Writes nothing.
pub(crate) fn prepare(config: &Config, plan: &StagePlan) -> Result<Prepared> {
    let blobs: Vec<_> = plan.content.blobs.keys().collect();
    if !blobs.is_empty() && (blobs != [BLOB] || !plan.content.collections.is_empty()) {
        let what = "an image of a database stands beside other content";
        return Err(Error::new(ErrorKind::Unsupported, what).on(&plan.store));
    }
    let merges = plan.mode == WriteMode::Merge;
    if merges && !blobs.is_empty() {
        return Err(no_image().on(&plan.store));
    }
    let mut notes = Vec::new();
    let live = switch::look(config).map_err(|e| e.on(config.path.display()))?;
    match live {
        Live::Absent => {}
        Live::Unreadable(error) if merges => {
            return Err(switch::unmergeable(error).on(config.path.display()));
        }
        Live::Unreadable(error) => notes.push(format!(
            "what is there is no readable database ({error}); it is moved aside, and programs \
             that have it open must open it again"
        )),
        Live::Database { wal, .. } => notes.push(format!(
            "open connections see the new content at once; the switch waits at most {:?} for {}",
            config.busy_timeout,
            if wal { "writers" } else { "readers and writers" }
        )),
    }
    if merges {
        notes.push(
            "writers wait while records are merged and checked; no trigger fires; full-text indexes \
             over other tables are made anew, those without content stay as they are"
                .to_owned(),
        );
    }
    check_place(config, plan)?;
    let (_, data) = Stage::plan(config, &plan.restore_id)?;
    Ok(Prepared { token: plan.token(&data)?, switch: Switch::AtomicCopy, notes })
}

/// What is said of an image that comes in a merge.
pub(crate) fn no_image() -> Error {
    Error::new(ErrorKind::Unsupported, "an image of a whole database cannot be merged into another")
        .advise("restore it in replace mode, or merge a backup in the logical form")
}

fn check_place(config: &Config, plan: &StagePlan) -> Result<()> {
    if plan.avoid.contains(&config.path) {
        let what = "the database stands where the restore must not write";
        return Err(Error::new(ErrorKind::InvalidInput, what).on(config.path.display()));
    }
    let folder = config.path.parent().filter(|folder| folder.is_dir()).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the folder of the database does not exist")
            .on(config.path.display())
            .advise("make the folder, then try again")
    })?;
    if !writable(folder) || (config.path.exists() && !writable(&config.path)) {
        let what = "the database or its folder cannot be written";
        return Err(Error::new(ErrorKind::PermissionDenied, what).on(config.path.display()));
    }
    // Staged, and once more in a log or journal; the pre-image; what an undo takes.
    let live = std::fs::metadata(&config.path).map_or(0, |facts| facts.len());
    let twice = plan.bytes.saturating_mul(2);
    // What is merged is a third database, and its journal a fourth.
    let merged = match plan.mode {
        WriteMode::Merge => live.saturating_add(live).saturating_add(twice),
        _ => 0,
    };
    let needed =
        [live, undo_room(live, plan.bytes), merged].into_iter().fold(twice, u64::saturating_add);
    match free_space(folder) {
        Some(free) if free < needed => Err(Error::new(
            ErrorKind::NoSpace,
            format!("a restore needs about {needed} bytes beside the database, {free} are free"),
        )
        .on(folder.display())),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn writable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|facts| !facts.permissions().readonly())
}

#[cfg(unix)]
fn free_space(folder: &Path) -> Option<u64> {
    let facts = rustix::fs::statvfs(folder).ok()?;
    facts.f_bavail.checked_mul(facts.f_frsize)
}

// Not known: the restore finds out while it stages, before anything live is touched.
#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
    None
}
