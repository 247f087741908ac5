//! Files that real servers wrote, whole and damaged.

use std::io::{self, Read};

use backup_core::{ErrorKind, Result};

use super::{Items, json_text};
use crate::model::{Body, Element, Item, ItemPart};

/// Each server's file, with every type in every form that it has; see `tests/data/README.md`.
const FILES: [&[u8]; 4] = [
    include_bytes!("../../tests/data/redis-6.2.rdb"),
    include_bytes!("../../tests/data/redis-7.0.rdb"),
    include_bytes!("../../tests/data/redis-7.4.rdb"),
    include_bytes!("../../tests/data/redis-8.2.rdb"),
];

fn items(input: impl Read) -> Result<Vec<Item>> {
    let mut items = Items::new(input);
    let mut all = Vec::new();
    while let Some(item) = items.next()? {
        all.push(item);
    }
    Ok(all)
}

/// Gives a byte at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn files_of_four_servers_are_read_alike() {
    // What all of them hold alike, whatever form each gave it.
    let common = |file: &[u8]| {
        let mut all = items(file).unwrap();
        all.retain(|item| !item.key.starts_with(b"x:") && !item.key.starts_with(b"hx:"));
        all.retain(|item| !item.key.starts_with(b"j:"));
        // Small sorted sets have lost the sign of a zero since 7.0.
        let text = |item: &Item| format!("{item:?}").replace("score: -0.0", "score: 0.0");
        let mut all: Vec<_> = all.iter().map(text).collect();
        // The order of what has none, and the places in lists, which is in the text.
        all.sort();
        all
    };
    let first = common(FILES[0]);
    assert_eq!(first.len(), 3728);
    for file in &FILES[1..] {
        assert!(common(file) == first);
    }
}

#[test]
fn fields_of_hashes_keep_their_deadlines() {
    for file in &FILES[2..] {
        let mut found = 0;
        for item in items(*file).unwrap() {
            let ItemPart::Element(Element::Field { name, expires_at, .. }) = &item.part else {
                continue;
            };
            let expected = match &*item.key {
                b"hx:small" if **name == *b"a" => Some(4_102_444_800_001),
                b"hx:big" => {
                    let n: i64 = std::str::from_utf8(&name[1..]).unwrap().parse().unwrap();
                    (n % 3 == 0).then_some(4_102_444_800_000 + n * 7)
                }
                _ => None,
            };
            assert_eq!(*expires_at, expected, "{item:?}");
            found += usize::from(expires_at.is_some());
        }
        assert_eq!(found, 235);
    }
}

#[test]
fn documents_of_redis_json_are_json() {
    let all = items(FILES[2]).unwrap();
    let document = all.iter().find(|item| &*item.key == b"j:doc").unwrap();
    let ItemPart::Head(head) = &document.part else { panic!("{document:?}") };
    assert_eq!(head.body, Body::Json(br#"{"a":[1,2],"b":"x"}"#.to_vec().into()));
    // As `DUMP` gives it, and what is something else.
    let mut payload = b"\x07\x81E\xe2R8\xdf\x91,\x03\x05\x02{}\0\x0c\0checksum".to_vec();
    assert_eq!(json_text(&payload).as_deref(), Some(&b"{}"[..]));
    for len in 0..payload.len() {
        assert_eq!(json_text(&payload[..len]), None, "{len}");
    }
    // Another version of the module's form, or a text that is no JSON: as it is.
    payload[9] = 4;
    assert_eq!(json_text(&payload), None);
    payload[9] = 3;
    payload[12] = b'!';
    let body = Body::of_payload("ReJSON-RL".to_owned(), payload.into());
    assert!(matches!(body, Body::Dump { .. }), "{body:?}");
}

#[test]
fn a_byte_at_a_time_gives_the_same() {
    assert!(items(Slow(FILES[1])).unwrap() == items(FILES[1]).unwrap());
}

#[test]
fn whatever_is_cut_off_is_missed() {
    for file in FILES {
        for len in (0..file.len()).step_by(37).chain(file.len() - 20..file.len()) {
            let error = items(&file[..len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}: {error}");
        }
    }
}

#[test]
fn a_flipped_bit_is_found() {
    for file in FILES {
        for at in (0..file.len()).step_by(53) {
            let mut damaged = file.to_vec();
            damaged[at] ^= 1 << (at % 8);
            assert!(items(&damaged[..]).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_newer_version_is_refused() {
    for header in [&b"REDIS0013"[..], b"REDIS9999", b"VALKEY081"] {
        let error = items(header).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownVersion, "{error}");
        assert!(error.advice().contains("`paused`"), "{error}");
    }
    assert_eq!(items(&b"SQLite format 3"[..]).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_length_without_bytes_takes_no_memory() {
    let mut file = b"REDIS0011\x00\x01k\x81".to_vec();
    file.extend(u64::MAX.to_be_bytes());
    assert_eq!(items(&file[..]).unwrap_err().kind(), ErrorKind::Corrupt);
    // As the item of a list: more than one may have.
    let mut file = b"REDIS0011\x01\x01k\x01\x81".to_vec();
    file.extend(u64::MAX.to_be_bytes());
    assert_eq!(items(&file[..]).unwrap_err().kind(), ErrorKind::LimitExceeded);
}
