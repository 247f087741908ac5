//! The whole, from the outside.

mod documents;
mod format;
mod links;
mod readers;
mod schema;
mod second_reader;
mod tools;
