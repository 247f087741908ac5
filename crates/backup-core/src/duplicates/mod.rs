//! Records of one collection that say the same under different keys.

mod exact;
mod finder;
mod fuzzy;
mod options;
mod semantic;
#[cfg(test)]
mod tests;

pub use finder::{Duplicate, DuplicateGroup, DuplicateKind, DuplicateReport, Finder};
pub use options::{DuplicateOptions, SemanticOptions};
