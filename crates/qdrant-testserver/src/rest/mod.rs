//! The REST side of the server.

mod answers;
mod collections;
mod points;
mod snapshots;

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, Request, State as Ext};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Json, Router};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

pub(crate) use answers::blocking;
use collections::{
    aliases_of, change_aliases, cluster, cluster_of_all, create, create_index, create_key,
    delete_collection, delete_index, delete_key, exists, list_aliases, list_collections, list_keys,
    show, update_config,
};
pub(crate) use points::check_limit;
use points::{
    batch, count, delete_points, overwrite_payload, query, retrieve, retrieve_one, scroll,
    set_payload, upsert,
};
use snapshots::{
    create_snapshot, delete_snapshot, download_snapshot, list_snapshots, recover_snapshot,
    upload_snapshot,
};

use crate::faults::{Action, Match};
use crate::peer::Peer;
use crate::state::State;
use crate::{COMMIT, TITLE};

type Server = Arc<State>;
type Params = Query<HashMap<String, String>>;

/// The default limit of a server for bodies of JSON.
const MAX_BODY: usize = 32 * 1024 * 1024;

pub(crate) fn router(state: Server, peer: Peer) -> Router {
    let snapshots = |path: &str| {
        Router::new()
            .route(&format!("{path}/snapshots"), get(list_snapshots).post(create_snapshot))
            .route(
                &format!("{path}/snapshots/{{snapshot}}"),
                get(download_snapshot).delete(delete_snapshot),
            )
            .route(
                &format!("{path}/snapshots/upload"),
                post(upload_snapshot).layer(DefaultBodyLimit::disable()),
            )
            .route(&format!("{path}/snapshots/recover"), put(recover_snapshot))
    };
    Router::new()
        .route("/", get(root))
        .route("/healthz", get(async || "healthz check passed"))
        .route("/livez", get(async || "healthz check passed"))
        .route("/readyz", get(async || "all shards are ready"))
        .route("/collections", get(list_collections))
        .route("/aliases", get(list_aliases))
        .route("/collections/aliases", post(change_aliases))
        .route(
            "/collections/{name}",
            get(show).put(create).patch(update_config).delete(delete_collection),
        )
        .route("/collections/{name}/exists", get(exists))
        .route("/collections/{name}/aliases", get(aliases_of))
        .route("/cluster", get(cluster_of_all))
        .route("/collections/{name}/cluster", get(cluster))
        .route("/collections/{name}/shards", get(list_keys).put(create_key))
        .route("/collections/{name}/shards/delete", post(delete_key))
        .route("/collections/{name}/index", put(create_index))
        .route("/collections/{name}/index/{field}", delete(delete_index))
        .route("/collections/{name}/points", post(retrieve).put(upsert))
        .route("/collections/{name}/points/{id}", get(retrieve_one))
        .route("/collections/{name}/points/scroll", post(scroll))
        .route("/collections/{name}/points/query", post(query))
        .route("/collections/{name}/points/count", post(count))
        .route("/collections/{name}/points/delete", post(delete_points))
        .route("/collections/{name}/points/payload", post(set_payload).put(overwrite_payload))
        .route("/collections/{name}/points/batch", post(batch))
        .merge(snapshots("/collections/{name}"))
        .merge(snapshots("/collections/{name}/shards/{shard}"))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(Extension(peer))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), check_key))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), show_faults))
        .with_state(state)
}

async fn check_key(Ext(state): Ext<Server>, request: Request, next: Next) -> Response {
    let open = matches!(request.uri().path(), "/" | "/healthz" | "/livez" | "/readyz");
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    match state.options.check_key(header) {
        Err(text) if !open => (StatusCode::UNAUTHORIZED, text).into_response(),
        _ => next.run(request).await,
    }
}

async fn show_faults(Ext(state): Ext<Server>, request: Request, next: Next) -> Response {
    let wanted = Match::rest(request.method().as_str(), request.uri().path());
    match state.options.faults.take(&wanted) {
        None => next.run(request).await,
        Some(Action::Status(status, text)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Json(json!({"status": {"error": text}, "time": 0.0}))).into_response()
        }
        Some(Action::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            next.run(request).await
        }
        Some(Action::Cut(at)) => spoil(next.run(request).await, at, true),
        Some(Action::Corrupt(at)) => spoil(next.run(request).await, at, false),
    }
}

/// Breaks an answer off at a place in its body, or changes a bit there.
fn spoil(response: Response, at: u64, cut: bool) -> Response {
    let (parts, body) = response.into_parts();
    let mut passed = 0;
    let body = body.into_data_stream().flat_map(move |chunk| {
        let Ok(chunk) = chunk else {
            return stream::iter(vec![chunk.map_err(std::io::Error::other)]);
        };
        let inside = usize::try_from(at.saturating_sub(passed)).unwrap_or(usize::MAX);
        let here = at >= passed && inside < chunk.len();
        passed += chunk.len() as u64;
        if !here {
            return stream::iter(vec![Ok(chunk)]);
        }
        if cut {
            let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            return stream::iter(vec![Ok(chunk.slice(..inside)), Err(broken)]);
        }
        let mut spoilt = chunk.to_vec();
        spoilt[inside] ^= 1;
        stream::iter(vec![Ok(Bytes::from(spoilt))])
    });
    Response::from_parts(parts, Body::from_stream(body))
}

async fn root(Ext(state): Ext<Server>) -> Json<Value> {
    Json(json!({"title": TITLE, "version": state.options.version, "commit": COMMIT}))
}
