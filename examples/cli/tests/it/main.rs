//! The tool as a script uses it: real stores, every command, every exit code.

mod codes;
mod commands;
mod diff;
mod faults;
mod json;
mod places;
mod signals;
mod versions;
mod world;
