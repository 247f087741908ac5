//! What a source hands over and a sink takes: one part at a time.

use std::{collections::BTreeMap, fmt, ops::Range};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, ErrorKind, Result},
    manifest::CollectionInfo,
    record::{RecordBatch, Tally},
};

/// A stream of bytes, in pieces of any size; pieces of 64 KiB to 1 MiB are best.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// One step of a backup or a restore.
#[derive(Debug)]
#[non_exhaustive]
// Schemas are the largest and the rarest: a box would only make them awkward to match.
#[expect(clippy::large_enum_variant)]
pub enum Part {
    /// A collection begins: what recreates it. Comes before its records.
    Schema(Schema),
    /// Records of a collection.
    Records(RecordBatch),
    /// A native snapshot of the whole store.
    Blob(Blob),
    /// A file, folder or link of a tree.
    Entry(FileEntry),
    /// A collection has no more parts in this partition.
    End(CollectionEnd),
    /// Something did not go as it should and the backup went on: it is partial.
    Notice(Notice),
}

/// What recreates a collection, and what the manifest says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// The collection's name, as the store has it.
    pub collection: String,
    /// A JSON document that the adapter understands: DDL, vector configuration, indexes.
    pub document: serde_json::Value,
    /// What the manifest says of the collection.
    pub info: CollectionInfo,
}

/// A byte stream of one store: a native snapshot.
pub struct Blob {
    /// Its file name below `stores/<store>/_native/`.
    pub name: String,
    /// Length in bytes; `None` where it is not known before the end (it is then spooled).
    pub len: Option<u64>,
    /// Byte ranges, ascending, that a restore may change; they count as zero in the digest.
    pub masked: Vec<Range<u64>>,
    /// What the adapter needs to know at restore.
    pub metadata: Metadata,
    /// The bytes.
    pub body: ByteStream,
}

/// Free members of a part or a manifest.
pub type Metadata = BTreeMap<String, serde_json::Value>;

/// The path of a file within its root: bytes, `/` between names, never empty, never leading
/// out of the root.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(Box<[u8]>);

impl EntryPath {
    /// Longest path, in bytes.
    pub const MAX_BYTES: usize = 4096;

    /// Checks a path.
    ///
    /// # Errors
    /// Empty paths and names, `.`, `..`, NUL, more than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self> {
        let path = path.as_ref();
        let fault = if path.len() > Self::MAX_BYTES {
            "a path is too long"
        } else if path.contains(&0) {
            "a path holds a NUL byte"
        } else if path.split(|b| *b == b'/').any(|name| matches!(name, b"" | b"." | b"..")) {
            "a path is not relative and plain"
        } else {
            return Ok(Self(path.into()));
        };
        Err(Error::new(ErrorKind::Hostile, fault).on(String::from_utf8_lossy(path)))
    }

    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The names between the slashes.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// The folders that hold it, the nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = EntryPath> {
        let slashes = self.0.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
        slashes.map(|(at, _)| Self(self.0[..at].into()))
    }
}

// Name by name, so that a folder's content follows the folder and trees are walked in order.
impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.names().cmp(other.names())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}", self = String::from_utf8_lossy(&self.0))
    }
}

/// A file, folder or symbolic link of a tree.
///
/// Entries of one root come in ascending order of [`EntryPath`], each once: so the archive
/// can be checked for duplicates without remembering a million names.
#[derive(Debug)]
pub struct FileEntry {
    /// The root that it belongs to: the collection's name.
    pub root: String,
    /// The path within the root.
    pub path: EntryPath,
    /// Permission bits, at most `0o777`; 0 where the system has none.
    pub mode: u32,
    /// When it was last changed: seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// What it is.
    pub kind: EntryKind,
}

/// What a [`FileEntry`] is.
pub enum EntryKind {
    /// A regular file of a known length.
    ///
    /// The engine takes exactly `len` bytes: a body that ends early is padded with zeros, a
    /// longer one is cut, and either is recorded and makes the backup partial. An error in
    /// the body ends the backup.
    File {
        /// Length in bytes.
        len: u64,
        /// The bytes.
        body: ByteStream,
    },
    /// A folder.
    Directory,
    /// A symbolic link; never followed.
    Symlink {
        /// What it points at, as it stands.
        target: Vec<u8>,
    },
}

/// The end of a collection within one partition.
#[derive(Debug, Clone, Default)]
pub struct CollectionEnd {
    /// The collection.
    pub collection: String,
    /// How many records or entries this partition gave for it; compared with what arrived.
    pub count: Option<u64>,
    /// Named figures for the manifest: documents, entities.
    pub statistics: BTreeMap<String, u64>,
}

/// Something that did not go as it should and did not end the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What kind of thing.
    pub kind: NoticeKind,
    /// The collection or root.
    pub collection: String,
    /// The path, table or key.
    pub subject: String,
    /// One clause for people.
    pub detail: String,
}

/// The kinds of [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NoticeKind {
    /// Was changed while it was read; what was read may be torn.
    Changed,
    /// Became shorter while it was read; padded with zeros.
    Shrank,
    /// Became longer while it was read; cut.
    Grew,
    /// Was there and is gone.
    Vanished,
    /// Could not be read.
    Unreadable,
    /// Was left out although it was asked for: a device, a socket, a value that cannot be
    /// carried.
    Unsupported,
    /// Was left out on purpose: a live database, the archive itself. Does not make the
    /// backup partial.
    LeftOut,
    /// Worth knowing; does not make the backup partial.
    Remark,
    /// The store could not be reached and was optional.
    StoreMissing,
}

impl Part {
    /// The error of a store that has no place for such a part, told with an article: `a Redis server`.
    #[must_use]
    pub fn refused_by(&self, store: &str) -> Error {
        let what = format!("{store} cannot take this part of an archive");
        Error::new(ErrorKind::Incompatible, what).on(format_args!("{self:?}"))
    }
}

impl NoticeKind {
    /// Whether a backup with such a notice is partial.
    #[must_use]
    pub const fn makes_partial(self) -> bool {
        !matches!(self, Self::LeftOut | Self::Remark)
    }
}

/// What is expected of a store after a restore, or was found in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Content {
    /// Count and digests of every collection.
    #[serde(default)]
    pub collections: BTreeMap<String, Tally>,
    /// Length and masked digest of every native blob.
    #[serde(default)]
    pub blobs: BTreeMap<String, BlobContent>,
}

/// Length and masked digest of a native blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobContent {
    /// Length in bytes.
    pub len: u64,
    /// SHA-256 with the masked ranges as zeros.
    pub digest: crate::record::Sha256Digest,
    /// The masked ranges as `[start, end)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<(u64, u64)>,
}

impl Content {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl FileEntry {
    /// The line that stands for this entry in its root's digest, without the line feed.
    ///
    /// Source, archive and sink compute it alike: kind, mode, modification time, path, and
    /// for a file its length and SHA-256, for a link its target.
    #[must_use]
    pub fn line(
        path: &EntryPath,
        mode: u32,
        modified: (i64, u32),
        kind: EntryFacts<'_>,
    ) -> Vec<u8> {
        use crate::record::canonical::Writer;
        let mut out = Vec::with_capacity(256);
        let mut json = Writer::new(&mut out);
        let name = |json: &mut Writer<'_>, bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => json.string(text),
            Err(_) => crate::record::tagged::bytes(json, bytes),
        };
        // Names in order, one level: cannot fail.
        let written: Result<()> = (|| {
            json.begin_object()?;
            json.name("kind")?;
            json.string(match kind {
                EntryFacts::File { .. } => "file",
                EntryFacts::Directory => "directory",
                EntryFacts::Symlink { .. } => "symlink",
            });
            json.name("mode")?;
            json.integer(mode);
            json.name("modified")?;
            json.begin_array()?;
            json.integer(modified.0);
            json.integer(modified.1);
            json.end_array();
            json.name("path")?;
            name(&mut json, path.as_bytes());
            match kind {
                EntryFacts::File { len, sha256 } => {
                    json.name("sha256")?;
                    json.string(&sha256.to_string());
                    json.name("size")?;
                    json.integer(len);
                }
                EntryFacts::Directory => {}
                EntryFacts::Symlink { target } => {
                    json.name("target")?;
                    name(&mut json, target);
                }
            }
            json.end_object();
            Ok(())
        })();
        debug_assert!(written.is_ok());
        out
    }
}

/// What [`FileEntry::line`] has to know of an entry.
#[derive(Debug, Clone, Copy)]
pub enum EntryFacts<'a> {
    /// A regular file.
    File {
        /// Length in bytes.
        len: u64,
        /// Hash of its bytes.
        sha256: &'a crate::record::Sha256Digest,
    },
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it points at.
        target: &'a [u8],
    },
}

/// A [`ByteStream`] of one piece.
#[must_use]
pub fn byte_stream(bytes: impl Into<Bytes>) -> ByteStream {
    let bytes: Bytes = bytes.into();
    futures::stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed()
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("name", &self.name)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { len, .. } => write!(f, "File({len} bytes)"),
            Self::Directory => f.write_str("Directory"),
            Self::Symlink { target } => write!(f, "Symlink({})", String::from_utf8_lossy(target)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_are_refused() {
        for bad in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a/b", "...", "a b\n", "CON", "a\\b"] {
            assert!(EntryPath::new(good).is_ok(), "{good:?}");
        }
        assert!(EntryPath::new("a".repeat(4097)).is_err());
        assert!(EntryPath::new(vec!["a"; 10_000].join("/")).is_err());
        assert!(EntryPath::new([0xff, b'/', 0xfe]).is_ok());
    }

    #[test]
    fn ancestors_come_from_the_inside_out() {
        let path = EntryPath::new("a/b/c").unwrap();
        assert_eq!(path.ancestors().map(|p| p.to_string()).collect::<Vec<_>>(), ["a/b", "a"]);
        assert_eq!(EntryPath::new("a").unwrap().ancestors().count(), 0);
    }

    #[test]
    fn a_folder_comes_before_what_it_holds_and_all_of_that_before_its_sibling() {
        let path = |text: &str| EntryPath::new(text).unwrap();
        let mut paths = ["a.txt", "a", "a/z", "a/b/c", "a/b", "b"].map(path);
        paths.sort();
        assert_eq!(paths.map(|p| p.to_string()), ["a", "a/b", "a/b/c", "a/z", "a.txt", "b"]);
    }
}
