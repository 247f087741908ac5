//! The adapter against real servers.

mod cluster;
mod conform;
mod rich;
mod server;
