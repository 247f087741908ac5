//! Archives that are wrong in places that the fuzzer chooses and whose hashes are right all
//! the same, so that it gets behind them.
//!
//! This seals archives from the text of `docs/FORMAT.md`, without the writer's code.

use std::{io::Write as _, sync::LazyLock};

use arbitrary::Arbitrary;
use backup_core::{
    archive::{Archive, Codec},
    record::Sha256Digest,
};
use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Value, json};

use crate::parts::{self, CODECS, CREATED, ID};

/// Replaces `cut` bytes at `at`, which wraps around, by `put`.
#[derive(Debug, Arbitrary)]
pub(crate) struct Edit {
    at: u16,
    cut: u8,
    put: Vec<u8>,
}

pub(crate) fn edit(bytes: &mut Vec<u8>, edits: &[Edit]) {
    for Edit { at, cut, put } in edits {
        let at = usize::from(*at) % (bytes.len() + 1);
        let end = (at + usize::from(*cut)).min(bytes.len());
        bytes.splice(at..end, put.iter().copied());
    }
}

/// What is changed of the sample archive before it is sealed.
#[derive(Debug, Default, Arbitrary)]
pub(crate) struct Forgery {
    codec: u8,
    /// Part numbers before which an index page stands, besides the last one.
    pages: Vec<u8>,
    /// Places in the tar where a segment ends, besides those before pages.
    cuts: Vec<u16>,
    /// Changes of the tar, before hashes of contents are taken.
    tar: Vec<Edit>,
    /// Changes of the index's lines about parts.
    lines: Vec<Edit>,
    /// Changes of whole pages: number, and what.
    texts: Vec<(u8, Edit)>,
    /// Changes of segments after their compression: number, and what.
    packed: Vec<(u8, Edit)>,
    root: Vec<Edit>,
    /// Changes of the root's places of pages: number, member, difference.
    places: Vec<(u8, u8, i64)>,
    /// Changes of the trailer's numbers: byte, difference.
    trailer: Vec<(u8, i64)>,
}

struct Sample {
    tar: Vec<u8>,
    parts: Vec<Place>,
    manifest: Value,
}

/// A part: its line in the index, where it begins, and its content.
struct Place {
    line: String,
    start: usize,
    content: std::ops::Range<usize>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let file = parts::archive(&parts::sample(), Codec::None);
    let archive = Archive::from_source(file.clone()).unwrap();
    let page = &archive.manifest().index.pages[0];
    let page = page.offset as usize..(page.offset + page.size) as usize;
    let text = String::from_utf8(file[page.clone()][512..].to_vec()).unwrap();
    let entries: Vec<_> = archive.entries().map(Result::unwrap).collect();
    // Head and segments come first.
    let lines: Vec<_> = text.trim_end_matches('\0').lines().collect();
    let lines = &lines[lines.len() - entries.len()..];
    let ends = entries.iter().skip(1).map(|e| e.offset as usize).chain([page.start]);
    let place = |((entry, line), end): ((&backup_core::archive::PartEntry, &&str), usize)| {
        let from = end - (entry.size as usize).next_multiple_of(512);
        Place {
            line: (*line).to_owned(),
            start: entry.offset as usize,
            content: from..from + entry.size as usize,
        }
    };
    let parts = entries.iter().zip(lines).zip(ends).map(place).collect();
    let manifest = serde_json::to_value(archive.manifest()).unwrap();
    Sample { tar: file[..page.start].to_vec(), parts, manifest }
});

impl Forgery {
    /// The sample archive as it is, by this sealing.
    pub(crate) fn nothing(codec: u8) -> Self {
        Self { codec, pages: vec![5, 9], cuts: vec![700, 3000], ..Self::default() }
    }

    /// The sample archive with these changes.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let mut tar = SAMPLE.tar.clone();
        edit(&mut tar, &self.tar);
        rehash(&mut tar);
        let lines: Vec<_> = SAMPLE.parts.iter().map(|part| &part.line[..]).collect();
        let mut seal = Seal::new(CODECS[usize::from(self.codec) % CODECS.len()], &self.packed);
        let mut borders: Vec<_> =
            self.pages.iter().map(|n| usize::from(*n) % lines.len()).filter(|n| *n > 0).collect();
        borders.sort_unstable();
        borders.dedup();
        borders.push(lines.len());
        let mut first = 0;
        for border in borders {
            let start = SAMPLE.parts[first].start.min(tar.len());
            let end = SAMPLE.parts.get(border).map_or(tar.len(), |part| part.start.min(tar.len()));
            for piece in self.pieces(start, end) {
                seal.segment(&tar[piece]);
            }
            let mut text = lines[first..border].join("\n").into_bytes();
            text.push(b'\n');
            edit(&mut text, &self.lines);
            seal.page(&text, &self.texts);
            first = border;
        }
        seal.root(self)
    }

    fn pieces(&self, start: usize, end: usize) -> Vec<std::ops::Range<usize>> {
        let inside =
            self.cuts.iter().map(|at| usize::from(*at)).filter(|at| (start + 1..end).contains(at));
        let mut borders: Vec<_> = [start, end].into_iter().chain(inside).collect();
        borders.sort_unstable();
        borders.dedup();
        borders.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }
}

// Contents that were changed in place get their right hashes in the list of checksums, which
// comes last.
fn rehash(tar: &mut [u8]) {
    let (checksums, parts) = SAMPLE.parts.split_last().unwrap();
    for part in parts {
        let Some(content) = tar.get(part.content.clone()) else { return };
        let new = Sha256Digest::of(content).to_string();
        let old = Sha256Digest::of(&SAMPLE.tar[part.content.clone()]).to_string();
        let Some(list) = tar.get_mut(checksums.content.clone()) else { return };
        if let Some(at) = list.windows(old.len()).position(|window| window == old.as_bytes()) {
            list[at..at + new.len()].copy_from_slice(new.as_bytes());
        }
    }
}

struct Seal<'a> {
    codec: Codec,
    packed: &'a [(u8, Edit)],
    file: Vec<u8>,
    tar_size: u64,
    crc: crc32fast::Hasher,
    count: u8,
    segments: Vec<String>,
    pages: Vec<Value>,
}

impl<'a> Seal<'a> {
    fn new(codec: Codec, packed: &'a [(u8, Edit)]) -> Self {
        let head: &[u8] = match codec {
            Codec::Gzip => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff],
            _ => &[],
        };
        let crc = crc32fast::Hasher::new();
        let (segments, pages) = (Vec::new(), Vec::new());
        Self { codec, packed, file: head.to_vec(), tar_size: 0, crc, count: 0, segments, pages }
    }

    /// Appends a segment; where it is, as the root and pages say it.
    fn append(&mut self, raw: &[u8]) -> Value {
        let mut packed = pack(self.codec, raw);
        for (number, change) in self.packed {
            if *number == self.count {
                edit(&mut packed, std::slice::from_ref(change));
            }
        }
        let place = json!({
            "offset": self.file.len(),
            "size": packed.len(),
            "tar_offset": self.tar_size,
            "tar_size": raw.len(),
            "sha256": Sha256Digest::of(&packed).to_string(),
        });
        self.count = self.count.wrapping_add(1);
        self.file.extend_from_slice(&packed);
        self.tar_size += raw.len() as u64;
        self.crc.update(raw);
        place
    }

    fn segment(&mut self, raw: &[u8]) {
        let place = self.append(raw);
        let line = json!({
            "sha256": place["sha256"],
            "size": place["size"],
            "tar_size": place["tar_size"],
        });
        self.segments.push(line.to_string());
    }

    fn page(&mut self, lines: &[u8], changes: &[(u8, Edit)]) {
        let number = self.pages.len();
        let head = json!({
            "archive": ID.to_string(),
            "number": number,
            "parts": lines.iter().filter(|b| **b == b'\n').count(),
            "previous": self.pages.last(),
            "segments": self.segments.len(),
        });
        let mut text = format!("{head}\n").into_bytes();
        for line in self.segments.drain(..) {
            writeln!(text, "{line}").unwrap();
        }
        text.extend_from_slice(lines);
        for (of, change) in changes {
            if usize::from(*of) == number {
                edit(&mut text, std::slice::from_ref(change));
            }
        }
        let place = self.append(&own(&format!("index/{number:06}.jsonl"), &text, &[]));
        self.pages.push(place);
    }

    fn root(mut self, forgery: &Forgery) -> Vec<u8> {
        let mut manifest = SAMPLE.manifest.clone();
        manifest["codec"] = serde_json::to_value(self.codec).unwrap();
        for (number, member, difference) in &forgery.places {
            const MEMBERS: [&str; 4] = ["offset", "size", "tar_offset", "tar_size"];
            let number = usize::from(*number) % self.pages.len();
            let place = &mut self.pages[number][MEMBERS[usize::from(*member) % 4]];
            *place = place.as_u64().unwrap().wrapping_add_signed(*difference).into();
        }
        manifest["index"]["pages"] = self.pages.clone().into();
        manifest["index"]["tar_size"] = self.tar_size.into();
        let mut text = format!("{manifest}\n").into_bytes();
        edit(&mut text, &forgery.root);
        let root = self.append(&own("manifest.json", &text, &[0; 1024]));
        if self.codec == Codec::Gzip {
            self.file.extend_from_slice(&[3, 0]);
            self.file.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
            self.file.extend_from_slice(&(self.tar_size as u32).to_le_bytes());
        }
        self.trailer(&root, &forgery.trailer);
        self.file
    }

    fn trailer(&mut self, root: &Value, changes: &[(u8, i64)]) {
        const GZIP: [u8; 16] =
            [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 0xa4, 0, b'B', b'K', 0xa0, 0];
        let (number, before, after): (u32, &[u8], &[u8]) = match self.codec {
            Codec::Gzip => (1, &GZIP, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Codec::Zstd => (2, &[0x50, 0x2a, 0x4d, 0x18, 0xa0, 0, 0, 0], &[]),
            _ => (0, &[], &[0; 352]),
        };
        let crc = if number == 1 { self.crc.clone().finalize() } else { 0 };
        let mut record = b"BKITEND1\x01\0\0\0".to_vec();
        record.extend_from_slice(&number.to_le_bytes());
        record.extend_from_slice(&[0; 8]);
        record.extend_from_slice(ID.as_bytes());
        record.extend_from_slice(&CREATED.as_micros().to_le_bytes());
        for member in ["offset", "size", "tar_size"] {
            record.extend_from_slice(&root[member].as_u64().unwrap().to_le_bytes());
        }
        let sha256: Sha256Digest = root["sha256"].as_str().unwrap().parse().unwrap();
        record.extend_from_slice(sha256.as_bytes());
        record.extend_from_slice(&self.tar_size.to_le_bytes());
        record.extend_from_slice(&u64::from(crc).to_le_bytes());
        let size = (self.file.len() + before.len() + 160 + after.len()) as u64;
        record.extend_from_slice(&size.to_le_bytes());
        for (at, difference) in changes {
            let at = 8 + usize::from(*at) % 113;
            let field: [u8; 8] = record[at..at + 8].try_into().unwrap();
            let changed = u64::from_le_bytes(field).wrapping_add_signed(*difference);
            record[at..at + 8].copy_from_slice(&changed.to_le_bytes());
        }
        record.extend_from_slice(Sha256Digest::of(&record).as_bytes());
        self.file.extend_from_slice(before);
        self.file.extend_from_slice(&record);
        self.file.extend_from_slice(after);
    }
}

fn pack(codec: Codec, raw: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Gzip => {
            let mut engine = Compress::new(Compression::new(4), false);
            let mut packed = Vec::with_capacity(raw.len() + raw.len() / 64 + 1024);
            engine.compress_vec(raw, &mut packed, FlushCompress::Full).unwrap();
            packed
        }
        Codec::Zstd => zstd::bulk::compress(raw, 1).unwrap(),
        _ => raw.to_vec(),
    }
}

/// A file of the archive's own.
fn own(path: &str, text: &[u8], end: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime((CREATED.as_micros() / 1_000_000) as u64);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(text.len() as u64);
    header.set_cksum();
    let mut raw = header.as_bytes().to_vec();
    raw.extend_from_slice(text);
    raw.resize(raw.len().next_multiple_of(512), 0);
    raw.extend_from_slice(end);
    raw
}
