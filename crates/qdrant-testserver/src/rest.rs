//! The REST side of the server.

use std::collections::HashMap;
use std::future::Future;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Path, Query, Request, State as Ext};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use futures::{StreamExt as _, stream};
use qdrant_edge::{
    CountRequest, Filter, JsonPath, PayloadFieldSchema, PayloadOps, PointId, PointInsertOperations,
    PointOperations, ScrollRequest, SetPayloadOp, UpdateOperation, WithPayloadInterface,
    WithVector,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::collection::{Collection, Shown, Updated};
use crate::config::{CreateCollection, UpdateCollection};
use crate::error::{Error, Result};
use crate::faults::{Action, Match};
use crate::search::{Found, Nearest};
use crate::sharding::{Keyed, NewKey, OldKey, Selector};
use crate::snapshot::sha256;
use crate::state::{AliasAction, PEER, State};
use crate::{COMMIT, TITLE, fetch};

type Server = Arc<State>;
type Params = Query<HashMap<String, String>>;

/// The default limit of a server for bodies of JSON.
const MAX_BODY: usize = 32 * 1024 * 1024;

pub(crate) fn router(state: Server) -> Router {
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
        .layer(middleware::from_fn_with_state(Arc::clone(&state), check_key))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), show_faults))
        .with_state(state)
}

/// A body of JSON, whatever type the request says it has.
struct Body_<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body_<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let started = Instant::now();
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e| answer::<()>(started, Err(Error::format(e.body_text()))))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|e| {
            let error = Error::format(format!("Format error in JSON body: {e}"));
            answer::<()>(started, Err(error))
        })
    }
}

fn answer<T: Serialize>(started: Instant, result: Result<T>) -> Response {
    #[derive(Serialize)]
    struct Good<T> {
        result: T,
        status: &'static str,
        time: f64,
    }
    let time = started.elapsed().as_secs_f64();
    match result {
        Ok(result) => Json(Good { result, status: "ok", time }).into_response(),
        Err(error) => {
            let body = json!({"status": {"error": error.to_string()}, "time": time});
            (error.http_status(), Json(body)).into_response()
        }
    }
}

/// Answers with the result of work that blocks.
async fn work<T, F>(work: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    timed(blocking(work)).await
}

pub(crate) async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await?
}

async fn timed<T: Serialize>(result: impl Future<Output = Result<T>>) -> Response {
    let started = Instant::now();
    answer(started, result.await)
}

/// Answers at once where the request does not wait.
async fn timed_or_accepted<T, F>(params: &Params, result: F) -> Response
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    if params.get("wait").is_none_or(|wait| wait != "false") {
        // On its own, so that a client that hangs up does not stop it.
        return timed(async { tokio::spawn(result).await? }).await;
    }
    tokio::spawn(result);
    let body = json!({"status": "accepted", "time": 0.0});
    (StatusCode::ACCEPTED, Json(body)).into_response()
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

async fn list_collections(Ext(state): Ext<Server>) -> Response {
    work(move || {
        let names = state.collection_names();
        let names: Vec<Value> = names.into_iter().map(|name| json!({"name": name})).collect();
        Ok(json!({"collections": names}))
    })
    .await
}

async fn show(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || state.collection(&name)?.info()).await
}

async fn exists(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || Ok(json!({"exists": state.collection(&name).is_ok()}))).await
}

async fn cluster(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || state.collection(&name)?.cluster(PEER)).await
}

async fn cluster_of_all(Ext(state): Ext<Server>) -> Response {
    work(move || {
        let peers = json!({PEER.to_string(): {"uri": "http://127.0.0.1:6335/"}});
        let enabled = json!({"status": "enabled", "peer_id": PEER, "peers": peers});
        Ok(if state.options.cluster { enabled } else { json!({"status": "disabled"}) })
    })
    .await
}

async fn list_keys(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || state.collection(&name)?.keys()).await
}

async fn create_key(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<NewKey>,
) -> Response {
    work(move || state.keyed_collection(&name)?.create_key(body, PEER).map(|()| true)).await
}

async fn delete_key(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<OldKey>,
) -> Response {
    work(move || state.keyed_collection(&name)?.delete_key(body.shard_key).map(|()| true)).await
}

async fn create(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<CreateCollection>,
) -> Response {
    work(move || state.create(&name, body).map(|()| true)).await
}

async fn update_config(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<UpdateCollection>,
) -> Response {
    work(move || state.collection(&name)?.update_config(body).map(|()| true)).await
}

async fn delete_collection(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || state.delete(&name)).await
}

async fn list_aliases(Ext(state): Ext<Server>) -> Response {
    work(move || Ok(json!({"aliases": state.aliases(None)}))).await
}

async fn aliases_of(Ext(state): Ext<Server>, Path(name): Path<String>) -> Response {
    work(move || Ok(json!({"aliases": state.aliases(Some(&name))}))).await
}

#[derive(Deserialize)]
struct Aliases {
    actions: Vec<AliasAction>,
}

async fn change_aliases(Ext(state): Ext<Server>, Body_(body): Body_<Aliases>) -> Response {
    work(move || state.change_aliases(body.actions).map(|()| true)).await
}

#[derive(Deserialize)]
struct NewIndex {
    field_name: JsonPath,
    #[serde(alias = "field_type")]
    field_schema: PayloadFieldSchema,
}

async fn create_index(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<NewIndex>,
) -> Response {
    work(move || state.collection(&name)?.create_index(body.field_name, body.field_schema)).await
}

async fn delete_index(
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

#[derive(Deserialize)]
struct Retrieve {
    ids: Vec<PointId>,
    with_payload: Option<WithPayloadInterface>,
    #[serde(default, alias = "with_vectors")]
    with_vector: Option<WithVector>,
    shard_key: Option<Selector>,
}

async fn retrieve(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<Retrieve>,
) -> Response {
    work(move || {
        let vector = body.with_vector.unwrap_or(WithVector::Bool(false));
        let records = state.collection(&name)?.retrieve(
            &body.ids,
            body.with_payload,
            vector,
            body.shard_key.as_ref(),
        )?;
        Ok(records.into_iter().map(Shown::from).collect::<Vec<_>>())
    })
    .await
}

async fn retrieve_one(
    Ext(state): Ext<Server>,
    Path((name, id)): Path<(String, String)>,
) -> Response {
    work(move || {
        let id: PointId = id
            .parse()
            .map_err(|()| Error::bad_input(format!("Can not recognize \"{id}\" as point id")))?;
        let records =
            state.collection(&name)?.retrieve(&[id], None, WithVector::Bool(true), None)?;
        let record = records.into_iter().next().map(Shown::from);
        record.ok_or_else(|| Error::not_found(format!("Point with id {id} does not exists!")))
    })
    .await
}

async fn scroll(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(Keyed { shard_key, body }): Body_<Keyed<ScrollRequest>>,
) -> Response {
    #[derive(Serialize)]
    struct Points {
        points: Vec<Shown>,
        next_page_offset: Option<PointId>,
    }
    work(move || {
        check_limit("JSON body", body.limit)?;
        let page = state.collection(&name)?.scroll(body, shard_key.as_ref())?;
        let points = page.records.into_iter().map(Shown::from).collect();
        Ok(Points { points, next_page_offset: page.next })
    })
    .await
}

async fn query(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<Nearest>,
) -> Response {
    #[derive(Serialize)]
    struct Points {
        points: Vec<Found>,
    }
    work(move || {
        check_limit("JSON body", Some(body.limit))?;
        Ok(Points { points: state.collection(&name)?.search(body)? })
    })
    .await
}

pub(crate) fn check_limit(place: &str, limit: Option<usize>) -> Result<()> {
    match limit {
        Some(0) => Err(Error::validation(format!(
            "Validation error in {place}: [limit: value 0 invalid, must be 1 or larger]"
        ))),
        _ => Ok(()),
    }
}

async fn count(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(Keyed { shard_key, body }): Body_<Keyed<CountRequest>>,
) -> Response {
    work(move || {
        let count = state.collection(&name)?.count(&body, shard_key.as_ref())?;
        Ok(json!({ "count": count }))
    })
    .await
}

#[derive(Deserialize)]
struct Upsert {
    #[serde(flatten)]
    points: PointInsertOperations,
}

#[derive(Deserialize)]
#[serde(untagged)]
#[serde(expecting = "Expected points or a filter")]
enum Selected {
    Points { points: Vec<PointId> },
    Filter { filter: Filter },
}

impl From<Upsert> for UpdateOperation {
    fn from(upsert: Upsert) -> Self {
        let points = PointInsertOperations::PointsList(upsert.points.into_point_vec());
        Self::PointOperation(PointOperations::UpsertPoints(points))
    }
}

impl From<Selected> for UpdateOperation {
    fn from(selected: Selected) -> Self {
        Self::PointOperation(match selected {
            Selected::Points { points } => PointOperations::DeletePoints { ids: points },
            Selected::Filter { filter } => PointOperations::DeletePointsByFilter(filter),
        })
    }
}

#[derive(Deserialize)]
struct Batch {
    operations: Vec<BatchOperation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum BatchOperation {
    Upsert(Keyed<Upsert>),
    Delete(Keyed<Selected>),
    SetPayload(Keyed<SetPayloadOp>),
    OverwritePayload(Keyed<SetPayloadOp>),
}

impl BatchOperation {
    fn split(self) -> (UpdateOperation, Option<Selector>) {
        match self {
            Self::Upsert(upsert) => (upsert.body.into(), upsert.shard_key),
            Self::Delete(selected) => (selected.body.into(), selected.shard_key),
            Self::SetPayload(op) => {
                let set = PayloadOps::SetPayload(op.body);
                (UpdateOperation::PayloadOperation(set), op.shard_key)
            }
            Self::OverwritePayload(op) => {
                let overwrite = PayloadOps::OverwritePayload(op.body);
                (UpdateOperation::PayloadOperation(overwrite), op.shard_key)
            }
        }
    }
}

fn waits(params: &Params) -> bool {
    params.get("wait").is_some_and(|wait| wait == "true")
}

async fn change(
    state: Server,
    name: String,
    params: Params,
    operation: BatchOperation,
) -> Response {
    let (operation, keys) = operation.split();
    work(move || state.collection(&name)?.update(operation, keys.as_ref(), waits(&params))).await
}

async fn upsert(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Keyed<Upsert>>,
) -> Response {
    change(state, name, params, BatchOperation::Upsert(body)).await
}

async fn delete_points(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Keyed<Selected>>,
) -> Response {
    change(state, name, params, BatchOperation::Delete(body)).await
}

async fn set_payload(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Keyed<SetPayloadOp>>,
) -> Response {
    change(state, name, params, BatchOperation::SetPayload(body)).await
}

async fn overwrite_payload(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Keyed<SetPayloadOp>>,
) -> Response {
    change(state, name, params, BatchOperation::OverwritePayload(body)).await
}

async fn batch(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Batch>,
) -> Response {
    work(move || {
        let collection: Arc<Collection> = state.collection(&name)?;
        let operations = body.operations.into_iter().map(BatchOperation::split);
        operations
            .map(|(operation, keys)| collection.update(operation, keys.as_ref(), waits(&params)))
            .collect::<Result<Vec<Updated>>>()
    })
    .await
}

/// Where snapshots are: of a collection or, where the path says so, of one of its shards.
#[derive(Deserialize)]
struct Place {
    name: String,
    shard: Option<u32>,
    #[serde(default)]
    snapshot: String,
}

async fn list_snapshots(Ext(state): Ext<Server>, Path(place): Path<Place>) -> Response {
    work(move || state.snapshots(&place.name, place.shard)).await
}

async fn create_snapshot(
    Ext(state): Ext<Server>,
    Path(place): Path<Place>,
    params: Params,
) -> Response {
    let created = blocking(move || state.create_snapshot(&place.name, place.shard));
    timed_or_accepted(&params, created).await
}

async fn delete_snapshot(
    Ext(state): Ext<Server>,
    Path(place): Path<Place>,
    params: Params,
) -> Response {
    let deleted = blocking(move || {
        state.delete_snapshot(&place.name, place.shard, &place.snapshot).map(|()| true)
    });
    timed_or_accepted(&params, deleted).await
}

async fn download_snapshot(
    Ext(state): Ext<Server>,
    Path(place): Path<Place>,
    headers: HeaderMap,
) -> Response {
    let started = Instant::now();
    let name = place.snapshot.clone();
    let path = blocking(move || state.snapshot_path(&place.name, place.shard, &place.snapshot));
    let sent = match path.await {
        Ok(path) => send_file(path, &name, &headers).await,
        Err(error) => Err(error),
    };
    sent.unwrap_or_else(|error| answer::<()>(started, Err(error)))
}

async fn send_file(path: PathBuf, name: &str, headers: &HeaderMap) -> Result<Response> {
    let mut file = tokio::fs::File::open(path).await?;
    let size = file.metadata().await?.len();
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (from, to) = range.and_then(|range| read_range(range, size)).unwrap_or((0, size));
    file.seek(SeekFrom::Start(from)).await?;
    let chunks = stream::try_unfold(file.take(to - from), async |mut file| {
        let mut chunk = Vec::with_capacity(256 * 1024);
        let read = file.read_buf(&mut chunk).await?;
        std::io::Result::Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    let disposition = format!("attachment; filename=\"{name}\"");
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, (to - from).into());
    if let Ok(disposition) = disposition.parse() {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    if to - from < size {
        let range = format!("bytes {from}-{}/{size}", to - 1);
        headers.insert(header::CONTENT_RANGE, range.parse().map_err(|_| Error::service(range))?);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// The part of a file that a `Range` header asks for; none if it asks for several or nothing.
fn read_range(range: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to: u64 = if to.is_empty() { size } else { to.parse::<u64>().ok()?.checked_add(1)? };
    (from < to && to <= size).then_some((from, to))
}

async fn upload_snapshot(
    Ext(state): Ext<Server>,
    Path(place): Path<Place>,
    params: Params,
    form: Multipart,
) -> Response {
    let started = Instant::now();
    let temp = state.unique_temp();
    let file_name = match receive(form, &temp).await {
        Ok(file_name) => file_name,
        Err(error) => return answer::<()>(started, Err(error)),
    };
    let checksum = params.get("checksum").cloned();
    let recovered = blocking(move || {
        if let Some(expected) = checksum {
            let actual = sha256(&temp)?;
            if !actual.eq_ignore_ascii_case(&expected) {
                let text = format!("expected {actual}, actual {expected}");
                return Err(Error::checksum(text));
            }
        }
        match place.shard {
            None => {
                let snapshot = state.keep_upload(&place.name, &file_name, &temp)?;
                state.recover(&place.name, &snapshot)?;
            }
            Some(id) => {
                let recovered = state.recover_shard(&place.name, id, &temp);
                std::fs::remove_file(&temp)?;
                recovered?;
            }
        }
        Ok(true)
    });
    timed_or_accepted(&params, recovered).await
}

/// Writes the field `snapshot` of a form to a file and gives the name that came with it.
async fn receive(mut form: Multipart, path: &PathBuf) -> Result<String> {
    let broken = |e: axum::extract::multipart::MultipartError| Error::format(e.body_text());
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        if field.name() != Some("snapshot") {
            continue;
        }
        let name = field.file_name().unwrap_or_default().to_owned();
        let mut file = tokio::fs::File::create(path).await?;
        while let Some(chunk) = field.chunk().await.map_err(broken)? {
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        return Ok(name);
    }
    Err(Error::format("Field 'snapshot' is required"))
}

#[derive(Deserialize)]
struct Recover {
    location: String,
    checksum: Option<String>,
    api_key: Option<String>,
}

async fn recover_snapshot(
    Ext(state): Ext<Server>,
    Path(place): Path<Place>,
    params: Params,
    Body_(body): Body_<Recover>,
) -> Response {
    timed_or_accepted(&params, async move {
        let temp = state.unique_temp();
        let path = match body.location.strip_prefix("file://") {
            Some(path) => state.snapshot_of_url(path)?,
            None => {
                fetch::get(&body.location, body.api_key.as_deref(), &temp).await?;
                temp.clone()
            }
        };
        blocking(move || {
            let recovered =
                check_sum(&path, body.checksum.as_deref()).and_then(|()| match place.shard {
                    None => state.recover(&place.name, &path),
                    Some(id) => state.recover_shard(&place.name, id, &path),
                });
            let _ = std::fs::remove_file(temp);
            recovered.map(|()| true)
        })
        .await
    })
    .await
}

fn check_sum(path: &std::path::Path, expected: Option<&str>) -> Result<()> {
    let Some(expected) = expected else { return Ok(()) };
    let actual = sha256(path)?;
    if actual.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Error::bad_input(format!("Snapshot checksum mismatch: expected {expected}, got {actual}")))
}
