//! What a restore leaves in the folder of a shard.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::files::{self, fail};
use crate::schema::Document;

const NAME: &str = "backup-kit.json";

/// Beside the engine's own files: what the engine has no place for.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Note {
    /// What was restored: a server's collection has settings that a shard does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) document: Option<Document>,
    /// The restore that made the folder, by a name that no other has.
    pub(crate) restore: String,
}

impl Note {
    pub(crate) fn read(shard: &Path) -> Result<Option<Self>> {
        read(&shard.join(NAME))
    }

    pub(crate) fn write(&self, shard: &Path) -> Result<()> {
        write(&shard.join(NAME), self)
    }
}

/// Reads a file of JSON; `None` where there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        text => text.map_err(fail("could not read a file of an earlier restore", path))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "a file that an earlier restore wrote cannot be read")
            .on(path.display())
            .advise("put it back from a copy, or remove it")
            .because(e)
    })
}

/// Writes a file of JSON, whole or not at all.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let failed = || fail("could not write a file", path);
    let text = serde_json::to_vec(value).map_err(|e| failed()(e.into()))?;
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, path)).map_err(failed())?;
    path.parent().map_or(Ok(()), files::sync)
}
