//! Servers for tests, and a client of them that is not the adapter.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use backup_core::{Error, ErrorKind, Result};
use backup_qdrant::{QdrantOptions, QdrantStore};
use qdrant_client::{
    Payload, Qdrant,
    qdrant::{PointStruct, ScrollPointsBuilder, UpsertPointsBuilder, vector_output},
};
use qdrant_testserver::{Options, TestServer};
use serde_json::{Value, json};

static REAL: Mutex<()> = Mutex::new(());

/// One empty server.
pub(crate) struct Site {
    grpc: String,
    rest: String,
    http: reqwest::Client,
    /// `None`: the one that `QDRANT_URL` names, which tests use one after the other.
    test: Option<TestServer>,
    _real: Option<MutexGuard<'static, ()>>,
    // After the server.
    _folder: Option<tempfile::TempDir>,
}

/// Runs a test in a runtime of its own.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(test)
}

impl Site {
    pub(crate) async fn start() -> Self {
        let Ok(url) = std::env::var("QDRANT_URL") else {
            return Self::with(Options::default()).await;
        };
        let guard = REAL.lock().unwrap_or_else(PoisonError::into_inner);
        let (host, port) = url.rsplit_once(':').expect("an address with a port");
        let below = port.trim_end_matches('/').parse::<u16>().expect("a port") - 1;
        let rest = format!("{host}:{below}");
        let site =
            Self { grpc: url, rest, http: client(), test: None, _real: Some(guard), _folder: None };
        for name in site.collections().await {
            site.ask("DELETE", &format!("/collections/{name}"), Value::Null).await;
        }
        site
    }

    /// A test server.
    pub(crate) async fn with(options: Options) -> Self {
        // Collections are many small synced files: memory saves minutes.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a folder");
        let server = TestServer::start_in(folder.path(), options).await;
        Self::of(server.expect("the test server starts"), Some(folder))
    }

    pub(crate) fn of(server: TestServer, folder: Option<tempfile::TempDir>) -> Self {
        Self {
            grpc: server.grpc_url(),
            rest: server.rest_url(),
            http: client(),
            test: Some(server),
            _real: None,
            _folder: folder,
        }
    }

    /// Lets requests fail, or says that a real server cannot be made to.
    pub(crate) fn faults(&self) -> Option<&qdrant_testserver::Faults> {
        let faults = self.test.as_ref().map(TestServer::faults);
        if faults.is_none() {
            #[expect(clippy::print_stderr, reason = "a skipped test says so")]
            {
                eprintln!("SKIPPED: a real server cannot be made to fail");
            }
        }
        faults
    }

    pub(crate) fn options(&self) -> QdrantOptions {
        QdrantStore::options(&self.grpc).rest_url(&self.rest)
    }

    /// For REST of the other servers of the cluster.
    pub(crate) fn peers(&self) -> Vec<String> {
        self.test.as_ref().map(TestServer::peer_urls).unwrap_or_default()
    }

    /// For gRPC and for REST.
    pub(crate) fn addresses(&self) -> (&str, &str) {
        (&self.grpc, &self.rest)
    }

    pub(crate) fn store(&self) -> QdrantStore {
        self.options().open().expect("a store")
    }

    /// `result` of an answer; panics where the server refuses.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        self.try_ask(method, path, body).await.expect("the server answers")
    }

    pub(crate) async fn try_ask(&self, method: &str, path: &str, body: Value) -> Result<Value> {
        self.ask_at(&self.rest, method, path, body).await
    }

    /// One of the servers of the cluster.
    pub(crate) async fn ask_at(
        &self,
        rest: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> Result<Value> {
        let url = format!("{rest}{path}");
        let mut request = self.http.request(method.parse().expect("a method"), url);
        if !body.is_null() {
            request = request.json(&body);
        }
        let failed = |e: reqwest::Error| Error::new(ErrorKind::Io, "no answer").because(e);
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let answer: Value = response.json().await.map_err(failed)?;
        if !status.is_success() {
            return Err(Error::new(ErrorKind::Io, answer.to_string()).on(path));
        }
        Ok(answer["result"].clone())
    }

    pub(crate) async fn collections(&self) -> Vec<String> {
        let list = self.ask("GET", "/collections", Value::Null).await;
        let list = list["collections"].as_array().expect("a list");
        let mut names: Vec<_> =
            list.iter().map(|c| c["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    }

    /// Every point of a collection, as JSON, in the order of the ids; under each shard key where
    /// there are any.
    pub(crate) async fn points(&self, collection: &str) -> Vec<Value> {
        let keys = self.shard_keys(collection).await;
        if keys.is_empty() {
            return self.points_under(collection, Value::Null).await;
        }
        let mut points = Vec::new();
        for key in keys {
            points.extend(self.points_under(collection, key).await);
        }
        points
    }

    pub(crate) async fn points_under(&self, collection: &str, key: Value) -> Vec<Value> {
        let mut points = Vec::new();
        let mut offset = Value::Null;
        loop {
            let body = json!({
                "limit": 1000, "offset": offset, "with_payload": true, "with_vector": true,
                "shard_key": key,
            });
            let path = format!("/collections/{}/points/scroll", escaped(collection));
            let page = self.ask("POST", &path, body).await;
            points.extend(page["points"].as_array().expect("points").iter().cloned());
            offset = page["next_page_offset"].clone();
            if offset.is_null() {
                return points;
            }
        }
    }

    /// In the order of their texts.
    pub(crate) async fn shard_keys(&self, collection: &str) -> Vec<Value> {
        let path = format!("/collections/{}/shards", escaped(collection));
        let answer = self.ask("GET", &path, Value::Null).await;
        let keys = answer["shard_keys"].as_array().cloned().unwrap_or_default();
        let mut keys: Vec<_> = keys.into_iter().map(|described| described["key"].clone()).collect();
        keys.sort_by_key(Value::to_string);
        keys
    }

    pub(crate) async fn create(&self, collection: &str, config: Value) {
        self.ask("PUT", &format!("/collections/{}", escaped(collection)), config).await;
    }

    pub(crate) async fn upsert(&self, collection: &str, points: Vec<Value>) {
        let path = format!("/collections/{}/points?wait=true", escaped(collection));
        self.ask("PUT", &path, json!({ "points": points })).await;
    }

    pub(crate) async fn upload(&self, collection: &str, snapshot: Vec<u8>) {
        let part = reqwest::multipart::Part::bytes(snapshot).file_name("snapshot");
        let form = reqwest::multipart::Form::new().part("snapshot", part);
        let path = format!("{}/collections/{collection}/snapshots/upload", self.rest);
        let sent = self.http.post(format!("{path}?priority=snapshot")).multipart(form).send();
        let response = sent.await.expect("an answer");
        assert!(response.status().is_success(), "{:?}", response.text().await);
    }

    /// A point over gRPC, which can carry what JSON cannot.
    pub(crate) async fn upsert_dense(&self, collection: &str, id: u64, vector: &[f32]) {
        let point = PointStruct::new(id, vector.to_vec(), Payload::new());
        let request = UpsertPointsBuilder::new(collection, vec![point]).wait(true);
        self.grpc().upsert_points(request).await.expect("taken");
    }

    /// The vector of a collection's only point, over gRPC.
    pub(crate) async fn dense(&self, collection: &str) -> Vec<f32> {
        let request = ScrollPointsBuilder::new(collection).with_vectors(true);
        let page = self.grpc().scroll(request).await.expect("a page");
        let [point] = &page.result[..] else { panic!("not one point") };
        let vector = point.vectors.clone().and_then(|vectors| vectors.get_vector());
        match vector {
            Some(vector_output::Vector::Dense(dense)) => dense.data,
            other => panic!("no dense vector: {other:?}"),
        }
    }

    fn grpc(&self) -> Qdrant {
        Qdrant::from_url(&self.grpc).skip_compatibility_check().build().expect("a client")
    }

    pub(crate) async fn alias(&self, alias: &str, collection: &str) {
        let action = json!({"create_alias": {"alias_name": alias, "collection_name": collection}});
        self.ask("POST", "/collections/aliases", json!({"actions": [action]})).await;
    }

    /// All that is on the server, for comparing: collections with settings and points, aliases.
    pub(crate) async fn all(&self) -> Vec<String> {
        let mut all = Vec::new();
        for name in self.collections().await {
            let path = format!("/collections/{}", escaped(&name));
            let info = self.ask("GET", &path, Value::Null).await;
            all.push(format!("{name}: {}", text(&info["config"])));
            for key in self.shard_keys(&name).await {
                let path = format!("/collections/{}/cluster", escaped(&name));
                let shards = self.ask("GET", &path, Value::Null).await;
                let of_all = ["local_shards", "remote_shards"].into_iter();
                let of_all = of_all.flat_map(|of| shards[of].as_array().expect("shards"));
                let number = of_all.filter(|shard| shard["shard_key"] == key).count();
                all.push(format!("{name}: shard key {key}: {number}"));
            }
            let indexes = info["payload_schema"].as_object().cloned().unwrap_or_default();
            let mut indexes: Vec<_> = indexes
                .iter()
                .map(|(field, index)| format!("{name}: {field}: {}", index["data_type"]))
                .collect();
            indexes.sort();
            all.extend(indexes);
            all.extend(
                self.points(&name).await.iter().map(|point| format!("{name}: {}", text(point))),
            );
        }
        let aliases = self.ask("GET", "/aliases", Value::Null).await;
        let mut aliases: Vec<_> =
            aliases["aliases"].as_array().expect("aliases").iter().map(text).collect();
        aliases.sort();
        all.extend(aliases);
        all
    }

    /// Names of what is no content: what restores make, and snapshots.
    pub(crate) async fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        for name in self.collections().await {
            let path = format!("/collections/{}/snapshots", escaped(&name));
            let snapshots = self.ask("GET", &path, Value::Null).await;
            let snapshots = snapshots.as_array().expect("a list").iter();
            traces.extend(snapshots.map(|s| format!("{name}: {}", s["name"])));
            traces.extend(self.snapshots_of_shards(&name).await);
            if name.starts_with("backup-kit.") {
                traces.push(name);
            }
        }
        let aliases = self.ask("GET", "/aliases", Value::Null).await;
        let aliases = aliases["aliases"].as_array().expect("aliases").iter();
        traces.extend(aliases.map(Value::to_string).filter(|alias| alias.contains("backup-kit.")));
        traces
    }

    async fn snapshots_of_shards(&self, collection: &str) -> Vec<String> {
        let mut found = Vec::new();
        for server in [self.rest.clone()].into_iter().chain(self.peers()) {
            let ask = async |path: &str| {
                let path = format!("/collections/{}/{path}", escaped(collection));
                self.ask_at(&server, "GET", &path, Value::Null).await.expect("an answer")
            };
            for shard in ask("cluster").await["local_shards"].as_array().expect("shards") {
                let number = &shard["shard_id"];
                let snapshots = ask(&format!("shards/{number}/snapshots")).await;
                let snapshots = snapshots.as_array().expect("a list").iter();
                found.extend(snapshots.map(|s| format!("{collection}/{number}: {}", s["name"])));
            }
        }
        found
    }
}

/// JSON whose members have a fixed order.
fn text(value: &Value) -> String {
    backup_core::record::canonical::canonicalize(value.to_string().as_bytes()).expect("JSON")
}

/// Compares what [`Site::all`] gave, and shows the first difference only.
pub(crate) fn same(left: &[String], right: &[String]) {
    let differ = left.iter().zip(right).find(|(a, b)| a != b);
    assert!(differ.is_none(), "{differ:#?}");
    assert_eq!(left.len(), right.len());
}

fn client() -> reqwest::Client {
    // Plain HTTP: the certificates need not be read for it.
    reqwest::Client::builder()
        .tls_backend_preconfigured(
            rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
        )
        .build()
        .expect("a client")
}

pub(crate) fn escaped(name: &str) -> String {
    let mut url = reqwest::Url::parse("http://localhost").expect("a URL");
    url.path_segments_mut().expect("a path").push(name);
    url.path().trim_start_matches('/').to_owned()
}
