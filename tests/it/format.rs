//! `docs/FORMAT.md` against the archive that it walks through.

use std::{fs, path::PathBuf};

use backup_kit::{
    Cancel,
    archive::{Archive, VerifyMode},
    record::{BatchBuilder, ElementType, Key, Tally},
};

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

#[test]
fn the_walk_shows_the_bytes_that_are_there() {
    let text = fs::read_to_string(docs("FORMAT.md")).unwrap();
    let archive = fs::read(docs("tiny.tar.gz")).unwrap();
    let walk = text.split("## A walk through a tiny archive").nth(1).unwrap();
    let mut shown = 0;
    for line in walk.lines() {
        let mut words = line.split_whitespace();
        let Some(offset) = words.next().and_then(|word| word.parse::<usize>().ok()) else {
            continue;
        };
        // Two spaces end the bytes; what follows is for people.
        let (_, bytes) = line.trim_start().split_once("  ").unwrap();
        let bytes = bytes.split("  ").next().unwrap();
        for (at, byte) in bytes.split_whitespace().enumerate() {
            let byte = u8::from_str_radix(byte, 16).unwrap();
            assert_eq!(archive[offset + at], byte, "byte {} of the walk", offset + at);
            shown += 1;
        }
    }
    assert!(shown > 200, "the walk was not found");
}

#[test]
fn the_tiny_archive_is_whole_and_is_what_the_text_says() {
    let text = fs::read_to_string(docs("FORMAT.md")).unwrap();
    let archive = Archive::open(docs("tiny.tar.gz")).unwrap();
    archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {}).unwrap();
    for part in archive.entries() {
        let part = part.unwrap();
        assert!(text.contains(&format!("\"path\":\"{}\"", part.path)), "{}", part.path);
        if part.path.ends_with(".jsonl") {
            let lines = String::from_utf8(archive.read(&part).unwrap().to_vec()).unwrap();
            assert!(text.contains(&lines));
        }
    }
}

#[test]
fn the_digests_of_the_table_are_right() {
    let text = fs::read_to_string(docs("FORMAT.md")).unwrap();
    let mut tally = Tally::new();
    let mut digests = vec![];
    for (key, value) in [(1, r#"{"title":"one"}"#), (2, r#"{"title":"two"}"#)] {
        let mut batch = BatchBuilder::new("notes");
        let column = batch.dense("text", ElementType::F32, 2);
        batch.push_json(&Key::from(key), value.as_bytes()).unwrap();
        if key == 1 {
            batch.set_f32(column, &[1.0, 0.0]).unwrap();
        }
        tally.add_batch(&batch.finish().unwrap());
        digests.push(tally.digest.to_string());
    }
    digests.push(tally.vectors["text"].digest.to_string());
    for digest in digests {
        assert!(text.contains(&format!("`{digest}`")), "{digest}");
    }
}
