//! A harness with every hook, for the store that can do everything.

use std::{cell::Cell, pin::Pin};

use backup_conformance::{Asked, Dataset, Harness, Node, cases, check, run};
use backup_core::{MemoryStore, Result, async_trait};
use serde_json::json;

pub(crate) struct Memory;

#[async_trait(?Send)]
impl Harness for Memory {
    type Place = MemoryStore;
    type Store = MemoryStore;

    async fn place(&self) -> Result<MemoryStore> {
        Ok(MemoryStore::new().with_batch_records(10))
    }

    async fn open(&self, place: &MemoryStore) -> Result<MemoryStore> {
        Ok(place.clone())
    }

    async fn fill(&self, place: &MemoryStore, data: &Dataset) -> Result<()> {
        fill(place, data)
    }

    async fn change(&self, place: &MemoryStore) -> Result<()> {
        place.insert("notes", 1, json!("changed"))
    }

    async fn dump(&self, place: &MemoryStore) -> Result<Option<Vec<String>>> {
        Ok(Some(vec![format!("{:?}", place.snapshot())]))
    }

    async fn trace(&self, place: &MemoryStore) -> Result<Option<Vec<String>>> {
        Ok(Some(place.traces()))
    }
}

pub(crate) fn fill(place: &MemoryStore, data: &Dataset) -> Result<()> {
    for collection in &data.collections {
        place.create(&collection.name, json!({"made": "by the harness"}), Default::default());
        place.insert_batch(&collection.batch()?)?;
        place.put_blob(format!("{}.bin", collection.rows.len()), vec![7; 100_000]);
    }
    for tree in &data.trees {
        for item in &tree.items {
            let path = item.path.clone();
            match &item.node {
                Node::File(bytes) => place.put_file(&tree.root, path, bytes.clone()),
                Node::Directory => place.put_directory(&tree.root, path),
                Node::Symlink(target) => place.put_symlink(&tree.root, path, target.clone()),
            }
        }
    }
    Ok(())
}

#[test]
fn the_store_in_memory_conforms() {
    run(&Memory);
}

/// Only `place` and `open`, in a store that deals its records out and cannot be pinned.
#[derive(Default)]
struct Least {
    entered: Cell<usize>,
}

#[async_trait(?Send)]
impl Harness for Least {
    type Place = MemoryStore;
    type Store = MemoryStore;

    async fn place(&self) -> Result<MemoryStore> {
        let store = MemoryStore::new().with_partitions(3);
        store.pinnable(false);
        Ok(store)
    }

    async fn open(&self, place: &MemoryStore) -> Result<MemoryStore> {
        Ok(place.clone())
    }

    fn holds(&self, what: Asked<'_>) -> bool {
        !matches!(what, Asked::Symlinks)
    }

    fn block_on(&self, case: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.entered.set(self.entered.get() + 1);
        futures::executor::block_on(case);
    }
}

#[test]
fn what_cannot_be_run_is_skipped_by_name() {
    let least = Least::default();
    let report = check(&least);
    assert_eq!(least.entered.get(), cases().len());
    assert_eq!(report.failed(), [""; 0], "{report}");
    assert_eq!(report.skipped(), ["pinned_moment", "existing_without_merge"]);
    let text = report.to_string();
    assert!(text.contains("SKIPPED  pinned_moment: the adapter does not declare pins"), "{text}");
    assert!(text.contains("not held: Symlinks"), "{text}");
}
