//! A folder of backups.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use crate::{
    adapter::Adapter,
    archive::{Archive, Codec, OutputFile},
    clock::{ArchiveId, Timestamp},
    error::{Error, ErrorKind, Result},
    manifest::Manifest,
};

const LOCK: &str = "catalog.lock";
const ENDINGS: [&str; 4] = [".tar.gz", ".ngbak", ".tar.zst", ".tar"];

/// A folder of backups, named `<application>-<time>-<id>.tar.gz`.
///
/// What a backup *is* is decided by its content, never by its name: a file that was cut is
/// listed as damaged, and what a run that died left behind is no backup.
///
/// ```
/// use backup_core::Catalog;
///
/// # let folder = tempfile::tempdir()?;
/// let catalog = Catalog::open(folder.path())?;
/// assert!(catalog.list()?.backups.is_empty());
/// assert!(catalog.latest().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Catalog {
    dir: PathBuf,
}

/// What a [`Catalog`] holds.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// The backups, the oldest first.
    pub backups: Vec<CatalogEntry>,
    /// Files that are named like a backup and cannot be opened as one.
    pub damaged: Vec<(PathBuf, Error)>,
    /// What runs that died, or are still under way, left.
    pub leftovers: Vec<PathBuf>,
}

/// One backup of a [`Listing`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CatalogEntry {
    /// Where it is.
    pub path: PathBuf,
    /// Length of the file in bytes.
    pub size: u64,
    /// What the archive says of itself.
    pub manifest: Manifest,
}

/// Keeps other backups out of a catalog until it is dropped. The system lets go of it when
/// a process dies.
#[derive(Debug)]
pub struct CatalogLock {
    _file: File,
}

impl Catalog {
    /// Opens a catalog; the folder is made if it is not there.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|e| {
            Error::io("the catalog's folder could not be made", e).on(dir.display())
        })?;
        Ok(Self { dir })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Everything in the folder; reads trailer and root of each file.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn list(&self) -> Result<Listing> {
        let failed = |e| Error::io("the catalog could not be read", e).on(self.dir.display());
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = entry.path();
            if is_leftover(&name) {
                listing.leftovers.push(path);
            } else if is_backup(&name) && path.is_file() {
                match Archive::open(&path) {
                    Ok(archive) => listing.backups.push(CatalogEntry {
                        size: archive.size(),
                        manifest: archive.manifest().clone(),
                        path,
                    }),
                    // Removed since the folder was read.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => listing.damaged.push((path, error)),
                }
            }
        }
        listing.backups.sort_by(|a, b| {
            let key = |e: &CatalogEntry| (e.manifest.created, e.manifest.id, e.path.clone());
            key(a).cmp(&key(b))
        });
        listing.damaged.sort_by(|a, b| a.0.cmp(&b.0));
        listing.leftovers.sort();
        Ok(listing)
    }

    /// The newest backup.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where there is none.
    pub fn latest(&self) -> Result<Archive> {
        let newest = self.list()?.backups.pop().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the catalog holds no backup").on(self.dir.display())
        })?;
        Archive::open(newest.path)
    }

    /// Finds a backup: `latest`, a path, a file name in the catalog, or an id. Of an id the
    /// first eight digits or more are enough, or the eight in the file's name, where only one
    /// backup has them.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`InvalidInput`](ErrorKind::InvalidInput) where it
    /// may mean several.
    pub fn get(&self, which: &str) -> Result<Archive> {
        if which == "latest" {
            return self.latest();
        }
        for path in [PathBuf::from(which), self.dir.join(which)] {
            if path.is_file() {
                return Archive::open(path);
            }
        }
        let not_found = || {
            Error::new(ErrorKind::NotFound, "there is no such backup")
                .on(which)
                .advise("name a file, an id that list shows, or latest")
        };
        if which.len() < 8 || !which.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-') {
            return Err(not_found());
        }
        let wanted = which.to_ascii_lowercase();
        let mut found = self.list()?.backups;
        found.retain(|entry| {
            let id = entry.manifest.id;
            id.to_string().starts_with(&wanted) || short(id) == wanted
        });
        match &found[..] {
            [one] => Archive::open(&one.path),
            [] => Err(not_found()),
            _ => Err(Error::new(ErrorKind::InvalidInput, "several backups have such an id")
                .on(which)
                .advise("give more digits, or the file's name")),
        }
    }

    /// Keeps other backups out, and removes what dead ones left.
    ///
    /// # Errors
    /// [`Locked`](ErrorKind::Locked) where another backup is under way.
    pub fn lock(&self) -> Result<CatalogLock> {
        let path = self.dir.join(LOCK);
        let failed = |e| Error::io("the catalog could not be locked", e).on(path.display());
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(
                    Error::new(ErrorKind::Locked, "another backup is under way").on(path.display())
                );
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        // Who wrote them held this lock, and is gone.
        let inside = fs::read_dir(&self.dir).map_err(failed)?.flatten();
        for left in inside.filter(|entry| is_leftover(&entry.file_name().to_string_lossy())) {
            // One that cannot be removed harms nothing: it is never listed.
            let _ = fs::remove_file(left.path());
        }
        Ok(CatalogLock { _file: file })
    }

    // The file of a new backup.
    pub(crate) fn file(
        &self,
        application: &str,
        created: Timestamp,
        id: ArchiveId,
        codec: Codec,
    ) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' };
        let name: String = application.chars().take(80).map(plain).collect();
        let name = name.trim_start_matches(['.', '-']);
        let name = if name.is_empty() { "backup" } else { name };
        let ending = match codec {
            Codec::Gzip => ".tar.gz",
            Codec::Zstd => ".tar.zst",
            Codec::None => ".tar",
        };
        self.dir.join(format!("{name}-{}-{}{ending}", created.compact(), short(id)))
    }
}

// The end of an id, since its beginning is the time and alike for a minute.
fn short(id: ArchiveId) -> String {
    let text = id.to_string();
    text[text.len() - 8..].to_owned()
}

fn is_backup(name: &str) -> bool {
    !name.starts_with('.') && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn is_leftover(name: &str) -> bool {
    let inner = name.strip_prefix('.').and_then(|n| n.strip_suffix(OutputFile::TEMPORARY));
    // `<name of a backup>.<process>-<id>`
    inner
        .and_then(|n| n.rsplit_once('.'))
        .is_some_and(|(target, _)| is_backup(target.strip_suffix(".sha256").unwrap_or(target)))
}

/// Whether a folder is, or was, a catalog.
pub(crate) fn is_catalog(dir: &Path) -> bool {
    dir.join(LOCK).is_file()
}

/// What of a catalog's folder a store must neither read nor replace: all of it or, where the
/// folder is around the store, what this library put there.
pub(crate) fn off_limits<A: Adapter + ?Sized>(dir: &Path, store: &A) -> Vec<PathBuf> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut places = store.owned_paths().into_iter().chain(store.roots());
    if !places.any(|path| real(&path).starts_with(real(dir))) {
        return vec![dir.to_owned()];
    }
    let inside = fs::read_dir(dir).into_iter().flatten().flatten();
    let ours = inside.filter(|entry| is_ours(&entry.file_name().to_string_lossy()));
    ours.map(|entry| entry.path()).collect()
}

/// Whether a file in a catalog's folder was put there by this library.
fn is_ours(name: &str) -> bool {
    let beside = ["restore.journal", "restore.lock", LOCK];
    let target = name.strip_suffix(".sha256").unwrap_or(name);
    is_backup(target) || is_leftover(name) || beside.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_leftovers_are_known() {
        let catalog = Catalog { dir: "c".into() };
        let id = ArchiveId::from_bytes([0xab; 16]);
        let time = Timestamp::from_micros(0);
        let name = |application: &str| {
            let path = catalog.file(application, time, id, Codec::Gzip);
            path.file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(name("docs-memory"), "docs-memory-19700101T000000Z-abababab.tar.gz");
        assert_eq!(name("../a b/ü"), "a-b---19700101T000000Z-abababab.tar.gz");
        assert_eq!(name(""), "backup-19700101T000000Z-abababab.tar.gz");
        let left = OutputFile::create(tempfile::tempdir().unwrap().keep().join("x.tar.gz"), false)
            .unwrap();
        let name = left.temporary().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(is_leftover(&name) && !is_backup(&name) && is_ours(&name), "{name}");
        for other in [".hidden.partial", "x.tar.gz.partial", ".x.tar.gz", "notes.txt"] {
            assert!(!is_leftover(other), "{other}");
        }
        assert!(!is_ours("notes.txt") && is_ours("x.tar.gz.sha256"));
    }

    #[test]
    fn one_backup_at_a_time_and_dead_ones_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path().join("deep/er")).unwrap();
        let left = catalog.dir().join(".a.tar.gz.1-0.partial");
        fs::write(&left, "half").unwrap();
        fs::write(catalog.dir().join("cut.tar.gz"), "half").unwrap();
        let listing = catalog.list().unwrap();
        assert_eq!(listing.leftovers.as_slice(), std::slice::from_ref(&left));
        assert_eq!((listing.backups.len(), listing.damaged.len()), (0, 1));
        let lock = catalog.lock().unwrap();
        assert!(!left.exists());
        assert_eq!(catalog.lock().unwrap_err().kind(), ErrorKind::Locked);
        drop(lock);
        catalog.lock().unwrap();
        assert_eq!(catalog.get("cut.tar.gz").unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(catalog.get("12345678").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(catalog.get("nonsense").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_is_off_limits_to_a_store() {
        struct At(Vec<PathBuf>);
        #[crate::async_trait]
        impl Adapter for At {
            fn kind(&self) -> &'static str {
                "at"
            }
            fn capabilities(&self) -> crate::Capabilities {
                crate::Capabilities::default()
            }
            fn roots(&self) -> Vec<PathBuf> {
                self.0.clone()
            }
            async fn describe(&self) -> Result<crate::Description> {
                Ok(crate::Description::default())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let (around, root) = (dir.path(), dir.path().join("root"));
        let catalog = Catalog::open(root.join("backups")).unwrap();
        assert!(!is_catalog(catalog.dir()));
        catalog.lock().unwrap();
        assert!(is_catalog(catalog.dir()));
        fs::write(catalog.dir().join("x.tar.gz"), "").unwrap();
        fs::write(around.join("x.tar.gz"), "").unwrap();
        fs::write(around.join("mine"), "").unwrap();
        let store = At(vec![root]);
        assert_eq!(off_limits(catalog.dir(), &store), [catalog.dir()]);
        assert_eq!(off_limits(around, &store), [around.join("x.tar.gz")]);
        assert_eq!(off_limits(around, &At(Vec::new())), [around]);
    }
}
