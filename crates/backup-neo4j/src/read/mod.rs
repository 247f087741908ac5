//! Rows of the server as batches of records.

mod batches;
mod ends;
mod known;
mod nodes;
mod relationships;

use backup_core::{Error, ErrorKind, Filter, Result, record::RecordBatch};

use crate::{marks::is_marked, names::Kind, value::Value};

pub(crate) use ends::Ends;
pub(crate) use known::{Known, Numbers};
pub(crate) use nodes::Nodes;
pub(crate) use relationships::Relationships;

/// What a reader gives.
pub(crate) enum Read {
    /// A collection begins.
    Begin(Kind),
    Batch(RecordBatch),
}

/// Leaves out what a restore has set.
pub(crate) fn unmark(properties: &mut Value) {
    if let Value::Map(members) = properties {
        members.retain(|(name, _)| !is_marked(name));
    }
}

/// Of a relationship of the application one end is not live: a switch is under way.
fn unfinished() -> Error {
    Error::new(ErrorKind::Unfinished, "a restore of this graph has not ended")
        .advise("resume the restore, then try again")
}

/// The records that a filter takes, and the numbers of their nodes.
pub(crate) fn filtered(
    filter: &Filter,
    batch: RecordBatch,
    numbers: Vec<i64>,
    kept: &mut Numbers,
) -> Result<RecordBatch> {
    let taken = filter.batch(&batch)?;
    if taken.len() == batch.len() {
        numbers.into_iter().for_each(|number| kept.insert(number));
        return Ok(taken);
    }
    // What is left stands in the same order.
    let mut left = taken.iter().peekable();
    for (record, number) in batch.iter().zip(numbers) {
        if left.next_if(|next| next.key_json() == record.key_json()).is_some() {
            kept.insert(number);
        }
    }
    drop(left);
    Ok(taken)
}
