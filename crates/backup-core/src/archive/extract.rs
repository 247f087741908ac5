//! Parts as plain files in a folder.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    entry::{EntryHead, PartEntry, PartKind},
    reader::Archive,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
};

/// What [`Archive::extract`] wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ExtractReport {
    /// Files, folders and links.
    pub parts: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

impl Archive {
    /// Writes the wanted parts below `folder`, as `tar xzf` would, checking every hash.
    ///
    /// `manifest.json` is written along with them, index pages are not. Files of trees get
    /// their mode and modification time; owners, and modes of folders, are left as the
    /// system makes them.
    ///
    /// # Errors
    /// A folder that is not empty; damage, naming the part, whose file is then removed;
    /// names that the file system cannot hold side by side.
    ///
    /// # Security
    /// Paths cannot lead out of `folder`: it must be new or empty, names are escaped, and
    /// nothing is written below a link.
    pub fn extract(
        &self,
        folder: impl AsRef<Path>,
        wanted: impl Fn(&PartEntry) -> bool + Send + 'static,
        cancel: &Cancel,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<ExtractReport> {
        let target = Target::create(folder.as_ref())?;
        let mut report = ExtractReport::default();
        let mut scan = self.scan(wanted, cancel)?;
        while let Some(part) = scan.next_part()? {
            report.bytes += target.part(&part, &mut |out| {
                while let Some(chunk) = scan.chunk()? {
                    out.write_all(&chunk).map_err(not_written)?;
                    progress(chunk.len() as u64);
                }
                Ok(())
            })?;
            report.parts += 1;
        }
        target.file("manifest.json", &mut |out| {
            out.write_all(&self.manifest().to_json()?).map_err(not_written)
        })?;
        Ok(report)
    }
}

fn not_written(error: io::Error) -> Error {
    Error::io("a file could not be written", error)
}

/// A folder that only this run writes to.
pub(super) struct Target {
    root: PathBuf,
    // Found or made with all above it, so that a million files of one folder ask once.
    folder: RefCell<PathBuf>,
}

type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<()>;

impl Target {
    pub(super) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .and_then(|()| fs::read_dir(folder))
            .map_err(|e| Error::io("the folder could not be made", e))
            .and_then(|mut entries| match entries.next() {
                None => {
                    Ok(Self { root: folder.to_owned(), folder: RefCell::new(folder.to_owned()) })
                }
                Some(_) => Err(Error::new(ErrorKind::AlreadyExists, "the folder is not empty")
                    .advise("name a new or an empty folder")),
            })
            .map_err(|e| e.on(folder.display()))
    }

    /// Writes one part; its bytes.
    pub(super) fn part(&self, part: &PartEntry, fill: Fill<'_>) -> Result<u64> {
        match &part.kind {
            PartKind::Entry { entry: EntryHead::Directory, .. } => {
                // Checked all the same: there must be no content.
                fill(&mut io::sink())?;
                self.folder(&self.place(&part.path)?).map_err(|e| e.on(&part.path))?;
            }
            PartKind::Entry { entry: EntryHead::Symlink(target), .. } => {
                fill(&mut io::sink())?;
                link(target, &self.place(&part.path)?)
                    .map_err(|e| not_written(e).on(&part.path))?;
            }
            PartKind::Entry { entry: EntryHead::File, mode, modified, .. } => {
                let file = self.file(&part.path, fill)?;
                facts(&file, *mode, *modified).map_err(|e| not_written(e).on(&part.path))?;
            }
            _ => drop(self.file(&part.path, fill)?),
        }
        Ok(part.size)
    }

    /// Writes one file; removes it where `fill` fails.
    pub(super) fn file(&self, path: &str, fill: Fill<'_>) -> Result<File> {
        let place = self.place(path)?;
        let mut file = File::create_new(&place).map_err(|e| {
            Error::io("a file could not be created", e)
                .on(path)
                .advise("extract to a file system that tells these names apart")
        })?;
        if let Err(error) = fill(&mut file) {
            let _ = fs::remove_file(&place);
            return Err(error.on(path));
        }
        Ok(file)
    }

    // Folders above a part are made as needed. Names were escaped by the writer, and the
    // reader refused all others: what is left to check is cheap enough to check again.
    fn place(&self, path: &str) -> Result<PathBuf> {
        let plain = path.split('/').all(|name| !matches!(name, "" | "." | ".."));
        if !plain || path.contains(['\\', '\0']) {
            return Err(Error::new(ErrorKind::Hostile, "a part's path leads astray").on(path));
        }
        let place = self.root.join(path);
        if let Some(parent) = place.parent() {
            self.folder(parent).map_err(|e| e.on(path))?;
        }
        Ok(place)
    }

    // Makes a folder and those above it, name by name, so that none is reached through a link:
    // salvage takes parts whose order nobody has checked.
    fn folder(&self, folder: &Path) -> Result<()> {
        if *self.folder.borrow() == folder {
            return Ok(());
        }
        let mut made = self.root.clone();
        for name in folder.strip_prefix(&self.root).unwrap_or(folder) {
            made.push(name);
            match fs::create_dir(&made) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    if !fs::symlink_metadata(&made).map_err(not_written)?.is_dir() {
                        let what = "a part lies below what is no folder";
                        return Err(Error::new(ErrorKind::Hostile, what));
                    }
                }
                done => done.map_err(not_written)?,
            }
        }
        *self.folder.borrow_mut() = made;
        Ok(())
    }
}

#[cfg(unix)]
fn link(target: &[u8], place: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), place)
}

#[cfg(not(unix))]
fn link(_: &[u8], _: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "links are extracted on Unix only"))
}

fn facts(file: &File, mode: u32, (seconds, nanos): (i64, u32)) -> io::Result<()> {
    use std::time::{Duration, SystemTime};
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
    }
    #[cfg(not(unix))]
    let _ = mode;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    match base.and_then(|t| t.checked_add(Duration::from_nanos(nanos.into()))) {
        Some(time) => file.set_modified(time),
        None => Ok(()),
    }
}
