//! The embedded engine.

mod conform;
mod crash;
mod faults;
mod kit;
mod merge;
mod round_trip;
mod snapshot;
mod vectors;
