//! Folder trees for backup-kit.
#![cfg(unix)]

mod adapter;
mod config;
mod exclude;
mod guard;
mod mounts;
mod place;
mod prepare;
mod read;
mod reader;
mod remove;
mod sink;
mod source;
mod stage;
mod switch;
mod sys;
mod tally;
mod trail;
mod walk;

pub use config::{FilesBuilder, FilesStore};
