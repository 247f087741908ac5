//! The switch: staged database to live, and back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use backup_core::{Cancel, Error, ErrorKind, Result};
use rusqlite::Connection;

use crate::{
    catalog,
    config::Config,
    connect::{self, Access, SIDES, beside},
    copy::{self, Copy},
    error::sql,
    merge,
    stage::{Fingerprint, PreImage, Stage, sync_folder},
};

/// What stands where the database should be.
#[derive(Debug)]
pub(crate) enum Live {
    Absent,
    /// SQLite cannot read it.
    Unreadable(Error),
    Database {
        wal: bool,
        page_size: i64,
        pages: i64,
    },
}

/// Looks at the live database.
pub(crate) fn look(config: &Config) -> Result<Live> {
    if !config.path.exists() {
        return Ok(Live::Absent);
    }
    let read = || -> Result<Live> {
        let live = config.connect(&config.path, Access::Read)?;
        connect::pin(&live)?;
        Ok(Live::Database {
            wal: connect::is_wal(&live)?,
            page_size: connect::pragma(&live, "page_size")?,
            pages: connect::pragma(&live, "page_count")?,
        })
    };
    match read() {
        // With a key of the host's, the wrong key looks the same: then nothing is replaced.
        Err(error) if error.kind() == ErrorKind::Corrupt && config.opener.is_none() => {
            Ok(Live::Unreadable(error))
        }
        other => other,
    }
}

/// The fingerprint of a database, read through SQLite; `None` where there is none that can be
/// read.
pub(crate) fn live_fingerprint(config: &Config, stage: &Stage) -> Result<Option<Fingerprint>> {
    stage.use_room()?;
    match look(config)? {
        Live::Database { pages, .. } if pages > 0 => {}
        _ => return Ok(None),
    }
    let live = config.connect(&config.path, Access::Read)?;
    connect::pin(&live)?;
    let rows = rows_if_keyed(config, &live)?;
    let scratch = stage.scratch();
    let copied = take_copy(config, &live, &scratch, &Cancel::new());
    let image = copied.and_then(|()| copy::digest(&scratch));
    remove_files(&scratch)?;
    Ok(Some(Fingerprint { image: image?, rows }))
}

// An encrypted image differs from copy to copy.
pub(crate) fn rows_if_keyed(
    config: &Config,
    connection: &Connection,
) -> Result<Option<catalog::RowsDigest>> {
    config.opener.as_ref().map(|_| catalog::rows_digest(connection)).transpose()
}

/// Makes what is staged live, keeping what was live as the pre-image.
pub(crate) fn commit(config: &Config, stage: &Stage, cancel: &Cancel) -> Result<()> {
    if stage.is_undoing() {
        return Err(Error::adapter("a restore was committed after it was undone"));
    }
    if stage.is_committed() {
        return Ok(());
    }
    if stage.seal()?.is_none() {
        return Err(Error::adapter("a restore was committed unchecked"));
    }
    let kept = stage.kept()?;
    // Only the mark is missing, if a crash came right after the switch.
    let switched = match (&kept, stage.next_fingerprint()?) {
        (Some(_), Some(next)) => {
            live_fingerprint(config, stage)?.is_some_and(|live| live.same(&next))
        }
        _ => false,
    };
    if !switched {
        switch(config, stage, kept, cancel)?;
    }
    stage.mark_committed()
}

fn switch(config: &Config, stage: &Stage, kept: Option<PreImage>, cancel: &Cancel) -> Result<()> {
    let moved = stage.folder().join("moved.db");
    let interrupted = matches!(kept, Some(PreImage::Absent | PreImage::Unreadable));
    let next = || config.connect(&stage.next(), Access::Read);
    match look(config)? {
        // What an interrupted creation left.
        Live::Database { pages: 0, .. } if interrupted => replace(config, &next()?, cancel, None),
        Live::Database { page_size, .. } => {
            let from =
                if stage.merges() { merge::begin(config, stage, page_size)? } else { next()? };
            let keep = |live: &Connection| {
                stage.forget_kept()?;
                let pre_image = stage.pre_image();
                take_copy(config, live, &pre_image, cancel)?;
                copy::sync(&pre_image)?;
                let rows = rows_if_keyed(config, live)?;
                let image = copy::digest(&pre_image)?;
                if stage.merges() {
                    merge::make(config, stage, true, cancel)?;
                }
                stage.set_room_aside(undo_room(len(&pre_image), len(&stage.next())))?;
                stage.write_kept(&PreImage::Database(Fingerprint { image, rows }))
            };
            replace(config, &from, cancel, Some(&keep))
        }
        Live::Absent => {
            if !moved.exists() {
                if stage.merges() {
                    remove_files(&stage.merged())?;
                    merge::make(config, stage, false, cancel)?;
                }
                stage.write_kept(&PreImage::Absent)?;
            }
            create(config, stage, &next()?, &moved, cancel)
        }
        Live::Unreadable(error) if stage.merges() => Err(unmergeable(error)),
        Live::Unreadable(_) => {
            stage.write_kept(&PreImage::Unreadable)?;
            // The database last: while it is there, its own files belong to it.
            move_sides(&config.path, &moved)?;
            move_file(&config.path, &moved)?;
            create(config, stage, &next()?, &moved, cancel)
        }
    }
}

/// What is said where there is something into which nothing can be merged.
pub(crate) fn unmergeable(error: Error) -> Error {
    Error::new(ErrorKind::Corrupt, "nothing can be merged into what is no readable database")
        .advise("repair it, or restore in replace mode: then it is moved aside")
        .because(error)
}

// On failure what was there comes back.
fn create(
    config: &Config,
    stage: &Stage,
    next: &Connection,
    moved: &Path,
    cancel: &Cancel,
) -> Result<()> {
    replace(config, next, cancel, None).or_else(|error| {
        put_back(config, stage, moved)?;
        Err(error)
    })?;
    config.path.parent().map_or(Ok(()), sync_folder)
}

/// Bytes that taking a switch back takes, of a database of one length to one of another, or
/// in doubt a copy to see whether there is anything to take back. An index of a log is small.
pub(crate) fn undo_room(old: u64, new: u64) -> u64 {
    old.max(new).saturating_add(128 << 10)
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |facts| facts.len())
}

/// Makes the pre-image live again.
pub(crate) fn undo(config: &Config, stage: &Stage) -> Result<()> {
    let Some(kept) = stage.kept()? else {
        return Err(Error::adapter("a restore was undone that was not committed"));
    };
    // What comes next needs the room, perhaps on a full disk; nothing is staged any more.
    stage.use_room()?;
    stage.mark_undoing()?;
    remove_files(&stage.next())?;
    let undone = match kept {
        PreImage::Absent | PreImage::Unreadable => {
            put_back(config, stage, &stage.folder().join("moved.db"))
        }
        PreImage::Database(old) => (|| {
            if live_fingerprint(config, stage)?.is_some_and(|live| live.same(&old)) {
                return Ok(());
            }
            let pre_image = config.connect(&stage.pre_image(), Access::Read)?;
            replace(config, &pre_image, &Cancel::new(), None)
        })(),
    };
    undone.map_err(|error| {
        Error::new(ErrorKind::RepairNeeded, "the database could not be put back")
            .on(config.path.display())
            .advise(format!("try again; the old content is kept in {}", stage.folder().display()))
            .retryable(error.is_retryable())
            .because(error)
    })
}

/// Before the stage is removed: gives back what an interrupted switch moved into it.
pub(crate) fn release(config: &Config, stage: &Stage) -> Result<()> {
    let moved = stage.folder().join("moved.db");
    if matches!(stage.kept()?, Some(PreImage::Unreadable)) && moved.exists() {
        return put_back(config, stage, &moved);
    }
    Ok(())
}

// Where there was no database, or none that could be read: takes the new one away and moves
// the old files back.
fn put_back(config: &Config, stage: &Stage, moved: &Path) -> Result<()> {
    let replaced = stage.folder().join("replaced.db");
    let unreadable = matches!(stage.kept()?, Some(PreImage::Unreadable));
    // Once the old database is back, the files beside it are its own.
    if !unreadable || moved.exists() {
        move_file(&config.path, &replaced)?;
        move_sides(&config.path, &replaced)?;
    }
    move_file(moved, &config.path)?;
    move_sides(moved, &config.path)?;
    config.path.parent().map_or(Ok(()), sync_folder)
}

type Before<'a> = dyn Fn(&Connection) -> Result<()> + 'a;

// Copies `from` over the live database; all connections to it see the new content at once.
// `before` runs while nobody else can write; without it a file that is not there is made with
// its content or not at all.
fn replace(
    config: &Config,
    from: &Connection,
    cancel: &Cancel,
    before: Option<&Before<'_>>,
) -> Result<()> {
    let mut live = config.connect(&config.path, Access::Create)?;
    let run = |sql_text: &str| {
        live.execute_batch(sql_text).map_err(sql("could not lock the database for the switch"))
    };
    run("PRAGMA synchronous=FULL")?;
    match before {
        // Readers go on reading what was, so another connection can copy it.
        Some(before) if connect::is_wal(&live)? => {
            let reader = config.connect(&config.path, Access::Read)?;
            let copy = Copy::new(from, &mut live, config.busy_timeout, cancel)?;
            copy.lock()?;
            before(&reader)?;
            copy.run()?;
        }
        before => {
            if let Some(before) = before {
                // In exclusive mode a lock outlives its transaction, and the copy may begin
                // under it. Not before there is one: the waiting itself would keep out the
                // writer waited for.
                run("BEGIN IMMEDIATE; PRAGMA locking_mode=EXCLUSIVE; COMMIT")?;
                before(&live)?;
            }
            Copy::new(from, &mut live, config.busy_timeout, cancel)?.run()?;
        }
    }
    live.close().map_err(|(_, e)| sql("could not close the database")(e))
}

// A copy in a file of our own, which may be there from an earlier try.
fn take_copy(config: &Config, from: &Connection, to: &Path, cancel: &Cancel) -> Result<()> {
    remove_files(to)?;
    let mut target = config.connect(to, Access::Create)?;
    copy::fast_target(&target)?;
    Copy::new(from, &mut target, config.busy_timeout, cancel)?.run()?;
    target.close().map_err(|(_, e)| sql("could not close a copy of the database")(e))
}

/// Removes a database of our own and the files beside it.
pub(crate) fn remove_files(database: &Path) -> Result<()> {
    for path in std::iter::once(database.to_owned()).chain(sides(database)) {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("could not remove a temporary file", e).on(path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn sides(database: &Path) -> impl Iterator<Item = PathBuf> {
    SIDES.iter().map(|suffix| beside(database, suffix))
}

fn move_sides(from: &Path, to: &Path) -> Result<()> {
    sides(from).zip(sides(to)).try_for_each(|(from, to)| move_file(&from, &to))
}

// What is not there was moved already.
fn move_file(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("could not move a file of the database", e).on(from.display()))
        }
        _ => Ok(()),
    }
}
