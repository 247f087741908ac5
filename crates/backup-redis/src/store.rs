//! The store itself: what source and sink share.

use std::{fmt, sync::Arc};

use backup_core::{
    Adapter, Cancel, Capabilities, CollectionDescription, Description, Error, ErrorKind, Part,
    Result, async_trait,
};

use crate::{
    client::{Client, Node},
    extra::Extra,
    options::RedisOptions,
    reader::{Found, Reader},
    records::Records,
};

/// The keys of a Redis server or cluster, or some of them.
///
/// Needs a Tokio runtime, in which it is made and which has to go on running while it is used.
///
/// ```no_run
/// use backup_core::{Catalog, Stores};
/// use backup_redis::RedisStore;
///
/// # async fn example() -> backup_core::Result<()> {
/// let state = RedisStore::options("redis://localhost:6379")
///     .password_env("REDIS_PASSWORD")?
///     .prefixes(["session", "document"])
///     .connect()
///     .await?;
/// let memory = Stores::new("docs-memory", "1.0.0").with("state", state);
/// memory.backup(&Catalog::open("backups")?).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    pub(crate) client: Client,
    pub(crate) options: Arc<RedisOptions>,
}

impl RedisStore {
    /// All keys of the logical database that the address names: `redis://host:6379/0`.
    ///
    /// # Errors
    /// No Tokio runtime; a server that does not answer, or is older than Redis 7.0.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::options(url).connect().await
    }

    /// More to say about the server at an address.
    #[must_use]
    pub fn options(url: &str) -> RedisOptions {
        RedisOptions::new(url)
    }
}

/// The version of the server, which has to be one that tells the moments of expiry.
pub(crate) async fn version(client: &Client) -> Result<String> {
    let info = client.first(client.database()).await?.info("server").await?;
    let version = info.get("redis_version").unwrap_or_default().to_owned();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 7) {
        let what = "the server is too old to tell when keys expire";
        return Err(Error::new(ErrorKind::Unsupported, what)
            .on(format!("Redis {version}"))
            .advise("use Redis 7.0 or newer"));
    }
    Ok(version)
}

#[async_trait]
impl Adapter for RedisStore {
    fn kind(&self) -> &'static str {
        crate::KIND
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.records = !self.options.native;
        can.elements = !self.options.native;
        can.blobs = self.options.native;
        can.collections = !self.options.names_rest()
            || self.options.naming().databases().len() > 1
            || Extra::ALL.iter().any(|extra| extra.check(&self.options).is_ok());
        can.undo = true;
        can.merge = true;
        can.pins = self.options.consistency != crate::Consistency::Fuzzy;
        can
    }

    async fn describe(&self) -> Result<Description> {
        let (client, options) = (self.client.clone(), Arc::clone(&self.options));
        self.client.run(async move { describe(&client, &options).await }).await
    }
}

async fn describe(client: &Client, options: &Arc<RedisOptions>) -> Result<Description> {
    let mut description = Description::new("Redis");
    description.version = Some(version(client).await?);
    description.metadata.insert("address".to_owned(), client.shown().into());
    let primaries = client.primaries().await?;
    if primaries.len() > 1 {
        let shown = primaries.iter().filter_map(|primary| {
            let slots = primary.slots.as_ref()?.to_string();
            Some((primary.address.as_ref()?.to_string(), slots.into()))
        });
        let slots: serde_json::Map<String, serde_json::Value> = shown.collect();
        description.metadata.insert("slots".to_owned(), slots.into());
    }
    for extra in Extra::ALL.into_iter().filter(|extra| extra.check(options).is_ok()) {
        description.collections.push(CollectionDescription::new(extra.collection()));
    }
    let naming = options.naming();
    if options.names_rest() {
        for db in naming.databases() {
            let mut size = 0;
            for primary in &primaries {
                let node = client.at(primary.address.as_ref(), *db).await?;
                size += count(&node).await?;
            }
            let mut collection = CollectionDescription::new(naming.collection(*db, None));
            // Elements count, too: how many there are is not known without reading.
            collection.records = (size == 0).then_some(0);
            description.collections.push(collection);
        }
        return Ok(description);
    }
    // Prefixes are known only when all keys were seen.
    let mut records = Records::new(naming.clone(), false, &[]);
    for db in naming.databases() {
        for primary in &primaries {
            let node = client.at(primary.address.as_ref(), *db).await?;
            let mut reader = Reader::scan(node, *db, Arc::clone(options), Cancel::new());
            reader.names_only = true;
            while let Some(found) = reader.next(&|_| true).await? {
                if let Found::Key(key) = found {
                    records.see(*db, &key)?;
                }
            }
        }
    }
    while let Some(part) = records.next() {
        if let Part::Schema(schema) = part {
            description.collections.push(CollectionDescription::new(schema.collection));
        }
    }
    Ok(description)
}

/// The number of keys in the database of a connection.
pub(crate) async fn count(node: &Node) -> Result<u64> {
    let size = crate::reply::integer(&node.one(&redis::cmd("DBSIZE")).await?)?;
    Ok(u64::try_from(size).unwrap_or(0))
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisStore({})", self.client.shown())
    }
}
