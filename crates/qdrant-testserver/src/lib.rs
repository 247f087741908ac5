//! A Qdrant server for tests and benches: shards of the real engine, [`qdrant_edge`], behind the
//! gRPC and REST of a server. Development only.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! let server = qdrant_testserver::TestServer::start().await?;
//! println!("{} {}", server.grpc_url(), server.rest_url());
//! server.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! Points move over gRPC (Upsert, Scroll, Get, Count, Delete); every other method there says that it is
//! not implemented. Over REST there are collections, shard keys, aliases, payload indexes, points, the
//! nearest to a dense vector, and snapshots. Answers, errors and snapshot files are those of a server 1.19.
//!
//! What is not as on a real server:
//!
//! - The servers of a cluster are one process, and a shard has one copy. No search but that for the nearest; no inference; no conditional upserts; no shard
//!   key to fall back to.
//! - No optimizer runs: nothing is indexed for search, a collection is always green, and changed
//!   parameters are kept and shown but change no files.
//! - Strict mode is kept and shown, not enforced. Nor are read-only keys or tokens known.
//! - A change is made before it is answered, also where the request does not wait.
//! - What a killed process had not flushed is lost; [`TestServer::stop`] flushes.
//! - The engine is a little older than the server whose version is given: no turbo quantization,
//!   no memory placement, no filters by prefix, substring or slice.

mod collection;
mod config;
mod error;
mod faults;
mod fetch;
mod files;
mod filter;
mod grpc;
mod live;
mod peer;
mod rest;
mod ring;
mod search;
mod sharding;
mod snapshot;
mod state;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use qdrant_client::qdrant::points_server::PointsServer;
use qdrant_client::qdrant::qdrant_server::QdrantServer;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use faults::{Action, Fault, Faults, Match};
use peer::Peer;
use state::State;

const TITLE: &str = "qdrant - vector search engine";
const COMMIT: &str = "74f3e85b9473c62560006c043e13737ce6b48412";

/// How a server is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The key that requests must bring.
    pub api_key: Option<String>,
    /// The version that it says it has.
    pub version: String,
    /// Whether it is a cluster: only such a server has shard keys.
    pub cluster: bool,
    /// The servers of the cluster, at least one. Each answers REST, and has its share of the shards;
    /// the first answers gRPC for all.
    pub peers: u32,
    /// What goes wrong.
    pub faults: Faults,
    /// The ports of gRPC and REST; free ones if none.
    pub ports: Option<(u16, u16)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            api_key: None,
            version: "1.19.0".to_owned(),
            cluster: true,
            peers: 1,
            faults: Faults::default(),
            ports: None,
        }
    }
}

impl Options {
    /// Whether a request with these headers may be answered; if not, why.
    fn check_key<'a>(&self, header: impl Fn(&str) -> Option<&'a str>) -> Result<(), &'static str> {
        let Some(key) = &self.api_key else { return Ok(()) };
        let bearer = || header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match header("api-key").or_else(bearer) {
            None => Err("Must provide an API key or an Authorization bearer token"),
            Some(given) if given != key => Err("Invalid API key or JWT"),
            Some(_) => Ok(()),
        }
    }
}

/// A running server. Dropped, it stops, and its connections break.
#[derive(Debug)]
pub struct TestServer {
    grpc: SocketAddr,
    /// Of each server of the cluster.
    rest: Vec<SocketAddr>,
    faults: Faults,
    /// Of its own, so that it can be stopped in the middle of everything.
    runtime: Option<Runtime>,
    state: Option<Arc<State>>,
    _temp: Option<TempDir>,
}

impl TestServer {
    /// Starts an empty server in a temporary folder, on free ports.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts an empty server in a temporary folder.
    pub async fn start_with(options: Options) -> io::Result<Self> {
        let temp = TempDir::new()?;
        let dir = temp.path().to_owned();
        let mut server = Self::start_in(&dir, options).await?;
        server._temp = Some(temp);
        Ok(server)
    }

    /// Starts a server in a folder, with what an earlier one left there.
    pub async fn start_in(dir: &Path, options: Options) -> io::Result<Self> {
        let dir = dir.to_owned();
        let started = tokio::task::spawn_blocking(move || Self::start_blocking(&dir, options));
        started.await.map_err(io::Error::other)?
    }

    fn start_blocking(dir: &Path, options: Options) -> io::Result<Self> {
        let (grpc_port, rest_port) = options.ports.unwrap_or_default();
        let (faults, peers) = (options.faults.clone(), options.peers.max(1));
        std::fs::create_dir_all(dir)?;
        let opened = State::open(&dir.canonicalize()?, options);
        let state = Arc::new(opened.map_err(|error| io::Error::other(error.to_string()))?);
        let grpc = listen(grpc_port)?;
        let rest = (0..peers).map(|peer| listen(if peer == 0 { rest_port } else { 0 }));
        let rest = rest.collect::<io::Result<Vec<_>>>()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("qdrant-testserver")
            .enable_all()
            .build()?;
        let mut server = Self {
            grpc: grpc.local_addr()?,
            rest: rest.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?,
            faults,
            state: Some(Arc::clone(&state)),
            runtime: None,
            _temp: None,
        };
        let _entered = runtime.enter();
        runtime.spawn(serve_grpc(tokio::net::TcpListener::from_std(grpc)?, Arc::clone(&state)));
        for (peer, rest) in Peer::all(peers).zip(rest) {
            let rest = tokio::net::TcpListener::from_std(rest)?;
            runtime.spawn(serve_rest(rest, Arc::clone(&state), peer));
        }
        drop(_entered);
        server.runtime = Some(runtime);
        Ok(server)
    }

    /// Where gRPC is answered.
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// Where REST is answered, by the first server of a cluster.
    pub fn rest_url(&self) -> String {
        format!("http://{}", self.rest[0])
    }

    /// Where the other servers of a cluster answer REST.
    pub fn peer_urls(&self) -> Vec<String> {
        self.rest[1..].iter().map(|peer| format!("http://{peer}")).collect()
    }

    /// The faults it shows.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Stops at once, as if killed: whoever waits for an answer gets none. What was answered for
    /// is on disk afterwards.
    pub async fn stop(self) {
        let _ = tokio::task::spawn_blocking(|| drop(self)).await;
    }

    fn close(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(60));
        }
        // Closes the engine's files.
        self.state = None;
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // A runtime may not be waited for on a thread of another one.
        std::thread::scope(|scope| {
            scope.spawn(|| self.close());
        });
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve_grpc(listener: tokio::net::TcpListener, state: Arc<State>) {
    let service = grpc::Service(state);
    let points = PointsServer::new(service.clone()).max_decoding_message_size(usize::MAX);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    // Ends with the runtime only.
    let _ = Server::builder()
        .add_service(points)
        .add_service(QdrantServer::new(service))
        .serve_with_incoming(incoming)
        .await;
}

async fn serve_rest(listener: tokio::net::TcpListener, state: Arc<State>, peer: Peer) {
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let _ = axum::serve(listener, rest::router(state, peer)).await;
}
