//! Bad input, writers, and servers that go away.

use std::{path::PathBuf, process::Command, time::Duration};

use backup_core::{ErrorKind, PinRequest, Pinned, Reattached, Sink, Source, WriteMode};
use backup_neo4j::Neo4jStore;
use neo4j_testserver::{Options, Server, available, shared, skip};
use serde_json::json;

use crate::{
    archive::Archive,
    kit::{content, engine, leftovers, options, read, read_with, runtime},
};

#[test]
fn an_unchanged_graph_is_proved_to_be_and_a_changed_one_is_said_to_be() {
    let Some(server) = shared() else { return };
    server.cypher("CREATE (:A {x: 1})-[:R]->(:A {x: 2})", json!({})).expect("made");
    let rt = runtime();
    let store = rt.block_on(options(&server).connect()).unwrap();
    assert_eq!(engine(&store), "neo4j");
    let quiet = rt.block_on(read(&store, &PinRequest::new())).unwrap().summary;
    assert_eq!(quiet.changed, Some(false));
    assert_eq!(quiet.metadata["transaction_before"], quiet.metadata["transaction_after"]);
    // The count stays the same: only the server's own number tells.
    let write = || {
        server.cypher("MATCH (n:A {x: 2}) SET n.x = 3", json!({})).expect("written");
    };
    let busy = rt.block_on(read_with(&store, &PinRequest::new(), write)).unwrap().summary;
    assert_eq!(busy.changed, Some(true));
}

#[test]
fn wrong_passwords_databases_and_addresses_are_told_apart() {
    if let Err(missing) = available() {
        return skip(&missing);
    }
    let password = "correct horse";
    let with = Options { password: Some(password.to_owned()), ..Options::default() };
    let server = Server::start(with).expect("a server");
    let rt = runtime();
    let url = server.bolt_url();
    let connect = |options: backup_neo4j::Neo4jOptions| {
        rt.block_on(options.connect()).map(drop).map_err(|error| {
            assert!(!error.report().contains("battery"), "{}", error.report());
            error.kind()
        })
    };
    assert_eq!(connect(Neo4jStore::options(&url).password(password)), Ok(()));
    assert_eq!(
        connect(Neo4jStore::options(&url).password("battery staple")),
        Err(ErrorKind::PermissionDenied)
    );
    assert_eq!(connect(Neo4jStore::options(&url)), Err(ErrorKind::PermissionDenied));
    assert_eq!(
        connect(Neo4jStore::options(&url).password(password).database("nowhere")),
        Err(ErrorKind::NotFound)
    );
    assert_eq!(
        connect(Neo4jStore::options("bolt://127.0.0.1:1").password(password)),
        Err(ErrorKind::Unreachable)
    );
    // A server that speaks, but not Bolt, and one that says nothing.
    let tls = url.replace("bolt://", "bolt+s://");
    assert_eq!(connect(Neo4jStore::options(&tls)), Err(ErrorKind::Unreachable));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let deaf = Neo4jStore::options(&format!("bolt://127.0.0.1:{port}"));
    let deaf = deaf.timeout(Duration::from_millis(300));
    assert_eq!(connect(deaf), Err(ErrorKind::Unreachable));
}

#[test]
fn a_server_that_goes_away_is_an_error_and_the_next_backup_is_whole() {
    if let Err(missing) = available() {
        return skip(&missing);
    }
    let mut server = Server::start(Options::default()).expect("a server");
    let many = "UNWIND range(1, 60000) AS i CREATE (:A {i: i, text: $t})";
    server.cypher(many, json!({ "t": "x".repeat(400) })).expect("made");
    let rt = runtime();
    let store = rt.block_on(options(&server).connect()).unwrap();
    let error = rt.block_on(async {
        let Pinned::Live { session, .. } = store.pin(&PinRequest::new()).await? else { panic!() };
        let partition = session.partitions().await?.remove(0);
        let mut killed = false;
        loop {
            match session.next(&partition).await {
                Ok(Some(_)) if !killed => {
                    server.kill().expect("killed");
                    killed = true;
                }
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => {
                    assert!(session.close().await.unwrap().changed.is_none());
                    break Err(error);
                }
            }
        }
    });
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", error.report());
    server.start_again().expect("started");
    // Connections that were kept are dead, and not used.
    let store = rt.block_on(options(&server).connect()).unwrap();
    let whole = rt.block_on(read(&store, &PinRequest::new())).unwrap();
    assert_eq!(whole.lines["A"].len(), 60_000);
}

/// A small file system, if this user may mount one.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf) -> Option<Self> {
        let this = Self(path);
        match this.sized("tmpfs", "size=40m") {
            true => Some(this),
            false => {
                skip("a full disk: this user cannot mount a tmpfs");
                None
            }
        }
    }

    fn sized(&self, kind: &str, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "-o", options, "none"]).arg(&self.0);
        mount.output().is_ok_and(|done| done.status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_ends_a_restore_which_is_taken_back_when_there_is_room() {
    if let Err(missing) = available() {
        return skip(&missing);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mount) = Mount::new(folder.path().to_owned()) else { return };
    let mut server = Server::start_below(folder.path(), Options::default()).expect("a server");
    server.cypher("CREATE (:A {x: 1})-[:R]->(:A {x: 2})", json!({})).expect("made");
    let before = content(&server);
    let document = json!({"labels": ["New"], "key": ["id"], "constraints": [], "indexes": []});
    let text = "x".repeat(2000);
    let records: Vec<_> = (0..20_000).map(|i| (json!(i), json!({"id": i, "text": text}))).collect();
    let archive = Archive::default().with("New", document, &records);
    let rt = runtime();
    let url = server.bolt_url();
    let open = || Neo4jStore::options(&url).patience(Duration::from_secs(1)).connect();
    let token = rt.block_on(async {
        let store = open().await.unwrap();
        let (token, session) = archive.begin(&store, "full", WriteMode::Replace).await.unwrap();
        let error = archive.write(&*session).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{}", error.report());
        assert!(error.report().contains("make room"), "{}", error.report());
        // From here on the database takes nothing, and says so.
        let error = store.reattach(&token).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{}", error.report());
        assert!(error.report().contains("start it again"), "{}", error.report());
        token
    });
    server.kill().expect("killed");
    assert!(mount.sized("tmpfs", "remount,size=400m"));
    server.start_again().expect("started");
    rt.block_on(async {
        let store = open().await.unwrap();
        let Reattached::Staged(session) = store.reattach(&token).await.unwrap() else { panic!() };
        session.abort().await.unwrap();
    });
    assert_eq!(content(&server), before);
    assert_eq!(leftovers(&server), Vec::<String>::new());
}
