//! What every case works with.

use std::cell::{Cell, RefCell};

use backup_core::{
    Adapter, Cancel, Capabilities, Content, Error, ErrorKind, PinRequest, Pinned, Reattached,
    Result, Sink, SinkSession, Source, SourceSession, StagePlan, StageToken, WriteMode,
};

use crate::{
    dataset::Dataset,
    harness::Harness,
    reading::{Kept, Reading},
};

/// How a case ends that does not pass.
#[derive(Debug)]
pub(crate) enum Fault {
    Skip(String),
    Fail(String),
}

pub(crate) type Checked<T = ()> = std::result::Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Fail(format!("{error:?}"))
    }
}

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::kit::Fault::Fail(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;

/// Says in which step of a case an error came.
pub(crate) trait During<T> {
    fn during(self, step: &str) -> Checked<T>;
}

impl<T> During<T> for Result<T> {
    fn during(self, step: &str) -> Checked<T> {
        self.map_err(|error| Fault::Fail(format!("{step}: {error:?}")))
    }
}

pub(crate) struct Kit<'a, H: Harness> {
    pub(crate) harness: &'a H,
    pub(crate) can: Capabilities,
    notes: RefCell<Vec<String>>,
    restores: Cell<u32>,
}

/// What is live: as the source reads it and as an application sees it.
#[derive(Debug, PartialEq)]
pub(crate) struct Sight {
    pub(crate) content: Content,
    pub(crate) dump: Option<Vec<String>>,
}

impl<'a, H: Harness> Kit<'a, H> {
    pub(crate) fn new(harness: &'a H, can: Capabilities) -> Self {
        Self { harness, can, notes: RefCell::default(), restores: Cell::new(0) }
    }

    pub(crate) fn note(&self, what: impl Into<String>) {
        let (what, mut notes) = (what.into(), self.notes.borrow_mut());
        if !notes.contains(&what) {
            notes.push(what);
        }
    }

    pub(crate) fn take_notes(&self) -> Vec<String> {
        self.notes.take()
    }

    pub(crate) fn needs(&self, holds: bool, capability: &str) -> Checked {
        if holds {
            return Ok(());
        }
        Err(Fault::Skip(format!("the adapter does not declare {capability}")))
    }

    /// Whether the harness can be asked to put rows into the store.
    pub(crate) fn takes_rows(&self) -> bool {
        self.can.records || self.can.blobs
    }

    /// The name under which the store keeps a collection: where it keeps one only, its own.
    pub(crate) fn collection(&self, name: &str) -> String {
        if self.can.collections { name.to_owned() } else { self.harness.collection() }
    }

    /// The case gives collections names of its own choice.
    pub(crate) fn needs_named_collections(&self) -> Checked {
        self.needs(self.takes_rows(), "records or blobs")?;
        self.needs(self.can.collections, "collections")
    }

    pub(crate) async fn empty(&self) -> Checked<At<'a, H>> {
        let place = self.harness.place().await.during("making a place")?;
        Ok(At { harness: self.harness, place })
    }

    pub(crate) async fn filled(&self, data: &Dataset) -> Checked<At<'a, H>> {
        let at = self.empty().await?;
        self.harness.fill(&at.place, data).await.during("filling the store")?;
        Ok(at)
    }

    /// A plan for a restore of `parts`, with an id of its own.
    pub(crate) fn plan(&self, store: &H::Store, mode: WriteMode, source: &Reading) -> StagePlan {
        let number = self.restores.replace(self.restores.get() + 1);
        let mut plan = StagePlan::new(format!("conformance-{number}"), "store", store.kind());
        plan.mode = mode;
        plan.content = source.content.clone();
        plan.bytes = source.parts.iter().map(Kept::size).sum();
        plan
    }

    /// Prepares and begins a restore of `source`.
    pub(crate) async fn begin(
        &self,
        store: &H::Store,
        source: &Reading,
    ) -> Checked<(StageToken, Box<dyn SinkSession>)> {
        let plan = self.plan(store, WriteMode::Replace, source);
        let token = store.prepare(&plan).await.during("prepare")?.token;
        let session = store.begin(&token, &Cancel::new()).await.during("begin")?;
        Ok((token, session))
    }

    /// As `begin`, with every part written.
    pub(crate) async fn stage(
        &self,
        store: &H::Store,
        source: &Reading,
    ) -> Checked<(StageToken, Box<dyn SinkSession>)> {
        let (token, session) = self.begin(store, source).await?;
        write_all(&*session, &source.parts).await.during("write")?;
        Ok((token, session))
    }

    /// Restores `source` completely.
    pub(crate) async fn restore(&self, at: &At<'a, H>, source: &Reading) -> Checked {
        let store = at.open().await?;
        let (_, session) = self.stage(&store, source).await?;
        session.commit().await.during("commit")?;
        session.finish().await.during("finish")
    }
}

pub(crate) async fn write_all(session: &dyn SinkSession, parts: &[Kept]) -> Result<()> {
    for part in parts {
        session.write(part.to_part()).await?;
    }
    Ok(())
}

/// A place, and what the kit does there.
pub(crate) struct At<'a, H: Harness> {
    pub(crate) harness: &'a H,
    pub(crate) place: H::Place,
}

impl<H: Harness> At<'_, H> {
    pub(crate) async fn open(&self) -> Checked<H::Store> {
        self.harness.open(&self.place).await.during("opening the store")
    }

    /// Reads everything through a new session of a new handle. The reading may have faults.
    pub(crate) async fn read_anyway(&self) -> Checked<Reading> {
        let store = self.open().await?;
        let session = pin(&store, &PinRequest::new()).await.during("pin")?;
        let reading = Reading::of(&*session).await.during("reading")?;
        session.close().await.during("close")?;
        Ok(reading)
    }

    /// Reads everything; a breach of the contract is a failure.
    pub(crate) async fn read(&self) -> Checked<Reading> {
        let reading = self.read_anyway().await?;
        ensure!(reading.faults.is_empty(), "the source broke its contract: {:?}", reading.faults);
        Ok(reading)
    }

    pub(crate) async fn sight(&self) -> Checked<Sight> {
        self.sight_of(&self.read().await?).await
    }

    /// As `sight`, where the content was read just now.
    pub(crate) async fn sight_of(&self, reading: &Reading) -> Checked<Sight> {
        let dump = self.harness.dump(&self.place).await.during("dump")?;
        Ok(Sight { content: reading.content.clone(), dump })
    }

    pub(crate) async fn trace(&self) -> Checked<Option<Vec<String>>> {
        let mut trace = self.harness.trace(&self.place).await.during("trace")?;
        if let Some(names) = &mut trace {
            names.sort();
        }
        Ok(trace)
    }

    /// Changes live data; skips the case where the harness cannot.
    pub(crate) async fn change(&self) -> Checked {
        match self.harness.change(&self.place).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Err(Fault::Skip(error.to_string()))
            }
            other => other.during("changing the store"),
        }
    }

    /// Ends a restore that failed somewhere, as the engine does: with what `reattach` finds.
    pub(crate) async fn clean(&self, token: &StageToken) -> Checked {
        let store = self.open().await?;
        match store.reattach(token).await.during("reattach")? {
            Reattached::Absent => Ok(()),
            Reattached::Staged(session) => session.abort().await.during("abort"),
            other => Err(Fault::Fail(format!("a restore that failed was found {other:?}"))),
        }
    }

    /// Nothing of the store or around it is other than it was.
    pub(crate) async fn is_as_before(&self, before: &Before) -> Checked {
        let trace = self.trace().await?;
        ensure!(trace == before.trace, "left behind: {}", difference(&before.trace, &trace));
        let sight = self.sight().await?;
        ensure!(sight == before.sight, "live content changed from {:?} to {sight:?}", before.sight);
        Ok(())
    }

    pub(crate) async fn before(&self) -> Checked<Before> {
        let sight = self.sight().await?;
        Ok(Before { trace: self.trace().await?, sight })
    }
}

/// A place as it was.
pub(crate) struct Before {
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) sight: Sight,
}

pub(crate) fn difference(before: &Option<Vec<String>>, after: &Option<Vec<String>>) -> String {
    let (mut gone, mut new) = (before.clone().unwrap_or_default(), Vec::new());
    for name in after.iter().flatten() {
        match gone.iter().position(|known| known == name) {
            Some(place) => drop(gone.swap_remove(place)),
            None => new.push(name),
        }
    }
    format!("new {new:?}, gone {gone:?}")
}

/// The session, whether it is of one moment or live.
pub(crate) async fn pin(
    store: &impl Source,
    request: &PinRequest,
) -> Result<Box<dyn SourceSession>> {
    match store.pin(request).await? {
        Pinned::Pinned { session, .. } | Pinned::Live { session, .. } => Ok(session),
    }
}
