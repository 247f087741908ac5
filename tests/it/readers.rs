//! Stock readers open an archive whole: every file, every byte.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use backup_kit::{
    ArchiveId, EntryPath, Metadata, Schema, Timestamp,
    archive::{Archive, ArchiveWriter, Codec, EntryHead, PartKind, WriterOptions},
    manifest::{Application, CollectionInfo, Manifest, Preamble},
    record::{BatchBuilder, ElementType, Key, RecordBatch, Sha256Digest},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::tools::{available, python, run};

/// Path in the tar, as bytes, and hash.
type Files = BTreeMap<Vec<u8>, Sha256Digest>;

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/data")
}

fn passages() -> RecordBatch {
    let points = fs::read_to_string(sample().join("points.jsonl")).unwrap();
    let vectors = fs::read(sample().join("vectors.npy")).unwrap();
    let mut builder = BatchBuilder::new("passages");
    let text = builder.dense("text", ElementType::F32, 384);
    for (line, row) in points.lines().zip(vectors[128..].chunks_exact(384 * 4)) {
        let point: Value = serde_json::from_str(line).unwrap();
        let key = Key::from(point["id"].as_str().unwrap());
        builder.push(&key, |json| json.value(&point["payload"])).unwrap();
        let row: Vec<f32> =
            row.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        builder.set_f32(text, &row).unwrap();
    }
    builder.finish().unwrap()
}

// What hardly compresses, so that stored blocks are met too.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Records with vectors, a blob that reaches over an index page, small and odd files.
fn write(path: &Path, codec: Codec) {
    let app = Application { name: "docs-memory".into(), version: "1.4.0".into() };
    let preamble = Preamble::new(ArchiveId::random(), Timestamp::now(), app);
    let mut options = WriterOptions::default();
    options.codec = codec;
    let out = File::create_new(path).unwrap();
    let mut writer = ArchiveWriter::new(out, &preamble, &options).unwrap();
    let schema = Schema {
        collection: "passages".into(),
        document: serde_json::json!({}),
        info: CollectionInfo::default(),
    };
    writer.schema("vectors", &schema).unwrap();
    writer.records("vectors", "all", &passages()).unwrap();
    let blob = noise(70 << 20);
    writer.begin_blob("state", "main.db", blob.len() as u64, &[], &Metadata::new()).unwrap();
    writer.data(&blob).unwrap();
    writer.end().unwrap();
    let mut entry = |path: &str, head: EntryHead, content: &[u8]| {
        let path = EntryPath::new(path).unwrap();
        let (modified, len) = ((1_767_323_045, 0), content.len() as u64);
        writer.begin_entry("uploads", "root", &path, 0o644, modified, head, len).unwrap();
        writer.data(content).unwrap();
        writer.end().unwrap();
    };
    entry("empty folder", EntryHead::Directory, b"");
    entry("link", EntryHead::Symlink(b"small/0007.md".to_vec()), b"");
    entry("long/".repeat(50).trim_end_matches('/'), EntryHead::File, b"a path of 249 bytes");
    entry("new\nline and \u{e9}", EntryHead::File, b"an odd name");
    entry("small", EntryHead::Directory, b"");
    for number in 0..1000 {
        let text = format!("# Note {number}\n").repeat(number % 40);
        entry(&format!("small/{number:04}.md"), EntryHead::File, text.as_bytes());
    }
    writer.config("host", &serde_json::json!({"model": "all-MiniLM-L6-v2"})).unwrap();
    writer.finish(Manifest::new(&preamble, codec)).unwrap();
}

pub(crate) struct Sample {
    _folder: TempDir,
    pub(crate) path: PathBuf,
    files: Files,
}

fn make(codec: Codec) -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("a{}", codec.extension()));
    write(&path, codec);
    let archive = Archive::open(&path).unwrap();
    assert!(archive.manifest().index.pages.len() > 1, "more than one index page");
    let mut files = Files::new();
    for part in archive.entries() {
        let part = part.unwrap();
        let is_file = match &part.kind {
            PartKind::Entry { entry, .. } => matches!(entry, EntryHead::File),
            _ => true,
        };
        if is_file {
            let content = archive.read(&part).unwrap();
            files.insert(part.path.into_bytes(), Sha256Digest::of(&content));
        }
    }
    assert!(files.len() > 1000);
    Sample { _folder: folder, path, files }
}

pub(crate) static GZIP: LazyLock<Sample> = LazyLock::new(|| make(Codec::Gzip));

// The archive's own index and root stand in no index.
fn is_own(path: &[u8]) -> bool {
    path.starts_with(b"index/") || path == b"manifest.json"
}

fn compare(expected: &Files, found: &Files, reader: &str) {
    let own: Vec<_> = found.keys().filter(|path| is_own(path)).collect();
    assert!(own.len() >= 3, "{reader} stopped early: {own:?}");
    let found: Vec<_> = found.iter().filter(|(path, _)| !is_own(path)).collect();
    assert_eq!(found.len(), expected.len(), "{reader}");
    assert!(found.into_iter().eq(expected), "{reader} read something else");
}

fn walk(folder: &Path) -> Files {
    fn into(files: &mut Files, root: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                into(files, root, &entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
                files.insert(name, Sha256Digest::of(&fs::read(&path).unwrap()));
            }
        }
    }
    let mut files = Files::new();
    into(&mut files, folder, folder);
    files
}

/// Unpacks with a shell command, in which `$1` is the archive, and compares what is there.
fn unpacks(sample: &Sample, needs: &[&str], script: &str) {
    if !needs.iter().all(|program| available(program)) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-ec", &format!("set -o pipefail; {script}"), "bash"]).arg(&sample.path);
    shell.current_dir(folder.path()).env("LC_ALL", "C.UTF-8");
    run(&mut shell);
    compare(&sample.files, &walk(folder.path()), script);
    let link = fs::read_link(folder.path().join("files/uploads/root/link")).unwrap();
    assert_eq!(link, Path::new("small/0007.md"), "{script}");
    assert!(folder.path().join("files/uploads/root/empty folder").is_dir(), "{script}");
}

#[test]
fn gnu_tar_and_sha256sum() {
    let check = "tar xzf \"$1\"; sha256sum --quiet --strict -c checksums.sha256";
    unpacks(&GZIP, &["tar", "sha256sum"], check);
}

#[test]
fn gnu_tar_from_a_pipe() {
    unpacks(&GZIP, &["tar", "gzip"], "gzip -dc < \"$1\" | tar xf -");
}

#[test]
fn bsdtar() {
    unpacks(&GZIP, &["bsdtar"], "bsdtar -xf \"$1\"");
}

#[test]
fn pigz() {
    unpacks(&GZIP, &["pigz", "tar"], "pigz -t \"$1\"; pigz -dc \"$1\" | tar xf -");
}

#[test]
fn python_by_seeking() {
    let script = "import sys, tarfile; tarfile.open(sys.argv[1], 'r:gz').extractall()";
    unpack_with_python(script);
}

#[test]
fn python_as_a_stream() {
    let script = "import sys, tarfile; tarfile.open(sys.argv[1], 'r|gz').extractall()";
    unpack_with_python(script);
}

fn unpack_with_python(script: &str) {
    if let Some(python) = available("numpy").then(|| python("numpy")).flatten() {
        unpacks(&GZIP, &[], &format!("{python} -W ignore -c \"{script}\" \"$1\""));
    }
}

fn read_tar(stream: impl Read) -> Files {
    let mut files = Files::new();
    for entry in tar::Archive::new(stream).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path_bytes().into_owned();
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(path, Sha256Digest::of(&content));
        }
    }
    files
}

#[test]
fn a_plain_gzip_decoder() {
    // Stops after the first member, without a word.
    let mut stream = flate2::read::GzDecoder::new(File::open(&GZIP.path).unwrap());
    compare(&GZIP.files, &read_tar(&mut stream), "GzDecoder");
    // To the member's end, so that its CRC-32 is compared.
    io::copy(&mut stream, &mut io::sink()).unwrap();
}

#[test]
fn a_gzip_decoder_of_all_members() {
    let mut stream = flate2::read::MultiGzDecoder::new(File::open(&GZIP.path).unwrap());
    compare(&GZIP.files, &read_tar(&mut stream), "MultiGzDecoder");
    io::copy(&mut stream, &mut io::sink()).unwrap();
}

#[test]
fn no_codec_at_all() {
    unpacks(&make(Codec::None), &["tar"], "tar xf \"$1\"");
}

#[cfg(feature = "zstd")]
#[test]
fn zstd() {
    let sample = make(Codec::Zstd);
    unpacks(&sample, &["tar", "zstd"], "zstd -qt \"$1\"; tar xf \"$1\" --zstd");
    unpacks(&sample, &["bsdtar"], "bsdtar -xf \"$1\"");
}

#[test]
fn numpy_reads_the_vectors_beside_their_rows() {
    let Some(python) = available("numpy").then(|| python("numpy")).flatten() else { return };
    let script = "
import io, json, sys, tarfile, numpy
tar = tarfile.open(sys.argv[1])
rows, vectors = [], []
for name in sorted(tar.getnames()):
    if name.startswith('stores/vectors/passages/') and name.endswith('.jsonl'):
        batch = [json.loads(line) for line in tar.extractfile(name)]
        array = numpy.load(io.BytesIO(tar.extractfile(name[:-6] + '.text.npy').read()))
        assert array.dtype == numpy.dtype('<f4') and array.shape == (len(batch), 384), array.shape
        rows += batch
        vectors.append(array)
source = [json.loads(line) for line in open(sys.argv[2] + '/points.jsonl')]
assert [row['key'] for row in rows] == [point['id'] for point in source]
assert [row['value'] for row in rows] == [point['payload'] for point in source]
expected = numpy.load(sys.argv[2] + '/vectors.npy')
assert (numpy.concatenate(vectors) == expected).all()
print(len(rows))
";
    let output = run(Command::new(python).args(["-c", script]).arg(&GZIP.path).arg(sample()));
    assert_eq!(output.stdout, b"974\n");
}
