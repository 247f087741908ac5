//! What SQLite says, in the words of the core's error.

use backup_core::{Error, ErrorKind};
use rusqlite::{ErrorCode, ffi};

/// Turns an error of SQLite into one that says `what` failed; for `map_err`.
pub(crate) fn sql(what: &str) -> impl FnOnce(rusqlite::Error) -> Error + '_ {
    move |cause| {
        let kind = kind(&cause);
        let error = Error::new(kind, what);
        let error = match kind {
            ErrorKind::Corrupt => {
                error.advise("repair the database or restore a backup of it, then try again")
            }
            ErrorKind::Unsupported => error.advise(
                "if the schema needs a function, collation or module of the application, \
                 register it in the opener; else use the native form",
            ),
            _ => error,
        };
        error.because(cause)
    }
}

fn kind(error: &rusqlite::Error) -> ErrorKind {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        // The index of a log could not be made larger, even where a database is only read.
        Some(ErrorCode::SystemIoFailure) if extended == Some(ffi::SQLITE_IOERR_SHMSIZE) => {
            ErrorKind::NoSpace
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => ErrorKind::Corrupt,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => ErrorKind::PermissionDenied,
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => ErrorKind::Io,
        Some(ErrorCode::OperationInterrupted | ErrorCode::TooBig) => ErrorKind::LimitExceeded,
        Some(ErrorCode::ConstraintViolation) => ErrorKind::Mismatch,
        _ => ErrorKind::Unsupported,
    }
}

/// The error of a database that others hold.
pub(crate) fn busy(what: &str) -> Error {
    Error::new(ErrorKind::Busy, what).advise(
        "end the long transaction of the other program, or raise the busy timeout; \
         in WAL mode (PRAGMA journal_mode=WAL) readers and writers do not exclude each other",
    )
}
