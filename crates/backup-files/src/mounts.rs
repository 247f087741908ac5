//! Where file systems are mounted.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use crate::sys;

/// Whether something is mounted at the folder.
pub(crate) fn is_mount(path: &Path) -> bool {
    let device = |path: &Path| sys::stat_path(path).ok().flatten().map(|stamp| stamp.id.0);
    path.parent().is_none_or(|parent| device(path) != device(parent))
        || table().iter().any(|mount| mount == path)
}

/// A mount below the folder, if there is one.
pub(crate) fn below(path: &Path) -> Option<PathBuf> {
    table().into_iter().find(|mount| mount != path && mount.starts_with(path))
}

/// All mounts, where the system lists them: a folder bound to another of the same file
/// system shows in no other way.
fn table() -> Vec<PathBuf> {
    parse(&fs::read("/proc/self/mountinfo").unwrap_or_default())
}

fn parse(text: &[u8]) -> Vec<PathBuf> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|path| OsString::from_vec(unescape(path)).into())
        .collect()
}

/// Space, tab, line feed and backslash stand as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_with_odd_names_are_read() {
        let text =
            b"36 35 98:0 / /mnt/a\\040b\\134 rw - ext3 /dev/root rw\n37 1 0:5 / / rw - x y z\n";
        assert_eq!(parse(text), [PathBuf::from("/mnt/a b\\"), PathBuf::from("/")]);
    }

    #[test]
    fn the_root_of_the_system_is_a_mount_and_a_new_folder_is_none() {
        assert!(is_mount(Path::new("/")));
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mount(dir.path()));
        assert_eq!(below(dir.path()), None);
    }
}
