//! Whether what is staged still points to something.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::{report::RestoredReference, run::Seat};
use crate::{
    error::{Error, ErrorKind, Result},
    manifest::{Manifest, ReferenceCount, ReferenceEnd},
    record::Key,
    references::{Collector, Fingerprint, Reference},
    sink::SinkSession,
    stores::Stores,
    worker::guarded,
};

/// So many live records are asked for at a time.
const LOOKUP: usize = 256;

/// The references of a restore. The default has none.
#[derive(Default)]
pub(super) struct References {
    pub(super) collector: Arc<Mutex<Collector>>,
    archived: Vec<ReferenceCount>,
    /// Stores of the archive that are restored in their native form, and what of them is in
    /// records all the same.
    native: Vec<(String, HashSet<String>)>,
    allow: bool,
}

impl References {
    /// Those that the host declares, by the live names of what is restored.
    pub(super) fn new(stores: &Stores, manifest: &Manifest, seats: &[Seat], allow: bool) -> Self {
        let name = |end: &ReferenceEnd| {
            let seat = seats.iter().find(|seat| seat.from == end.store);
            let live = seat.and_then(|seat| seat.way.as_ref()?.live_name(&end.collection));
            let store = seat.map_or(&end.store, |seat| &seat.member.name);
            (store.clone(), live.unwrap_or_else(|| end.collection.clone()))
        };
        let collector = Collector::new(&stores.references, Reference::MAX_VALUES, name);
        let native = manifest.stores.iter().filter(|(_, store)| !store.blobs.is_empty());
        Self {
            collector: Arc::new(Mutex::new(collector)),
            archived: manifest.references.clone(),
            native: native
                .map(|(name, store)| (name.clone(), store.collections.keys().cloned().collect()))
                .collect(),
            allow,
        }
    }

    /// Counts what dangles in what is staged; what is not in it may be live in a store that is
    /// added to.
    pub(super) async fn check(&self, seats: &[Seat]) -> Result<Vec<RestoredReference>> {
        let mut collector = {
            let mut shared = self.collector.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *shared)
        };
        collector.rule_out(|end| self.unseen(end, seats));
        let mut checked = Vec::new();
        for (link, mut count) in collector.counts().into_iter().enumerate() {
            let seat = seats.iter().find(|seat| seat.from == count.to.store);
            if let Some(seat) = seat
                && let Some(session) = seat.staged()
                && count.dangling > Some(0)
                && seat.way.as_ref().is_some_and(|way| way.merges)
            {
                match live(&collector, link, &count, session).await {
                    Ok(dangling) => collector.tell(link, &mut count, dangling),
                    Err(why) => {
                        (count.dangling, count.examples) = Default::default();
                        count.unchecked = Some(why);
                    }
                }
            }
            let same = |one: &&ReferenceCount| (&one.from, &one.to) == (&count.from, &count.to);
            let in_archive = self.archived.iter().find(same).and_then(|one| one.dangling);
            checked.push(RestoredReference { count, in_archive });
        }
        Ok(checked)
    }

    // Why nothing is known of an end.
    fn unseen(&self, end: &ReferenceEnd, seats: &[Seat]) -> Option<String> {
        if !seats.iter().any(|seat| seat.from == end.store) {
            return Some("the store is not restored".into());
        }
        let native = self.native.iter().find(|(name, _)| *name == end.store);
        let inside = native.is_some_and(|(_, records)| !records.contains(&end.collection));
        inside.then(|| "the store is restored in its native form, which is not looked into".into())
    }

    /// What is to be told of it.
    ///
    /// # Errors
    /// A required reference of which more dangles than in the archive.
    pub(super) fn warnings(&self, checked: &[RestoredReference]) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for one in checked {
            let required = one.count.required;
            if one.is_worse() && required && !self.allow {
                let what = format!("after the restore a required reference would dangle: {one}");
                return Err(Error::new(ErrorKind::Mismatch, what).on(&one.count.from).advise(
                    "restore both ends, and whole; or add to stores that hold what is missing; \
                     or allow that references dangle",
                ));
            }
            if one.is_worse() || (required && one.count.dangling.is_none()) {
                warnings.push(format!("reference {one}"));
            }
        }
        Ok(warnings)
    }
}

// Which of the values that dangle name no live record either; or why that is not known.
async fn live(
    collector: &Collector,
    link: usize,
    count: &ReferenceCount,
    session: &dyn SinkSession,
) -> Result<Vec<Fingerprint>, String> {
    let missing = collector.dangling(link);
    let many = missing.len();
    if count.to.field.is_some() {
        return Err(format!(
            "{many} of {} values were not restored, and a live store can only be asked for keys",
            count.values
        ));
    }
    let text = |value| collector.text(link, value).map(|json| Key::from_canonical(&json));
    let keys: Option<Vec<_>> = missing.iter().map(text).collect();
    let keys = keys.ok_or_else(|| {
        format!(
            "{many} of {} values were not restored, too many to ask the live store for",
            count.values
        )
    })?;
    let (store, collection) = collector.target(link);
    let mut found = HashSet::new();
    for keys in keys.chunks(LOOKUP) {
        let batches = guarded(store, session.existing(collection, keys)).await;
        let batches = batches.map_err(|error| format!("the live store cannot tell: {error}"))?;
        let records = batches.iter().flat_map(|batch| batch.iter());
        found.extend(records.map(|record| Fingerprint::of(record.key_json())));
    }
    Ok(missing.into_iter().filter(|value| !found.contains(value)).collect())
}
