//! A restore under way: staging areas, journal, and the two ways to its end.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use futures::future::try_join_all;
use serde_json::json;

use super::{
    compare::compare,
    merge::MergedCollection,
    references::References,
    report::{RestoreReport, RestoredReference, RestoredStore},
    safety::Safety,
    stage::{self, Lane, Parts},
    vectors::RestoredVector,
    way::Way,
};
use crate::{
    archive::SalvageReport,
    backup::side::SideArchive,
    cancel::Cancel,
    clock::ArchiveId,
    error::{Error, ErrorKind, Result},
    event::{Event, Watch},
    hooks::Hooks,
    journal::{Journal, Member, RestoreStep},
    part::Content,
    quiesce::{Lease, Pauser},
    references::Collector,
    sink::{Reattached, Sink, SinkSession},
    worker::guarded,
};

/// One restore, from its first journal line to its last.
pub(super) struct Run {
    pub(super) restore_id: String,
    pub(super) archive: ArchiveId,
    pub(super) seats: Vec<Seat>,
    pub(super) journal: Journal,
    pub(super) pauser: Pauser,
    pub(super) lease: Option<Lease>,
    pub(super) hooks: Hooks,
    /// The application was stopped, here or perhaps by a run before this one.
    pub(super) stopped: bool,
    pub(super) safety_backup: Option<PathBuf>,
    /// What records were, of which others are live now.
    pub(super) undo: Option<PathBuf>,
    pub(super) cancel: Cancel,
    pub(super) lost: Option<SalvageReport>,
    pub(super) references: References,
    pub(super) checked: Vec<RestoredReference>,
    pub(super) warnings: Vec<String>,
}

/// A store's place in a restore; seats stand in the order in which stores switch.
pub(super) struct Seat {
    pub(super) member: Member,
    pub(super) sink: Arc<dyn Sink>,
    /// The store's name in the archive.
    pub(super) from: String,
    /// `None`: parts are written as they come out of the archive.
    pub(super) way: Option<Arc<Way>>,
    pub(super) merged: BTreeMap<String, MergedCollection>,
    pub(super) repeated: BTreeMap<String, u64>,
    pub(super) vectors: BTreeMap<String, BTreeMap<String, RestoredVector>>,
    pub(super) place: Place,
}

/// How far a store is.
pub(super) enum Place {
    Absent,
    Staged(Box<dyn SinkSession>),
    Committed(Box<dyn SinkSession>),
    Undone(Box<dyn SinkSession>),
    /// A verb failed: only the store can tell.
    Unsure,
}

/// What could not be tidied up although live content is right.
pub(super) type Leftovers = Vec<Error>;

impl Seat {
    pub(super) fn new(member: Member, sink: Arc<dyn Sink>) -> Self {
        let from = member.name.clone();
        Self {
            member,
            sink,
            from,
            way: None,
            merged: BTreeMap::new(),
            repeated: BTreeMap::new(),
            vectors: BTreeMap::new(),
            place: Place::Absent,
        }
    }

    fn name(&self) -> &str {
        &self.member.name
    }

    /// Asks the store how far it is.
    pub(super) async fn locate(&mut self) -> Result<()> {
        // The old session goes first: it may hold what the new one opens.
        self.place = Place::Unsure;
        let found = guarded(&self.member.name, self.sink.reattach(&self.member.token)).await?;
        self.place = match found {
            Reattached::Absent => Place::Absent,
            Reattached::Staged(session) => Place::Staged(session),
            Reattached::Committed(session) => Place::Committed(session),
            Reattached::Undone(session) => Place::Undone(session),
            Reattached::Unknown { reason } => {
                let what = format!("live content is neither the old nor the new: {reason}");
                return Err(Error::new(ErrorKind::RepairNeeded, what).on(self.name()));
            }
        };
        Ok(())
    }

    fn lane<'a>(
        &'a self,
        references: &'a Arc<Mutex<Collector>>,
        undo: Option<&'a SideArchive>,
    ) -> Option<Lane<'a>> {
        let session = self.staged()?;
        let (name, from, way, sink) = (self.name(), &self.from, self.way.as_ref(), &*self.sink);
        Some(Lane { name, from, sink, session, way, only_looks: false, references, undo })
    }

    /// The session, while the store is staged.
    pub(super) fn staged(&self) -> Option<&dyn SinkSession> {
        match &self.place {
            Place::Staged(session) => Some(&**session),
            _ => None,
        }
    }

    /// Reads back what is staged, or live after the switch, and compares.
    async fn check(&self) -> Result<Content> {
        let (Place::Staged(session) | Place::Committed(session)) = &self.place else {
            return Err(Error::adapter("a store lost what it was given").on(self.name()));
        };
        let expected = &self.member.expected;
        let found = guarded(self.name(), session.verify(expected)).await?;
        compare(self.name(), expected, &found)?;
        Ok(found)
    }

    /// Live content is the old one afterwards.
    async fn undo(&mut self) -> Result<()> {
        if matches!(self.place, Place::Unsure) {
            self.locate().await?;
        }
        if let Place::Committed(_) = &self.place
            && let Place::Committed(session) = std::mem::replace(&mut self.place, Place::Unsure)
        {
            match guarded(&self.member.name, session.undo()).await {
                Ok(()) => self.place = Place::Undone(session),
                Err(error) => {
                    // It may have been done all the same.
                    drop(session);
                    self.locate().await?;
                    if !matches!(self.place, Place::Undone(_)) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Run {
    pub(super) fn watch(&self) -> &Watch {
        &self.pauser.watch
    }

    pub(super) fn record(&mut self, step: RestoreStep) -> Result<()> {
        self.journal.record(step.clone())?;
        self.watch().tell(Event::Step { restore_id: self.restore_id.clone(), step });
        Ok(())
    }

    async fn keep_pause(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.keep().await;
        }
    }

    /// The way from nothing to the end. An error means that everything has to be taken back.
    pub(super) async fn forward(
        &mut self,
        safety: Option<Safety>,
        parts: Result<Parts>,
        total: u64,
    ) -> Result<RestoreReport> {
        let mut undo = None;
        if let Some(safety) = safety {
            let what = format!("before restore {} of backup {}", self.restore_id, self.archive);
            let kept = safety.take(&what, &self.cancel).await?;
            self.safety_backup = kept.path;
            self.warnings.extend(kept.warning);
            undo = kept.undo;
        }
        self.stage(parts?, total, undo.as_ref()).await?;
        if let Some(undo) = undo {
            let restore = json!({"id": self.restore_id, "archive": self.archive});
            self.undo = undo.finish([("before_restore".into(), restore)].into()).await?;
        }
        self.switch().await
    }

    /// For a restore that was interrupted after the first switch: what waits in staging areas
    /// is proved again, since nobody watched it meanwhile.
    pub(super) async fn forward_again(&mut self) -> Result<RestoreReport> {
        self.check_all().await?;
        self.switch().await
    }

    /// Brings everything into the staging areas and proves it there.
    async fn stage(&mut self, parts: Parts, total: u64, undo: Option<&SideArchive>) -> Result<()> {
        for seat in &mut self.seats {
            self.cancel.check()?;
            seat.place = Place::Unsure;
            let begun = seat.sink.begin(&seat.member.token, &self.cancel);
            seat.place = Place::Staged(guarded(&seat.member.name, begun).await?);
        }
        let collector = &self.references.collector;
        let lanes: Vec<_> =
            self.seats.iter().filter_map(|seat| seat.lane(collector, undo)).collect();
        let tallies = stage::stage(&lanes, parts, total, self.watch(), &self.cancel).await?;
        let mut computed = BTreeMap::new();
        for (seat, tallies) in self.seats.iter_mut().zip(tallies) {
            // What the archive gave against what it says of itself.
            let name = &seat.member.name;
            match &seat.way {
                None => compare(name, &seat.member.expected, &tallies.came)?,
                Some(way) => {
                    compare(name, &way.from_archive, &tallies.came)?;
                    computed.insert(name.clone(), tallies.written.clone());
                    seat.member.expected = tallies.written;
                    seat.merged = tallies.merged;
                    seat.repeated = tallies.repeated.counts;
                    seat.vectors = tallies.vectors;
                }
            }
        }
        if !computed.is_empty() {
            self.journal.expect(computed)?;
        }
        self.record(RestoreStep::Staged)?;
        self.checked = self.references.check(&self.seats).await?;
        self.warnings.extend(self.references.warnings(&self.checked)?);
        self.check_all().await?;
        self.record(RestoreStep::Verified)
    }

    async fn check_all(&self) -> Result<Vec<Content>> {
        self.cancel.check()?;
        try_join_all(self.seats.iter().map(Seat::check)).await
    }

    /// Switches every store that is still staged, proves all that is live, and drops what
    /// was there before.
    async fn switch(&mut self) -> Result<RestoreReport> {
        self.cancel.check()?;
        self.stopped = true;
        self.hooks.stop().await?;
        if self.lease.is_none() {
            self.lease = self.pauser.take().await?;
        }
        for i in 0..self.seats.len() {
            let Place::Staged(_) = &self.seats[i].place else { continue };
            self.keep_pause().await;
            let store = self.seats[i].member.name.clone();
            self.record(RestoreStep::Committing { store })?;
            let seat = &mut self.seats[i];
            if let Place::Staged(session) = std::mem::replace(&mut seat.place, Place::Unsure) {
                guarded(&seat.member.name, session.commit()).await?;
                seat.place = Place::Committed(session);
            }
        }
        self.record(RestoreStep::Committed)?;
        self.keep_pause().await;
        let found = self.check_all().await?;
        self.hooks.check().await?;
        self.keep_pause().await;
        self.record(RestoreStep::Finishing)?;
        let found = self.seats.iter().map(|s| s.member.name.clone()).zip(found).collect();
        Ok(self.finish(found).await)
    }

    /// Live content is right: drops what was there before, and the journal.
    pub(super) async fn finish(&mut self, found: BTreeMap<String, Content>) -> RestoreReport {
        let mut left = Leftovers::new();
        for seat in &mut self.seats {
            if let Place::Committed(session) = &seat.place {
                match guarded(&seat.member.name, session.finish()).await {
                    Ok(()) => seat.place = Place::Absent,
                    Err(error) => left.push(error),
                }
            }
            if let Some(lease) = &mut self.lease {
                lease.keep().await;
            }
        }
        self.end(&mut left).await;
        for error in left {
            self.warnings.push(format!(
                "the restore is complete, but something is left behind until resume is called: {error}"
            ));
        }
        self.report(true, found)
    }

    /// Brings live content back to what it was and removes every staging area.
    ///
    /// # Errors
    /// A store that cannot be brought back now; the journal stays for `resume`.
    pub(super) async fn take_back(&mut self) -> Result<Leftovers> {
        let switched = matches!(
            self.journal.last(),
            Some(RestoreStep::Committing { .. } | RestoreStep::Committed | RestoreStep::Undoing)
        );
        if switched {
            // Without this line a later resume would finish what is being undone. Where it
            // cannot be written the undo goes on: the stores themselves tell how far it came.
            let _ = self.record(RestoreStep::Undoing);
        }
        let mut troubles = Vec::new();
        for seat in self.seats.iter_mut().rev() {
            if let Err(error) = seat.undo().await {
                troubles.push(error);
            }
            if let Some(lease) = &mut self.lease {
                lease.keep().await;
            }
        }
        if switched && !troubles.is_empty() {
            self.release().await;
            return Err(repair(&troubles, &self.journal));
        }
        // Only now: until every store is back, each keeps both contents.
        for seat in &mut self.seats {
            let tidied = match &seat.place {
                Place::Undone(session) => guarded(&seat.member.name, session.finish()).await,
                Place::Staged(session) => guarded(&seat.member.name, session.abort()).await,
                _ => continue,
            };
            match tidied {
                Ok(()) => seat.place = Place::Absent,
                Err(error) => troubles.push(error),
            }
        }
        self.end(&mut troubles).await;
        Ok(troubles)
    }

    async fn end(&mut self, left: &mut Leftovers) {
        if left.is_empty()
            && let Err(error) = self.journal.remove()
        {
            left.push(error);
        }
        self.release().await;
        if std::mem::take(&mut self.stopped)
            && let Err(error) = self.hooks.start().await
        {
            self.warnings.push(format!("the application was not started again: {error}"));
        }
    }

    async fn release(&mut self) {
        if let Some(lease) = self.lease.take()
            && !lease.release().await
        {
            self.warnings.push(
                "the application's pause ran out before the restore ended: what it wrote meanwhile may be lost".into(),
            );
        }
    }

    pub(super) fn report(
        &mut self,
        restored: bool,
        mut found: BTreeMap<String, Content>,
    ) -> RestoreReport {
        let restore_id = self.restore_id.clone();
        self.watch().tell(Event::RestoreFinished { restore_id: restore_id.clone(), restored });
        let stores = self.seats.iter().map(|seat| RestoredStore {
            name: seat.member.name.clone(),
            switch: seat.member.switch,
            content: found.remove(seat.name()),
            merged: seat.merged.clone(),
            repeated: seat.repeated.clone(),
            vectors: seat.vectors.clone(),
        });
        RestoreReport {
            restore_id,
            archive: self.archive,
            restored,
            stores: stores.collect(),
            references: std::mem::take(&mut self.checked),
            safety_backup: self.safety_backup.take(),
            undo: self.undo.take(),
            lost: self.lost.take(),
            warnings: std::mem::take(&mut self.warnings),
        }
    }
}

fn repair(troubles: &[Error], journal: &Journal) -> Error {
    let all: Vec<_> = troubles.iter().map(ToString::to_string).collect();
    let what = format!("the restore could not be taken back everywhere: {}", all.join("; "));
    Error::new(ErrorKind::RepairNeeded, what).on(journal.path().display()).advise(
        "both contents are kept: bring the stores named here back, then call resume with the \
         journal's folder",
    )
}
