//! Records that exist on both sides.

use serde::Serialize;

use super::{stage::Lane, way::Way};
use crate::{
    conflict::{ConflictCounts, Copied, Resolved, SkipReason, Skipped},
    error::Result,
    event::{Event, Watch},
    record::RecordBatch,
    worker::guarded,
};

/// Of each kind so many examples are kept.
const EXAMPLES: usize = 5;

/// What adding records to a collection does, or did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MergedCollection {
    /// How many records went which way.
    #[serde(flatten)]
    pub counts: ConflictCounts,
    /// A few that are not simply written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<MergeExample>,
}

/// A record that a merge does not simply write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MergeExample {
    /// It gives way to the live one.
    Skipped {
        /// Its key, as canonical JSON.
        key: String,
        /// Why.
        reason: SkipReason,
    },
    /// It is written under another key.
    Copied {
        /// Its key in the archive, as canonical JSON.
        key: String,
        /// Its key in the live store.
        new_key: String,
    },
}

impl MergedCollection {
    pub(super) fn add(&mut self, other: Self) {
        self.counts.add(&other.counts);
        for example in other.examples {
            let kind = std::mem::discriminant(&example);
            let alike = self.examples.iter().filter(|e| std::mem::discriminant(*e) == kind);
            if alike.count() < EXAMPLES {
                self.examples.push(example);
            }
        }
    }
}

/// What is left of a batch of `collection`, by the archive's name, once the live records of its
/// keys were looked at.
pub(super) async fn resolve(
    lane: Lane<'_>,
    way: &Way,
    collection: &str,
    batch: RecordBatch,
    watch: &Watch,
) -> Result<(Vec<RecordBatch>, MergedCollection)> {
    let Lane { name: store, session, undo, .. } = lane;
    let live = batch.collection().to_owned();
    let mut before = Vec::new();
    let mut resolution = way.resolver(collection)?.start(batch);
    while !resolution.asks().is_empty() {
        let existing = guarded(store, session.existing(&live, resolution.asks())).await?;
        if undo.is_some() {
            before.extend(existing.iter().cloned());
        }
        resolution.answer(existing).map_err(|e| e.on(&live).on(store))?;
    }
    let Resolved { batches, counts, skipped, copied } =
        resolution.finish().map_err(|e| e.on(&live).on(store))?;
    if let Some(undo) = undo {
        let written = batches.iter().flat_map(RecordBatch::iter);
        let touched = written.map(|record| record.key_json().to_owned()).collect();
        undo.keep(store, before, &touched).await?;
    }
    let of_skipped = skipped.iter().map(|Skipped { key, reason }| MergeExample::Skipped {
        key: key.to_string(),
        reason: *reason,
    });
    let of_copied = copied.iter().map(|Copied { key, new_key }| MergeExample::Copied {
        key: key.to_string(),
        new_key: new_key.to_string(),
    });
    let examples = of_skipped.take(EXAMPLES).chain(of_copied.take(EXAMPLES)).collect();
    for Skipped { key, reason } in skipped {
        watch.tell(Event::Skipped {
            store: store.to_owned(),
            collection: live.clone(),
            key: key.to_string(),
            reason,
        });
    }
    Ok((batches, MergedCollection { counts, examples }))
}
