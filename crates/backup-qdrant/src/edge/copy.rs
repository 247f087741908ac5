//! A copy of a shard, which holds one moment of it.
//!
//! Copies lie in a hidden folder beside the shard, each with a file that is locked as long as
//! its process lives: those that are not locked belong to nobody.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use backup_core::{Cancel, Result};
use qdrant_edge::{EdgeConfig, WalOptions};
use uuid::Uuid;

use super::{
    engine::Engine,
    files::{self, fail},
    stage::sibling,
};

/// The folder of all copies of a shard.
pub(crate) fn folder(live: &Path) -> PathBuf {
    sibling(live, "copies")
}

/// An open copy; dropping it removes it as far as that can be done.
pub(crate) struct Copy {
    engine: Option<Engine>,
    folder: PathBuf,
    _lock: File,
}

impl Copy {
    /// Copies a shard that nobody writes to and that was flushed.
    pub(crate) fn take(live: &Path, config: EdgeConfig, cancel: &Cancel) -> Result<Self> {
        remove_left_behind(live)?;
        let all = folder(live);
        if !all.exists() {
            files::make(&all)?;
        }
        let folder = all.join(Uuid::now_v7().to_string());
        files::make(&folder)?;
        let lock = folder.join("lock");
        let locked = File::create(&lock).and_then(|file| {
            file.lock()?;
            Ok(file)
        });
        let mut copy = match locked {
            Ok(file) => Self { engine: None, folder, _lock: file },
            Err(e) => {
                files::remove(&folder)?;
                return Err(fail("could not lock a file", &lock)(e));
            }
        };
        let shard = copy.folder.join("shard");
        // What is in the log is in the segments, too: it was flushed. A log is made whole at
        // once, and this one takes nothing.
        files::copy(live, &shard, &["wal"], cancel)?;
        let log = WalOptions { segment_capacity: 64 << 10, ..WalOptions::default() };
        let config = EdgeConfig { wal_options: Some(log), ..config };
        copy.engine = Some(Engine::open(&shard, Some(config))?);
        Ok(copy)
    }

    pub(crate) fn engine(&self) -> Result<&Engine> {
        self.engine.as_ref().ok_or_else(|| backup_core::Error::adapter("a copy was closed"))
    }

    pub(crate) fn remove(&mut self) -> Result<()> {
        // What it flushes is of no use.
        drop(self.engine.take());
        files::remove(&self.folder)?;
        // Others may be in use.
        let _ = self.folder.parent().map(fs::remove_dir);
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

fn remove_left_behind(live: &Path) -> Result<()> {
    let all = folder(live);
    if !all.exists() {
        return Ok(());
    }
    for entry in files::list(&all)? {
        let lock = File::open(entry.path().join("lock"));
        let used = lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
        if !used {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}
