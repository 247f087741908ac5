//! What the server holds: collections, aliases and snapshots, in one folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::Options;
use crate::collection::{CONFIG_FILE, Collection, INDEX_FILE, Indexes};
use crate::config::{CollectionConfig, CreateCollection, check_collection_name};
use crate::error::{Error, Result};
use crate::files::write_json;
use crate::peer::Peer;
use crate::snapshot;

#[derive(Debug)]
pub(crate) struct State {
    dir: PathBuf,
    pub(crate) options: Options,
    named: Mutex<Named>,
}

#[derive(Debug, Default)]
struct Named {
    collections: BTreeMap<String, Arc<Collection>>,
    aliases: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the names of the API")]
pub(crate) enum AliasAction {
    CreateAlias { collection_name: String, alias_name: String },
    DeleteAlias { alias_name: String },
    RenameAlias { old_alias_name: String, new_alias_name: String },
}

#[derive(Debug, Serialize)]
pub(crate) struct Alias {
    alias_name: String,
    collection_name: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotInfo {
    pub(crate) name: String,
    creation_time: Option<String>,
    size: u64,
    checksum: Option<String>,
}

impl State {
    pub(crate) fn open(dir: &Path, options: Options) -> Result<Self> {
        for part in ["collections", "snapshots"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let temp = dir.join("temp");
        if temp.exists() {
            fs::remove_dir_all(&temp)?;
        }
        fs::create_dir(&temp)?;
        let mut named = Named::default();
        for entry in fs::read_dir(dir.join("collections"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.join(CONFIG_FILE).exists() && path.join(INDEX_FILE).exists() {
                named.collections.insert(name.clone(), Arc::new(Collection::open(&name, &path)?));
            } else {
                fs::remove_dir_all(&path)?;
            }
        }
        match fs::read(dir.join("aliases.json")) {
            Ok(aliases) => named.aliases = serde_json::from_slice(&aliases)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { dir: dir.to_owned(), options, named: Mutex::new(named) })
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn temp(&self) -> PathBuf {
        self.dir.join("temp")
    }

    fn collection_dir(&self, name: &str) -> PathBuf {
        self.dir.join("collections").join(name)
    }

    pub(crate) fn collection_names(&self) -> Vec<String> {
        self.named().collections.keys().cloned().collect()
    }

    /// The collection of a name or an alias.
    pub(crate) fn collection(&self, name: &str) -> Result<Arc<Collection>> {
        let named = self.named();
        let name = named.aliases.get(name).map_or(name, String::as_str);
        named.collections.get(name).cloned().ok_or_else(|| Error::no_collection(name))
    }

    pub(crate) fn create(&self, name: &str, body: CreateCollection) -> Result<()> {
        check_collection_name(name)?;
        let config = body.into_config()?;
        let mut named = self.named();
        named.check_free(name)?;
        let dir = self.collection_dir(name);
        let created =
            Collection::create(name, &dir, config, Indexes::default()).inspect_err(|_| {
                let _ = fs::remove_dir_all(&dir);
            })?;
        named.collections.insert(name.to_owned(), Arc::new(created));
        Ok(())
    }

    /// Deletes a collection and its aliases; false where there is none.
    pub(crate) fn delete(&self, name: &str) -> Result<bool> {
        let mut named = self.named();
        named.aliases.retain(|_, collection| collection != name);
        self.save_aliases(&named)?;
        let Some(collection) = named.collections.remove(name) else { return Ok(false) };
        let trash = self.unique_temp();
        collection.close();
        fs::rename(self.collection_dir(name), &trash)?;
        drop(named);
        Ok(fs::remove_dir_all(trash).is_ok())
    }

    /// Performs the actions one after the other; like a server, up to the first that fails.
    pub(crate) fn change_aliases(&self, actions: Vec<AliasAction>) -> Result<()> {
        let mut named = self.named();
        for action in actions {
            named.change_alias(action)?;
            self.save_aliases(&named)?;
        }
        Ok(())
    }

    fn save_aliases(&self, named: &Named) -> Result<()> {
        Ok(write_json(&self.dir.join("aliases.json"), &named.aliases)?)
    }

    /// All aliases, or those of a collection.
    pub(crate) fn aliases(&self, of: Option<&str>) -> Vec<Alias> {
        let named = self.named();
        (named.aliases.iter())
            .filter(|(_, collection)| of.is_none_or(|of| of == *collection))
            .map(|(alias, collection)| Alias {
                alias_name: alias.clone(),
                collection_name: collection.clone(),
            })
            .collect()
    }

    /// A name for a file or folder that is only needed for a while.
    pub(crate) fn unique_temp(&self) -> PathBuf {
        self.temp().join(uuid::Uuid::now_v7().to_string())
    }

    fn snapshots_dir(&self, collection: &str, shard: Option<u32>) -> PathBuf {
        let dir = self.dir.join("snapshots").join(collection);
        match shard {
            None => dir,
            Some(shard) => dir.join("shards").join(shard.to_string()),
        }
    }

    pub(crate) fn create_snapshot(
        &self,
        name: &str,
        shard: Option<u32>,
        peer: Peer,
    ) -> Result<SnapshotInfo> {
        let collection = self.collection(name)?;
        let time = jiff::Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S");
        let temp = self.unique_temp();
        let out = fs::File::create(&temp)?;
        let live = collection.read()?;
        let file_name = match shard {
            None => {
                snapshot::write_collection(&live, peer, out, &self.temp())?;
                format!("{}-{}-{time}.snapshot", collection.name, peer.id())
            }
            Some(id) => {
                snapshot::write_shard(live.shard(id)?, peer, out, &self.temp())?;
                format!("{}-shard-{id}-{time}.snapshot", collection.name)
            }
        };
        drop(live);
        let checksum = snapshot::sha256(&temp)?;
        let dir = self.snapshots_dir(&collection.name, shard);
        fs::create_dir_all(&dir)?;
        let path = dir.join(file_name);
        fs::write(checksum_path(&path), checksum)?;
        fs::rename(temp, &path)?;
        Ok(describe(&path)?)
    }

    pub(crate) fn snapshots(&self, name: &str, shard: Option<u32>) -> Result<Vec<SnapshotInfo>> {
        let collection = self.collection(name)?;
        if let Some(id) = shard {
            collection.read()?.shard(id)?;
        }
        let entries = match fs::read_dir(self.snapshots_dir(&collection.name, shard)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut snapshots = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.is_file() && path.extension().is_some_and(|e| e == "snapshot") {
                snapshots.push(describe(&path)?);
            }
        }
        Ok(snapshots)
    }

    pub(crate) fn snapshot_path(
        &self,
        name: &str,
        shard: Option<u32>,
        snapshot: &str,
    ) -> Result<PathBuf> {
        let collection = self.collection(name)?;
        if let Some(id) = shard {
            collection.read()?.shard(id)?;
        }
        let path = self.snapshots_dir(&collection.name, shard).join(snapshot);
        if snapshot.contains(['/', '\\']) || !path.is_file() {
            return Err(Error::not_found(format!("Snapshot {snapshot} not found")));
        }
        Ok(path)
    }

    pub(crate) fn delete_snapshot(
        &self,
        name: &str,
        shard: Option<u32>,
        snapshot: &str,
    ) -> Result<()> {
        let path = self.snapshot_path(name, shard, snapshot)?;
        fs::remove_file(&path)?;
        let _ = fs::remove_file(checksum_path(&path));
        Ok(())
    }

    /// Keeps an uploaded snapshot among those of the collection, as the server does.
    pub(crate) fn keep_upload(&self, name: &str, file: &str, upload: &Path) -> Result<PathBuf> {
        check_collection_name(name)?;
        let dir = self.snapshots_dir(name, None);
        fs::create_dir_all(&dir)?;
        let file = Path::new(file).file_name().and_then(|n| n.to_str());
        let path = dir.join(file.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned));
        fs::rename(upload, &path)?;
        Ok(path)
    }

    /// The file of a `file:` URL, which must lie among the snapshots.
    pub(crate) fn snapshot_of_url(&self, path: &str) -> Result<PathBuf> {
        let path = Path::new(path);
        if !path.exists() {
            return Err(Error::bad_request(format!("Snapshot file {path:?} does not exist")));
        }
        let allowed = self.dir.join("snapshots").canonicalize()?;
        let path = path.canonicalize()?;
        if !path.starts_with(&allowed) {
            return Err(Error::forbidden(format!(
                "Snapshot file path must be inside the snapshots directory {allowed:?}"
            )));
        }
        Ok(path)
    }

    /// The collection whose shard keys are to be changed, which only a cluster can do.
    pub(crate) fn keyed_collection(&self, name: &str) -> Result<Arc<Collection>> {
        if !self.options.cluster {
            return Err(Error::standalone("Qdrant is running in standalone mode"));
        }
        self.collection(name)
    }

    /// Recovers a collection from a snapshot: creates it with the snapshot's configuration and
    /// indexes, or replaces the points of one that is there, whose configuration stays.
    pub(crate) fn recover(&self, name: &str, snapshot: &Path) -> Result<()> {
        let folder = self.unique_temp();
        let recovered = self.recover_in(name, snapshot, &folder);
        let _ = fs::remove_dir_all(folder);
        recovered
    }

    fn recover_in(&self, name: &str, snapshot: &Path, folder: &Path) -> Result<()> {
        let config: CollectionConfig = snapshot::unpack_collection(snapshot, folder)?;
        if let Ok(collection) = self.collection(name) {
            config.check_replaces(&collection.read()?.config)?;
            let trash = self.unique_temp();
            let replaced = collection.replace(folder, &trash);
            let _ = fs::remove_dir_all(trash);
            return replaced;
        }
        let mut named = self.named();
        named.check_free(name)?;
        let dir = self.collection_dir(name);
        let collection = if config.is_custom() {
            // A server makes the collection without any key: there is no shard to recover.
            let indexes = serde_json::from_slice(&fs::read(folder.join(INDEX_FILE))?)?;
            Collection::create(name, &dir, config, indexes)?
        } else {
            fs::rename(folder, &dir)?;
            Collection::open(name, &dir)?
        };
        named.collections.insert(name.to_owned(), Arc::new(collection));
        Ok(())
    }

    pub(crate) fn recover_shard(&self, name: &str, id: u32, snapshot: &Path) -> Result<()> {
        let collection = self.collection(name)?;
        let (edge, indexes) = {
            let live = collection.read()?;
            live.shard(id)?;
            (live.config.edge()?, live.indexes.clone())
        };
        let (folder, trash) = (self.unique_temp(), self.unique_temp());
        let recovered = snapshot::unpack_shard(snapshot, &folder, &edge, &indexes)
            .and_then(|()| collection.replace_shard(id, &folder, &trash));
        let _ = fs::remove_dir_all(folder);
        let _ = fs::remove_dir_all(trash);
        recovered
    }
}

impl Named {
    fn check_free(&self, name: &str) -> Result<()> {
        self.check_no_collection(name)?;
        if self.aliases.contains_key(name) {
            return Err(Error::bad_input(format!(
                "Can't create collection with name {name}. Alias with the same name already exists"
            )));
        }
        Ok(())
    }

    fn check_no_collection(&self, name: &str) -> Result<()> {
        match self.collections.contains_key(name) {
            true => Err(Error::already_exists(format!("Collection `{name}` already exists!"))),
            false => Ok(()),
        }
    }

    fn change_alias(&mut self, action: AliasAction) -> Result<()> {
        match action {
            AliasAction::CreateAlias { collection_name, alias_name } => {
                if !self.collections.contains_key(&collection_name) {
                    return Err(Error::no_collection(&collection_name));
                }
                self.check_no_collection(&alias_name)?;
                self.aliases.insert(alias_name, collection_name);
            }
            AliasAction::DeleteAlias { alias_name } => {
                self.aliases.remove(&alias_name);
            }
            AliasAction::RenameAlias { old_alias_name, new_alias_name } => {
                let collection = self.aliases.remove(&old_alias_name).ok_or_else(|| {
                    Error::not_found(format!("Alias {old_alias_name} does not exists!"))
                })?;
                self.aliases.insert(new_alias_name, collection);
            }
        }
        Ok(())
    }
}

fn checksum_path(snapshot: &Path) -> PathBuf {
    let mut path = snapshot.as_os_str().to_owned();
    path.push(".checksum");
    path.into()
}

fn describe(path: &Path) -> io::Result<SnapshotInfo> {
    let metadata = path.metadata()?;
    let created = metadata
        .created()
        .ok()
        .and_then(seconds)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S").to_string());
    Ok(SnapshotInfo {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        creation_time: created,
        size: metadata.len(),
        checksum: fs::read_to_string(checksum_path(path)).ok(),
    })
}

fn seconds(time: SystemTime) -> Option<jiff::Timestamp> {
    let since: Duration = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    jiff::Timestamp::from_second(since.as_secs().try_into().ok()?).ok()
}
