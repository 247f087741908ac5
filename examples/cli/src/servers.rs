//! Stores at servers: each kind behind a feature of its own, and none of them in the usual build,
//! which opens no socket.

use backup_kit::{Error, Result, Stores};

#[cfg(feature = "servers")]
use crate::config::Server;
use crate::config::{Kind, Store};

/// Adds a store of a kind that needs a server. It is not asked anything yet.
pub(crate) fn add(stores: Stores, store: &Store) -> Result<Stores> {
    match &store.kind {
        #[cfg(feature = "qdrant")]
        Kind::Qdrant(server) => {
            qdrant(server).map(|adapter| crate::stores::add(stores, store, adapter))
        }
        #[cfg(not(feature = "qdrant"))]
        Kind::Qdrant(_) => Err(missing("qdrant")),
        #[cfg(feature = "redis")]
        Kind::Redis(server) => {
            redis(server).map(|adapter| crate::stores::add(stores, store, adapter))
        }
        #[cfg(not(feature = "redis"))]
        Kind::Redis(_) => Err(missing("redis")),
        #[cfg(feature = "neo4j")]
        Kind::Neo4j(server) => {
            neo4j(server).map(|adapter| crate::stores::add(stores, store, adapter))
        }
        #[cfg(not(feature = "neo4j"))]
        Kind::Neo4j(_) => Err(missing("neo4j")),
        Kind::Sqlite { .. } | Kind::Files { .. } => Ok(stores),
    }
    .map_err(|e| e.on(&store.name))
}

#[cfg(not(all(feature = "qdrant", feature = "redis", feature = "neo4j")))]
fn missing(feature: &str) -> Error {
    let what = format!("this build of the tool has no stores of kind {feature}");
    Error::new(backup_kit::ErrorKind::Unsupported, what).advise(format!(
        "build it with that feature: cargo install --path examples/cli --features {feature}"
    ))
}

/// Does `open` in a runtime that lasts as long as the tool.
#[cfg(feature = "servers")]
fn within<T>(open: impl FnOnce() -> Result<T>) -> Result<T> {
    use std::sync::OnceLock;
    use tokio::runtime::{Builder, Runtime};

    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if RUNTIME.get().is_none() {
        let made = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let made = made.map_err(|e| Error::io("no runtime for stores at servers", e))?;
        // One that was made meanwhile is as good.
        let _ = RUNTIME.set(made);
    }
    let _inside = RUNTIME.get().map(Runtime::enter);
    open()
}

#[cfg(feature = "qdrant")]
fn qdrant(server: &Server) -> Result<backup_kit::qdrant::QdrantStore> {
    use crate::config::Form;

    let mut options = backup_kit::qdrant::QdrantStore::options(&server.url)
        .peers(&server.peers)
        .collections(&server.collections)
        .without(&server.without);
    if let Some(url) = &server.rest_url {
        options = options.rest_url(url);
    }
    if let Some(pem) = server.roots()? {
        options = options.root_certificate(pem);
    }
    if let Some(model) = &server.model {
        options = options.model("*", model);
    }
    if let Some(key) = &server.secret {
        options = options.api_key(&key.fetch()?)?;
    }
    if server.form == Form::Native {
        options = options.native();
    }
    within(|| options.open())
}

#[cfg(feature = "redis")]
fn redis(server: &Server) -> Result<backup_kit::redis::RedisStore> {
    let mut options = backup_kit::redis::RedisStore::options(&server.url)
        .keys(&server.keys)
        .settings(&server.settings);
    if server.functions {
        options = options.functions();
    }
    if server.users {
        options = options.users();
    }
    if let Some(pem) = server.roots()? {
        options = options.root_certificate(pem);
    }
    if let Some(user) = &server.user {
        options = options.username(user);
    }
    if let Some(password) = &server.secret {
        options = options.password(&password.fetch()?);
    }
    within(|| options.open())
}

#[cfg(feature = "neo4j")]
fn neo4j(server: &Server) -> Result<backup_kit::neo4j::Neo4jStore> {
    let mut options = backup_kit::neo4j::Neo4jStore::options(&server.url);
    if let Some(user) = &server.user {
        options = options.user(user);
    }
    if let Some(password) = &server.secret {
        options = options.password(&password.fetch()?);
    }
    if let Some(database) = &server.database {
        options = options.database(database);
    }
    for (label, properties) in &server.node_keys {
        options = options.key(label, properties);
    }
    within(|| options.open())
}
