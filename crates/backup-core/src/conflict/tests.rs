mod examples;
mod model;

use super::{Conflict, ConflictCounts, Copied, Resolved, Resolver, SkipReason};
use crate::{
    ArchiveId, ErrorKind, Result,
    manifest::FieldMapping,
    record::{BatchBuilder, ElementType, Key, RecordBatch},
};

const ARCHIVE: ArchiveId = ArchiveId::from_bytes([0; 16]);

fn fields() -> FieldMapping {
    FieldMapping {
        title: Some("/title".into()),
        content: Some("/text".into()),
        tags: Some("/labels".into()),
        updated_at: Some("/updated".into()),
        created_at: Some("/created".into()),
        ..FieldMapping::default()
    }
}

fn resolver(strategy: Conflict) -> Resolver {
    Resolver::new(strategy, &fields(), ARCHIVE).unwrap()
}

fn batch(records: &[(&str, &str)]) -> RecordBatch {
    let mut builder = BatchBuilder::new("notes");
    for (key, value) in records {
        builder.push_json(&Key::from_json(key).unwrap(), value.as_bytes()).unwrap();
    }
    builder.finish().unwrap()
}

// A hash of two fields, or with other values.
fn large(value: &str) -> RecordBatch {
    let mut builder = BatchBuilder::new("notes");
    let key = Key::from("hash");
    builder.push_json(&key, br#"{"type":"hash"}"#).unwrap();
    for field in ["f", "g"] {
        builder
            .push_element(&key, &Key::from(field), |json| {
                json.string(value);
                Ok(())
            })
            .unwrap();
    }
    builder.finish().unwrap()
}

fn lines(resolved: &Resolved) -> Vec<&str> {
    let records = resolved.batches.iter().flat_map(RecordBatch::iter);
    records.map(|record| record.line()).collect()
}

fn resolve(strategy: Conflict, archived: &RecordBatch, live: &RecordBatch) -> Result<Resolved> {
    resolver(strategy).resolve(archived.clone(), |_| Ok(vec![live.clone()]))
}

fn counts(set: impl FnOnce(&mut ConflictCounts)) -> ConflictCounts {
    let mut counts = ConflictCounts::default();
    set(&mut counts);
    counts
}

#[test]
fn a_batch_asks_for_each_key_once_and_not_again() {
    let archived = batch(&[("1", "{}"), (r#""a""#, "{}")]);
    let with_elements = large("x");
    let resolver = resolver(Conflict::Merge);
    assert_eq!(resolver.start(archived.clone()).asks(), [Key::from(1), Key::from("a")]);
    assert_eq!(resolver.start(with_elements).asks(), [Key::from("hash")]);
    assert!(resolver.start(batch(&[])).asks().is_empty());
    let early = resolver.start(archived.clone()).finish().unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Adapter);
    let mut resolution = resolver.start(archived);
    resolution.answer(Vec::new()).unwrap();
    assert!(resolution.asks().is_empty());
    assert_eq!(resolution.finish().unwrap().counts, counts(|c| c.created = 2));
}

#[test]
fn the_error_of_fail_says_how_many_and_which() {
    let live = batch(&[("1", "1"), ("2", "2"), ("3", "3")]);
    let archived = batch(&[("1", "1"), ("2", "0"), ("3", "0"), ("4", "0")]);
    let error = resolve(Conflict::Fail, &archived, &live).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.to_string(), "2 records differ from the live ones (first notes, record 2)");
}

#[test]
fn rules_read_back_and_an_unknown_one_is_refused() {
    for rule in Conflict::ALL {
        assert_eq!(rule.to_string().parse::<Conflict>().unwrap(), rule);
        assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
    }
    let error = "newest".parse::<Conflict>().unwrap_err();
    assert!(error.advice().contains("keep-newer"), "{}", error.report());
}

#[test]
fn a_rule_that_goes_by_time_needs_a_field_of_times() {
    for rule in [Conflict::KeepNewer, Conflict::KeepOlder] {
        let error = Resolver::new(rule, &FieldMapping::default(), ARCHIVE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_second_import_makes_no_third_copy_and_an_edited_copy_is_kept() {
    let live = batch(&[("7", r#"{"id":7,"title":"live"}"#)]);
    let archived = batch(&[("7", r#"{"id":7,"title":"archived"}"#)]);
    let resolver = resolver(Conflict::KeepBoth).key_fields(["/id".to_owned()]);
    let import =
        |live: Vec<RecordBatch>| resolver.resolve(archived.clone(), |_| Ok(live.clone())).unwrap();
    let first = import(vec![live.clone()]);
    let [Copied { key, new_key }] = &first.copied[..] else { panic!("{:?}", first.copied) };
    assert_eq!(key, &Key::from(7));
    assert_eq!(
        lines(&first),
        [format!(
            r#"{{"key":{new_key},"value":{{"id":{new_key},"title":"archived (imported)"}}}}"#
        )]
    );

    let again = import(vec![live.clone(), first.batches[0].clone()]);
    assert_eq!(again.counts, counts(|c| c.unchanged = 1));
    assert!(again.batches.is_empty() && again.copied.is_empty());

    let edited = batch(&[(new_key.as_json(), "{}")]);
    let third = import(vec![live, edited]);
    assert_eq!(third.counts, counts(|c| c.copied = 1));
    assert_ne!(&third.copied[0].new_key, new_key);
}

#[test]
fn a_new_key_is_none_of_the_batch_and_the_search_for_one_ends() {
    let live = batch(&[(r#""a""#, "1")]);
    let resolver = resolver(Conflict::KeepBoth);
    let first = resolve(Conflict::KeepBoth, &batch(&[(r#""a""#, "2")]), &live).unwrap();
    let taken = first.copied[0].new_key.as_json().to_owned();
    let archived = batch(&[(&taken, "3"), (r#""a""#, "2")]);
    let resolved = resolver.resolve(archived.clone(), |_| Ok(vec![live.clone()])).unwrap();
    assert_eq!(resolved.counts, counts(|c| (c.created, c.copied) = (1, 1)));
    assert_ne!(resolved.copied[0].new_key.as_json(), taken);

    let everything = |keys: &[Key]| {
        Ok(vec![batch(&keys.iter().map(|key| (key.as_json(), "0")).collect::<Vec<_>>())])
    };
    let error = resolver.resolve(archived, everything).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().starts_with("16 new keys"), "{error}");
}

#[test]
fn large_records_are_skipped_overwritten_or_refused_as_a_whole() {
    let (live, archived) = (large("old"), large("new"));
    let skipped = resolve(Conflict::Skip, &archived, &live).unwrap();
    assert_eq!(skipped.counts, counts(|c| (c.skipped, c.unchanged) = (2, 1)));
    // What is live is replaced: the head and every field have to be written, equal or not.
    let overwritten = resolve(Conflict::Overwrite, &archived, &live).unwrap();
    assert_eq!(overwritten.counts, counts(|c| c.updated = 3));
    let equal = resolve(Conflict::Overwrite, &live, &live).unwrap();
    assert_eq!(equal.counts, counts(|c| c.updated = 3));
    let by_head = resolve(Conflict::Skip, &archived, &batch(&[(r#""hash""#, "0")])).unwrap();
    assert_eq!(by_head.counts, counts(|c| c.skipped = 3));
    for rule in [Conflict::Merge, Conflict::KeepNewer, Conflict::KeepOlder, Conflict::KeepBoth] {
        let error = resolve(rule, &archived, &live).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{rule}");
        assert!(error.advice().contains("overwrite"), "{}", error.report());
        // Without a conflict there is nothing to take apart.
        let equal = resolve(rule, &archived, &archived).unwrap();
        assert_eq!(equal.counts, counts(|c| c.unchanged = 3));
        let free = resolve(rule, &archived, &batch(&[])).unwrap();
        assert_eq!(free.counts, counts(|c| c.created = 3));
    }
    assert_eq!(resolve(Conflict::Fail, &archived, &live).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn a_long_line_is_not_read() {
    let long = format!("{:?}", "x".repeat(Resolver::MAX_LINE_BYTES));
    let (live, archived) = (batch(&[("1", "0")]), batch(&[("1", &long)]));
    for (live, archived) in [(&live, &archived), (&archived, &live)] {
        let error = resolve(Conflict::Merge, archived, live).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(resolve(Conflict::Overwrite, archived, live).unwrap().counts.updated, 1);
    }
}

#[test]
fn several_records_of_one_key_are_skipped_or_refused() {
    let one = batch(&[("null", "1")]);
    let two = batch(&[("null", "2"), ("null", "3")]);
    for (archived, live) in [(&one, &two), (&two, &one)] {
        let skipped = resolve(Conflict::Skip, archived, live).unwrap();
        assert_eq!(skipped.skipped[0].reason, SkipReason::Exists);
        for rule in [Conflict::Overwrite, Conflict::Merge, Conflict::KeepBoth] {
            let error = resolve(rule, archived, live).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{rule}");
        }
    }
}

// Vectors of a record by name, a dense one as `f32`.
fn with_vectors(vectors: &[(&str, &[f32])]) -> RecordBatch {
    let mut builder = BatchBuilder::new("notes");
    builder.push_json(&Key::from(1), b"{}").unwrap();
    for (name, values) in vectors {
        let column = builder.dense(*name, ElementType::F32, values.len());
        builder.set_f32(column, values).unwrap();
    }
    builder.finish().unwrap()
}

fn vectors(batch: &RecordBatch) -> Vec<(&str, Vec<f32>)> {
    batch.columns().iter().map(|column| (column.name(), column.row_f32(0))).collect()
}

#[test]
fn vectors_are_content() {
    let live = with_vectors(&[("v", &[1.0])]);
    for archived in [
        with_vectors(&[("v", &[2.0])]),
        with_vectors(&[("w", &[1.0])]),
        with_vectors(&[]),
        with_vectors(&[("v", &[1.0]), ("w", &[1.0])]),
        with_vectors(&[("v", &[1.0, 2.0])]),
    ] {
        let overwritten = resolve(Conflict::Overwrite, &archived, &live).unwrap();
        assert_eq!(overwritten.counts, counts(|c| c.updated = 1));
        assert_eq!(vectors(&overwritten.batches[0]), vectors(&archived));
    }
    let same = resolve(Conflict::Overwrite, &live, &live).unwrap();
    assert_eq!(same.counts, counts(|c| c.unchanged = 1));
}

#[test]
fn a_merged_record_has_the_archives_vectors_and_else_the_live_ones() {
    let live = with_vectors(&[("both", &[1.0]), ("live", &[2.0, 3.0])]);
    let archived = with_vectors(&[("archive", &[4.0]), ("both", &[5.0])]);
    let merged = resolve(Conflict::Merge, &archived, &live).unwrap();
    assert_eq!(
        vectors(&merged.batches[0]),
        [("archive", vec![4.0]), ("both", vec![5.0]), ("live", vec![2.0, 3.0])]
    );
    let again = resolve(Conflict::Merge, &archived, &merged.batches[0]).unwrap();
    assert_eq!(again.counts, counts(|c| c.unchanged = 1));
}

#[test]
fn vectors_of_unlike_form_go_into_batches_of_their_own() {
    let record = |builder: &mut BatchBuilder, key: i32, value: &str| {
        builder.push_json(&Key::from(key), value.as_bytes()).unwrap();
    };
    let mut archived = BatchBuilder::new("notes");
    let three = archived.dense("v", ElementType::F32, 3);
    record(&mut archived, 1, r#"{"a":1}"#);
    archived.set_f32(three, &[1.0, 2.0, 3.0]).unwrap();
    record(&mut archived, 2, r#"{"a":1}"#);
    let mut live = BatchBuilder::new("notes");
    let two = live.dense("v", ElementType::F32, 2);
    record(&mut live, 1, "{}");
    record(&mut live, 2, "{}");
    live.set_f32(two, &[4.0, 5.0]).unwrap();
    let merged =
        resolve(Conflict::Merge, &archived.finish().unwrap(), &live.finish().unwrap()).unwrap();
    assert_eq!(merged.counts, counts(|c| c.merged = 2));
    let found: Vec<_> = merged.batches.iter().map(vectors).collect();
    assert_eq!(found, [[("v", vec![1.0, 2.0, 3.0])], [("v", vec![4.0, 5.0])]]);
}
