//! The adapter against real SQLite files.

mod conform;
mod fixture;
mod kit;
mod logical;
mod native;
