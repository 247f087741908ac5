//! Versions of applications and engines, as people write them.

use std::fmt;

/// Major, minor and patch.
pub(crate) type Number = (u64, u64, u64);

/// A version that can be compared: three numbers, and whether it is one under development.
///
/// Semantic versions, and beside them what that form refuses and applications use: `1.4`, `v1.4.0`,
/// `0.2.1dev1`, `0.2.1.dev1`, `0.2.1rc1`, `0.2.1.post1`. Two of one number compare as equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) number: Number,
    pub(crate) development: bool,
}

const DEVELOPMENT: [&str; 9] = ["dev", "a", "alpha", "b", "beta", "c", "rc", "pre", "preview"];

impl Version {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        if let Ok(version) = semver::Version::parse(text) {
            let number = (version.major, version.minor, version.patch);
            return Some(Self { number, development: !version.pre.is_empty() });
        }
        // What follows a plus sign names a build, in either form.
        let text = text.split_once('+').map_or(text, |(before, _)| before);
        let (number, suffix) = numbers(text)?;
        Some(Self { number, development: development(suffix)? })
    }

    /// Versions of one line differ in the patch only.
    pub(crate) fn line(&self) -> (u64, u64) {
        line(self.number)
    }
}

pub(crate) fn line(number: Number) -> (u64, u64) {
    (number.0, number.1)
}

/// A number as it is read.
pub(crate) fn shown((major, minor, patch): Number) -> impl fmt::Display {
    format!("{major}.{minor}.{patch}")
}

// Up to three numbers with points between, missing ones are zero; and what follows.
fn numbers(text: &str) -> Option<(Number, &str)> {
    let mut found = [0; 3];
    let mut rest = text;
    for (i, number) in found.iter_mut().enumerate() {
        let after_point = if i == 0 { Some(rest) } else { rest.strip_prefix('.') };
        let Some(digits) =
            after_point.filter(|text| text.starts_with(|c: char| c.is_ascii_digit()))
        else {
            break;
        };
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        *number = digits[..end].parse().ok()?;
        rest = &digits[end..];
    }
    let any = rest.len() < text.len();
    any.then_some(((found[0], found[1], found[2]), rest))
}

// Whether a suffix such as `rc1.dev2` says that the version is not released; `None` where it is
// no such suffix.
fn development(mut suffix: &str) -> Option<bool> {
    let mut found = false;
    while !suffix.is_empty() {
        let bare = suffix.trim_start_matches(['.', '-', '_']);
        let end = bare.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(bare.len());
        let (name, rest) = bare.split_at(end);
        let name = name.to_ascii_lowercase();
        if DEVELOPMENT.contains(&name.as_str()) {
            found = true;
        } else if name != "post" {
            return None;
        }
        suffix = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        for (text, number, development) in [
            ("1.4.0", (1, 4, 0), false),
            ("v1.4.0", (1, 4, 0), false),
            (" 1.4.0 ", (1, 4, 0), false),
            ("1.4", (1, 4, 0), false),
            ("1", (1, 0, 0), false),
            ("2026.01.5", (2026, 1, 5), false),
            ("1.4.0+build.7", (1, 4, 0), false),
            ("1.4+local", (1, 4, 0), false),
            ("1.4.0.post2", (1, 4, 0), false),
            ("1.4.0-alpha.1", (1, 4, 0), true),
            ("1.4.0-rc.1+build", (1, 4, 0), true),
            ("0.2.1dev1", (0, 2, 1), true),
            ("0.2.1.dev1", (0, 2, 1), true),
            ("0.2.1rc1", (0, 2, 1), true),
            ("0.2.1RC", (0, 2, 1), true),
            ("0.2.1b2", (0, 2, 1), true),
            ("0.2rc1.dev3", (0, 2, 0), true),
            ("0.2.1.dev1+gabc", (0, 2, 1), true),
        ] {
            assert_eq!(Version::parse(text), Some(Version { number, development }), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_versions() {
        for text in [
            "",
            "v",
            "dev",
            "main",
            "1.",
            "1..2",
            "1.2.3.4",
            "1.2.3x",
            "1.2.3-",
            "1.2.3 beta",
            "-1.2.3",
            "99999999999999999999.0.0",
            "a1b2c3d",
            "1.4.0devel",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
