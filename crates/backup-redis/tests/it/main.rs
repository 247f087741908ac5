//! The adapter against real servers.

#[allow(dead_code)]
mod server;
