//! What the adapter says of itself.

use std::path::PathBuf;

use backup_core::{
    Adapter, Capabilities, CollectionDescription, Description, Error, ErrorKind, Result,
    async_trait,
};

use crate::FilesStore;

#[async_trait]
impl Adapter for FilesStore {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.entries = true;
        can.merge = true;
        can.undo = true;
        can.collections = true;
        can
    }

    fn roots(&self) -> Vec<PathBuf> {
        self.roots.iter().map(|root| root.path.clone()).collect()
    }

    // Entries are not counted: a plan should not read a million of them.
    async fn describe(&self) -> Result<Description> {
        let there = self.roots.iter().any(|root| root.path.exists());
        if let (false, Some(root)) = (there, self.roots.first()) {
            let what = "there is no such folder";
            return Err(Error::new(ErrorKind::NotFound, what).on(root.path.display()));
        }
        let mut description = Description::new("filesystem");
        for root in &self.roots {
            let mut collection = CollectionDescription::new(&root.name);
            if !root.path.exists() {
                // Nothing to back up, but a restore would make it.
                (collection.records, collection.bytes) = (Some(0), Some(0));
            }
            description.collections.push(collection);
        }
        Ok(description)
    }
}
