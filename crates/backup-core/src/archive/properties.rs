//! What holds for an archive of any parts.

use std::{collections::BTreeMap, io::Read as _};

use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    plain::{Entry, Lines, Plain, archive, streamed},
    tests::{codecs, noise},
    *,
};
use crate::{Cancel, EntryPath, record::properties};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        select(vec!["a", "", ".", "..", "_native", "a/b", "a.b", "%2E", "present"])
            .prop_map(String::from),
        Just("é".repeat(150)),
    ]
}

/// Mostly little; now and then more than a part's border, or a segment's.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => vec(any::<u8>(), 0..40),
        4 => (vec(any::<u8>(), 1..9), 0..700_usize).prop_map(|(unit, times)| unit.repeat(times)),
        1 => (any::<u64>(), select(vec![1 << 20, (4 << 20) - 512, 5 << 20]))
            .prop_map(|(seed, len)| noise(len, seed)),
    ]
}

fn path() -> impl Strategy<Value = Option<EntryPath>> {
    // Few different names, so that paths meet; some that are no text, some that are long.
    let name = prop_oneof![
        4 => select(vec![&b"a"[..], b"b", b"a b", b"\xff\n", b"%41", b"...", b"A"])
            .prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 1..5),
        1 => (any::<u8>(), 90..260_usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    vec(name, 1..5).prop_map(|names| EntryPath::new(names.join(&b'/')).ok())
}

fn schema_and_batches(collection: String) -> impl Strategy<Value = Vec<Plain>> {
    let batches = vec((name(), properties::batch_of(collection.clone())), 0..3);
    (properties::value(), batches).prop_map(move |(document, batches)| {
        let schema = Plain::Schema { collection: collection.clone(), document };
        let batches = batches
            .into_iter()
            .map(|(partition, batch)| Plain::Records { partition, batch: Lines(batch) });
        std::iter::once(schema).chain(batches).collect()
    })
}

fn blob(name: String) -> impl Strategy<Value = Plain> {
    let borders = vec(any::<prop::sample::Index>(), 0..5);
    let metadata = prop::collection::btree_map(any::<String>(), properties::value(), 0..2);
    (content(), borders, metadata).prop_map(move |(content, borders, metadata)| {
        let mut at: Vec<_> = borders.iter().map(|i| i.index(content.len() + 1) as u64).collect();
        at.sort_unstable();
        at.dedup();
        let masked = at.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Plain::Blob { name: name.clone(), masked, metadata, content }
    })
}

fn tree(root: String) -> impl Strategy<Value = Vec<Plain>> {
    let head = prop_oneof![
        Just(EntryHead::File),
        Just(EntryHead::Directory),
        vec(any::<u8>(), 0..130).prop_map(EntryHead::Symlink),
    ];
    let modified = (any::<i64>(), 0..1_000_000_000_u32);
    vec((path(), head, 0..=0o777_u32, modified, content()), 0..8).prop_map(move |entries| {
        let mut tree = BTreeMap::<EntryPath, Entry>::new();
        for (path, head, mode, modified, content) in entries {
            let Some(path) = path else { continue };
            let folder = |above: &EntryPath| {
                tree.get(above).is_none_or(|entry| entry.head == EntryHead::Directory)
            };
            let below = |other: &EntryPath| other.ancestors().any(|above| above == path);
            if path.ancestors().any(|above| !folder(&above)) || tree.keys().any(below) {
                continue;
            }
            let content = if head == EntryHead::File { content } else { Vec::new() };
            let entry =
                Entry { root: root.clone(), path: path.clone(), mode, modified, head, content };
            tree.insert(path, entry);
        }
        tree.into_values().map(Plain::Entry).collect()
    })
}

fn store() -> impl Strategy<Value = Vec<Plain>> {
    let names = || prop::collection::btree_set(name(), 0..3);
    (names(), names(), names()).prop_flat_map(|(collections, blobs, roots)| {
        let collections: Vec<_> = collections.into_iter().map(schema_and_batches).collect();
        let blobs: Vec<_> = blobs.into_iter().map(blob).collect();
        let roots: Vec<_> = roots.into_iter().map(tree).collect();
        (collections, blobs, roots)
            .prop_map(|(records, blobs, trees)| [records.concat(), blobs, trees.concat()].concat())
    })
}

/// Path and content of every file, by any reader of tar.
fn untarred(bytes: &[u8], codec: Codec) -> Vec<(String, Vec<u8>)> {
    let mut tar = Vec::new();
    match codec {
        Codec::Gzip => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut tar).unwrap()),
        Codec::None => tar.extend_from_slice(bytes),
        #[cfg(feature = "zstd")]
        Codec::Zstd => tar = zstd::decode_all(bytes).unwrap(),
        #[cfg(not(feature = "zstd"))]
        Codec::Zstd => unreachable!("this build has none"),
    }
    let mut files = Vec::new();
    for file in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut file = file.unwrap();
        let path = String::from_utf8(file.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        files.push((path.strip_suffix('/').unwrap_or(&path).to_owned(), content));
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_archive_of_any_parts_reads_back(
        stores in prop::collection::btree_map(name(), store(), 0..3),
        config in prop::collection::btree_map(name(), properties::value(), 0..3),
        codec in select(codecs()),
    ) {
        let bytes = archive(&stores, &config, codec);
        let read = Archive::from_source(bytes.clone()).unwrap();
        read.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {}).unwrap();
        for (name, value) in &config {
            prop_assert_eq!(&read.config(name).unwrap(), value);
        }
        let mut written = stores.clone();
        for part in written.values_mut().flatten() {
            if let Plain::Records { partition, .. } = part {
                partition.clear();
            }
        }
        prop_assert!(streamed(&read) == written, "{:?}", stores);

        let mut files = untarred(&bytes, codec);
        prop_assert_eq!(files.pop().unwrap().0, "manifest.json");
        files.retain(|(path, _)| !path.starts_with("index/"));
        let parts = read.entries().map(|part| {
            let part = part.unwrap();
            let content = read.read(&part).unwrap().to_vec();
            (part.path, content)
        });
        prop_assert!(files == parts.collect::<Vec<_>>(), "{:?}", stores);
        let mut paths: Vec<_> = files.iter().map(|(path, _)| path).collect();
        paths.sort_unstable();
        paths.dedup();
        prop_assert_eq!(paths.len(), files.len());
    }
}
