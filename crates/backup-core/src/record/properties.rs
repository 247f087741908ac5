//! What holds for any batch.

use proptest::{collection::vec, option, prelude::*};
use serde_json::Value;

use super::{BatchBuilder, ElementType, Key, RecordBatch, Tally, VectorColumn};

#[derive(Debug, Clone)]
struct Record {
    key: Key,
    element: Option<Key>,
    value: Value,
    dense: Option<[f32; 3]>,
    multi: Option<Vec<[u8; 2]>>,
    sparse: Option<Vec<(u32, u16)>>,
}

fn key() -> impl Strategy<Value = Key> {
    let simple = prop_oneof![
        any::<i64>().prop_map(Key::from),
        any::<u64>().prop_map(Key::from),
        any::<String>().prop_map(|text| Key::from(text.as_str())),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Key::bytes(&bytes)),
        any::<f64>().prop_map(Key::float),
        Just(Key::null()),
    ];
    prop_oneof![4 => simple.clone(), 1 => vec(simple, 0..4).prop_map(Key::composite)]
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no NaN", |f| f.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn record() -> impl Strategy<Value = Record> {
    let dense = option::of(any::<[u32; 3]>().prop_map(|bits| bits.map(f32::from_bits)));
    let multi = option::of(vec(any::<[u8; 2]>(), 0..4));
    let sparse = option::of(vec(any::<(u32, u16)>(), 0..5));
    let element = key().prop_filter("an element has an identity", |key| *key != Key::null());
    (key(), option::weighted(0.2, element), value(), dense, multi, sparse).prop_map(
        |(key, element, value, dense, multi, sparse)| Record {
            key,
            element,
            value,
            dense,
            multi,
            sparse,
        },
    )
}

fn batch(records: &[Record]) -> RecordBatch {
    build("c", records)
}

/// Any batch of `collection`, with a column of every shape.
pub(crate) fn batch_of(collection: String) -> impl Strategy<Value = RecordBatch> {
    vec(record(), 0..6).prop_map(move |records| build(&collection, &records))
}

fn build(collection: &str, records: &[Record]) -> RecordBatch {
    let mut builder = BatchBuilder::new(collection);
    let dense = builder.dense("dense", ElementType::F32, 3);
    let multi = builder.multi("multi", ElementType::U8, 2);
    let sparse = builder.sparse("sparse", ElementType::F16);
    for record in records {
        match &record.element {
            None => builder.push(&record.key, |json| json.value(&record.value)).unwrap(),
            Some(element) => builder
                .push_element(&record.key, element, |json| json.value(&record.value))
                .unwrap(),
        }
        if let Some(values) = &record.dense {
            builder.set_f32(dense, values).unwrap();
        }
        if let Some(rows) = &record.multi {
            builder.set(multi, &rows.concat()).unwrap();
        }
        if let Some(pairs) = &record.sparse {
            let (places, values): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            let bytes: Vec<u8> = values.iter().flat_map(|bits| bits.to_le_bytes()).collect();
            builder.set_sparse(sparse, &places, &bytes).unwrap();
        }
    }
    builder.finish().unwrap()
}

fn tally<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Tally {
    let mut tally = Tally::new();
    batches.into_iter().for_each(|batch| tally.add_batch(batch));
    tally
}

/// The way through an archive: lines as text, columns as arrays.
fn through_wire(batch: &RecordBatch) -> RecordBatch {
    let columns = batch.columns().iter().map(|column| {
        VectorColumn::from_arrays(
            column.name(),
            column.element(),
            column.shape().clone(),
            column.data().clone(),
            column.presence().map(<[bool]>::to_vec),
            column.rows(),
        )
        .unwrap()
    });
    RecordBatch::from_lines(batch.collection(), batch.text().clone())
        .unwrap()
        .with_columns(columns.collect())
        .unwrap()
}

proptest! {
    #[test]
    fn a_batch_reads_back(records in vec(record(), 0..12)) {
        let built = batch(&records);
        let read = through_wire(&built);
        prop_assert_eq!(tally([&built]), tally([&read]));
        prop_assert_eq!(read.len(), records.len());
        prop_assert_eq!(built.columns(), read.columns());
        for (put, got) in records.iter().zip(read.iter()) {
            prop_assert_eq!(&got.key(), &put.key);
            prop_assert_eq!(got.element_json(), put.element.as_ref().map(Key::as_json));
            let value: Value = serde_json::from_str(got.value_json()).unwrap();
            prop_assert_eq!(&value, &put.value);
            let row = got.row();
            let [dense, multi, sparse] = read.columns() else { panic!("three columns") };
            prop_assert_eq!(dense.is_present(row), put.dense.is_some());
            if let Some(values) = &put.dense {
                // Bits, because a NaN is a value like others here.
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                prop_assert_eq!(dense.row_bytes(row), &bytes[..]);
            }
            prop_assert_eq!(multi.is_present(row), put.multi.is_some());
            prop_assert_eq!(multi.row_bytes(row), put.multi.clone().unwrap_or_default().concat());
            let places: Vec<u32> = put.sparse.iter().flatten().map(|(place, _)| *place).collect();
            prop_assert_eq!(sparse.sparse_indices(row), places);
        }
    }

    /// Neither the order of records nor the borders of batches matter.
    #[test]
    fn the_tally_is_of_the_records_alone(
        records in vec(record(), 1..12),
        shuffled in any::<prop::sample::Index>(),
        border in any::<prop::sample::Index>(),
    ) {
        let whole = tally([&batch(&records)]);
        let mut turned = records.clone();
        turned.rotate_left(shuffled.index(records.len()));
        turned.reverse();
        let (first, second) = turned.split_at(border.index(records.len()));
        prop_assert_eq!(&tally([&batch(first), &batch(second)]), &whole);
        let mut sum = tally([&batch(first)]);
        sum.merge(&tally([&batch(second)]));
        prop_assert_eq!(&sum, &whole);
        prop_assert_ne!(&tally([&batch(&records[1..])]), &whole);
    }

    /// One byte changed, put in or taken out: refused, or taken for what it says.
    #[test]
    fn a_damaged_text_is_refused_or_stays_as_it_is(
        records in vec(record(), 1..4),
        place in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\\n 0-e."[..])],
        how in 0..3,
    ) {
        let mut text = batch(&records).text().to_vec();
        let place = place.index(text.len());
        match how {
            0 => text[place] = byte,
            1 => text.insert(place, byte),
            _ => drop(text.remove(place)),
        }
        if let Ok(batch) = RecordBatch::from_lines("c", text.clone().into()) {
            let lines: String = batch.iter().map(|record| format!("{}\n", record.line())).collect();
            prop_assert_eq!(lines.into_bytes(), text);
            for record in batch.iter() {
                let pieces = [record.key_json(), record.value_json()];
                for piece in pieces.into_iter().chain(record.element_json()) {
                    // Syntax only: a number may be out of range.
                    let read = serde_json::from_str::<&serde_json::value::RawValue>(piece);
                    prop_assert!(read.is_ok(), "{}", piece);
                }
            }
        }
    }
}
