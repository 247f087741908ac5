//! What a server sends a replica that begins anew: a snapshot of one moment.
//!
//! A server that is asked for everything (`PSYNC ? -1`) forks, says at which offset of its
//! replication stream it did (`+FULLRESYNC id offset`), and sends an RDB: from a file of its own
//! behind the length, or straight from the fork up to a mark that it made up. It may also give
//! the snapshot that it is making for another replica, which is of an earlier moment: the offset
//! tells. Nothing is asked for behind the snapshot, so that the server keeps no changes for us.
//!
//! Blocks: meant for a thread of its own.

mod body;
mod link;
mod socket;

pub(crate) use link::{Link, Mark, begin};
pub(crate) use socket::Stop;
