//! Functions, users and settings of servers.

use backup_core::{
    Catalog, Error, ErrorKind, Outcome, Part, Reattached, Result, Schema, Sink, SinkSession,
    StagePlan, Stores, WriteMode,
    manifest::CollectionInfo,
    record::{BatchBuilder, Key},
};
use backup_redis::{Consistency, RedisOptions, RedisStore};

use crate::{
    cluster::Cluster,
    faults::{begin, plan, strings},
    proxy::Proxy,
    server::{Raw, Server, available, content, leftovers},
    snapshot::PAUSED,
};

const SETTINGS: [&str; 2] = ["hz", "notify-keyspace-events"];

fn opened(url: &str) -> RedisOptions {
    RedisStore::options(url).functions().users().settings(SETTINGS)
}

/// A library whose function gives this text.
fn library(name: &str, says: &str) -> String {
    format!(
        "#!lua name={name}\nredis.register_function('{name}_f', function() return '{says}' end)"
    )
}

fn load(raw: &mut Raw, name: &str, says: &str) {
    raw.bytes(&[b"FUNCTION", b"LOAD", b"REPLACE", library(name, says).as_bytes()]);
}

/// All that is not keys.
fn seen(raw: &mut Raw) -> Vec<String> {
    let mut seen = vec![
        format!("{:?}", raw.run("CONFIG GET hz")),
        format!("{:?}", raw.run("CONFIG GET notify-keyspace-events")),
        format!("{:?}", raw.run("CONFIG GET maxmemory-samples")),
    ];
    let libraries: Vec<redis::Value> =
        redis::from_redis_value(raw.run("FUNCTION LIST WITHCODE")).unwrap();
    seen.extend(libraries.iter().map(|library| format!("{library:?}")));
    seen.sort();
    let users = raw.strings(&[b"ACL", b"LIST"]);
    // Servers tell this rule of some users, and all of them have it.
    let plain = |line: &Vec<u8>| String::from_utf8_lossy(line).replace(" sanitize-payload", "");
    seen.extend(users.iter().map(plain));
    seen
}

fn fill(raw: &mut Raw) {
    load(raw, "one", "1");
    load(raw, "two", "2");
    raw.run("ACL SETUSER reader on >secret ~docs:* %R~other:* resetchannels &news -@all +get (+set ~own:*)");
    raw.run("ACL SETUSER off off nopass allkeys +@read");
    raw.run("CONFIG SET hz 21");
    raw.run("CONFIG SET notify-keyspace-events KEA");
    raw.run("CONFIG SET maxmemory-samples 7");
}

fn fill_otherwise(raw: &mut Raw) {
    load(raw, "two", "other");
    load(raw, "three", "3");
    raw.run("ACL SETUSER reader on >another ~*");
    raw.run("ACL SETUSER gone on nopass +@all ~*");
    raw.run("CONFIG SET hz 12");
}

async fn backup(options: RedisOptions, catalog: &Catalog) {
    let stores = Stores::new("extra", "1.0.0").with("redis", options.connect().await.unwrap());
    let backup = stores.backup(catalog).await.unwrap();
    assert_eq!(backup.outcome, Outcome::Complete);
}

async fn restore(options: RedisOptions, catalog: &Catalog) -> Result<()> {
    let stores = Stores::new("extra", "1.0.0").with("redis", options.connect().await?);
    stores.plan_restore(&catalog.latest()?).await?.execute().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_users_and_settings_come_back_on_a_server_and_in_a_cluster() {
    if !available() {
        return;
    }
    let from = Server::start(&[]);
    let mut raw = from.raw();
    raw.run("SET a 1");
    fill(&mut raw);
    let wanted = seen(&mut raw);
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(folder.path()).unwrap();
    let snapshot = Consistency::Snapshot(std::time::Duration::from_secs(60));
    for consistency in [Consistency::Fuzzy, PAUSED, snapshot] {
        backup(opened(&from.url()).consistency(consistency), &catalog).await;
        let to = Server::start(&[]);
        let mut raw = to.raw();
        fill_otherwise(&mut raw);
        restore(opened(&to.url()), &catalog).await.unwrap();
        // What is not named stays.
        raw.run("CONFIG SET maxmemory-samples 7");
        assert_eq!(seen(&mut raw), wanted);
        assert_eq!(raw.text("FCALL two_f 0"), "2");
        assert_eq!(raw.text("GET a"), "1");
        assert_eq!(leftovers(&mut raw), Vec::<String>::new());
    }
    let cluster = Cluster::start();
    restore(opened(&cluster.url()), &catalog).await.unwrap();
    for raw in &mut cluster.raws() {
        raw.run("CONFIG SET maxmemory-samples 7");
        assert_eq!(seen(raw), wanted);
    }
    // Who has not asked for them gets a word, and nothing is done.
    let plain = Server::start(&[]);
    let error = restore(RedisStore::options(&plain.url()), &catalog).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.advice().contains("functions()"), "{error:?}");
    backup(opened(&cluster.url()), &catalog).await;
    let to = Server::start(&[]);
    restore(opened(&to.url()), &catalog).await.unwrap();
    to.raw().run("CONFIG SET maxmemory-samples 7");
    assert_eq!(seen(&mut to.raw()), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_a_cluster_that_differ_make_a_backup_partial() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    load(&mut cluster.raws()[1], "only", "here");
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(folder.path()).unwrap();
    let store = opened(&cluster.url()).connect().await.unwrap();
    let backup = Stores::new("x", "1.0.0").with("redis", store).backup(&catalog).await.unwrap();
    let Outcome::Partial(notices) = backup.outcome else { panic!("{backup:?}") };
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(notices[0].notice.collection, "server:functions");
}

fn staging(id: &str, mode: WriteMode) -> StagePlan {
    let mut plan = plan(id, mode, 0);
    for name in ["server:functions", "server:users", "server:settings"] {
        plan.content.collections.insert(name.to_owned(), Default::default());
    }
    plan
}

fn records(collection: &str, member: &str, pairs: &[(&str, &str)]) -> Part {
    let mut batch = BatchBuilder::new(collection);
    for (name, text) in pairs {
        let json = serde_json::json!({member: text}).to_string();
        batch.push_json(&Key::from(*name), json.as_bytes()).unwrap();
    }
    Part::Records(batch.finish().unwrap())
}

async fn announce(session: &dyn SinkSession) {
    for name in ["server:functions", "server:users", "server:settings"] {
        let document = serde_json::json!({"prefix": false});
        let (collection, info) = (name.to_owned(), CollectionInfo::default());
        session.write(Part::Schema(Schema { collection, document, info })).await.unwrap();
    }
}

/// A restore of two keys, a library, a user and a setting.
async fn staged(store: &RedisStore, plan: &StagePlan, code: &str) -> Box<dyn SinkSession> {
    let session = begin(store, plan).await;
    announce(&*session).await;
    session.write(strings(0..2, "new")).await.unwrap();
    let mut users = vec![(
        "new",
        "on #5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8 ~* resetchannels -@all +get",
    )];
    let own = ("default", "on nopass ~* &* +@all");
    if plan.mode == WriteMode::Replace {
        users.push(own);
    }
    session.write(records("server:functions", "code", &[("two", code)])).await.unwrap();
    session.write(records("server:users", "rules", &users)).await.unwrap();
    session.write(records("server:settings", "value", &[("hz", "33")])).await.unwrap();
    session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_taken_back_with_the_keys() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    for (mode, options) in [
        (WriteMode::Replace, &[][..]),
        (WriteMode::Replace, &["databases 1"]),
        (WriteMode::Merge, &[]),
    ] {
        let server = Server::start(options);
        let mut raws = vec![server.raw()];
        taken_back(&server.url(), &mut raws, mode).await;
        taken_back(&cluster.url(), &mut cluster.raws(), mode).await;
    }
}

async fn taken_back(url: &str, raws: &mut [Raw], mode: WriteMode) {
    for raw in raws.iter_mut() {
        fill_otherwise(raw);
        let _ = raw.try_run(&[b"SET", b"1", b"old"]);
    }
    let all = |raws: &mut [Raw]| -> Vec<String> {
        raws.iter_mut().flat_map(|raw| [seen(raw), content(raw)].concat()).collect()
    };
    let before = all(raws);
    let store = opened(url).connect().await.unwrap();
    let plan = staging("r", mode);
    let session = staged(&store, &plan, &library("two", "archive")).await;
    if mode == WriteMode::Merge {
        let keys = ["two", "four"].map(Key::from);
        let there = session.existing("server:functions", &keys).await.unwrap();
        assert_eq!(there.iter().map(|batch| batch.len()).sum::<usize>(), 1);
    }
    let staged = session.verify(&Default::default()).await.unwrap();
    assert_eq!(all(raws), before);
    session.commit().await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(session.verify(&Default::default()).await.unwrap(), staged);
    for raw in raws.iter_mut() {
        let now = seen(raw);
        let has = |what: &str| now.iter().any(|line| line.contains(what));
        assert!(has("archive") && has("user new on") && has("33"), "{now:?}");
        // What is beside stays in a merge.
        assert_eq!(
            (has("three"), has("user gone")),
            (mode == WriteMode::Merge, mode == WriteMode::Merge)
        );
    }
    session.undo().await.unwrap();
    session.undo().await.unwrap();
    assert_eq!(all(raws), before);
    session.finish().await.unwrap();
    assert_eq!(all(raws), before);
    let left: Vec<String> = raws.iter_mut().flat_map(leftovers).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_that_does_not_load_leaves_everything_as_it_was() {
    if !available() {
        return;
    }
    for mode in [WriteMode::Replace, WriteMode::Merge] {
        let server = Server::start(&[]);
        let mut raw = server.raw();
        fill_otherwise(&mut raw);
        raw.run("SET 1 old");
        let before = [seen(&mut raw), content(&mut raw)].concat();
        let store = opened(&server.url()).connect().await.unwrap();
        let session = staged(&store, &staging("r", mode), "#!lua name=two\nthis is no Lua").await;
        session.verify(&Default::default()).await.unwrap();
        let error = session.commit().await.unwrap_err();
        assert!(error.report().contains("compil"), "{error:?}");
        assert_eq!([seen(&mut raw), content(&mut raw)].concat(), before);
        session.abort().await.unwrap();
        assert_eq!([seen(&mut raw), content(&mut raw)].concat(), before);
        assert_eq!(leftovers(&mut raw), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_on_with_a_switch_that_died_takes_them_back() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    load(&mut raw, "two", "old");
    raw.run("SET 1 old");
    raw.run("ACL SETUSER some on >pw ~* &* +@all -swapdb");
    let before = [seen(&mut raw), content(&mut raw)].concat();
    // The right to take the functions back goes when they are new and the keys are old.
    let mut meanwhile = server.raw();
    let port = Proxy::before(server.port, move |words| {
        if words[0] == b"SWAPDB" {
            meanwhile.run("ACL SETUSER some -function|restore");
        }
    });
    let url = |port: u16| format!("redis://some:pw@127.0.0.1:{port}");
    let mut plan = plan("r", WriteMode::Replace, 0);
    plan.content.collections.insert("server:functions".to_owned(), Default::default());
    let open = async |port| RedisStore::options(&url(port)).functions().connect().await.unwrap();
    let store = open(port).await;
    let token = store.prepare(&plan).await.unwrap().token;
    let session = begin(&store, &plan).await;
    let document = serde_json::json!({"prefix": false});
    let (collection, info) = ("server:functions".to_owned(), CollectionInfo::default());
    session.write(Part::Schema(Schema { collection, document, info })).await.unwrap();
    let code = library("two", "archive");
    session.write(records("server:functions", "code", &[("two", &code)])).await.unwrap();
    let error = session.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RepairNeeded, "{error:?}");
    assert_eq!(raw.text("FCALL two_f 0"), "archive");
    raw.run("ACL SETUSER some +function|restore");
    let Reattached::Staged(session) = open(server.port).await.reattach(&token).await.unwrap()
    else {
        panic!("not staged")
    };
    session.abort().await.unwrap();
    raw.run("ACL SETUSER some on >pw ~* &* +@all -swapdb");
    let after = [seen(&mut raw), content(&mut raw)].concat();
    assert_eq!(after[..4], before[..4]);
    assert_eq!(raw.text("GET 1"), "old");
    assert_eq!(leftovers(&mut raw), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_lock_the_restore_out_is_refused() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    let before = seen(&mut raw);
    let store = opened(&server.url()).connect().await.unwrap();
    let session = begin(&store, &staging("r", WriteMode::Replace)).await;
    announce(&*session).await;
    let own = records("server:users", "rules", &[("default", "off resetchannels -@all")]);
    let error = session.write(own).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.advice().contains("server:users"), "{error:?}");
    // A setting that was not named, such as one that another archive has.
    let other = records("server:settings", "value", &[("dir", "/")]);
    let error = session.write(other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    let odd = records("server:settings", "other", &[("hz", "1")]);
    let error = session.write(odd).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    session.abort().await.unwrap();
    assert_eq!(seen(&mut raw), before);
    // As a user of its own it may: that one stays.
    raw.run("ACL SETUSER some on >pw ~* &* +@all");
    let url = format!("redis://some:pw@127.0.0.1:{}", server.port);
    let store = opened(&url).connect().await.unwrap();
    let session = begin(&store, &staging("r", WriteMode::Replace)).await;
    announce(&*session).await;
    let others =
        records("server:users", "rules", &[("default", "on nopass ~* &* -@all +@read +acl")]);
    session.write(others).await.unwrap();
    let staged = session.verify(&Default::default()).await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(session.verify(&Default::default()).await.unwrap(), staged);
    session.finish().await.unwrap();
    let users = raw.strings(&[b"ACL", b"USERS"]);
    assert_eq!(users, [b"default".to_vec(), b"some".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_since_it_was_told_is_not_written_over() {
    if !available() {
        return;
    }
    let server = Server::start(&[]);
    let mut raw = server.raw();
    load(&mut raw, "two", "old");
    let store = opened(&server.url()).connect().await.unwrap();
    let plan = staging("r", WriteMode::Merge);
    let session = staged(&store, &plan, &library("two", "archive")).await;
    session.existing("server:functions", &[Key::from("two")]).await.unwrap();
    load(&mut raw, "two", "meanwhile");
    let error = session.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
    assert_eq!(raw.text("FCALL two_f 0"), "meanwhile");
    session.abort().await.unwrap();
    assert_eq!(raw.text("FCALL two_f 0"), "meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_and_patterns_are_no_settings() {
    let named = |name: &str| -> Error {
        RedisStore::options("redis://localhost").settings([name]).open().unwrap_err()
    };
    for secret in ["requirepass", "MasterAuth", "tls-key-file-pass", "tls-client-key-file-pass"] {
        let error = named(secret);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains("secret"), "{error:?}");
    }
    for odd in ["*", "", "max memory"] {
        assert_eq!(named(odd).kind(), ErrorKind::InvalidInput);
    }
    let native = RedisStore::options("redis://localhost").native().functions().open();
    assert_eq!(native.unwrap_err().kind(), ErrorKind::InvalidInput);
}
