//! The whole, from the outside.

mod documents;
mod fixtures;
mod format;
mod fuzz;
mod links;
mod readers;
mod schema;
mod second_reader;
mod tools;
