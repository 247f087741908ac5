//! Archives that claim more than they are or hold more than was asked for: each stops at a
//! limit, before anything large is allocated. FAULTS 11, 12.

use std::io::Write as _;

use flate2::{Compression, write::DeflateEncoder};

use super::{
    Archive, Codec, Limits, PartEntry, PartKind, index::Page, order::Order, tests::sample,
    trailer::Trailer,
};
use crate::{ArchiveId, ErrorKind, Timestamp, manifest::Manifest, record::Sha256Digest};

pub(super) const MIB: u64 = 1 << 20;

/// An archive whose root inflates to `real` zeros and is said to be of `claimed` bytes.
pub(super) fn bomb(real: u64, claimed: u64) -> Vec<u8> {
    let mut packed = DeflateEncoder::new(Vec::new(), Compression::default());
    let zeros = vec![0; MIB as usize];
    (0..real / MIB).for_each(|_| packed.write_all(&zeros).unwrap());
    packed.flush().unwrap();
    let packed = packed.get_ref().clone();
    let format = Codec::Gzip.format(None).unwrap();
    let head = format.head();
    let tail = format.tail(0, claimed);
    let trailer = Trailer {
        codec: Codec::Gzip,
        id: ArchiveId::from_bytes([7; 16]),
        created: Timestamp::from_micros(0),
        root_offset: head.len() as u64,
        root_size: packed.len() as u64,
        root_tar_size: claimed,
        root_sha256: Sha256Digest::of(&packed),
        tar_size: claimed,
        crc32: 0,
        file_size: (head.len() + packed.len() + tail.len()) as u64 + Trailer::len(Codec::Gzip),
    };
    [head, &packed, &tail, &trailer.write()].concat()
}

#[test]
fn a_bomb_stops_at_the_length_that_was_claimed() {
    // 256 MiB of zeros take a quarter of one MiB.
    for claimed in [1024, MIB, 64 * MIB] {
        let error = Archive::from_source(bomb(256 * MIB, claimed)).err().unwrap();
        assert!(error.to_string().starts_with("a segment"), "{claimed}: {error:?}");
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_it_is_allocated() {
    for claimed in [64 * MIB + 4097, 1 << 40, u64::MAX] {
        let error = Archive::from_source(bomb(MIB, claimed)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{claimed}: {error:?}");
    }
}

#[test]
fn limits_of_the_caller_are_kept() {
    let refuse = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        let archive = Archive::with_limits(sample(Codec::Gzip, 2000), limits)?;
        let part = archive.entries().find(|part| part.as_ref().unwrap().size > 100).unwrap()?;
        archive.read(&part).map(drop)
    };
    assert!(refuse(|_| ()).is_ok());
    let changes: [fn(&mut Limits); 3] = [
        |limits| limits.total_bytes = 2000,
        |limits| limits.parts = 3,
        |limits| limits.memory_bytes = 100,
    ];
    for change in changes {
        assert_eq!(refuse(change).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}

#[test]
fn an_archive_as_large_as_the_limits_is_read() {
    let bytes = sample(Codec::Gzip, 2000);
    let archive = Archive::from_source(bytes.clone()).unwrap();
    let largest = archive.entries().map(|part| part.unwrap().size).max().unwrap();
    let limits = Limits {
        total_bytes: archive.inner.trailer.tar_size,
        parts: archive.manifest().index.parts,
        memory_bytes: largest,
    };
    let archive = Archive::with_limits(bytes, limits).unwrap();
    for part in archive.entries() {
        archive.read(&part.unwrap()).unwrap();
    }
}

#[test]
fn a_page_cannot_claim_more_lines_than_it_has() {
    let id = ArchiveId::from_bytes([7; 16]);
    let format = Codec::None.format(None).unwrap();
    for (parts, segments) in [(u64::MAX, 0), (0, u64::MAX), (1 << 40, 1 << 40)] {
        let head = format!(
            "{{\"archive\":\"{id}\",\"number\":0,\"parts\":{parts},\"previous\":null,\
             \"segments\":{segments}}}\n"
        );
        let error = Page::parse(head.as_bytes(), id, (0, 0), Timestamp::from_micros(0), &*format);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt, "{parts} {segments}");
    }
}

#[test]
fn a_million_names_are_enough() {
    let mut order = Order::default();
    let mut check =
        |kind: PartKind| order.check(&PartEntry { path: kind.path(), offset: 0, size: 0, kind });
    check(PartKind::Preamble {}).unwrap();
    let mut schemas = (0..2_000_000_u64)
        .map(|n| PartKind::Schema { store: "s".into(), collection: n.to_string() });
    let error = schemas.find_map(|kind| check(kind).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(schemas.next().unwrap().path().ends_with("/1000002/schema.json"));
}

#[test]
fn json_of_ten_thousand_levels_is_an_error_and_no_overflow() {
    let archive = Archive::from_source(sample(Codec::Gzip, 2000)).unwrap();
    let whole = archive.manifest().to_json().unwrap();
    let whole = std::str::from_utf8(&whole).unwrap();
    let with = |levels: usize| {
        let deep = "[".repeat(levels) + &"]".repeat(levels);
        whole.replacen('{', &format!("{{\"aaa\":{deep},"), 1)
    };
    Manifest::from_json(with(20).as_bytes()).unwrap();
    let error = Manifest::from_json(with(10_000).as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
