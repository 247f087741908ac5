//! Which paths of a root the host does not want.

use backup_core::{Error, ErrorKind, Result};
use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

/// Globs, as `.gitignore` reads them but for negation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exclude {
    globs: Vec<String>,
    any: GlobSet,
    folders: GlobSet,
}

impl Exclude {
    pub(crate) fn new(globs: &[String]) -> Result<Self> {
        let mut any = GlobSetBuilder::new();
        let mut folders = GlobSetBuilder::new();
        for text in globs {
            let bad = |why: &str| {
                Error::new(ErrorKind::InvalidInput, format!("an exclude glob is wrong: {why}"))
                    .on(text)
            };
            if text.starts_with('!') {
                return Err(bad("nothing can be taken in again with `!`"));
            }
            let (glob, only_folders) =
                text.strip_suffix('/').map_or((text.as_str(), false), |glob| (glob, true));
            let glob = match glob.strip_prefix('/') {
                Some(anchored) => anchored.to_owned(),
                None if glob.contains('/') => glob.to_owned(),
                None => format!("**/{glob}"),
            };
            if glob.is_empty() || glob == "**/" {
                return Err(bad("it names nothing"));
            }
            let glob = GlobBuilder::new(&glob)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|e| bad(&e.kind().to_string()))?;
            if only_folders { &mut folders } else { &mut any }.add(glob);
        }
        let build = |set: GlobSetBuilder| {
            set.build().map_err(|e| {
                Error::new(ErrorKind::InvalidInput, "the exclude globs are too large").because(e)
            })
        };
        Ok(Self { globs: globs.to_vec(), any: build(any)?, folders: build(folders)? })
    }

    /// The globs as the host wrote them.
    pub(crate) fn globs(&self) -> &[String] {
        &self.globs
    }

    /// Whether the path is left out, and with a folder all that it holds.
    pub(crate) fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        if self.globs.is_empty() {
            return false;
        }
        let path = Candidate::from_bytes(path);
        self.any.is_match_candidate(&path) || (is_folder && self.folders.is_match_candidate(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_a_gitignore() {
        let file = |glob: &str, path: &str| {
            Exclude::new(&[glob.to_owned()]).unwrap().matches(path.as_bytes(), false)
        };
        let folder = |glob: &str, path: &str| {
            Exclude::new(&[glob.to_owned()]).unwrap().matches(path.as_bytes(), true)
        };
        assert!(file("*.tmp", "a.tmp") && file("*.tmp", "x/y/a.tmp"));
        assert!(!file("*.tmp", "a.tmp.txt"));
        assert!(file("/a", "a") && !file("/a", "x/a"));
        assert!(file("x/*.log", "x/1.log") && !file("x/*.log", "x/y/1.log"));
        assert!(!file("x/*.log", "w/x/1.log"));
        assert!(file("x/**/1.log", "x/y/z/1.log") && file("x/**/1.log", "x/1.log"));
        assert!(folder("cache/", "a/cache") && !file("cache/", "a/cache"));
        assert!(file("?.[ch]", "a.c") && !file("?.[ch]", "ab.c"));
        assert!(file("*.{jpg,png}", "x/a.png"));
        assert!(Exclude::new(&["a*".into()]).unwrap().matches(b"a\xff", false));
    }

    #[test]
    fn globs_that_mean_nothing_are_refused() {
        for bad in ["", "/", "!a", "a[", "{a"] {
            let error = Exclude::new(&[bad.to_owned()]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }
}
