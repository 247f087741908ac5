//! What is written comes back, whatever it is.

use std::io::Read as _;

use arbitrary::Unstructured;
use backup_core::{
    Blob, ByteStream, Cancel, EntryKind, FileEntry, Part, Schema,
    archive::{Archive, Codec, EntryHead, VerifyMode},
};
use flate2::read::GzDecoder;
use futures::{StreamExt as _, executor::block_on};

use crate::parts::{self, CODECS, Entry, Item, Parts};

/// Writes the parts that the input says, and reads them in three ways.
pub fn round_trip(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let (Ok(codec), Ok(parts)) = (input.choose(&CODECS).copied(), input.arbitrary::<Parts>())
    else {
        return;
    };
    let bytes = parts::archive(&parts, codec);
    let archive = Archive::from_source(bytes.clone()).unwrap();
    archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {}).unwrap();
    streamed(&archive, &parts);
    for (name, value) in &parts.config {
        assert_eq!(archive.config(name).unwrap(), *value);
    }
    unpacked(&archive, codec, &bytes);
}

fn body(stream: ByteStream) -> Vec<u8> {
    block_on(stream.fold(Vec::new(), |mut all, piece| async move {
        all.extend_from_slice(&piece.unwrap());
        all
    }))
}

fn streamed(archive: &Archive, parts: &Parts) {
    let stores: Vec<_> = archive.manifest().stores.keys().cloned().collect();
    let mut stream = archive.stream(&stores, &Cancel::new()).unwrap();
    for (store, item) in &parts.items {
        let (of, part) = block_on(stream.next()).expect("a part").unwrap();
        assert_eq!(of, *store);
        compare(item, part);
    }
    assert!(block_on(stream.next()).is_none());
}

fn compare(item: &Item, part: Part) {
    match (item, part) {
        (Item::Schema { collection, document }, Part::Schema(schema)) => {
            let Schema { collection: name, document: read, .. } = schema;
            assert_eq!((&name, &read), (collection, document));
        }
        (Item::Batch { batch, .. }, Part::Records(read)) => {
            assert_eq!(read.collection(), batch.collection());
            assert_eq!(read.text(), batch.text());
            assert_eq!(read.columns(), batch.columns());
        }
        (Item::Blob { name, content, masked, metadata }, Part::Blob(blob)) => {
            let Blob { name: read, masked: ranges, metadata: facts, body: stream, .. } = blob;
            let ranges: Vec<_> = ranges.into_iter().map(|range| (range.start, range.end)).collect();
            assert_eq!((&read, &ranges, &facts), (name, masked, metadata));
            assert_eq!(body(stream), *content);
        }
        (Item::Entry(entry), Part::Entry(read)) => {
            let FileEntry { root, path, mode, modified, kind } = read;
            let facts = (&root, &path, mode, modified);
            assert_eq!(facts, (&entry.root, &entry.path, entry.mode, entry.modified));
            let (head, content) = match kind {
                EntryKind::File { body: stream, .. } => (EntryHead::File, body(stream)),
                EntryKind::Directory => (EntryHead::Directory, Vec::new()),
                EntryKind::Symlink { target } => (EntryHead::Symlink(target), Vec::new()),
            };
            let Entry { head: wanted, content: bytes, .. } = entry;
            assert_eq!((&head, &content), (wanted, bytes));
        }
        (item, part) => panic!("{item:?} came back as {part:?}"),
    }
}

/// The tar as any reader sees it has the same files.
fn unpacked(archive: &Archive, codec: Codec, bytes: &[u8]) {
    let mut tar = Vec::new();
    match codec {
        Codec::Gzip => GzDecoder::new(bytes).read_to_end(&mut tar).map(drop).unwrap(),
        Codec::Zstd => tar = zstd::decode_all(bytes).unwrap(),
        _ => tar.extend_from_slice(bytes),
    }
    let mut tar = tar::Archive::new(&tar[..]);
    let mut files = tar.entries().unwrap();
    for part in archive.entries() {
        let part = part.unwrap();
        let mut file = next_file(&mut files);
        let path = file.path_bytes().into_owned();
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        assert_eq!(String::from_utf8_lossy(path), part.path);
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, archive.read(&part).unwrap());
    }
    assert_eq!(next_file(&mut files).path_bytes(), &b"manifest.json"[..]);
    assert!(files.next().is_none());
}

type Files<'a, 'b> = tar::Entries<'a, &'b [u8]>;

fn next_file<'a, 'b>(files: &mut Files<'a, 'b>) -> tar::Entry<'a, &'b [u8]> {
    loop {
        let file = files.next().expect("a file").unwrap();
        if !file.path_bytes().starts_with(b"index/") {
            return file;
        }
    }
}
