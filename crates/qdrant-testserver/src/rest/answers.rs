//! What requests bring, and how they are answered.

use std::future::Future;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Params;
use crate::error::{Error, Result};

/// A body of JSON, whatever type the request says it has.
pub(super) struct Body_<T>(pub(super) T);

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

pub(super) fn answer<T: Serialize>(started: Instant, result: Result<T>) -> Response {
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
pub(super) async fn work<T, F>(work: F) -> Response
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

pub(super) async fn timed<T: Serialize>(result: impl Future<Output = Result<T>>) -> Response {
    let started = Instant::now();
    answer(started, result.await)
}

/// Answers at once where the request does not wait.
pub(super) async fn timed_or_accepted<T, F>(params: &Params, result: F) -> Response
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
