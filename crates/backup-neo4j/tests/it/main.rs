//! The adapter against a real server.

mod faults;
mod kit;
mod selection;
mod types;
