//! The adapter against real servers.

mod cluster;
mod conform;
mod crash;
mod extra;
mod faults;
mod meanwhile;
mod merge;
mod native;
mod proxy;
mod rich;
mod server;
mod snapshot;
mod writer;
