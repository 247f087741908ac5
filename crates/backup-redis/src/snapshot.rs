//! One moment of every primary: the one at which it forks for a replica.
//!
//! A server's fork is a moment by itself, so that nobody is held back where there is one server.
//! Several fork one after the other: writers are held back until the last has, and no longer.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use backup_core::{Cancel, Error, ErrorKind, Metadata, Part, Partition, PinRequest, Result};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::{
    RedisStore,
    client::{Client, Primary},
    model::{Body, Element, Item, ItemPart},
    naming::is_own,
    native,
    options::RedisOptions,
    pause::Pause,
    rdb,
    records::Records,
    replica::{self, Link, Mark, Stop},
    reply,
    source::AHEAD,
};

/// Snapshots that are on their way.
pub(crate) struct Taken {
    pub(crate) partitions: Vec<(Partition, mpsc::Receiver<Result<Part>>)>,
    /// Where each server's stream stood.
    pub(crate) mark: String,
    pub(crate) ends: Ends,
}

/// Ends what still comes when it is dropped.
pub(crate) struct Ends(Vec<Arc<Stop>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.iter().for_each(|stop| stop.end());
    }
}

/// Has every primary fork; all of them within `most`.
pub(crate) async fn take(
    store: &RedisStore,
    primaries: &[Primary],
    request: &PinRequest,
    most: Duration,
) -> Result<Taken> {
    let client = &store.client;
    if store.options.native {
        let several = primaries.iter().any(|primary| primary.slots.is_some());
        let refused = match request.collections.first() {
            _ if several => Some(("a cluster has no snapshot of its own", "its servers")),
            Some(name) => Some(("a native backup is not of some collections", name.as_str())),
            None => None,
        };
        if let Some((what, on)) = refused {
            return Err(Error::new(ErrorKind::Unsupported, what)
                .on(on)
                .advise("back up records, which is the default"));
        }
    }
    if primaries.len() < 2 {
        return fork(store, primaries, request, Instant::now() + most).await;
    }
    let pause = Pause::begin(client, primaries, most).await?;
    let taken = fork(store, primaries, request, pause.until).await;
    let in_time = pause.in_time("the beginning of the snapshots");
    let ended = Pause::end(client, primaries).await;
    let taken = taken?;
    in_time.and(ended).map(|()| taken)
}

async fn fork(
    store: &RedisStore,
    primaries: &[Primary],
    request: &PinRequest,
    until: Instant,
) -> Result<Taken> {
    let mut ends = Ends(Vec::new());
    let (mut partitions, mut begun) = (Vec::new(), Vec::new());
    for (number, primary) in primaries.iter().enumerate() {
        let peer = store.client.peer(primary.address.as_ref()).await?;
        let (after, now_ms, version) = before(&store.client, primary).await?;
        let reading = Reading {
            options: Arc::clone(&store.options),
            asked: request.collections.clone(),
            now_ms,
            skips: false,
            hash: None,
        };
        let stop = Arc::new(Stop::default());
        ends.0.push(Arc::clone(&stop));
        let (tell, told) = oneshot::channel();
        let (send, receive) = mpsc::channel(AHEAD);
        let native = store.options.native.then(|| Metadata::from(version));
        let (on_disk, cancel) = (store.options.snapshot_on_disk, request.cancel.clone());
        let work = move || match replica::begin(&peer, on_disk, after, until, &stop) {
            Err(error) => drop(tell.send(Err(error))),
            Ok((mark, link)) => {
                // Nobody waits for anything where the session was dropped.
                let shown = mark.to_string();
                if tell.send(Ok(mark)).is_ok()
                    && let Err(error) = match &native {
                        Some(metadata) => whole(link, metadata.clone(), shown, &send),
                        None => reading.run(link, &send, &cancel),
                    }
                {
                    let _ = send.blocking_send(Err(error.on(&peer.addr)));
                }
            }
        };
        let thread = thread::Builder::new().name("redis-snapshot".to_owned()).spawn(work);
        thread.map_err(|e| Error::io("could not start a thread", e))?;
        let name = match primary.slots {
            Some(_) => format!("n{number:03}"),
            None => "snapshot".to_owned(),
        };
        partitions.push((Partition::new(name), receive));
        begun.push(told);
    }
    let mut marks: Vec<String> = Vec::new();
    for told in begun {
        let mark: Result<Mark> =
            told.await.map_err(|_| Error::adapter("the thread of a snapshot is gone"))?;
        marks.push(mark?.to_string());
    }
    Ok(Taken { partitions, mark: marks.join(","), ends })
}

/// How far the server's stream had come, and what its clock showed, before it was asked.
async fn before(client: &Client, primary: &Primary) -> Result<(u64, i64, [(String, Value); 1])> {
    let node = client.at(primary.address.as_ref(), 0).await?;
    let offset = node.info("replication").await?.number("master_repl_offset");
    let mut time = reply::list(node.one(&redis::cmd("TIME")).await?)?.into_iter();
    let mut part = || reply::integer(&time.next().ok_or_else(|| reply::odd("TIME"))?);
    let (seconds, micros) = (part()?, part()?);
    let now_ms = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    let server = node.info("server").await?;
    let version = server.get("redis_version").unwrap_or_default();
    Ok((offset.unwrap_or(0), now_ms, [("server_version".to_owned(), version.into())]))
}

/// One server's snapshot as it comes.
fn whole(
    link: Link,
    mut metadata: Metadata,
    mark: String,
    send: &mpsc::Sender<Result<Part>>,
) -> Result<()> {
    metadata.insert("mark".to_owned(), mark.into());
    let body = link.body()?;
    let len = body.len();
    native::dump(body, len, metadata, send);
    Ok(())
}

/// One server's snapshot into records.
struct Reading {
    options: Arc<RedisOptions>,
    asked: Vec<String>,
    /// Keys that had expired by then are in a snapshot until the server comes by them.
    now_ms: i64,
    /// Whether what comes belongs to a key that is left out.
    skips: bool,
    /// The head of a hash whose fields may all have expired.
    hash: Option<Item>,
}

impl Reading {
    fn run(mut self, link: Link, send: &mpsc::Sender<Result<Part>>, cancel: &Cancel) -> Result<()> {
        let naming = self.options.naming();
        let databases = naming.databases().to_vec();
        let mut records = Records::new(naming, self.options.look_inside, &self.asked);
        if self.options.names_rest() {
            for db in &databases {
                records.announce(*db)?;
            }
        }
        let take = |part: Part| {
            cancel.check()?;
            let sent = send.blocking_send(Ok(part)).is_ok();
            sent.then_some(()).ok_or_else(|| Error::adapter("a session was dropped"))
        };
        let push = |records: &mut Records, item: Item| {
            if databases.contains(&item.db) { self.push(records, item) } else { Ok(()) }
        };
        rdb::read_to_end(link.body()?, records, push, take)
    }

    fn push(&mut self, records: &mut Records, item: Item) -> Result<()> {
        match &item.part {
            ItemPart::Head(head) => {
                self.hash = None;
                self.skips = is_own(&item.key)
                    || !self.options.wants_key(&item.key)
                    || !self.options.wants_type(head.body.type_name())
                    || head.expires_at.is_some_and(|at| at <= self.now_ms);
                if !self.skips && matches!(head.body, Body::Hash) {
                    self.hash = Some(item);
                    return Ok(());
                }
            }
            ItemPart::Element(Element::Field { expires_at: Some(at), .. })
                if *at <= self.now_ms =>
            {
                return Ok(());
            }
            ItemPart::Element(_) => {
                if let Some(head) = self.hash.take() {
                    records.push(&head)?;
                }
            }
        }
        if self.skips { Ok(()) } else { records.push(&item) }
    }
}
