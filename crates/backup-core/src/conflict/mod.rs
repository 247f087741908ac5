//! What becomes of records that exist on both sides.

mod entries;
mod identity;
mod merge;
mod output;
mod resolution;
mod resolver;
#[cfg(test)]
mod tests;

pub(crate) use entries::{MAX_NAMES, Verdict};
pub use resolution::{ConflictCounts, Copied, Resolution, Resolved, SkipReason, Skipped};
pub use resolver::{Conflict, Resolver};
