//! Backups of the moment at which servers fork for a replica.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use backup_core::{ErrorKind, Part, PinRequest, Pinned, Source, SourceSession, record::Tally};
use backup_redis::{Consistency, RedisOptions, RedisStore};

use crate::{
    cluster::Cluster,
    faults::read,
    rich::fill,
    server::{Raw, Server, available},
    writer::Writer,
};

const SNAPSHOT: Consistency = Consistency::Snapshot(Duration::from_secs(60));
pub(crate) const PAUSED: Consistency = Consistency::Paused(Duration::from_secs(60));

async fn pin(options: RedisOptions) -> backup_core::Result<Box<dyn SourceSession>> {
    match options.connect().await?.pin(&PinRequest::new()).await? {
        Pinned::Pinned { session, .. } => Ok(session),
        Pinned::Live { .. } => panic!("not pinned"),
    }
}

/// Counts and digests; what a collection has in several partitions, added.
pub(crate) async fn content(options: RedisOptions) -> BTreeMap<String, Tally> {
    let session = pin(options).await.unwrap();
    let (mut content, mut counts) = (BTreeMap::<String, Tally>::new(), BTreeMap::new());
    for partition in session.partitions().await.unwrap() {
        while let Some(part) = session.next(&partition).await.unwrap() {
            match part {
                Part::Schema(schema) => {
                    let twice = content.insert(schema.collection, Tally::new());
                    assert_eq!(twice, None);
                }
                Part::Records(batch) => {
                    content.get_mut(batch.collection()).unwrap().add_batch(&batch);
                }
                Part::End(end) => {
                    *counts.entry(end.collection).or_insert(0) += end.count.unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
    session.close().await.unwrap();
    for (name, tally) in &content {
        assert_eq!(tally.records, counts[name]);
    }
    content
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_those_of_a_paused_server() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    fill(&mut [server.raw()]);
    let mut raw = server.raw();
    // Gone for whoever asks, and in the snapshot all the same.
    raw.run("DEBUG SET-ACTIVE-EXPIRE 0");
    raw.run("SET gone x PX 1");
    raw.run("HSET gone:hash f v");
    raw.run("PEXPIRE gone:hash 1");
    Raw::to(&format!("{}/3", server.url())).run("SET elsewhere x");
    thread::sleep(Duration::from_millis(20));
    type Change = fn(RedisOptions) -> RedisOptions;
    let ways: [Change; 5] = [
        |options| options,
        RedisOptions::every_prefix,
        |options| options.databases([0, 3]),
        |options| options.keys(["hash:*", "list:*", "stream*"]),
        |options| options.types(["zset", "string"]).prefixes(["text"]),
    ];
    for way in ways {
        let options =
            |consistency| way(RedisStore::options(&server.url())).consistency(consistency);
        let paused = content(options(PAUSED)).await;
        assert!(paused.values().any(|tally| tally.records > 0));
        for diskless in ["yes", "no"] {
            raw.run(&format!("CONFIG SET repl-diskless-sync {diskless}"));
            raw.run("SET gone x PX 1");
            thread::sleep(Duration::from_millis(20));
            assert!(content(options(SNAPSHOT)).await == paused, "{diskless}");
        }
        assert!(content(options(SNAPSHOT).snapshot_on_disk()).await == paused);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_those_of_a_paused_cluster() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    fill(&mut cluster.raws());
    let options = |consistency| RedisStore::options(&cluster.url()).consistency(consistency);
    assert!(content(options(SNAPSHOT)).await == content(options(PAUSED)).await);
    // Nobody is held back any more.
    let session = pin(options(SNAPSHOT)).await.unwrap();
    let begun = Instant::now();
    cluster.bytes(&[b"SET", b"a", b"b"], &mut cluster.raws());
    assert!(begun.elapsed() < Duration::from_secs(5), "writers are held back");
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_moment_for_several_primaries() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let mut raws = cluster.raws();
    // The second follows the first, on another server.
    let keys = ["left", "right"].map(|key| {
        let key = key.as_bytes();
        let owner = raws.iter_mut().position(|raw| raw.try_run(&[b"SET", key, b"0"]).is_ok());
        (key, owner.unwrap())
    });
    assert_ne!(keys[0].1, keys[1].1);
    let writer = Writer::start(101, move |number| {
        for (key, owner) in keys {
            raws[owner].bytes(&[b"SET", key, number.to_string().as_bytes()]);
        }
    });
    for _ in 0..8 {
        let options = RedisStore::options(&cluster.url()).consistency(SNAPSHOT).plain_strings();
        let session = pin(options).await.unwrap();
        let mut found = BTreeMap::new();
        for partition in session.partitions().await.unwrap() {
            while let Some(part) = session.next(&partition).await.unwrap() {
                let Part::Records(batch) = part else { continue };
                for record in batch.iter() {
                    let value: serde_json::Value =
                        serde_json::from_str(record.value_json()).unwrap();
                    let number: u64 = value["value"].as_str().unwrap().parse().unwrap();
                    found.insert(record.key_json().to_owned(), number);
                }
            }
        }
        session.close().await.unwrap();
        let (left, right) = (found["\"left\""], found["\"right\""]);
        assert!(left == right || left == right + 1, "{left} and {right}");
    }
    assert!(writer.stop() > 100, "the writer did not write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_snapshot_for_another_replica_is_not_taken() {
    if !available() {
        return;
    }
    let server = Server::start(&["repl-diskless-sync no"]);
    let mut raw = server.raw();
    raw.run("DEBUG POPULATE 1000 key 10");
    // A second for all of them.
    raw.run("CONFIG SET rdb-key-save-delay 1000");
    let other = pin(RedisStore::options(&server.url()).consistency(SNAPSHOT)).await.unwrap();
    raw.run("SET later x");
    // There is no time for another one to begin.
    let hurried = Consistency::Snapshot(Duration::from_millis(300));
    let outcome = pin(RedisStore::options(&server.url()).consistency(hurried)).await;
    let error = outcome.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    let later = pin(RedisStore::options(&server.url()).consistency(SNAPSHOT)).await.unwrap();
    assert_eq!(read(&*other).await.unwrap(), 1000);
    assert_eq!(read(&*later).await.unwrap(), 1001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_let_no_replica_in_are_named() {
    if !available() {
        return;
    }
    let server = Server::start(&["rename-command PSYNC \"\"", "requirepass topsecret"]);
    let options = RedisStore::options(&server.url()).password("topsecret");
    let error = pin(options.consistency(SNAPSHOT)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.advice().contains("`paused` or `fuzzy`"), "{error:?}");
    assert!(!error.report().contains("secret"), "{error:?}");

    let server = Server::start(&[]);
    let mut raw = server.raw();
    raw.run("SET a 1");
    raw.run("ACL SETUSER some on >pw ~* +@all -psync");
    let options = || {
        let options = RedisStore::options(&server.url()).username("some").password("pw");
        options.consistency(SNAPSHOT)
    };
    let error = pin(options()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.advice().contains("+psync +replconf"), "{error:?}");
    raw.run("ACL SETUSER some +psync");
    assert_eq!(read(&*pin(options()).await.unwrap()).await.unwrap(), 1);

    // A replica that has lost its primary has no moment to give.
    raw.run("REPLICAOF 127.0.0.1 1");
    let lost = RedisStore::options(&server.url()).consistency(SNAPSHOT);
    let error = pin(lost).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    assert!(error.advice().contains("primary"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_a_socket_of_the_system_give_snapshots() {
    if !available() {
        return;
    }
    let primary = Server::start(&[]);
    primary.raw().run("SET a 1");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let replica = Server::start(&[&format!("unixsocket {}", socket.display())]);
    let mut raw = replica.raw();
    raw.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    while raw.text("INFO replication").contains("master_link_status:down") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for url in [replica.url(), format!("redis+unix://{}", socket.display())] {
        let session = pin(RedisStore::options(&url).consistency(SNAPSHOT)).await.unwrap();
        assert_eq!(read(&*session).await.unwrap(), 1);
    }
}

/// Hands connections on; one that asks for a snapshot gets so many bytes and is cut.
struct Cutting {
    port: u16,
    most: Arc<AtomicUsize>,
    /// How many the last one would have got.
    whole: Arc<AtomicUsize>,
}

impl Cutting {
    fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (most, whole) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::default());
        let cutting = Self { port, most: Arc::clone(&most), whole: Arc::clone(&whole) };
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", server)))
                else {
                    return;
                };
                let asked = Arc::new(AtomicBool::new(false));
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let seen = Arc::clone(&asked);
                thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(n @ 1..) = from.read(&mut bytes) {
                        if bytes[..n].windows(5).any(|word| word == b"PSYNC") {
                            seen.store(true, Ordering::SeqCst);
                        }
                        let _ = to.write_all(&bytes[..n]);
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
                let (mut from, mut to) = (server, client);
                let (most, whole) = (Arc::clone(&most), Arc::clone(&whole));
                thread::spawn(move || {
                    let (mut bytes, mut sent) = ([0; 4096], 0);
                    while let Ok(n @ 1..) = from.read(&mut bytes) {
                        let mut n = n;
                        if asked.load(Ordering::SeqCst) {
                            n = n.min(most.load(Ordering::SeqCst) - sent);
                            sent += n;
                            whole.store(sent, Ordering::SeqCst);
                        }
                        if n == 0 || to.write_all(&bytes[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                    let _ = from.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        cutting
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_anywhere_is_an_error() {
    if !available() {
        return;
    }
    for diskless in ["yes", "no"] {
        let server = Server::start(&[&format!("repl-diskless-sync {diskless}")]);
        let mut raw = server.raw();
        for number in 0..20 {
            raw.run(&format!("SET {number} {}", "x".repeat(number)));
            raw.run(&format!("XADD stream * n {number}"));
        }
        let cutting = Cutting::before(server.port);
        let url = format!("redis://127.0.0.1:{}", cutting.port);
        let attempt = async || {
            let session = pin(RedisStore::options(&url).consistency(SNAPSHOT)).await?;
            let outcome = read(&*session).await;
            session.close().await.unwrap();
            outcome
        };
        assert_eq!(attempt().await.unwrap(), 41);
        let whole = cutting.whole.load(Ordering::SeqCst);
        assert!(whole > 300, "{whole}");
        for most in (0..whole - 60).step_by(53).chain(whole - 60..whole) {
            cutting.most.store(most, Ordering::SeqCst);
            let error = attempt().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unreachable, "{most} of {whole}: {error:?}");
        }
        // All of it, but for what the server's next answer would be.
        cutting.most.store(usize::MAX, Ordering::SeqCst);
        assert_eq!(attempt().await.unwrap(), 41);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_too_slow_is_told_so_unless_the_server_has_a_file() {
    if !available() {
        return;
    }
    let server = Server::start(&["repl-timeout 1", "rdbcompression no"]);
    let mut raw = server.raw();
    raw.run("DEBUG POPULATE 60000 key 1000");
    let options = || RedisStore::options(&server.url()).consistency(SNAPSHOT);
    let (straight, file) = (options(), options().snapshot_on_disk());
    let straight = pin(straight).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let error = read(&*straight).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    assert!(error.advice().contains("repl-timeout"), "{error:?}");
    straight.close().await.unwrap();
    let file = pin(file).await.unwrap();
    // Written meanwhile, and not to be waited for by the server.
    raw.run("DEBUG POPULATE 60000 later 1000");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(read(&*file).await.unwrap(), 60_000);
    file.close().await.unwrap();
    // What nobody waits for ends on the server, too.
    drop(pin(options()).await.unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !raw.text("INFO replication").contains("connected_slaves:0") {
        assert!(Instant::now() < deadline, "{}", raw.text("INFO replication"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
