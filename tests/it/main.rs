//! The whole, from the outside.

mod format;
mod links;
mod readers;
mod schema;
mod tools;
