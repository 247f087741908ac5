//! The tool as a script uses it: real stores, every command, every exit code.

mod codes;
mod commands;
mod diff;
mod faults;
mod hooks;
mod json;
mod places;
mod servers;
mod signals;
mod undo;
mod versions;
mod world;
