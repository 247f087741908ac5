//! What is refused, and that nothing was touched.

use backup_core::{
    Cancel, ErrorKind, Part, Sink, StagePlan,
    record::{BatchBuilder, ElementType, Key},
};
use backup_qdrant::edge::{EdgeStore, qdrant_edge::*};
use futures::executor::block_on;
use serde_json::{Value, json};

use super::kit::{Place, Taken, dump, names, restore, sample, stage, take, token};

/// Restores what must be refused.
fn refused(place: &Place, taken: &Taken) -> backup_core::Error {
    let before = dump(&place.store);
    let token = match token(&place.store, taken) {
        Ok(token) => token,
        Err(error) => return error,
    };
    let session = block_on(place.store.begin(&token, &Cancel::new())).unwrap();
    let write = async {
        for part in taken.parts() {
            session.write(part).await?;
        }
        session.commit().await
    };
    let error = block_on(write).unwrap_err();
    // Nothing is taken for whole after that.
    assert_eq!(block_on(session.commit()).unwrap_err().kind(), ErrorKind::Unfinished);
    block_on(session.abort()).unwrap();
    assert_eq!(dump(&place.store), before);
    assert_eq!(names(place.dir.path()), ["notes"]);
    error
}

#[test]
fn one_vector_of_another_dimension() {
    let place = Place::with(3);
    let mut taken = take(&Place::with(900).store);
    let mut odd = BatchBuilder::new("notes");
    let column = odd.dense("text", ElementType::F32, 5);
    odd.push_json(&Key::from(5000_u64), b"{}").unwrap();
    odd.set_f32(column, &[0.0; 5]).unwrap();
    taken.batches.push(odd.finish().unwrap());
    let error = refused(&place, &taken);
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("vector \"text\""), "{error}");
}

#[test]
fn documents_of_other_stores_and_from_the_enemy() {
    let place = Place::with(3);
    let good = take(&Place::with(3).store);
    let with = |change: fn(&mut Value)| {
        let mut taken = good.clone();
        change(&mut taken.schema.as_mut().unwrap().document);
        refused(&place, &taken)
    };
    let sqlite = with(|document| *document = json!({"ddl": "CREATE TABLE notes (id)"}));
    assert_eq!(sqlite.kind(), ErrorKind::Corrupt, "{sqlite}");
    let escape = with(|document| {
        let vectors = document["config"]["params"]["vectors"].as_object_mut().unwrap();
        let text = vectors.remove("text").unwrap();
        vectors.insert("/../../../escaped".to_owned(), text);
    });
    assert_eq!(escape.kind(), ErrorKind::Unsupported, "{escape}");
    let huge = with(|document| {
        document["config"]["params"]["vectors"]["text"]["size"] = json!(u64::MAX);
    });
    assert_eq!(huge.kind(), ErrorKind::Unsupported, "{huge}");
    let unknown = with(|document| {
        document["config"]["params"]["vectors"]["text"]["distance"] = json!("Hyperbolic");
    });
    assert_eq!(unknown.kind(), ErrorKind::Unsupported, "{unknown}");
    let index = with(|document| document["payload_indexes"] = json!({"a": "colour"}));
    assert_eq!(index.kind(), ErrorKind::Unsupported, "{index}");
}

#[test]
fn what_cannot_succeed_is_told_before_it_begins() {
    let place = Place::with(1);
    let taken = take(&place.store);
    let prepare = |change: fn(&mut StagePlan)| {
        let mut plan = StagePlan::new("r1", "vectors", "qdrant");
        plan.content = taken.content.clone();
        change(&mut plan);
        block_on(place.store.prepare(&plan)).unwrap_err().kind()
    };
    assert_eq!(prepare(|plan| plan.kind = "sqlite".into()), ErrorKind::Incompatible);
    assert_eq!(prepare(|plan| plan.bytes = 1 << 60), ErrorKind::NoSpace);
    assert_eq!(prepare(|plan| plan.restore_id = "../x".into()), ErrorKind::Hostile);
    let two = prepare(|plan| {
        plan.content.collections.insert("another".into(), Default::default());
    });
    assert_eq!(two, ErrorKind::Unsupported);
    assert_eq!(names(place.dir.path()), ["notes"]);
}

#[test]
fn a_shard_is_opened_once() {
    let place = Place::with(1);
    let error = EdgeStore::open(place.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    drop(place.reopen());
}

#[test]
fn a_second_collection_is_refused() {
    let place = Place::with(1);
    let taken = take(&Place::with(2).store);
    let token = token(&place.store, &taken).unwrap();
    let session = block_on(place.store.begin(&token, &Cancel::new())).unwrap();
    let mut other = taken.schema.clone().unwrap();
    other.collection = "other".into();
    block_on(session.write(Part::Schema(taken.schema.clone().unwrap()))).unwrap();
    let error = block_on(session.write(Part::Schema(other))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    block_on(session.abort()).unwrap();
}

#[test]
fn the_host_works_on_while_a_restore_is_staged() {
    let place = Place::with(3);
    let taken = take(&Place::with(40).store);
    let (_, session) = stage(&place.store, &taken).unwrap();
    place.put(vec![sample(77, "written meanwhile")]);
    assert_eq!(place.store.shard().unwrap().info().points_count, 4);
    block_on(session.commit()).unwrap();
    assert_eq!(place.store.shard().unwrap().info().points_count, 40);
    block_on(session.undo()).unwrap();
    // What was written before the switch is part of what was live.
    assert_eq!(place.store.shard().unwrap().info().points_count, 4);
    block_on(session.finish()).unwrap();
}

#[test]
fn a_restored_shard_takes_new_points() {
    let place = Place::new();
    restore(&place.store, &take(&Place::with(700).store)).unwrap();
    // An engine that forgot how far it counts would drop these as old.
    place.put((1..=3).map(|number| sample(number, "new")).collect());
    let place = place.reopen();
    place.put((4..=6).map(|number| sample(number, "new")).collect());
    let new = dump(&place.store).iter().filter(|line| line.contains("\"new\"")).count();
    assert_eq!(new, 6);
    let shard = place.store.shard().unwrap();
    let request = CountRequest { filter: None, exact: true };
    assert_eq!(shard.count(request).unwrap(), 700);
}
