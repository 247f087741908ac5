//! The folder that one restore works in: staged database, pre-image, and how far it came.
//!
//! It lies hidden beside the live database, so that space is checked in the right place:
//!
//! ```text
//! .state.db.restore-<id>/
//!     staged.db        what is to become live, or to be merged
//!     documents.jsonl  the schema documents that arrived
//!     blob.json        the image arrived whole
//!     seal.json        staged.db is complete and checked; its digests
//!     answers.db       of a merge: what the live database was seen to hold
//!     merged.db        of a merge: the pre-image with staged.db in it, to become live instead
//!     merged.json      merged.db is complete and checked; its digests
//!     pre-image.db     the live database as it was
//!     pre-image.json   the pre-image is complete; what it is
//!     reserve          room for taking the switch back
//!     committed        the switch was made
//!     undoing          the switch is being, or was, taken back
//! ```

use std::{
    fs,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use backup_core::{BlobContent, Error, ErrorKind, Result, WriteMode, record::Sha256Digest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{config::Config, copy};

/// What identifies the content of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// Masked digest of the file.
    pub(crate) image: Sha256Digest,
    /// Digest of schema and rows, where the image of equal content may differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<Sha256Digest>,
}

impl Fingerprint {
    /// Whether both are of the same content.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.image == other.image || (self.rows.is_some() && self.rows == other.rows)
    }
}

/// What was staged: written once it is complete and checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seal {
    /// The blob as it came out of the archive; none for the logical form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<BlobContent>,
    /// The staged database, which may since have got the target's page size.
    pub(crate) staged: Fingerprint,
}

/// What was live before the switch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "kebab-case")]
pub(crate) enum PreImage {
    /// No database.
    Absent,
    /// What SQLite could not read; its files were moved aside as they are.
    Unreadable,
    /// A database; `pre-image.db` is a copy.
    Database(Fingerprint),
}

const DOCUMENTS: &str = "documents.jsonl";
const KEPT: &str = "pre-image.json";
const MERGED: &str = "merged.json";

/// The folder of one restore.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    folder: PathBuf,
    mode: WriteMode,
}

/// What a token of this adapter holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StageData {
    database: PathBuf,
    folder: String,
}

impl Stage {
    /// The folder for a restore, not yet made.
    pub(crate) fn plan(config: &Config, restore_id: &str) -> Result<(Self, StageData)> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let id: String =
            restore_id.chars().map(|c| if plain(c) { c } else { '_' }).take(80).collect();
        let name = config.path.file_name().unwrap_or_default().to_string_lossy();
        // A file name has at most 255 bytes; what is unique stands at the end.
        let name: String = name.chars().take(30).collect();
        let folder = format!(".{name}.restore-{id}");
        let data = StageData { database: config.path.clone(), folder };
        Ok((Self::at(config, &data, WriteMode::Replace)?, data))
    }

    /// The folder that a token names.
    pub(crate) fn of(config: &Config, data: &StageData, mode: WriteMode) -> Result<Self> {
        if data.database != config.path {
            return Err(Error::new(
                ErrorKind::Incompatible,
                "a stage token belongs to another store",
            )
            .on(data.database.display()));
        }
        Self::at(config, data, mode)
    }

    fn at(config: &Config, data: &StageData, mode: WriteMode) -> Result<Self> {
        let name = Path::new(&data.folder);
        let plain = name.components().count() == 1 && name.file_name() == Some(name.as_os_str());
        match config.path.parent() {
            Some(parent) if plain => Ok(Self { folder: parent.join(name), mode }),
            _ => Err(Error::new(ErrorKind::Hostile, "a stage token names no folder of its own")
                .on(&data.folder)),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether what is staged is merged with the live database rather than put in its place.
    pub(crate) fn merges(&self) -> bool {
        self.mode == WriteMode::Merge
    }

    pub(crate) fn staged(&self) -> PathBuf {
        self.folder.join("staged.db")
    }

    pub(crate) fn merged(&self) -> PathBuf {
        self.folder.join("merged.db")
    }

    pub(crate) fn answers(&self) -> PathBuf {
        self.folder.join("answers.db")
    }

    /// The database that becomes live.
    pub(crate) fn next(&self) -> PathBuf {
        if self.merges() { self.merged() } else { self.staged() }
    }

    /// What identifies that database, once it is complete.
    pub(crate) fn next_fingerprint(&self) -> Result<Option<Fingerprint>> {
        match self.merges() {
            true => self.read(MERGED),
            false => Ok(self.seal()?.map(|seal| seal.staged)),
        }
    }

    pub(crate) fn pre_image(&self) -> PathBuf {
        self.folder.join("pre-image.db")
    }

    /// A file for a copy that is needed for a moment.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.join("scratch.db")
    }

    fn reserve(&self) -> PathBuf {
        self.folder.join("reserve")
    }

    /// Sets room aside, so that a disk that fills up in the switch leaves enough to look at
    /// the database and to take the switch back. What a file system cannot set aside is left
    /// to chance.
    pub(crate) fn set_room_aside(&self, bytes: u64) -> Result<()> {
        let failed = |e| self.failed("no room could be set aside for taking the restore back", e);
        let file = fs::File::create(self.reserve()).map_err(failed)?;
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Err(e) if e == rustix::io::Errno::NOSPC => return Err(failed(e.into())),
            _ => {}
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (file, bytes);
        Ok(())
    }

    /// Gives that room back.
    pub(crate) fn use_room(&self) -> Result<()> {
        match fs::remove_file(self.reserve()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(self.failed("the room that was set aside could not be used", e))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.folder.is_dir()
    }

    /// Makes the folder, for this user alone.
    pub(crate) fn make(&self) -> Result<()> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&self.folder)
            .map_err(|e| self.failed("could not make a folder to restore into", e))?;
        self.sync_parent()
    }

    /// Removes the folder and all in it. It is renamed first: so it is there or not, and
    /// never there in part.
    pub(crate) fn remove(&self) -> Result<()> {
        let mut doomed = self.folder.clone().into_os_string();
        doomed.push(".done");
        let doomed = PathBuf::from(doomed);
        let failed = |e| self.failed("could not remove what a restore left", e);
        if self.exists() {
            fs::rename(&self.folder, &doomed).map_err(failed)?;
            self.sync_parent()?;
        }
        match fs::remove_dir_all(&doomed) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(e)),
            _ => self.sync_parent(),
        }
    }

    /// The masked ranges of a blob that arrived whole.
    pub(crate) fn arrived(&self) -> Result<Option<Vec<Range<u64>>>> {
        self.read("blob.json")
    }

    pub(crate) fn write_arrived(&self, masked: &[Range<u64>]) -> Result<()> {
        self.write("blob.json", &masked)
    }

    /// The schema documents that arrived, in their order.
    pub(crate) fn documents(&self) -> Result<Vec<(String, serde_json::Value)>> {
        let path = self.folder.join(DOCUMENTS);
        let failed = |e| self.failed("could not read the state of a restore", e);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        // A last line without its end is of a document that did not arrive.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).map_err(|e| failed(e.into()))).collect()
    }

    pub(crate) fn add_document(&self, name: &str, document: &serde_json::Value) -> Result<()> {
        let failed = |e| self.failed("could not record the state of a restore", e);
        let mut line = serde_json::to_vec(&(name, document)).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        let file = fs::File::options().append(true).create(true).open(self.folder.join(DOCUMENTS));
        file.and_then(|mut file| file.write_all(&line)).map_err(failed)
    }

    pub(crate) fn seal(&self) -> Result<Option<Seal>> {
        self.read("seal.json")
    }

    pub(crate) fn write_seal(&self, seal: &Seal) -> Result<()> {
        self.write("seal.json", seal)
    }

    pub(crate) fn write_merged(&self, fingerprint: &Fingerprint) -> Result<()> {
        self.write(MERGED, fingerprint)
    }

    pub(crate) fn kept(&self) -> Result<Option<PreImage>> {
        self.read(KEPT)
    }

    pub(crate) fn write_kept(&self, kept: &PreImage) -> Result<()> {
        self.write(KEPT, kept)
    }

    /// Before another pre-image is taken, as a switch that was tried before was not made.
    pub(crate) fn forget_kept(&self) -> Result<()> {
        match fs::remove_file(self.folder.join(KEPT)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(self.failed("could not record the state of a restore", e))
            }
            _ => sync_folder(&self.folder),
        }
    }

    pub(crate) fn is_committed(&self) -> bool {
        self.folder.join("committed").exists()
    }

    pub(crate) fn mark_committed(&self) -> Result<()> {
        self.write("committed", &())
    }

    pub(crate) fn is_undoing(&self) -> bool {
        self.folder.join("undoing").exists()
    }

    pub(crate) fn mark_undoing(&self) -> Result<()> {
        self.write("undoing", &())
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let text = match fs::read(self.folder.join(name)) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.failed("could not read the state of a restore", e)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "the state of a restore cannot be read")
                .on(self.folder.join(name).display())
                .because(e)
        })
    }

    // To a temporary name, synced, renamed: the file is whole or not there.
    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let failed = |e| self.failed("could not record the state of a restore", e);
        let text = serde_json::to_vec(value).map_err(|e| failed(e.into()))?;
        let temporary = self.folder.join(format!("{name}.new"));
        fs::write(&temporary, text).map_err(failed)?;
        copy::sync(&temporary)?;
        fs::rename(&temporary, self.folder.join(name)).map_err(failed)?;
        sync_folder(&self.folder)
    }

    fn sync_parent(&self) -> Result<()> {
        self.folder.parent().map_or(Ok(()), sync_folder)
    }

    fn failed(&self, what: &str, cause: std::io::Error) -> Error {
        Error::io(what, cause).on(self.folder.display())
    }
}

/// Writes a folder's entries through to the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    // Elsewhere a folder cannot be opened, and renames are written through by themselves.
    #[cfg(unix)]
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| {
        Error::io("could not write a folder through to the disk", e).on(folder.display())
    })?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
