//! Points that are added to a shard.

use backup_core::{ErrorKind, WriteMode, record::Key};
use backup_qdrant::edge::qdrant_edge::*;
use futures::executor::block_on;

use super::kit::{Place, dump, names, put, sample, stage_in, take};

/// What is staged, 4 to 8 and 100, besides the shard's own 1 to 6.
fn archive() -> Place {
    let source = Place::new();
    source.create();
    source.put((4..=8).chain([100]).map(|number| sample(number, "new")).collect());
    source
}

#[test]
fn points_are_added_and_taken_out_again() {
    let taken = take(&archive().store);
    let place = Place::with(6);
    let index = CreateIndex {
        field_name: "text".parse().unwrap(),
        field_schema: Some(PayloadFieldSchema::FieldType(PayloadSchemaType::Keyword)),
    };
    let index = FieldIndexOperations::CreateIndex(index);
    place.store.shard().unwrap().update(UpdateOperation::FieldIndexOperation(index)).unwrap();
    let old = dump(&place.store);
    // As they would be if somebody had put them there.
    let wanted = Place::with(6);
    wanted.put((4..=8).chain([100]).map(|number| sample(number, "new")).collect());
    let of_points = |lines: Vec<String>| {
        lines.into_iter().filter(|line| !line.starts_with("index")).collect::<Vec<_>>()
    };

    let (_, session) = stage_in(&place.store, &taken, WriteMode::Merge).unwrap();
    assert_eq!(dump(&place.store), old);
    block_on(session.commit()).unwrap();
    assert_eq!(of_points(dump(&place.store)), of_points(dump(&wanted.store)));
    assert!(dump(&place.store).iter().any(|line| line.starts_with("index text")));
    assert_eq!(block_on(session.verify(&taken.content)).unwrap(), taken.content);
    block_on(session.undo()).unwrap();
    assert_eq!(dump(&place.store), old);
    block_on(session.finish()).unwrap();
    assert_eq!(names(place.dir.path()), ["notes"]);

    drop(session);

    let (_, session) = stage_in(&place.store, &taken, WriteMode::Merge).unwrap();
    block_on(session.commit()).unwrap();
    block_on(session.finish()).unwrap();
    drop(session);
    let place = place.reopen();
    assert_eq!(of_points(dump(&place.store)), of_points(dump(&wanted.store)));
    assert_eq!(names(place.dir.path()), ["notes"]);
}

#[test]
fn what_is_live_is_told_whole_and_one_id_once() {
    let place = Place::with(3);
    let taken = take(&archive().store);
    let (_, session) = stage_in(&place.store, &taken, WriteMode::Merge).unwrap();
    let keys = [2_u64, 2, 3, 77].map(Key::from);
    let told = block_on(session.existing("elsewhere", &keys)).unwrap();
    let told: Vec<_> = told.iter().flat_map(|batch| batch.iter()).collect();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|record| record.value_json().contains("old")));
    assert!(told.iter().all(|record| record.vectors().count() == 1));
    let error = block_on(session.existing("elsewhere", &[Key::from("no id")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    block_on(session.abort()).unwrap();
}

#[test]
fn a_point_that_was_changed_since_is_not_written_over() {
    let taken = take(&archive().store);
    // One that was there, and one that was free.
    for meddled in [5, 100] {
        let place = Place::with(6);
        let (_, session) = stage_in(&place.store, &taken, WriteMode::Merge).unwrap();
        put(&place.store, vec![sample(meddled, "meanwhile")]);
        let between = dump(&place.store);
        let error = block_on(session.commit()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
        assert!(error.to_string().contains(&meddled.to_string()), "{error:?}");
        assert_eq!(dump(&place.store), between);
        block_on(session.abort()).unwrap();
        assert_eq!(dump(&place.store), between);
        assert_eq!(names(place.dir.path()), ["notes"]);
    }
}

#[test]
fn points_that_are_written_meanwhile_and_not_staged_stay() {
    let taken = take(&archive().store);
    let place = Place::with(6);
    let (_, session) = stage_in(&place.store, &taken, WriteMode::Merge).unwrap();
    put(&place.store, vec![sample(1, "meanwhile"), sample(50, "meanwhile")]);
    block_on(session.commit()).unwrap();
    block_on(session.finish()).unwrap();
    let now = dump(&place.store);
    let lines = |text: &str| now.iter().filter(|line| line.contains(text)).count();
    assert_eq!((lines("meanwhile"), lines("\"new\""), lines("\"old\"")), (2, 6, 2), "{now:#?}");
}

#[test]
fn where_there_is_no_shard_what_is_added_is_all() {
    let taken = take(&archive().store);
    let place = Place::new();
    let (_, session) = stage_in(&place.store, &taken, WriteMode::Merge).unwrap();
    block_on(session.commit()).unwrap();
    assert_eq!(block_on(session.verify(&taken.content)).unwrap(), taken.content);
    block_on(session.undo()).unwrap();
    assert!(place.store.shard().is_err());
    block_on(session.finish()).unwrap();
    drop(session);
    assert_eq!(names(place.dir.path()), Vec::<String>::new());
    let (_, session) = stage_in(&place.store, &taken, WriteMode::Merge).unwrap();
    block_on(session.commit()).unwrap();
    block_on(session.finish()).unwrap();
    drop(session);
    let place = place.reopen();
    // It can be written to.
    place.put(vec![sample(4, "later")]);
    assert_eq!(place.store.shard().unwrap().info().points_count, 6);
    assert_eq!(dump(&place.store).iter().filter(|line| line.contains("later")).count(), 1);
}
