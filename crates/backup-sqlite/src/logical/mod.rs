//! The logical form: a schema document and records for every table.

mod apply;
mod document;
mod forms;
mod lookup;
mod make;
mod module;
mod read;
mod session;
mod tables;
mod value;
mod write;

pub(crate) use apply::Staged;
pub(crate) use lookup::existing;
pub(crate) use read::{describe, tally};
pub(crate) use session::session;
pub(crate) use write::Writer;
