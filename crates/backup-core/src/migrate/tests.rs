//! Registries against a simple model, and what changes do to schemas and records.

use proptest::{collection::vec, option, prelude::*};
use serde_json::{Value, json};

use super::*;
use crate::{
    error::{Error, ErrorKind},
    manifest::{CollectionInfo, FieldMapping},
    part::Schema,
    record::{BatchBuilder, ElementType, Key, RecordBatch, properties},
};

fn lossy() -> Change {
    Change::remove("s", "c", "/x")
}

fn refused(migrations: impl IntoIterator<Item = Migration>) -> String {
    let error = Migrations::new(migrations).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    format!("{error} | {}", error.advice())
}

#[test]
fn a_registry_that_leads_astray_is_refused() {
    let step = |from: &str, to: &str| Migration::new(from, to);
    assert_eq!(
        refused([step("1.0.0", "1.1.0"), step("1.0", "v1.1")]),
        "two migrations lead between the same versions (migration 1.0.0 to 1.1.0) | make one of \
         them"
    );
    assert_eq!(
        refused([step("1.0.0", "1.1.0"), step("1.2.0", "1.3.0"), step("1.3.0", "2.0.0")]),
        "there is a gap between the migrations: nothing connects 1.1.0 with 1.2.0 | add the \
         migration between them"
    );
    assert_eq!(
        refused([
            step("1.0.0", "1.1.0"),
            step("1.1.0", "2.0.0"),
            step("1.0.0", "1.2.0"),
            step("1.2.0", "2.0.0"),
        ]),
        "2 shortest ways lead from 1.0.0 to 2.0.0 | remove a migration, or add one that leads \
         there directly"
    );
    for (from, to) in [("1.1.0", "1.0.0"), ("1.0.0", "1.0.0")] {
        let said = refused([step(from, to)]);
        assert!(said.starts_with("a migration has to lead to a later version"), "{said}");
    }
    for (from, to) in [("1.0.0-rc.1", "1.1.0"), ("1.0.0", "1.1dev1"), ("main", "1.1.0")] {
        let said = refused([step(from, to)]);
        assert!(said.contains("is not a released version"), "{said}");
    }
}

#[test]
fn a_change_that_cannot_be_made_is_refused() {
    for (change, expected) in [
        (Change::rename("s", "c", "title", "/name"), "not a JSON pointer to a field"),
        (Change::rename("s", "c", "/title", ""), "not a JSON pointer to a field"),
        (Change::rename("s", "c", "/a", "/a"), "a field is renamed to itself"),
        (Change::set_default("s", "c", "/~", json!(1)), "not a JSON pointer to a field"),
        (Change::remove("", "c", "/a"), "a change names no store or no collection"),
        (Change::remove("s", "", "/a"), "a change names no store or no collection"),
        (Change::rename_collection("s", "c", ""), "a collection gets an empty name"),
        (Change::rename_collection("s", "c", "c"), "a collection is renamed to itself"),
        (Change::values("s", "c", "", |_| Ok(())), "the code of a change has no name"),
        (lossy().undone_by(Change::remove("s", "c", "a")), "not a JSON pointer to a field"),
    ] {
        let said = refused([Migration::new("1.0.0", "1.1.0").change(change)]);
        assert!(said.starts_with(expected), "{said}");
        assert!(said.contains("migration 1.0.0 to 1.1.0"), "{said}");
    }
}

#[test]
fn what_is_available_is_listed_in_order() {
    let migrations = Migrations::new([
        Migration::new("1.1.0", "2.0.0").describe("second").change(lossy()),
        Migration::new("1.0.0", "1.1.0").describe("first").warn("slow"),
    ])
    .unwrap();
    let listed = migrations.available();
    let short: Vec<_> =
        listed.iter().map(|m| (m.from.as_str(), m.description.as_str(), m.reversible)).collect();
    assert_eq!(short, [("1.0.0", "first", true), ("1.1.0", "second", false)]);
    assert_eq!(listed[0].warnings, ["slow"]);
    assert_eq!(listed[1].changes, ["s/c: /x goes"]);
}

#[test]
fn a_checksum_is_of_what_is_done() {
    let checksum = |migration: Migration| {
        Migrations::new([migration]).unwrap().available()[0].checksum.to_string()
    };
    let base = || Migration::new("1.0.0", "1.1.0").change(Change::rename("s", "c", "/a", "/b"));
    let code = |name: &str| base().change(Change::values("s", "c", name, |_| Ok(())));
    let all = [
        checksum(base()),
        checksum(base().change(lossy())),
        checksum(base().change(lossy().undone_by(Change::set_default("s", "c", "/x", json!(1))))),
        checksum(base().change(lossy().undone_by(Change::set_default("s", "c", "/x", json!(2))))),
        checksum(code("one")),
        checksum(code("two")),
        checksum(Migration::new("1.0.0", "1.2.0").change(Change::rename("s", "c", "/a", "/b"))),
    ];
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
    assert_eq!(checksum(base().describe("in other words").warn("slow")), all[0]);
    // Of this text, for ever.
    let text = r#"{"changes":[{"action":{"rename":{"from":"/a","to":"/b"}},"collection":"c","store":"s","undone-by":null}],"from":"1.0.0","to":"1.1.0"}"#;
    assert_eq!(all[0], Sha256Digest::of(text.as_bytes()).to_string());
}

// Versions 1.0.0 to 1.5.0, by number; whether there is a way back.
type Edge = (u64, u64, bool);
const VERSIONS: u64 = 6;

fn all_ways(edges: &[(u64, u64)], from: u64, to: u64) -> Vec<Vec<u64>> {
    if from == to {
        return vec![vec![to]];
    }
    let next = edges.iter().filter(|edge| edge.0 == from);
    next.flat_map(|edge| all_ways(edges, edge.1, to))
        .map(|way| [vec![from], way].concat())
        .collect()
}

fn shortest(edges: &[(u64, u64)], from: u64, to: u64) -> Vec<Vec<u64>> {
    let mut ways = all_ways(edges, from, to);
    let least = ways.iter().map(Vec::len).min().unwrap_or(0);
    ways.retain(|way| way.len() == least);
    ways
}

fn connected(edges: &[Edge]) -> bool {
    let both: Vec<_> = edges.iter().flat_map(|e| [(e.0, e.1), (e.1, e.0)]).collect();
    let mut seen = vec![edges[0].0];
    while let Some((_, next)) = both.iter().find(|e| seen.contains(&e.0) && !seen.contains(&e.1)) {
        seen.push(*next);
    }
    edges.iter().all(|edge| seen.contains(&edge.0))
}

// The edges that lead up, and those that lead back.
fn directions(edges: &[Edge]) -> [Vec<(u64, u64)>; 2] {
    let up = edges.iter().map(|edge| (edge.0, edge.1)).collect();
    [up, edges.iter().filter(|edge| edge.2).map(|edge| (edge.1, edge.0)).collect()]
}

fn sound(edges: &[Edge]) -> bool {
    let mut pairs: Vec<_> = edges.iter().map(|edge| (edge.0, edge.1)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let clear = |edges: &Vec<_>| {
        (0..VERSIONS).all(|a| (0..VERSIONS).all(|b| shortest(edges, a, b).len() <= 1))
    };
    pairs.len() == edges.len() && connected(edges) && directions(edges).iter().all(clear)
}

fn edges() -> impl Strategy<Value = Vec<Edge>> {
    let edge = (0..VERSIONS - 1, 1..VERSIONS, any::<bool>());
    let up = edge.prop_map(|(from, up, back)| (from, (from + up).min(VERSIONS - 1), back));
    // Chains with a few more: what chance alone makes is rarely sound.
    let chain = (vec(any::<bool>(), 1..VERSIONS as usize), vec(up.clone(), 0..3)).prop_map(
        |(backs, more)| {
            let chain = backs.into_iter().enumerate();
            chain.map(|(i, back)| (i as u64, i as u64 + 1, back)).chain(more).collect()
        },
    );
    prop_oneof![chain, vec(up, 1..7)]
}

proptest! {
    #[test]
    fn ways_are_those_of_a_simple_model(edges in edges()) {
        let version = |number: u64| format!("1.{number}.0");
        let built = Migrations::new(edges.iter().map(|(from, to, back)| {
            let migration = Migration::new(version(*from), version(*to));
            if *back { migration } else { migration.change(lossy()) }
        }));
        prop_assert_eq!(built.is_ok(), sound(&edges));
        let Ok(migrations) = built else { return Ok(()) };
        let [up, back] = directions(&edges);
        for from in 0..VERSIONS {
            for to in 0..VERSIONS {
                let ways = shortest(if from < to { &up } else { &back }, from, to);
                let expected = ways.first().filter(|way| way.len() > 1);
                let expected = expected.map(|way| {
                    way.iter().map(|number| version(*number)).collect::<Vec<_>>().join(" → ")
                });
                let found = migrations.path(&version(from), &version(to));
                prop_assert_eq!(found.map(|path| path.to_string()), expected);
            }
        }
    }

    #[test]
    fn the_way_back_gives_what_was_there(
        title in option::of(properties::value()),
        deep in option::of(properties::value()),
        rest in properties::value(),
    ) {
        let mut value = json!({"rest": rest});
        if let Some(title) = title {
            value["title"] = title;
        }
        if let Some(deep) = deep {
            value["meta"] = json!({"deep": {"er": deep}});
        }
        let batch = batch([value]);
        let (up, back) = both_ways([
            Change::rename("s", "notes", "/title", "/info/name"),
            Change::rename("s", "notes", "/meta/deep", "/depth"),
            Change::set_default("s", "notes", "/info/lang", json!("en")),
            Change::rename_collection("s", "notes", "documents"),
            Change::set_default("s", "documents", "/later", json!([1])),
        ]);
        let there = up.batch("s", batch.clone()).unwrap();
        prop_assert_eq!(there.collection(), "documents");
        prop_assert_ne!(there.text(), batch.text());
        let again = back.batch("s", there).unwrap();
        prop_assert_eq!(again.collection(), "notes");
        prop_assert_eq!(again.text(), batch.text());
        prop_assert_eq!(again.columns(), batch.columns());
    }
}

fn both_ways(changes: impl IntoIterator<Item = Change>) -> (MigrationPath, MigrationPath) {
    let migration = changes.into_iter().fold(Migration::new("1.0.0", "1.1.0"), Migration::change);
    let migrations = Migrations::new([migration]).unwrap();
    let path = |from, to| migrations.path(from, to).unwrap();
    (path("1.0.0", "1.1.0"), path("1.1.0", "1.0.0"))
}

fn up(changes: impl IntoIterator<Item = Change>) -> MigrationPath {
    let migration = changes.into_iter().fold(Migration::new("1.0.0", "1.1.0"), Migration::change);
    Migrations::new([migration]).unwrap().path("1.0.0", "1.1.0").unwrap()
}

fn batch(values: impl IntoIterator<Item = Value>) -> RecordBatch {
    let mut builder = BatchBuilder::new("notes");
    let column = builder.dense("text", ElementType::F32, 1);
    for (key, value) in values.into_iter().enumerate() {
        builder.push(&Key::from(key as u64), |json| json.value(&value)).unwrap();
        builder.set_f32(column, &[key as f32]).unwrap();
    }
    builder.finish().unwrap()
}

fn values(batch: &RecordBatch) -> Vec<Value> {
    batch.iter().map(|record| serde_json::from_str(record.value_json()).unwrap()).collect()
}

fn schema(document: Value) -> Schema {
    let fields = FieldMapping {
        title: Some("/title".into()),
        content: Some("/meta/text".into()),
        other: [("rank".into(), "/rank".into())].into(),
        ..FieldMapping::default()
    };
    let info = CollectionInfo { fields, ..CollectionInfo::default() };
    Schema { collection: "notes".into(), document, info }
}

#[test]
fn fields_are_moved_added_and_removed() {
    let path = up([
        Change::rename("s", "notes", "/title", "/meta/name"),
        Change::set_default("s", "notes", "/lang", json!("en")),
        Change::remove("s", "notes", "/rank"),
        Change::values("s", "notes", "double", |value| {
            value["n"] = json!(value["n"].as_i64().unwrap_or(0) * 2);
            Ok(())
        }),
    ]);
    let before = batch([
        json!({"title": "a", "meta": {"text": "x"}, "rank": 1, "n": 2}),
        json!({"lang": "de", "rank": null}),
    ]);
    let after = path.batch("s", before.clone()).unwrap();
    assert_eq!(
        values(&after),
        [
            json!({"lang": "en", "meta": {"name": "a", "text": "x"}, "n": 4}),
            json!({"lang": "de", "n": 0}),
        ]
    );
    assert_eq!(after.columns(), before.columns());
    assert_eq!(after.get(1).key(), Key::from(1));
    // Other stores and collections, and stores of the same collection's name, stay.
    assert_eq!(path.batch("other", before.clone()).unwrap().text(), before.text());
    let elsewhere = before.in_collection("elsewhere");
    assert_eq!(path.batch("s", elsewhere.clone()).unwrap().text(), elsewhere.text());
}

#[test]
fn elements_of_large_records_stay() {
    let mut builder = BatchBuilder::new("notes");
    builder.push_json(&Key::from(1), br#"{"x":1}"#).unwrap();
    builder
        .push_element(&Key::from(1), &Key::from("f"), |json| json.value(&json!({"x": 1})))
        .unwrap();
    let after = up([Change::remove("s", "notes", "/x")]).batch("s", builder.finish().unwrap());
    assert_eq!(values(&after.unwrap()), [json!({}), json!({"x": 1})]);
}

#[test]
fn a_record_that_cannot_be_changed_is_named() {
    let path = up([Change::rename("s", "notes", "/title", "/name")]);
    let error = path.batch("s", batch([json!({}), json!({"title": 1, "name": 2})])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let said = error.to_string();
    for part in ["a field of the new name already", "notes, record 1", "from 1.0.0 to 1.1.0"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let path = up([Change::set_default("s", "notes", "/a/b", json!(1))]);
    assert!(path.batch("s", batch([json!("text")])).is_err());
    assert!(path.batch("s", batch([json!({"a": [1]})])).is_err());
    let path = up([Change::values("s", "notes", "no", |_| Err(Error::adapter("broken")))]);
    let error = path.batch("s", batch([json!(1)])).unwrap_err();
    assert!(error.to_string().starts_with("broken (notes, record 0, in the migration"), "{error}");
}

#[test]
fn schemas_change_and_the_field_mapping_follows() {
    let (up, back) = both_ways([
        Change::rename("s", "notes", "/title", "/name"),
        Change::rename("s", "notes", "/meta", "/about"),
        Change::set_schema("s", "notes", "/sql", json!("old"), json!("new")),
        Change::schema("s", "notes", "count", |schema| {
            schema.document["changed"] = json!(true);
            Ok(())
        })
        .undone_by(Change::schema("s", "notes", "uncount", |schema| {
            schema.document.as_object_mut().unwrap().remove("changed");
            Ok(())
        })),
        Change::rename_collection("s", "notes", "documents"),
    ]);
    let old = schema(json!({"sql": "old"}));
    let new = up.schema("s", old.clone()).unwrap().unwrap();
    assert_eq!(new.collection, "documents");
    assert_eq!(new.document, json!({"sql": "new", "changed": true}));
    assert_eq!(new.info.fields.title.as_deref(), Some("/name"));
    assert_eq!(new.info.fields.content.as_deref(), Some("/about/text"));
    assert_eq!(up.fields("s", "notes", old.info.fields.clone()), new.info.fields);
    assert_eq!(up.fields("other", "notes", old.info.fields.clone()), old.info.fields);
    assert_eq!(up.collection("s", "notes").as_deref(), Some("documents"));
    assert_eq!(back.schema("s", new).unwrap().unwrap(), old);
    assert!(up.touches("s") && !up.touches("other"));

    let error = up.schema("s", schema(json!({"sql": "another"}))).unwrap_err();
    assert!(error.to_string().contains("not the one that the migration expects"), "{error}");
}

#[test]
fn what_is_removed_leaves_the_mapping_and_what_is_dropped_is_gone() {
    let path = up([
        Change::remove("s", "notes", "/rank"),
        Change::remove("s", "notes", "/meta"),
        Change::drop_collection("s", "scratch"),
    ]);
    let fields = path.schema("s", schema(json!({}))).unwrap().unwrap().info.fields;
    assert_eq!((fields.title.as_deref(), fields.content), (Some("/title"), None));
    assert!(fields.other.is_empty());
    let mut scratch = schema(json!({}));
    scratch.collection = "scratch".into();
    assert_eq!(path.schema("s", scratch).unwrap(), None);
    assert_eq!(path.collection("s", "scratch"), None);
    let records = batch([json!(1)]).in_collection("scratch");
    assert!(path.batch("s", records).unwrap().is_empty());
}

/// Splits notes off, drops what has no text, and marks every schema.
struct Split;

impl Transform for Split {
    fn schema(&self, mut schema: Schema) -> Result<Option<Schema>> {
        schema.document = json!({"was": schema.document});
        Ok((schema.collection != "cache").then_some(schema))
    }

    fn batch(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows: Vec<_> =
            batch.iter().filter(|r| r.value_json().contains("text")).map(|r| r.row()).collect();
        batch.rows(&rows)
    }
}

#[test]
fn the_hosts_own_code_reaches_everything() {
    let path = up([
        Change::rename("s", "notes", "/body", "/text"),
        Change::transform("s", "split", Split),
        Change::rename("s", "notes", "/text", "/content"),
    ]);
    let after = path.batch("s", batch([json!({}), json!({"body": 7})])).unwrap();
    assert_eq!(values(&after), [json!({"content": 7})]);
    assert_eq!(after.columns()[0].row_f32(0), [1.0]);
    let changed = path.schema("s", schema(json!(1))).unwrap().unwrap();
    assert_eq!(changed.document, json!({"was": 1}));
    let mut cache = schema(json!(1));
    cache.collection = "cache".into();
    assert_eq!(path.schema("s", cache).unwrap(), None);
}

#[test]
fn data_of_any_patch_finds_its_way() {
    let migrations = Migrations::new([
        Migration::new("1.3.0", "1.4.0"),
        Migration::new("1.4.0", "1.4.5"),
        Migration::new("1.4.5", "2.0.0").change(lossy()),
    ])
    .unwrap();
    let path = |from, to| migrations.path(from, to).map(|path| path.to_string());
    for (from, to, expected) in [
        ("1.3.9", "1.4.4", Some("1.3.0 → 1.4.0")),
        ("1.3.9", "1.4.5", Some("1.3.0 → 1.4.0 → 1.4.5")),
        ("1.4.4", "1.4.6", Some("1.4.0 → 1.4.5")),
        ("1.4.6", "1.4.4", Some("1.4.5 → 1.4.0")),
        ("1.4.6", "1.3.3", Some("1.4.5 → 1.4.0 → 1.3.0")),
        ("1.4.1", "1.4.4", None),
        ("2.0.1", "1.4.9", None),
        ("1.2.0", "1.4.0", None),
        ("1.4.0", "2.1.0", None),
        ("main", "1.4.0", None),
    ] {
        assert_eq!(path(from, to).as_deref(), expected, "{from} to {to}");
    }
}
