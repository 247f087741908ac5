//! What a backup reads: keys as they are, keys while writers are held back, or snapshots.

use std::sync::Arc;

use backup_core::{
    Cancel, Error, ErrorKind, Part, Partition, PinRequest, Pinned, Result, Source, SourceSession,
    Summary, async_trait,
};
use tokio::sync::{Mutex, mpsc};

use crate::{
    Consistency, RedisStore,
    client::{Client, Primary},
    extra,
    live::{Lane, writes},
    pause::Pause,
    records::Announced,
    snapshot::{self, Ends},
};

/// Parts that a partition reads ahead.
pub(crate) const AHEAD: usize = 2;

#[async_trait]
impl Source for RedisStore {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        request.cancel.check()?;
        let (store, request) = (self.clone(), request.clone());
        self.client.run(async move { store.fix(&request).await }).await
    }
}

impl RedisStore {
    async fn fix(&self, request: &PinRequest) -> Result<Pinned> {
        let primaries: Arc<[Primary]> = self.client.primaries().await?.into();
        let mut mark = None;
        let asked = &request.collections;
        let mut extras = self.read_extras(&primaries, asked).await?;
        let mut moved = false;
        let (held, mut lanes) = match self.options.consistency {
            Consistency::Fuzzy => {
                let before = writes(&self.client, &primaries).await;
                (Held::Not { before }, self.lanes(&primaries, request))
            }
            Consistency::Paused(most) => {
                let pause = Pause::begin(&self.client, &primaries, most).await?;
                match self.read_extras(&primaries, asked).await {
                    Ok(held) => extras = held,
                    Err(error) => {
                        Pause::end(&self.client, &primaries).await?;
                        return Err(error);
                    }
                }
                (Held::Writers(pause), self.lanes(&primaries, request))
            }
            Consistency::Snapshot(most) => {
                let taken = snapshot::take(self, &primaries, request, most).await?;
                mark = Some(taken.mark);
                // What is the same before and after is that of the moment between.
                let after = self.read_extras(&primaries, asked).await?;
                moved = after != extras;
                let running = |(partition, parts)| (partition, Mutex::new(State::Running(parts)));
                let lanes = taken.partitions.into_iter().map(running);
                (Held::Snapshots(taken.ends), lanes.collect())
            }
        };
        lanes.extend(extra_lane(extra::parts(extras, moved)?));
        let live = matches!(held, Held::Not { .. });
        let (client, cancel) = (self.client.clone(), request.cancel.clone());
        let announced = Announced::default();
        let session = Box::new(Session { client, primaries, held, lanes, announced, cancel });
        Ok(if live {
            Pinned::Live { session, estimate: None }
        } else {
            Pinned::Pinned { session, mark }
        })
    }

    fn lanes(&self, primaries: &[Primary], request: &PinRequest) -> Lanes {
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
                };
                lanes.push((Partition::new(name), Mutex::new(State::Begin(Box::new(lane)))));
            }
        }
        lanes
    }
}

/// What is read already, as a partition.
fn extra_lane(parts: Vec<Part>) -> Option<(Partition, Mutex<State>)> {
    let (send, receive) = mpsc::channel(parts.len().max(1));
    let any = !parts.is_empty();
    // There is room for all of them.
    parts.into_iter().for_each(|part| drop(send.try_send(Ok(part))));
    any.then(|| (Partition::new("server"), Mutex::new(State::Running(receive))))
}

struct Session {
    client: Client,
    primaries: Arc<[Primary]>,
    held: Held,
    lanes: Lanes,
    /// By whichever partition came first.
    announced: Announced,
    cancel: Cancel,
}

/// What keeps the content at one moment.
enum Held {
    /// Nothing; how much had been written before.
    Not {
        before: Option<Vec<(u64, u64)>>,
    },
    Writers(Pause),
    Snapshots(Ends),
}

type Lanes = Vec<(Partition, Mutex<State>)>;

enum State {
    Begin(Box<Lane>),
    Running(mpsc::Receiver<Result<Part>>),
    Done,
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
        let mut part = receive.recv().await;
        while let Some(Ok(again)) = &part
            && !self.announced.is_new(again)
        {
            part = receive.recv().await;
        }
        if let Held::Writers(pause) = &self.held {
            pause.in_time("reading")?;
        }
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
        let Self { client, primaries, held, lanes, .. } = *self;
        drop(lanes);
        let mut summary = Summary::new();
        let on = client.clone();
        match held {
            Held::Not { before } => {
                let after = client.run(async move { Ok(writes(&on, &primaries).await) }).await?;
                if let (Some(before), Some(after)) = (before, after) {
                    summary.changed = Some(before != after);
                }
            }
            Held::Writers(_) => {
                client.run(async move { Pause::end(&on, &primaries).await }).await?;
            }
            Held::Snapshots(ends) => drop(ends),
        }
        Ok(summary)
    }
}
