//! How a server is reached, and how what is in it is named.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use backup_core::{Error, ErrorKind, Result, manifest::FieldMapping};

use crate::client::Client;

/// One database of a Neo4j server.
///
/// Needs a Tokio runtime, in which it is made and which has to go on running while it is used.
///
/// ```no_run
/// use backup_core::{Catalog, Stores};
/// use backup_neo4j::Neo4jStore;
///
/// # async fn example() -> backup_core::Result<()> {
/// let graph = Neo4jStore::options("bolt://localhost:7687")
///     .user("neo4j")
///     .password_env("NEO4J_PASSWORD")?
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Neo4jStore {
    pub(crate) client: Client,
    pub(crate) options: Arc<Neo4jOptions>,
}

/// How a server is reached, and how what is in it is named.
#[derive(Clone)]
pub struct Neo4jOptions {
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) database: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) patience: Duration,
    /// Bytes; none: by what the server says.
    pub(crate) transaction: Option<u64>,
    /// Properties by label or type that name a node or a relationship.
    pub(crate) keys: BTreeMap<String, Vec<Vec<String>>>,
    /// Where the well-known fields are, by collection; those of all under the empty name.
    pub(crate) fields: BTreeMap<String, FieldMapping>,
}

/// Text that is shown nowhere.
#[derive(Clone, Default)]
pub(crate) struct Secret(pub(crate) String);

impl Neo4jStore {
    /// The home database of the server at a Bolt address that asks for no password.
    ///
    /// # Errors
    /// No Tokio runtime; a server that does not answer.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::options(url).connect().await
    }

    /// More to say about the server at a Bolt address, such as `bolt://localhost:7687`;
    /// `bolt+s://` has TLS.
    #[must_use]
    pub fn options(url: &str) -> Neo4jOptions {
        Neo4jOptions {
            url: url.to_owned(),
            user: "neo4j".to_owned(),
            password: Secret::default(),
            database: None,
            timeout: Duration::from_secs(600),
            patience: Duration::from_secs(10),
            transaction: None,
            keys: BTreeMap::new(),
            fields: BTreeMap::new(),
        }
    }
}

impl Neo4jOptions {
    /// The user; `neo4j` by default.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    /// The user's password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Secret(password.to_owned());
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

    /// The password that a file holds, without the line feed at its end.
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

    /// The database; by default the home database of the user.
    #[must_use]
    pub fn database(mut self, name: &str) -> Self {
        self.database = Some(name.to_owned());
        self
    }

    /// How long the server may take for one answer; ten minutes by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long what fails in passing is tried again: a server that restarts, a deadlock. Ten seconds
    /// by default; zero: not at all.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Bytes of the server's memory that one transaction may need. What is restored is switched in
    /// at one moment as long as that needs no more, and in batches above it. By default half of what
    /// the server allows; zero: always in batches.
    #[must_use]
    pub fn transaction_memory(mut self, bytes: u64) -> Self {
        self.transaction = Some(bytes);
        self
    }

    /// Properties by which the application finds a node of this label, or a node where no
    /// uniqueness constraint says so. Together they have to be different for each node.
    #[must_use]
    pub fn key<S: Into<String>>(
        mut self,
        label: &str,
        properties: impl IntoIterator<Item = S>,
    ) -> Self {
        let properties = properties.into_iter().map(Into::into).collect();
        self.keys.entry(label.to_owned()).or_default().push(properties);
        self
    }

    /// Where in the properties the well-known fields are, in all collections that are not
    /// [named themselves](Self::fields_of).
    #[must_use]
    pub fn fields(self, fields: FieldMapping) -> Self {
        self.fields_of("", fields)
    }

    /// Where the well-known fields of one collection are.
    #[must_use]
    pub fn fields_of(mut self, collection: &str, fields: FieldMapping) -> Self {
        self.fields.insert(collection.to_owned(), fields);
        self
    }

    /// A store at this server, which is not asked anything yet.
    ///
    /// # Errors
    /// No Tokio runtime; an address that is none.
    pub fn open(self) -> Result<Neo4jStore> {
        let client = Client::new(&self)?;
        Ok(Neo4jStore { client, options: Arc::new(self) })
    }

    /// A store at this server, which has to answer.
    ///
    /// # Errors
    /// As [`open`](Self::open); a server that does not answer, or refuses the password; a
    /// database that is not there.
    pub async fn connect(self) -> Result<Neo4jStore> {
        let store = self.open()?;
        store.client.ping().await?;
        Ok(store)
    }

    pub(crate) fn fields_in(&self, collection: &str) -> FieldMapping {
        let known = self.fields.get(collection).or_else(|| self.fields.get(""));
        known.cloned().unwrap_or_default()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Debug for Neo4jStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Neo4jStore({})", self.client.place())
    }
}

impl fmt::Debug for Neo4jOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neo4jOptions")
            .field("user", &self.user)
            .field("password", &self.password)
            .field("database", &self.database)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_shown_nowhere() {
        let options = Neo4jStore::options("bolt://localhost:1").password("hunter2");
        assert!(!format!("{options:?}").contains("hunter2"));
        let error = Neo4jStore::options("bolt://me:hunter2@localhost:1").open().unwrap_err();
        assert!(!error.report().contains("hunter2"), "{}", error.report());
    }
}
