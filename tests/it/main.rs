//! The whole, from the outside.

mod format;
mod readers;
mod schema;
mod tools;
