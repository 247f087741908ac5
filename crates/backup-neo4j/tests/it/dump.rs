//! Dumps of a database that is stopped.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use backup_core::{
    Adapter, Blob, Cancel, Catalog, Content, Error, ErrorKind, Part, PinRequest, Pinned,
    Reattached, RestoreHooks, RestoreOptions, Result, Sink, Source, StagePlan, Stores, async_trait,
    byte_stream, record::Sha256Digest,
};
use backup_neo4j::Neo4jDump;
use futures::{StreamExt, executor::block_on};
use neo4j_testserver::{Options, Server, available, skip};
use serde_json::json;

/// A sample question that gets the wrong answer.
struct Unhappy;

#[async_trait]
impl RestoreHooks for Unhappy {
    async fn check(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Mismatch, "the sample question has another answer"))
    }
}

fn names(server: &Server) -> String {
    let rows = server.cypher("MATCH (n) RETURN n.name ORDER BY n.name", json!({})).expect("rows");
    rows.iter()
        .map(|row| row[0]["_value"].as_str().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_stopped_database_comes_back_or_stays_as_it_is() {
    if let Err(missing) = available() {
        return skip(&missing);
    }
    let mut server = Server::start(Options::default()).expect("a server");
    let folder = tempfile::tempdir().expect("a folder");
    let work = folder.path().join("work");
    let dump = Neo4jDump::new(&server.admin_command().expect("a tool"), &work);
    let catalog = Catalog::open(folder.path().join("backups")).expect("a catalog");
    let stores = || Stores::new("graphs", "1.0.0").with("graph", dump.clone());
    server.cypher("CREATE (:A {name: 'old'})-[:R]->(:A {name: 'old2'})", json!({})).expect("made");

    let error = block_on(stores().backup(&catalog)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.report());
    assert!(error.report().contains("stop the server"), "{}", error.report());
    assert!(catalog.list().expect("a list").backups.is_empty());

    server.stop().expect("stopped");
    let report = block_on(stores().backup(&catalog)).unwrap();
    assert!(report.outcome.is_complete());
    let archive = catalog.latest().unwrap();
    let store = &archive.manifest().stores["graph"];
    assert_eq!(store.kind, "neo4j-dump");

    server.start_again().expect("started");
    server
        .cypher("MATCH (n) SET n.name = n.name + '!' CREATE (:B {name: 'new'})", json!({}))
        .expect("set");
    let changed = names(&server);
    let restore = |stores: Stores| {
        let options = RestoreOptions::new().journal_dir(folder.path()).no_safety_backup();
        block_on(async { stores.plan_restore_with(&archive, &options).await?.execute().await })
    };
    // It is staged and checked before anybody finds out that the server runs.
    let error = restore(stores()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.report());
    assert_eq!(names(&server), changed);
    server.stop().expect("stopped");

    let error = restore(stores().hooks(Unhappy)).unwrap_err();
    assert!(error.report().contains("another answer"), "{}", error.report());
    server.start_again().expect("started");
    assert_eq!(names(&server), changed);
    server.stop().expect("stopped");

    assert!(restore(stores()).unwrap().restored());
    server.start_again().expect("started");
    assert_eq!(names(&server), "old old2");
    assert_eq!(fs::read_dir(&work).map_or(0, Iterator::count), 0);
    server.stop().expect("stopped");

    // A dump that is cut is found out by the copy that is made of it.
    let taken = block_on(bytes(&dump)).unwrap();
    let error = block_on(staged(&dump, "cut", &taken[..taken.len() / 2])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{}", error.report());
    assert_eq!(fs::read_dir(&work).map_or(0, Iterator::count), 0);
}

/// Stages and verifies what may not be a dump; what fails leaves nothing.
async fn staged(dump: &Neo4jDump, id: &str, bytes: &[u8]) -> Result<Content> {
    let mut plan = StagePlan::new(id, "graph", dump.kind());
    plan.content = content(bytes);
    let token = dump.prepare(&plan).await?.token;
    let session = dump.begin(&token, &Cancel::new()).await?;
    session.write(blob(bytes)).await?;
    let verified = session.verify(&plan.content).await;
    session.abort().await?;
    verified
}

fn content(bytes: &[u8]) -> Content {
    let mut content = Content::new();
    let (len, digest) = (bytes.len() as u64, Sha256Digest::of(bytes));
    let blob = backup_core::BlobContent { len, digest, masked: Vec::new() };
    content.blobs.insert("neo4j.dump".to_owned(), blob);
    content
}

fn blob(bytes: &[u8]) -> Part {
    Part::Blob(Blob {
        name: "neo4j.dump".to_owned(),
        len: Some(bytes.len() as u64),
        masked: Vec::new(),
        metadata: Default::default(),
        body: byte_stream(bytes.to_vec()),
    })
}

async fn bytes(dump: &Neo4jDump) -> Result<Vec<u8>> {
    let Pinned::Live { session, .. } = dump.pin(&PinRequest::new()).await? else {
        return Err(Error::adapter("it has to stay stopped"));
    };
    let partition = session.partitions().await?.remove(0);
    let Some(Part::Blob(mut blob)) = session.next(&partition).await? else {
        return Err(Error::adapter("there is no dump"));
    };
    let mut all = Vec::new();
    while let Some(piece) = blob.body.next().await {
        all.extend_from_slice(&piece?);
    }
    assert!(session.next(&partition).await?.is_none());
    assert_eq!(session.close().await?.changed, Some(false));
    Ok(all)
}

/// A tool whose database is one file, and of which one call fails, half-way: what the real one does at
/// a full disk or a lost process, at every place and in milliseconds.
struct Tool {
    folder: tempfile::TempDir,
}

const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0"); live=$here/live
[ "$1" = --version ] && { echo 5.26.0; exit 0; }
n=$(($(cat "$here/calls") + 1)); echo $n >"$here/calls"
fails=$(cat "$here/fails")
for last; do :; done
case $last in --additional-config=*) live=$here/scratch ;; esac
case $2 in
dump) [ -e "$live" ] || { echo "Database does not exist: neo4j" >&2; exit 1; }
      [ $n = $fails ] && { head -c 3 "$live"; echo "Failed to dump: No space left" >&2; exit 1; }
      cat "$live" ;;
load) [ $n = $fails ] && { head -c 3 >"$live"; echo "Failed to load" >&2; exit 1; }
      cat >"$live" ;;
check) [ $n = $fails ] && { echo "Failed: inconsistent" >&2; exit 1; }
      [ -s "$live" ] ;;
esac
"#;

impl Tool {
    fn new(content: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tool = Self { folder };
        fs::write(tool.path("admin"), SCRIPT).expect("written");
        fs::set_permissions(tool.path("admin"), fs::Permissions::from_mode(0o755)).expect("set");
        if let Some(content) = content {
            fs::write(tool.path("live"), content).expect("written");
        }
        tool.fail(0);
        tool
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The call that fails, counted from now; 0: none.
    fn fail(&self, call: usize) {
        fs::write(self.path("calls"), "0").expect("written");
        fs::write(self.path("fails"), call.to_string()).expect("written");
    }

    fn calls(&self) -> usize {
        fs::read_to_string(self.path("calls")).expect("read").trim().parse().expect("a number")
    }

    fn store(&self) -> Neo4jDump {
        Neo4jDump::new(&Command::new(self.path("admin")), self.path("work"))
    }

    fn live(&self) -> String {
        fs::read_to_string(self.path("live")).unwrap_or_default()
    }
}

/// A whole restore of "the new one" and, where its end is in doubt, its recovery.
async fn restore(tool: &Tool) -> Result<()> {
    let store = tool.store();
    let mut plan = StagePlan::new("one", "graph", "neo4j-dump");
    plan.content = content(b"the new one");
    let token = store.prepare(&plan).await?.token;
    let work = async {
        let session = store.begin(&token, &Cancel::new()).await?;
        session.write(blob(b"the new one")).await?;
        assert_eq!(session.verify(&plan.content).await?, plan.content);
        session.commit().await?;
        if let Err(error) = session.verify(&plan.content).await {
            session.undo().await?;
            session.finish().await?;
            return Err(error);
        }
        session.finish().await
    };
    let Err(error) = work.await else { return Ok(()) };
    // As another process would, which has no failing call.
    tool.fail(0);
    match store.reattach(&token).await? {
        Reattached::Absent => {}
        Reattached::Staged(session) => session.abort().await?,
        Reattached::Committed(session) | Reattached::Undone(session) => session.finish().await?,
        Reattached::Unknown { reason } => panic!("{reason}"),
    }
    Err(error)
}

fn left(work: &Path) -> usize {
    fs::read_dir(work).map_or(0, Iterator::count)
}

#[test]
fn whichever_call_of_the_tool_fails_the_database_is_old_or_new() {
    let whole = Tool::new(Some("the old one"));
    block_on(restore(&whole)).unwrap();
    assert_eq!((whole.live().as_str(), left(&whole.path("work"))), ("the new one", 0));
    for call in 1..=whole.calls() {
        let tool = Tool::new(Some("the old one"));
        tool.fail(call);
        let error = block_on(restore(&tool)).unwrap_err();
        assert!(!error.report().is_empty());
        assert_eq!(tool.live(), "the old one", "call {call}: {}", error.report());
        assert_eq!(left(&tool.path("work")), 0, "call {call}");
    }
}

#[test]
fn a_load_that_nobody_ended_is_taken_back_and_an_undo_that_nobody_ended_is_ended() {
    for (state, wanted) in [("loading", "staged"), ("undoing", "undone")] {
        let tool = Tool::new(Some("the"));
        let work = tool.path("work").join("restore-one");
        fs::create_dir_all(&work).expect("made");
        fs::write(work.join("new.dump"), "the new one").expect("written");
        fs::write(work.join("old.dump"), "the old one").expect("written");
        fs::write(work.join("state"), format!("\"{state}\"")).expect("written");
        let mut plan = StagePlan::new("one", "graph", "neo4j-dump");
        plan.content = content(b"the new one");
        let token = block_on(tool.store().prepare(&plan)).unwrap().token;
        // The tool fails: the question stays open.
        tool.fail(1);
        block_on(tool.store().reattach(&token)).unwrap_err();
        tool.fail(0);
        let found = block_on(tool.store().reattach(&token)).unwrap();
        assert_eq!(format!("{found:?}").to_lowercase(), wanted);
        assert_eq!(tool.live(), "the old one");
    }
}

#[test]
fn where_there_was_no_database_it_is_said_that_it_cannot_be_taken_back() {
    let tool = Tool::new(None);
    block_on(async {
        let store = tool.store();
        let mut plan = StagePlan::new("one", "graph", "neo4j-dump");
        plan.content = content(b"the new one");
        let token = store.prepare(&plan).await?.token;
        let session = store.begin(&token, &Cancel::new()).await?;
        session.write(blob(b"the new one")).await?;
        assert_eq!(session.finish().await.unwrap_err().kind(), ErrorKind::Adapter);
        session.commit().await?;
        assert_eq!(session.abort().await.unwrap_err().kind(), ErrorKind::Adapter);
        assert_eq!(session.undo().await.unwrap_err().kind(), ErrorKind::RepairNeeded);
        assert_eq!(tool.live(), "the new one");
        session.finish().await
    })
    .unwrap();
    assert_eq!(left(&tool.path("work")), 0);
}

#[test]
fn names_from_a_damaged_journal_lead_nowhere() {
    let tool = Tool::new(Some("the old one"));
    let mut plan = StagePlan::new("../../etc", "graph", "neo4j-dump");
    plan.content = content(b"x");
    assert_eq!(block_on(tool.store().prepare(&plan)).unwrap_err().kind(), ErrorKind::InvalidInput);
    let gone = Neo4jDump::new(&Command::new("/nowhere/neo4j-admin"), tool.path("work"));
    let error = block_on(gone.describe()).unwrap_err();
    assert!(error.report().contains("/nowhere/neo4j-admin"), "{}", error.report());
}
