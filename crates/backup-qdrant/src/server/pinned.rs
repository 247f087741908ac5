//! One moment as records: native snapshots, read by the embedded engine.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use backup_core::{Error, Result, Worker, record::RecordBatch};
use futures::TryStreamExt;
use tempfile::NamedTempFile;

use super::taken::Taken;
use crate::{
    edge::{Cursor, OfShard, Snapshot},
    schema::VectorForm,
};

/// Reads a collection's snapshot, or those of its shards, into batches, on a thread of its own.
pub(super) struct Pinned {
    worker: Worker<Reader>,
    records: u64,
}

struct Reader {
    scratch: PathBuf,
    files: Vec<(Option<OfShard>, NamedTempFile)>,
    opened: Option<(Snapshot, Cursor)>,
}

impl Pinned {
    /// Fetches the snapshots into the folder `scratch`, and opens them there.
    pub(super) async fn open(
        taken: &[Taken],
        forms: Vec<VectorForm>,
        scratch: &Path,
    ) -> Result<Self> {
        let scratch = scratch.to_owned();
        let worker = Worker::spawn("qdrant snapshot", move || {
            Ok(Reader { scratch, files: Vec::new(), opened: None })
        })?;
        for snapshot in taken {
            let shard = match &snapshot.shard {
                None => None,
                Some(shard) => Some(OfShard {
                    number: u32::try_from(shard.number)
                        .map_err(|_| Error::adapter("a shard has a number that none has"))?,
                    key: shard.key.clone(),
                }),
            };
            worker.call(move |reader| reader.begin(shard)).await?;
            let (mut body, _) = snapshot.body().await?;
            while let Some(piece) = body.try_next().await? {
                worker.call(move |reader| reader.append(&piece)).await?;
            }
        }
        let name = taken.first().map(|taken| taken.collection.clone()).unwrap_or_default();
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
                reader.files.clear();
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
    fn begin(&mut self, shard: Option<OfShard>) -> Result<()> {
        let file = tempfile::Builder::new().prefix(".backup-kit-").tempfile_in(&self.scratch);
        self.files.push((shard, file.map_err(|e| self.not_kept(e))?));
        Ok(())
    }

    fn append(&mut self, piece: &[u8]) -> Result<()> {
        let file = self.files.last_mut().map(|(_, file)| file.write_all(piece));
        file.unwrap_or(Ok(())).map_err(|e| self.not_kept(e))
    }

    fn not_kept(&self, e: io::Error) -> Error {
        Error::io("a snapshot cannot be kept", e).on(self.scratch.display())
    }

    fn open(&mut self, collection: &str, forms: &[VectorForm]) -> Result<()> {
        // Once they are unpacked they only take room.
        let files = std::mem::take(&mut self.files);
        let paths: Vec<_> =
            files.iter().map(|(shard, file)| (shard.clone(), file.path())).collect();
        let snapshot = Snapshot::of_files(&paths, &self.scratch, Snapshot::DEFAULT_LIMIT)?;
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
