//! The tool as a script uses it: real stores, every command, every exit code.

mod codes;
mod commands;
mod diff;
mod faults;
#[cfg(all(feature = "qdrant", feature = "redis", feature = "neo4j"))]
mod four;
mod hooks;
mod json;
mod places;
mod servers;
mod signals;
mod undo;
mod versions;
mod world;
