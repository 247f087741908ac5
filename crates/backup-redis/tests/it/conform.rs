//! The suite that every adapter runs.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use backup_conformance::{Asked, Dataset, Harness, MARK, Row};
use backup_core::{
    Error, ErrorKind, Result, async_trait,
    record::{Key, canonical::Writer, tagged::Scalar},
};
use backup_redis::{Consistency, RedisStore};

use crate::{
    cluster::Cluster,
    server::{Raw, Server, available, content, leftovers},
};

/// Servers that are used again.
enum Host {
    One(Server),
    Three(Cluster),
}

impl Host {
    fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(cluster) => cluster.url(),
        }
    }

    fn raws(&self) -> Vec<Raw> {
        match self {
            Self::One(server) => vec![server.raw()],
            Self::Three(cluster) => cluster.raws(),
        }
    }

    fn run(&self, command: &[&[u8]], raws: &mut [Raw]) {
        match self {
            Self::One(_) => drop(raws[0].bytes(command)),
            Self::Three(cluster) => cluster.bytes(command, raws),
        }
    }
}

struct Servers {
    make: fn() -> Host,
    url_end: &'static str,
    consistency: Consistency,
    idle: Mutex<Vec<Host>>,
}

impl Servers {
    fn new(make: fn() -> Host) -> Self {
        Self { make, url_end: "", consistency: Consistency::Fuzzy, idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Host>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Place<'a> {
    servers: &'a Servers,
    host: Option<Host>,
}

impl Place<'_> {
    fn host(&self) -> &Host {
        self.host.as_ref().unwrap()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.servers.idle().extend(self.host.take());
    }
}

struct Kit<'a>(&'a Servers);

fn suffix(key: &Key) -> Vec<u8> {
    match key.scalars().as_deref() {
        Some([Scalar::Integer(number)]) => number.to_string().into_bytes(),
        Some([Scalar::Text(text)]) => text.clone().into_bytes(),
        Some([Scalar::Bytes(bytes)]) => bytes.clone(),
        _ => key.as_json().as_bytes().to_vec(),
    }
}

/// A row as an application would keep it: JSON in a string.
fn json(row: &Row) -> Vec<u8> {
    let mut text = Vec::new();
    let mut json = Writer::new(&mut text);
    json.begin_object().unwrap();
    json.name("fields").unwrap();
    json.value(&row.value()).unwrap();
    json.name("key").unwrap();
    json.canonical_text(row.key.as_json());
    json.end_object();
    text
}

/// Makes the rows as an application would, whoever runs the commands.
pub(crate) fn fill(data: &Dataset, run: &mut dyn FnMut(&[&[u8]])) -> Result<()> {
    for collection in &data.collections {
        if collection.name.contains(':') || collection.name.len() > 200 {
            let what = "a key prefix has no colon and is short";
            return Err(Error::new(ErrorKind::Unsupported, what).on(&collection.name));
        }
        for row in &collection.rows {
            let key = [collection.name.as_bytes(), b":", &suffix(&row.key)].concat();
            match (&row.element, &row.fields[MARK]) {
                (Some(element), Scalar::Text(mark)) => {
                    run(&[b"HSET", &key, &suffix(element), mark.as_bytes()]);
                }
                _ => run(&[b"SET", &key, &json(row)]),
            }
        }
    }
    Ok(())
}

#[async_trait(?Send)]
impl<'a> Harness for Kit<'a> {
    type Place = Place<'a>;
    type Store = RedisStore;

    async fn place(&self) -> Result<Place<'a>> {
        let host = self.0.idle().pop();
        let host = host.unwrap_or_else(self.0.make);
        for raw in &mut host.raws() {
            raw.run("CLIENT UNPAUSE");
            raw.run("FLUSHALL");
        }
        Ok(Place { servers: self.0, host: Some(host) })
    }

    async fn open(&self, place: &Place<'a>) -> Result<RedisStore> {
        let url = format!("{}{}", place.host().url(), self.0.url_end);
        let options = RedisStore::options(&url).every_prefix();
        options.consistency(self.0.consistency).connect().await
    }

    async fn fill(&self, place: &Place<'a>, data: &Dataset) -> Result<()> {
        let (host, mut raws) = (place.host(), place.host().raws());
        fill(data, &mut |command| host.run(command, &mut raws))
    }

    async fn change(&self, place: &Place<'a>) -> Result<()> {
        let command: [&[u8]; 3] = [b"SET", b"notes:999999", b"another"];
        if matches!(self.0.consistency, Consistency::Paused(_)) {
            // It is held back until the session is closed.
            let mut raws = place.host().raws();
            std::thread::spawn(move || drop(raws[0].try_run(&command)));
            tokio::time::sleep(Duration::from_millis(50)).await;
            return Ok(());
        }
        place.host().run(&command, &mut place.host().raws());
        Ok(())
    }

    async fn dump(&self, place: &Place<'a>) -> Result<Option<Vec<String>>> {
        let mut all: Vec<String> = place.host().raws().iter_mut().flat_map(content).collect();
        all.sort();
        Ok(Some(all))
    }

    async fn trace(&self, place: &Place<'a>) -> Result<Option<Vec<String>>> {
        Ok(Some(place.host().raws().iter_mut().flat_map(leftovers).collect()))
    }

    fn holds(&self, asked: Asked<'_>) -> bool {
        // A prefix that no key has is not there.
        !matches!(asked, Asked::Collection("empty"))
    }

    fn block_on(&self, case: Pin<Box<dyn Future<Output = ()> + '_>>) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(case);
    }
}

#[test]
fn one_server() {
    if available() {
        backup_conformance::run(&Kit(&Servers::new(|| Host::One(Server::start(&[])))));
    }
}

#[test]
fn one_server_with_resp3() {
    if available() {
        let mut servers = Servers::new(|| Host::One(Server::start(&[])));
        servers.url_end = "/?protocol=resp3";
        backup_conformance::run(&Kit(&servers));
    }
}

#[test]
fn one_server_that_holds_writers_back() {
    if available() {
        let mut servers = Servers::new(|| Host::One(Server::start(&[])));
        servers.consistency = Consistency::Paused(Duration::from_secs(60));
        backup_conformance::run(&Kit(&servers));
    }
}

#[test]
fn snapshots_of_one_server() {
    if available() {
        let mut servers = Servers::new(|| Host::One(Server::start(&[])));
        servers.consistency = Consistency::Snapshot(Duration::from_secs(60));
        backup_conformance::run(&Kit(&servers));
    }
}

#[test]
fn snapshots_of_a_cluster() {
    if available() {
        let mut servers = Servers::new(|| Host::Three(Cluster::start()));
        servers.consistency = Consistency::Snapshot(Duration::from_secs(60));
        backup_conformance::run(&Kit(&servers));
    }
}

#[test]
fn a_cluster() {
    if available() {
        backup_conformance::run(&Kit(&Servers::new(|| Host::Three(Cluster::start()))));
    }
}
