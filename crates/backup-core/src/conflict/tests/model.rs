//! Any records, any rule, in any order and any batches: the result is that of a simple model.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use super::*;
use crate::select;

#[derive(Debug, Clone, PartialEq)]
struct Record {
    value: Value,
    v: Option<[u8; 2]>,
    w: Option<Vec<u8>>,
}

type Store = BTreeMap<String, Record>;

const TIME: [&str; 2] = ["updated", "created"];
const NAMES: [&str; 7] = ["a", "b", "labels", "title", "text", TIME[0], TIME[1]];

// Few values, so that both sides often agree.
fn value() -> impl Strategy<Value = Value> {
    let leaf = select(vec![
        json!(null),
        json!(1),
        json!(2),
        json!(1.5),
        json!("x"),
        json!("y"),
        json!({"$type": "Base64", "_value": "AA=="}),
        json!({"$type": "Integer", "_value": "9007199254740993"}),
    ]);
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            1 => vec(select(&["x", "y", "z"][..]), 0..3).prop_map(Value::from),
            1 => vec(inner.clone(), 0..3).prop_map(Value::from),
            6 => vec((select(&NAMES[..]), inner.clone()), 0..6).prop_map(|members| {
                members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
            1 => inner.prop_map(|b| json!({"$type": "Map", "_value": {"$type": 1, "b": b}})),
        ]
    })
}

fn record() -> impl Strategy<Value = Record> {
    let v = option::of(select(&[[1, 2], [3, 4]][..]));
    let w = option::of(vec(0_u8..2, 0..3));
    (value(), v, w).prop_map(|(value, v, w)| Record { value, v, w })
}

fn store() -> impl Strategy<Value = Store> {
    let key = select(&["1", r#""a""#, r#"["t",1]"#][..]);
    vec((key, record()), 0..5).prop_map(|records| {
        records.into_iter().map(|(key, record)| (key.to_owned(), record)).collect()
    })
}

fn build(records: &[(&String, &Record)]) -> RecordBatch {
    let mut builder = BatchBuilder::new("notes");
    let v = builder.dense("v", ElementType::U8, 2);
    let w = builder.sparse("w", ElementType::U8);
    for (key, record) in records {
        let key = Key::from_json(key).unwrap();
        builder.push(&key, |json| json.value(&record.value)).unwrap();
        if let Some(values) = &record.v {
            builder.set(v, values).unwrap();
        }
        if let Some(values) = &record.w {
            let places: Vec<u32> = (0..values.len() as u32).collect();
            builder.set_sparse(w, &places, values).unwrap();
        }
    }
    builder.finish().unwrap()
}

// A store's records, turned by some places and cut into batches of `size`.
fn batches(store: &Store, turn: usize, size: usize) -> Vec<RecordBatch> {
    let mut records: Vec<_> = store.iter().collect();
    records.rotate_left(turn % store.len().max(1));
    records.chunks(size).map(build).collect()
}

fn write(store: &mut Store, batch: &RecordBatch) {
    for record in batch.iter() {
        let vector = |name: &str| {
            let column = batch.column(name).filter(|column| column.is_present(record.row()));
            column.map(|column| column.row_bytes(record.row()).to_vec())
        };
        let value = serde_json::from_str(record.value_json()).unwrap();
        let v = vector("v").map(|bytes| bytes.try_into().unwrap());
        store.insert(record.key_json().to_owned(), Record { value, v, w: vector("w") });
    }
}

// What an object says, wrapped or not; `None` for everything else.
fn members(value: &Value) -> Option<&Map<String, Value>> {
    let members = value.as_object()?;
    match members.get("$type") {
        None => Some(members),
        Some(tag) if tag == "Map" => members["_value"].as_object(),
        Some(_) => None,
    }
}

fn is_words(value: &Value) -> bool {
    let items = value.as_array().unwrap();
    items.iter().enumerate().all(|(i, item)| item.is_string() && !items[..i].contains(item))
}

fn merged(live: &Value, archived: &Value, path: &[&str]) -> Value {
    if archived.is_null() || *archived == json!([]) && live.is_array() {
        return live.clone();
    }
    if let (Some(ours), Some(theirs)) = (members(live), members(archived)) {
        let mut all: Map<String, Value> = ours.clone();
        for (name, value) in theirs {
            let path = [path, &[name]].concat();
            let value = merged(ours.get(name).unwrap_or(&Value::Null), value, &path);
            all.insert(name.clone(), value);
        }
        let tagged = all.contains_key("$type");
        return if tagged { json!({"$type": "Map", "_value": all}) } else { json!(all) };
    }
    let (Some(ours), Some(theirs)) = (live.as_array(), archived.as_array()) else {
        return archived.clone();
    };
    if path != ["labels"] && !(is_words(live) && is_words(archived)) {
        return archived.clone();
    }
    let mut union = ours.clone();
    for item in theirs {
        if !union.contains(item) {
            union.push(item.clone());
        }
    }
    union.into()
}

fn time(record: &Record) -> Option<jiff::Timestamp> {
    TIME.iter().find_map(|name| select::time(record.value.get(name)?))
}

fn marked(record: &Record) -> Record {
    let mut copy = record.clone();
    if let Some(members) = copy.value.as_object_mut() {
        let name = ["title", "text"]
            .into_iter()
            .find(|name| members.get(*name).is_some_and(Value::is_string));
        if let Some(name) = name {
            members[name] = format!("{} (imported)", members[name].as_str().unwrap()).into();
        }
    }
    copy
}

// What is live afterwards, without copies; and what is copied.
fn model(rule: Conflict, live: &Store, archived: &Store) -> Option<(Store, Store)> {
    let (mut after, mut copies) = (live.clone(), Store::new());
    for (key, theirs) in archived {
        let Some(ours) = live.get(key).filter(|ours| *ours != theirs) else {
            after.insert(key.clone(), theirs.clone());
            continue;
        };
        let result = match rule {
            Conflict::Skip => ours.clone(),
            Conflict::Overwrite => theirs.clone(),
            Conflict::Merge => Record {
                value: merged(&ours.value, &theirs.value, &[]),
                v: theirs.v.or(ours.v),
                w: theirs.w.clone().or(ours.w.clone()),
            },
            Conflict::KeepNewer | Conflict::KeepOlder => {
                let newer = rule == Conflict::KeepNewer;
                match (time(ours), time(theirs)) {
                    (Some(a), Some(b)) if a != b && (b > a) == newer => theirs.clone(),
                    _ => ours.clone(),
                }
            }
            Conflict::KeepBoth => {
                copies.insert(key.clone(), marked(theirs));
                ours.clone()
            }
            Conflict::Fail => return None,
        };
        after.insert(key.clone(), result);
    }
    Some((after, copies))
}

// Imports batch by batch, as the engine does: what is asked for is what was live at first.
fn import(
    rule: Conflict,
    live: &Store,
    archived: &[RecordBatch],
    live_batches: usize,
) -> Result<(Store, ConflictCounts, BTreeMap<String, String>)> {
    let resolver = resolver(rule);
    let (mut after, mut total) = (live.clone(), ConflictCounts::default());
    let mut copied = BTreeMap::new();
    for batch in archived {
        let resolved = resolver.resolve(batch.clone(), |keys| {
            let mut found = live.clone();
            found.retain(|key, _| keys.iter().any(|asked| asked.as_json() == key));
            Ok(batches(&found, live_batches, live_batches))
        })?;
        let sum = |c: &ConflictCounts| {
            c.created + c.updated + c.merged + c.copied + c.skipped + c.unchanged
        };
        assert_eq!(sum(&resolved.counts), batch.len() as u64);
        assert_eq!(resolved.skipped.len() as u64, resolved.counts.skipped);
        total.add(&resolved.counts);
        resolved.batches.iter().for_each(|batch| write(&mut after, batch));
        copied.extend(
            resolved.copied.iter().map(|copied| {
                (copied.new_key.as_json().to_owned(), copied.key.as_json().to_owned())
            }),
        );
    }
    Ok((after, total, copied))
}

proptest! {
    // There are many rules, and each has many cases.
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn the_result_is_that_of_a_simple_model(
        live in store(),
        archived in store(),
        rule in select(&Conflict::ALL[..]),
        turn in 0..6_usize,
        size in 1..7_usize,
        live_batches in 1..4_usize,
    ) {
        let incoming = batches(&archived, turn, size);
        let result = import(rule, &live, &incoming, live_batches);
        let Some((expected, mut copies)) = model(rule, &live, &archived) else {
            prop_assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
            return Ok(());
        };
        let (mut after, counts, copied) = result.unwrap();
        let kept = after.clone();
        for (new_key, key) in &copied {
            prop_assert_eq!(after.remove(new_key), copies.remove(key));
        }
        prop_assert!(copies.is_empty());
        prop_assert_eq!(&after, &expected);
        prop_assert_eq!(counts.copied, copied.len() as u64);
        let fresh = archived.keys().filter(|key| !live.contains_key(*key)).count();
        prop_assert_eq!(counts.created, fresh as u64);

        // The same archive again, in other batches: nothing is left to do.
        let (again, counts, _) = import(rule, &kept, &batches(&archived, 0, 2), 1).unwrap();
        prop_assert_eq!(&again, &kept);
        prop_assert_eq!(counts.skipped + counts.unchanged, archived.len() as u64);
    }
}
