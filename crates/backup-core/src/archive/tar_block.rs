//! Tar headers, as a pure function of what stands in the index.
//!
//! The reader compares what this gives with what stands in the archive, byte for byte, so
//! no hostile header is ever parsed.

use super::entry::{EntryHead, PartEntry, PartKind};
use crate::clock::Timestamp;

/// Everything in a tar is a multiple of this.
pub(super) const BLOCK: u64 = 512;

/// What a tar ends with.
pub(super) const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

/// The largest size that fits the octal field; above it a PAX header says the size too.
const MAX_OCTAL_SIZE: u64 = (1 << 33) - 1;

/// Bytes from the end of content of `size` to the next block.
pub(super) const fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

/// A regular file of the archive's own: an index page, the root.
pub(super) fn plain_header(path: &str, size: u64, created: Timestamp) -> Vec<u8> {
    header(path, size, 0o644, created.as_micros().div_euclid(1_000_000), &EntryHead::File)
}

/// The header of a part, its PAX header included.
pub(super) fn part_header(part: &PartEntry, created: Timestamp) -> Vec<u8> {
    match &part.kind {
        PartKind::Entry { mode, modified, entry, .. } => {
            header(&part.path, part.size, *mode, modified.0, entry)
        }
        _ => plain_header(&part.path, part.size, created),
    }
}

/// Length of a part in the tar: header, content and padding.
pub(super) fn part_len(part: &PartEntry, created: Timestamp) -> u64 {
    part_header(part, created).len() as u64 + part.size + padding(part.size)
}

fn header(path: &str, size: u64, mode: u32, mtime: i64, head: &EntryHead) -> Vec<u8> {
    let mut path = path.to_owned();
    let mut link = String::new();
    let kind = match head {
        EntryHead::File => tar::EntryType::Regular,
        EntryHead::Directory => {
            path.push('/');
            tar::EntryType::Directory
        }
        EntryHead::Symlink(target) => {
            // The exact bytes stand in the index; the tar shows what stock tools can take.
            link = super::names::link_target(target);
            tar::EntryType::Symlink
        }
    };
    let mut block = tar::Header::new_ustar();
    block.set_mode(mode & 0o777);
    block.set_uid(0);
    block.set_gid(0);
    // Times before 1970 or after 2242 do not fit; the index has them.
    block.set_mtime(mtime.clamp(0, MAX_OCTAL_SIZE as i64) as u64);
    block.set_entry_type(kind);
    // Above the octal limit this is the binary form, which says the same as the PAX header:
    // readers that know only one of them see the same size.
    block.set_size(size);

    let mut pax = Vec::new();
    let old = block.as_old_mut();
    if !fits(&mut old.name, &path) {
        record(&mut pax, "path", &path);
    }
    if !fits(&mut old.linkname, &link) {
        record(&mut pax, "linkpath", &link);
    }
    if size > MAX_OCTAL_SIZE {
        record(&mut pax, "size", &size.to_string());
    }
    block.set_cksum();

    let mut out = Vec::with_capacity(3 * BLOCK as usize);
    if !pax.is_empty() {
        let mut extension = tar::Header::new_ustar();
        fits(&mut extension.as_old_mut().name, "././@PaxHeader");
        extension.set_mode(0o644);
        extension.set_uid(0);
        extension.set_gid(0);
        extension.set_mtime(0);
        extension.set_entry_type(tar::EntryType::XHeader);
        extension.set_size(pax.len() as u64);
        extension.set_cksum();
        out.extend_from_slice(extension.as_bytes());
        out.extend_from_slice(&pax);
        out.resize(out.len() + padding(pax.len() as u64) as usize, 0);
    }
    out.extend_from_slice(block.as_bytes());
    out
}

/// Puts `text` into a field of 100 bytes, cut at a character; says whether it was whole.
fn fits(field: &mut [u8; 100], text: &str) -> bool {
    let mut len = text.len().min(field.len());
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
    len == text.len()
}

/// One PAX record: its own length in digits, a space, `key=value`, a line feed.
fn record(out: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(format!("{len} {key}={value}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    // The tar crate reads what we wrote as we meant it.
    #[test]
    fn headers_say_what_they_should() {
        let long = format!("a/{}/é{}", "d".repeat(94), "x".repeat(200));
        let target = "t".repeat(150).into_bytes();
        for (path, size, head) in [
            ("short", 3, EntryHead::File),
            (&long[..], 3, EntryHead::File),
            (&long[..], 0, EntryHead::Directory),
            ("link", 0, EntryHead::Symlink(target.clone())),
            (&long[..], 0, EntryHead::Symlink(b"x".to_vec())),
        ] {
            let mut file = header(path, size, 0o4755, -5, &head);
            assert_eq!(file.len() % 512, 0);
            file.extend_from_slice(b"abc");
            file.resize(file.len() + 509, 0);
            file.extend_from_slice(&END);
            let mut archive = tar::Archive::new(&file[..]);
            let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(entry.path().unwrap().to_str().unwrap().trim_end_matches('/'), path);
            assert_eq!(entry.header().mode().unwrap(), 0o755);
            assert_eq!(entry.header().mtime().unwrap(), 0);
            if let EntryHead::Symlink(target) = &head {
                assert_eq!(entry.link_name_bytes().unwrap(), &target[..]);
            } else if head == EntryHead::File {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                assert_eq!(text, "abc");
            }
        }
    }

    #[test]
    fn a_large_size_stands_in_both_places() {
        let size = (1_u64 << 33) + 5;
        let bytes = header("big", size, 0o644, 0, &EntryHead::File);
        assert_eq!(bytes.len(), 3 * 512);
        assert_eq!(&bytes[512..536], b"19 size=8589934597\n\0\0\0\0\0");
        let last = tar::Header::from_byte_slice(&bytes[1024..]);
        assert_eq!(last.entry_size().unwrap(), size);
    }

    #[test]
    fn lengths_of_pax_records_count_themselves() {
        for len in [1, 90, 91, 92, 93, 94, 989, 990, 991, 992] {
            let mut out = Vec::new();
            record(&mut out, "path", &"p".repeat(len));
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), text.len());
        }
    }
}
