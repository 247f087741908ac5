//! Qdrant's REST interface: everything but the points in bulk.

use std::{future::Future, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use backup_core::{ByteStream, Error, ErrorKind, Result};
use futures::{StreamExt, TryStreamExt};
use reqwest::{
    Body, Client, Method, RequestBuilder, Response, StatusCode, Url,
    multipart::{Form, Part},
};
use serde_json::Value;

use super::connect::Access;

/// Longest answer that is read: lists of collections, a few points.
const MAX_ANSWER: usize = 64 << 20;

/// A client of one server.
#[derive(Clone)]
pub(super) struct Rest {
    http: Client,
    base: Url,
    access: Access,
}

/// A request that is not sent yet.
pub(super) struct Call<'a> {
    rest: &'a Rest,
    method: Method,
    url: Url,
    body: Option<Value>,
    timeout: Duration,
}

impl Rest {
    pub(super) fn new(base: Url, access: &Access) -> Result<Self> {
        let http = Client::builder()
            .connect_timeout(access.connect_timeout())
            .tls_backend_preconfigured(access.tls()?)
            // A redirect could carry the key to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "no HTTP client").because(e))?;
        Ok(Self { http, base, access: access.clone() })
    }

    /// The server's address, without credentials.
    pub(super) fn address(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// How long the server may take for what takes long.
    pub(super) fn patience(&self) -> Duration {
        self.access.long
    }

    fn call(&self, method: Method, path: &[&str]) -> Call<'_> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Call { rest: self, method, url, body: None, timeout: self.access.timeout }
    }

    pub(super) fn get(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::GET, path)
    }
    pub(super) fn put(&self, path: &[&str], body: Value) -> Call<'_> {
        self.call(Method::PUT, path).body(body)
    }
    pub(super) fn post(&self, path: &[&str], body: Value) -> Call<'_> {
        self.call(Method::POST, path).body(body)
    }
    pub(super) fn patch(&self, path: &[&str], body: Value) -> Call<'_> {
        self.call(Method::PATCH, path).body(body)
    }
    pub(super) fn delete(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::DELETE, path)
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.access.key {
            Some(key) => request.header("api-key", key.clone()),
            None => request,
        }
    }

    /// Streams a file from the server; also its length.
    pub(super) async fn download(&self, path: &[&str]) -> Result<(ByteStream, Option<u64>)> {
        let Call { url, .. } = self.get(path);
        let subject = subject(&url);
        let sent = self.request(Method::GET, url).timeout(self.access.long).send().await;
        let response = answered(sent, &subject).await?;
        let len = response.content_length();
        let body = response.bytes_stream().map_err(move |e| unreachable(e, &subject));
        Ok((body.boxed(), len))
    }

    /// Sends a snapshot to a path, where the server recovers from it; it may keep it under `name`.
    pub(super) async fn upload(
        &self,
        path: &[&str],
        name: String,
        body: ByteStream,
        len: Option<u64>,
        checksum: Option<&str>,
    ) -> Result<()> {
        let Call { mut url, .. } = self.call(Method::POST, path);
        url.query_pairs_mut().append_pair("priority", "snapshot").append_pair("wait", "true");
        if let Some(checksum) = checksum {
            url.query_pairs_mut().append_pair("checksum", checksum);
        }
        let subject = subject(&url);
        let body = Body::wrap_stream(body);
        let part = match len {
            Some(len) => Part::stream_with_length(body, len),
            None => Part::stream(body),
        };
        let form = Form::new().part("snapshot", part.file_name(name));
        let request = self.request(Method::POST, url).timeout(self.access.long).multipart(form);
        answered(request.send().await, &subject).await.map(drop)
    }
}

impl Call<'_> {
    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) fn query(mut self, name: &str, value: &str) -> Self {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    /// For what may take the server long: snapshots.
    pub(super) fn long(mut self) -> Self {
        self.timeout = self.rest.access.long;
        self
    }

    /// Sends it once, and returns `result` of the answer.
    pub(super) async fn once(&self) -> Result<Value> {
        let subject = subject(&self.url);
        let mut request =
            self.rest.request(self.method.clone(), self.url.clone()).timeout(self.timeout);
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        let response = answered(request.send().await, &subject).await?;
        let text = read(response, &subject).await?;
        let mut answer: Value = serde_json::from_slice(&text).map_err(|e| {
            Error::new(ErrorKind::Mismatch, "the server's answer is not JSON")
                .on(&subject)
                .because(e)
                .advise("check that the address is that of Qdrant's REST interface")
        })?;
        // `/` answers without an envelope.
        Ok(if answer.get("result").is_some() { answer["result"].take() } else { answer })
    }

    /// Sends it, again where the server is busy or does not answer: for what may be repeated.
    pub(super) async fn send(self) -> Result<Value> {
        retry(|| self.once()).await
    }

    /// As [`send`](Self::send); `None` where what was named is not there.
    pub(super) async fn find(self) -> Result<Option<Value>> {
        match self.send().await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Repeats what failed for a reason that passes: five times within about eight seconds.
pub(super) async fn retry<T, F: Future<Output = Result<T>>>(call: impl FnMut() -> F) -> Result<T> {
    let policy = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(4))
        .with_max_times(5)
        .with_jitter();
    call.retry(policy).when(Error::is_retryable).await
}

/// What a call is about, for errors: the path, never the host's credentials.
fn subject(url: &Url) -> String {
    url.path().to_owned()
}

pub(super) fn unreachable(error: reqwest::Error, subject: &str) -> Error {
    let what = if error.is_timeout() {
        "Qdrant did not answer in time"
    } else if error.is_connect() {
        "Qdrant cannot be reached"
    } else {
        "the connection to Qdrant broke"
    };
    Error::new(ErrorKind::Unreachable, what).on(subject).because(error.without_url())
}

async fn answered(sent: reqwest::Result<Response>, subject: &str) -> Result<Response> {
    let response = sent.map_err(|e| unreachable(e, subject))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = read(response, subject).await.unwrap_or_default();
    let said = serde_json::from_slice::<Value>(&text)
        .ok()
        .and_then(|answer| Some(answer.pointer("/status/error")?.as_str()?.to_owned()));
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(&text).chars().take(300).collect());
    Err(refused(kind(status, &said), &said).on(subject))
}

async fn read(mut response: Response, subject: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|e| unreachable(e, subject))? {
        if text.len() + piece.len() > MAX_ANSWER {
            let what = "the server's answer is too long";
            return Err(Error::new(ErrorKind::LimitExceeded, what).on(subject));
        }
        text.extend_from_slice(&piece);
    }
    Ok(text)
}

fn kind(status: StatusCode, said: &str) -> ErrorKind {
    match status {
        _ if full(said) => ErrorKind::NoSpace,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::PermissionDenied,
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::CONFLICT => ErrorKind::AlreadyExists,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::Busy,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            ErrorKind::Unreachable
        }
        StatusCode::INSUFFICIENT_STORAGE => ErrorKind::NoSpace,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::LimitExceeded,
        status if status.is_client_error() => ErrorKind::Incompatible,
        _ => ErrorKind::Io,
    }
}

/// Whether the server says that its disk is full; it does so in an internal error.
pub(super) fn full(said: &str) -> bool {
    let said = said.to_lowercase();
    said.contains("no space left") || said.contains("exceeds available disk space")
}

/// An answer of the server that is not what was asked for.
pub(super) fn refused(kind: ErrorKind, said: &str) -> Error {
    let error = match kind {
        ErrorKind::PermissionDenied => {
            Error::new(kind, "Qdrant refused access").advise("check the API key and its rights")
        }
        ErrorKind::NotFound => Error::new(kind, "Qdrant does not have it"),
        ErrorKind::NoSpace => Error::new(kind, "the disk of the Qdrant server is full")
            .advise("free some space on the server, then try again"),
        ErrorKind::Busy => Error::new(kind, "Qdrant limits the rate of requests"),
        ErrorKind::Unreachable => Error::new(kind, "Qdrant is not ready"),
        ErrorKind::AlreadyExists => Error::new(kind, "Qdrant has it already"),
        ErrorKind::Io => {
            Error::new(kind, "Qdrant failed").advise("look into the log of the Qdrant server")
        }
        _ => Error::new(kind, "Qdrant refused the request").advise("look at what the server said"),
    };
    error.because(said.trim().to_owned())
}
