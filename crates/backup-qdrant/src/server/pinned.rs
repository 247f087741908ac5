//! One moment as records: a native snapshot, read by the embedded engine.

use std::{io::Write, path::Path, path::PathBuf};

use backup_core::{Error, Result, Worker, record::RecordBatch};
use futures::TryStreamExt;
use tempfile::NamedTempFile;

use super::{client::Client, taken::Taken};
use crate::{
    edge::{Cursor, Snapshot},
    schema::VectorForm,
};

/// Reads a snapshot into batches, on a thread of its own.
pub(super) struct Pinned {
    worker: Worker<Reader>,
    records: u64,
}

struct Reader {
    scratch: PathBuf,
    file: Option<NamedTempFile>,
    opened: Option<(Snapshot, Cursor)>,
}

impl Pinned {
    /// Fetches the snapshot into the folder `scratch`, and opens it there.
    pub(super) async fn open(
        client: &Client,
        taken: &Taken,
        forms: Vec<VectorForm>,
        scratch: &Path,
    ) -> Result<Self> {
        let folder = scratch.to_owned();
        let worker = Worker::spawn("qdrant snapshot", move || {
            let file = tempfile::Builder::new().prefix(".backup-kit-").tempfile_in(&folder);
            let file =
                file.map_err(|e| Error::io("a snapshot cannot be kept", e).on(folder.display()))?;
            Ok(Reader { scratch: folder, file: Some(file), opened: None })
        })?;
        let (mut body, _) = taken.body(client).await?;
        while let Some(piece) = body.try_next().await? {
            worker.call(move |reader| reader.append(&piece)).await?;
        }
        let name = taken.collection.clone();
        worker.call(move |reader| reader.open(&name, &forms)).await?;
        Ok(Self { worker, records: 0 })
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let batch = self.worker.call(Reader::next).await?;
        self.records += batch.as_ref().map_or(0, |batch| batch.len() as u64);
        Ok(batch)
    }

    /// Removes what it keeps in the folder. Without this it goes a little later.
    pub(super) async fn close(&mut self) -> Result<()> {
        self.worker
            .call(|reader| {
                reader.opened = None;
                reader.file = None;
                Ok(())
            })
            .await
    }

    /// How many points came so far.
    pub(super) fn records(&self) -> u64 {
        self.records
    }
}

impl Reader {
    fn append(&mut self, piece: &[u8]) -> Result<()> {
        let file = self.file.as_mut().ok_or_else(|| Error::adapter("the snapshot is closed"))?;
        file.write_all(piece)
            .map_err(|e| Error::io("a snapshot cannot be kept", e).on(self.scratch.display()))
    }

    fn open(&mut self, collection: &str, forms: &[VectorForm]) -> Result<()> {
        // Once it is unpacked it only takes room.
        let file = self.file.take().ok_or_else(|| Error::adapter("the snapshot is closed"))?;
        let snapshot = Snapshot::open(file.path(), &self.scratch)?;
        let cursor = snapshot.cursor(collection, forms);
        self.opened = Some((snapshot, cursor));
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let (snapshot, cursor) =
            self.opened.as_mut().ok_or_else(|| Error::adapter("no snapshot is open"))?;
        snapshot.next_batch(cursor)
    }
}
