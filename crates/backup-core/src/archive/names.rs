//! Names of stores, collections and files as names in the tar: one reversible escape.
//!
//! `%`, `/`, `\`, control characters and bytes that are not UTF-8 become `%XX`; `.` and `..`
//! and the empty name become `%2E`, `%2E%2E` and `%`; where the place asks for it, dots or a
//! leading underscore are escaped too. A name that would be longer than 255 bytes is cut and
//! closed by `%~` and half of its SHA-256; the exact name stands in the index.

use crate::{part::EntryPath, record::Sha256Digest};

/// Longest escaped name.
const MAX_NAME: usize = 255;
/// Room for the endings of part files: `-00000000.` and a vector's name.
const MAX_STEM: usize = 96;

fn escape(name: &[u8], also: impl Fn(usize, u8) -> bool, max: usize) -> String {
    let mut out = String::with_capacity(name.len());
    let mut at = 0;
    let push_hex = |out: &mut String, byte: u8| out.push_str(&format!("%{byte:02X}"));
    let dots = name == b"." || name == b"..";
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            let byte = if c.is_ascii() { c as u8 } else { 0x80 };
            let special = matches!(byte, b'%' | b'/' | b'\\' | 0..=0x1f | 0x7f);
            if special || dots || (c.is_ascii() && also(at, byte)) {
                push_hex(&mut out, byte);
            } else {
                out.push(c);
            }
            at += c.len_utf8();
        }
        for byte in chunk.invalid() {
            push_hex(&mut out, *byte);
            at += 1;
        }
    }
    if out.is_empty() {
        out.push('%');
    }
    if out.len() > max {
        let hash = Sha256Digest::of(name).to_string();
        let mut keep = max - 34;
        // Neither a character nor an escape is cut in two.
        while !out.is_char_boundary(keep) {
            keep -= 1;
        }
        if let Some(percent) = out[..keep].rfind('%').filter(|at| keep - at < 3) {
            keep = percent;
        }
        out.truncate(keep);
        out.push_str("%~");
        out.push_str(&hash[..32]);
    }
    out
}

/// A store, collection or root as the name of a folder.
pub(super) fn folder(name: &str) -> String {
    escape(name.as_bytes(), |at, byte| at == 0 && byte == b'_', MAX_NAME)
}

/// A partition or vector as a piece of a part file's name.
pub(super) fn stem(name: &str) -> String {
    escape(name.as_bytes(), |_, byte| byte == b'.', MAX_STEM)
}

/// A whole file name.
pub(super) fn file(name: &[u8]) -> String {
    escape(name, |_, _| false, MAX_NAME)
}

/// A path within a root.
pub(super) fn path(path: &EntryPath) -> String {
    path.names().map(file).collect::<Vec<_>>().join("/")
}

/// A link's target as stock tools can take it; slashes and dots stay.
pub(super) fn link_target(target: &[u8]) -> String {
    let names: Vec<_> = target
        .split(|b| *b == b'/')
        .map(|name| match name {
            b"" | b"." | b".." => String::from_utf8_lossy(name).into_owned(),
            name => file(name),
        })
        .collect();
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_as_they_are() {
        for name in ["notes", "a b", "naïve", "日本", "CON", "a:b", "x_y", "a-b.c"] {
            assert_eq!(folder(name), name);
        }
    }

    #[test]
    fn what_could_lead_astray_is_escaped() {
        for (name, expected) in [
            ("", "%"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("...", "..."),
            ("a/b", "a%2Fb"),
            ("a\\b", "a%5Cb"),
            ("100%", "100%25"),
            ("a\nb\0", "a%0Ab%00"),
            ("_native", "%5Fnative"),
        ] {
            assert_eq!(folder(name), expected);
        }
        assert_eq!(stem("v1.0"), "v1%2E0");
        assert_eq!(file(b"\xff\xfe.txt"), "%FF%FE.txt");
    }

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let a = folder(&"é".repeat(200));
        let b = folder(&format!("{}x", "é".repeat(200)));
        assert!(a.len() <= 255 && b.len() <= 255 && a != b);
        assert!(stem(&"%".repeat(200)).len() <= 96);
        assert_eq!(folder(&"x".repeat(255)).len(), 255);
    }

    proptest::proptest! {
        #[test]
        fn different_names_never_meet(a: Vec<u8>, b: Vec<u8>) {
            proptest::prop_assert_eq!(a == b, file(&a) == file(&b));
            for escaped in [file(&a), escape(&a, |_, b| b == b'.', MAX_STEM)] {
                let plain = !escaped.contains(['/', '\\', '\0']) && !matches!(&escaped[..], "" | "." | "..");
                proptest::prop_assert!(plain && escaped.len() <= MAX_NAME);
            }
        }
    }
}
