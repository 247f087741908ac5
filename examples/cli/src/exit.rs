//! Exit codes; scripts rely on them.

use backup_kit::{Error, ErrorKind};

use crate::signals;

/// Done.
pub(crate) const DONE: u8 = 0;
/// Failed.
pub(crate) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(crate) const USAGE: u8 = 2;
/// Done, but something is missing or in doubt.
pub(crate) const PARTIAL: u8 = 3;
/// Two sides were compared, and differ.
pub(crate) const DIFFERENT: u8 = 4;
/// Something that was named does not exist.
pub(crate) const MISSING: u8 = 10;
/// Another run holds the lock.
pub(crate) const LOCKED: u8 = 11;

/// The code for a failure.
pub(crate) fn code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::InvalidInput => USAGE,
        ErrorKind::NotFound => MISSING,
        ErrorKind::Locked => LOCKED,
        ErrorKind::Cancelled => signals::code().unwrap_or(FAILED),
        _ => FAILED,
    }
}
