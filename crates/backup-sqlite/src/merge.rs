//! The database that a merge makes live: a copy of the live one with the staged rows in it.

use backup_core::{Cancel, Result};
use rusqlite::Connection;

use crate::{
    answers::Answers,
    check,
    config::Config,
    connect::{self, Access},
    copy::{self, Copy},
    error::sql,
    logical::Staged,
    stage::{Fingerprint, Stage},
    switch,
};

/// The file that [`make`] fills. The copy into the live database begins with it, so that the live
/// one is locked before its content is taken.
pub(crate) fn begin(config: &Config, stage: &Stage, page_size: i64) -> Result<Connection> {
    let path = stage.merged();
    switch::remove_files(&path)?;
    let merged = config.connect(&path, Access::Create)?;
    // One page: a copy of none would be complete with the lock. Of the size that the live ones
    // have: in WAL mode they could get no other.
    let text =
        format!("PRAGMA page_size={page_size}; BEGIN IMMEDIATE; PRAGMA user_version=0; COMMIT");
    merged.execute_batch(&text).map_err(sql("could not begin to merge"))?;
    Ok(merged)
}

/// Merges what is staged with the pre-image, or with nothing where there is no database, and
/// checks the outcome.
pub(crate) fn make(config: &Config, stage: &Stage, base: bool, cancel: &Cancel) -> Result<()> {
    let path = stage.merged();
    let staged = Staged::new(config.connect(&stage.staged(), Access::Read)?, stage)?;
    let mut merged = config.connect(&path, Access::Create)?;
    copy::fast_target(&merged)?;
    let before = match base {
        true => Some(config.connect(&stage.pre_image(), Access::Read)?),
        false => None,
    };
    match &before {
        Some(before) => Copy::new(before, &mut merged, config.busy_timeout, cancel)?.run()?,
        None => staged.settle(&merged)?,
    }
    // With a journal on the disk: what is written need not fit into memory.
    connect::set_journal_mode(&merged, "delete")?;
    let answers = Answers::open(config, stage)?;
    let mut merged = staged.apply(merged, config, &answers, cancel)?;
    connect::limited(&mut merged, config.check_limit, cancel, |merged| {
        check::integrity(merged)?;
        match config.dangling {
            true => Ok(()),
            false => check::new_foreign_keys(merged, before.as_ref()),
        }
    })?;
    if !base && staged.wants_wal() {
        connect::set_journal_mode(&merged, "wal")?;
    }
    let rows = switch::rows_if_keyed(config, &merged)?;
    merged.close().map_err(|(_, e)| sql("could not close the merged database")(e))?;
    copy::sync(&path)?;
    stage.write_merged(&Fingerprint { image: copy::digest(&path)?, rows })
}
