//! Native snapshots of a server, unpacked without trust.
//!
//! A snapshot is a tar: of a shard, or of a collection with a folder for each shard. A segment
//! is a tar of its own within it, or a folder. Only segments are taken, each file under a name
//! that is checked; logs and cluster state are left out, because the engine reads neither.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
};

use backup_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use tar::{Archive, Entry, EntryType};
use uuid::Uuid;

use super::{
    config,
    files::{self, fail},
};
use crate::shard_key::ShardKey;

/// A description is small.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// More files than any snapshot has.
const MAX_FILES: u64 = 4_000_000;

/// What a snapshot holds beside points.
#[derive(Default)]
pub(crate) struct Unpacked {
    /// The folder of each shard, by its number; a shard's own snapshot has one.
    pub(crate) shards: BTreeMap<u32, PathBuf>,
    /// `config.json` of a collection.
    pub(crate) config: Option<Value>,
    /// `payload_index.json` of a collection.
    pub(crate) payload_index: Option<Value>,
    /// `shard_key_mapping.json` of a collection.
    pub(crate) keys: Vec<KeyShards>,
}

/// The numbers of the shards of a shard key.
#[derive(Deserialize)]
pub(crate) struct KeyShards {
    pub(crate) key: ShardKey,
    pub(crate) shard_ids: Vec<u32>,
}

struct Unpacking<'a> {
    folder: &'a Path,
    /// Bytes that files may still have.
    left: u64,
    files: u64,
    unpacked: Unpacked,
}

/// Unpacks a snapshot into an empty folder. Files may have `limit` bytes together, holes
/// included.
pub(crate) fn unpack(snapshot: &Path, folder: &Path, limit: u64) -> Result<Unpacked> {
    let file = File::open(snapshot).map_err(fail("a snapshot could not be read", snapshot))?;
    let mut unpacking = Unpacking { folder, left: limit, files: 0, unpacked: Unpacked::default() };
    unpacking.all(BufReader::new(file)).map_err(|error| error.on(snapshot.display()))?;
    let unpacked = unpacking.unpacked;
    if unpacked.shards.is_empty() {
        let what = "this is no snapshot of a collection or a shard";
        return Err(Error::new(ErrorKind::Corrupt, what).on(snapshot.display()));
    }
    unpacked.shards.values().try_for_each(|shard| check(shard))?;
    Ok(unpacked)
}

impl Unpacking<'_> {
    fn all(&mut self, snapshot: impl Read) -> Result<()> {
        let mut archive = Archive::new(snapshot);
        for entry in archive.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            let names = plain_names(&entry)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            match names[..] {
                ["config.json"] => self.unpacked.config = Some(json(&mut entry)?),
                ["payload_index.json"] => self.unpacked.payload_index = Some(json(&mut entry)?),
                ["shard_key_mapping.json"] => self.unpacked.keys = keys(json(&mut entry)?)?,
                ["segments", ref rest @ ..] => self.segment(0, rest, entry)?,
                [shard, "segments", ref rest @ ..] => {
                    let number = shard.parse().map_err(|_| odd_name(&entry))?;
                    self.segment(number, rest, entry)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn segment(&mut self, shard: u32, names: &[&str], entry: Entry<'_, impl Read>) -> Result<()> {
        let folder = self.folder.join(shard.to_string());
        self.unpacked.shards.entry(shard).or_insert_with(|| folder.clone());
        let segments = folder.join("segments");
        let named = |name: &str| {
            let uuid = Uuid::try_parse(name).map_err(|_| odd_name(&entry))?;
            Ok::<_, Error>(segments.join(uuid.to_string()))
        };
        match names {
            [] => Ok(()),
            // What is not finished has a name that begins so.
            [name, ..] if name.starts_with('.') => Ok(()),
            [name] if entry.header().entry_type().is_dir() => named(name).map(drop),
            [name] => {
                let name = name.strip_suffix(".tar").ok_or_else(|| odd_name(&entry))?;
                let segment = named(name)?;
                if segment.exists() {
                    return Err(odd_name(&entry));
                }
                let mut archive = Archive::new(entry);
                for entry in archive.entries().map_err(damaged)? {
                    let entry = entry.map_err(damaged)?;
                    let names = plain_names(&entry)?;
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    self.file(
                        &segment,
                        names.strip_prefix(&["snapshot"]).unwrap_or(&names),
                        entry,
                    )?;
                }
                Ok(())
            }
            [name, rest @ ..] => {
                let segment = named(name)?;
                self.file(&segment, rest, entry)
            }
        }
    }

    /// A file of a segment; they lie in `files` where the segment is not a plain copy.
    fn file(
        &mut self,
        segment: &Path,
        names: &[&str],
        mut entry: Entry<'_, impl Read>,
    ) -> Result<()> {
        let names = names.strip_prefix(&["files"]).unwrap_or(names);
        if entry.header().entry_type().is_dir() || names.is_empty() {
            return Ok(());
        }
        self.files += 1;
        let size = entry.size();
        if self.files > MAX_FILES || size > self.left {
            return Err(Error::new(ErrorKind::LimitExceeded, "a snapshot is too large"));
        }
        self.left -= size;
        let path = names.iter().fold(segment.to_owned(), |path, name| path.join(name));
        let failed = || fail("a file of a snapshot could not be written", &path);
        fs::create_dir_all(path.parent().unwrap_or(segment)).map_err(failed())?;
        if fs::symlink_metadata(&path).is_ok() {
            return Err(odd_name(&entry));
        }
        entry.set_preserve_permissions(false);
        entry.set_preserve_mtime(false);
        entry.unpack(&path).map(drop).map_err(|e| match damaged(e) {
            error if error.kind() == ErrorKind::Corrupt => error,
            error => Error::new(error.kind(), "a file of a snapshot could not be written")
                .on(path.display())
                .because(error),
        })
    }
}

/// The names between the slashes, of an entry that is a file or a folder.
fn plain_names(entry: &Entry<'_, impl Read>) -> Result<Vec<String>> {
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::GNUSparse | EntryType::Directory => {}
        _ => {
            let what = "a snapshot holds what is neither a file nor a folder";
            return Err(Error::new(ErrorKind::Hostile, what)
                .on(String::from_utf8_lossy(&entry.path_bytes())));
        }
    }
    let path = entry.path().map_err(|_| odd_name(entry))?;
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => match name.to_str() {
                Some(name) if !name.contains(['\\', '\0']) => names.push(name.to_owned()),
                _ => return Err(odd_name(entry)),
            },
            _ => return Err(odd_name(entry)),
        }
    }
    Ok(names)
}

fn odd_name(entry: &Entry<'_, impl Read>) -> Error {
    let what = "a snapshot holds a file of a name that no snapshot has, or twice";
    Error::new(ErrorKind::Hostile, what).on(String::from_utf8_lossy(&entry.path_bytes()))
}

fn damaged(cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::Other | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            Error::new(ErrorKind::Corrupt, "a snapshot is damaged").because(cause)
        }
        _ => Error::io("a snapshot could not be read", cause),
    }
}

fn json(entry: &mut Entry<'_, impl Read>) -> Result<Value> {
    if entry.size() > MAX_JSON_BYTES {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            "a description in a snapshot is too long",
        ));
    }
    serde_json::from_reader(entry).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "a description in a snapshot cannot be read").because(e)
    })
}

/// Servers of before 1.13 write an object, in which a number and its text are the same key.
fn keys(mapping: Value) -> Result<Vec<KeyShards>> {
    if mapping.as_object().is_some_and(Map::is_empty) {
        return Ok(Vec::new());
    }
    serde_json::from_value(mapping).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "the shard keys in a snapshot cannot be read")
            .because(e)
            .advise("if it is of a server of before 1.13, restore it there")
    })
}

/// The engine drops a segment that is not whole, and follows what names its vectors have.
fn check(shard: &Path) -> Result<()> {
    let segments = shard.join("segments");
    for entry in files::list(&segments)? {
        let segment = entry.path();
        let odd = |what: &str| Error::new(ErrorKind::Corrupt, what).on(segment.display());
        if !segment.join("version.info").is_file() {
            return Err(odd("a segment of a snapshot is not whole"));
        }
        let state = segment.join("segment.json");
        let text = fs::read(&state).map_err(fail("a segment could not be read", &state))?;
        let state: Value = serde_json::from_slice(&text)
            .map_err(|e| odd("the description of a segment cannot be read").because(e))?;
        for kind in ["vector_data", "sparse_vector_data"] {
            let vectors = state["config"][kind].as_object();
            for name in vectors.into_iter().flat_map(|vectors| vectors.keys()) {
                config::check_name(name)?;
            }
        }
    }
    Ok(())
}
