//! The adapter against a real server.

mod dump;
mod faults;
mod kit;
mod selection;
mod types;
