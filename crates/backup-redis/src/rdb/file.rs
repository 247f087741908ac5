//! A file that a server wrote, read without one.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use backup_core::{
    ByteStream, Cancel, Content, Error, ErrorKind, Part, Result,
    archive::{Archive, PartStream},
    record::Tally,
};
use bytes::Bytes;
use futures::{StreamExt, executor::block_on};

use super::Items;
use crate::{
    model::Item,
    naming::{self, Naming, Prefixes},
    native::DUMP,
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
#[derive(Clone)]
pub struct RdbFile {
    place: Place,
    databases: Vec<u32>,
}

#[derive(Clone)]
enum Place {
    Path(PathBuf),
    Archive(Archive, String),
}

impl RdbFile {
    /// The file at `path`, of which database 0 is read. It is not opened yet.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { place: Place::Path(path.as_ref().to_owned()), databases: vec![0] }
    }

    /// The snapshot that a [native](crate::RedisOptions::native) backup of `store` holds. It is
    /// read from the archive as it is needed, and nothing is unpacked on the disk.
    #[must_use]
    pub fn in_archive(archive: &Archive, store: &str) -> Self {
        Self { place: Place::Archive(archive.clone(), store.to_owned()), databases: vec![0] }
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
        let on = |error: Error| match &self.place {
            Place::Path(path) => error.on(path.display()),
            Place::Archive(_, store) => error.on(store),
        };
        let input: Box<dyn Read> = match &self.place {
            Place::Path(path) => Box::new(
                File::open(path).map_err(|e| on(Error::io("a snapshot cannot be opened", e)))?,
            ),
            Place::Archive(archive, store) => Box::new(native_part(archive, store).map_err(on)?),
        };
        let mut records =
            Records::new(Naming::new(Prefixes::None, self.databases.clone()), true, &[]);
        for db in &self.databases {
            records.announce(*db)?;
        }
        let push = |records: &mut Records, item: Item| {
            let ours = self.databases.contains(&item.db) && !naming::is_own(&item.key);
            if ours { records.push(&item) } else { Ok(()) }
        };
        read_to_end(input, records, push, &mut take).map_err(on)
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

/// The bytes of a native part.
struct Body {
    bytes: ByteStream,
    piece: Bytes,
    /// Reads ahead for as long as it is there.
    _parts: PartStream,
}

fn native_part(archive: &Archive, store: &str) -> Result<Body> {
    let mut parts = archive.stream(&[store.to_owned()], &Cancel::new())?;
    while let Some(part) = block_on(parts.next()) {
        if let (_, Part::Blob(blob)) = part?
            && blob.name == DUMP
        {
            return Ok(Body { bytes: blob.body, piece: Bytes::new(), _parts: parts });
        }
    }
    Err(Error::new(ErrorKind::NotFound, "the archive has no snapshot of this store"))
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match block_on(self.bytes.next()) {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.piece.len());
        out[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}

impl fmt::Debug for RdbFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.place {
            Place::Path(path) => path.display().to_string(),
            Place::Archive(_, store) => store.clone(),
        };
        f.debug_tuple("RdbFile").field(&place).field(&self.databases).finish()
    }
}
