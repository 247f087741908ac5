//! The whole, from the outside.

mod readers;
mod schema;
mod tools;
