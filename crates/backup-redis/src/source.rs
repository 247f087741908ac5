//! Reading a server's keys: as they are, or while writers are held back.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use backup_core::{
    Cancel, Error, ErrorKind, Notice, NoticeKind, Part, Partition, PinRequest, Pinned, Result,
    Source, SourceSession, Summary, async_trait,
};
use bytes::Bytes;
use futures::lock::Mutex as AsyncMutex;
use tokio::sync::mpsc;

use crate::{
    Consistency, RedisStore,
    client::{Client, Primary},
    naming::Naming,
    options::RedisOptions,
    reader::{Found, Reader},
    records::Records,
};

/// Parts that a partition reads ahead.
const AHEAD: usize = 2;

#[async_trait]
impl Source for RedisStore {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        request.cancel.check()?;
        let client = self.client.clone();
        let primaries = self.client.run(async move { client.primaries().await }).await?;
        let primaries: Arc<[Primary]> = primaries.into();
        let mut until = None;
        if let Consistency::Paused(most) = self.options.consistency {
            // Taken before: the server's own clock starts later, and so ends later.
            until = Some((Instant::now() + most, most));
            pause(&self.client, Arc::clone(&primaries), most).await?;
        }
        let (client, all) = (self.client.clone(), Arc::clone(&primaries));
        let before = self.client.run(async move { Ok(writes(&client, &all).await) }).await?;
        let schemas = Arc::default();
        let mut lanes = Vec::new();
        for db in self.options.naming().databases() {
            for (number, primary) in primaries.iter().enumerate() {
                let name = match primary.slots {
                    Some(_) => format!("db{db}-n{number:03}"),
                    None => format!("db{db}"),
                };
                let lane = Lane {
                    client: self.client.clone(),
                    options: Arc::clone(&self.options),
                    primary: primary.clone(),
                    db: *db,
                    asked: request.collections.clone(),
                    cancel: request.cancel.clone(),
                    schemas: Arc::clone(&schemas),
                };
                let state = AsyncMutex::new(State::Begin(Box::new(lane)));
                lanes.push((Partition::new(name), state));
            }
        }
        let session = Box::new(Session {
            client: self.client.clone(),
            primaries,
            before,
            until,
            lanes,
            cancel: request.cancel.clone(),
        });
        Ok(if until.is_some() {
            Pinned::Pinned { session, mark: None }
        } else {
            Pinned::Live { session, estimate: None }
        })
    }
}

/// Holds writers back everywhere, or nowhere.
async fn pause(client: &Client, primaries: Arc<[Primary]>, most: Duration) -> Result<()> {
    let on = client.clone();
    let work = async move {
        let mut paused = Ok(());
        for primary in primaries.iter() {
            let node = on.at(primary.address.as_ref(), 0).await?;
            let mut pause = redis::cmd("CLIENT");
            pause.arg("PAUSE").arg(most.as_millis().max(1) as u64).arg("WRITE");
            let done = node.one(&pause).await.map(drop);
            paused = paused.and(done);
        }
        if paused.is_err() {
            unpause(&on, &primaries).await?;
        }
        paused
    };
    client.run(work).await
}

async fn unpause(client: &Client, primaries: &[Primary]) -> Result<()> {
    let mut outcome = Ok(());
    for primary in primaries {
        let ended = async {
            let node = client.at(primary.address.as_ref(), 0).await?;
            node.one(redis::cmd("CLIENT").arg("UNPAUSE")).await.map(drop)
        };
        let ended = ended.await;
        outcome = outcome.and(ended);
    }
    outcome.map_err(|error: Error| {
        error.advise("the server lets writers go on by itself when the time is over")
    })
}

/// What tells of each server whether it was written to; `None` where one does not say.
async fn writes(client: &Client, primaries: &[Primary]) -> Option<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    for primary in primaries {
        let node = client.at(primary.address.as_ref(), 0).await.ok()?;
        let info = node.info("persistence").await.ok()?;
        let changes = info.number("rdb_changes_since_last_save")?;
        all.push((changes, info.number("rdb_last_save_time")?));
    }
    Some(all)
}

struct Session {
    client: Client,
    primaries: Arc<[Primary]>,
    before: Option<Vec<(u64, u64)>>,
    /// When the server lets writers go on, and after how long.
    until: Option<(Instant, Duration)>,
    lanes: Vec<(Partition, AsyncMutex<State>)>,
    cancel: Cancel,
}

enum State {
    Begin(Box<Lane>),
    Running(mpsc::Receiver<Result<Part>>),
    Done,
}

impl Session {
    /// What was read after that may be of another moment.
    fn in_time(&self) -> Result<()> {
        match self.until {
            Some((until, most)) if Instant::now() >= until => {
                let what = format!(
                    "reading took longer than the {} ms for which writers are held back",
                    most.as_millis()
                );
                Err(Error::new(ErrorKind::Busy, what)
                    .advise("allow a longer pause, or take the backup of a snapshot")
                    .retryable(false))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(self.lanes.iter().map(|(partition, _)| partition.clone()).collect())
    }

    async fn next(&self, partition: &Partition) -> Result<Option<Part>> {
        self.cancel.check()?;
        let lane = self.lanes.iter().find(|(known, _)| known == partition);
        let (_, state) = lane.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such partition").on(&partition.name)
        })?;
        let mut state = state.lock().await;
        if let State::Begin(_) = &*state
            && let State::Begin(lane) = std::mem::replace(&mut *state, State::Done)
        {
            let (send, receive) = mpsc::channel(AHEAD);
            self.client.runtime().spawn(async move {
                if let Err(error) = lane.read(&send).await {
                    // Nobody waits for it where the session was dropped.
                    let _ = send.send(Err(error)).await;
                }
            });
            *state = State::Running(receive);
        }
        let State::Running(receive) = &mut *state else { return Ok(None) };
        let part = receive.recv().await;
        self.in_time()?;
        self.cancel.check()?;
        match part {
            Some(Ok(part)) => Ok(Some(part)),
            Some(Err(error)) => {
                *state = State::Done;
                Err(error)
            }
            None => {
                *state = State::Done;
                Ok(None)
            }
        }
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        let Self { client, primaries, before, until, lanes, .. } = *self;
        drop(lanes);
        let on = client.clone();
        let work = async move {
            let after = match until {
                None => writes(&on, &primaries).await,
                Some(_) => {
                    unpause(&on, &primaries).await?;
                    None
                }
            };
            Ok(after)
        };
        let after = client.run(work).await?;
        let mut summary = Summary::new();
        if let (Some(before), Some(after)) = (before, after) {
            summary.changed = Some(before != after);
        }
        Ok(summary)
    }
}

/// One database of one server.
struct Lane {
    client: Client,
    options: Arc<RedisOptions>,
    primary: Primary,
    db: u32,
    asked: Vec<String>,
    cancel: Cancel,
    /// Collections that were announced, by whichever partition came first.
    schemas: Arc<Mutex<BTreeSet<String>>>,
}

impl Lane {
    async fn read(&self, send: &mpsc::Sender<Result<Part>>) -> Result<()> {
        let naming = self.options.naming();
        let node = self.client.at(self.primary.address.as_ref(), self.db).await?;
        let mut records = Records::new(naming.clone(), self.options.look_inside, &self.asked);
        if self.options.names_rest() {
            records.announce(self.db)?;
        }
        // Keys of other collections need not be read.
        let wants = |key: &[u8]| {
            let name = || naming.collection(self.db, naming.split(key).0);
            self.asked.is_empty() || self.asked.contains(&name())
        };
        let cancel = self.cancel.clone();
        let mut reader = Reader::scan(node, self.db, Arc::clone(&self.options), cancel);
        loop {
            while let Some(part) = records.next() {
                if self.is_new(&part) && send.send(Ok(part)).await.is_err() {
                    return Ok(());
                }
            }
            match reader.next(&wants).await? {
                None => break,
                Some(Found::Item(item)) => records.push(&item)?,
                Some(Found::Torn(key)) => {
                    let notice = self.torn(&naming, &key);
                    if send.send(Ok(Part::Notice(notice))).await.is_err() {
                        return Ok(());
                    }
                }
                Some(Found::Key(_)) => {}
            }
        }
        records.finish()?;
        while let Some(part) = records.next() {
            if self.is_new(&part) && send.send(Ok(part)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Not a schema that another partition gave.
    fn is_new(&self, part: &Part) -> bool {
        let Part::Schema(schema) = part else { return true };
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        schemas.insert(schema.collection.clone())
    }

    fn torn(&self, naming: &Naming, key: &Bytes) -> Notice {
        let (prefix, _) = naming.split(key);
        Notice {
            kind: NoticeKind::Changed,
            collection: naming.collection(self.db, prefix),
            subject: String::from_utf8_lossy(key).into_owned(),
            detail: "was changed while its elements were read, and may be torn".to_owned(),
        }
    }
}
