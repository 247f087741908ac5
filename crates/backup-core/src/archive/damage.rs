//! Damage of every bit and cuts of every length: verification finds each of them, and
//! salvage gives back every part that it did not touch.

use std::collections::BTreeMap;

use super::{
    plain::{End, archive_in_pieces, every_kind},
    tests::codecs,
    *,
};
use crate::{Cancel, Result, record::Sha256Digest};

/// A small archive of every kind of part, with segments of a few parts and three pages.
fn sample(codec: Codec) -> Vec<u8> {
    let (stores, config) = every_kind();
    archive_in_pieces(&stores, &config, codec, |number| match number {
        1 | 4 => End::Page,
        5 => End::Nothing,
        _ => End::Segment,
    })
}

fn verify(bytes: Vec<u8>) -> Result<VerifyReport> {
    Archive::from_source(bytes)?.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {})
}

/// Runs `check` for every number below `count`, on all cores.
fn each(count: usize, check: impl Fn(usize) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for first in 0..threads {
            let check = &check;
            scope.spawn(move || (first..count).step_by(threads).for_each(check));
        }
    });
}

#[test]
fn no_single_bit_can_change_unnoticed() {
    for codec in codecs() {
        let whole = sample(codec);
        verify(whole.clone()).unwrap();
        // Every bit of the usual codec; of the others, for the time it takes, one of a byte.
        let step = if codec == Codec::Gzip { 1 } else { 7 };
        each(whole.len() * 8 / step, |number| {
            let bit = number * step;
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(damaged).is_err(), "{codec:?}, bit {bit} of {}", whole.len() * 8);
        });
    }
}

#[test]
fn no_cut_and_no_addition_passes() {
    for codec in codecs() {
        let whole = sample(codec);
        for len in 0..whole.len() {
            assert!(verify(whole[..len].to_vec()).is_err(), "{codec:?}, cut at {len}");
        }
        for more in [&b"\0"[..], &[0; 512], &[0; 1024], &whole] {
            assert!(verify([&whole[..], more].concat()).is_err());
        }
    }
}

/// Path and hash of every part that can be had.
fn salvage(bytes: Vec<u8>) -> (BTreeMap<String, Sha256Digest>, SalvageReport) {
    let mut parts = BTreeMap::new();
    let report =
        Salvage::from_source(bytes).unwrap().parts(&Cancel::new(), &mut |part, content| {
            let (size, hash) = Sha256Digest::of_reader(content).unwrap();
            assert_eq!(size, part.size);
            assert!(parts.insert(part.path.clone(), hash).is_none(), "{} twice", part.path);
            Ok(())
        });
    (parts, report.unwrap())
}

/// One segment of the file, and the parts that lie in it, even with one byte.
struct Piece {
    file: std::ops::Range<u64>,
    parts: Vec<String>,
    // Index pages hold no part, but say where those before them are.
    page: Option<Vec<PartEntry>>,
}

fn pieces(whole: &[u8]) -> Vec<Piece> {
    let archive = Archive::from_source(whole.to_vec()).unwrap();
    let mut pieces = Vec::new();
    for (number, place) in archive.manifest().index.pages.iter().enumerate() {
        let page = archive.page(number).unwrap();
        let ends = page.parts.iter().skip(1).map(|part| part.offset).chain([place.tar_offset]);
        let ends: Vec<_> = ends.collect();
        for segment in &page.segments {
            let inside = page.parts.iter().zip(&ends).filter(|(part, end)| {
                part.offset < segment.tar_end() && **end > segment.tar_offset
            });
            let parts = inside.map(|(part, _)| part.path.clone()).collect();
            pieces.push(Piece { file: segment.offset..segment.end(), parts, page: None });
        }
        let file = place.offset..place.offset + place.size;
        pieces.push(Piece { file, parts: Vec::new(), page: Some(page.parts) });
    }
    pieces
}

/// Without its page a part is known by the list of checksums, which folders and links are not
/// in, nor the list itself.
fn needs_page(part: &PartEntry) -> bool {
    match &part.kind {
        PartKind::Entry { entry, .. } => *entry != EntryHead::File,
        kind => *kind == PartKind::Checksums {},
    }
}

#[test]
fn damage_costs_only_the_parts_of_the_segment_that_holds_it() {
    for codec in codecs() {
        let whole = sample(codec);
        let (all, report) = salvage(whole.clone());
        assert_eq!((report.lost_count, report.manifest), (0, true));
        let pieces = pieces(&whole);
        assert!(
            pieces.len() > 10 && pieces.iter().filter(|piece| piece.page.is_some()).count() == 3
        );
        each(whole.len(), |at| {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            let (found, report) = salvage(damaged);
            let piece = pieces.iter().find(|piece| piece.file.contains(&(at as u64)));
            let mut expected = all.clone();
            if let Some(Piece { parts, page, .. }) = piece {
                assert!(report.manifest, "{codec:?}, byte {at}");
                // A bit that means nothing may change, where what it stands in is proved.
                assert!(report.lost_count > 0 || found == all, "{codec:?}, byte {at}");
                let unproved = page.iter().flatten().filter(|part| needs_page(part));
                let lost = parts.iter().chain(unproved.map(|part| &part.path));
                lost.for_each(|path| _ = expected.remove(path));
            }
            for (path, hash) in &expected {
                assert_eq!(found.get(path), Some(hash), "{codec:?}, byte {at}: {path}: {report:?}");
            }
            // What else is found is as it was, too.
            assert!(found.iter().all(|part| all.get(part.0) == Some(part.1)));
        });
    }
}

#[test]
fn a_cut_costs_only_the_parts_after_the_last_page_before_it() {
    for codec in codecs() {
        let whole = sample(codec);
        let (all, _) = salvage(whole.clone());
        let pieces = pieces(&whole);
        let first = pieces.iter().find(|piece| piece.page.is_some()).unwrap().file.end as usize;
        each(whole.len() - first, |more| {
            let len = first + more;
            let (found, report) = salvage(whole[..len].to_vec());
            assert!(!report.manifest && report.lost_count > 0);
            let before = pieces.iter().filter(|piece| piece.file.end <= len as u64);
            for part in before.filter_map(|piece| piece.page.as_ref()).flatten() {
                let path = &part.path;
                assert_eq!(found.get(path), all.get(path), "{codec:?}, cut at {len}: {path}");
            }
            assert!(found.iter().all(|part| all.get(part.0) == Some(part.1)));
        });
    }
}

/// Without its page a part is found by its path, and another of the same path may come first.
#[test]
fn of_two_parts_of_one_path_the_true_one_is_given_back_and_once() {
    let whole = sample(Codec::None);
    let (all, _) = salvage(whole.clone());
    let archive = Archive::from_source(whole.clone()).unwrap();
    let parts: Vec<_> = archive.entries().take(3).map(Result::unwrap).collect();
    assert!(parts[1].path.ends_with("main.db"));
    let (start, end) = (parts[1].offset as usize, parts[2].offset as usize);
    let first_page = archive.manifest().index.pages[0].offset as usize;
    for changed in [0, 1] {
        let mut damaged = whole.clone();
        // The page, so that the tar is read without it; then the copy, which moves all others.
        damaged[first_page + 1000] ^= 1;
        let mut copy = whole[start..end].to_vec();
        copy[512] ^= changed;
        damaged.splice(start..start, copy);
        let (found, report) = salvage(damaged);
        assert_eq!(found.get(&parts[1].path), all.get(&parts[1].path), "{report:?}");
        assert!(report.lost.iter().any(|lost| lost.what == parts[1].path), "{report:?}");
    }
}
