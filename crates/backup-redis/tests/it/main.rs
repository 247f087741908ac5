//! The adapter against real servers.

mod cluster;
mod conform;
mod server;
