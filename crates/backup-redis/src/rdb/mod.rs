//! Reads the native snapshot of Redis and Valkey, the RDB file, piece by piece.
//!
//! [`Reader`] takes any [`Read`](std::io::Read), a file or what a server sends its replica, and
//! gives one [`Event`] after another: a key begins, a field, a member, the key ends. [`Items`]
//! makes of them what a live server's reader gives. No key is ever whole in memory; what is held
//! at a time is one element, or one of the packed blocks in which servers keep short values.
//!
//! The input is not trusted: lengths pass a limit and memory grows only with bytes that arrived,
//! every read is within its block, and the checksum at the end has to match.

mod event;
mod file;
mod input;
mod items;
mod json;
mod lzf;
mod pack;
mod reader;
mod stream;
mod string;
#[cfg(test)]
mod tests;
mod value;

pub use file::RdbFile;
pub(crate) use file::read_to_end;

use event::{Event, Key, Kind};
pub(crate) use input::CRC;
use items::Items;
pub(crate) use json::json_text;
use reader::Reader;
