//! A file that a server wrote, read without one.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use backup_core::{Content, Error, Part, Result, record::Tally};

use super::Items;
use crate::{
    model::Item,
    naming::{self, Naming, Prefixes},
    records::Records,
};

/// A snapshot of a Redis or Valkey server, read without a server: a `dump.rdb`, or what
/// `redis-cli --rdb` wrote.
///
/// Redis up to 8.2 and Valkey up to 9.0 are known; what is newer is refused. Keys become the
/// records that [`RedisStore`](crate::RedisStore) makes of them, so that counts and digests can be
/// compared with those of a backup. Keys that have expired but were not yet removed are in the
/// file and are read, too. Reading blocks.
///
/// ```no_run
/// let content = backup_redis::RdbFile::new("dump.rdb").content()?;
/// for (collection, tally) in &content.collections {
///     println!("{collection}: {tally:?}");
/// }
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RdbFile {
    path: PathBuf,
    databases: Vec<u32>,
}

impl RdbFile {
    /// The file at `path`, of which database 0 is read. It is not opened yet.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), databases: vec![0] }
    }

    /// The logical databases that are read; of several, collections are named
    /// `db<number>/keys`. None: database 0.
    #[must_use]
    pub fn databases(mut self, numbers: impl IntoIterator<Item = u32>) -> Self {
        self.databases = numbers.into_iter().collect();
        if self.databases.is_empty() {
            self.databases.push(0);
        }
        self.databases.sort_unstable();
        self.databases.dedup();
        self
    }

    /// Hands every part of the file to `take`: for each database a schema, records, an end. They
    /// are to be trusted only when this has returned: the checksum stands at the file's end.
    ///
    /// # Errors
    /// [`Corrupt`](backup_core::ErrorKind::Corrupt): a file that is cut or damaged.
    /// [`UnknownVersion`](backup_core::ErrorKind::UnknownVersion): one of a newer server. A file
    /// that cannot be read; what `take` returns.
    pub fn read(&self, mut take: impl FnMut(Part) -> Result<()>) -> Result<()> {
        let on = |error: Error| error.on(self.path.display());
        let file =
            File::open(&self.path).map_err(|e| on(Error::io("a snapshot cannot be opened", e)))?;
        let mut records =
            Records::new(Naming::new(Prefixes::None, self.databases.clone()), true, &[]);
        for db in &self.databases {
            records.announce(*db)?;
        }
        let push = |records: &mut Records, item: Item| {
            let ours = self.databases.contains(&item.db) && !naming::is_own(&item.key);
            if ours { records.push(&item) } else { Ok(()) }
        };
        read_to_end(file, records, push, &mut take).map_err(on)
    }

    /// Counts and digests of what the file holds.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn content(&self) -> Result<Content> {
        let mut content = Content::new();
        self.read(|part| {
            match part {
                Part::Schema(schema) => {
                    content.collections.insert(schema.collection, Tally::new());
                }
                Part::Records(batch) => {
                    let name = batch.collection().to_owned();
                    content.collections.entry(name).or_default().add_batch(&batch);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(content)
    }
}

/// Hands the parts of a snapshot to `take`; `push` chooses what of it becomes records.
pub(crate) fn read_to_end(
    input: impl Read,
    mut records: Records,
    mut push: impl FnMut(&mut Records, Item) -> Result<()>,
    mut take: impl FnMut(Part) -> Result<()>,
) -> Result<()> {
    let mut items = Items::new(input);
    while let Some(item) = items.next()? {
        push(&mut records, item)?;
        while let Some(part) = records.next() {
            take(part)?;
        }
    }
    items.at_end()?;
    records.finish()?;
    while let Some(part) = records.next() {
        take(part)?;
    }
    Ok(())
}
