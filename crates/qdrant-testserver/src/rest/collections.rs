//! Collections, their shards and indexes, and aliases.

use axum::Extension;
use axum::extract::{Path, State as Ext};
use axum::response::Response;
use qdrant_edge::{JsonPath, PayloadFieldSchema};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Server;
use super::answers::{Body_, work};
use crate::config::{CreateCollection, UpdateCollection};
use crate::error::Error;
use crate::peer::Peer;
use crate::sharding::{NewKey, OldKey};
use crate::state::AliasAction;

pub(super) async fn list_collections(Ext(state): Ext<Server>) -> Response {
    work(move || {
        let names = state.collection_names();
        let names: Vec<Value> = names.into_iter().map(|name| json!({"name": name})).collect();
        Ok(json!({"collections": names}))
    })
    .await
}

pub(super) async fn show(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || state.collection(&name)?.info()).await
}

pub(super) async fn exists(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || Ok(json!({"exists": state.collection(&name).is_ok()}))).await
}

pub(super) async fn cluster(
    Ext(state): Ext<Server>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Response {
    work(move || state.collection(&name)?.cluster(peer)).await
}

pub(super) async fn cluster_of_all(
    Ext(state): Ext<Server>,
    Extension(peer): Extension<Peer>,
) -> Response {
    work(move || {
        // By these addresses they speak with each other.
        let uri = json!({"uri": "http://127.0.0.1:6335/"});
        let peers: serde_json::Map<String, Value> = Peer::all(state.options.peers.max(1))
            .map(|of| (of.id().to_string(), uri.clone()))
            .collect();
        let enabled = json!({"status": "enabled", "peer_id": peer.id(), "peers": peers});
        Ok(if state.options.cluster { enabled } else { json!({"status": "disabled"}) })
    })
    .await
}

pub(super) async fn list_keys(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || state.collection(&name)?.keys()).await
}

pub(super) async fn create_key(
    Ext(state): Ext<Server>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    Body_(body): Body_<NewKey>,
) -> Response {
    work(move || state.keyed_collection(&name)?.create_key(body, peer).map(|()| true)).await
}

pub(super) async fn delete_key(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<OldKey>,
) -> Response {
    work(move || state.keyed_collection(&name)?.delete_key(body.shard_key).map(|()| true)).await
}

pub(super) async fn create(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<CreateCollection>,
) -> Response {
    work(move || state.create(&name, body).map(|()| true)).await
}

pub(super) async fn update_config(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<UpdateCollection>,
) -> Response {
    work(move || state.collection(&name)?.update_config(body).map(|()| true)).await
}

pub(super) async fn delete_collection(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
) -> Response {
    work(move || state.delete(&name)).await
}

pub(super) async fn list_aliases(Ext(state): Ext<Server>) -> Response {
    work(move || Ok(json!({"aliases": state.aliases(None)}))).await
}

pub(super) async fn aliases_of(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || Ok(json!({"aliases": state.aliases(Some(&name))}))).await
}

#[derive(Deserialize)]
pub(super) struct Aliases {
    actions: Vec<AliasAction>,
}

pub(super) async fn change_aliases(
    Ext(state): Ext<Server>,
    Body_(body): Body_<Aliases>,
) -> Response {
    work(move || state.change_aliases(body.actions).map(|()| true)).await
}

#[derive(Deserialize)]
pub(super) struct NewIndex {
    field_name: JsonPath,
    #[serde(alias = "field_type")]
    field_schema: PayloadFieldSchema,
}

pub(super) async fn create_index(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<NewIndex>,
) -> Response {
    work(move || state.collection(&name)?.create_index(body.field_name, body.field_schema)).await
}

pub(super) async fn delete_index(
    Ext(state): Ext<Server>,
    Path((name, field)): Path<(String, String)>,
) -> Response {
    work(move || {
        let field: JsonPath = field.parse().map_err(|()| {
            Error::format(format!(
                "Deserialize error in path parameters: Invalid json path: '{field}'"
            ))
        })?;
        state.collection(&name)?.delete_index(field)
    })
    .await
}
