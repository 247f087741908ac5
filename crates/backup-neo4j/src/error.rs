//! What the server and its client say, as errors of this workspace.

use backup_core::{Error, ErrorKind};

/// The error behind a status code of the server.
pub(crate) fn failed(code: &str, message: &str) -> Error {
    let (kind, what) = kind(code, message);
    let mut error = Error::new(kind, what).because(format!("{code}: {message}"));
    if let Some(advice) = advice(code, message) {
        error = error.advise(advice);
    }
    error.retryable(passes(code))
}

/// Whether the same request may succeed a moment later.
fn passes(code: &str) -> bool {
    code.starts_with("Neo.TransientError.") && !is_memory(code)
}

/// After a failure to write the database takes nothing any more.
fn is_stopped(code: &str, message: &str) -> bool {
    code.ends_with(".TransactionStartFailed") && message.contains("needs to be restarted")
}

/// Of a full disk the server says no more than what it could not write: its log, or behind that the
/// store.
fn is_disk(code: &str, message: &str) -> bool {
    message.contains("No space left")
        || code.ends_with(".TransactionLogError")
        || code.ends_with(".TransactionCommitFailed") && message.contains("to the store after")
}

fn is_memory(code: &str) -> bool {
    code.contains("OutOfMemory") || code.contains("MemoryPool")
}

fn kind(code: &str, message: &str) -> (ErrorKind, &'static str) {
    use ErrorKind as K;
    let part = |number| code.split('.').nth(number).unwrap_or_default();
    let (class, group, title) = (part(1), part(2), part(3));
    if is_memory(code) {
        return (K::LimitExceeded, "a transaction needs more memory than the server gives it");
    }
    if is_disk(code, message) {
        return (K::NoSpace, "the server cannot write to its disk, which may be full");
    }
    if is_stopped(code, message) {
        return (K::Unreachable, "the database has stopped itself after a failure");
    }
    match (class, group, title) {
        ("ClientError", "Security", _) => {
            (K::PermissionDenied, "Neo4j refuses the user, the password or the request")
        }
        (_, "Database", "DatabaseNotFound") => (K::NotFound, "there is no such database"),
        (_, "Transaction", title) if title.starts_with("TransactionTimedOut") => {
            (K::LimitExceeded, "a transaction takes longer than the server lets it")
        }
        ("TransientError", "Transaction", _) => (K::Busy, "other transactions are in the way"),
        ("TransientError", ..) => (K::Busy, "the server is busy"),
        (_, "Schema", title) if title.contains("Already") => {
            (K::AlreadyExists, "a constraint or index exists already")
        }
        (_, "Schema", title) if title.contains("NotFound") => {
            (K::NotFound, "there is no such constraint or index")
        }
        (_, "Schema", title) if title.contains("Constraint") => {
            (K::Incompatible, "a constraint does not hold")
        }
        ("ClientError", "Statement" | "Procedure", _) => {
            (K::Unsupported, "the server does not understand a statement")
        }
        ("ClientError", ..) => (K::Unsupported, "the server refuses a request"),
        _ => (K::Io, "the server failed"),
    }
}

fn advice(code: &str, message: &str) -> Option<&'static str> {
    if is_memory(code) {
        return Some(
            "make batches smaller, or give the server more memory (dbms.memory.transaction.total.max, heap)",
        );
    }
    if is_disk(code, message) || is_stopped(code, message) {
        return Some(
            "see the server's log; make room where it keeps its data and start it again, then resume",
        );
    }
    if code.contains("TransactionTimedOut") {
        return Some("raise db.transaction.timeout on the server for this user, then try again");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kinds() {
        for (code, kind, retry) in [
            ("Neo.ClientError.Security.Unauthorized", ErrorKind::PermissionDenied, false),
            ("Neo.ClientError.Database.DatabaseNotFound", ErrorKind::NotFound, false),
            ("Neo.TransientError.Transaction.DeadlockDetected", ErrorKind::Busy, true),
            ("Neo.TransientError.General.DatabaseUnavailable", ErrorKind::Busy, true),
            (
                "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
                ErrorKind::LimitExceeded,
                false,
            ),
            ("Neo.DatabaseError.Transaction.TransactionLogError", ErrorKind::NoSpace, false),
            ("Neo.DatabaseError.Transaction.TransactionStartFailed", ErrorKind::Io, false),
            ("Neo.ClientError.Schema.ConstraintValidationFailed", ErrorKind::Incompatible, false),
            ("Neo.DatabaseError.Schema.ConstraintCreationFailed", ErrorKind::Incompatible, false),
            (
                "Neo.ClientError.Schema.EquivalentSchemaRuleAlreadyExists",
                ErrorKind::AlreadyExists,
                false,
            ),
            ("Neo.ClientError.Statement.SyntaxError", ErrorKind::Unsupported, false),
            ("Neo.DatabaseError.Statement.ExecutionFailed", ErrorKind::Io, false),
            ("nonsense", ErrorKind::Io, false),
        ] {
            let error = failed(code, "m");
            assert_eq!((error.kind(), error.is_retryable()), (kind, retry), "{code}");
        }
        let told = "Could not apply the transaction: #52 to the store after written to log.";
        let error = failed("Neo.DatabaseError.Transaction.TransactionCommitFailed", told);
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.report().contains("make room"), "{}", error.report());
    }
}
