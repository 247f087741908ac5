//! Copying databases through the online backup API, and hashing the copies.

use std::{
    fs::File,
    io::Read,
    ops::Range,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use backup_core::{
    BlobContent, Cancel, Error, Result,
    record::{MaskedHasher, Sha256Digest},
};
use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use crate::error::{busy, sql};

/// The bytes of a database file that change whenever it is copied: the version of the
/// file format (the journal mode), the change counter, the schema's counter, and who wrote
/// last.
pub(crate) const MASKED: [Range<u64>; 4] = [18..20, 24..28, 40..44, 92..100];

// 4 MiB of the usual pages: seldom enough to cost nothing, often enough to be cancelled.
const PAGES_PER_STEP: i32 = 1024;

/// Takes the steps of one copy.
pub(crate) struct Copy<'a> {
    backup: Backup<'a, 'a>,
    patience: Duration,
    cancel: &'a Cancel,
}

impl<'a> Copy<'a> {
    /// A copy of all of `from` over all of `to`. Waits at most `patience` for others.
    pub(crate) fn new(
        from: &'a Connection,
        to: &'a mut Connection,
        patience: Duration,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let backup = Backup::new(from, to).map_err(sql("could not begin to copy the database"))?;
        Ok(Self { backup, patience, cancel })
    }

    /// Locks the target, so that nobody else writes it, and copies nothing yet.
    pub(crate) fn lock(&self) -> Result<()> {
        match self.step(0)? {
            false => Ok(()),
            // Of a database without a page.
            true => Err(Error::adapter("a copy was complete before it began")),
        }
    }

    /// Copies everything; the target shows it all at once at the end.
    pub(crate) fn run(self) -> Result<()> {
        while !self.step(PAGES_PER_STEP)? {}
        Ok(())
    }

    // Tries again while others are in the way; whether all is done.
    fn step(&self, pages: i32) -> Result<bool> {
        const PAUSE: Duration = Duration::from_millis(20);
        let begin = Instant::now();
        loop {
            self.cancel.check()?;
            match self.backup.step(pages).map_err(sql("could not copy the database"))? {
                StepResult::Done => return Ok(true),
                StepResult::More => return Ok(false),
                // Busy or locked.
                _ if begin.elapsed() >= self.patience => {
                    return Err(busy("another connection held the database for too long"));
                }
                _ => thread::sleep(PAUSE),
            }
        }
    }
}

/// Makes a fresh, unsynced file ready to receive a copy at full speed: if it fails it is
/// thrown away, so it needs no journal.
pub(crate) fn fast_target(connection: &Connection) -> Result<()> {
    connection
        .execute_batch(
            "PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY;",
        )
        .map_err(sql("could not prepare a temporary copy"))
}

/// Length and digest of a database file that is this process's own and open nowhere.
pub(crate) fn image(path: &Path, masked: &[Range<u64>]) -> Result<BlobContent> {
    let failed = |e| Error::io("could not read back a database file", e).on(path.display());
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = MaskedHasher::new(masked);
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        len += count as u64;
    }
    Ok(BlobContent {
        len,
        digest: hasher.finish(),
        masked: masked.iter().map(|range| (range.start, range.end)).collect(),
    })
}

/// The digest alone, with the usual ranges masked.
pub(crate) fn digest(path: &Path) -> Result<Sha256Digest> {
    Ok(image(path, &MASKED)?.digest)
}

/// Writes a file through to the disk.
pub(crate) fn sync(path: &Path) -> Result<()> {
    // Opened for writing, as some systems want it for this.
    let file = File::options().write(true).open(path);
    file.and_then(|file| file.sync_all())
        .map_err(|e| Error::io("could not write a file through to the disk", e).on(path.display()))
}
