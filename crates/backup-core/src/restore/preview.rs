//! What a merge would do, counted without doing it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::{
    merge::MergedCollection,
    plan::{RestorePlan, Work},
    run::Seat,
    stage::{self, Lane},
};
use crate::{
    error::{Error, Result},
    event::Watch,
    journal::{Header, Journal},
    references::Collector,
    sink::SinkSession,
    worker::guarded,
};

/// By store, by collection.
pub type Preview = BTreeMap<String, BTreeMap<String, MergedCollection>>;

impl RestorePlan {
    /// Reads through the archive and the live stores, and counts what adding the records would
    /// do to each collection. Stores that are replaced are not in it.
    ///
    /// Live content is not touched. Each store makes a staging area, which is removed again; a
    /// journal stands there meanwhile, so that [`resume`](crate::Stores::resume) removes them
    /// if this process dies.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute) up to the end of its staging: a conflict where the
    /// rule is to fail, too.
    pub async fn preview(&self) -> Result<Preview> {
        let Work { origin, seats, clock, cancel, .. } = &self.work;
        let merging = |seat: &&Seat| seat.way.as_ref().is_some_and(|way| way.merges);
        let seats: Vec<_> = seats.iter().filter(merging).collect();
        if seats.is_empty() {
            return Ok(Preview::new());
        }
        let header = Header {
            journal: 1,
            restore_id: self.restore_id.clone(),
            archive: self.archive.id,
            started: clock.now(),
            stores: seats.iter().map(|seat| seat.member.clone()).collect(),
            safety: None,
        };
        let mut journal = Journal::create(&self.journal_dir, &header)?;
        let mut sessions = Vec::new();
        let counted = async {
            for seat in &seats {
                let begun = seat.sink.begin(&seat.member.token, cancel);
                sessions.push(guarded(&seat.member.name, begun).await?);
            }
            let references = Arc::default();
            let lanes = seats.iter().zip(&sessions).map(|(s, o)| lane(s, &**o, &references));
            let lanes: Vec<_> = lanes.collect();
            let names: Vec<_> = seats.iter().map(|seat| seat.from.clone()).collect();
            let parts = (origin.open)(&names, cancel)?;
            stage::stage(&lanes, parts, 0, &Watch::default(), cancel).await
        };
        let counted = counted.await;
        for (seat, session) in seats.iter().zip(&sessions) {
            guarded(&seat.member.name, session.abort()).await.map_err(left_behind)?;
        }
        if counted.is_err() && sessions.len() < seats.len() {
            // One that failed to begin may have begun all the same: resume finds out.
            return counted.map(|_| Preview::new());
        }
        journal.remove()?;
        let names = seats.iter().map(|seat| seat.member.name.clone());
        Ok(names.zip(counted?.into_iter().map(|tallies| tallies.merged)).collect())
    }
}

fn lane<'a>(
    seat: &'a Seat,
    session: &'a dyn SinkSession,
    references: &'a Arc<Mutex<Collector>>,
) -> Lane<'a> {
    let (name, from, way) = (&seat.member.name, &seat.from, seat.way.as_ref());
    let sink = &*seat.sink;
    Lane { name, from, sink, session, way, only_looks: true, references, undo: None }
}

fn left_behind(error: Error) -> Error {
    error.advise("live content was not touched; call resume to remove the staging area")
}
