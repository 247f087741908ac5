//! Makes the archives of `fixtures/archives/v1`. Those that are there are never made again:
//! readers of every later version have to open them as they are.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use super::{
    forgery,
    limits::{MIB, bomb},
    plain::{Plain, Stores, archive, archive_with, every_kind},
    tests::noise,
    trailer::Trailer,
    *,
};
use crate::{
    Cancel, EntryFacts, EntryPath, FileEntry, Metadata, Notice, NoticeKind, Result,
    manifest::{Consistency, Manifest, ReferenceCount, ReferenceEnd, StoreNotice, SystemInfo},
    record::Sha256Digest,
};

fn golden() -> Vec<(String, Vec<u8>)> {
    let (mut stores, config) = every_kind();
    let mut all = Vec::new();
    for (codec, ending) in [(Codec::Gzip, "tar.gz"), (Codec::Zstd, "tar.zst"), (Codec::None, "tar")]
    {
        all.push((format!("every-kind.{ending}"), archive(&stores, &config, codec)));
    }
    all.push(("empty.tar.gz".into(), archive(&Stores::new(), &Metadata::new(), Codec::Gzip)));
    all.push(("partial.tar.gz".into(), archive_with(&stores, &config, Codec::Gzip, partial)));
    all.push(("selected.tar.gz".into(), archive_with(&stores, &config, Codec::Gzip, selected)));
    let blob = |content: Vec<u8>| Plain::Blob {
        name: "image".into(),
        masked: Vec::new(),
        metadata: [("note".to_owned(), json!([1, 1.5, null]))].into(),
        content,
    };
    stores.insert("sql".into(), vec![blob(noise(8_000, 3))]);
    all.push(("stored.tar.gz".into(), archive(&stores, &config, Codec::Gzip)));
    stores.insert("sql".into(), vec![blob(vec![7; 5 << 20])]);
    all.push(("segments.tar.gz".into(), archive(&stores, &config, Codec::Gzip)));
    stores.insert("sql".into(), vec![blob(vec![7; 70 << 20])]);
    all.push(("pages.tar.zst".into(), archive(&stores, &config, Codec::Zstd)));
    all
}

// Everything that a manifest may say, members that no version knows, and files that changed
// while they were read.
fn partial(writer: &mut ArchiveWriter<Vec<u8>>, manifest: &mut Manifest) {
    let torn = manifest.stores.entry("torn".into()).or_default();
    let tally = &mut torn.collections.entry("root".into()).or_default().tally;
    for (name, read, content) in [("grew", &b"12345"[..], b"123"), ("shrank", b"1", b"1\0\0")] {
        let path = EntryPath::new(name).unwrap();
        let facts = EntryFacts::File { len: 3, sha256: &Sha256Digest::of(content) };
        tally.add_line(&FileEntry::line(&path, 0o600, (-1, 5), facts));
        writer.begin_entry("torn", "root", &path, 0o600, (-1, 5), EntryHead::File, 3).unwrap();
        writer.data(read).unwrap();
        writer.end().unwrap();
    }
    manifest.partial = true;
    manifest.consistency = Consistency::PerStore;
    manifest.description = Some("before the move".into());
    manifest.data_schema_version = Some("7".into());
    manifest.system = Some(SystemInfo { os: "linux".into(), arch: "x86_64".into() });
    let notice = |kind, subject: &str| StoreNotice {
        store: "up".into(),
        notice: Notice {
            kind,
            collection: "root".into(),
            subject: subject.into(),
            detail: "it was open elsewhere".into(),
        },
    };
    manifest.notices =
        vec![notice(NoticeKind::Vanished, "gone"), notice(NoticeKind::Unreadable, "secret")];
    manifest.notice_count = 2;
    manifest.statistics = [("documents".to_owned(), 3)].into();
    manifest.metadata = [("host".to_owned(), json!({"n": 1e22, "s": "\u{1}é"}))].into();
    manifest.extra = [("later".to_owned(), json!({"unknown": true}))].into();
}

// An archive of some records, with what was counted of references, and all that a collection may say.
fn selected(_: &mut ArchiveWriter<Vec<u8>>, manifest: &mut Manifest) {
    manifest.selection =
        vec!["store in [sql, up, v]".into(), "v/notes: project=\"a b\" and not tag=x".into()];
    let notes = manifest.stores.get_mut("v").unwrap().collections.get_mut("notes").unwrap();
    notes.selected_from = Some(1_000_000);
    notes.statistics = [("entities".to_owned(), 2)].into();
    notes.info.key = vec!["/id".into(), "/part".into()];
    notes.info.model = Some("m-small".into());
    notes.info.fields.project = Some("/project".into());
    notes.info.fields.tags = Some("/tags".into());
    notes.info.metadata = [("shards".to_owned(), json!(2))].into();
    let (from, to) = (ReferenceEnd::field("v", "notes", "/file"), ReferenceEnd::key("up", "root"));
    let mut counted = ReferenceCount::new(&from, &to);
    (counted.required, counted.values, counted.dangling) = (true, 3, Some(1));
    counted.examples = vec!["\"gone.txt\"".into()];
    let mut unchecked = ReferenceCount::new(&to, &from);
    unchecked.unchecked = Some("only some records were taken".into());
    manifest.references = vec![counted, unchecked];
}

fn damaged() -> Vec<(String, Vec<u8>)> {
    let forged = [
        ("header", forgery::headers()),
        ("extension", forgery::extensions()),
        ("index", forgery::indexes()),
        ("both", forgery::agreements()),
        ("segment", forgery::segments()),
    ];
    let name = |group: &str, what: &str| {
        let what = what.trim_start_matches("a ").trim_start_matches("an ");
        format!("{group}-{}.tar.gz", what.replace([' ', '.'], "-").to_lowercase())
    };
    let mut all: Vec<_> = forged
        .into_iter()
        .flat_map(|(group, cases)| {
            cases.into_iter().map(move |(what, bytes)| (name(group, what), bytes))
        })
        .collect();
    for (what, bytes) in file_damage() {
        all.push((name("file", what), bytes));
    }
    for (what, claimed) in [("root larger than it claims", 1024), ("root of zeros", 64 * MIB)] {
        all.push((name("bomb", what), bomb(64 * MIB, claimed)));
    }
    all
}

// What happens to files, and trailers that a forger or a later version writes.
fn file_damage() -> Vec<forgery::Case> {
    let (stores, config) = every_kind();
    let whole = archive(&stores, &config, Codec::Gzip);
    let opened = Archive::from_source(whole.clone()).unwrap();
    let page = opened.manifest().index.pages[0].clone();
    let (page, root) = (page.offset as usize, (page.offset + page.size) as usize);
    let flip = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        bytes
    };
    // From the trailer's end: its record, and what wraps it.
    let record = whole.len() - Trailer::len(Codec::Gzip) as usize + 16;
    let trailer = |at: usize, value: u64| {
        let mut bytes = whole.clone();
        let old = &mut bytes[record + at..][..8];
        let kept =
            if at == 8 { u64::from_le_bytes(old.try_into().unwrap()) & !0xffff_ffff } else { 0 };
        old.copy_from_slice(&(kept | value).to_le_bytes());
        let hash = Sha256Digest::of(&bytes[record..record + 128]);
        bytes[record + 128..][..32].copy_from_slice(hash.as_bytes());
        bytes
    };
    let inner = whole.clone();
    vec![
        ("a cut in a segment", whole[..page / 2].to_vec()),
        ("a cut before the root", whole[..root].to_vec()),
        ("a cut before the trailer", whole[..record - 16].to_vec()),
        ("a cut of the last byte", whole[..whole.len() - 1].to_vec()),
        ("a flip in the head", flip(4)),
        ("a flip in a segment", flip(page / 3)),
        ("a flip in a page", flip(page + 20)),
        ("a flip in the root", flip(root + 20)),
        ("a flip in the CRC-32", flip(record - 16 - 8)),
        ("a flip in the trailer", flip(record + 50)),
        ("a byte after the end", [&whole[..], b"\0"].concat()),
        ("another archive after the end", [&whole[..], &inner].concat()),
        ("a newer format", trailer(8, 2)),
        ("an unknown feature", trailer(16, 1)),
        ("a root beyond the end", trailer(48, 1 << 40)),
        ("a root that overflows", trailer(48, u64::MAX)),
        ("nothing", Vec::new()),
    ]
}

/// What a reader of today finds in an archive.
fn verdict(bytes: &[u8]) -> Value {
    let whole = Archive::from_source(bytes.to_vec()).and_then(|archive| {
        let report = archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {})?;
        let parts = archive.entries().map(|part| {
            let part = part?;
            Ok((part.path.clone(), Sha256Digest::of(&archive.read(&part)?).to_string()))
        });
        let parts = parts.collect::<Result<BTreeMap<_, _>>>()?;
        Ok(json!({"records": report.records, "parts": parts}))
    });
    let mut verdict = whole.unwrap_or_else(|error| {
        let salvage = Salvage::from_source(bytes.to_vec());
        let report = salvage.and_then(|s| s.parts(&Cancel::new(), &mut |_, _| Ok(())));
        json!({"error": error.kind().as_str(), "salvaged": report.map_or(0, |r| r.whole)})
    });
    verdict["sha256"] = Sha256Digest::of(bytes).to_string().into();
    verdict
}

#[test]
#[ignore = "adds new archives to fixtures/, by hand"]
fn add() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/archives/v1");
    let list = folder.join("expected.json");
    let known = fs::read(&list).unwrap_or_else(|_| b"{}".to_vec());
    let mut known: BTreeMap<String, Value> = serde_json::from_slice(&known).unwrap();
    for (kind, archives) in [("golden", golden()), ("damaged", damaged())] {
        fs::create_dir_all(folder.join(kind)).unwrap();
        for (name, bytes) in archives {
            let name = format!("{kind}/{name}");
            known.entry(name).or_insert_with_key(|name| {
                fs::write(folder.join(name), &bytes).unwrap();
                verdict(&bytes)
            });
        }
    }
    let mut text = serde_json::to_string_pretty(&known).unwrap();
    text.push('\n');
    fs::write(list, text).unwrap();
}
