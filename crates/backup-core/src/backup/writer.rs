//! The thread that writes the archive: hashing, compressing and the disk are its work.

use std::{
    io::{self, Write},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use futures::channel::oneshot;

use super::ledger::Ledger;
use crate::{
    archive::{ArchiveWriter, EntryHead, OutputFile, WriterOptions},
    error::{Error, ErrorKind, Result},
    event::{Event, Watch},
    manifest::{Manifest, Preamble, StoreManifest},
    part::{BlobContent, EntryKind, Notice, Part},
    pipe::{self, Closed, pipe},
    record::Sha256Digest,
    worker::panicked,
};

/// Parts and pieces that wait for the thread: in bytes.
const WAITING_BYTES: usize = 16 << 20;
const PROGRESS_BYTES: u64 = 1 << 20;

/// What the thread is told to do.
pub(super) enum Job {
    /// A part. The body of a blob or file is taken out of it; it follows as
    /// [`Data`](Job::Data), ended by [`BodyEnd`](Job::BodyEnd).
    Part { store: usize, partition: String, part: Box<Part> },
    /// A piece of the body.
    Data(Bytes),
    /// The body is complete.
    BodyEnd,
    /// A partition was read to its end.
    PartitionEnd { store: usize, partition: String },
    /// Everything was read.
    Finish(Box<Closing>),
}

/// What the manifest says beside the accounts.
pub(super) struct Closing {
    pub(super) manifest: Manifest,
    /// In the order of the ledger's stores: all but collections and blobs.
    pub(super) stores: Vec<StoreManifest>,
    pub(super) notices: Vec<(String, Notice)>,
}

/// What the thread leaves.
pub(super) struct Written {
    pub(super) size: u64,
    pub(super) sha256: Sha256Digest,
    pub(super) manifest: Manifest,
}

/// Where the archive goes.
pub(super) enum Output {
    File(OutputFile),
    Pipe(pipe::Sender<Vec<u8>>),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Pipe(pipe) => {
                pipe.send_blocking(bytes.to_vec(), bytes.len())
                    .map_err(|Closed| io::Error::from(io::ErrorKind::BrokenPipe))?;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Pipe(_) => Ok(()),
        }
    }
}

/// The thread. Dropping this before the end gives the archive up: a file is removed before
/// the drop returns.
pub(super) struct Writer {
    jobs: Option<pipe::Sender<Job>>,
    result: Option<oneshot::Receiver<Result<Written>>>,
    // Only for files: who reads a pipe may be the one who drops this.
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn spawn(
        output: Output,
        preamble: &Preamble,
        options: &WriterOptions,
        config: Vec<(String, serde_json::Value)>,
        ledger: Ledger,
        watch: Watch,
    ) -> Result<Self> {
        let (jobs, queue) = pipe(WAITING_BYTES);
        let (answer, result) = oneshot::channel();
        let is_file = matches!(output, Output::File(_));
        let archive = ArchiveWriter::new(output, preamble, options)?;
        let work = move || {
            let mut thread =
                Thread { archive, ledger, watch, body: None, skipping: false, done: 0, told: 0 };
            for (name, value) in &config {
                thread.archive.config(name, value)?;
            }
            while let Some(job) = queue.recv_blocking() {
                if let Job::Finish(closing) = job {
                    return thread.finish(*closing);
                }
                thread.job(job)?;
            }
            Err(Error::new(ErrorKind::Cancelled, "the backup was given up"))
        };
        let thread = thread::Builder::new()
            .name("backup-writer".into())
            .spawn(move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                let _ = answer.send(outcome.unwrap_or_else(|panic| Err(panicked(&*panic))));
            })
            .map_err(|e| Error::io("could not start a thread", e))?;
        Ok(Self { jobs: Some(jobs), result: Some(result), thread: is_file.then_some(thread) })
    }

    /// Hands a job over; waits while too much is waiting.
    pub(super) async fn send(&mut self, job: Job) -> Result<()> {
        let weight = match &job {
            Job::Data(bytes) => bytes.len(),
            Job::Part { part, .. } => match &**part {
                Part::Records(batch) => batch.byte_size(),
                _ => 0,
            },
            _ => 0,
        };
        let sent = match &self.jobs {
            // A job costs something too, however small it is.
            Some(jobs) => jobs.send(job, weight + 512).await,
            None => Err(Closed),
        };
        match sent {
            Ok(()) => Ok(()),
            // The thread has ended, so it has something to say.
            Err(Closed) => Err(match self.result().await {
                Ok(_) => Error::adapter("a part came after the end of the backup"),
                Err(error) => error,
            }),
        }
    }

    /// Ends the archive; it is in its place when this returns.
    pub(super) async fn finish(mut self, closing: Closing) -> Result<Written> {
        self.send(Job::Finish(Box::new(closing))).await?;
        self.result().await
    }

    async fn result(&mut self) -> Result<Written> {
        let gone = || Error::adapter("the thread that writes the archive is gone");
        self.result.take().ok_or_else(gone)?.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}

// What stands on the thread.
struct Thread {
    archive: ArchiveWriter<Output>,
    ledger: Ledger,
    watch: Watch,
    body: Option<(usize, String, Part)>,
    // The body that comes is not taken.
    skipping: bool,
    done: u64,
    told: u64,
}

impl Thread {
    fn job(&mut self, job: Job) -> Result<()> {
        match job {
            Job::Part { store, partition, part } => self.part(store, partition, *part),
            Job::Data(_) if self.skipping => Ok(()),
            Job::BodyEnd if self.skipping => {
                self.skipping = false;
                Ok(())
            }
            Job::Data(bytes) => {
                self.done += bytes.len() as u64;
                if self.done - self.told >= PROGRESS_BYTES {
                    self.told = self.done;
                    self.watch.tell(Event::Progress { done: self.done, total: None });
                }
                self.archive.data(&bytes)
            }
            Job::BodyEnd => self.body_end(),
            Job::PartitionEnd { store, partition } => self.ledger.partition_end(store, &partition),
            // Taken out by the loop.
            Job::Finish(_) => Ok(()),
        }
    }

    fn part(&mut self, store: usize, partition: String, part: Part) -> Result<()> {
        let name = self.ledger.stores[store].name.clone();
        let on = |e: Error| e.on(&name);
        match part {
            Part::Schema(schema) => {
                if !self.ledger.schema(store, &schema)? {
                    return Ok(());
                }
                self.archive.schema(&name, &schema).map_err(on)?;
                self.tell(name, schema.collection, 0, 0);
            }
            Part::Records(batch) => {
                let Some(batch) = self.ledger.records(store, &partition, batch)? else {
                    return Ok(());
                };
                self.archive.records(&name, &partition, &batch).map_err(on)?;
                self.done += batch.byte_size() as u64;
                let (records, bytes) = (batch.len() as u64, batch.byte_size() as u64);
                self.tell(name, batch.collection().to_owned(), records, bytes);
            }
            Part::Blob(_) if !self.ledger.takes(store, &partition, None)? => self.skipping = true,
            Part::Entry(entry) if !self.ledger.takes(store, &partition, Some(&entry.root))? => {
                self.skipping = matches!(entry.kind, EntryKind::File { .. });
            }
            Part::Blob(blob) => {
                let len = blob.len.ok_or_else(|| Error::adapter("a blob without a length"))?;
                self.archive
                    .begin_blob(&name, &blob.name, len, &blob.masked, &blob.metadata)
                    .map_err(on)?;
                self.body = Some((store, partition, Part::Blob(blob)));
            }
            Part::Entry(entry) => {
                let (head, len) = match &entry.kind {
                    EntryKind::File { len, .. } => (EntryHead::File, *len),
                    EntryKind::Directory => (EntryHead::Directory, 0),
                    EntryKind::Symlink { target } => (EntryHead::Symlink(target.clone()), 0),
                };
                let bodiless = !matches!(head, EntryHead::File);
                self.archive
                    .begin_entry(
                        &name,
                        &entry.root,
                        &entry.path,
                        entry.mode,
                        entry.modified,
                        head,
                        len,
                    )
                    .map_err(on)?;
                self.body = Some((store, partition, Part::Entry(entry)));
                if bodiless {
                    self.body_end()?;
                }
            }
            Part::End(end) => self.ledger.end(store, &partition, end)?,
            Part::Notice(notice) => self.ledger.notice(&name, notice),
        }
        Ok(())
    }

    fn body_end(&mut self) -> Result<()> {
        let end = self.archive.end()?;
        let size = end.taken + end.padded;
        match self.body.take() {
            Some((store, partition, Part::Entry(entry))) => {
                self.ledger.entry(store, &partition, &entry, &end)?;
                self.tell(self.ledger.stores[store].name.clone(), entry.root, 1, size);
            }
            Some((store, _, Part::Blob(blob))) => {
                let content = BlobContent {
                    len: size,
                    digest: end.masked_sha256,
                    masked: blob.masked.iter().map(|range| (range.start, range.end)).collect(),
                };
                self.ledger.blob(store, &blob.name, content, &end);
                self.tell(self.ledger.stores[store].name.clone(), blob.name, 0, size);
            }
            _ => return Err(Error::adapter("a body without a part")),
        }
        Ok(())
    }

    fn tell(&self, store: String, collection: String, records: u64, bytes: u64) {
        let (done, total) = (self.done, None);
        self.watch.tell(Event::Part { store, collection, records, bytes, done, total });
    }

    fn finish(mut self, closing: Closing) -> Result<Written> {
        for (store, notice) in closing.notices {
            self.ledger.notice(&store, notice);
        }
        let mut manifest = closing.manifest;
        manifest.references = self.ledger.references(&closing.stores);
        manifest.partial = self.ledger.partial;
        manifest.notices = self.ledger.notices;
        manifest.notice_count = self.ledger.notice_count;
        for (account, mut store) in self.ledger.stores.into_iter().zip(closing.stores) {
            store.collections = account.collections;
            store.blobs = account.blobs;
            manifest.stores.insert(account.name, store);
        }
        let finished = self.archive.finish(manifest)?;
        match finished.out {
            Output::File(file) => file.commit()?,
            Output::Pipe(pipe) => pipe.finish(),
        }
        Ok(Written { size: finished.size, sha256: finished.sha256, manifest: finished.manifest })
    }
}
