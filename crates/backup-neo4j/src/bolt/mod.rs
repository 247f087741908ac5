//! Bolt, the server's protocol, as far as a backup needs it: versions 5.1 to 5.8, and 6.0.
//!
//! Why not one of the client crates: `docs/decisions/0080-neo4j-client.md`.

mod connection;
mod message;
mod packstream;
mod stream;

pub(crate) use connection::{Connection, Target};
pub(crate) use message::columns;
pub(crate) use packstream::{Raw, Reader};
