//! How a server is reached, and what of it is backed up.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use backup_core::{Error, ErrorKind, Result};
use globset::{Glob, GlobMatcher, GlobSet, GlobSetBuilder};
use reqwest::{Url, header::HeaderValue};

use super::{QdrantStore, client::Client, connect::Access, stage};

/// How a Qdrant server is reached, and which of its collections belong to the store.
#[derive(Clone)]
pub struct QdrantOptions {
    url: String,
    rest: Option<String>,
    peers: Vec<String>,
    access: Access,
    wanted: Vec<String>,
    unwanted: Vec<String>,
    filter: Filter,
    models: Vec<(String, String)>,
    model_of: Vec<(GlobMatcher, String)>,
    pub(super) way: Way,
    pub(super) other_vectors: bool,
    pub(super) other_settings: bool,
}

/// How a backup reads collections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// As they are, page by page.
    Scroll,
    /// As the server's own snapshots.
    Native,
    /// As records of such snapshots, which are kept in a folder meanwhile.
    #[cfg(feature = "qdrant-edge")]
    Pinned(std::path::PathBuf),
}

#[derive(Clone, Default)]
struct Filter {
    wanted: Option<GlobSet>,
    unwanted: GlobSet,
}

impl QdrantOptions {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            rest: None,
            peers: Vec::new(),
            access: Access {
                key: None,
                roots: None,
                timeout: Duration::from_secs(60),
                long: Duration::from_secs(3600),
            },
            wanted: Vec::new(),
            unwanted: Vec::new(),
            filter: Filter::default(),
            models: Vec::new(),
            model_of: Vec::new(),
            way: Way::Scroll,
            other_vectors: false,
            other_settings: false,
        }
    }

    /// The address of the REST interface, where it is not one port below that of gRPC.
    #[must_use]
    pub fn rest_url(mut self, url: &str) -> Self {
        self.rest = Some(url.to_owned());
        self
    }

    /// The addresses of the REST interfaces of the other servers of a cluster. Points are read and
    /// written through one server; but snapshots of the shards are on the servers that have them,
    /// so [`native`](Self::native) backups of collections that lie on several need them all, and so
    /// do restores of such backups to a cluster.
    #[must_use]
    pub fn peers<S: Into<String>>(mut self, urls: impl IntoIterator<Item = S>) -> Self {
        self.peers.extend(urls.into_iter().map(Into::into));
        self
    }

    /// An API key or token. It goes into the header of every request and nowhere else.
    ///
    /// # Errors
    /// A key that cannot stand in a header.
    pub fn api_key(mut self, key: &str) -> Result<Self> {
        let mut value = HeaderValue::from_str(key.trim()).map_err(|_| {
            Error::new(ErrorKind::InvalidInput, "the API key has characters that no key has")
        })?;
        value.set_sensitive(true);
        self.access.key = Some(value);
        Ok(self)
    }

    /// The API key that an environment variable holds.
    ///
    /// # Errors
    /// A variable that is not set, or empty.
    pub fn api_key_env(self, variable: &str) -> Result<Self> {
        match std::env::var(variable) {
            Ok(key) if !key.trim().is_empty() => self.api_key(&key),
            _ => {
                let what = "the environment variable with the API key is not set";
                Err(Error::new(ErrorKind::InvalidInput, what).on(variable))
            }
        }
    }

    /// The API key that a file holds.
    ///
    /// # Errors
    /// A file that cannot be read, or is empty.
    pub fn api_key_file(self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let key = std::fs::read_to_string(path)
            .map_err(|e| Error::io("the API key cannot be read", e).on(path.display()))?;
        if key.trim().is_empty() {
            let what = "the file with the API key is empty";
            return Err(Error::new(ErrorKind::InvalidInput, what).on(path.display()));
        }
        self.api_key(&key)
    }

    /// The certificates in PEM form, one or more, that sign the server's, for an address with
    /// `https://`; by default those that the system trusts.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.access.roots = Some(pem.into());
        self
    }

    /// The collections that belong to the store, by name or with `*`, `?` and `[…]`. By default
    /// all. A restore leaves the others alone.
    #[must_use]
    pub fn collections<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.wanted.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Collections that do not belong to the store, in the same form.
    #[must_use]
    pub fn without<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.unwanted.extend(globs.into_iter().map(Into::into));
        self
    }

    /// The model that makes the vectors of these collections, by name or pattern: it goes into the
    /// manifest, and a restore compares it with the archive's. Of several patterns the first that
    /// fits counts. Without it the model is the one that a collection's metadata names, as
    /// `embedding_model` or `model`.
    #[must_use]
    pub fn model(mut self, collections: impl Into<String>, model: impl Into<String>) -> Self {
        self.models.push((collections.into(), model.into()));
        self
    }

    /// How long the server may take for a request; 60 seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.access.timeout = timeout;
        self
    }

    /// How long it may take for a snapshot of a collection, and to recover one; an hour by
    /// default.
    #[must_use]
    pub fn snapshot_timeout(mut self, timeout: Duration) -> Self {
        self.access.long = timeout;
        self
    }

    /// Backs collections up as the server's own snapshots: each of one moment, with its indexes,
    /// and restored at the speed of a copy, but only to a server of the same or the next minor
    /// version. The temporary snapshots are removed from the server again.
    ///
    /// A collection that lies on several servers is one snapshot for each shard, from the
    /// [servers](Self::peers) that have them, each of a moment of its own.
    ///
    /// Where the server does not allow snapshots, not all servers are named, or shards were removed
    /// or are being moved, points are read one by one as by default, and the manifest says so.
    #[must_use]
    pub fn native(mut self) -> Self {
        self.way = Way::Native;
        self
    }

    /// Backs collections up as records of one moment: the server takes a snapshot of each, which
    /// the embedded engine reads in the folder `scratch`, and removes it again. The folder needs
    /// room for the largest collection twice.
    ///
    /// Where the server does not allow snapshots, it is as with [`native`](Self::native).
    #[cfg(feature = "qdrant-edge")]
    #[must_use]
    pub fn pinned(mut self, scratch: impl Into<std::path::PathBuf>) -> Self {
        self.way = Way::Pinned(scratch.into());
        self
    }

    /// Lets a restore replace a collection whose vectors have another dimension, distance, type
    /// or model than those of the archive, and add points to one of another model. By default that
    /// is refused, because an application that embeds with another model finds nothing in such
    /// vectors; see [`drop_vector`](backup_core::RestoreOptions::drop_vector) and
    /// [`embed`](backup_core::RestoreOptions::embed).
    #[must_use]
    pub fn accept_other_vectors(mut self) -> Self {
        self.other_vectors = true;
        self
    }

    /// Lets a restore go on where the server does not take a setting of a collection or of an
    /// index as it is in the archive, for instance because it is of another version. By default
    /// that is refused, with the settings named.
    #[must_use]
    pub fn accept_other_settings(mut self) -> Self {
        self.other_settings = true;
        self
    }

    /// A store at this server, which is not asked anything yet.
    ///
    /// # Errors
    /// No Tokio runtime, an address that is none, a pattern that is none, a certificate that is
    /// none.
    pub fn open(mut self) -> Result<QdrantStore> {
        self.filter = Filter {
            wanted: if self.wanted.is_empty() { None } else { Some(globs(&self.wanted)?) },
            unwanted: globs(&self.unwanted)?,
        };
        let matcher = |(pattern, model): &(String, String)| {
            Ok((glob(pattern)?.compile_matcher(), model.clone()))
        };
        self.model_of = self.models.iter().map(matcher).collect::<Result<_>>()?;
        let grpc = address(&self.url)?;
        let rest = match &self.rest {
            Some(url) => address(url)?,
            None => {
                let mut url = grpc.clone();
                let port = grpc.port().unwrap_or(6334);
                let below = port.checked_sub(1).ok_or_else(|| odd(&self.url))?;
                url.set_port(Some(below)).map_err(|()| odd(&self.url))?;
                url
            }
        };
        let peers = self.peers.iter().map(|url| address(url)).collect::<Result<_>>()?;
        let client = Client::new(grpc, rest, peers, &self.access)?;
        Ok(QdrantStore { client, options: Arc::new(self) })
    }

    /// A store at this server, which has to answer.
    ///
    /// # Errors
    /// As [`open`](Self::open); a server that does not answer or refuses the key.
    pub async fn connect(self) -> Result<QdrantStore> {
        let store = self.open()?;
        let client = store.client.clone();
        store.client.run(async move { client.collections().await }).await?;
        Ok(store)
    }

    /// The host's word for the model of a collection.
    pub(super) fn model_of(&self, collection: &str) -> Option<&str> {
        let found = self.model_of.iter().find(|(pattern, _)| pattern.is_match(collection));
        found.map(|(_, model)| model.as_str())
    }

    /// Whether a collection belongs to the store.
    pub(super) fn wants(&self, name: &str) -> bool {
        let Filter { wanted, unwanted } = &self.filter;
        !stage::is_ours(name)
            && wanted.as_ref().is_none_or(|globs| globs.is_match(name))
            && !unwanted.is_match(name)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(glob(pattern)?);
    }
    set.build().map_err(|e| bad("", e))
}

fn glob(pattern: &str) -> Result<Glob> {
    Glob::new(pattern).map_err(|e| bad(pattern, e))
}

fn bad(pattern: &str, e: globset::Error) -> Error {
    let what = "a pattern of collections cannot be read";
    Error::new(ErrorKind::InvalidInput, what).on(pattern).because(e)
}

fn odd(url: &str) -> Error {
    let shown = Url::parse(url).ok().and_then(|url| Some(url.host_str()?.to_owned()));
    Error::new(ErrorKind::InvalidInput, "this is no address of a Qdrant server")
        .on(shown.unwrap_or_default())
        .advise("give an address such as http://localhost:6334")
}

fn address(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|_| odd(text))?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        return Err(odd(text));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let what = "the address of a Qdrant server holds a user name or password";
        return Err(Error::new(ErrorKind::InvalidInput, what)
            .on(url.host_str().unwrap_or_default())
            .advise("give the API key with `api_key_env` or `api_key_file`"));
    }
    Ok(url)
}

impl fmt::Debug for QdrantOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QdrantOptions")
            .field("key", &self.access.key.as_ref().map(|_| "…"))
            .field("collections", &self.wanted)
            .field("without", &self.unwanted)
            .finish_non_exhaustive()
    }
}
