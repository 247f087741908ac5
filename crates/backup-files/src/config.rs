//! What the host says of a store of files.

use std::path::{Path, PathBuf, absolute};

use backup_core::{Error, ErrorKind, Result};

use crate::exclude::Exclude;

/// One or several folder trees as a store: each root is a collection.
///
/// # Examples
/// ```
/// use backup_files::FilesStore;
///
/// let uploads = FilesStore::open("uploads")?;
/// let several = FilesStore::builder()
///     .root("uploads", "data/uploads")
///     .root("models", "data/models")
///     .exclude("*.tmp")
///     .exclude("cache/")
///     .build()?;
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FilesStore {
    pub(crate) roots: Vec<Root>,
    pub(crate) stepwise: bool,
}

/// One folder tree.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) exclude: Exclude,
}

/// Collects the roots of a [`FilesStore`].
#[derive(Debug, Clone, Default)]
pub struct FilesBuilder {
    roots: Vec<(String, PathBuf)>,
    exclude: Vec<String>,
    stepwise: bool,
}

impl FilesStore {
    /// One root, called `root`.
    ///
    /// The folder need not exist: a backup then says that it is missing, and a restore makes
    /// it.
    ///
    /// # Errors
    /// As [`FilesBuilder::build`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().root("root", path).build()
    }

    /// Several roots, or globs to leave out.
    #[must_use]
    pub fn builder() -> FilesBuilder {
        FilesBuilder::default()
    }
}

impl FilesBuilder {
    /// Adds a root: the name stands in the archive, the path may differ from machine to
    /// machine.
    #[must_use]
    pub fn root(mut self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        self.roots.push((name.into(), path.as_ref().to_owned()));
        self
    }

    /// Leaves out what the glob matches, in every root.
    ///
    /// The rules are those of `.gitignore`: `*.tmp` matches at any depth; a glob with a `/`
    /// in it or before it is measured from the root (`/a`, `a/*.log`); one with a `/` after
    /// it matches folders only (`cache/`); `*` and `?` do not match `/`, `**` does;
    /// `{a,b}`, `[ch]` and `\` work. A folder that matches is left out with all that it
    /// holds, and nothing below can be taken in again: `!` is refused.
    #[must_use]
    pub fn exclude(mut self, glob: impl Into<String>) -> Self {
        self.exclude.push(glob.into());
        self
    }

    /// Switches entry by entry even where a whole folder could be exchanged at once. For
    /// tests.
    #[doc(hidden)]
    #[must_use]
    pub fn switch_stepwise(mut self) -> Self {
        self.stepwise = true;
        self
    }

    /// Checks what was said.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): no root, a name twice or empty, a root that
    /// is not a folder or lies within another, a glob that is wrong.
    pub fn build(self) -> Result<FilesStore> {
        let wrong = |what: &str| Error::new(ErrorKind::InvalidInput, what);
        let exclude = Exclude::new(&self.exclude)?;
        let mut roots: Vec<Root> = Vec::new();
        for (name, path) in self.roots {
            if name.is_empty() || roots.iter().any(|root| root.name == name) {
                return Err(wrong("every root needs a name of its own").on(name));
            }
            let path = absolute(&path)
                .map_err(|e| Error::io("a root has no place", e).on(path.display()))?;
            if path.exists() && !path.is_dir() {
                return Err(wrong("a root is not a folder").on(path.display()));
            }
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            for other in &roots {
                let theirs = other.path.canonicalize().unwrap_or_else(|_| other.path.clone());
                if real.starts_with(&theirs) || theirs.starts_with(&real) {
                    return Err(wrong("a root lies within another")
                        .on(path.display())
                        .advise("name the outer one alone, or two that lie side by side"));
                }
            }
            roots.push(Root { name, path, exclude: exclude.clone() });
        }
        if roots.is_empty() {
            return Err(wrong("a store of files needs a root"));
        }
        Ok(FilesStore { roots, stepwise: self.stepwise })
    }
}
