//! The archive as a whole: what was written comes back, and nothing damaged passes.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    sync::Arc,
};

use futures::{StreamExt as _, executor::block_on};

use super::*;
use crate::{
    ArchiveId, Cancel, EntryPath, ErrorKind, Part, Result, Schema, Timestamp,
    manifest::{
        Application, CollectionInfo, CollectionManifest, Manifest, Preamble, StoreManifest,
    },
    part::{BlobContent, EntryFacts, EntryKind, FileEntry},
    record::{BatchBuilder, ElementType, Key, RecordBatch, Tally},
};

pub(super) fn codecs() -> Vec<Codec> {
    let mut codecs = vec![Codec::Gzip, Codec::None];
    if cfg!(feature = "zstd") {
        codecs.push(Codec::Zstd);
    }
    codecs
}

pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn batch(from: i64, count: i64) -> RecordBatch {
    let mut builder = BatchBuilder::new("notes");
    let dense = builder.dense("text", ElementType::F32, 8);
    let sparse = builder.sparse("words", ElementType::F32);
    for id in from..from + count {
        let value = format!(r#"{{"title":"note {id}","n":{id}}}"#);
        builder.push_json(&Key::from(id), value.as_bytes()).unwrap();
        if id % 3 != 0 {
            builder.set_f32(dense, &[id as f32; 8]).unwrap();
            builder
                .set_sparse(sparse, &[1, 5], &[1_f32.to_le_bytes(), 2_f32.to_le_bytes()].concat())
                .unwrap();
        }
    }
    builder.finish().unwrap()
}

/// An archive with every kind of part; `big` bytes of noise in a file and in a blob.
pub(super) fn sample(codec: Codec, big: usize) -> Vec<u8> {
    let app = Application { name: "docs".into(), version: "1.4.0".into() };
    let id = ArchiveId::from_bytes([9; 16]);
    let preamble = Preamble::new(id, Timestamp::from_micros(1_735_689_600_000_000), app);
    let options = WriterOptions { codec, ..WriterOptions::default() };
    let mut writer = ArchiveWriter::new(Vec::new(), &preamble, &options).unwrap();
    let mut manifest = Manifest::new(&preamble, codec);

    let mut vectors = StoreManifest { kind: "memory".into(), ..StoreManifest::default() };
    let schema = Schema {
        collection: "notes".into(),
        document: serde_json::json!({"dim": 8}),
        info: CollectionInfo::default(),
    };
    writer.schema("v", &schema).unwrap();
    let mut tally = Tally::new();
    for from in [0, 50] {
        let batch = batch(from, 50);
        tally.add_batch(&batch);
        writer.records("v", "p0", &batch).unwrap();
    }
    let notes = CollectionManifest { tally, ..CollectionManifest::default() };
    vectors.collections.insert("notes".into(), notes);
    manifest.stores.insert("v".into(), vectors);

    let mut sql = StoreManifest { kind: "sqlite".into(), ..StoreManifest::default() };
    let image = noise(big, 1);
    let masked = [18..20, 24..28];
    writer.begin_blob("sql", "main.db", image.len() as u64, &masked, &BTreeMap::new()).unwrap();
    image.chunks(1000).for_each(|chunk| writer.data(chunk).unwrap());
    let end = writer.end().unwrap();
    assert_ne!(end.sha256, end.masked_sha256);
    sql.blobs.insert(
        "main.db".into(),
        BlobContent {
            len: image.len() as u64,
            digest: end.masked_sha256,
            masked: vec![(18, 20), (24, 28)],
        },
    );
    manifest.stores.insert("sql".into(), sql);

    let mut files = StoreManifest { kind: "files".into(), ..StoreManifest::default() };
    let mut tally = Tally::new();
    let long = "d".repeat(120);
    for (path, head, content) in [
        (&b"a"[..], EntryHead::Directory, Vec::new()),
        (b"a/empty", EntryHead::File, Vec::new()),
        (b"a/\xff\n", EntryHead::File, b"odd".to_vec()),
        (b"big", EntryHead::File, noise(big, 2)),
        (long.as_bytes(), EntryHead::File, b"long".to_vec()),
        (b"link", EntryHead::Symlink(b"../x".to_vec()), Vec::new()),
    ] {
        let path = EntryPath::new(path).unwrap();
        let modified = (1_700_000_000, 5);
        let len = content.len() as u64;
        writer.begin_entry("up", "root", &path, 0o640, modified, head.clone(), len).unwrap();
        writer.data(&content).unwrap();
        let end = writer.end().unwrap();
        let facts = match &head {
            EntryHead::File => EntryFacts::File { len, sha256: &end.sha256 },
            EntryHead::Directory => EntryFacts::Directory,
            EntryHead::Symlink(target) => EntryFacts::Symlink { target },
        };
        tally.add_line(&FileEntry::line(&path, 0o640, modified, facts));
    }
    let root = CollectionManifest { tally, ..CollectionManifest::default() };
    files.collections.insert("root".into(), root);
    manifest.stores.insert("up".into(), files);
    writer.config("app", &serde_json::json!({"b": 1, "a": [true]})).unwrap();

    for (name, parts, bytes) in [("v", 0, 0), ("sql", 0, 0), ("up", 0, 0)] {
        let store = manifest.stores.get_mut(name).unwrap();
        (store.parts, store.bytes) = (parts, bytes);
    }
    // The engine counts as it goes; here the index of a first run tells.
    let probe = writer.finish(manifest.clone()).unwrap();
    let archive = Archive::from_source(probe.out.clone()).unwrap();
    for part in archive.entries() {
        let part = part.unwrap();
        if let Some(store) = part.kind.store() {
            let store = manifest.stores.get_mut(store).unwrap();
            store.parts += 1;
            store.bytes += part.size;
        }
    }
    if probe.manifest.stores == manifest.stores {
        return probe.out;
    }
    rewrite(&archive, &preamble, &options, manifest)
}

// The same parts under another manifest.
fn rewrite(
    archive: &Archive,
    preamble: &Preamble,
    options: &WriterOptions,
    manifest: Manifest,
) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new(), preamble, options).unwrap();
    let stores = ["v", "sql", "up"].map(String::from);
    let mut parts = archive.stream(&stores, &Cancel::new()).unwrap();
    block_on(async {
        while let Some(part) = parts.next().await {
            let (store, part) = part.unwrap();
            write_part(&mut writer, &store, part).await;
        }
    });
    writer.config("app", &archive.config("app").unwrap()).unwrap();
    writer.finish(manifest).unwrap().out
}

async fn write_part(writer: &mut ArchiveWriter<Vec<u8>>, store: &str, part: Part) {
    match part {
        Part::Schema(schema) => writer.schema(store, &schema).unwrap(),
        Part::Records(batch) => writer.records(store, "p0", &batch).unwrap(),
        Part::Blob(mut blob) => {
            let len = blob.len.unwrap();
            writer.begin_blob(store, &blob.name, len, &blob.masked, &blob.metadata).unwrap();
            while let Some(chunk) = blob.body.next().await {
                writer.data(&chunk.unwrap()).unwrap();
            }
            writer.end().unwrap();
        }
        Part::Entry(entry) => {
            let (head, len, body) = match entry.kind {
                EntryKind::File { len, body } => (EntryHead::File, len, Some(body)),
                EntryKind::Directory => (EntryHead::Directory, 0, None),
                EntryKind::Symlink { target } => (EntryHead::Symlink(target), 0, None),
            };
            writer
                .begin_entry(store, &entry.root, &entry.path, entry.mode, entry.modified, head, len)
                .unwrap();
            if let Some(mut body) = body {
                while let Some(chunk) = body.next().await {
                    writer.data(&chunk.unwrap()).unwrap();
                }
            }
            writer.end().unwrap();
        }
        other => panic!("{other:?}"),
    }
}

fn verify(archive: &Archive, mode: VerifyMode) -> Result<VerifyReport> {
    archive.verify(mode, &Cancel::new(), &mut |_| {})
}

#[test]
fn an_archive_of_every_part_is_whole() {
    for codec in codecs() {
        let archive = Archive::from_source(sample(codec, 6 << 20)).unwrap();
        let report = verify(&archive, VerifyMode::Full).unwrap();
        assert_eq!(report.records, 100 + 6);
        assert!(verify(&archive, VerifyMode::Quick).is_ok());
        assert_eq!(archive.config("app").unwrap(), serde_json::json!({"a": [true], "b": 1}));
        assert_eq!(archive.preamble().unwrap().id, archive.manifest().id);
        // Any part alone is the same as in passing.
        for part in archive.entries() {
            let part = part.unwrap();
            assert_eq!(archive.read(&part).unwrap().len() as u64, part.size);
        }
    }
}

#[test]
fn the_same_parts_give_the_same_bytes() {
    assert!(sample(Codec::Gzip, 3 << 20) == sample(Codec::Gzip, 3 << 20));
}

#[test]
fn many_parts_fill_many_pages() {
    let app = Application::default();
    let preamble = Preamble::new(ArchiveId::random(), Timestamp::now(), app);
    let options = WriterOptions::default();
    let mut writer = ArchiveWriter::new(Vec::new(), &preamble, &options).unwrap();
    for n in 0..60_000 {
        let path = EntryPath::new(format!("{n:06}")).unwrap();
        writer.begin_entry("s", "r", &path, 0o644, (0, 0), EntryHead::File, 3).unwrap();
        writer.data(b"abc").unwrap();
        writer.end().unwrap();
    }
    let finished = writer.finish(Manifest::new(&preamble, options.codec)).unwrap();
    let archive = Archive::from_source(finished.out).unwrap();
    assert!(archive.manifest().index.pages.len() > 2);
    assert_eq!(archive.entries().filter(|part| part.is_ok()).count(), 60_002);
    let last = archive.entries().nth(60_000).unwrap().unwrap();
    assert_eq!(&archive.read(&last).unwrap()[..], b"abc");
    // The manifest lists no store: a full look says so.
    assert_eq!(verify(&archive, VerifyMode::Full).unwrap_err().kind(), ErrorKind::Mismatch);
}

#[test]
fn short_and_interrupted_reads_change_nothing() {
    struct Slow(Vec<u8>, std::sync::atomic::AtomicUsize);
    impl ReadAt for Slow {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let count = self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if count.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = buffer.len().min(1);
            self.0.read_at(&mut buffer[..len], offset)
        }
    }
    let slow = Slow(sample(Codec::Gzip, 2000), 0.into());
    let archive = Archive::from_source(slow).unwrap();
    verify(&archive, VerifyMode::Full).unwrap();
}

#[test]
fn an_archive_knows_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = (folder.path().join("a.tar.gz"), sample(Codec::Gzip, 2000));
    std::fs::write(&path, &bytes).unwrap();
    let archive = Archive::open(&path).unwrap();
    assert_eq!((archive.path(), archive.size()), (Some(&*path), bytes.len() as u64));
    let shown = format!("{archive:?} {:?}", archive.entries());
    assert!(shown.contains("a.tar.gz") && shown.ends_with("Entries"), "{shown}");
    assert_eq!(Archive::from_source(bytes).unwrap().path(), None);
}

#[test]
fn opening_takes_two_reads_at_most() {
    struct Counted(Vec<u8>, Arc<std::sync::atomic::AtomicUsize>);
    impl ReadAt for Counted {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.read_at(buffer, offset)
        }
    }
    let count = Arc::default();
    Archive::from_source(Counted(sample(Codec::Gzip, 1 << 20), Arc::clone(&count))).unwrap();
    assert!(count.load(std::sync::atomic::Ordering::Relaxed) <= 2);
}

#[test]
fn a_gzip_reader_of_one_member_reads_the_whole_tar() {
    let archive = sample(Codec::Gzip, 5 << 20);
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(&archive[..]).read_to_end(&mut tar).unwrap();
    let mut names = Vec::new();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        names.push(entry.path().unwrap().display().to_string());
        io::copy(&mut entry, &mut io::sink()).unwrap();
    }
    assert_eq!(names[0], "backup.json");
    assert_eq!(names.last().unwrap(), "manifest.json");
    assert!(names.contains(&"stores/v/notes/p0-000001.text.npy".into()));
    assert!(names.contains(&"files/up/root/a/%FF%0A".into()));
    assert_eq!(tar.len() as u64, Archive::from_source(archive).unwrap().inner.trailer.tar_size);
}

#[test]
fn a_stream_that_is_dropped_ends_its_thread_and_one_that_is_cancelled_says_so() {
    let archive = Archive::from_source(sample(Codec::Gzip, 9 << 20)).unwrap();
    let stores = ["sql".to_owned()];
    let mut stream = archive.stream(&stores, &Cancel::new()).unwrap();
    let first = block_on(stream.next()).unwrap().unwrap();
    drop(stream);
    let (_, Part::Blob(blob)) = first else { panic!() };
    let body: Vec<_> = block_on(blob.body.collect());
    assert_eq!(body.iter().map(|c| c.as_ref().unwrap().len()).sum::<usize>(), 9 << 20);
    let cancel = Cancel::new();
    cancel.cancel();
    let mut stream = archive.stream(&stores, &cancel).unwrap();
    let error = block_on(stream.next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_long_body_comes_in_pieces_that_keep_no_segment_waiting() {
    let archive = Archive::from_source(sample(Codec::None, 5 << 20)).unwrap();
    let names: Vec<_> = archive.manifest().stores.keys().cloned().collect();
    let mut parts = archive.stream(&names, &Cancel::new()).unwrap();
    let mut long = 0;
    block_on(async {
        while let Some(part) = parts.next().await {
            let Part::Blob(mut blob) = part.unwrap().1 else { continue };
            let mut len = 0;
            while let Some(piece) = blob.body.next().await {
                let piece = piece.unwrap().len();
                assert!(piece <= 1 << 20, "{piece}");
                len += piece;
            }
            long += u64::from(len == 5 << 20);
        }
    });
    assert_eq!(long, 1);
}

#[test]
fn a_part_that_lacks_bytes_is_padded_and_one_with_too_many_is_cut() {
    let preamble = Preamble::new(ArchiveId::random(), Timestamp::now(), Application::default());
    let options = WriterOptions::default();
    let mut writer = ArchiveWriter::new(Vec::new(), &preamble, &options).unwrap();
    for (name, content) in [("long", &b"12345"[..]), ("short", b"1")] {
        let path = EntryPath::new(name).unwrap();
        writer.begin_entry("s", "r", &path, 0, (0, 0), EntryHead::File, 3).unwrap();
        writer.data(content).unwrap();
        let end = writer.end().unwrap();
        assert_eq!(end.taken + end.padded, 3);
        assert_eq!(end.cut, content.len() as u64 - end.taken);
    }
    // Nothing may come out of order, and nothing within another part.
    let path = EntryPath::new("early").unwrap();
    assert!(writer.begin_entry("s", "r", &path, 0, (0, 0), EntryHead::File, 0).is_err());
    let finished = writer.finish(Manifest::new(&preamble, options.codec)).unwrap();
    let archive = Archive::from_source(finished.out).unwrap();
    let contents: Vec<_> =
        archive.entries().skip(1).take(2).map(|p| archive.read(&p.unwrap()).unwrap()).collect();
    assert_eq!(contents, [&b"123"[..], b"1\0\0"]);
}

#[test]
fn an_output_that_fails_is_an_error() {
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let preamble = Preamble::new(ArchiveId::random(), Timestamp::now(), Application::default());
    let options = WriterOptions::default();
    for room in [0, 20, 700] {
        let written = ArchiveWriter::new(Full(room), &preamble, &options).and_then(|mut writer| {
            writer.config("c", &serde_json::json!({}))?;
            writer.finish(Manifest::new(&preamble, options.codec))
        });
        assert_eq!(written.err().map(|e| e.kind()), Some(ErrorKind::NoSpace), "{room}");
    }
}

#[test]
fn parts_become_files_that_match_their_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new");
    let archive = Archive::from_source(sample(Codec::Gzip, 1 << 20)).unwrap();
    let cancel = Cancel::new();
    let report = archive.extract(&target, |_| true, &cancel, &mut |_| {}).unwrap();
    assert_eq!(report.parts, archive.manifest().index.parts);
    let list = std::fs::read_to_string(target.join("checksums.sha256")).unwrap();
    for line in list.lines() {
        let (hash, path) = line.split_once("  ").unwrap();
        let content = std::fs::read(target.join(path)).unwrap();
        assert_eq!(crate::record::Sha256Digest::of(&content).to_string(), hash);
    }
    assert!(list.lines().count() > 15);
    // A folder with something in it is left alone.
    let again = archive.extract(&target, |_| true, &cancel, &mut |_| {}).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let one = folder.path().join("one");
    archive.extract(&one, |part| part.path.ends_with("main.db"), &cancel, &mut |_| {}).unwrap();
    assert!(one.join("stores/sql/_native/main.db").is_file() && !one.join("files").exists());
}

#[cfg(unix)]
#[test]
fn entries_become_files_with_their_mode_and_time_and_links_are_not_followed() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::from_source(sample(Codec::Gzip, 2000)).unwrap();
    archive.extract(folder.path(), |_| true, &Cancel::new(), &mut |_| {}).unwrap();
    let root = folder.path().join("files/up/root");
    let facts = std::fs::metadata(root.join("big")).unwrap();
    assert_eq!(facts.permissions().mode() & 0o777, 0o640);
    assert_eq!((facts.mtime(), facts.mtime_nsec()), (1_700_000_000, 5));
    assert_eq!(std::fs::read_link(root.join("link")).unwrap().to_str(), Some("../x"));
}

#[test]
fn damage_removes_the_file_that_it_is_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = sample(Codec::Gzip, 9 << 20);
    let archive = Archive::from_source(bytes.clone()).unwrap();
    let blob = archive.entries().find(|p| p.as_ref().unwrap().path.contains("main.db"));
    let blob = blob.unwrap().unwrap();
    // Noise is stored, so offsets in file and tar go along: this is late in the blob.
    bytes[(blob.offset + blob.size) as usize - 100_000] ^= 1;
    let archive = Archive::from_source(bytes).unwrap();
    let error = archive.extract(folder.path(), |_| true, &Cancel::new(), &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.subject().unwrap().contains("main.db"), "{error}");
    assert!(!folder.path().join("stores/sql/_native/main.db").exists());
}
