//! The adapter against real engines.

#[cfg(feature = "qdrant-edge")]
mod edge;
#[cfg(feature = "qdrant")]
mod server;
