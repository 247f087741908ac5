//! What goes through source and sink and must come out as it was.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{
    Cancel, Sink, WriteMode,
    record::{
        RecordBatch, VectorColumn, VectorShape,
        canonical::{self, Writer},
        tagged::{self, Scalar},
    },
};
use serde_json::Value;

use crate::{
    dataset::{Dataset, MARK, Node, Row, Rows, write_scalar},
    harness::Harness,
    kit::{Checked, Fault, Kit, ensure, write_all},
    reading::{Kept, Reading, cut},
    samples::{self, HOSTILE, TWINS, rows},
};

/// Fills a store, reads it, restores it into an empty one, and reads that.
async fn comes_back<H: Harness>(kit: &Kit<'_, H>, data: Dataset) -> Checked {
    let data = samples::fitting(kit, data);
    let from = kit.filled(&data).await?;
    let reading = from.read().await?;
    complete(kit, &data, &reading)?;
    let to = kit.empty().await?;
    kit.restore(&to, &reading).await?;
    let again = to.read().await?;
    let (before, after) = (from.sight_of(&reading).await?, to.sight_of(&again).await?);
    ensure!(before == after, "restored {after:?} instead of {before:?}");
    complete(kit, &data, &again)
}

/// Skips a case whose data the store takes nothing of.
fn some(data: Dataset, why: &str) -> Checked<Dataset> {
    let rows = data.collections.iter().any(|collection| !collection.rows.is_empty());
    let items = data.trees.iter().any(|tree| !tree.items.is_empty());
    if rows || items { Ok(data) } else { Err(Fault::Skip(format!("the store takes no {why}"))) }
}

pub(super) async fn empty_store<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let (from, to) = (kit.empty().await?, kit.filled(&samples::standard(kit)).await?);
    let reading = from.read().await?;
    let records: u64 = reading.content.collections.values().map(|tally| tally.records).sum();
    ensure!(records == 0, "an empty store gave {records} records");
    kit.restore(&to, &reading).await?;
    ensure!(to.sight().await? == from.sight().await?, "an empty backup left old content there");
    Ok(())
}

pub(super) async fn empty_collection<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.records, "records")?;
    let empty = Rows { name: "empty".to_owned(), rows: Vec::new() };
    comes_back(kit, samples::records(kit, [empty])).await
}

pub(super) async fn odd_keys<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    for collection in samples::odd_keys() {
        let data = samples::fitting(kit, samples::records(kit, [collection]));
        if some(data.clone(), "such keys").is_ok() {
            comes_back(kit, data).await?;
        }
    }
    kit.needs(kit.takes_rows(), "records")
}

pub(super) async fn odd_values<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    comes_back(kit, some(samples::records(kit, [samples::odd_values()]), "records")?).await
}

pub(super) async fn odd_fields<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    comes_back(kit, some(samples::records(kit, [samples::odd_fields()]), "records")?).await
}

/// Every name alone: it comes back, or filling or restoring refuses it and leaves no trace.
pub(super) async fn hostile_names<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs_named_collections()?;
    let long = "n".repeat(300);
    for name in HOSTILE.into_iter().chain([long.as_str()]) {
        come_back_or_are_refused(kit, &[name]).await?;
    }
    Ok(())
}

pub(super) async fn twin_names<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs_named_collections()?;
    for (one, other) in TWINS {
        come_back_or_are_refused(kit, &[one, other]).await?;
    }
    Ok(())
}

async fn come_back_or_are_refused<H: Harness>(kit: &Kit<'_, H>, names: &[&str]) -> Checked {
    let data = samples::records(kit, names.iter().map(|name| rows(name, 3)));
    let data = samples::fitting(kit, data);
    let from = kit.empty().await?;
    if let Err(error) = kit.harness.fill(&from.place, &data).await {
        kit.note(format!("refused: {names:?}: {error}"));
        return Ok(());
    }
    let reading = from.read().await?;
    complete(kit, &data, &reading)?;
    let to = kit.empty().await?;
    let before = to.before().await?;
    let store = to.open().await?;
    let plan = kit.plan(&store, WriteMode::Replace, &reading);
    let restored = async {
        let token = store.prepare(&plan).await?.token;
        let session = store.begin(&token, &Cancel::new()).await?;
        match write_all(&*session, &reading.parts).await {
            Ok(()) => session.commit().await,
            Err(error) => {
                session.abort().await?;
                Err(error)
            }
        }?;
        session.finish().await
    };
    if let Err(error) = restored.await {
        kit.note(format!("refused at restore: {names:?}: {error}"));
        return to.is_as_before(&before).await;
    }
    ensure!(to.sight().await? == from.sight().await?, "{names:?} did not come back as it was");
    Ok(())
}

pub(super) async fn long_record<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    comes_back(kit, samples::long(kit)).await
}

pub(super) async fn ten_thousand_records<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let mut many = rows("many", 10_000);
    // Together more than one batch may hold.
    let body = samples::text(&"some words ".repeat(90));
    for row in &mut many.rows {
        row.fields.insert("body".to_owned(), body.clone());
    }
    let mut data = samples::records(kit, [many]);
    // Fewer, because a file may cost a synchronisation of the disk.
    let files = (0..1000)
        .map(|n| samples::file(&format!("many-{n:05}"), format!("file {n}").as_bytes(), 0o644));
    samples::with_trees(kit, &mut data, files.collect());
    comes_back(kit, data).await
}

pub(super) async fn vectors<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let any = kit.can.dense_vectors || kit.can.multi_vectors || kit.can.sparse_vectors;
    kit.needs(any, "dense_vectors, multi_vectors or sparse_vectors")?;
    comes_back(kit, samples::records(kit, [samples::vectors(kit)])).await
}

pub(super) async fn elements<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.elements, "elements")?;
    comes_back(kit, samples::records(kit, [samples::elements()])).await
}

pub(super) async fn odd_files<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.entries, "entries")?;
    let mut data = Dataset::default();
    samples::with_trees(kit, &mut data, samples::odd_tree());
    comes_back(kit, data).await
}

/// Everything that was put into the store was read, exactly.
///
/// Stores give records in forms of their own. So a row is found by its mark, and every
/// scalar of it must stand somewhere in the record's key or value.
pub(super) fn complete<H: Harness>(kit: &Kit<'_, H>, data: &Dataset, reading: &Reading) -> Checked {
    if kit.can.records {
        let found = Found::of(reading);
        for collection in &data.collections {
            let tally = reading.content.collections.get(&collection.name);
            ensure!(tally.is_some(), "collection {:?} was not read", collection.name);
            for row in &collection.rows {
                found.compare(&collection.name, row)?;
            }
        }
    }
    for tree in &data.trees {
        let read: BTreeMap<_, _> = reading
            .parts
            .iter()
            .filter_map(|part| match part {
                Kept::Entry { root, item } if *root == tree.root => Some((&item.path, &item.node)),
                _ => None,
            })
            .collect();
        for item in &tree.items {
            let found = read.get(&item.path).copied();
            ensure!(found == Some(&item.node), "{:?}: read as {}", item.path, short(found));
        }
        let (put, got) = (tree.items.len(), read.len());
        ensure!(put == got, "{got} entries were read of {put}");
    }
    Ok(())
}

fn short(node: Option<&Node>) -> String {
    cut(&format!("{node:?}"))
}

/// The records of a reading by their marks.
struct Found<'a> {
    by_mark: BTreeMap<String, (&'a RecordBatch, usize)>,
}

impl<'a> Found<'a> {
    fn of(reading: &'a Reading) -> Self {
        let mut by_mark = BTreeMap::new();
        for part in &reading.parts {
            let Kept::Records(batch) = part else { continue };
            for record in batch.iter() {
                for text in scalars_in(record.value_json()).into_iter() {
                    by_mark.entry(text).or_insert((batch, record.row()));
                }
            }
        }
        Self { by_mark }
    }

    fn compare(&self, collection: &str, row: &Row) -> Checked {
        let mark = canonical_scalar(&row.fields[MARK]);
        let found = self.by_mark.get(&mark);
        let Some((batch, number)) = found else {
            return Err(Fault::Fail(format!("a record of {collection:?} was not read: {mark}")));
        };
        ensure!(batch.collection() == collection, "{mark} was read in {:?}", batch.collection());
        let record = batch.get(*number);
        let mut there = scalars_in(record.value_json());
        there.extend(scalars_in(record.key_json()));
        there.extend(record.element_json().into_iter().flat_map(scalars_in));
        let keys = [Some(&row.key), row.element.as_ref()].into_iter().flatten();
        let mut wanted: Vec<String> = keys.flat_map(|key| scalars_in(key.as_json())).collect();
        // A store may leave out what is null.
        let fields = row.fields.values().filter(|value| **value != Scalar::Null);
        wanted.extend(fields.map(canonical_scalar));
        for scalar in wanted {
            ensure!(there.contains(&scalar), "{} is not in {}", cut(&scalar), cut(record.line()));
        }
        for vector in &row.vectors {
            let read = batch.column(vector.name()).filter(|column| column.is_present(*number));
            let same = read.is_some_and(|column| same_vector(column, *number, vector));
            ensure!(same, "vector {:?} of {mark} was not read as it was put", vector.name());
        }
        let others = batch.columns().iter().filter(|column| column.is_present(*number)).count();
        ensure!(others == row.vectors.len(), "{mark} was read with {others} vectors");
        Ok(())
    }
}

fn same_vector(column: &VectorColumn, row: usize, put: &VectorColumn) -> bool {
    let shape = match (column.shape(), put.shape()) {
        (VectorShape::Dense { dim: a }, VectorShape::Dense { dim: b })
        | (VectorShape::Multi { dim: a, .. }, VectorShape::Multi { dim: b, .. }) => a == b,
        (VectorShape::Sparse { .. }, VectorShape::Sparse { .. }) => true,
        _ => false,
    };
    shape
        && column.element() == put.element()
        && column.row_bytes(row) == put.row_bytes(0)
        && column.sparse_indices(row) == put.sparse_indices(0)
}

fn canonical_scalar(value: &Scalar) -> String {
    let mut text = Vec::new();
    write_scalar(&mut Writer::new(&mut text), value);
    String::from_utf8(text).unwrap_or_default()
}

/// The scalars that stand anywhere in a JSON text, in canonical form.
fn scalars_in(json: &str) -> BTreeSet<String> {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        if tagged::scalar(value).is_some() {
            let mut text = Vec::new();
            if Writer::new(&mut text).value(value).is_ok() {
                found.insert(String::from_utf8(text).unwrap_or_default());
            }
            return;
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            Value::Object(members) => members.values().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    if let Ok(value) = canonical::parse(json.as_bytes()) {
        walk(&value, &mut found);
    }
    found
}
