//! Stores at a server: where it is, and where the key to it is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Form,
    secret::Secret,
    tree::{Fault, Section, fault},
};

/// A server, and what of it belongs to the store.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(not(feature = "servers"), allow(dead_code, reason = "no store is made of it"))]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) user: Option<String>,
    /// The password or key.
    pub(crate) secret: Option<Secret>,
    pub(crate) form: Form,
    /// Another address of the same server.
    pub(crate) rest_url: Option<String>,
    /// Other servers of the same cluster.
    pub(crate) peers: Vec<String>,
    /// A file with the certificates that sign the server's.
    pub(crate) root_certificate: Option<PathBuf>,
    pub(crate) database: Option<String>,
    /// Globs of what belongs to the store, and of what does not.
    pub(crate) collections: Vec<String>,
    pub(crate) without: Vec<String>,
    /// The model that makes the vectors.
    pub(crate) model: Option<String>,
    /// Globs of the keys that belong to the store.
    pub(crate) keys: Vec<String>,
    /// By label, the properties by which a node is found.
    pub(crate) node_keys: BTreeMap<String, Vec<String>>,
    /// Whether functions and users of the server belong to it, and which settings.
    pub(crate) functions: bool,
    pub(crate) users: bool,
    pub(crate) settings: Vec<String>,
}

impl Server {
    /// The certificates that sign the server's, where others than the system's are trusted.
    #[cfg(feature = "servers")]
    pub(crate) fn roots(&self) -> backup_kit::Result<Option<Vec<u8>>> {
        let Some(path) = &self.root_certificate else { return Ok(None) };
        std::fs::read(path).map(Some).map_err(|e| {
            backup_kit::Error::io("the certificate cannot be read", e).on(path.display())
        })
    }

    /// Reads the keys that this kind has.
    pub(super) fn parse(section: &Section<'_, '_>, folder: &Path) -> Result<Self, Fault> {
        let text = |key| section.get(key).map(|_| section.text(key)).transpose();
        let mut secret = Secret::parse(section, "password", folder)?;
        if secret.is_none() {
            secret = Secret::parse(section, "api_key", folder)?;
        }
        if section.get("rest_url").is_some() {
            address(section, "rest_url")?;
        }
        Ok(Self {
            url: address(section, "url")?,
            user: text("user")?,
            secret,
            form: Form::or(section, Form::Logical)?,
            rest_url: text("rest_url")?,
            peers: section.texts("peers")?,
            root_certificate: text("root_certificate")?.map(|path| folder.join(path)),
            database: text("database")?,
            collections: section.texts("collections")?,
            without: section.texts("without")?,
            model: text("model")?,
            keys: section.texts("keys")?,
            node_keys: node_keys(section)?,
            functions: section.flag("functions")?.unwrap_or(false),
            users: section.flag("users")?.unwrap_or(false),
            settings: section.texts("settings")?,
        })
    }
}

fn node_keys(section: &Section<'_, '_>) -> Result<BTreeMap<String, Vec<String>>, Fault> {
    let Some(value) = section.get("key") else { return Ok(BTreeMap::new()) };
    let labels = Section::table("`key`", value)?;
    let mut keys = BTreeMap::new();
    for label in labels.table.keys() {
        let properties = labels.texts(label.get_ref())?;
        if properties.is_empty() {
            return Err(fault(label, format!("the key of `{}` is empty", label.get_ref()))
                .hint("name the properties by which the application finds a node"));
        }
        keys.insert(label.get_ref().to_string(), properties);
    }
    Ok(keys)
}

// An address without a secret in it.
fn address(section: &Section<'_, '_>, key: &str) -> Result<String, Fault> {
    let (text, value) = (section.text(key)?, section.required(key)?);
    let Some((_, rest)) = text.split_once("://") else {
        return Err(
            fault(value, format!("`{key}` is no address")).hint("write it like scheme://host:port")
        );
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A question mark may bring a password, too.
    if host.contains('@') || rest.contains('?') {
        let what = format!("`{key}` may hold no user name, password or question mark");
        return Err(fault(value, what).hint("give them as keys of their own"));
    }
    Ok(text)
}
