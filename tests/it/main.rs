//! The whole, from the outside.

mod documents;
mod fixtures;
mod format;
mod fuzz;
mod links;
mod readers;
mod second_reader;
mod tools;
