//! The adapter against real SQLite files.

mod busy;
mod child;
mod conform;
mod crash;
mod faults;
mod fixture;
mod kit;
mod locks;
mod logical;
#[cfg(target_os = "linux")]
mod memory;
mod merge;
mod native;
mod writers;
