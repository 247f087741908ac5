//! The adapter against real engines.

#[cfg(feature = "qdrant")]
mod server;
