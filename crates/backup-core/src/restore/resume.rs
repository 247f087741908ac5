//! What becomes of a restore whose process died.

use std::{collections::BTreeMap, path::Path};

use super::{
    references::References,
    report::RestoreReport,
    run::{Place, Run, Seat},
    safety,
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    event::Event,
    journal::{Journal, RestoreStep},
    stores::Stores,
};

/// Brings an interrupted restore to one of its two ends.
pub(crate) async fn resume(stores: &Stores, dir: &Path) -> Result<Option<RestoreReport>> {
    stores.chosen(None)?;
    let Some((journal, header)) = Journal::open(dir)? else { return Ok(None) };
    if let Some(dir) = &header.safety {
        safety::sweep(dir);
    }
    let mut seats = Vec::new();
    for member in header.stores {
        let entry = stores.entry(&member.name).ok_or_else(|| stores.unknown(&member.name))?;
        let sink = entry.sink.clone().filter(|sink| sink.kind() == member.token.kind);
        let sink = sink.ok_or_else(|| {
            let what =
                format!("the unfinished restore needs a store of kind {}", member.token.kind);
            Error::new(ErrorKind::Incompatible, what).on(&member.name)
        })?;
        seats.push(Seat::new(member, sink));
    }
    let mut run = Run {
        restore_id: header.restore_id,
        archive: header.archive,
        seats,
        journal,
        pauser: stores.pauser.clone(),
        lease: None,
        hooks: stores.hooks.clone(),
        // Perhaps: who died may have done so.
        stopped: true,
        safety_backup: None,
        undo: None,
        lost: None,
        cancel: Cancel::new(),
        references: References::default(),
        checked: Vec::new(),
        warnings: Vec::new(),
    };
    run.watch().tell(Event::RestoreStarted {
        restore_id: run.restore_id.clone(),
        stores: run.seats.iter().map(|seat| seat.member.name.clone()).collect(),
    });
    locate(&mut run.seats).await?;
    let switching =
        matches!(run.journal.last(), Some(RestoreStep::Committing { .. } | RestoreStep::Committed));
    let whole = run.seats.iter().all(|s| matches!(s.place, Place::Staged(_) | Place::Committed(_)));
    if run.journal.last() == Some(&RestoreStep::Finishing) {
        return forward_only(run).await.map(Some);
    }
    let mut cause = None;
    if switching {
        run.hooks.stop().await?;
        run.lease = run.pauser.take().await?;
        if whole {
            match run.forward_again().await {
                Ok(report) => return Ok(Some(report)),
                Err(error) => cause = Some(error),
            }
        }
    } else if run.journal.last() == Some(&RestoreStep::Undoing) {
        run.hooks.stop().await?;
        run.lease = run.pauser.take().await?;
    }
    let left = match (run.take_back().await, cause) {
        (Ok(left), _) => left,
        (Err(repair), Some(cause)) => return Err(repair.because(cause)),
        (Err(repair), None) => return Err(repair),
    };
    match left.into_iter().next() {
        Some(error) => Err(error.advise(
            "live content is as before the restore; call resume again to remove what it left",
        )),
        None => Ok(Some(run.report(false, BTreeMap::new()))),
    }
}

// Asks every store how far it is, before anything is touched.
async fn locate(seats: &mut [Seat]) -> Result<()> {
    let mut unknown = Vec::new();
    for seat in seats {
        match seat.locate().await {
            Err(error) if error.kind() == ErrorKind::RepairNeeded => unknown.push(error),
            other => other?,
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = unknown.iter().map(ToString::to_string).collect();
    Err(Error::new(ErrorKind::RepairNeeded, all.join("; ")))
}

// Every store was proved: what is left is to drop earlier content.
async fn forward_only(mut run: Run) -> Result<RestoreReport> {
    let odd = run.seats.iter().find(|s| !matches!(s.place, Place::Committed(_) | Place::Absent));
    if let Some(seat) = odd {
        let what = "the restore had succeeded, and the store is not switched any more";
        return Err(Error::new(ErrorKind::RepairNeeded, what).on(&seat.member.name));
    }
    let found = run.seats.iter().map(|s| (s.member.name.clone(), s.member.expected.clone()));
    let found = found.collect();
    let report = run.finish(found).await;
    if run.seats.iter().all(|seat| matches!(seat.place, Place::Absent)) {
        return Ok(report);
    }
    let text = report.warnings.first().cloned().unwrap_or_default();
    Err(Error::new(ErrorKind::Unfinished, text).advise("call resume again"))
}
