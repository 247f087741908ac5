//! What the author of an adapter writes to run the kit.

use std::pin::Pin;

use backup_core::{
    Adapter, Cancel, EntryPath, Error, ErrorKind, Result, Sink, Source, StagePlan, async_trait,
    record::{Key, VectorColumn, tagged::Scalar},
};

use crate::dataset::Dataset;

/// Tells the kit how to make, fill and look at stores of one kind.
///
/// Two methods are enough for a store whose records are JSON objects; the others make the
/// suite stricter, or fit it to a store that cannot hold everything.
#[async_trait(?Send)]
pub trait Harness {
    /// Where one store lives: a temporary folder, a server with a key prefix. The kit drops
    /// it when a case has ended; whatever is there should then go.
    type Place;

    /// The adapter.
    type Store: Source + Sink;

    /// Makes a place with an empty store, which no other place shares anything with.
    ///
    /// # Errors
    /// Whatever is in the way; the case has then failed.
    async fn place(&self) -> Result<Self::Place>;

    /// Opens the store of a place, as a process would that knows nothing of others. Called
    /// several times for one place, also while another is open.
    ///
    /// # Errors
    /// Whatever is in the way; the case has then failed.
    async fn open(&self, place: &Self::Place) -> Result<Self::Store>;

    /// Puts the kit's data into the empty store of a place, best by the store's own means
    /// (SQL, files, a client), so that reading is not tested by writing alone.
    ///
    /// The default restores [`Dataset::parts`] through the adapter.
    ///
    /// # Errors
    /// Data that the store refuses.
    async fn fill(&self, place: &Self::Place, data: &Dataset) -> Result<()> {
        let store = self.open(place).await?;
        let plan = StagePlan::new("conformance-fill", "store", store.kind());
        let token = store.prepare(&plan).await?.token;
        let session = store.begin(&token, &Cancel::new()).await?;
        for part in data.parts()? {
            if let Err(error) = session.write(part).await {
                session.abort().await?;
                return Err(error);
            }
        }
        session.commit().await?;
        session.finish().await
    }

    /// Changes live data, as an application would while a backup runs: adds or alters a
    /// record or a file. By default not done, and the cases that need it are skipped.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported): cannot be done.
    async fn change(&self, place: &Self::Place) -> Result<()> {
        let _ = place;
        Err(Error::new(ErrorKind::Unsupported, "the harness has no `change`"))
    }

    /// The live content as an application sees it, in a fixed order, without the adapter:
    /// rows by `SELECT`, files by `read`. By default `None`: the kit then trusts what the
    /// source reads.
    ///
    /// # Errors
    /// Content that cannot be read.
    async fn dump(&self, place: &Self::Place) -> Result<Option<Vec<String>>> {
        let _ = place;
        Ok(None)
    }

    /// Names of all that exists around the content and is not content: files beside a
    /// database, folders beside a root, temporary tables, server-side snapshots. The kit
    /// compares before and after, so what is always there does no harm. By default `None`:
    /// the cases about leftovers then look at the content only, and the report says so.
    ///
    /// # Errors
    /// Surroundings that cannot be read.
    async fn trace(&self, place: &Self::Place) -> Result<Option<Vec<String>>> {
        let _ = place;
        Ok(None)
    }

    /// Whether a store of this kind can hold something. What it cannot is left out of the
    /// data; the report names it.
    fn holds(&self, what: Asked<'_>) -> bool {
        let _ = what;
        true
    }

    /// The name that the source gives its only collection, for a store without the capability
    /// `collections`.
    fn collection(&self) -> String {
        "notes".to_owned()
    }

    /// Names of the roots of file trees.
    fn roots(&self) -> Vec<String> {
        vec!["tree".to_owned()]
    }

    /// Runs a case to its end: where an adapter needs a runtime, enter it here.
    fn block_on(&self, case: Pin<Box<dyn Future<Output = ()> + '_>>) {
        futures::executor::block_on(case);
    }
}

/// What [`Harness::holds`] is asked about.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Asked<'a> {
    /// A collection of this name.
    Collection(&'a str),
    /// A field of this name.
    Field(&'a str),
    /// A record of this key.
    Key(&'a Key),
    /// A field with this value.
    Value(&'a Scalar),
    /// A vector: a column of one row.
    Vector(&'a VectorColumn),
    /// A file of this path.
    Path(&'a EntryPath),
    /// A symbolic link.
    Symlinks,
}
