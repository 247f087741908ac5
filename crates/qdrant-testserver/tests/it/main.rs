//! The server against what a real one answered, and what the tests of others rely on.

mod faults;
mod keys;
mod points;
mod snapshots;
mod storage;
mod support;
mod transcript;
