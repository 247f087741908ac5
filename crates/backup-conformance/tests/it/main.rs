//! The kit against the store in memory, whole and broken.

mod broken;
mod memory;
