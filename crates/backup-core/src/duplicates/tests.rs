use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    ErrorKind, Result,
    manifest::FieldMapping,
    record::{BatchBuilder, ElementType, Key, RecordBatch},
};

const TEXT: &str = "The frontend should also be prepared to handle an error message from the \
                    server, and should then close the connection at once.";

fn fields() -> FieldMapping {
    FieldMapping {
        content: Some("/text".into()),
        title: Some("/title".into()),
        updated_at: Some("/updated".into()),
        ..FieldMapping::default()
    }
}

fn batch(values: &[Value]) -> RecordBatch {
    let mut builder = BatchBuilder::new("notes");
    for (key, value) in (0_u64..).zip(values) {
        builder.push(&Key::from(key), |json| json.value(value)).unwrap();
    }
    builder.finish().unwrap()
}

fn vectors(element: ElementType, rows: &[Option<&[f32]>]) -> RecordBatch {
    let mut builder = BatchBuilder::new("notes");
    let dim = rows.iter().flatten().next().map_or(1, |row| row.len());
    let column = builder.dense("v", element, dim);
    for (key, row) in (0_u64..).zip(rows) {
        builder.push_json(&Key::from(key), key.to_string().as_bytes()).unwrap();
        match (row, element) {
            (Some(row), ElementType::F32) => builder.set_f32(column, row).unwrap(),
            (Some(row), _) => {
                let bytes: Vec<u8> = row.iter().map(|v| *v as u8).collect();
                builder.set(column, &bytes).unwrap();
            }
            (None, _) => {}
        }
    }
    builder.finish().unwrap()
}

fn find(options: &DuplicateOptions, batch: &RecordBatch) -> Result<DuplicateReport> {
    let mut finder = Finder::new(options, &fields())?;
    finder.add(batch)?;
    Ok(finder.finish())
}

// Kind and keys of each group.
fn groups(options: &DuplicateOptions, batch: &RecordBatch) -> Vec<(DuplicateKind, Vec<u64>)> {
    let report = find(options, batch).unwrap();
    let number = |key: &Key| key.as_json().parse().unwrap();
    report.groups.iter().map(|g| (g.kind, g.keys.iter().map(number).collect())).collect()
}

#[test]
fn equal_values_are_found_whatever_does_not_count() {
    let batch = batch(&[
        json!({"id": 1, "text": "a", "updated": 1}),
        json!({"id": 2, "text": "a", "updated": 2}),
        json!({"id": 3, "text": "b"}),
        json!({"id": 1, "text": "a"}),
        json!("a"),
        json!("a"),
    ]);
    let exact = DuplicateOptions::default();
    assert_eq!(
        groups(&exact, &batch),
        [(DuplicateKind::Exact, vec![0, 3]), (DuplicateKind::Exact, vec![4, 5])]
    );
    assert_eq!(
        groups(&exact.ignore("/id"), &batch),
        [(DuplicateKind::Exact, vec![0, 1, 3]), (DuplicateKind::Exact, vec![4, 5])]
    );
}

#[test]
fn texts_are_alike_by_their_words_and_the_fewest_changes() {
    let changed = TEXT.replace("error message", "eror mesage").replace("at once", "at last");
    let values = [
        TEXT.to_owned(),
        format!("  {}!", TEXT.to_uppercase().replace(", ", " -- ")),
        changed,
        "An altogether different text that says nothing about servers or clients.".into(),
        "short".into(),
        "short".into(),
    ];
    let records = batch(&values.map(|text| json!({"text": text})));
    let mut fuzzy = DuplicateOptions::default().fuzzy(0.99);
    fuzzy.exact = false;
    assert_eq!(groups(&fuzzy, &records), [(DuplicateKind::Fuzzy, vec![0, 1])]);
    let fuzzy = fuzzy.fuzzy(0.9);
    assert_eq!(groups(&fuzzy, &records), [(DuplicateKind::Fuzzy, vec![0, 1, 2])]);
    let group = &find(&fuzzy, &records).unwrap().groups[0];
    assert!(group.score > 0.9 && group.score < 0.97, "{}", group.score);
    // The title counts where there is no content.
    let titles = batch(&[json!({"title": TEXT}), json!({"text": TEXT}), json!({"title": "x"})]);
    assert_eq!(groups(&fuzzy, &titles), [(DuplicateKind::Fuzzy, vec![0, 1])]);
}

#[test]
fn the_most_similar_text_is_the_one_that_is_said_again() {
    let near = TEXT.replace("frontend", "backend");
    let far = near.replace("close the connection", "start again");
    let [text, near, far] = [TEXT, &near, &far].map(|text| json!({"text": text}));
    // `far` and the first are unlike enough to stand beside each other; `near` is alike both.
    let options = DuplicateOptions::default().fuzzy(0.84);
    let orders = [
        ([far.clone(), text.clone(), near.clone()], vec![1, 2]),
        ([text.clone(), far.clone(), near.clone()], vec![0, 2]),
    ];
    for (values, expected) in orders {
        assert_eq!(groups(&options, &batch(&values)), [(DuplicateKind::Fuzzy, expected)]);
    }
    assert_eq!(groups(&options, &batch(&[far, near])), [(DuplicateKind::Fuzzy, vec![0, 1])]);
}

#[test]
fn vectors_are_alike_by_their_direction() {
    let rows: [Option<&[f32]>; 6] = [
        Some(&[1.0, 0.0, 0.0]),
        Some(&[0.0, 3.0, 0.0]),
        Some(&[7.0, 0.1, 0.0]),
        None,
        Some(&[0.0, 0.0, 0.0]),
        Some(&[f32::NAN, 0.0, 0.0]),
    ];
    let options = DuplicateOptions::default().semantic("v", 0.99);
    let batch = vectors(ElementType::F32, &rows);
    assert_eq!(groups(&options, &batch), [(DuplicateKind::Semantic, vec![0, 2])]);
    let score = find(&options, &batch).unwrap().groups[0].score;
    assert!((score - 0.999_898).abs() < 1e-6, "{score}");
    assert!(groups(&options.clone().semantic("other", 0.99), &batch).is_empty());
    let bytes =
        vectors(ElementType::U8, &[Some(&[1.0, 2.0]), Some(&[2.0, 4.0]), Some(&[9.0, 0.0])]);
    assert_eq!(groups(&options, &bytes), [(DuplicateKind::Semantic, vec![0, 1])]);
}

#[test]
fn vectors_that_cannot_be_compared_are_refused() {
    let options = DuplicateOptions::default().semantic("v", 0.99);
    let mut sparse = BatchBuilder::new("notes");
    let column = sparse.sparse("v", ElementType::F32);
    sparse.push_json(&Key::from(1), b"1").unwrap();
    sparse.set_sparse(column, &[3], &[0; 4]).unwrap();
    let mut half = BatchBuilder::new("notes");
    let column = half.dense("v", ElementType::F16, 1);
    half.push_json(&Key::from(1), b"1").unwrap();
    half.set(column, &[0; 2]).unwrap();
    for batch in [sparse.finish().unwrap(), half.finish().unwrap()] {
        let error = find(&options, &batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.subject(), Some("notes, record 1: vector \"v\""));
    }
    let mut finder = Finder::new(&options, &fields()).unwrap();
    finder.add(&vectors(ElementType::F32, &[Some(&[1.0; 3])])).unwrap();
    let error = finder.add(&vectors(ElementType::F32, &[Some(&[1.0; 30])])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_group_has_no_chains_and_an_equal_record_is_always_found() {
    // Each is alike its neighbour, the last is not alike the first.
    let direction = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
    let (a, b, c) = (direction(0.0), direction(7.0), direction(14.0));
    let batch = vectors(ElementType::F32, &[Some(&a), Some(&b), Some(&c)]);
    let options = DuplicateOptions::default().semantic("v", 0.99);
    assert_eq!(groups(&options, &batch), [(DuplicateKind::Semantic, vec![0, 1])]);
    // An equal of a record that is alike another.
    let mut finder = Finder::new(&options, &fields()).unwrap();
    finder.add(&batch).unwrap();
    let seen = finder.seen(batch.get(1)).unwrap().unwrap();
    assert_eq!((seen.of, seen.kind, seen.score), (Key::from(1), DuplicateKind::Exact, 1.0));
}

#[test]
fn the_limit_of_memory_is_an_error_with_a_next_step() {
    let distinct: Vec<_> = (0..100).map(|n| json!({"text": format!("{TEXT} {n}")})).collect();
    let batch = batch(&distinct);
    assert!(find(&DuplicateOptions::default().memory(100 * 100), &batch).is_ok());
    for options in [
        DuplicateOptions::default().memory(2_000),
        DuplicateOptions::default().fuzzy(1.0).memory(100 * 200),
    ] {
        let error = find(&options, &batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.advice().contains("memory"), "{}", error.report());
    }
}

#[test]
fn elements_are_left_out_and_counted() {
    let mut builder = BatchBuilder::new("notes");
    for element in ["f", "g"] {
        builder
            .push_element(&Key::from("h"), &Key::from(element), |json| {
                json.null();
                Ok(())
            })
            .unwrap();
    }
    let report = find(&DuplicateOptions::default(), &builder.finish().unwrap()).unwrap();
    assert_eq!((report.records, report.left_out, report.groups.len()), (0, 2, 0));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let default = DuplicateOptions::default;
    for (options, fields) in [
        (default().fuzzy(0.0), fields()),
        (default().fuzzy(f64::NAN), fields()),
        (default().semantic("v", 1.5), fields()),
        (default().ignore("id"), fields()),
        (default().fuzzy(0.9), FieldMapping::default()),
    ] {
        let error = Finder::new(&options, &fields).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{options:?}");
    }
    let text = serde_json::to_string(&default().semantic("v", 0.5)).unwrap();
    assert_eq!(serde_json::from_str::<DuplicateOptions>(&text).unwrap().fuzzy, None);
    assert!(serde_json::from_str::<DuplicateOptions>(r#"{"fuzy":0.9}"#).is_err());
}

proptest! {
    /// Exact groups are those of a comparison of all with all; batches do not matter, and
    /// what is skipped on import is what the report would have removed.
    #[test]
    fn exact_groups_are_those_of_all_against_all(
        values in prop::collection::vec(0..6_u8, 0..30),
        size in 1..10_usize,
    ) {
        let values: Vec<_> = values.iter().map(|v| json!({"id": v % 2, "n": v / 2})).collect();
        let whole = batch(&values);
        let options = DuplicateOptions::default().ignore("/id");
        let mut expected: Vec<Vec<u64>> = Vec::new();
        for (at, value) in (0..).zip(&values) {
            let same = |group: &&mut Vec<u64>| values[group[0] as usize]["n"] == value["n"];
            match expected.iter_mut().find(same) {
                Some(group) => group.push(at),
                None => expected.push(vec![at]),
            }
        }
        let kept: Vec<_> = expected.iter().map(|group| group[0]).collect();
        expected.retain(|group| group.len() > 1);
        let found: Vec<_> = groups(&options, &whole).into_iter().map(|(_, keys)| keys).collect();
        prop_assert_eq!(found, expected);

        let rows: Vec<_> = (0..whole.len()).collect();
        let batches: Vec<_> = rows.chunks(size).map(|rows| whole.rows(rows).unwrap()).collect();
        let mut finder = Finder::new(&options, &fields()).unwrap();
        batches.iter().for_each(|batch| finder.add(batch).unwrap());
        prop_assert_eq!(finder.finish(), find(&options, &whole).unwrap());
        let mut finder = Finder::new(&options, &fields()).unwrap();
        let unseen: Vec<_> = whole
            .iter()
            .filter(|record| finder.seen(*record).unwrap().is_none())
            .map(|record| record.row() as u64)
            .collect();
        prop_assert_eq!(unseen, kept);
    }

    /// The search by hashes does not lose a text in which little has changed.
    #[test]
    fn a_text_is_found_again_after_a_few_changes(
        words in prop::collection::vec("[a-z]{4,9}", 40..60),
        place: prop::sample::Index,
    ) {
        let mut changed = words.clone();
        place.get_mut(&mut changed).push('x');
        let values = [json!({"text": words.join(" ")}), json!({"text": changed.join(", ")})];
        let found = groups(&DuplicateOptions::default().fuzzy(0.9), &batch(&values));
        prop_assert_eq!(found, [(DuplicateKind::Fuzzy, vec![0, 1])]);
    }
}
