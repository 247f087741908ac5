//! Archives whose every hash is right and whose content is hostile: each is refused, before
//! anything is written.

use std::{io::Read, sync::Arc};

use super::{
    Archive, ArchiveWriter, Codec, EntryHead, PartEntry, PartKind, Salvage, VerifyMode,
    WriterOptions,
    buffers::Buffers,
    codec::SegmentFormat,
    plain::{self, CREATED},
    scan, tar_block,
};
use crate::{Cancel, ErrorKind, Result};

/// What is wrong, and the archive that it is wrong in.
pub(super) type Case = (&'static str, Vec<u8>);

/// The sample's tar and parts, changed, in an archive that is sealed anew.
fn forged(change: impl FnOnce(&mut Vec<u8>, &mut Vec<PartEntry>)) -> Vec<u8> {
    forged_in(None, change)
}

// The same, its first segment compressed in a way of one's own.
fn forged_in(
    format: Option<Arc<dyn SegmentFormat>>,
    change: impl FnOnce(&mut Vec<u8>, &mut Vec<PartEntry>),
) -> Vec<u8> {
    let (stores, config) = plain::every_kind();
    let original = Archive::from_source(plain::archive(&stores, &config, Codec::None)).unwrap();
    let page = original.page(0).unwrap();
    let mut tar = Vec::new();
    for segment in &page.segments {
        tar.extend_from_slice(
            &scan::load(&original.inner, segment, &Buffers::default()).unwrap().0,
        );
    }
    let mut parts = page.parts;
    change(&mut tar, &mut parts);
    let options = WriterOptions::default();
    let preamble = original.preamble().unwrap();
    let manifest = original.manifest().clone();
    let forged =
        ArchiveWriter::forge(Vec::new(), &preamble, &options, &tar, &parts, manifest, format);
    forged.unwrap().out
}

// Makes a segment of its bytes.
type Pack = fn(&[u8]) -> Vec<u8>;

// Gzip, but for the first segment.
struct Tampered(Box<dyn SegmentFormat>, Pack);

impl SegmentFormat for Tampered {
    fn head(&self) -> &'static [u8] {
        self.0.head()
    }
    fn compress(&self, raw: &[u8], packed: &mut [u8]) -> Result<usize> {
        if !raw.starts_with(b"backup.json") {
            return self.0.compress(raw, packed);
        }
        let bytes = (self.1)(raw);
        packed[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
    fn decompress(&self, packed: &[u8], raw: &mut [u8]) -> Result<()> {
        self.0.decompress(packed, raw)
    }
    fn decompress_some(&self, packed: &[u8], limit: usize) -> Vec<u8> {
        self.0.decompress_some(packed, limit)
    }
    fn run<'a>(&self, packed: Box<dyn Read + 'a>) -> Box<dyn Read + 'a> {
        self.0.run(packed)
    }
    fn starts(&self, bytes: &[u8], base: u64) -> Vec<usize> {
        self.0.starts(bytes, base)
    }
    fn measure(&self, packed: &[u8], raw_len: usize) -> Option<usize> {
        self.0.measure(packed, raw_len)
    }
    fn tail(&self, crc32: u32, len: u64) -> Vec<u8> {
        self.0.tail(crc32, len)
    }
}

/// A stored block of deflate.
pub(super) fn stored(last: bool, bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len() as u16;
    [&[u8::from(last)], &len.to_le_bytes()[..], &(!len).to_le_bytes(), bytes].concat()
}

// What everyone who reads the archive does, in one.
fn read(bytes: Vec<u8>) -> Result<()> {
    let archive = Archive::from_source(bytes)?;
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    let extracted = archive.extract(&inside, |_| true, &Cancel::new(), &mut |_| {});
    // Whatever was refused, nothing stands outside.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    extracted?;
    for part in archive.entries() {
        part?;
    }
    Ok(())
}

// FAULTS 15, 17: a segment that is closed by a flush, and over before.
pub(super) fn segments() -> Vec<Case> {
    let cases: [(&str, Pack); 4] = [
        ("a last block before the flush", |raw| [stored(true, raw), stored(false, b"")].concat()),
        ("a last block before others", |raw| {
            [stored(true, raw), stored(false, b"hidden"), stored(false, b"")].concat()
        }),
        ("two last blocks", |raw| {
            [stored(false, raw), vec![3, 0], stored(true, b""), stored(false, b"")].concat()
        }),
        ("bytes after its length", |raw| [stored(false, raw), stored(false, b"\0")].concat()),
    ];
    let case = |(what, pack): (_, Pack)| {
        let tampered = Tampered(Codec::Gzip.format(None).unwrap(), pack);
        (what, forged_in(Some(Arc::new(tampered)), |_, _| {}))
    };
    cases.into_iter().map(case).collect()
}

#[test]
fn a_segment_that_is_over_before_its_end_is_refused() {
    let honest = Tampered(Codec::Gzip.format(None).unwrap(), |raw| {
        [stored(false, raw), stored(false, b"")].concat()
    });
    read(forged_in(Some(Arc::new(honest)), |_, _| {})).unwrap();
    for (what, archive) in segments() {
        let error = read(archive.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        let archive = Archive::from_source(archive).unwrap();
        let error = archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.to_string().starts_with("a segment"), "{what}: {error}");
    }
}

fn place(parts: &[PartEntry], path: &str) -> usize {
    parts.iter().position(|part| part.path.contains(path)).unwrap()
}

#[test]
fn the_forger_is_good_enough_to_pass_unchanged() {
    let archive = forged(|_, _| {});
    read(archive.clone()).unwrap();
    let archive = Archive::from_source(archive).unwrap();
    archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {}).unwrap();
}

// FAULTS 1, 3, 4, 5, 7, 9, 20, 21: a header that says anything else than the index.
pub(super) fn headers() -> Vec<Case> {
    let fields: &[(&str, usize, &[u8])] = &[
        ("a path that leads out", 0, b"../../x\0"),
        ("an absolute path", 0, b"/etc/x\0"),
        ("a backslash", 0, b"..\\x\0"),
        ("a NUL within a name", 3, b"\0"),
        ("set-uid", 100, b"0004755\0"),
        ("an owner", 108, b"0001750\0"),
        ("a smaller size", 124, b"00000000001\0"),
        ("a negative size", 124, &[0xff; 12]),
        (
            "a size out of all bounds",
            124,
            &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("another time", 136, b"77777777777\0"),
        ("a hard link", 156, b"1"),
        ("a symbolic link", 156, b"2"),
        ("a character device", 156, b"3"),
        ("a pipe", 156, b"6"),
        ("a sparse file", 156, b"S"),
        ("an unknown type", 156, b"Z"),
        ("a link target", 157, b"/etc/passwd\0"),
        ("GNU magic", 257, b"ustar  \0"),
        ("a prefix", 345, b"/etc"),
    ];
    let case = |(what, at, bytes): &(&'static str, usize, &[u8])| {
        let archive = forged(|tar, parts| {
            let header = parts[place(parts, "main.db")].offset as usize;
            tar[header + at..][..bytes.len()].copy_from_slice(bytes);
            // With a checksum that stock readers accept.
            let mut block = tar::Header::from_byte_slice(&tar[header..][..512]).clone();
            block.set_cksum();
            tar[header..][..512].copy_from_slice(block.as_bytes());
        });
        (*what, archive)
    };
    fields.iter().map(case).collect()
}

#[test]
fn a_header_that_is_not_the_one_that_follows_from_the_index_is_refused() {
    for (what, archive) in headers() {
        let error = read(archive).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Hostile, "{what}: {error}");
        assert!(error.subject().unwrap().contains("main.db"), "{what}");
    }
}

// FAULTS 5, 6, 10: extension headers that the writer would not write.
pub(super) fn extensions() -> Vec<Case> {
    let headers = [
        ("another size before", b'x', b"11 size=99\n".to_vec()),
        ("another path before", b'x', b"19 path=../../evil\n".to_vec()),
        ("a huge extension before", b'x', vec![b'1'; 100_000]),
        ("a global extension before", b'g', b"11 size=99\n".to_vec()),
        ("a GNU long name before", b'L', b"../evil\0".to_vec()),
        ("a GNU long link before", b'K', b"/etc\0".to_vec()),
    ];
    let case = |(what, kind, body): (&'static str, u8, Vec<u8>)| {
        let archive = forged(|tar, parts| {
            let at = place(parts, "main.db");
            let mut block = tar::Header::new_ustar();
            block.set_size(body.len() as u64);
            block.set_entry_type(tar::EntryType::new(kind));
            block.set_cksum();
            let mut extra = block.as_bytes().to_vec();
            extra.extend_from_slice(&body);
            extra.resize(extra.len().next_multiple_of(512), 0);
            let offset = parts[at].offset as usize;
            tar.splice(offset..offset, extra.iter().copied());
        });
        (what, archive)
    };
    headers.into_iter().map(case).collect()
}

#[test]
fn a_header_that_comes_in_between_is_refused() {
    for (what, archive) in extensions() {
        assert!(read(archive).is_err(), "{what}");
    }
}

// FAULTS 1, 2, 8, 11, 12, 17, 19, 20: an index that lies.
pub(super) fn indexes() -> Vec<Case> {
    type Change = fn(&mut Vec<PartEntry>);
    let changes: &[(&'static str, Change)] = &[
        ("a part is missing", |parts| drop(parts.remove(3))),
        ("a part stands twice", |parts| parts.insert(3, parts[3].clone())),
        ("two parts are swapped", |parts| parts.swap(3, 4)),
        ("a part is larger", |parts| parts[3].size += 512),
        ("a part is smaller", |parts| parts[3].size -= 1),
        ("a part is larger than memory", |parts| parts[3].size = u64::MAX - 511),
        ("a part goes beyond the end", |parts| parts[3].size = 1 << 50),
        ("sizes overflow together", |parts| {
            parts.iter_mut().for_each(|part| part.size = (1 << 60) - 512);
        }),
        ("a path of another part", |parts| parts[3].path = parts[2].path.clone()),
        ("a path that leads out", |parts| parts[3].path = "../evil".into()),
        ("the first part is not backup.json", |parts| drop(parts.remove(0))),
        ("the checksums are missing", |parts| drop(parts.pop())),
        ("a name that leads out", |parts| {
            let at = place(parts, "files/up/root/empty");
            if let PartKind::Entry { name, .. } = &mut parts[at].kind {
                *name = b"../../evil".to_vec();
            }
            parts[at].path = parts[at].kind.path();
        }),
        ("a folder that is a link", |parts| {
            let at = parts.iter().position(|p| p.path.ends_with("root/a")).unwrap();
            if let PartKind::Entry { entry, .. } = &mut parts[at].kind {
                *entry = EntryHead::Symlink(b"/etc".to_vec());
            }
        }),
        ("a mode with more than permissions", |parts| {
            let at = place(parts, "files/up/root/empty");
            if let PartKind::Entry { mode, .. } = &mut parts[at].kind {
                *mode = 0o4777;
            }
        }),
    ];
    changes.iter().map(|(what, change)| (*what, forged(|_, parts| change(parts)))).collect()
}

#[test]
fn an_index_that_does_not_fit_the_tar_is_refused() {
    for (what, archive) in indexes() {
        assert!(read(archive).is_err(), "{what}");
    }
}

// FAULTS 2, 15, 16, 18: tar and index agree, and are wrong.
pub(super) fn agreements() -> Vec<Case> {
    let link = forged(|tar, parts| {
        let part = parts.iter_mut().find(|part| part.path.ends_with("root/a")).unwrap();
        let PartKind::Entry { entry, .. } = &mut part.kind else { panic!("an entry") };
        *entry = EntryHead::Symlink(b"../../../../outside".to_vec());
        let header = tar_block::part_header(part, CREATED);
        tar[part.offset as usize..][..header.len()].copy_from_slice(&header);
    });
    let padding = forged(|tar, parts| {
        let next = parts[place(parts, "main.db") + 1].offset as usize;
        tar[next - 1] = 1;
    });
    let twice = forged(|tar, parts| {
        let part = &mut parts[0];
        let body = part.offset as usize + 512;
        let text = String::from_utf8(tar[body..][..part.size as usize].to_vec()).unwrap();
        let twice = text.replacen("{\"application\"", "{\"format\":2,\"application\"", 1);
        assert_eq!(twice.len().div_ceil(512), text.len().div_ceil(512));
        tar[body..][..twice.len()].copy_from_slice(twice.as_bytes());
        part.size = twice.len() as u64;
        let header = tar_block::plain_header("backup.json", part.size, CREATED);
        tar[..512].copy_from_slice(&header);
    });
    vec![
        ("a file below a link", link),
        ("bytes in the padding", padding),
        ("a member twice in backup.json", twice),
    ]
}

#[test]
fn what_tar_and_index_agree_on_is_checked_too() {
    let kinds = agreements().into_iter().map(|(what, archive)| {
        let opened = Archive::from_source(archive.clone()).and_then(|archive| archive.preamble());
        (what, read(archive).and(opened.map(drop)).unwrap_err().kind())
    });
    let expected = [
        ("a file below a link", ErrorKind::Hostile),
        ("bytes in the padding", ErrorKind::Hostile),
        ("a member twice in backup.json", ErrorKind::Corrupt),
    ];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
}

// FAULTS 2: salvage takes parts one by one, and must not follow a link that it made.
#[test]
fn salvage_writes_nothing_below_a_link() {
    let (_, archive) = agreements().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let salvage = Salvage::from_source(archive).unwrap();
    let error = salvage.extract(folder.path().join("inside"), &Cancel::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Hostile, "{error}");
    assert!(folder.path().join("inside/files/up/root/a").is_symlink());
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
}
