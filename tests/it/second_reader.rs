//! `docs/reader.py`, which was written from FORMAT.md alone, and this library say the same of
//! every archive.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use backup_kit::{
    BackupOptions, EntryPath, MemoryStore, Stores,
    archive::{Archive, Codec, VerifyMode, WriterOptions},
    record::{BatchBuilder, ElementType, Key},
};
use futures::executor::block_on;
use serde_json::json;

use crate::{
    readers::{GZIP, noise},
    tools::{available, python},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Python with its standard library, and better one that can read zstd.
fn any_python() -> Command {
    Command::new(python("zstandard").or(python("zlib")).expect("asked for before"))
}

fn reader(arguments: &[&str], path: &Path) -> Output {
    let mut command = any_python();
    command.arg(root().join("docs/reader.py")).arg(arguments[0]).arg(path).args(&arguments[1..]);
    command.output().unwrap()
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What this library says.
fn is_whole(path: &Path) -> bool {
    let checked = Archive::open(path)
        .and_then(|archive| archive.verify(VerifyMode::Full, &Default::default(), &mut |_| ()));
    checked.is_ok()
}

/// Both say the same; whether the archive is whole.
fn agree(path: &Path) -> bool {
    let (ours, output) = (is_whole(path), reader(&["check"], path));
    let theirs = match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        // Said aloud.
        Some(3) if !available("zstandard") => return ours,
        code => panic!("{path:?}: {code:?}: {}", says(&output)),
    };
    assert!(theirs || says(&output).contains(": refused: "), "{path:?}: {}", says(&output));
    assert_eq!(ours, theirs, "{path:?}: the second reader says: {}", says(&output));
    ours
}

/// Something of every kind, with names that have to be escaped.
fn rich(folder: &Path, codec: Codec) -> PathBuf {
    let store = MemoryStore::new().with_batch_records(2);
    let name = "_odd / näme\n%";
    for key in 0..5 {
        store.insert(name, key, json!({"float": 1e22, "text": "\u{1}\"\\é😀"})).unwrap();
    }
    let mut builder = BatchBuilder::new("vectors");
    let dense = builder.dense("dense.f16", ElementType::F16, 2);
    let multi = builder.multi("multi", ElementType::U8, 2);
    let sparse = builder.sparse("sparse", ElementType::F32);
    builder.push_json(&Key::bytes(&[0, 255]), b"null").unwrap();
    builder.set(multi, &[1, 2, 3, 4]).unwrap();
    builder.set(dense, &[1, 2, 3, 4]).unwrap();
    builder.push_json(&Key::composite([Key::from("a"), Key::from(i64::MAX)]), b"[]").unwrap();
    builder.set_sparse(sparse, &[7, 90_000], &[0, 0, 0, 63, 0, 0, 128, 191]).unwrap();
    builder
        .push_element(&Key::float(1.5), &Key::from("e"), |json| json.value(&json!(-0.0)))
        .unwrap();
    builder.set(multi, &[]).unwrap();
    store.insert_batch(&builder.finish().unwrap()).unwrap();
    store.create("empty", json!({"ddl": "CREATE"}), Default::default());
    // More than one index page is for.
    store.put_blob("native.db", noise(70 << 20));
    let path = |bytes: &[u8]| EntryPath::new(bytes).unwrap();
    store.put_directory("_root", path(b"a"));
    store.put_file("_root", path(b"a/\xff\\ not UTF-8"), "text");
    store.put_file("_root", path("ä".repeat(120).as_bytes()), "a name of 240 bytes");
    store.put_file("_root", path("%".repeat(200).as_bytes()), "one that is too long when escaped");
    store.put_symlink("_root", path(b"link"), "../a//b\u{1}".repeat(20));
    store.put_symlink("_root", path(b"long"), format!("/{}/.", "%".repeat(200)));
    let stores =
        Stores::new("docs", "1.0.0").with("_memory", store).config("_host", json!({"a": 1}));
    let file = folder.join(format!("rich{}", codec.extension()));
    let mut writer = WriterOptions::default();
    writer.codec = codec;
    let options = BackupOptions::new().writer(writer);
    assert!(block_on(stores.backup_to_file(&file, &options)).unwrap().outcome.is_complete());
    file
}

#[test]
fn whole_archives_are_whole_to_both() {
    if !available("zlib") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut archives = vec![root().join("docs/tiny.tar.gz")];
    archives.extend([Codec::Gzip, Codec::None].map(|codec| rich(folder.path(), codec)));
    #[cfg(feature = "zstd")]
    archives.push(rich(folder.path(), Codec::Zstd));
    for archive in archives {
        assert!(agree(&archive), "{archive:?}");
    }
}

#[test]
fn golden_archives_are_whole_and_damaged_ones_refused_by_both() {
    if !available("zlib") {
        return;
    }
    for (folder, whole) in [("golden", true), ("damaged", false)] {
        let mut count = 0;
        for entry in fs::read_dir(root().join("fixtures/archives/v1").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(agree(&path), whole, "{path:?}");
            count += 1;
        }
        assert!(count > 5, "{folder}: {count}");
    }
}

#[test]
fn the_second_reader_finds_every_cut_and_a_changed_bit_in_every_byte() {
    if !available("zlib") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "
import sys
sys.path.insert(0, sys.argv[1] + '/docs')
sys.dont_write_bytecode = True
import reader
whole = open(sys.argv[1] + '/docs/tiny.tar.gz', 'rb').read()
def refused(data):
    open(sys.argv[2], 'wb').write(data)
    try:
        reader.Check(reader.Archive(sys.argv[2])).run()
    except reader.Damage:
        return True
assert not refused(whole)
for at in range(len(whole)):
    flipped = bytearray(whole)
    flipped[at] ^= 1 << at % 8
    assert refused(bytes(flipped)), f'bit {at % 8} of byte {at}'
    assert refused(whole[:at]), f'cut at {at}'
assert refused(whole + b'\\0')
";
    let mut command = any_python();
    command.args(["-c", script]).arg(root()).arg(folder.path().join("a.tar.gz"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", says(&output));
}

#[test]
fn the_second_reader_extracts_a_part() {
    if !available("zlib") {
        return;
    }
    let part = "files/uploads/root/small/0039.md";
    let output = reader(&["extract", part], &GZIP.path);
    assert!(output.status.success(), "{}", says(&output));
    assert_eq!(output.stdout, "# Note 39\n".repeat(39).as_bytes());
    let output = reader(&["extract", "no such part"], &GZIP.path);
    assert_eq!(output.status.code(), Some(1));
    let output = reader(&["list"], &GZIP.path);
    assert!(String::from_utf8_lossy(&output.stdout).contains(part));
}
