//! The adapter against real SQLite files.

mod fixture;
mod kit;
mod logical;
mod native;
