//! What can be known of a restore before it touches anything.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use backup_core::{Error, ErrorKind, Prepared, Result, StagePlan, Switch, WriteMode};
use rustix::fs::{Access, FileType};

use crate::{
    FilesStore,
    config::Root,
    guard::{self, Guard, OpenFiles},
    mounts,
    place::{How, RootToken},
    sink::Token,
    stage::below,
    sys,
    walk::{Step, Walk},
};

/// More files of others than this in one root are a mistake.
const MAX_KEPT: usize = 1_000;

/// Refuses what no restore of files can do, and says which roots it is about.
pub(crate) fn check(store: &FilesStore, plan: &StagePlan) -> Result<Vec<Root>> {
    let fault = |kind, what: &str, on: &str| Error::new(kind, what).on(on);
    plan.check(store)?;
    let id = &plan.restore_id;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if id.is_empty() || id.len() > 100 || !id.chars().all(plain) {
        return Err(fault(ErrorKind::InvalidInput, "the id of a restore is no plain name", id));
    }
    let wanted = &plan.content.collections;
    let known = |name: &String| store.roots.iter().any(|root| root.name == *name);
    if let Some(name) = wanted.keys().find(|name| !known(name)) {
        let what = "the archive holds a root that the store does not name";
        return Err(fault(ErrorKind::NotFound, what, name)
            .advise("add a root of that name, or leave it out of the restore"));
    }
    let chosen = |root: &&Root| wanted.is_empty() || wanted.contains_key(&root.name);
    Ok(store.roots.iter().filter(chosen).cloned().collect())
}

/// Looks at the roots as they are and names what a restore would make.
pub(crate) fn prepare(roots: &[Root], plan: &StagePlan, stepwise: bool) -> Result<Prepared> {
    let mut tokens = Vec::new();
    let mut notes = Vec::new();
    let mut devices = BTreeSet::new();
    let mut switch = Switch::AtomicPointer;
    for root in roots {
        let (token, knows_exchange) = look(root, plan, stepwise, &mut notes)?;
        if let Ok(Some(stamp)) = sys::stat_path(existing(&token.outer())) {
            devices.insert(stamp.id.0);
        }
        // Roots are switched one after the other.
        if token.stepwise || token.how == How::Merge || !knows_exchange || roots.len() > 1 {
            switch = Switch::Stepwise;
        }
        tokens.push(token);
    }
    // Of several file systems it is not known how much goes to which.
    if let (1, Some(token)) = (devices.len(), tokens.first()) {
        room(existing(&token.outer()), plan)?;
    }
    Ok(Prepared { token: plan.token(&Token { roots: tokens })?, switch, notes })
}

fn look(
    root: &Root,
    plan: &StagePlan,
    stepwise: bool,
    notes: &mut Vec<String>,
) -> Result<(RootToken, bool)> {
    let refuse = |kind, what: &str| Error::new(kind, what).on(root.path.display());
    let path = guard::real(&root.path);
    let live = sys::stat_path(&path).map_err(|e| Error::io("a root cannot be read", e.into()))?;
    if live.is_some_and(|stamp| stamp.kind != FileType::Directory) {
        return Err(refuse(ErrorKind::InvalidInput, "a root is not a folder"));
    }
    let (Some(parent), Some(base), Some(text)) =
        (path.parent(), path.file_name().and_then(|name| name.to_str()), path.to_str())
    else {
        return Err(refuse(
            ErrorKind::Unsupported,
            "a root cannot be restored: it is `/`, or its path is not UTF-8",
        ));
    };
    let merges = plan.mode == WriteMode::Merge;
    let inside = live.is_some() && mounts::is_mount(&path);
    let mut keep = BTreeSet::new();
    if live.is_some() {
        if let Some(mount) = mounts::below(&path) {
            return Err(refuse(ErrorKind::Unsupported, "a file system is mounted within a root")
                .on(mount.display())
                .advise("unmount it, or make it a root of its own"));
        }
        kept(&path, plan, &mut keep)?;
        notes.push(if merges {
            format!("entries are put into {text} one by one; what else is there stays")
        } else {
            format!("the content of {text} will be replaced")
        });
    } else {
        // Also what is not there yet must not lie in a folder of others.
        guard::within(&path, &plan.avoid)?;
        notes.push(format!("{text} will be made"));
    }
    let outer = if inside { path.as_path() } else { parent };
    let there = existing(outer);
    rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|e| Error::io("a restore could not write here", e.into()).on(there.display()))?;
    let made = parent
        .ancestors()
        .take_while(|folder| !folder.exists())
        .map(|folder| folder.to_string_lossy().into_owned())
        .collect::<Vec<_>>();
    if inside && !merges {
        notes.push(format!(
            "{text} is a mount point: its entries are moved one by one, and readers may see a part of them meanwhile"
        ));
    }
    if !keep.is_empty() && !merges {
        notes.push(format!(
            "{} files in {text} belong to others or are in use and stay as they are; so entries are moved one by one",
            keep.len()
        ));
    }
    if !root.exclude.globs().is_empty() && !merges {
        notes.push(format!(
            "what {} excludes from backups in {text} is in no archive and will be gone afterwards",
            root.exclude.globs().join(", ")
        ));
    }
    let knows_exchange = live.is_none() || exchanges(there);
    let token = RootToken {
        root: root.name.clone(),
        path: text.to_owned(),
        staging: staging_name(base, &plan.restore_id),
        inside,
        // In a merge, whether two names can be exchanged.
        stepwise: stepwise || (!merges && (inside || !keep.is_empty())),
        made: made.into_iter().rev().collect(),
        keep: keep.into_iter().collect(),
        how: match (merges, live) {
            (false, _) => How::Replace,
            (true, Some(_)) => How::Merge,
            (true, None) => How::Make,
        },
    };
    Ok((token, knows_exchange))
}

fn staging_name(base: &str, restore_id: &str) -> String {
    // Names have at most 255 bytes.
    let short: String = base.chars().take(30).collect();
    format!(".{short}.{restore_id}.staged")
}

/// Where the staging area of a root may be: beside it or, for a mount point, inside.
pub(crate) fn places(root: &Path, restore_id: &str) -> Vec<PathBuf> {
    let path = guard::real(root);
    let Some(base) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let name = staging_name(base, restore_id);
    path.parent().into_iter().chain([&*path]).map(|folder| folder.join(&name)).collect()
}

/// Everything in a live root that belongs to others, by the rules of a backup.
fn kept(root: &Path, plan: &StagePlan, keep: &mut BTreeSet<String>) -> Result<()> {
    let failed =
        |errno| sys::fail("could not read a root", root.as_os_str().as_encoded_bytes())(errno);
    let mut guard = Guard::new(root, &plan.avoid, Arc::new(OpenFiles::default()))?;
    let mut found: Vec<Vec<u8>> = guard::within(root, &plan.avoid)?;
    let mut walk = Walk::<()>::new(sys::open_path(root).map_err(failed)?).map_err(failed)?;
    while let Some(step) = walk.step() {
        let (Step::Name, Ok(stamp)) = (step, walk.stat()) else { continue };
        let (dir, names, name, path) = (walk.dir(), walk.names(), walk.name(), walk.path());
        if guard.forbids(dir, names, name, path, &stamp).is_some() {
            if stamp.kind == FileType::RegularFile {
                found.extend(guard::family(path));
            } else {
                found.push(path.to_vec());
            }
            if found.len() > 4 * MAX_KEPT {
                return Err(Error::new(ErrorKind::Busy, "too many files in a root are in use")
                    .on(root.display())
                    .advise("stop the application, then run the restore again"));
            }
        } else if stamp.kind == FileType::Directory {
            // What cannot be read cannot be kept apart either.
            walk.enter().map_err(failed)?;
        }
    }
    // What lies below a kept folder is kept with it.
    for path in &found {
        if !found.iter().any(|other| below(path, other)) {
            let text = String::from_utf8(path.clone()).map_err(|_| {
                Error::new(ErrorKind::Unsupported, "a file in use has a name that is not UTF-8")
                    .on(String::from_utf8_lossy(path))
            })?;
            keep.insert(text);
        }
    }
    Ok(())
}

/// The path or the nearest folder above it that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(path)
}

fn room(folder: &Path, plan: &StagePlan) -> Result<()> {
    let Ok(space) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let entries: u64 = plan.content.collections.values().map(|tally| tally.records).sum();
    // Some file systems do not count inodes and say 0 of 0.
    let full = space.f_files > 0 && space.f_favail < entries;
    if free < plan.bytes || full {
        return Err(Error::new(
            ErrorKind::NoSpace,
            format!(
                "the restored files and the old ones have no room together: {} bytes in {entries} files are needed, {free} bytes and {} files are free",
                plan.bytes, space.f_favail
            ),
        )
        .on(folder.display()));
    }
    Ok(())
}

/// Whether the file system is known to exchange two folders at once. Others are tried too,
/// but not relied on.
fn exchanges(folder: &Path) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // ext2 to 4, XFS, Btrfs, tmpfs, F2FS.
        const KNOWN: [u64; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0xF2F5_2010];
        // The type has another width from system to system.
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
        let kind = rustix::fs::statfs(folder).map(|found| found.f_type as u64 & 0xFFFF_FFFF);
        kind.is_ok_and(|kind| KNOWN.contains(&kind))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = folder;
        cfg!(target_vendor = "apple")
    }
}
