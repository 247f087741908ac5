//! Parts as values, and an archive of them.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};
use backup_core::{
    ArchiveId, BlobContent, EntryFacts, EntryPath, FileEntry, Metadata, Schema, Timestamp,
    archive::{ArchiveWriter, Codec, EntryHead, WriterOptions},
    manifest::{
        Application, CollectionInfo, CollectionManifest, Manifest, Preamble, StoreManifest,
    },
    record::{BatchBuilder, ElementType, Key, RecordBatch},
};
use serde_json::Value;

/// What a store gives.
#[derive(Debug)]
pub(crate) enum Item {
    Schema { collection: String, document: Value },
    Batch { partition: String, batch: RecordBatch },
    Blob { name: String, content: Vec<u8>, masked: Vec<(u64, u64)>, metadata: Metadata },
    Entry(Entry),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) root: String,
    pub(crate) path: EntryPath,
    pub(crate) mode: u32,
    pub(crate) modified: (i64, u32),
    pub(crate) head: EntryHead,
    pub(crate) content: Vec<u8>,
}

/// The parts of a backup, in the order of the archive.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) items: Vec<(String, Item)>,
    pub(crate) config: BTreeMap<String, Value>,
}

pub(crate) const CODECS: [Codec; 3] = [Codec::Gzip, Codec::Zstd, Codec::None];
pub(crate) const ID: ArchiveId = ArchiveId::from_bytes([7; 16]);
pub(crate) const CREATED: Timestamp = Timestamp::from_micros(1_735_689_600_000_000);

/// An archive of `parts` whose manifest is right.
pub(crate) fn archive(parts: &Parts, codec: Codec) -> Vec<u8> {
    let app = Application { name: "fuzz".into(), version: "1.0.0".into() };
    let preamble = Preamble::new(ID, CREATED, app);
    let mut options = WriterOptions::default();
    (options.codec, options.threads) = (codec, Some(1));
    let mut writer = ArchiveWriter::new(Vec::new(), &preamble, &options).unwrap();
    let mut manifest = Manifest::new(&preamble, codec);
    for (store, item) in &parts.items {
        let facts = manifest.stores.entry(store.clone()).or_insert_with(|| {
            let mut facts = StoreManifest::default();
            facts.kind = "fuzz".into();
            facts
        });
        write(&mut writer, store, item, facts);
    }
    for (name, value) in &parts.config {
        writer.config(name, value).unwrap();
    }
    writer.finish(manifest).unwrap().out
}

fn write(writer: &mut ArchiveWriter<Vec<u8>>, store: &str, item: &Item, facts: &mut StoreManifest) {
    fn collection<'a>(facts: &'a mut StoreManifest, name: &str) -> &'a mut CollectionManifest {
        facts.collections.entry(name.into()).or_default()
    }
    match item {
        Item::Schema { collection: name, document } => {
            let info = CollectionInfo::default();
            let schema = Schema { collection: name.clone(), document: document.clone(), info };
            writer.schema(store, &schema).unwrap();
            collection(facts, name);
        }
        Item::Batch { partition, batch } => {
            writer.records(store, partition, batch).unwrap();
            collection(facts, batch.collection()).tally.add_batch(batch);
        }
        Item::Blob { name, content, masked, metadata } => {
            let ranges: Vec<_> = masked.iter().map(|(start, end)| *start..*end).collect();
            let len = content.len() as u64;
            writer.begin_blob(store, name, len, &ranges, metadata).unwrap();
            writer.data(content).unwrap();
            let digest = writer.end().unwrap().masked_sha256;
            let blob = BlobContent { len, digest, masked: masked.clone() };
            facts.blobs.insert(name.clone(), blob);
        }
        Item::Entry(Entry { root, path, mode, modified, head, content }) => {
            let len = content.len() as u64;
            writer.begin_entry(store, root, path, *mode, *modified, head.clone(), len).unwrap();
            writer.data(content).unwrap();
            let sha256 = writer.end().unwrap().sha256;
            let entry = match head {
                EntryHead::Directory => EntryFacts::Directory,
                EntryHead::Symlink(target) => EntryFacts::Symlink { target },
                _ => EntryFacts::File { len, sha256: &sha256 },
            };
            let line = FileEntry::line(path, *mode, *modified, entry);
            collection(facts, root).tally.add_line(&line);
        }
    }
}

/// One of every kind.
pub(crate) fn sample() -> Parts {
    let mut batch = BatchBuilder::new("notes");
    let dense = batch.dense("text", ElementType::F32, 2);
    let multi = batch.multi("pages", ElementType::F16, 2);
    let sparse = batch.sparse("words", ElementType::U8);
    for key in 0..4 {
        batch.push_json(&Key::from(key), br#"{"title":"note"}"#).unwrap();
        if key != 2 {
            batch.set_f32(dense, &[1.0, 0.5]).unwrap();
            batch.set(multi, &[1; 8]).unwrap();
            batch.set_sparse(sparse, &[3, 9], b"ab").unwrap();
        }
    }
    let entry = |path: &[u8], head, content: &[u8]| {
        let path = EntryPath::new(path).unwrap();
        let (root, content) = ("root".into(), content.to_vec());
        let modified = (1_700_000_000, 5);
        ("up".into(), Item::Entry(Entry { root, path, mode: 0o640, modified, head, content }))
    };
    let (collection, document) = ("notes".into(), serde_json::json!({"dim": 2}));
    let (name, content) = ("main.db".into(), b"SQLite format 3".repeat(20));
    let (masked, metadata) = (vec![(18, 20), (24, 28)], Metadata::default());
    let items = vec![
        ("v".into(), Item::Schema { collection, document }),
        ("v".into(), Item::Batch { partition: "all".into(), batch: batch.finish().unwrap() }),
        ("sql".into(), Item::Blob { name, content, masked, metadata }),
        entry(b"a", EntryHead::Directory, b""),
        entry(b"a/\xff\n", EntryHead::File, b"odd"),
        entry(&[b'd'; 120], EntryHead::File, b"long"),
        entry(b"link", EntryHead::Symlink(b"../x".to_vec()), b""),
    ];
    let config = [("app".into(), serde_json::json!({"model": "m"}))];
    Parts { items, config: config.into() }
}

// Below: parts that the fuzzer chooses. Their order is right by construction.

fn name(u: &mut Unstructured<'_>) -> Result<String> {
    const NAMES: [&str; 6] = ["a", "", "..", "_native", "a/b", "%2E"];
    Ok(if u.arbitrary()? { (*u.choose(&NAMES)?).into() } else { u.arbitrary()? })
}

fn bytes(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    // Long content takes one number, so that borders of blocks and segments are reached.
    let (unit, times): (Vec<u8>, u16) = u.arbitrary()?;
    let times = if u.ratio(1, 8)? { times } else { 1 };
    let most = if times == 4711 { 5 << 20 } else { (1 << 20) + 512 };
    Ok(unit.iter().copied().cycle().take((unit.len() * usize::from(times)).min(most)).collect())
}

fn value(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match u.int_in_range(0..=if depth == 0 { 5 } else { 7 })? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => u.arbitrary::<i64>()?.into(),
        3 => u.arbitrary::<u64>()?.into(),
        4 => u.arbitrary::<f64>()?.into(),
        5 => u.arbitrary::<String>()?.into(),
        6 => (0..u.int_in_range(0..=3)?).map(|_| value(u, depth - 1)).collect::<Result<_>>()?,
        _ => Value::Object(
            (0..u.int_in_range(0..=3)?)
                .map(|_| Ok((u.arbitrary()?, value(u, depth - 1)?)))
                .collect::<Result<_>>()?,
        ),
    })
}

fn key(u: &mut Unstructured<'_>) -> Result<Key> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Key::from(u.arbitrary::<i64>()?),
        1 => Key::from(u.arbitrary::<u64>()?),
        2 => Key::from(u.arbitrary::<&str>()?),
        3 => Key::bytes(u.arbitrary()?),
        4 => Key::float(u.arbitrary()?),
        _ => Key::composite([Key::null(), Key::from(u.arbitrary::<&str>()?)]),
    })
}

fn batch(u: &mut Unstructured<'_>, collection: &str) -> Result<RecordBatch> {
    let mut batch = BatchBuilder::new(collection);
    let mut columns = Vec::new();
    let names: std::collections::BTreeSet<String> =
        (0..u.int_in_range(0..=3)?).map(|_| name(u)).collect::<Result<_>>()?;
    for name in names {
        let element = *u.choose(&[ElementType::F32, ElementType::F16, ElementType::U8])?;
        let dim = u.int_in_range(1..=4)?;
        columns.push(match u.int_in_range(0..=2)? {
            0 => (0, batch.dense(name, element, dim), dim * element.size()),
            1 => (1, batch.multi(name, element, dim), dim * element.size()),
            _ => (2, batch.sparse(name, element), element.size()),
        });
    }
    for _ in 0..u.int_in_range(0..=5)? {
        let (key, record) = (key(u)?, value(u, 3)?);
        if u.arbitrary()? {
            batch.push(&key, |json| json.value(&record)).unwrap();
        } else {
            let element = Key::from(u.arbitrary::<i32>()?);
            batch.push_element(&key, &element, |json| json.value(&record)).unwrap();
        }
        for (kind, column, unit) in &columns {
            if !u.arbitrary::<bool>()? {
                continue;
            }
            let rows = if *kind == 0 { 1 } else { u.int_in_range(0..=3)? };
            let values = u.bytes(rows * unit)?;
            let places = vec![u.arbitrary()?; if *kind == 2 { rows } else { 0 }];
            batch.set_sparse(*column, &places, values).unwrap();
        }
    }
    Ok(batch.finish().unwrap())
}

fn collection(u: &mut Unstructured<'_>, store: &str, name: &str, out: &mut Parts) -> Result<()> {
    let (collection, document) = (name.to_owned(), value(u, 3)?);
    out.items.push((store.into(), Item::Schema { collection, document }));
    for _ in 0..u.int_in_range(0..=3)? {
        let (partition, batch) = (self::name(u)?, batch(u, name)?);
        out.items.push((store.into(), Item::Batch { partition, batch }));
    }
    Ok(())
}

fn blob(u: &mut Unstructured<'_>, name: String) -> Result<Item> {
    let content = bytes(u)?;
    let mut masked = Vec::new();
    let mut at = 0;
    while at < content.len() as u64 && u.ratio(1, 2)? {
        let start = u.int_in_range(at..=content.len() as u64 - 1)?;
        at = u.int_in_range(start + 1..=content.len() as u64)?;
        masked.push((start, at));
    }
    let metadata = if u.arbitrary()? { [("m".into(), value(u, 2)?)].into() } else { [].into() };
    Ok(Item::Blob { name, content, masked, metadata })
}

fn tree(u: &mut Unstructured<'_>, store: &str, root: &str, out: &mut Parts) -> Result<()> {
    let mut paths: BTreeMap<EntryPath, (EntryHead, Vec<u8>)> = BTreeMap::new();
    for _ in 0..u.int_in_range(0..=5)? {
        let mut path: Vec<u8> = u.arbitrary()?;
        if u.ratio(1, 8)? {
            path = path.repeat(40);
        }
        let Ok(path) = EntryPath::new(&path) else { continue };
        let free = |above: &EntryPath| {
            paths.get(above).is_none_or(|(head, _)| *head == EntryHead::Directory)
        };
        let parent_of_another = paths.keys().any(|p| p.ancestors().any(|above| above == path));
        if !path.ancestors().all(|above| free(&above)) || parent_of_another {
            continue;
        }
        let entry = match u.int_in_range(0..=2)? {
            0 => (EntryHead::File, bytes(u)?),
            1 => (EntryHead::Directory, Vec::new()),
            _ => (EntryHead::Symlink(u.arbitrary()?), Vec::new()),
        };
        paths.insert(path, entry);
    }
    for (path, (head, content)) in paths {
        let mode = u.arbitrary::<u32>()? & 0o777;
        let modified = (u.arbitrary()?, u.int_in_range(0..=999_999_999)?);
        let root = root.into();
        let entry = Entry { root, path, mode, modified, head, content };
        out.items.push((store.into(), Item::Entry(entry)));
    }
    Ok(())
}

impl<'a> Arbitrary<'a> for Parts {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut out = Self::default();
        let names = |u: &mut Unstructured<'a>| -> Result<std::collections::BTreeSet<String>> {
            (0..u.int_in_range(0..=2)?).map(|_| name(u)).collect()
        };
        for store in names(u)? {
            for name in names(u)? {
                collection(u, &store, &name, &mut out)?;
            }
            for name in names(u)? {
                out.items.push((store.clone(), blob(u, name)?));
            }
            for root in names(u)? {
                tree(u, &store, &root, &mut out)?;
            }
        }
        for name in names(u)? {
            out.config.insert(name, value(u, 3)?);
        }
        Ok(out)
    }
}
