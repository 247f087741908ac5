//! How a server is reached, and what of it belongs to the store.

use std::{collections::BTreeSet, fmt, path::Path, sync::Arc, time::Duration};

use backup_core::{Error, ErrorKind, Result};
use globset::{Glob, GlobSet, GlobSetBuilder};
use redis::{ConnectionInfo, IntoConnectionInfo, TlsCertificates};

use crate::{
    RedisStore,
    client::Client,
    error,
    naming::{Naming, Prefixes},
};

/// How a Redis server or cluster is reached, and which of its keys belong to the store.
#[derive(Clone)]
pub struct RedisOptions {
    url: String,
    username: Option<String>,
    password: Option<String>,
    root_certificate: Option<Vec<u8>>,
    sentinel: Option<String>,
    timeout: Duration,
    databases: Vec<u32>,
    prefixes: Prefixes,
    keys: Vec<String>,
    types: BTreeSet<String>,
    globs: Option<GlobSet>,
    pub(crate) look_inside: bool,
    pub(crate) consistency: Consistency,
    pub(crate) snapshot_on_disk: bool,
    pub(crate) native: bool,
    pub(crate) spare: Option<u32>,
    pub(crate) expiry: Expiry,
    pub(crate) after_switch: Option<Hook>,
    pub(crate) functions: bool,
    pub(crate) users: bool,
    pub(crate) settings: BTreeSet<String>,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

/// What a backup sees of a store that the application goes on writing to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// Each key as it is when its turn comes. Keys whose value is larger than a page and that
    /// were changed meanwhile are named, and the backup is then partial.
    #[default]
    Fuzzy,
    /// One moment: the server holds writers back (`CLIENT PAUSE … WRITE`) until all is read, at
    /// most this long. What takes longer is an error, and writers go on at the latest then.
    Paused(Duration),
    /// One moment: that at which the server forks for a replica, which sees all of it and is
    /// this backup (`PSYNC`). The application is not held back while it is read. In a cluster
    /// writers are, until every primary has forked.
    ///
    /// The time is the longest that this may take: a server lets a snapshot that is under way
    /// end first, and waits for `repl-diskless-sync-delay` (5 seconds by default) for other
    /// replicas. It needs memory for what is changed while it is read, as for any replica. The
    /// user needs the rights `+psync +replconf`; servers of providers often have neither.
    Snapshot(Duration),
}

/// What becomes of the deadlines of keys at a restore.
///
/// A key whose deadline has passed by the end of the restore is gone then, as it would be had
/// it never been away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiry {
    /// They stay the moments that they were.
    #[default]
    Deadline,
    /// They are moved by as much as has passed since this moment, in milliseconds since 1970:
    /// with that of the backup, every key gets the time that it had left.
    Remaining {
        /// When the backup was taken.
        taken_at_ms: i64,
    },
}

impl RedisOptions {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            username: None,
            password: None,
            root_certificate: None,
            sentinel: None,
            timeout: Duration::from_secs(60),
            databases: Vec::new(),
            prefixes: Prefixes::None,
            keys: Vec::new(),
            types: BTreeSet::new(),
            globs: None,
            look_inside: true,
            consistency: Consistency::Fuzzy,
            snapshot_on_disk: false,
            native: false,
            spare: None,
            expiry: Expiry::Deadline,
            after_switch: None,
            functions: false,
            users: false,
            settings: BTreeSet::new(),
        }
    }

    /// The user, where it is not the default one.
    #[must_use]
    pub fn username(mut self, name: &str) -> Self {
        self.username = Some(name.to_owned());
        self
    }

    /// The password. It goes to the server and nowhere else.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// The password that an environment variable holds.
    ///
    /// # Errors
    /// A variable that is not set, or empty.
    pub fn password_env(self, variable: &str) -> Result<Self> {
        match std::env::var(variable) {
            Ok(password) if !password.is_empty() => Ok(self.password(&password)),
            _ => {
                let what = "the environment variable with the password is not set";
                Err(Error::new(ErrorKind::InvalidInput, what).on(variable))
            }
        }
    }

    /// The password that a file holds; a line feed at its end does not count.
    ///
    /// # Errors
    /// A file that cannot be read, or is empty.
    pub fn password_file(self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::io("the password cannot be read", e).on(path.display()))?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            let what = "the file with the password is empty";
            return Err(Error::new(ErrorKind::InvalidInput, what).on(path.display()));
        }
        Ok(self.password(password))
    }

    /// The certificate in PEM form that signs the server's, for an address with `rediss://`; by
    /// default those that the system trusts.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// The address is that of a sentinel, which is asked for the primary of this name.
    #[must_use]
    pub fn sentinel(mut self, name: &str) -> Self {
        self.sentinel = Some(name.to_owned());
        self
    }

    /// How long the server may take for one request; 60 seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The logical databases that belong to the store; by default the one that the address
    /// names. With several, collections are named `db<number>/<name>`.
    #[must_use]
    pub fn databases(mut self, numbers: impl IntoIterator<Item = u32>) -> Self {
        self.databases.extend(numbers);
        self
    }

    /// Makes a collection of every key prefix, which ends at the first colon: `notes:1` is the
    /// record `1` of `notes`. Keys without one are in the collection `keys`. By default all
    /// keys of a database are one collection.
    ///
    /// A store may have 4096 of them; keys that begin with an id have too many.
    #[must_use]
    pub fn every_prefix(mut self) -> Self {
        self.prefixes = Prefixes::Every;
        self
    }

    /// Makes a collection of each of these key prefixes, and leaves all other keys in `keys`.
    #[must_use]
    pub fn prefixes<S: Into<String>>(mut self, prefixes: impl IntoIterator<Item = S>) -> Self {
        let mut all = match self.prefixes {
            Prefixes::Of(some) => some,
            _ => BTreeSet::new(),
        };
        all.extend(prefixes.into_iter().map(Into::into));
        self.prefixes = Prefixes::Of(all);
        self
    }

    /// The keys that belong to the store, with `*`, `?` and `[…]`; by default all. A restore
    /// leaves the others alone.
    #[must_use]
    pub fn keys<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.keys.extend(globs.into_iter().map(Into::into));
        self
    }

    /// The types of keys that a backup reads, as `TYPE` calls them: `string`, `hash`, `zset`.
    /// By default all.
    #[must_use]
    pub fn types<S: Into<String>>(mut self, types: impl IntoIterator<Item = S>) -> Self {
        self.types.extend(types.into_iter().map(Into::into));
        self
    }

    /// Carries strings as they are, without looking for JSON in them.
    #[must_use]
    pub fn plain_strings(mut self) -> Self {
        self.look_inside = false;
        self
    }

    /// What a backup sees of a store that is written to meanwhile.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// Has the server write a [snapshot](Consistency::Snapshot) to its own disk first, whatever
    /// its `repl-diskless-sync` says: there needs to be room for it. The server begins at once, and
    /// the backup may be as slow as it likes, where a server that sends it straight from its
    /// fork gives up on a reader that stands still for `repl-timeout` (60 seconds by default).
    #[must_use]
    pub fn snapshot_on_disk(mut self) -> Self {
        self.snapshot_on_disk = true;
        self
    }

    /// Backs up the server's own [snapshot](Consistency::Snapshot) as one file, with all logical
    /// databases, functions and whatever modules keep: to be restored to a server of the same
    /// version or a newer one that is stopped ([`RedisFolder`](crate::RedisFolder)), or to be read
    /// as records ([`RdbFile::in_archive`](crate::RdbFile::in_archive)). It is begun within a
    /// minute, where no other consistency `Snapshot` is named. Not for clusters, and not for a
    /// store of some keys.
    #[must_use]
    pub fn native(mut self) -> Self {
        self.native = true;
        self
    }

    /// The empty logical database in which a restore stages; by default one that is found to
    /// be empty.
    #[must_use]
    pub fn spare_database(mut self, number: u32) -> Self {
        self.spare = Some(number);
        self
    }

    /// What becomes of the deadlines of keys at a restore.
    #[must_use]
    pub fn expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Called when live content was switched, at a restore and at its undo: time to flush what
    /// clients cache, of which a server that swaps databases tells nobody.
    #[must_use]
    pub fn after_switch(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.after_switch = Some(Arc::new(hook));
        self
    }

    /// The server's libraries of functions belong to the store: the collection `server:functions`.
    /// Loading them is left to applications otherwise. A restore gives them to every primary, all
    /// or none, and takes them back when it is undone.
    ///
    /// As with [`users`](Self::users) and [`settings`](Self::settings), an archive that has them is
    /// restored by a store that is opened so, too, or without that collection.
    #[must_use]
    pub fn functions(mut self) -> Self {
        self.functions = true;
        self
    }

    /// The server's users belong to the store: the collection `server:users`, with the digests
    /// of their passwords, which are secrets (see *Security*).
    ///
    /// A restore makes the users of every primary those of the archive. The user as whom it works
    /// stays as it is: an archive that has other rules for it is refused. Users hold until the
    /// server restarts, unless `ACL SAVE` or `CONFIG REWRITE` keeps them; replicas have their own.
    ///
    /// # Security
    /// Servers keep passwords as SHA-256 without salt. Who reads the archive can try words against
    /// them as fast as a machine hashes, so short passwords are as good as told.
    #[must_use]
    pub fn users(mut self) -> Self {
        self.users = true;
        self
    }

    /// Some of the server's settings belong to the store: the collection `server:settings`. Each
    /// is named, since most of what `CONFIG GET *` tells is about one machine: its addresses,
    /// paths and memory. A restore sets them on every primary, all or none, until the server
    /// restarts, unless `CONFIG REWRITE` keeps them.
    #[must_use]
    pub fn settings<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.settings.extend(names.into_iter().map(|name| name.into().to_ascii_lowercase()));
        self
    }

    /// A store at this server, which is not asked anything yet.
    ///
    /// # Errors
    /// No Tokio runtime, an address that is none, a pattern that is none, a setting that is a
    /// secret.
    pub fn open(mut self) -> Result<RedisStore> {
        if self.native {
            if !self.keys.is_empty() || !self.types.is_empty() {
                let what = "a native backup is of all keys";
                return Err(Error::new(ErrorKind::InvalidInput, what));
            }
            if self.functions || self.users || !self.settings.is_empty() {
                let what = "a native backup has functions by itself, and no users and settings";
                return Err(Error::new(ErrorKind::InvalidInput, what));
            }
            if !matches!(self.consistency, Consistency::Snapshot(_)) {
                self.consistency = Consistency::Snapshot(Duration::from_secs(60));
            }
        }
        if !self.keys.is_empty() {
            self.globs = Some(globs(&self.keys)?);
        }
        if let Prefixes::Of(some) = &self.prefixes
            && let Some(bad) = some.iter().find(|p| p.is_empty() || p.contains(':'))
        {
            let what = "a key prefix is given without its colon, and is not empty";
            return Err(Error::new(ErrorKind::InvalidInput, what).on(bad));
        }
        self.settings.iter().try_for_each(|name| plain(name))?;
        let mut info = address(&self.url)?;
        let mut settings = info.redis_settings().clone();
        if let Some(name) = &self.username {
            settings = settings.set_username(name);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        info = info.set_redis_settings(settings);
        let certificates = self
            .root_certificate
            .clone()
            .map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        let client = Client::new(info, certificates, self.sentinel.clone(), self.timeout)?;
        if self.databases.is_empty() {
            self.databases.push(client.database());
        }
        self.databases.sort_unstable();
        self.databases.dedup();
        Ok(RedisStore { client, options: Arc::new(self) })
    }

    /// A store at this server, which has to answer.
    ///
    /// # Errors
    /// As [`open`](Self::open); a server that does not answer, refuses the password, or is older
    /// than Redis 7.0.
    pub async fn connect(self) -> Result<RedisStore> {
        let store = self.open()?;
        let client = store.client.clone();
        store.client.run(async move { crate::store::version(&client).await }).await?;
        Ok(store)
    }

    pub(crate) fn naming(&self) -> Naming {
        Naming::new(self.prefixes.clone(), self.databases.clone())
    }

    /// Whether a database without keys is a collection without records.
    pub(crate) fn names_rest(&self) -> bool {
        self.prefixes == Prefixes::None
    }

    pub(crate) fn wants_key(&self, key: &[u8]) -> bool {
        self.globs.as_ref().is_none_or(|globs| {
            // As a path, so that bytes that are no text are matched, too.
            globs.is_match(bytes_path(key))
        })
    }

    pub(crate) fn wants_type(&self, name: &str) -> bool {
        self.types.is_empty() || self.types.contains(name)
    }

    pub(crate) fn owns_types(&self) -> bool {
        self.types.is_empty()
    }

    /// Whether all keys of the databases belong to the store.
    pub(crate) fn owns_all(&self) -> bool {
        self.globs.is_none() && self.types.is_empty()
    }
}

#[cfg(unix)]
fn bytes_path(key: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(key))
}

#[cfg(not(unix))]
fn bytes_path(key: &[u8]) -> std::path::PathBuf {
    String::from_utf8_lossy(key).into_owned().into()
}

fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    let bad = |pattern: &str, e: globset::Error| {
        let what = "a pattern of keys cannot be read";
        Error::new(ErrorKind::InvalidInput, what).on(pattern).because(e)
    };
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|e| bad(pattern, e))?);
    }
    set.build().map_err(|e| bad("", e))
}

/// Refuses the name of a setting that is a secret, or a pattern.
fn plain(name: &str) -> Result<()> {
    let secret = name.ends_with("pass") || name.ends_with("auth") || name == "masteruser";
    let odd =
        name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    let what = match (secret, odd) {
        (true, _) => "a setting that is a secret is not carried",
        (_, true) => "this is no name of a setting",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::InvalidInput, what).on(name))
}

fn address(text: &str) -> Result<ConnectionInfo> {
    // The address may hold a password: it is not shown.
    text.into_connection_info().map_err(|e| {
        error::redis("this is no address of a Redis server", e)
            .advise("give an address such as redis://localhost:6379/0, or rediss:// for TLS")
    })
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("databases", &self.databases)
            .field("keys", &self.keys)
            .field("consistency", &self.consistency)
            .finish_non_exhaustive()
    }
}
