//! Conditions that the server is asked for: it may send too much and never too little.

use backup_core::{
    BackupOptions, Condition, Part, PinRequest, Pinned, Selection, Source, Stores,
    archive::Archive, manifest::FieldMapping, record::RecordBatch,
};
use qdrant_testserver::{Action, Fault, Match};
use serde_json::{Value, json};

use super::fixture::{Site, run};

fn fields() -> FieldMapping {
    let mut fields = FieldMapping::default();
    fields.project = Some("/meta/project".to_owned());
    fields.tags = Some("/tags".to_owned());
    fields.created_at = Some("/at".to_owned());
    fields
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// What a field may hold: what is asked for, and what looks like it.
fn values() -> Vec<Value> {
    vec![
        json!("alpha"),
        json!("beta"),
        json!("Alpha"),
        json!("alpha, beta"),
        json!("x,alpha ,y"),
        json!("[\"alpha\",\"beta\"]"),
        json!("[\"\\u0061lpha\"]"),
        json!(["alpha", 5]),
        json!([["alpha"]]),
        json!([]),
        json!(null),
        json!({"alpha": 1}),
        json!(true),
        json!([true, null]),
        json!(5),
        json!(5.0),
        json!(4.999),
        json!("5"),
        json!(-0.0),
        json!([5, "alpha"]),
        json!(9_007_199_254_740_993_i64),
        json!(9_007_199_254_740_992.0),
        json!(9_007_199_254_740_992_i64),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!({"$type": "Integer", "_value": "9007199254740993"}),
        json!([{"b": "alpha"}]),
        json!({"b": "alpha"}),
        json!({"b": 5}),
    ]
}

const TESTS: [&str; 30] = [
    "project=alpha",
    "project=Alpha",
    "project in [alpha, beta]",
    "project in [alpha, 5]",
    "tag=alpha",
    "tag in [alpha, beta]",
    "tag contains alpha",
    "/n=alpha",
    "/n=5",
    "/n in [5, alpha, true]",
    "/n=true",
    "/n<5",
    "/n<=5",
    "/n>5",
    "/n>=5",
    "/n=9007199254740993",
    "/n<9007199254740993",
    "/n>9007199254740992",
    "/n=18446744073709551615",
    "/n>1e299",
    "/n/b=alpha",
    "/n/b=5",
    "/n exists",
    "/n=null",
    "/n contains alpha",
    "/n starts-with al",
    "not /n=alpha",
    "project missing",
    "/n=0",
    "created>=2026-01-01",
];

async fn given(
    store: &backup_qdrant::QdrantStore,
    condition: Option<&Condition>,
) -> Vec<RecordBatch> {
    let mut request = PinRequest::new();
    request.fields.insert("odd".to_owned(), fields());
    request.conditions.extend(condition.map(|condition| (None, condition.clone())));
    let Pinned::Live { session, .. } = store.pin(&request).await.expect("a session") else {
        panic!("a scroll pins nothing")
    };
    let (mut batches, mut end) = (Vec::new(), None);
    for partition in session.partitions().await.expect("partitions") {
        while let Some(part) = session.next(&partition).await.expect("a part") {
            match part {
                Part::Records(batch) => batches.push(batch),
                Part::End(part) => end = part.count,
                _ => {}
            }
        }
    }
    session.close().await.expect("the end");
    assert_eq!(end, Some(count(&batches)), "only what was given counts");
    batches
}

fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.len() as u64).sum()
}

/// The keys of the records that the engine takes.
fn taken(batches: &[RecordBatch], condition: &Condition) -> Vec<String> {
    let selection = Selection::new().matching_in("s", Some("odd"), condition.clone());
    let filter = selection.filter("s", "odd", &fields()).expect("a filter");
    let kept = batches.iter().map(|batch| filter.batch(batch).expect("a batch"));
    let keys = kept.map(|batch| batch.iter().map(|r| r.key_json().to_owned()).collect::<Vec<_>>());
    keys.flatten().collect()
}

#[test]
fn no_record_that_the_engine_takes_is_held_back() {
    run(async {
        for index in
            [None, Some("keyword"), Some("float"), Some("integer"), Some("bool"), Some("text")]
        {
            let site = Site::start().await;
            site.create("odd", json!({"vectors": {"size": 1, "distance": "Dot"}})).await;
            let (mut random, values) = (Random(7), values());
            let points = (0..400_u64).map(|id| {
                let mut payload = json!({"n": random.of(&values), "tags": random.of(&values)});
                payload["meta"] = json!({"project": random.of(&values)});
                if random.below(9) == 0 {
                    payload = json!({"n": null, "meta": []});
                }
                // A value that is to be a time and is none is an error.
                payload["at"] = json!(random.of(&[
                    json!("2025-01-01"),
                    json!(1_767_225_600),
                    json!("2026-02-01T12:00")
                ]));
                json!({"id": id, "vector": [0.5], "payload": payload})
            });
            site.upsert("odd", points.collect()).await;
            for field in ["n", "tags", "meta.project", "n.b"] {
                if let Some(kind) = index {
                    let body = json!({"field_name": field, "field_schema": kind});
                    site.ask("PUT", "/collections/odd/index?wait=true", body).await;
                }
            }
            let store = site.store();
            let all = given(&store, None).await;
            assert_eq!(count(&all), 400);
            let mut fewer = 0;
            for number in 0..90 {
                let text = match TESTS.get(number) {
                    Some(test) => (*test).to_owned(),
                    None => {
                        let word = random.of(&["and", "or"]);
                        let (a, b) = (random.of(&TESTS), random.of(&TESTS));
                        format!("({a}) {word} ({b})")
                    }
                };
                let condition: Condition = text.parse().expect("a condition");
                let some = given(&store, Some(&condition)).await;
                assert_eq!(taken(&some, &condition), taken(&all, &condition), "{index:?} {text}");
                fewer += usize::from(count(&some) < 400);
            }
            println_kept(index, fewer);
            // Of the other kinds of index nothing can be asked that the engine would not see otherwise.
            let least = match index {
                None => 40,
                Some("keyword" | "float") => 5,
                _ => 0,
            };
            assert!(fewer >= least, "{index:?}: only {fewer} conditions spared something");
        }
    });
}

#[expect(clippy::print_stderr, reason = "how much is spared is worth knowing")]
fn println_kept(index: Option<&str>, fewer: usize) {
    eprintln!("index {index:?}: {fewer} of 90 conditions spared something");
}

#[test]
fn a_server_that_refuses_a_filter_is_read_whole() {
    run(async {
        let site = Site::start().await;
        let Some(faults) = site.faults() else { return };
        site.create("odd", json!({"vectors": {"size": 1, "distance": "Dot"}})).await;
        let point = |id: u64| json!({"id": id, "vector": [0.5], "payload": {"n": id % 2}});
        site.upsert("odd", (0..20).map(point).collect()).await;
        let condition: Condition = "/n=1".parse().expect("a condition");
        assert_eq!(count(&given(&site.store(), Some(&condition)).await), 10);
        let text = "Index required but not found for \"n\" of one of the following types: [float]";
        faults.push(Fault::new(Match::grpc("Scroll"), Action::Status(400, text.to_owned())));
        assert_eq!(count(&given(&site.store(), Some(&condition)).await), 20);
        assert_eq!(faults.left(), 0);
    });
}

#[test]
fn a_selection_of_a_project_reads_that_project() {
    run(async {
        let site = Site::start().await;
        site.create("odd", json!({"vectors": {"size": 1, "distance": "Dot"}})).await;
        let point = |id: u64| {
            let project = if id.is_multiple_of(4) { "alpha" } else { "beta" };
            json!({"id": id, "vector": [0.5], "payload": {"meta": {"project": project}}})
        };
        site.upsert("odd", (0..40).map(point).collect()).await;
        let body = json!({"field_name": "meta.project", "field_schema": "keyword"});
        site.ask("PUT", "/collections/odd/index?wait=true", body).await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.tar.gz");
        let memory = Stores::new("test", "1.0.0").with("vectors", site.store()).fields(
            "vectors",
            "odd",
            fields(),
        );
        let options = BackupOptions::new().select(Selection::new().project("alpha"));
        memory.backup_to_file(&path, &options).await.expect("a backup");
        let archive = Archive::open(&path).expect("an archive");
        let odd = &archive.manifest().stores["vectors"].collections["odd"];
        // The server was asked for these alone.
        assert_eq!((odd.tally.records, odd.selected_from), (10, Some(10)));
    });
}
