//! The adapter against a real server.

mod archive;
mod conform;
mod crash;
mod dump;
mod faults;
mod kit;
mod merge;
mod proxy;
mod restore;
mod selection;
mod types;
