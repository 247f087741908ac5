//! Records that exist on both sides.

use super::way::Way;
use crate::{
    conflict::{ConflictCounts, Resolved},
    error::Result,
    event::{Event, Watch},
    record::RecordBatch,
    sink::SinkSession,
    worker::guarded,
};

/// What is left of a batch of `collection`, by the archive's name, once the live records of its
/// keys were looked at.
pub(super) async fn resolve(
    store: &str,
    session: &dyn SinkSession,
    way: &Way,
    collection: &str,
    batch: RecordBatch,
    watch: &Watch,
) -> Result<(Vec<RecordBatch>, ConflictCounts)> {
    let live = batch.collection().to_owned();
    let mut resolution = way.resolver(collection)?.start(batch);
    while !resolution.asks().is_empty() {
        let existing = guarded(store, session.existing(&live, resolution.asks())).await?;
        resolution.answer(existing).map_err(|e| e.on(&live).on(store))?;
    }
    let Resolved { batches, counts, skipped, .. } =
        resolution.finish().map_err(|e| e.on(&live).on(store))?;
    for one in skipped {
        watch.tell(Event::Skipped {
            store: store.to_owned(),
            collection: live.clone(),
            key: one.key.to_string(),
            reason: one.reason,
        });
    }
    Ok((batches, counts))
}
