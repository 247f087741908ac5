//! Snapshots in the layout of the server: written from engine shards, and unpacked into them.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use qdrant_edge::{EdgeConfig, EdgeShard};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType};

use crate::collection::{CONFIG_FILE, INDEX_FILE, Indexes, KEYS_FILE};
use crate::config::CollectionConfig;
use crate::error::{Error, Result};
use crate::files::write_json;
use crate::live::{Live, Shard};
use crate::peer::Peer;
use crate::sharding::KeyShards;

const SEGMENTS: &str = "segments";
const WAL: &str = "wal";
/// The version of the layout of a collection that servers write.
const COLLECTION_VERSION: &str = "0.4.2";
/// Where a segment's archive holds its files.
const SEGMENT_FILES: &str = "snapshot/files";

pub(crate) fn write_collection(live: &Live, peer: Peer, out: File, temp: &Path) -> Result<()> {
    let mut tar = Builder::new(BufWriter::new(out));
    for (id, shard) in live.shards.iter().filter(|(id, _)| peer.has(**id)) {
        append_shard(&mut tar, Path::new(&id.to_string()), shard, peer, temp)?;
    }
    append_bytes(&mut tar, Path::new("version.info"), COLLECTION_VERSION.as_bytes())?;
    append_json(&mut tar, Path::new(CONFIG_FILE), &live.config.for_snapshot()?)?;
    append_json(&mut tar, Path::new(KEYS_FILE), &serde_json::to_value(&live.keys)?)?;
    append_json(&mut tar, Path::new(INDEX_FILE), &serde_json::to_value(&live.indexes)?)?;
    Ok(tar.into_inner()?.flush()?)
}

pub(crate) fn write_shard(shard: &Shard, peer: Peer, out: File, temp: &Path) -> Result<()> {
    let mut tar = Builder::new(BufWriter::new(out));
    append_shard(&mut tar, Path::new(""), shard, peer, temp)?;
    Ok(tar.into_inner()?.flush()?)
}

fn append_shard<W: Write>(
    tar: &mut Builder<W>,
    prefix: &Path,
    shard: &Shard,
    peer: Peer,
    temp: &Path,
) -> Result<()> {
    let _writers = shard.stop_writers();
    shard.edge.flush();
    for segment in sorted_entries(&shard.edge.path().join(SEGMENTS))? {
        let Some(name) = segment.file_name().and_then(|n| n.to_str()) else { continue };
        if !segment.is_dir() || name.starts_with('.') {
            continue;
        }
        let packed = tempfile::Builder::new().prefix(name).tempfile_in(temp)?;
        pack_segment(&segment, packed.reopen()?)?;
        let name = prefix.join(SEGMENTS).join(format!("{name}.tar"));
        tar.append_file(name, &mut packed.reopen()?)?;
    }
    let next = next_operation(&shard.edge)?;
    append_bytes(tar, &prefix.join(WAL).join(wal_name(next)), &empty_wal())?;
    let peer = peer.id();
    let state =
        json!({"is_local": true, "this_peer_id": peer, "peers": {peer.to_string(): "Active"}});
    append_json(tar, &prefix.join("replica_state.json"), &state)?;
    append_json(tar, &prefix.join("shard_config.json"), &json!({"type": "ReplicaSet"}))
}

fn pack_segment(segment: &Path, out: File) -> Result<()> {
    let mut tar = Builder::new(BufWriter::new(out));
    let mut pending = vec![segment.to_owned()];
    while let Some(dir) = pending.pop() {
        for path in sorted_entries(&dir)? {
            if path.is_dir() {
                pending.push(path);
            } else {
                let inside = path.strip_prefix(segment).unwrap_or(&path);
                tar.append_path_with_name(&path, Path::new(SEGMENT_FILES).join(inside))?;
            }
        }
    }
    Ok(tar.into_inner()?.flush()?)
}

/// Unpacks a collection's snapshot into `folder`, which is then a folder of a collection.
pub(crate) fn unpack_collection(snapshot: &Path, folder: &Path) -> Result<CollectionConfig> {
    unpack_archive(snapshot, folder, None)?;
    let config: CollectionConfig = serde_json::from_slice(&fs::read(folder.join(CONFIG_FILE))?)?;
    let index_file = folder.join(INDEX_FILE);
    let indexes = if index_file.exists() {
        serde_json::from_slice(&fs::read(&index_file)?)?
    } else {
        Indexes::default()
    };
    write_json(&index_file, &indexes)?;
    let edge = config.edge()?;
    let keys: Vec<KeyShards> = match fs::read(folder.join(KEYS_FILE)) {
        Ok(keys) => serde_json::from_slice(&keys)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    write_json(&folder.join(KEYS_FILE), &keys)?;
    let of_keys = keys.into_iter().flat_map(|shards| shards.shard_ids);
    for id in config.automatic_shards().chain(of_keys) {
        let shard = folder.join(id.to_string());
        if !shard.join("shard_config.json").exists() {
            let shard = shard.display();
            return Err(Error::service(format!("Can't read shard config at {shard}")));
        }
        prepare_shard(&shard, &edge, &indexes)?;
    }
    Ok(config)
}

pub(crate) fn unpack_shard(
    snapshot: &Path,
    folder: &Path,
    edge: &EdgeConfig,
    indexes: &Indexes,
) -> Result<()> {
    unpack_archive(snapshot, folder, None)?;
    prepare_shard(folder, edge, indexes)
}

/// Makes an unpacked shard one that the engine opens and goes on with. The engine neither reads
/// the log of operations nor knows how far it had come, and passes over operations with numbers
/// that its points have seen: so the log is one that goes on after them.
fn prepare_shard(shard: &Path, edge: &EdgeConfig, indexes: &Indexes) -> Result<()> {
    for packed in sorted_entries(&shard.join(SEGMENTS))? {
        if packed.extension().is_some_and(|e| e == "tar") {
            unpack_archive(&packed, &packed.with_extension(""), Some(Path::new(SEGMENT_FILES)))?;
            fs::remove_file(&packed)?;
        }
    }
    write_json(&shard.join(INDEX_FILE), indexes)?;
    remove_wal(shard)?;
    let opened = EdgeShard::load(shard, Some(edge.clone()))?;
    let next = next_operation(&opened)?;
    drop(opened);
    remove_wal(shard)?;
    let wal = shard.join(WAL);
    fs::create_dir(&wal)?;
    fs::write(wal.join(wal_name(next)), empty_wal())?;
    Ok(())
}

fn remove_wal(shard: &Path) -> io::Result<()> {
    match fs::remove_dir_all(shard.join(WAL)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn next_operation(edge: &EdgeShard) -> Result<u64> {
    let manifest = edge.snapshot_manifest()?;
    Ok(1 + manifest.iter().map(|(_, segment)| segment.segment_version).max().unwrap_or(0))
}

/// A closed piece of a log, named after its first operation.
fn wal_name(next: u64) -> String {
    format!("closed-{next}")
}

fn empty_wal() -> [u8; 64] {
    let mut wal = [0; 64];
    wal[..3].copy_from_slice(b"wal");
    wal
}

/// Unpacks an archive of files and folders: all of it, or what is below `inside`.
fn unpack_archive(path: &Path, into: &Path, inside: Option<&Path>) -> io::Result<()> {
    let mut archive = Archive::new(BufReader::new(File::open(path)?));
    fs::create_dir_all(into)?;
    let malformed = |error: io::Error| {
        io::Error::new(error.kind(), "Malformed tar archive, reached unknown entry")
    };
    for entry in archive.entries()? {
        let mut entry = entry.map_err(malformed)?;
        let kind = entry.header().entry_type();
        if !matches!(kind, EntryType::Directory | EntryType::Regular | EntryType::GNUSparse) {
            return Err(io::Error::other(format!("Forbidden entry type in tar archive: {kind:?}")));
        }
        let Some(inside) = inside else {
            entry.unpack_in(into)?;
            continue;
        };
        let path = entry.path()?.into_owned();
        let Ok(rest) = path.strip_prefix(inside) else { continue };
        if kind == EntryType::Directory || !rest.components().all(is_plain) {
            continue;
        }
        let target = into.join(rest);
        fs::create_dir_all(target.parent().unwrap_or(into))?;
        entry.unpack(target)?;
    }
    Ok(())
}

fn is_plain(part: std::path::Component<'_>) -> bool {
    matches!(part, std::path::Component::Normal(_))
}

fn sorted_entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    Ok(entries)
}

fn append_json<W: Write>(tar: &mut Builder<W>, name: &Path, value: &Value) -> Result<()> {
    append_bytes(tar, name, &serde_json::to_vec(value)?)
}

fn append_bytes<W: Write>(tar: &mut Builder<W>, name: &Path, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    Ok(tar.append_data(&mut header, name, bytes)?)
}

pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
