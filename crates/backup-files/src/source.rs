//! Reading: every root on a thread of its own.

use std::{
    collections::VecDeque,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use backup_core::{
    ByteStream, EntryKind, Error, ErrorKind, FileEntry, Part, Partition, PinRequest, Pinned,
    Result, Source, SourceSession, Summary, Worker, async_trait,
};
use futures::{FutureExt, StreamExt, future, future::BoxFuture, lock::Mutex, stream};
use rustix::fs::FileType;

use crate::{
    FilesStore,
    config::Root,
    guard::{Guard, OpenFiles},
    reader::{Header, Item, Reader},
    sys,
    walk::{Step, Walk},
};

#[async_trait]
impl Source for FilesStore {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        let wanted = |root: &&Root| {
            request.collections.is_empty() || request.collections.contains(&root.name)
        };
        for name in &request.collections {
            if !self.roots.iter().any(|root| root.name == *name) {
                return Err(Error::new(ErrorKind::NotFound, "the store has no such root").on(name));
            }
        }
        let open_files = Arc::new(OpenFiles::default());
        let mut roots = Vec::new();
        let mut estimate = Some(Duration::ZERO);
        for root in self.roots.iter().filter(wanted) {
            let worker = Worker::spawn(format!("files {}", root.name), || Ok(None))?;
            let (root, avoid) = (root.clone(), request.avoid.clone());
            let (open_files, cancel) = (Arc::clone(&open_files), request.cancel.clone());
            let name = root.name.clone();
            let time = worker
                .call(move |slot| {
                    let path = root.path.clone();
                    let guard = Guard::new(&root.path, &avoid, open_files)?;
                    *slot = Some(Reader::new(root, guard, cancel)?);
                    Ok(guess(&path))
                })
                .await?;
            estimate = estimate.zip(time).map(|(sum, time)| sum.max(time));
            roots.push(RootSession { name, worker: Arc::new(worker), queue: Mutex::default() });
        }
        Ok(Pinned::Live { session: Box::new(Session { roots }), estimate })
    }
}

/// How long the copy may take: known only for trees that can be looked through at once.
fn guess(path: &Path) -> Option<Duration> {
    let until = Instant::now() + Duration::from_millis(50);
    let mut walk = Walk::<()>::new(sys::open_path(path).ok()?).ok()?;
    let (mut entries, mut bytes) = (0_u32, 0_u64);
    while let Some(step) = walk.step() {
        if Instant::now() > until {
            return None;
        }
        let Step::Name = step else { continue };
        entries += 1;
        let Ok(stamp) = walk.stat() else { continue };
        match stamp.kind {
            FileType::RegularFile => bytes += stamp.size,
            FileType::Directory => drop(walk.enter()),
            _ => {}
        }
    }
    // 100 MB and 10 000 entries a second: slow disks do that.
    Some(Duration::from_micros(bytes / 100) + Duration::from_micros(100) * entries)
}

fn ask<T, J>(
    worker: &Worker<Option<Reader>>,
    job: J,
) -> impl Future<Output = Result<T>> + Send + use<T, J>
where
    T: Send + 'static,
    J: FnOnce(&mut Reader) -> Result<T> + Send + 'static,
{
    worker.call(|slot| match slot {
        Some(reader) => job(reader),
        None => Err(Error::adapter("a root was not opened")),
    })
}

struct Session {
    roots: Vec<RootSession>,
}

struct RootSession {
    name: String,
    worker: Arc<Worker<Option<Reader>>>,
    queue: Mutex<Queue>,
}

/// Parts that were read, and the batch that is read meanwhile.
#[derive(Default)]
struct Queue {
    ready: VecDeque<Item>,
    ahead: Option<BoxFuture<'static, Result<Vec<Item>>>>,
}

impl RootSession {
    /// The next item. Reading goes on while it is used, unless a file has to be read first.
    async fn item(&self) -> Result<Option<Item>> {
        let mut queue = self.queue.lock().await;
        if queue.ready.is_empty() {
            let batch = match queue.ahead.take() {
                Some(ahead) => ahead.await?,
                None => ask(&self.worker, Reader::batch).await?,
            };
            queue.ready.extend(batch);
            if matches!(queue.ready.back(), Some(Item::Part(_))) {
                queue.ahead = Some(ask(&self.worker, Reader::batch).boxed());
            }
        }
        Ok(queue.ready.pop_front())
    }

    fn body(&self) -> ByteStream {
        // Two pieces are asked for at a time, so that reading goes on while one is used.
        let worker = Arc::clone(&self.worker);
        stream::repeat_with(move || ask(&worker, Reader::piece).map(Result::transpose))
            .buffered(2)
            .take_while(|piece| future::ready(piece.is_some()))
            .filter_map(future::ready)
            .boxed()
    }

    fn large(&self, header: Header) -> Part {
        let Header { path, mode, modified, len } = header;
        let kind = EntryKind::File { len, body: self.body() };
        Part::Entry(FileEntry { root: self.name.clone(), path, mode, modified, kind })
    }
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(self.roots.iter().map(|root| Partition::new(&root.name)).collect())
    }

    async fn next(&self, partition: &Partition) -> Result<Option<Part>> {
        let root = self
            .roots
            .iter()
            .find(|root| root.name == partition.name)
            .ok_or_else(|| Error::adapter("there is no such partition").on(&partition.name))?;
        Ok(root.item().await?.map(|item| match item {
            Item::Part(part) => part,
            Item::Large(header) => root.large(header),
        }))
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        let mut summary = Summary::new();
        summary.changed = Some(false);
        let mut excluded = 0_u64;
        for root in &self.roots {
            let (changed, left_out) =
                ask(&root.worker, |reader| Ok((reader.summary()?, reader.excluded))).await?;
            // One that changed decides, then one that is not known.
            summary.changed = match (summary.changed, changed) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
            excluded += left_out;
        }
        if excluded > 0 {
            summary.metadata.insert("excluded".into(), excluded.into());
        }
        Ok(summary)
    }
}
