//! Points that are added to collections that are there.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use backup_core::{
    BlobContent, Cancel, Catalog, Conflict, Content, ErrorKind, Part, PinRequest, Pinned,
    Reattached, RestoreOptions, Schema, Sink, SinkSession, Source, StagePlan, StageToken, Stores,
    WriteMode,
    record::{BatchBuilder, ElementType, Key, RecordBatch, Sha256Digest, Tally},
};
use backup_qdrant::QdrantStore;
use qdrant_testserver::{Action, Fault, Match};
use serde_json::{Value, json};

use super::fixture::{Site, run, same};

/// What a backup would carry.
pub(super) struct Taken {
    pub(super) schemas: Vec<Schema>,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) content: Content,
}

pub(super) async fn take(site: &Site) -> Taken {
    let store = site.store();
    let Pinned::Live { session, .. } = store.pin(&PinRequest::new()).await.expect("a session")
    else {
        panic!("a scroll pins nothing")
    };
    let mut taken = Taken { schemas: Vec::new(), batches: Vec::new(), content: Content::default() };
    for partition in session.partitions().await.expect("partitions") {
        while let Some(part) = session.next(&partition).await.expect("a part") {
            match part {
                Part::Schema(schema) => {
                    let tally = Tally::new();
                    taken.content.collections.insert(schema.collection.clone(), tally);
                    taken.schemas.push(schema);
                }
                Part::Records(batch) => {
                    let tally = taken.content.collections.get_mut(batch.collection());
                    tally.expect("a schema comes first").add_batch(&batch);
                    taken.batches.push(batch);
                }
                _ => {}
            }
        }
    }
    taken
}

fn plan(id: &str, content: &Content) -> StagePlan {
    let mut plan = StagePlan::new(id, "vectors", "qdrant");
    plan.mode = WriteMode::Merge;
    plan.content = content.clone();
    plan
}

/// Asks for what is live, and stages.
pub(super) async fn stage(
    store: &QdrantStore,
    id: &str,
    taken: &Taken,
    cancel: &Cancel,
) -> (StageToken, Box<dyn SinkSession>) {
    let token = store.prepare(&plan(id, &taken.content)).await.expect("a plan").token;
    let session = store.begin(&token, cancel).await.expect("a beginning");
    for schema in &taken.schemas {
        session.write(Part::Schema(schema.clone())).await.expect("taken");
    }
    for batch in &taken.batches {
        let keys: Vec<_> = batch.iter().map(|record| record.key()).collect();
        session.existing(batch.collection(), &keys).await.expect("an answer");
        session.write(Part::Records(batch.clone())).await.expect("taken");
    }
    let staged = session.verify(&taken.content).await.expect("read back");
    assert_eq!(staged, taken.content);
    (token, session)
}

async fn points(site: &Site, collection: &str) -> BTreeMap<String, Value> {
    let points = site.points(collection).await.into_iter();
    points.map(|point| (point["id"].to_string(), point)).collect()
}

pub(super) async fn live(site: &Site) -> Vec<String> {
    site.all().await.into_iter().filter(|line| !line.contains("backup-kit.")).collect()
}

pub(super) async fn no_traces(site: &Site) {
    assert_eq!(site.traces().await, Vec::<String>::new());
}

/// All kinds of vectors, some missing, and payloads that gRPC would change; every third id is
/// a UUID.
async fn fill(site: &Site, name: &str, ids: std::ops::Range<u64>, seed: u64) {
    let config = json!({
        "vectors": {
            "half": {"size": 3, "distance": "Cosine", "datatype": "float16"},
            "rows": {
                "size": 2, "distance": "Cosine", "multivector_config": {"comparator": "max_sim"},
            },
            "full": {"size": 5, "distance": "Cosine"},
            "bytes": {"size": 2, "distance": "Dot", "datatype": "uint8"},
        },
        "sparse_vectors": {"words": {}},
    });
    site.create(name, config).await;
    let value = |n: u64, i: u64| ((n * 31 + i * 17 + seed * 7) % 101) as f32 / 50.0 - 1.0;
    let point = |n: u64| {
        let id = if n.is_multiple_of(3) {
            json!(format!("00000000-0000-4000-8000-{n:012x}"))
        } else {
            json!(u64::MAX - n)
        };
        let (half, full) = ([0, 1, 2].map(|i| value(n, i)), [0, 1, 2, 3, 4].map(|i| value(n, i)));
        let mut vector = json!({
            "half": half, "full": full, "rows": [[1.0, value(n, 9)], [value(n, 4), 0.3]],
            "bytes": [(n + seed) % 256, 7], "words": {"indices": [9, 2], "values": [0.5, seed]},
        });
        if (n + seed).is_multiple_of(4) {
            vector.as_object_mut().expect("vectors").retain(|name, _| name == "full");
        }
        let payload = json!({
            "seed": seed, "float": 1e19,
            "large": if n.is_multiple_of(2) { json!(u64::MAX - n) } else { json!("no") },
            "deep": {"list": [u64::MAX, null, {"$type": "Integer", "_value": "1"}]},
        });
        json!({"id": id, "vector": vector, "payload": payload})
    };
    let points: Vec<_> = ids.map(point).collect();
    for chunk in points.chunks(300) {
        site.upsert(name, chunk.to_vec()).await;
    }
}

#[test]
fn what_is_written_is_exact_and_the_rest_stays_and_comes_back() {
    run(async {
        let (archived, taken) = {
            let from = Site::start().await;
            fill(&from, "odd", 200..700, 1).await;
            (points(&from, "odd").await, take(&from).await)
        };
        for live_name in ["odd", "odd-2025"] {
            let site = Site::start().await;
            fill(&site, live_name, 0..400, 2).await;
            site.alias(if live_name == "odd" { "other" } else { "odd" }, live_name).await;
            let index = json!({"field_name": "seed", "field_schema": "integer"});
            let path = format!("/collections/{live_name}/index?wait=true");
            site.ask("PUT", &path, index).await;
            site.create("bystander", json!({"vectors": {"size": 1, "distance": "Dot"}})).await;
            let (before, mut wanted) = (site.all().await, points(&site, live_name).await);
            let store = site.store();
            let (_, session) = stage(&store, "exact", &taken, &Cancel::new()).await;
            same(&live(&site).await, &before);
            session.commit().await.expect("a commit");
            wanted.extend(archived.clone());
            assert_eq!(wanted.len(), 700);
            assert!(points(&site, "odd").await == wanted, "{live_name}");
            let merged = session.verify(&taken.content).await.expect("read back");
            assert_eq!(merged, taken.content);
            // Settings, indexes, aliases and other collections.
            let rest = |all: Vec<String>| -> Vec<String> {
                all.into_iter().filter(|line| !line.contains("\"payload\"")).collect()
            };
            same(&rest(live(&site).await), &rest(before.clone()));
            // What others add does not count.
            site.upsert(live_name, vec![json!({"id": 5, "vector": {}, "payload": {}})]).await;
            let merged = session.verify(&taken.content).await.expect("read back");
            assert_eq!(merged, taken.content);
            let path = format!("/collections/{live_name}/points/delete?wait=true");
            site.ask("POST", &path, json!({"points": [5]})).await;
            session.undo().await.expect("an undo");
            same(&live(&site).await, &before);
            session.finish().await.expect("the end");
            same(&site.all().await, &before);
            no_traces(&site).await;

            let (_, session) = stage(&store, "again", &taken, &Cancel::new()).await;
            session.commit().await.expect("a commit");
            session.finish().await.expect("the end");
            assert!(points(&site, "odd").await == wanted, "{live_name}");
            no_traces(&site).await;
        }
    });
}

/// A server, and what is to be merged into it: points on both sides, and a new collection.
async fn scene() -> (Site, Taken) {
    let vectors = json!({"vectors": {"size": 4, "distance": "Cosine"}});
    let point = |seed: u64| move |n: u64| json!({"id": n, "vector": [n, seed, 2, 3], "payload": {"seed": seed}});
    let site = Site::start().await;
    for name in ["a", "new"] {
        site.create(name, vectors.clone()).await;
        site.upsert(name, (300..900).map(point(1)).collect()).await;
    }
    site.alias("new-live", "new").await;
    site.alias("taken", "new").await;
    let taken = take(&site).await;
    for name in ["a", "new"] {
        site.ask("DELETE", &format!("/collections/{name}"), Value::Null).await;
    }
    site.create("a", vectors).await;
    site.upsert("a", (0..600).map(point(2)).collect()).await;
    site.alias("taken", "a").await;
    (site, taken)
}

async fn found(site: &Site, token: &StageToken) -> Reattached {
    site.store().reattach(token).await.expect("an answer")
}

#[test]
fn a_merge_is_found_again_wherever_it_broke_off() {
    run(async {
        let (site, taken) = scene().await;
        let Some(faults) = site.faults() else { return };
        let before = site.all().await;
        let (token, session) = stage(&site.store(), "whole", &taken, &Cancel::new()).await;
        session.commit().await.expect("a commit");
        let merged = live(&site).await;
        let aliases: Vec<_> = merged.iter().filter(|line| line.contains("alias_name")).collect();
        assert_eq!(aliases.len(), 2, "{aliases:?}");
        assert!(aliases[0].contains(r#""collection_name":"new""#), "{aliases:?}");
        assert!(aliases[1].contains(r#""collection_name":"a""#), "what is live stays: {aliases:?}");
        drop(session);
        let Reattached::Committed(session) = found(&site, &token).await else { panic!() };
        session.undo().await.expect("an undo");
        session.finish().await.expect("the end");

        let (mut commits, mut undos, mut half) = (0, 0, 0);
        let broken = |requests: &Match, number| {
            let broken = Action::Status(500, "Service internal error: broken".to_owned());
            // The gRPC client tries some requests twice.
            let times = if matches!(requests, Match::Grpc { .. }) { usize::MAX } else { 1 };
            faults.push(Fault::new(requests.clone(), broken).after(number).times(times));
        };
        for requests in [Match::rest("", "/"), Match::grpc("")] {
            for (number, forward) in (0..).zip([true, false].into_iter().cycle()) {
                let (token, session) = stage(&site.store(), "broken", &taken, &Cancel::new()).await;
                broken(&requests, number);
                let outcome = session.commit().await;
                faults.clear();
                drop(session);
                if outcome.is_err() {
                    commits += 1;
                    let now = live(&site).await;
                    half += usize::from(now != before && now != merged);
                    let Reattached::Staged(session) = found(&site, &token).await else {
                        panic!("{requests:?} {number}: {outcome:?}")
                    };
                    if !forward {
                        session.abort().await.expect("aborted");
                        same(&site.all().await, &before);
                        no_traces(&site).await;
                        continue;
                    }
                    let staged = session.verify(&taken.content).await.expect("read back");
                    assert_eq!(staged, taken.content);
                    session.commit().await.expect("a commit");
                }
                same(&live(&site).await, &merged);
                let Reattached::Committed(session) = found(&site, &token).await else { panic!() };
                broken(&requests, number / 2);
                let undone = session.undo().await;
                faults.clear();
                if undone.is_err() {
                    undos += 1;
                    let Reattached::Committed(session) = found(&site, &token).await else {
                        panic!("{requests:?} {number}: {undone:?}")
                    };
                    session.undo().await.expect("an undo");
                }
                same(&live(&site).await, &before);
                let Reattached::Undone(session) = found(&site, &token).await else { panic!() };
                session.finish().await.expect("the end");
                same(&site.all().await, &before);
                no_traces(&site).await;
                if outcome.is_ok() {
                    break;
                }
            }
        }
        eprintln!("{commits} commits failed, {half} of them half-way, and {undos} undos");
        assert!(commits > 30 && undos > 8 && half > 10, "{commits} {undos} {half}");
    });
}

#[test]
fn a_merge_that_was_not_proved_begins_again() {
    run(async {
        let (site, taken) = scene().await;
        let before = site.all().await;
        let store = site.store();
        let token = store.prepare(&plan("unproved", &taken.content)).await.expect("a plan").token;
        let session = store.begin(&token, &Cancel::new()).await.expect("a beginning");
        session.write(Part::Schema(taken.schemas[0].clone())).await.expect("taken");
        session.write(Part::Records(taken.batches[0].clone())).await.expect("taken");
        drop(session);
        let Reattached::Staged(session) = found(&site, &token).await else { panic!() };
        let error = session.commit().await.expect_err("nobody knows whether it is whole");
        assert_eq!(error.kind(), ErrorKind::Unfinished, "{error:?}");
        let session = store.begin(&token, &Cancel::new()).await.expect("begun again");
        session.abort().await.expect("aborted");
        same(&site.all().await, &before);
        no_traces(&site).await;
    });
}

#[test]
fn a_point_that_was_changed_meanwhile_is_not_written_over() {
    run(async {
        let (site, taken) = scene().await;
        let vector = |first: f32| json!({"id": 400, "vector": [first, 0.5, 0.5, 0.5]});
        let change = async |first: f32| site.upsert("a", vec![vector(first)]).await;
        // Only its vector, and back; gone.
        change(0.25).await;
        for gone in [false, true] {
            let (_, session) = stage(&site.store(), "late", &taken, &Cancel::new()).await;
            if gone {
                let path = "/collections/a/points/delete?wait=true";
                site.ask("POST", path, json!({"points": [400]})).await;
            } else {
                change(0.75).await;
            }
            let between = live(&site).await;
            let error = session.commit().await.expect_err("it was changed");
            assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
            assert!(error.to_string().contains("point 400"), "{error}");
            same(&live(&site).await, &between);
            change(0.25).await;
            session.commit().await.expect("it is as it was");
            session.undo().await.expect("an undo");
            session.finish().await.expect("the end");

            // Another process was told nothing.
            let (token, session) = stage(&site.store(), "later", &taken, &Cancel::new()).await;
            drop(session);
            change(0.75).await;
            let between = live(&site).await;
            let Reattached::Staged(session) = found(&site, &token).await else { panic!() };
            session.commit().await.expect("the last writer wins");
            session.undo().await.expect("an undo");
            same(&live(&site).await, &between);
            session.finish().await.expect("the end");
            change(0.25).await;
        }
        no_traces(&site).await;
    });
}

#[test]
fn what_cannot_be_merged_is_refused() {
    run(async {
        let (site, taken) = scene().await;
        let before = site.all().await;
        let mut native = StagePlan::new("native", "vectors", "qdrant");
        native.mode = WriteMode::Merge;
        let blob = BlobContent { len: 1, digest: Sha256Digest::of(b"x"), masked: Vec::new() };
        native.content.blobs.insert("a.snapshot".to_owned(), blob);
        let error = site.store().prepare(&native).await.expect_err("a whole collection");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");

        let store = site.options().accept_other_vectors().open().expect("a store");
        let token = store.prepare(&plan("wrong", &taken.content)).await.expect("a plan").token;
        let session = store.begin(&token, &Cancel::new()).await.expect("a beginning");
        for (pointer, value, said) in [
            ("/config/params/vectors/size", json!(5), "dimension 5"),
            ("/config/params/vectors/distance", json!("Dot"), "dot"),
            ("/config/params/vectors/datatype", json!("uint8"), "u8"),
            ("/config/params/vectors", json!({"x": {"size": 4, "distance": "Cosine"}}), "\"x\""),
        ] {
            let mut schema = taken.schemas[0].clone();
            match schema.document.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => schema.document["config"]["params"]["vectors"]["datatype"] = value,
            }
            let error = session.write(Part::Schema(schema)).await.expect_err(said);
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
            assert!(error.to_string().contains(said), "{error}");
        }
        for key in ["C0FFEE00-0000-4000-8000-000000000000", "no UUID"] {
            let error = session.existing("a", &[Key::from(key)]).await.expect_err(key);
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
        }
        session.abort().await.expect("aborted");
        same(&site.all().await, &before);
        no_traces(&site).await;
    });
}

#[test]
fn a_restore_that_was_cancelled_is_taken_back() {
    run(async {
        let (site, taken) = scene().await;
        let before = site.all().await;
        for mode in [WriteMode::Merge, WriteMode::Replace] {
            let (cancel, store) = (Cancel::new(), site.store());
            let mut plan = plan("cancelled", &taken.content);
            plan.mode = mode;
            let token = store.prepare(&plan).await.expect("a plan").token;
            let session = store.begin(&token, &cancel).await.expect("a beginning");
            for schema in &taken.schemas {
                session.write(Part::Schema(schema.clone())).await.expect("taken");
            }
            session.commit().await.expect("a commit");
            cancel.cancel();
            session.undo().await.expect("an undo");
            session.finish().await.expect("the end");
            same(&site.all().await, &before);
        }
    });
}

#[test]
fn conflicts_are_resolved_by_rule() {
    run(async {
        let site = Site::start().await;
        let vectors = json!({"vectors": {"size": 4, "distance": "Cosine"}});
        let point = |title: &'static str| {
            move |n: u64| {
                let payload = json!({"title": title, title: n, "large": u64::MAX});
                json!({"id": n, "vector": [n, 1, 2, 3], "payload": payload})
            }
        };
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(folder.path()).expect("a catalog");
        let memory = || Stores::new("test", "1.0.0").with("vectors", site.store());
        site.create("a", vectors.clone()).await;
        site.upsert("a", (0..40).map(point("archived")).collect()).await;
        memory().backup(&catalog).await.expect("a backup");
        for (rule, archived, live, merged) in [
            (Conflict::Skip, 20, 40, 0),
            (Conflict::Overwrite, 40, 20, 0),
            (Conflict::Merge, 40, 20, 20),
            (Conflict::KeepBoth, 40, 40, 0),
        ] {
            site.ask("DELETE", "/collections/a", Value::Null).await;
            site.create("a", vectors.clone()).await;
            site.upsert("a", (20..60).map(point("live")).collect()).await;
            let options = RestoreOptions::new().merge().conflict(rule);
            let latest = catalog.latest().expect("a backup");
            let plan = memory().plan_restore_with(&latest, &options).await.expect("a plan");
            assert!(plan.to_string().contains("last writer wins"), "{plan}");
            let report = plan.execute().await.expect("a restore");
            assert!(report.restored() && report.warnings.is_empty(), "{report:?}");
            let points = points(&site, "a").await;
            let has = |name: &str, point: &Value| point["payload"].get(name).is_some();
            let of = |name: &str| points.values().filter(|point| has(name, point)).count();
            let both = |point: &&Value| has("archived", point) && has("live", point);
            let both = points.values().filter(both).count();
            let found = (of("archived"), of("live"), both);
            assert_eq!(found, (archived, live + merged, merged), "{rule:?}");
            let large = |point: &Value| point["payload"]["large"] == json!(u64::MAX);
            assert!(points.values().all(large), "{points:?}");
            no_traces(&site).await;
        }
    });
}

const TASK: &str = "BACKUP_QDRANT_MERGE";

/// Points of 1.3 KB: a description, and batches that are made when they are asked for.
fn many(count: u64) -> impl Iterator<Item = Part> {
    let vectors = json!({"size": 64, "distance": "Dot"});
    let schema = Schema {
        collection: "many".to_owned(),
        document: json!({"config": {"params": {"vectors": vectors}}}),
        info: Default::default(),
    };
    let batches = (0..count).step_by(500).map(move |first| {
        let mut builder = BatchBuilder::new("many");
        let column = builder.dense("", ElementType::F32, 64);
        for n in first..count.min(first + 500) {
            let payload = json!({"text": format!("{n:01000}")}).to_string();
            builder.push_json(&Key::from(n), payload.as_bytes()).expect("a record");
            builder.set_f32(column, &[n as f32; 64]).expect("a vector");
        }
        Part::Records(builder.finish().expect("a batch"))
    });
    std::iter::once(Part::Schema(schema)).chain(batches)
}

/// The other process; without a task there is nothing to do.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let [grpc, rest, count] = task.split(' ').collect::<Vec<_>>()[..] else { panic!("{task}") };
    run(async {
        let store = QdrantStore::options(grpc).rest_url(rest).connect().await.expect("a store");
        let mut content = Content::default();
        content.collections.insert("many".to_owned(), Tally::new());
        let token = store.prepare(&plan("many", &content)).await.expect("a plan").token;
        let session = store.begin(&token, &Cancel::new()).await.expect("a beginning");
        for part in many(count.parse().expect("a number")) {
            if let Part::Records(batch) = &part {
                let keys: Vec<_> = batch.iter().map(|record| record.key()).collect();
                session.existing("many", &keys).await.expect("an answer");
            }
            session.write(part).await.expect("taken");
        }
        let staged = session.verify(&content).await.expect("read back");
        session.commit().await.expect("a commit");
        assert_eq!(session.verify(&content).await.expect("read back"), staged);
        session.undo().await.expect("an undo");
        session.finish().await.expect("the end");
    });
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak"));
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_what_is_merged() {
    let peak = |count: u64| -> u64 {
        run(async {
            let site = Site::start().await;
            site.create("many", json!({"vectors": {"size": 64, "distance": "Dot"}})).await;
            let (text, ones) = ("x".repeat(1000), vec![1; 64]);
            let point = |n| json!({"id": n, "vector": ones, "payload": {"text": text}});
            let points: Vec<_> = (count / 2..count + count / 2).map(point).collect();
            for chunk in points.chunks(1000) {
                site.upsert("many", chunk.to_vec()).await;
            }
            let (grpc, rest) = site.addresses();
            let child = Command::new(std::env::current_exe().expect("this test"))
                .args(["--exact", "server::merge::child", "--nocapture"])
                .env(TASK, format!("{grpc} {rest} {count}"))
                .stderr(Stdio::inherit())
                .output();
            let child = child.expect("another process");
            let said = String::from_utf8_lossy(&child.stdout).into_owned();
            assert!(child.status.success(), "{said}");
            no_traces(&site).await;
            let peak = said.split("VmHWM:").nth(1).and_then(|rest| rest.split_whitespace().next());
            peak.and_then(|peak| peak.parse().ok()).expect("a peak")
        })
    };
    let (small, large) = (peak(6_000), peak(40_000));
    // 8 MB and 52 MB, on either side.
    assert!(large < small + (20 << 10), "{small} KiB and {large} KiB");
    println!("merging 6 000 points took {small} KiB, 40 000 {large} KiB");
}
